// When a client tries again, under a clock of its own: soon while somebody looks, seldom while nobody does, at once where there is a reason.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { end, MINUTE, welcomed, world } from "../harness/timed.js";

/** Longest wait while somebody looks, and while nobody does. */
const LOOKED_AT_MAX = 4_000;
const MAX = 30_000;

afterEach(end);

test("while somebody looks at the page it is tried every few seconds, however long the server is away", async () => {
  const { open, pass, waits } = world();
  const tab = await open();
  await pass(MINUTE);
  const seen = await waits(2 * MINUTE);
  assert.ok(seen.length > 20 && Math.max(...seen) <= LOOKED_AT_MAX + 100, `${seen}`);
  const offline = tab.of("connection").filter(({ state }) => state === "offline");
  assert.ok(offline.length > 20 && offline.every(({ retryAt }) => retryAt > 1_000_000), "and it is said when");
});

test("the waits are spread, so that not all come back at once", async () => {
  const all = [];
  for (const random of [0.1, 0.5, 0.9]) {
    const { open, pass, waits } = world({ random });
    await open();
    await pass(MINUTE);
    all.push(Math.max(...await waits(MINUTE)));
    await end();
  }
  assert.deepEqual(all, [400, 2_000, 3_600]);
});

test("a page that nobody looks at is patient, and tries at once when somebody does", async () => {
  const { open, pass, waits, triesAt } = world();
  const tab = await open(true);
  await pass(3 * MINUTE);
  const seen = await waits(3 * MINUTE);
  assert.ok(seen.length > 0 && Math.min(...seen) > MAX - 1_000, `${seen}`);
  tab.env.isHidden = false;
  assert.equal(await triesAt(() => tab.env.emit("visibilitychange")), 1);
  await pass(MINUTE);
  assert.ok(Math.max(...await waits(MINUTE)) <= LOOKED_AT_MAX + 100);
});

test("a page that is seen but left alone for long becomes patient too", async () => {
  const { open, pass, waits, triesAt } = world();
  const tab = await open();
  await pass(11 * MINUTE);
  const seen = await waits(3 * MINUTE);
  assert.ok(Math.min(...seen) > MAX - 1_000, `${seen}`);
  assert.equal(await triesAt(() => tab.env.emit("focus")), 1, "the window is somebody's again");
  await pass(MINUTE);
  assert.ok(Math.max(...await waits(MINUTE)) <= LOOKED_AT_MAX + 100);
});

test("network, focus, a look and a message are reasons to try at once; many messages are one reason a second", async () => {
  const { open, pass, triesAt } = world();
  const tab = await open();
  // Past the short waits of the beginning, and far from the next attempt.
  const patient = async () => {
    tab.env.isHidden = true;
    await pass(5 * MINUTE);
    const { retryAt = 0 } = tab.client.connection;
    if (retryAt - Date.now() < 5_000) await pass(retryAt - Date.now() + 2_000);
  };
  for (const reason of ["online", "focus", "pageshow"]) {
    await patient();
    tab.env.isHidden = false;
    assert.equal(await triesAt(() => tab.env.emit(reason)), 1, reason);
  }
  await patient();
  assert.equal(await triesAt(() => tab.client.send({ user: "bob" }, "one")), 1, "a message");
  assert.equal(await triesAt(() => tab.client.send({ user: "bob" }, "two")), 0, "not so soon after");
  assert.ok((tab.client.connection.retryAt ?? Infinity) <= Date.now() + 1_000, "but soon");
  assert.equal(await triesAt(() => pass(1_000)), 1);
});

test("a tab that somebody looks at makes the one that leads hurry, also where that one's timers come late", async () => {
  const { open, pass, waits } = world();
  const leader = await open(true);
  await pass(2 * MINUTE);
  const follower = await open();
  await pass(MINUTE);
  assert.deepEqual([leader.client.connection.state, follower.client.connection.state], ["offline", "offline"]);
  const seen = await waits(MINUTE);
  assert.ok(Math.max(...seen) <= LOOKED_AT_MAX + 100, `${seen}`);
  // A browser that holds back the hidden tab's timers: the other tab's note arrives all the same.
  const real = globalThis.setTimeout;
  const { now } = leader.env;
  leader.env.now = () => {
    // Only while it arms its timer the leader looks at its clock and then sets it: its own timers are lost here.
    globalThis.setTimeout = /** @type {any} */ ((/** @type {() => void} */ run, /** @type {number} */ ms) => real(run, ms + 10 * MINUTE));
    queueMicrotask(() => (globalThis.setTimeout = real));
    return now();
  };
  const late = await waits(MINUTE);
  assert.ok(late.length > 5 && Math.max(...late) <= LOOKED_AT_MAX + 1_100, `${late}`);
  // Looked at no more, by anybody.
  leader.env.now = now;
  follower.env.isHidden = true;
  follower.env.emit("visibilitychange");
  await pass(2 * MINUTE);
  assert.ok(Math.min(...await waits(2 * MINUTE)) > MAX - 1_000);
});

test("a server that asks for patience is left alone for as long, whatever happens here but its user's own wish", async () => {
  const error = { code: "overloaded", message: "too many at once", retryAfterMs: MINUTE };
  for (const answer of [{ error }, { goAway: { retryAfterMs: MINUTE, message: "a restart" } }]) {
    const { open, pass, triesAt } = world({ answer: () => answer });
    const tab = await open();
    const { state, retryAt } = tab.client.connection;
    assert.deepEqual([state, retryAt], ["offline", Date.now() + MINUTE]);
    const follower = await open();
    await pass(10_000);
    for (const reason of ["online", "change", "focus", "visibilitychange", "pageshow"]) {
      assert.equal(await triesAt(() => tab.env.emit(reason)), 0, reason);
      assert.equal(await triesAt(() => follower.env.emit(reason)), 0, `${reason} in another tab`);
    }
    assert.equal(await triesAt(() => tab.client.send({ user: "bob" }, "one")), 0, "a message");
    assert.equal(tab.client.connection.retryAt, retryAt, "and what was said of the time holds");
    assert.equal(await triesAt(() => pass(49_900)), 0);
    assert.equal(await triesAt(() => pass(200)), 1, "after the time given");
    assert.equal(await triesAt(() => tab.client.reconnect()), 1, "it is the user's to be impatient");
    // Timers may come late: what happens after the time given is a reason again.
    const { now } = tab.env;
    tab.env.now = () => now() + MINUTE;
    assert.equal(await triesAt(() => tab.env.emit("focus")), 1);
    await end();
  }
});

test("who is replaced while an attempt beside a silent connection is under way gives that attempt up", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const tab = await open();
  assert.equal(tab.client.connection.state, "connected");
  /** @type {() => void} */
  let arrive = () => {};
  tab.env.fetch = () => new Promise((resolve) => (arrive = () => resolve(new Response(null, { status: 404 }))));
  // Heard of just now it would pass for alive.
  await pass(100);
  tab.env.emit("online");
  await pass(1_200);
  sockets[0].hear({ error: { code: "replaced", message: "by another", retryAfterMs: 0 } });
  assert.equal(tab.client.connection.state, "ended");
  arrive();
  await pass(1_000);
  assert.deepEqual([sockets.length, tab.client.connection.state], [1, "ended"]);
});

test("an attempt that began on a network that is gone is not waited for when there is another one", async () => {
  const { open, pass, triesAt } = world();
  const tab = await open();
  await pass(1_000);
  let given = 0;
  tab.env.fetch = (_, init) => {
    // No answer and no refusal: the packets go nowhere.
    return new Promise((_, reject) => init?.signal?.addEventListener("abort", () => ((given += 1), reject(new TypeError("aborted")))));
  };
  await pass(10_000);
  const before = given;
  const dials = tab.env.fetch;
  let tries = 0;
  tab.env.fetch = (...args) => ((tries += 1), dials(...args));
  tab.client.reconnect();
  await triesAt(() => tab.env.emit("online"));
  assert.ok(tries >= 1 && given > before, `${tries} tries, ${given - before} given up`);
  assert.equal(tab.client.connection.state, "connecting");
});

test("a browser's word of a change is a question to the server, and no answer within a second a reason to connect anew", async () => {
  const { open, pass, sockets } = world({ answer: welcomed });
  const tab = await open();
  assert.equal(tab.client.connection.state, "connected");
  await pass(100);
  tab.env.emit("change");
  await pass(900);
  assert.equal(sockets.length, 1);
  await pass(200);
  assert.equal(sockets.length, 2, "a second without an answer");
});
