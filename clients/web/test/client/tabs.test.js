// Several tabs of one browser: one session, one store, one outbox; whoever leads may close, crash or be frozen at any moment.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeAll, openTab, until } from "../harness/client.js";
import { FakeBrowser } from "../harness/environment.js";
import { Server } from "../harness/server.js";

/** @type {Server} */
let server;
before(async () => void (server = await Server.start()));
after(async () => {
  await closeAll();
  await server?.stop();
});

let users = 0;
const someone = (/** @type {string} */ name) => `${name}${++users}`;

/**
 * Tabs of one user in one browser; the first leads.
 * @param {number} count
 * @param {string} user
 */
async function tabsOf(count, user) {
  const browser = new FakeBrowser();
  const tabs = [];
  for (let no = 0; no < count; no++) tabs.push(await openTab({ user, url: server.url }, browser));
  for (const tab of tabs) await tab.connected();
  return { browser, tabs, open: () => openTab({ user, url: server.url }, browser) };
}

const dials = (/** @type {Awaited<ReturnType<typeof openTab>>[]} */ tabs) => tabs.map((tab) => tab.env.dials);

test("tabs share one session, and all of them see everything", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const { tabs } = await tabsOf(3, a);
  const [one, two, three] = tabs;
  assert.deepEqual(dials(tabs), [1, 0, 0], "one connects");
  assert.equal(one.client.device, three.client.device);
  const bob = await openTab({ user: b, url: server.url });
  await bob.connected();
  await Promise.all(tabs.map((tab, no) => tab.client.send({ user: b }, `from ${no}`)));
  await until(async () => (await bob.texts(a)).length === 3, "each tab's arrives");
  for (const tab of tabs) await until(async () => (await tab.states(b)).join() === "delivered,delivered,delivered", "each tab sees it");
  await bob.client.send({ user: a }, "to all");
  for (const tab of tabs) await until(() => tab.of("message").some(({ text }) => text === "to all"), "each tab is told");
  // What only the server knows comes through the tab that leads.
  assert.ok((await three.client.onlineUsers()).includes(b));
  const { messages, more } = await two.client.loadHistory({ user: b }, { limit: 2 });
  assert.deepEqual([messages.length, more], [2, true]);
  await assert.rejects(two.client.loadHistory({ user: "nobody-at-all" }, {}), { code: "notFound" });
  two.client.watch({ users: [b] });
  await until(() => tabs.every((tab) => tab.client.presence(b) === "online"), "one watches, all know");
  three.client.typing({ user: b }, true);
  await until(() => bob.of("typing").length === 1, "a follower types");
  for (const tab of [...tabs, bob]) await tab.client.close();
});

test("when the tab that leads closes, the next takes over, and nothing is lost", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const { tabs } = await tabsOf(3, a);
  const bob = await openTab({ user: b, url: server.url });
  await bob.connected();
  const expected = [];
  for (const [no, tab] of tabs.entries()) {
    const last = tabs[tabs.length - 1];
    for (let at = 0; at < 10; at++) {
      expected.push(`${no}/${at}`);
      await last.client.send({ user: b }, `${no}/${at}`);
    }
    if (tab !== last) await tab.client.close();
  }
  await until(async () => (await bob.texts(a)).length === expected.length, "all arrive");
  assert.deepEqual(await bob.texts(a), expected);
  assert.deepEqual(tabs[2].of("conflict"), []);
  await tabs[2].client.close();
  await bob.client.close();
});

test("when the tab that leads crashes, the next takes over, and asks again what was asked", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const { tabs } = await tabsOf(2, a);
  const [one, two] = tabs;
  await two.client.send({ user: b }, "before");
  await until(async () => (await two.states(b))[0] === "sent", "it is sent");
  // The leader dies without a word: it neither hears nor says anything more, and its connection stays as it is.
  crash(one);
  const asked = two.client.loadHistory({ user: b }, {});
  const sent = two.client.send({ user: b }, "while nobody leads");
  /** @type {any} */ (one.env.locks).crash();
  assert.equal((await asked).messages[0].text, "before");
  await sent;
  await until(async () => (await two.states(b)).join() === "sent,sent", "it is sent");
  assert.deepEqual(two.of("conflict"), []);
  await two.client.close();
  await one.client.close();
});

/**
 * The tab does nothing any more, as if its process had ended.
 * @param {Awaited<ReturnType<typeof openTab>>} tab
 */
function crash(tab) {
  const [channel] = tab.env.channels;
  channel.onmessage = null;
  channel.postMessage = () => {};
}

test("a tab that is frozen lets another lead, and follows when it wakes", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const { tabs } = await tabsOf(2, a);
  const [one, two] = tabs;
  one.env.emit("freeze");
  await until(() => two.env.dials === 1 && two.client.connection.state === "connected", "the other leads");
  await two.client.send({ user: b }, "x");
  await until(async () => (await two.states(b))[0] === "sent", "it is sent");
  one.env.emit("resume");
  await until(() => one.client.connection.state === "connected", "it follows");
  assert.equal(one.env.dials, 1);
  await one.client.send({ user: b }, "y");
  await until(async () => (await one.states(b)).join() === "sent,sent", "through the other");
  for (const tab of tabs) await tab.client.close();
});

test("many tabs that write at once number nothing twice", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const { tabs } = await tabsOf(4, a);
  const bob = await openTab({ user: b, url: server.url });
  await bob.connected();
  const writes = tabs.flatMap((tab, no) => Array.from({ length: 25 }, (_, at) => tab.client.send({ user: b }, `${no}/${at}`)));
  // The leader changes in the midst of it.
  await tabs[0].client.send({ user: b }, "0/first");
  tabs[0].env.emit("freeze");
  await Promise.all(writes);
  await until(async () => (await bob.texts(a)).length === 101, "all arrive");
  const texts = await bob.texts(a);
  for (const no of [0, 1, 2, 3]) {
    const own = texts.filter((text) => text.startsWith(`${no}/`) && text !== "0/first");
    assert.deepEqual(own, Array.from({ length: 25 }, (_, at) => `${no}/${at}`), "each tab's in its order");
  }
  await until(() => tabs[1].client.waiting === 0, "nothing waits");
  for (const tab of [...tabs, bob]) await tab.client.close();
});
