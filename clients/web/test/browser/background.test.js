// Pages that are suspended, in a real Chromium, and what others see of their users. The server's grace is an hour: who is shown offline before
// that has said so.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openClient, until } from "../harness/chromium.js";
import { until as eventually } from "../harness/client.js";
import { servePages } from "../harness/pages.js";
import { Server } from "../harness/server.js";
import { FORGETS_PAGES, tabs } from "../harness/tab.js";

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof servePages>>} */
let pages;
/** Another site. @type {Awaited<ReturnType<typeof servePages>>} */
let elsewhere;
/** @type {Awaited<ReturnType<typeof tabs>>} */
let profile;
/** Somebody who watches everybody. @type {Awaited<ReturnType<(typeof profile)["open"]>>} */
let watcher;

before(async () => {
  [server, browser, pages, elsewhere] = await Promise.all([
    Server.start(["--presence-grace", "3600"]), launch([], [FORGETS_PAGES]), servePages(), servePages(),
  ]);
  profile = await tabs(browser);
  watcher = await tab("watcher");
  await watcher.evaluate("client.watch({ everyone: true })");
});

after(async () => {
  await browser?.close();
  pages?.stop();
  elsewhere?.stop();
  await server?.stop();
});

const CONNECTED = 'client.connection.state === "connected"';

/**
 * A tab with a client in it, before all others.
 * @param {string} user
 * @param {string} [transport]
 */
async function tab(user, transport) {
  const opened = await profile.open(pages.url);
  await openClient(opened, { user, url: server.url, transport });
  await until(opened, CONNECTED);
  return opened;
}

const online = async () => (await (await fetch(`${server.url}/api/online-users`)).json()).users.map((/** @type {any} */ { id }) => id);

/** The server is of this opinion, and tells it. @param {string} user @param {"online" | "offline"} state */
const seen = (user, state) => until(watcher, `client.presence("${user}") === "${state}"`);

/** How many sessions there are. */
const sessions = async () => {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return [...metrics.matchAll(/^whimbrel_sessions\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
};

/** How many locks are held for dave, and how many waited for. */
const LOCKS = `navigator.locks.query().then((all) => [all.held, all.pending].map((locks) => locks.filter(({ name }) => name.endsWith("/dave")).length))`;

/** What the watcher was told of somebody. @param {string} user */
const told = (user) => watcher.evaluate(`seen.flatMap(([type, { user, state }]) => (type === "presence" && user === "${user}" ? [state] : []))`);

for (const transport of ["webtransport", "websocket"]) {
  test(`${transport}: when background() is over nobody sees the user online, and when foreground() is everybody does`, async () => {
    const user = `alice-${transport}`;
    const alice = await tab(user, transport);
    await seen(user, "online");
    await alice.evaluate("seen.length = 0");
    for (let round = 0; round < 3; round++) {
      await alice.evaluate("client.background()");
      assert.ok(!(await online()).includes(user));
      await seen(user, "offline");
      await alice.evaluate("client.foreground()");
      assert.ok((await online()).includes(user));
      await seen(user, "online");
    }
    assert.deepEqual(await alice.evaluate('seen.filter(([type]) => type === "connection")'), [], "in one session");
    await alice.close();
  });

  test(`${transport}: a page that Chromium freezes is shown offline, also while it is woken behind others, and online when it is seen`, async () => {
    const user = `bob-${transport}`;
    const bob = await tab(user, transport);
    await seen(user, "online");
    await bob.freeze();
    await seen(user, "offline");
    await watcher.toFront();
    await bob.resume();
    await until(bob, `document.hidden && ${CONNECTED}`);
    assert.ok(!(await online()).includes(user));
    // It is there all the same.
    await watcher.evaluate(`client.send({ user: "${user}" }, "Are you there?")`);
    await until(bob, '(await client.messages({ user: "watcher" })).length === 1');
    assert.ok(!(await online()).includes(user));
    await bob.toFront();
    await seen(user, "online");
    await bob.close();
  });
}

test("a page that is only hidden behind another stays online", async () => {
  const carol = await tab("carol");
  await seen("carol", "online");
  await watcher.toFront();
  await until(carol, "document.hidden");
  // Behind whatever it may have said.
  await carol.evaluate('client.send({ user: "erin" }, "still here")');
  await until(carol, 'client.waiting === 0');
  assert.ok((await online()).includes("carol"));
  await carol.close();
});

test("a frozen page that held the lock hands it on, and one that is closed does not keep its user online", async () => {
  const one = await tab("dave");
  const two = await tab("dave");
  await seen("dave", "online");
  assert.deepEqual(await two.evaluate(LOCKS), [1, 1]);
  await one.freeze();
  await two.toFront();
  await two.evaluate('client.send({ user: "erin" }, "through the second")');
  await until(two, '(await client.messages({ user: "erin" }))[0]?.state === "sent"');
  assert.deepEqual([await two.evaluate(LOCKS), await told("dave")], [[1, 0], ["online"]], "and nobody noticed");
  await one.resume();
  await one.toFront();
  await until(one, `!document.hidden && ${CONNECTED}`);
  // Through the other, behind its word that it is seen.
  await one.evaluate("client.onlineUsers()");
  await two.evaluate("client.background()");
  assert.ok((await online()).includes("dave"), "the other page is there");
  await one.close();
  await seen("dave", "offline");
  await two.close();
});

test("who leaves for another site is offline until they come back, who goes on within the site is not", async () => {
  const frank = await tab("frank");
  await seen("frank", "online");
  await frank.evaluate("globalThis.mark = 1");
  await frank.goto(`${elsewhere.url}?away`);
  await seen("frank", "offline");
  await frank.goBack();
  assert.equal(await frank.evaluate("globalThis.mark"), 1, "the very same page");
  await seen("frank", "online");
  await until(frank, CONNECTED);
  const [before, together] = [await told("frank"), await sessions()];
  await frank.goto(`${pages.url}?next`);
  // Its last word is through then.
  await eventually(async () => (await sessions()) < together, "the page's session ends");
  assert.ok((await online()).includes("frank"));
  await frank.goBack();
  await until(frank, CONNECTED);
  assert.deepEqual(await told("frank"), before);
  await frank.close();
});
