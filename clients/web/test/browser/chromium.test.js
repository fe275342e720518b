// The SDK in a real Chromium, against a real server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openClient, until } from "../harness/chromium.js";
import { servePages } from "../harness/pages.js";
import { Server } from "../harness/server.js";

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof servePages>>} */
let pages;

before(async () => {
  [server, browser, pages] = await Promise.all([Server.start(), launch(), servePages()]);
});

after(async () => {
  await browser?.close();
  pages?.stop();
  await server?.stop();
});

/**
 * A page of its own browser profile, with a client in it.
 * @param {string} user
 */
async function profile(user) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(pages.url);
  await openClient(page, { user, url: server.url });
  return page;
}

const CONNECTED = 'client.connection.state === "connected"';

test("two users talk over WebTransport, and a reload keeps everything", async () => {
  const [alice, bob] = await Promise.all([profile("alice"), profile("bob")]);
  await Promise.all([until(alice, CONNECTED), until(bob, CONNECTED)]);
  assert.equal(await alice.evaluate("client.connection.transport"), "webtransport");
  assert.equal(await alice.evaluate('client.send({ user: "bob" }, "Are you there? 👋").then((message) => message.state)'), "sending");
  await until(bob, '(await client.messages({ user: "alice" })).length === 1');
  await bob.evaluate('client.send({ user: "alice" }, "Yes").then(() => client.markRead({ user: "alice" }, 1))');
  await until(alice, '(await client.messages({ user: "bob" })).map((message) => message.state).join() === "read,received"');
  const before = await alice.evaluate('client.messages({ user: "bob" })');
  const device = await alice.evaluate("client.device");

  await alice.reload();
  await server.kill();
  await openClient(alice, { user: "alice", url: server.url });
  assert.deepEqual(await alice.evaluate('client.messages({ user: "bob" })'), before, "from the store, without a server");
  assert.equal(await alice.evaluate("client.device"), device);
  await alice.evaluate('client.send({ user: "bob" }, "Written while the server was away")');
  await server.restart();
  await until(bob, '(await client.messages({ user: "alice" })).length === 3');
  await until(alice, '(await client.messages({ user: "bob" })).length === 3 && client.waiting === 0');
});
