// Sessions that begin over a WebSocket and move to WebTransport, under a clock of their own. Nothing here waits.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { encodeServerFrame } from "../../src/codec/index.js";
import { HEAD_START } from "../../src/link/race.js";
import { Upgrade } from "../../src/upgrade.js";
import { end, pass, SECOND, world } from "../harness/moving.js";

/** @typedef {Awaited<ReturnType<ReturnType<typeof world>["open"]>>} Tab */

afterEach(end);

/** @param {Tab} tab */
const states = (tab) => tab.of("connection").map(({ state, transport }) => (state === "connected" ? transport : state));
/** The times from each to the next, in seconds. @param {number[]} times */
const waits = (times) => times.slice(1).map((at, no) => Math.round((at - times[no]) / SECOND));

test("what does not get through is tried less and less often; what lasted a minute shows that it is better", () => {
  let failed = 0;
  const upgrade = new Upgrade({ open: () => new Promise(() => {}), arrived: () => {}, failed: () => (failed += 1) });
  upgrade.reset(0);
  const tried = [];
  for (let no = 0; no < 9; no++) {
    assert.equal(upgrade.poll(upgrade.at - 1), upgrade.at, "not before it is time");
    const now = upgrade.at;
    assert.equal(upgrade.poll(now), Infinity);
    assert.equal(upgrade.poll(now + 10_000_000), Infinity, "one at a time");
    upgrade.stop();
    tried.push((upgrade.at - now) / SECOND);
  }
  assert.deepEqual(tried, [8, 32, 128, 512, 2_048, 3_600, 3_600, 3_600, 3_600]);
  const now = upgrade.at;
  upgrade.onEnd(59_000, now);
  upgrade.onSession(now);
  assert.equal(upgrade.at, now + 3_600_000, "a session that does not last changes nothing");
  upgrade.onEnd(60_000, now);
  assert.equal(upgrade.at, now + 2_000);
  assert.equal(failed, 0, "none failed: they were stopped");
});

test("where UDP is dropped the first connection takes 200 ms longer than over a WebSocket, and the next no longer, for an hour", async () => {
  const { server, net, open } = world();
  const [RACE, HOUR] = [HEAD_START, 3_600_000];
  assert.ok(RACE <= 200);
  const begun = Date.now();
  /** Opens a tab after so long, and says when it said hello and when it tried WebTransport. @param {number} ms */
  const next = async (ms) => {
    mock.timers.setTime(Date.now() + ms);
    const [hellos, tried, now] = [server.hellos.length, net.tried.length, Date.now()];
    const tab = await open();
    await pass(RACE);
    assert.equal(tab.client.connection.transport, "websocket");
    await tab.client.close();
    return [server.hellos.slice(hellos).map(([, at]) => at - now), net.tried.slice(tried).map((at) => at - now)];
  };
  assert.deepEqual(await next(0), [[RACE], [0]]);
  assert.deepEqual(await next(0), [[0], []]);
  assert.deepEqual(await next(begun + HOUR - Date.now() - SECOND), [[0], []]);
  assert.deepEqual(await next(begun + HOUR + SECOND - Date.now()), [[RACE], [0]]);
  assert.deepEqual(await next(0), [[0], []], "another hour");
});

test("a session that began over a WebSocket moves two seconds later, is told once, and nothing is lost or doubled", async () => {
  const { server, net, open } = world();
  const tab = await open();
  await pass(SECOND);
  assert.deepEqual(states(tab), ["websocket"]);
  net.udp = true;
  const sent = [];
  for (let no = 0; tab.client.connection.transport === "websocket" || no < 100; no++) {
    assert.ok(no < 1_000, "it does not move");
    sent.push(`text ${no}`);
    await tab.client.send({ user: "bob" }, `text ${no}`);
    mock.timers.tick(37);
    if (no % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await pass(SECOND);
  assert.deepEqual(states(tab), ["websocket", "webtransport"]);
  assert.deepEqual(server.hellos.map(([transport]) => transport), ["websocket", "webtransport"]);
  assert.deepEqual(server.texts, sent);
  assert.deepEqual(net.open.map(({ transport }) => transport), ["webtransport"], "no link is left behind");
});

test("what comes while a session moves is told as what comes before and after, also where the first that it moves to is mute", async () => {
  for (const works of [true, false]) {
    const { server, net, open } = world();
    const tab = await open();
    await pass(SECOND);
    [net.udp, server.answers.webtransport] = [true, works];
    server.message("before");
    let closed = 0;
    net.onclose = () => server.message(`while ${closed++}`);
    await pass(6 * SECOND);
    net.onclose = () => {};
    server.message("after");
    await pass(SECOND);
    const expected = ["before", "while 0", ...(works ? [] : ["while 1"]), "after"];
    assert.deepEqual(tab.of("message").map(({ text }) => text), expected);
    assert.deepEqual(await tab.texts("bob"), expected);
    assert.equal(server.hellos.length, works ? 2 : 3);
    await end();
  }
});

test("whatever happens while a session moves, nothing else is tried, and nobody hears of a connection that is gone", async () => {
  /** @type {[string, (tab: Tab) => unknown][]} */
  const happenings = [
    ["somebody turns to the page", (tab) => tab.env.emit("focus")],
    ["the page is seen", (tab) => tab.env.emit("visibilitychange")],
    ["somebody writes", (tab) => tab.client.send({ user: "bob" }, "now")],
    ["somebody types", (tab) => tab.client.typing({ user: "bob" }, true)],
    ["the user wants another connection", (tab) => tab.client.reconnect()],
    ["somebody asks", (tab) => void tab.client.onlineUsers().catch(() => {})],
  ];
  for (const [what, happen] of happenings) {
    const { server, net, open } = world();
    const tab = await open();
    await pass(SECOND);
    net.udp = true;
    let happened = 0;
    // The old link is closed while there is no session.
    net.onclose = () => {
      if (happened++ === 0) void happen(tab);
    };
    await pass(5 * SECOND);
    assert.ok(happened > 0, what);
    assert.deepEqual(states(tab), ["websocket", "webtransport"], what);
    assert.deepEqual(server.hellos.map(([transport]) => transport), ["websocket", "webtransport"], what);
    await end();
  }
});

test("where UDP is dropped it is tried after 2, 8, 32 … seconds, while somebody looks; another network is a reason to begin anew", async () => {
  const { server, net, open } = world();
  const tab = await open();
  await pass(250 * SECOND);
  // The first is the one that lost the race.
  assert.deepEqual([net.tried.length, waits(net.tried)], [5, [2, 8, 32, 128]]);
  tab.env.isHidden = true;
  tab.env.emit("visibilitychange");
  await pass(900 * SECOND);
  assert.equal(net.tried.length, 5, "nobody looks");
  tab.env.isHidden = false;
  tab.env.emit("visibilitychange");
  await pass(SECOND);
  assert.equal(net.tried.length, 6, "it is overdue");
  tab.env.emit("online");
  await pass(2_100);
  assert.equal(net.tried.length, 7, "and again, although the one before is not over");
  assert.deepEqual(states(tab), ["websocket"]);
  assert.equal(server.hellos.length, 1);
});

test("a session that is lost while something better is tried begins anew at once, over what works", async () => {
  const { server, net, open } = world();
  const tab = await open();
  await pass(2_500);
  assert.equal(net.tried.length, 2, "it is under way");
  net.open[0].die();
  await pass(SECOND);
  assert.equal(tab.client.connection.transport, "websocket");
  assert.deepEqual(server.hellos.map(([transport]) => transport), ["websocket", "websocket"]);
  net.udp = true;
  await pass(20 * SECOND);
  assert.equal(tab.client.connection.transport, "webtransport");
});

test("a better link that comes when its session is gone, or in doubt and replaced, begins nothing", async () => {
  const away = world();
  let tab = await away.open();
  await pass(2_500);
  away.net.open[0].answer(encodeServerFrame({ goAway: { retryAfterMs: 60_000, message: "a restart" } }));
  away.net.heal();
  await pass(50 * SECOND);
  assert.deepEqual([away.server.hellos.length, tab.client.connection.state], [1, "offline"], "the server asked for patience");
  assert.deepEqual(away.net.open, []);
  await end();
  const { server, net, open } = world();
  tab = await open();
  await pass(2_500);
  assert.equal(net.tried.length, 2, "it is under way");
  // What is said there goes nowhere from now on.
  net.open[0].hear = () => {};
  tab.env.emit("focus");
  await pass(1_500);
  assert.equal(server.hellos.length, 2);
  net.heal();
  await pass(SECOND);
  assert.deepEqual(server.hellos.map(([transport]) => transport), ["websocket", "websocket"]);
  assert.deepEqual(net.open.map(({ transport }) => transport), ["websocket"]);
});

test("a path that lets handshakes through and then nothing costs two seconds, less and less often, and nobody is told", async () => {
  const { server, net, open } = world();
  const tab = await open();
  await pass(SECOND);
  [net.udp, server.answers.webtransport] = [true, false];
  // What was remembered of the WebSocket is so long ago that it does not count: else it would go first anyway.
  tab.env.time = () => Date.now() + 3_600_000;
  await pass(2 * SECOND);
  assert.equal(server.hellos.length, 2, "it moves");
  await tab.client.send({ user: "bob" }, "through");
  await pass(2 * SECOND);
  assert.deepEqual(server.texts, ["through"]);
  await pass(120 * SECOND);
  const over = server.hellos.filter(([transport]) => transport === "webtransport").map(([, at]) => at);
  assert.deepEqual(waits(over), [10, 34], "2 s each, then 8 and 32");
  assert.deepEqual(states(tab), ["websocket"]);
  assert.deepEqual(net.open.map(({ transport }) => transport), ["websocket"]);
});

test("a session over WebTransport, or one that the application chose, is not moved", async () => {
  const { server, net, open } = world({ udp: true });
  const tab = await open();
  await pass(100 * SECOND);
  assert.deepEqual([states(tab), net.tried.length, server.hellos.length], [["webtransport"], 1, 1]);
});
