// The SDK in a real Chromium, against a real server.

import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
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
  await Promise.all([alice, bob].map((page) => page.evaluate("client.reconnect()")));
  await until(bob, '(await client.messages({ user: "alice" })).length === 3');
  await until(alice, '(await client.messages({ user: "bob" })).length === 3 && client.waiting === 0');
});

test("tabs share one session by the browser's own locks, and the next takes over when the one that leads goes", async () => {
  const context = await browser.newContext();
  const tabs = [];
  for (let no = 0; no < 3; no++) {
    const page = await context.newPage();
    await page.goto(pages.url);
    await openClient(page, { user: "carol", url: server.url });
    await until(page, CONNECTED);
    tabs.push(page);
  }
  const [one, two, three] = tabs;
  await three.evaluate('client.send({ user: "dave" }, "through the first")');
  for (const tab of tabs) await until(tab, '(await client.messages({ user: "dave" }))[0]?.state === "sent"');
  await one.close();
  await three.evaluate('client.send({ user: "dave" }, "through the second")');
  await until(two, '(await client.messages({ user: "dave" })).map((message) => message.state).join() === "sent,sent"');
  await until(three, '(await client.messages({ user: "dave" })).map((message) => message.state).join() === "sent,sent"');
  assert.deepEqual(await three.evaluate('seen.filter(([type]) => type === "conflict")'), []);
  await context.close();
});

test("where UDP is swallowed a WebSocket is there soon, and first the next time", async (t) => {
  // Takes every datagram and answers none.
  const hole = createSocket("udp4");
  t.after(() => hole.close());
  await new Promise((resolve) => hole.bind(0, "127.0.0.1", () => resolve(undefined)));
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.route("**/.well-known/whimbrel", async (route) => {
    const response = await route.fetch();
    const known = await response.json();
    known.webtransport.url = `https://127.0.0.1:${hole.address().port}/wt`;
    await route.fulfill({ response, json: known });
  });
  await page.goto(pages.url);
  await openClient(page, { user: "erin", url: server.url });
  await until(page, CONNECTED);
  assert.equal(await page.evaluate("client.connection.transport"), "websocket");
  await page.reload();
  await page.evaluate("new Promise((resolve) => { const Real = WebTransport; let count = 0; window.WebTransport = class extends Real { constructor(...args) { super(...args); count += 1; } }; window.attempts = () => count; resolve(); })");
  await openClient(page, { user: "erin", url: server.url });
  await until(page, CONNECTED);
  assert.equal(await page.evaluate("attempts()"), 0, "it did not even try");
  await context.close();
});

test("what is written without a network is sent when the browser says that there is one", async () => {
  const page = await profile("frank");
  await until(page, CONNECTED);
  await page.evaluate("client.close()");
  await page.context().setOffline(true);
  await openClient(page, { user: "frank", url: server.url });
  await until(page, 'client.connection.state === "offline"');
  await page.evaluate('client.send({ user: "grace" }, "in a tunnel")');
  await page.evaluate('addEventListener("online", () => { window.then = client.connection.state; })');
  await page.context().setOffline(false);
  await until(page, CONNECTED);
  assert.equal(await page.evaluate("then"), "connecting", "the browser's word ended the wait");
  await until(page, '(await client.messages({ user: "grace" }))[0].state === "sent"');
  await page.context().close();
});
