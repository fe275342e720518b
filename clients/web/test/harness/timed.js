// Tabs of a browser under a clock of their own, and a server in the test's hand, or none.

import { mock } from "node:test";
import { decodeClientFrame, encodeServerFrame } from "../../src/codec/index.js";
import { closeAll, openTab } from "./client.js";
import { FakeBrowser } from "./environment.js";

/** @typedef {import("../../src/codec/frames.js").ClientFrame} ClientFrame */
/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */
/** @typedef {InstanceType<ReturnType<typeof answering>>} Socket */

export const MINUTE = 60_000;

/** No world any more. */
export async function end() {
  mock.timers.reset();
  await closeAll();
}

/** What is under way without a timer: reads of the store, notes between tabs. */
export async function settle() {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

let users = 0;

/**
 * A WebSocket to a server that answers a hello with this, and says nothing more by itself.
 * @param {() => ServerFrame | undefined} answer
 * @param {any[]} sockets
 */
const answering = (answer, sockets) => class {
  /** What the client said. @type {ClientFrame[]} */
  said = [];
  readyState = 1;
  bufferedAmount = 0;
  /** @type {(event?: any) => void} */
  onopen = () => {};
  /** @type {(event?: any) => void} */
  onmessage = () => {};
  /** @type {((event?: any) => void) | null} */
  onclose = null;

  constructor() {
    sockets.push(this);
    queueMicrotask(() => this.onopen());
  }

  /** @param {Uint8Array} bytes */
  send(bytes) {
    const frame = this.said.length === 0 ? answer() : undefined;
    if (frame) queueMicrotask(() => this.hear(frame));
    this.said.push(decodeClientFrame(bytes));
  }

  /** @param {ServerFrame} frame */
  hear(frame) {
    const { buffer, byteOffset, byteLength } = encodeServerFrame(frame);
    this.onmessage({ data: buffer.slice(byteOffset, byteOffset + byteLength) });
  }

  /** The connection is gone. */
  breaks() {
    this.readyState = 3;
    this.onclose?.();
  }

  close() {
    this.readyState = 3;
  }
};

/**
 * A browser that reaches no server, or one that has only this to say to this user, and when its tabs tried to.
 * @param {{ random?: number, answer?: (user: string) => ServerFrame | undefined }} [how]
 */
export function world({ random = 0.999, answer } = {}) {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const browser = new FakeBrowser();
  const user = `someone${++users}`;
  /** @type {number[]} */
  const dials = [];
  /** @type {Socket[]} */
  const sockets = [];
  const network = { reached: answer !== undefined };
  /** @param {boolean} [hidden] @param {"auto" | "webtransport"} [transport] */
  const open = async (hidden = false, transport = "auto") => {
    const tab = await openTab({ user, url: "http://127.0.0.1:1", transport }, browser, (env) => {
      env.isHidden = hidden;
      Object.assign(env, { now: () => Date.now(), time: () => Date.now(), random: () => random });
      if (answer) env.WebSocket = /** @type {any} */ (answering(() => answer(user), sockets));
      env.fetch = () => {
        dials.push(Date.now());
        if (network.reached) return Promise.resolve(new Response(null, { status: 404 }));
        return Promise.reject(new TypeError("refused"));
      };
    });
    await settle();
    return tab;
  };
  /** @param {number} ms */
  const pass = async (ms) => {
    for (const end = Date.now() + ms; Date.now() < end; ) {
      mock.timers.tick(Math.min(100, end - Date.now()));
      await settle();
    }
  };
  /** The waits between the attempts of this time from now. @param {number} ms */
  const waits = async (ms) => {
    const before = dials.length;
    await pass(ms);
    return dials.slice(before).map((at, no) => (no === 0 ? 0 : at - (dials[before + no - 1] ?? 0))).slice(1);
  };
  /** How many attempts something leads to by itself, with no time passing. @param {() => unknown} act */
  const triesAt = async (act) => {
    const before = dials.length;
    await act();
    await settle();
    return dials.length - before;
  };
  return { open, pass, waits, triesAt, sockets, network };
}

/** A welcome, with nothing to take. @param {string} user @returns {ServerFrame} */
export const welcomed = (user) => ({
  welcome: {
    version: 1, user, sessionEpoch: 1n, epoch: 1n, incarnation: 1n, applied: 0n, appliedNonce: "0".repeat(16), head: 0n,
    begin: { cursor: 0n, time: 0n, snapshot: false, reset: null }, window: 16, maxText: 61_440, time: 0n, endpoints: [], extensions: [],
  },
});
