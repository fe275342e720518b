// A page that is suspended: the server knows at once and in each session, and no tab speaks for another. Under a clock of its own.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { end, MINUTE, settle, welcomed, world } from "../harness/timed.js";

/** @typedef {import("../harness/timed.js").Socket} Socket */

afterEach(end);

/** What a server was told of the device, in order; "?" wants an answer. @param {Socket} socket */
const heard = (socket) => socket.said.flatMap((frame) => {
  if ("hello" in frame) {
    const { extensions } = frame.hello;
    if (extensions.length === 0) return ["hello"];
    assert.deepEqual(extensions, [{ key: 1, value: Uint8Array.of(1, 0) }], "background, and the server's own time");
    return ["hello from the background"];
  }
  if ("ping" in frame) return ["?"];
  if (!("signal" in frame && "state" in frame.signal)) return [];
  const { background, askAfterS } = frame.signal.state;
  assert.equal(askAfterS, 0, "the server's own time");
  return [background ? "background" : "foreground"];
});

/** The server answers what it was asked last. @param {Socket} socket */
async function answers(socket) {
  for (const frame of [...socket.said].reverse()) {
    if (!("ping" in frame)) continue;
    socket.hear({ pong: frame.ping });
    return settle();
  }
  return assert.fail("it was not asked");
}

/** Whether a promise is fulfilled by now. @param {Promise<unknown>} promise */
function watched(promise) {
  const state = { over: false };
  void promise.then(() => (state.over = true));
  return state;
}

test("an application that is suspended says so at once, and knows when its server does", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const { client } = await open();
  const [socket] = sockets;
  assert.deepEqual(heard(socket), ["hello"]);
  const suspending = watched(client.background());
  assert.deepEqual(heard(socket), ["hello", "background", "?"], "in the same breath: it may have no other");
  await pass(900);
  assert.equal(suspending.over, false, "nobody has answered");
  await answers(socket);
  assert.equal(suspending.over, true);
  const waking = watched(client.foreground());
  assert.deepEqual(heard(socket).slice(3), ["foreground", "?"]);
  await settle();
  assert.equal(waking.over, false);
  await answers(socket);
  assert.deepEqual([waking.over, sockets.length], [true, 1]);
});

test("an answer to an earlier question does not show that the server knows", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const tab = await open();
  const [socket] = sockets;
  let number = 0;
  tab.env.random = () => ++number / 100;
  tab.env.emit("focus");
  const [asked] = socket.said.flatMap((frame) => ("ping" in frame ? [frame.ping] : []));
  const suspending = watched(tab.client.background());
  socket.hear({ pong: asked });
  await settle();
  assert.equal(suspending.over, false);
  await answers(socket);
  assert.equal(suspending.over, true);
});

test("each later session begins with it, until somebody is there again", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const { client } = await open();
  void client.background();
  // The answer is lost with the connection: the next hello is the news, and its welcome the answer.
  const suspending = watched(client.background());
  sockets[0].breaks();
  await pass(3_000);
  assert.deepEqual(heard(sockets[1]), ["hello from the background"]);
  assert.deepEqual([client.connection.state, suspending.over], ["connected", true]);
  sockets[1].breaks();
  await pass(3_000);
  assert.deepEqual(heard(sockets[2]), ["hello from the background"]);
  void client.foreground();
  assert.deepEqual(heard(sockets[2]).slice(1), ["foreground", "?"]);
  sockets[2].breaks();
  await pass(3_000);
  assert.deepEqual(heard(sockets[3]), ["hello"]);
});

test("what changes between hello and welcome is told after that", async () => {
  const { open, sockets } = world({ answer: () => undefined });
  const { client } = await open();
  const [socket] = sockets;
  const suspending = watched(client.background());
  await settle();
  assert.deepEqual([heard(socket), suspending.over], [["hello"], false]);
  socket.hear(welcomed(client.user));
  await settle();
  assert.deepEqual([heard(socket), suspending.over], [["hello", "background", "?"], false]);
  await answers(socket);
  assert.equal(suspending.over, true);
});

test("who is suspended without a connection does not wait for one", async () => {
  const { open, pass } = world();
  const { client } = await open();
  await pass(MINUTE);
  assert.equal(client.connection.state, "offline");
  const suspending = watched(client.background());
  await settle();
  assert.equal(suspending.over, true);
});

test("who is suspended while a connection is being made waits until it is not, five seconds at most", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const { client, env } = await open();
  /** Connections that neither open nor fail. @type {any[]} */
  const hanging = [];
  env.WebSocket = /** @type {any} */ (class {
    constructor() {
      hanging.push(this);
    }

    close() {}
  });
  sockets[0].breaks();
  await pass(3_000);
  const first = watched(client.background());
  await pass(1_000);
  assert.equal(first.over, false);
  hanging.at(-1).onerror();
  await settle();
  assert.equal(first.over, true, "there is none");
  client.reconnect();
  const second = watched(client.background());
  await pass(4_900);
  assert.equal(second.over, false);
  await pass(200);
  assert.equal(second.over, true, "systems do not give more time");
});

test("where the server has thrown the device out there is nothing to wait for, and a client that is closed says nothing", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const { client } = await open();
  const suspending = watched(client.background());
  sockets[0].hear({ error: { code: "replaced", message: "by another", retryAfterMs: 0 } });
  await settle();
  assert.deepEqual([client.connection.state, suspending.over], ["ended", true]);
  const again = watched(client.background());
  await settle();
  assert.equal(again.over, true);
  await client.close();
  const late = watched(client.foreground());
  await settle();
  assert.deepEqual([late.over, sockets.length], [true, 1]);
});

test("where there can be no connection there is nothing to wait for", async () => {
  const { open } = world({ answer: welcomed });
  const { client, env } = await open(false, "webtransport");
  assert.equal(client.connection.state, "ended");
  let arrive = () => {};
  env.fetch = () => new Promise((resolve) => (arrive = () => resolve(new Response(null, { status: 404 }))));
  client.reconnect();
  const suspending = watched(client.background());
  await settle();
  assert.equal(suspending.over, false, "it is tried");
  arrive();
  await settle();
  assert.deepEqual([client.connection.error?.code, suspending.over], ["unsupportedTransport", true]);
});

test("nothing is hasty while the page is suspended, though it can be seen; with somebody there everything is", async () => {
  const { open, pass, waits, triesAt, sockets, network } = world({ answer: welcomed });
  const { client, env } = await open();
  assert.equal(env.isHidden, false);
  void client.background();
  await answers(sockets[0]);
  const before = heard(sockets[0]).length;
  await pass(24_900);
  assert.equal(heard(sockets[0]).length, before, "the silence is borne");
  await pass(200);
  assert.deepEqual(heard(sockets[0]).slice(before), ["?"]);
  await answers(sockets[0]);
  network.reached = false;
  sockets[0].breaks();
  await pass(3 * MINUTE);
  const suspended = await waits(3 * MINUTE);
  assert.ok(suspended.length > 0 && Math.min(...suspended) > 29_000, `${suspended}`);
  assert.equal(await triesAt(() => void client.foreground()), 1, "at once");
  await pass(MINUTE);
  assert.ok(Math.max(...await waits(MINUTE)) <= 4_100);
});

test("a connection that died meanwhile is found dead a second after somebody is there again", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const { client } = await open();
  void client.background();
  await answers(sockets[0]);
  await pass(10_000);
  const waking = watched(client.foreground());
  await pass(900);
  assert.deepEqual([sockets.length, waking.over], [1, false]);
  await pass(200);
  assert.equal(sockets.length, 2, "another one is made");
  assert.deepEqual([heard(sockets[1]), waking.over], [["hello"], true]);
});

test("a page that is merely hidden is not suspended", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const tab = await open();
  tab.env.isHidden = true;
  tab.env.emit("visibilitychange");
  await pass(10 * MINUTE);
  assert.deepEqual(sockets.flatMap(heard).filter((word) => /background/.test(word)), []);
});

test("the device is in the background when every tab is, and not one that is closed", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const one = await open();
  const two = await open();
  const [socket] = sockets;
  const first = watched(two.client.background());
  await settle();
  assert.deepEqual([heard(socket), first.over], [["hello"], true], "the other tab is there, and the server knows that");
  const second = watched(one.client.background());
  assert.deepEqual(heard(socket).splice(1), ["background", "?"]);
  await answers(socket);
  assert.equal(second.over, true);
  const said = () => heard(socket).splice(3).filter((word) => word !== "?");
  const waking = watched(two.client.foreground());
  await settle();
  assert.deepEqual([said(), waking.over], [["foreground"], false], "one is enough, though another tab leads");
  await answers(socket);
  assert.equal(waking.over, true);
  two.env.isHidden = true;
  two.env.emit("pagehide", { persisted: false });
  // What a page that goes hears last.
  two.env.emit("visibilitychange");
  await settle();
  assert.deepEqual(said(), ["foreground", "background"]);
  const three = await open();
  assert.deepEqual(said(), ["foreground", "background", "foreground"], "a new tab is there");
  await three.client.close();
  await settle();
  assert.deepEqual(said(), ["foreground", "background", "foreground", "background"]);
  assert.equal(sockets.length, 1, "all of it in one session");
});

test("somebody who turns to a tab that follows has the connection looked at once, and not twice", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const one = await open(true);
  const two = await open(true);
  const [socket] = sockets;
  void Promise.all([one.client.background(), two.client.background()]);
  await settle();
  await answers(socket);
  const before = heard(socket).length;
  void two.client.foreground();
  await settle();
  assert.deepEqual(heard(socket).slice(before), ["foreground", "?"]);
  await pass(1_100);
  assert.equal(sockets.length, 2, "a second without an answer, as after any hint");
});

test("a follower's word is known to the next tab that leads, which says it for both", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const one = await open();
  const two = await open();
  void one.client.background();
  const word = watched(two.client.background());
  await settle();
  assert.deepEqual([heard(sockets[0]).slice(1), word.over], [["background", "?"], false]);
  /** @type {any} */ (one.env.locks).crash();
  await settle();
  assert.deepEqual([heard(sockets[1]), word.over], [["hello from the background"], true]);
});

test("a page that is frozen tells the server before it lets go of the connection, and stays suspended until it is seen", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const { env, client } = await open();
  env.isHidden = true;
  env.emit("visibilitychange");
  const before = heard(sockets[0]).length;
  env.emit("freeze");
  assert.deepEqual(heard(sockets[0]).slice(before), ["background", "?"], "in the same breath");
  await settle();
  assert.equal(sockets[0].readyState, 3, "the connection is closed");
  // Woken for a moment behind everybody's back: it takes what came, and nobody looks online.
  env.emit("resume");
  await settle();
  assert.deepEqual(heard(sockets[1]), ["hello from the background"]);
  env.emit("freeze");
  await settle();
  assert.deepEqual([heard(sockets[1]).filter((word) => word !== "?"), sockets[1].readyState], [["hello from the background"], 3]);
  env.emit("resume");
  await settle();
  env.isHidden = false;
  env.emit("visibilitychange");
  assert.deepEqual(heard(sockets[2]).slice(0, 3), ["hello from the background", "foreground", "?"]);
  await answers(sockets[2]);
  assert.equal(client.connection.state, "connected");
});

test("a page that wakes in somebody's sight begins in the foreground", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const { env } = await open();
  env.emit("freeze");
  await settle();
  env.emit("resume");
  await settle();
  assert.deepEqual(heard(sockets[1]), ["hello"]);
});

test("where the tab that leads is frozen and another is not, that one leads, and the user stays online", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const one = await open();
  const two = await open();
  one.env.isHidden = true;
  one.env.emit("freeze");
  await settle();
  assert.deepEqual([heard(sockets[0]), sockets[0].readyState], [["hello"], 3]);
  assert.deepEqual([heard(sockets[1]), two.client.connection.state], [["hello"], "connected"]);
  const suspending = watched(two.client.background());
  assert.deepEqual(heard(sockets[1]).slice(1), ["background", "?"], "one that is frozen does not count");
  await answers(sockets[1]);
  assert.equal(suspending.over, true);
});

test("where the last tab of several is frozen, the server is told", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const one = await open(true);
  const two = await open(true);
  two.env.emit("freeze");
  await settle();
  assert.deepEqual(heard(sockets[0]), ["hello"]);
  one.env.emit("freeze");
  assert.deepEqual(heard(sockets[0]), ["hello", "background", "?"]);
  await settle();
  assert.equal(sockets[0].readyState, 3);
  two.env.isHidden = false;
  two.env.emit("resume");
  await settle();
  assert.deepEqual(heard(sockets[1]), ["hello"]);
});

test("a page that is kept for the way back is suspended, one that goes is not, nor one that the next page of the site follows", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const { env } = await open();
  const kept = { persisted: true };
  /** What the server hears when somebody leaves the page. @param {object | null} activation @param {object} how */
  const leaves = async (activation, how) => {
    const last = /** @type {Socket} */ (sockets.at(-1));
    const before = heard(last).length;
    env.emit("pageswap", { activation });
    env.emit("pagehide", how);
    env.isHidden = true;
    env.emit("visibilitychange");
    if (how === kept) env.emit("freeze");
    await settle();
    assert.equal(last.readyState, 3);
    return heard(last).slice(before);
  };
  /** … and when they come back. */
  const comesBack = async () => {
    env.emit("resume");
    env.emit("pageshow", kept);
    await settle();
    env.isHidden = false;
    env.emit("visibilitychange");
    const next = /** @type {Socket} */ (sockets.at(-1));
    await answers(next);
    return heard(next).filter((word) => word !== "?");
  };
  assert.deepEqual(await leaves(null, kept), ["background", "?"]);
  assert.deepEqual(await comesBack(), ["hello from the background", "foreground"]);
  assert.deepEqual(await leaves({}, kept), [], "its successor may be there in a moment");
  assert.deepEqual(await comesBack(), ["hello"]);
  env.emit("freeze");
  assert.deepEqual(heard(sockets[2]).slice(-2), ["background", "?"], "nobody follows it now");
  await settle();
  await comesBack();
  assert.deepEqual(await leaves(null, { persisted: false }), [], "it may be a reload");
});

test("what the browser says of its page does not undo what the application says", async () => {
  const { open, sockets } = world({ answer: welcomed });
  const { env, client } = await open();
  void client.background();
  await answers(sockets[0]);
  env.emit("freeze");
  await settle();
  env.emit("resume");
  env.emit("pageshow", { persisted: true });
  env.emit("focus");
  await settle();
  assert.deepEqual(heard(sockets[1]).filter((word) => word !== "?"), ["hello from the background"]);
  void client.foreground();
  await settle();
  assert.deepEqual(heard(sockets[1]).filter((word) => word !== "?").slice(1), ["foreground"]);
});
