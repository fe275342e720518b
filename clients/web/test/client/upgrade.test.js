// Sessions that begin over a WebSocket and move to WebTransport, under a clock of their own. Nothing here waits.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { decodeClientFrame, encodeServerFrame, FrameSplitter, withLength } from "../../src/codec/index.js";
import { Upgrade } from "../../src/upgrade.js";
import { closeAll, openTab } from "../harness/client.js";
import { FakeBrowser } from "../harness/environment.js";

const SECOND = 1_000;
/** After this long Chromium says that a path drops UDP. */
const NOTICED_AFTER = 4_500;
const NO_NONCE = "0".repeat(16);

afterEach(async () => {
  mock.timers.reset();
  await closeAll();
});

/** What is under way without a timer: reads of the store, notes between tabs. */
async function settle() {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** @param {number} ms */
async function pass(ms) {
  for (const end = Date.now() + ms; Date.now() < end; ) {
    mock.timers.tick(Math.min(100, end - Date.now()));
    await settle();
  }
}

/** A server that carries out commands, once each, and hears of one link at a time: the one that said hello last. */
class Server {
  /** @type {string[]} */
  texts = [];
  applied = 0n;
  nonce = NO_NONCE;
  /** Over what hellos came, and when. @type {[string, number][]} */
  hellos = [];
  current = 0;
  links = 0;
  /** What the user's mailbox holds. @type {any[]} */
  events = [];
  /** Says something on the link in use. @type {(frame: import("../../src/codec/frames.js").ServerFrame) => void} */
  push = () => {};
  /** Whether it answers, by transport. @type {Record<string, boolean>} */
  answers = { websocket: true, webtransport: true };

  /**
   * @param {string} transport
   * @param {(frame: Uint8Array) => void} answer
   * @returns {(frame: Uint8Array) => void}
   */
  link(transport, answer) {
    const link = ++this.links;
    return (bytes) => {
      const frame = decodeClientFrame(bytes);
      const say = (/** @type {import("../../src/codec/frames.js").ServerFrame} */ frame) => queueMicrotask(() => answer(encodeServerFrame(frame)));
      if ("hello" in frame) {
        this.hellos.push([transport, Date.now()]);
        [this.current, this.push] = [link, say];
      }
      if (!this.answers[transport]) return;
      if (this.current !== link) return say({ error: { code: "replaced", message: "by another", retryAfterMs: 0 } });
      if ("hello" in frame) {
        const cursor = frame.hello.position?.cursor ?? 0n;
        say(this.welcome(frame.hello.user, cursor));
        for (const event of this.events.slice(Number(cursor))) say({ event });
      }
      else if ("ping" in frame) say({ pong: frame.ping });
      else if ("command" in frame) {
        const { cseq, nonce, body } = /** @type {any} */ (frame.command);
        if (cseq > this.applied) {
          assert.equal(cseq, this.applied + 1n);
          [this.applied, this.nonce] = [cseq, nonce];
          this.texts.push(body.content.text);
        }
        say({ applied: { cseq: this.applied } });
      }
    };
  }

  /** @param {string} text */
  message(text) {
    const append = (/** @type {any} */ event) => {
      this.events.push({ seq: BigInt(this.events.length + 1), time: 0n, ...event });
      this.push({ event: this.events[this.events.length - 1] });
    };
    if (this.events.length === 0) append({ kind: "started", body: { conversation: 7n, kind: "direct", members: ["bob", `mover${users}`] } });
    append({ kind: "message", body: { conversation: 7n, seq: BigInt(this.events.length), from: "bob", content: { kind: "text", text } } });
  }

  /**
   * @param {string} user
   * @param {bigint} cursor
   * @returns {import("../../src/codec/frames.js").ServerFrame}
   */
  welcome(user, cursor) {
    return {
      welcome: {
        version: 1, user, sessionEpoch: BigInt(this.links), epoch: 1n, incarnation: 1n, applied: this.applied, appliedNonce: this.nonce,
        head: BigInt(this.events.length), begin: { cursor, time: 0n, snapshot: false, reset: null }, window: 16, maxText: 61_440, time: 0n, endpoints: [], extensions: [],
      },
    };
  }
}

let users = 0;

/**
 * A tab whose WebTransport gets through, or does not.
 * @param {{ udp?: boolean }} [how]
 */
function world({ udp = false } = {}) {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const server = new Server();
  const net = {
    udp,
    /** When WebTransport was tried. @type {number[]} */
    tried: [],
    /** Is done while the link of a session is closed. */
    onclose: () => {},
    /** What was tried in vain until now gets through. */
    heal: () => {},
    /** Links that are open. @type {{ transport: string, hear: (frame: Uint8Array) => void, answer: (frame: any) => void, die: () => void }[]} */
    open: [],
  };
  const closed = (/** @type {any} */ link) => {
    net.open = net.open.filter((other) => other !== link);
    net.onclose();
  };
  class WebSocket {
    transport = "websocket";
    readyState = 1;
    bufferedAmount = 0;
    onopen = () => {};
    onclose = /** @type {any} */ (null);
    onmessage = /** @type {any} */ (null);
    answer = (/** @type {Uint8Array} */ frame) => this.onmessage?.({ data: frame.slice().buffer });
    hear = server.link("websocket", this.answer);
    constructor() {
      net.open.push(this);
      queueMicrotask(() => this.onopen());
    }
    send(/** @type {Uint8Array} */ frame) {
      this.hear(frame);
    }
    die() {
      net.open = net.open.filter((other) => other !== this);
      this.onclose?.();
    }
    close() {
      closed(this);
    }
  }
  class WebTransport {
    transport = "webtransport";
    die = () => {};
    closed = new Promise((_, reject) => (this.die = () => reject(new Error("closed"))));
    datagrams = { readable: new ReadableStream(), maxDatagramSize: 0 };
    constructor() {
      net.tried.push(Date.now());
      this.ready = new Promise((resolve, reject) => {
        if (net.udp) return resolve(undefined);
        setTimeout(reject, NOTICED_AFTER, new Error("no UDP"));
        net.heal = () => resolve(undefined);
      });
    }
    over = false;
    async createBidirectionalStream() {
      if (this.over) throw new Error("it is closed");
      const splitter = new FrameSplitter();
      /** @type {ReadableStreamDefaultController} */
      let down;
      const readable = new ReadableStream({ start: (controller) => void (down = controller) });
      const answer = (/** @type {Uint8Array} */ frame) => down.enqueue(withLength(frame));
      const hear = server.link("webtransport", answer);
      net.open.push(Object.assign(this, { hear, answer }));
      const writable = new WritableStream({ write: (bytes) => splitter.push(bytes).forEach(hear) });
      return { readable, writable };
    }
    close() {
      this.over = true;
      closed(this);
    }
  }
  const browser = new FakeBrowser();
  const user = `mover${++users}`;
  /** @param {boolean} [hidden] */
  const open = async (hidden = false) => {
    const tab = await openTab({ user, url: "http://127.0.0.1:1" }, browser, (env) => {
      env.isHidden = hidden;
      const known = { versions: [1], webtransport: { url: "https://127.0.0.1:1/wt" }, websocket: { url: "ws://127.0.0.1:1/ws" } };
      const fetch = async () => new Response(JSON.stringify(known));
      Object.assign(env, { now: () => Date.now(), time: () => Date.now(), random: () => 0.5, fetch, WebSocket, WebTransport });
    });
    await settle();
    return tab;
  };
  return { server, net, open };
}

/** @param {Awaited<ReturnType<typeof openTab>>} tab */
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
    mock.timers.reset();
    await closeAll();
  }
});

test("whatever happens while a session moves, nothing else is tried, and nobody hears of a connection that is gone", async () => {
  /** @type {[string, (tab: Awaited<ReturnType<typeof openTab>>) => unknown][]} */
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
    mock.timers.reset();
    await closeAll();
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
  mock.timers.reset();
  await closeAll();
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
