// Clients in Node against a real server, over WebSocket and an imitated IndexedDB.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { closeAll, openTab, until } from "../harness/client.js";
import { FakeBrowser } from "../harness/environment.js";
import { proxy } from "../harness/proxy.js";
import { Server } from "../harness/server.js";

/** @type {Server} */
let server;
before(async () => void (server = await Server.start()));
after(async () => {
  await closeAll();
  await server?.stop();
});

let users = 0;
/** A user that no other test has. */
const someone = (/** @type {string} */ name) => `${name}${++users}`;

test("a message is sent, delivered and read, and everybody hears of it", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const alice = await openTab({ user: a, url: server.url });
  const bob = await openTab({ user: b, url: server.url });
  await Promise.all([alice.connected(), bob.connected()]);
  const message = await alice.client.send({ user: b }, "hello 👋");
  assert.deepEqual([message.state, message.seq, message.from], ["sending", null, a]);
  await until(() => bob.of("message").length === 1, "bob is told");
  assert.equal(bob.of("message")[0].text, "hello 👋");
  await until(async () => (await alice.states(b))[0] === "delivered", "it is delivered");
  assert.equal((await alice.client.messages({ user: b }))[0].nonce, message.nonce);
  const [conversation] = await bob.client.conversations();
  assert.equal(conversation.unread, 1);
  await bob.client.markRead({ conversation: /** @type {number} */ (conversation.id) }, 1);
  assert.equal((await bob.client.conversation({ user: a }))?.unread, 0, "at once");
  await until(async () => (await alice.states(b))[0] === "read", "it is read");
  await until(() => bob.client.waiting === 0, "nothing waits");
  await Promise.all([alice.client.close(), bob.client.close()]);
});

test("what was written without a connection is sent, once and in order, when there is one", async (t) => {
  const [a, b] = [someone("alice"), someone("bob")];
  const home = await Server.start();
  t.after(() => home.stop());
  const alice = await openTab({ user: a, url: home.url });
  const bob = await openTab({ user: b, url: home.url });
  await Promise.all([alice.connected(), bob.connected()]);
  await home.kill();
  await Promise.all(Array.from({ length: 50 }, (_, no) => alice.client.send({ user: b }, `message ${no}`)));
  await until(() => alice.client.waiting === 50, "all wait");
  await home.restart();
  alice.client.reconnect();
  bob.client.reconnect();
  await until(async () => (await bob.texts(a)).length === 50, "all arrive");
  assert.deepEqual(await bob.texts(a), Array.from({ length: 50 }, (_, no) => `message ${no}`));
  await until(() => alice.client.waiting === 0, "nothing waits");
  await Promise.all([alice.client.close(), bob.client.close()]);
});

test("a server that was away for a while is found again by itself, and what waits is sent", async (t) => {
  const [a, b] = [someone("alice"), someone("bob")];
  const home = await Server.start();
  t.after(() => home.stop());
  /** @type {number[]} */
  const waits = [];
  const alice = await openTab({ user: a, url: home.url }, undefined, (env) => (env.random = () => 0.999));
  await alice.connected();
  alice.client.addEventListener("connection", (event) => {
    const { state, retryAt } = /** @type {CustomEvent} */ (event).detail;
    if (state === "offline") waits.push(retryAt - Date.now());
  });
  await home.kill();
  await alice.client.send({ user: b }, "while it is away");
  await until(() => waits.length >= 6, "the waits have grown as far as they grow");
  await home.restart();
  await until(async () => (await alice.states(b))[0] === "sent", "it is sent");
  assert.ok(Math.max(...waits) > 3_000 && Math.max(...waits) <= 4_000, `${waits}`);
  await alice.client.close();
});

test("a server that is killed again and again loses and doubles nothing", async (t) => {
  const [a, b] = [someone("alice"), someone("bob")];
  const home = await Server.start();
  t.after(() => home.stop());
  const alice = await openTab({ user: a, url: home.url });
  const bob = await openTab({ user: b, url: home.url });
  await Promise.all([alice.connected(), bob.connected()]);
  const expected = [];
  for (let round = 0; round < 4; round++) {
    const sends = [];
    for (let no = 0; no < 40; no++) {
      expected.push(`${round}/${no}`);
      sends.push(alice.client.send({ user: b }, `${round}/${no}`));
    }
    // Killed with some on their way: which ones is up to chance, and must not matter.
    await Promise.all(sends);
    await home.kill();
    await home.restart();
    alice.client.reconnect();
    bob.client.reconnect();
  }
  await until(async () => (await bob.texts(a)).length >= expected.length && alice.client.waiting === 0, "all arrive");
  assert.deepEqual(await bob.texts(a), expected);
  assert.deepEqual(await alice.texts(b), expected);
  assert.deepEqual([...alice.of("reset"), ...alice.of("conflict"), ...bob.of("reset")], []);
  await Promise.all([alice.client.close(), bob.client.close()]);
});

test("a client that is opened again has everything, without a server", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const browser = new FakeBrowser();
  const first = await openTab({ user: a, url: server.url }, browser);
  await first.connected();
  await first.client.send({ user: b }, "one");
  await until(async () => (await first.states(b))[0] === "sent", "it is sent");
  await first.client.saveDraft({ user: b }, "half a thou");
  const device = first.client.device;
  await first.client.close();
  await assert.rejects(first.client.send({ user: b }, "too late"), { code: "closed" });
  const again = await openTab({ user: a, url: "http://127.0.0.1:1" }, browser);
  assert.deepEqual(await again.texts(b), [], "another server, another store");
  await again.client.close();
  const second = await openTab({ user: a, url: server.url }, browser, (env) => {
    env.fetch = () => Promise.reject(new TypeError("no network"));
  });
  assert.equal(second.client.device, device);
  assert.deepEqual(await second.texts(b), ["one"]);
  assert.equal((await second.client.conversation({ user: b }))?.draft, "half a thou");
  await until(() => second.client.connection.state === "offline", "it says so");
  assert.equal(second.client.connection.error?.code, "unreachable");
  await assert.rejects(second.client.loadHistory({ user: b }, {}), { code: "offline" });
  await second.client.close();
});

test("typing and presence come and go", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const alice = await openTab({ user: a, url: server.url });
  await alice.connected();
  assert.equal(alice.client.presence(b), "unknown");
  alice.client.watch({ users: [b] });
  await until(() => alice.client.presence(b) === "offline", "bob is not there");
  const bob = await openTab({ user: b, url: server.url });
  await until(() => alice.client.presence(b) === "online", "bob is there");
  assert.ok((await alice.client.onlineUsers()).includes(b));
  // Of a conversation that there is not nothing can be said.
  await bob.client.send({ user: a }, "x");
  await until(async () => (await alice.texts(b)).length === 1, "they talk");
  bob.client.typing({ user: a }, true);
  bob.client.typing({ user: a }, true);
  await until(() => alice.of("typing").length > 0, "bob types");
  bob.client.typing({ user: a }, false);
  await until(() => alice.of("typing").length === 2, "bob stops");
  assert.deepEqual(alice.of("typing").map(({ user, active }) => [user, active]), [[b, true], [b, false]]);
  await Promise.all([alice.client.close(), bob.client.close()]);
});

test("history comes from the server in pages, and is kept", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const alice = await openTab({ user: a, url: server.url });
  for (let no = 1; no <= 120; no++) await alice.client.send({ user: b }, `m${no}`);
  await until(() => alice.client.waiting === 0, "all are sent");
  const bob = await openTab({ user: b, url: server.url });
  await until(async () => (await bob.texts(a)).length > 0, "the snapshot is there");
  const held = await bob.texts(a);
  assert.deepEqual(held, Array.from({ length: 20 }, (_, at) => `m${101 + at}`), "a new device begins with the latest");
  const page = await bob.client.loadHistory({ user: a }, { before: 101, limit: 50 });
  assert.deepEqual([page.messages.length, page.messages[0].text, page.more], [50, "m51", true]);
  const rest = await bob.client.loadHistory({ user: a }, { before: 51, limit: 500 });
  assert.deepEqual([rest.messages.length, rest.more], [50, false]);
  assert.equal((await bob.texts(a)).length, 120);
  const forwards = await bob.client.loadHistory({ user: a }, { after: 118 });
  assert.deepEqual([forwards.messages.map(({ text }) => text), forwards.more], [["m119", "m120"], false]);
  await assert.rejects(bob.client.loadHistory({ user: "nobody-at-all" }, {}), { code: "notFound" });
  await Promise.all([alice.client.close(), bob.client.close()]);
});

test("a device that another process runs as is told, and does not fight", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  const one = await openTab({ user: a, device: "same", url: server.url, store: "memory" });
  await one.connected();
  // Something that can be marked read afterwards.
  const bob = await openTab({ user: b, url: server.url });
  await bob.client.send({ user: a }, "hello");
  await until(async () => (await one.texts(b)).length === 1, "it arrives");
  await bob.client.close();
  const two = await openTab({ user: a, device: "same", url: server.url, store: "memory" });
  await two.connected();
  await until(() => one.client.connection.state === "ended", "the older is told");
  assert.equal(one.client.connection.error?.code, "replaced");
  const dials = one.env.dials;
  one.env.emit("online");
  one.env.emit("visibilitychange");
  await one.client.send({ user: b }, "after it was told");
  await one.client.markRead({ user: b }, 1);
  assert.equal(two.client.connection.state, "connected");
  assert.equal(one.env.dials, dials, "only its user can make it connect again");
  assert.equal(one.client.connection.state, "ended");
  assert.equal(one.client.waiting, 2, "what was written waits for that");
  one.client.reconnect();
  await one.connected();
  await until(() => two.client.connection.state === "ended", "now the other is told");
  await Promise.all([one.client.close(), two.client.close()]);
});

test("a cloned store has its name, and loses nothing", async () => {
  const [a, b] = [someone("alice"), someone("bob")];
  // The device's store is lost, but not its name: the server knows an outbox that the device does not.
  const first = await openTab({ user: a, device: "phone", url: server.url, store: "memory" });
  await first.client.send({ user: b }, "before");
  await until(async () => (await first.states(b))[0] === "sent", "it is sent");
  await first.client.close();
  const second = await openTab({ user: a, device: "phone", url: server.url, store: "memory" });
  await second.client.send({ user: b }, "after");
  await until(async () => (await second.states(b)).join() === "sent,sent", "both are there");
  assert.deepEqual(await second.texts(b), ["before", "after"]);
  await second.client.close();
});

test("what cannot be sent is refused with a reason", async () => {
  const alice = await openTab({ user: someone("alice"), url: server.url });
  await assert.rejects(alice.client.send({ user: "bob" }, "x".repeat(61_441)), { code: "tooLong" });
  await assert.rejects(alice.client.send({ user: "bob" }, " \n"), { code: "empty" });
  await assert.rejects(alice.client.send({ user: " bob" }, "x"), { code: "badArgument" });
  await assert.rejects(alice.client.send({ conversation: 77 }, "x"), { code: "notFound" });
  await assert.rejects(alice.client.retry("0".repeat(16)), { code: "notFound" });
  await assert.rejects(alice.client.markRead({ user: "bob" }, 1.5), { code: "badArgument" });
  assert.equal(alice.client.waiting, 0);
  await alice.client.close();
  const options = /** @type {any[]} */ ([{ user: "" }, { user: "a", url: "nowhere" }, { user: "a", url: server.url, transport: "smoke" }, { user: "a", url: server.url, store: "paper" }]);
  for (const wrong of options) await assert.rejects(openTab(wrong), { code: "badArgument" });
});

test("a store that cannot be had is replaced by memory, and the connection says so", async () => {
  const user = someone("alice");
  const alice = await openTab({ user, url: server.url }, undefined, (env) => (env.indexedDB = undefined));
  assert.equal(alice.client.connection.warning?.code, "storageFailed");
  await alice.connected();
  assert.equal(alice.client.connection.warning?.code, "storageFailed");
  await alice.client.close();
  const without = await openTab({ user, url: server.url }, undefined, (env) => (env.locks = undefined));
  assert.equal(without.client.connection.warning?.code, "storageUnavailable");
  await without.client.close();
});

test("a connection that falls silent is noticed, and another takes its place", async (t) => {
  const [a, b] = [someone("alice"), someone("bob")];
  const path = await proxy(server.http);
  t.after(() => path.stop());
  const alice = await openTab({ user: a, url: path.url });
  const bob = await openTab({ user: b, url: server.url });
  await Promise.all([alice.connected(), bob.connected()]);
  path.fallSilent();
  await alice.client.send({ user: b }, "into the void");
  await until(async () => (await bob.texts(a)).length === 1, "it arrives all the same");
  assert.equal(alice.env.dials, 2, "one attempt beside the old connection");
  assert.ok(!alice.of("connection").some(({ state }) => state === "offline"), "nobody was told of a break that was none");
  // A hint that the network is another one makes it quicker.
  path.fallSilent();
  alice.env.emit("online");
  await until(() => alice.env.dials === 3, "it dials");
  await alice.client.send({ user: b }, "again");
  await until(async () => (await alice.states(b)).join() === "delivered,delivered", "both arrive");
  await Promise.all([alice.client.close(), bob.client.close()]);
});

test("a probe that is answered changes nothing", async () => {
  const alice = await openTab({ user: someone("alice"), url: server.url });
  await alice.connected();
  const { dials } = alice.env;
  const before = alice.seen.length;
  for (const hint of ["online", "visibilitychange", "change", "pageshow"]) alice.env.emit(hint);
  // Whatever a probe leads to has happened when a question asked after it is answered.
  await alice.client.onlineUsers();
  assert.deepEqual([alice.env.dials, alice.seen.slice(before).filter(([type]) => type === "connection")], [dials, []]);
  await alice.client.close();
});

test("who asks for it reads along what is said in the lobby, in this tab and no other", async () => {
  const browser = new FakeBrowser();
  const user = someone("alice");
  const tab = await openTab({ user, url: server.url }, browser);
  const other = await openTab({ user, url: server.url }, browser);
  await Promise.all([tab.connected(), other.connected()]);
  other.client.watch({ lobby: true });
  const plain = new WebSocket(`ws://${server.http}/chat`);
  await once(plain, "open");
  // What was said before the server knows that it is asked for is missed.
  let lines = 0;
  await until(() => {
    if (plain.bufferedAmount === 0) plain.send(`line ${(lines += 1)}`);
    return other.of("lobby").length > 0;
  }, "the lobby is heard");
  assert.match(other.of("lobby")[0].text, /^line \d+$/);
  assert.deepEqual(tab.of("lobby"), []);
  plain.close();
  await Promise.all([tab.client.close(), other.client.close()]);
});
