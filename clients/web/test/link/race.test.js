// Which transport goes first, who wins, and what is remembered. Time is a mock: nothing here waits.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { endpoints } from "../../src/link/discover.js";
import { connect, HEAD_START, race, Ways } from "../../src/link/race.js";
import { isUsable } from "../../src/link/webtransport.js";
import { FakeBrowser } from "../harness/environment.js";

/** @typedef {import("../../src/link/link.js").Link} Link */

/** An attempt that takes so long, and then succeeds or fails; what became of its link and of itself is in `log`. */
function attempt(/** @type {string} */ name, /** @type {number} */ ms, /** @type {boolean} */ works, /** @type {string[]} */ log) {
  return (/** @type {AbortSignal} */ signal) =>
    new Promise((/** @type {(link: Link) => void} */ resolve, reject) => {
      log.push(`${name} begins`);
      signal.addEventListener("abort", () => log.push(`${name} given up`));
      setTimeout(() => (works ? resolve(/** @type {any} */ ({ name, close: () => log.push(`${name} closed`) })) : reject(new Error(`${name} is down`))), ms);
    });
}

/**
 * @param {[number, boolean]} first
 * @param {[number, boolean]} second
 */
async function run(first, second, { abortAfter = Infinity } = {}) {
  mock.timers.enable({ apis: ["setTimeout"] });
  /** @type {string[]} */
  const log = [];
  const abort = new AbortController();
  let outcome = "";
  let took = 0;
  race(attempt("first", ...first, log), attempt("second", ...second, log), abort.signal).then(
    (link) => (outcome = /** @type {any} */ (link).name),
    (why) => (outcome = why.message),
  );
  for (; took < 10_000 && !outcome; took += 10) {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    if (outcome) break;
    if (took >= abortAfter) abort.abort();
    mock.timers.tick(10);
  }
  // Losers that are late.
  mock.timers.tick(20_000);
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  mock.timers.reset();
  return { outcome, took, log };
}

test("the first that works wins, and the favourite has a head start", async () => {
  assert.deepEqual(await run([150, true], [0, true]), { outcome: "first", took: 150, log: ["first begins"] });
  const slow = await run([900, true], [100, true]);
  assert.deepEqual([slow.outcome, slow.took], ["second", HEAD_START + 100]);
  assert.deepEqual(slow.log, ["first begins", "second begins", "first given up", "first closed"], "the loser is given up, and closed if it comes late");
  assert.equal((await run([HEAD_START + 50, true], [100, true])).outcome, "first");
});

test("a failure ends the head start", async () => {
  assert.deepEqual(await run([10, false], [20, true]), { outcome: "second", took: 30, log: ["first begins", "second begins"] });
});

test("the other is waited for when one fails, and both reasons are told", async () => {
  assert.equal((await run([900, true], [10, false])).outcome, "first");
  assert.equal((await run([900, false], [10, false])).outcome, "second is down; first is down");
});

test("a race that is called off ends, and leaves no link behind", async () => {
  const { outcome, log } = await run([900, true], [800, true], { abortAfter: 400 });
  assert.equal(outcome, "given up");
  assert.ok(log.includes("first closed") && log.includes("second closed"), log.join());
});

const BOTH = { webtransport: { url: "https://a/wt", hashes: [] }, websocket: { url: "wss://a/ws" } };

/** An environment with a clock to set. */
function clocked(/** @type {Record<string, unknown>} */ more = {}) {
  const env = new FakeBrowser().tab();
  let now = 1_000_000;
  Object.assign(env, { WebTransport: class {}, network: () => "wifi", time: () => now, ...more });
  return { env, pass: (/** @type {number} */ ms) => (now += ms), network: (/** @type {string} */ name) => (env.network = () => name) };
}

test("WebTransport goes first, until WebSocket won on this network; for an hour, or until the network is another one", () => {
  const { env, pass, network } = clocked();
  /** @type {any} */
  let stored;
  let writes = 0;
  /** A client, as after a reload. */
  const fresh = (way = stored ?? null) => new Ways(env, "auto", way, (way) => void ([stored, writes] = [way, writes + 1]));
  const [WEBSOCKET_FIRST, WEBTRANSPORT_FIRST] = [["websocket", "webtransport"], ["webtransport", "websocket"]];
  const ways = fresh();
  assert.deepEqual(ways.order(BOTH), WEBTRANSPORT_FIRST);
  ways.onConnected("webtransport");
  assert.equal(writes, 0, "there is nothing to remember");
  ways.onConnected("websocket");
  assert.deepEqual(ways.order(BOTH), WEBSOCKET_FIRST);
  assert.deepEqual(fresh().order(BOTH), WEBSOCKET_FIRST, "also after a reload");
  network("cellular");
  assert.deepEqual(ways.order(BOTH), WEBTRANSPORT_FIRST);
  network("wifi");
  pass(1_800_000);
  ways.onConnected("websocket");
  assert.equal(writes, 1, "once is enough");
  pass(1_800_000);
  assert.deepEqual(ways.order(BOTH), WEBTRANSPORT_FIRST, "an hour after it won, however often it was used since");
  ways.onConnected("websocket");
  assert.deepEqual(fresh().order(BOTH), WEBSOCKET_FIRST, "another hour begins, for the next page too");
  ways.onConnected("webtransport");
  assert.deepEqual([ways.order(BOTH), fresh().order(BOTH)], [WEBTRANSPORT_FIRST, WEBTRANSPORT_FIRST], "it was moved to");
  ways.onConnected("websocket");
  ways.onNetworkChanged();
  assert.deepEqual([ways.order(BOTH), fresh().order(BOTH)], [WEBTRANSPORT_FIRST, WEBTRANSPORT_FIRST]);
  fresh({ transport: "websocket", network: "wifi", at: env.time() + 1 }).onNetworkChanged();
  assert.equal(stored, null);
});

test("where handshakes get through and then nothing, the other goes first next time", () => {
  const { env } = clocked();
  const ways = new Ways(env, "auto", null, () => {});
  ways.onMute("webtransport");
  assert.deepEqual(ways.order(BOTH), ["websocket", "webtransport"]);
  ways.onMute("websocket");
  assert.deepEqual(ways.order(BOTH), ["webtransport", "websocket"]);
});

test("only WebTransport is better, than a WebSocket, where the choice is ours and there is one", () => {
  const { env } = clocked();
  const better = (/** @type {any} */ wanted, /** @type {any} */ carried, /** @type {any} */ known = BOTH, environment = env) => {
    const ways = new Ways(environment, wanted, null, () => {});
    ways.known = known;
    for (let no = 0; no < 5; no++) ways.onFailed("webtransport");
    return ways.better(carried);
  };
  assert.equal(better("auto", "websocket"), true, "also after failures");
  assert.equal(better("auto", "webtransport"), false);
  assert.equal(better("websocket", "websocket"), false);
  assert.equal(better("webtransport", "webtransport"), false);
  assert.equal(better("auto", "websocket", { websocket: BOTH.websocket }), false);
  assert.equal(better("auto", "websocket", undefined, clocked({ WebTransport: undefined }).env), false);
});

test("after three failures of WebTransport it is left alone for as long as the browser holds them against it", () => {
  const { env, pass } = clocked();
  const ways = new Ways(env, "auto", null, () => {});
  for (const left of [2, 2, 1]) {
    ways.onFailed("webtransport");
    assert.equal(ways.order(BOTH).length, left);
  }
  ways.onNetworkChanged();
  assert.deepEqual(ways.order(BOTH), ["webtransport", "websocket"], "another network, one more attempt");
  ways.onFailed("webtransport");
  assert.deepEqual(ways.order(BOTH), ["websocket"]);
  pass(300_000);
  assert.deepEqual(ways.order(BOTH), ["webtransport", "websocket"]);
});

test("what is wanted, offered and known to work decides", () => {
  const { env } = clocked();
  const order = (/** @type {any} */ wanted, /** @type {any} */ offered, environment = env) => new Ways(environment, wanted, null, () => {}).order(offered);
  assert.deepEqual(order("websocket", BOTH), ["websocket"]);
  assert.deepEqual(order("webtransport", BOTH), ["webtransport"]);
  assert.deepEqual(order("webtransport", { websocket: BOTH.websocket }), []);
  assert.deepEqual(order("auto", { websocket: BOTH.websocket }), ["websocket"]);
  const without = clocked({ WebTransport: undefined }).env;
  assert.deepEqual(order("auto", BOTH, without), ["websocket"]);
  assert.deepEqual(order("webtransport", BOTH, without), []);
  const agent = (/** @type {string} */ userAgent) => isUsable(clocked({ userAgent }).env);
  assert.equal(agent("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"), true);
  assert.equal(agent("Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"), true);
  assert.equal(agent("Mozilla/5.0 (iPhone; CPU iPhone OS 26_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.4 Mobile/15E148 Safari/604.1"), false);
  const safari = clocked({ userAgent: "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.4 Safari/605.1.15" }).env;
  assert.deepEqual(order("auto", BOTH, safari), ["websocket"]);
  assert.deepEqual(order("webtransport", BOTH, safari), ["webtransport"], "unless one insists");
});

test("what a server says of itself is believed as far as it can be", () => {
  const known = { webtransport: { url: "https://h:1/wt", certificateHashes: [btoa("x".repeat(32)), "short", 5] }, websocket: { url: "ws://h/ws" } };
  const fallback = { websocket: { url: "wss://chat.example/ws" } };
  const found = endpoints(new URL("https://chat.example"), known, fallback);
  assert.deepEqual(found.webtransport, { url: "https://h:1/wt", hashes: [new Uint8Array(32).fill(120)] });
  assert.deepEqual(found.websocket, fallback.websocket, "TLS is not talked down");
  assert.deepEqual(endpoints(new URL("http://chat.example"), known, fallback).websocket, { url: "ws://h/ws" });
  for (const nothing of [null, {}, { webtransport: null, websocket: 7 }, []]) assert.deepEqual(endpoints(new URL("https://chat.example"), nothing, fallback), fallback);
});

test("hashes are asked for anew with each round of attempts", async () => {
  const { env } = clocked();
  /** @type {string[]} */
  const pinned = [];
  let hash = "a";
  Object.assign(env, {
    fetch: async () => new Response(JSON.stringify({ webtransport: { url: "https://h:1/wt", certificateHashes: [btoa(hash.repeat(32))] }, versions: [1] })),
    WebTransport: class {
      constructor(/** @type {string} */ _, /** @type {any} */ options) {
        pinned.push(String.fromCharCode(options.serverCertificateHashes[0].value[0]));
        this.closed = new Promise(() => {});
        this.ready = Promise.reject(new Error("wrong hash"));
      }
      close() {}
    },
  });
  const ways = new Ways(env, "webtransport", null, () => {});
  for (hash of ["a", "b"]) await assert.rejects(connect(env, new URL("https://h"), ways, new AbortController().signal), { code: "unreachable" });
  assert.deepEqual(pinned, ["a", "b"]);
});

test("a server of another version, or none at all, has a name", async () => {
  const { env } = clocked();
  const ways = new Ways(env, "auto", null, () => {});
  const answers = (/** @type {Response} */ response) => {
    env.fetch = async () => response;
    return connect(env, new URL("https://h"), ways, new AbortController().signal);
  };
  await assert.rejects(answers(new Response('{"versions":[7]}')), { code: "unsupportedVersion" });
  await assert.rejects(answers(new Response("<html>")), { code: "unreachable" });
  await assert.rejects(answers(new Response("", { status: 500 })), { code: "unreachable" });
  env.fetch = async () => {
    throw new TypeError("fetch failed");
  };
  await assert.rejects(connect(env, new URL("https://h"), ways, new AbortController().signal), { code: "unreachable" });
});

test("a round that is called off says nothing of WebTransport; one that another transport wins does", async () => {
  const { env } = clocked();
  const never = new Promise(() => {});
  Object.assign(env, {
    fetch: async () => new Response(JSON.stringify({ webtransport: { url: "https://h:1/wt" }, versions: [1] })),
    WebTransport: class {
      ready = never;
      closed = never;
      close() {}
    },
    WebSocket: class {
      close() {}
    },
  });
  const ways = new Ways(env, "auto", null, () => {});
  const abort = new AbortController();
  const round = connect(env, new URL("https://h"), ways, abort.signal);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  abort.abort();
  await assert.rejects(round, { code: "unreachable" });
  assert.deepEqual(ways.failed, []);
  env.WebSocket = /** @type {any} */ (class {
    /** @type {() => void} */
    onopen = () => {};
    constructor() {
      setImmediate(() => this.onopen());
    }
    close() {}
  });
  assert.equal((await connect(env, new URL("https://h"), ways, new AbortController().signal)).transport, "websocket");
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(ways.failed.length, 1);
});

test("a server that said where it is, and does not say it again in time, is looked for there", async () => {
  const { env } = clocked();
  /** @type {string[]} */
  const dialled = [];
  /** @type {(url: string) => Promise<Response>} */
  let answer = async () => new Response(JSON.stringify({ websocket: { url: "wss://h/one" }, versions: [1] }));
  Object.assign(env, {
    fetch: (/** @type {string} */ url) => answer(url),
    WebSocket: class {
      /** @type {() => void} */
      onopen = () => {};
      constructor(/** @type {string} */ url) {
        dialled.push(url);
        setImmediate(() => this.onopen());
      }
      close() {}
    },
  });
  const ways = new Ways(env, "websocket", null, () => {});
  const dial = () => connect(env, new URL("https://h"), ways, new AbortController().signal);
  await dial();
  // The answer comes late: for the next time.
  /** @type {(response: Response) => void} */
  let arrive = () => {};
  answer = () => new Promise((resolve) => (arrive = resolve));
  await dial();
  arrive(new Response(JSON.stringify({ websocket: { url: "wss://h/two" }, versions: [1] })));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  await dial();
  assert.deepEqual(dialled, ["wss://h/one", "wss://h/one", "wss://h/two"]);
  answer = () => Promise.reject(new TypeError("refused"));
  await assert.rejects(dial(), { code: "unreachable" });
});
