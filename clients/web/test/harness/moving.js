// A tab under a clock of its own, whose WebTransport gets through or does not, and a server for it that carries out commands and keeps a
// mailbox. Nothing here waits.

import assert from "node:assert/strict";
import { mock } from "node:test";
import { decodeClientFrame, encodeServerFrame, FrameSplitter, withLength } from "../../src/codec/index.js";
import { closeAll, openTab } from "./client.js";
import { FakeBrowser } from "./environment.js";

export const SECOND = 1_000;
/** After this long Chromium says that a path drops UDP. */
const NOTICED_AFTER = 4_500;
const NO_NONCE = "0".repeat(16);

/** No world any more. */
export async function end() {
  mock.timers.reset();
  await closeAll();
}

/** What is under way without a timer: reads of the store, notes between tabs. */
async function settle() {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** @param {number} ms */
export async function pass(ms) {
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
    append({ kind: "message", body: { conversation: 7n, seq: BigInt(this.events.length), from: "bob", content: { kind: "text", text, extensions: [] } } });
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
export function world({ udp = false } = {}) {
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
