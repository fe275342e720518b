// A session that is handed frames, over a store, and a server in the test's hand.

import assert from "node:assert/strict";
import { decodeClientFrame } from "../../src/codec/index.js";
import { WhimbrelError } from "../../src/errors.js";
import { Patience } from "../../src/pulse.js";
import { Queries } from "../../src/queries.js";
import { Session } from "../../src/session.js";
import { enqueue } from "../../src/store/outbox.js";
import { load, messages } from "../../src/store/views.js";
import { FakeBrowser } from "./environment.js";

/** @typedef {import("../../src/store/database.js").Database} Database */
/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */
/** @typedef {import("../../src/codec/frames.js").Event} Event */

export const ME = "alice";
export const NONCE = "00000000000000aa";
const NO_NONCE = "0000000000000000";

/** A clock that only tests move: what is put off until later does not happen by itself. */
export const clock = { now: 0 };

/**
 * A session over what the database holds, and a server in the test's hand.
 * @param {Database} db
 * @param {Partial<import("../../src/link/link.js").Link>} [more] what the link can do
 * @param {bigint} [newsAfter]
 */
export async function open(db, more = {}, newsAfter) {
  /** @type {import("../../src/codec/frames.js").ClientFrame[]} */
  const said = [];
  /** @type {(frames: ServerFrame[]) => Promise<void> | void} */
  let onframes = () => {};
  /** @type {(why: any) => void} */
  let onclosed = () => {};
  /** @type {(frames: ServerFrame[]) => void} */
  let onhints = () => {};
  /** @type {any[]} */
  const signals = [];
  /** @type {import("../../src/link/link.js").Link} */
  const link = {
    transport: "websocket",
    datagramMax: 0,
    queued: 0,
    start: (frames, closed, hints) => void ([onframes, onclosed, onhints] = [frames, closed, hints]),
    send: (frame) => void said.push(decodeClientFrame(frame)),
    hint: () => assert.fail("there are no datagrams"),
    close: () => {},
    ...more,
  };
  /** @type {string[]} */
  const lost = [];
  /** @type {import("../../src/host.js").Host} */
  const host = {
    env: { ...new FakeBrowser().tab(), now: () => clock.now },
    db, user: ME, queries: new Queries(), patience: new Patience(),
    hello: (incarnation, position) => ({
      minVersion: 1, maxVersion: 1, user: ME, device: "device", token: "", agent: "test", instance: NO_NONCE, attempt: 1, incarnation, position,
      origin: "snapshot", extensions: [],
    }),
    state: () => ({ background: false, askAfterS: 0 }),
    greeted: () => {},
    lost: (_, why) => void lost.push(why.code),
    ended: (_, why) => void lost.push(why.code),
    wake: () => void session.poll(),
    changed: () => {}, received: () => {}, signal: (signal) => void signals.push(signal), reset: () => {}, conflict: () => lost.push("conflict"), watch: () => undefined,
  };
  const session = new Session(host, link, await load(db, { user: ME, device: "device" }), newsAfter);
  session.start();
  /** Frames arrive together, and are through when this resolves. @param {ServerFrame[]} frames */
  const feed = async (...frames) => {
    void onframes(frames);
    await session.draining;
    assert.deepEqual(lost, []);
  };
  /** The connection breaks. */
  const breaks = async () => {
    onclosed(new WhimbrelError("connectionLost", "by the test"));
    assert.deepEqual(lost.splice(0), ["connectionLost"]);
    await session.leave();
  };
  const commands = () => said.flatMap((frame) => ("command" in frame ? [frame.command.cseq] : []));
  /** What comes in a datagram. @param {ServerFrame[]} frames */
  const hint = async (...frames) => {
    onhints(frames);
    await session.draining;
    assert.deepEqual(lost, []);
  };
  return { session, feed, hint, breaks, commands, said, lost, signals };
}

/**
 * @param {{ applied?: bigint, nonce?: string, head?: bigint, cursor?: bigint, snapshot?: boolean, reset?: "trimmed" | null }} [what]
 * @returns {ServerFrame}
 */
export const welcome = ({ applied = 0n, nonce = applied ? NONCE : NO_NONCE, head = 0n, cursor = head, snapshot = false, reset = null } = {}) => ({
  welcome: {
    version: 1, user: ME, sessionEpoch: 1n, epoch: 1n, incarnation: 3n, applied, appliedNonce: nonce, head,
    begin: { cursor, time: cursor, snapshot, reset }, window: 16, maxText: 61_440, time: 0n, endpoints: [], extensions: [],
  },
});
const member = (/** @type {string} */ user) => ({ user, delivered: 0n, read: 0n });
/**
 * A page of a snapshot with one conversation.
 * @param {bigint} conversation
 * @param {string} other
 * @param {[bigint, string, string][]} lines
 * @param {boolean} [last]
 * @returns {ServerFrame}
 */
export const page = (conversation, other, lines, last = false) => ({
  snapshot: {
    conversations: [{
      conversation, kind: "direct", members: [member(ME), member(other)], head: lines.at(-1)?.[0] ?? 0n,
      messages: lines.map(([seq, from, text]) => ({ seq, time: seq, from, content: { kind: "text", text, extensions: [] } })),
    }],
    last,
  },
});
export const event = (/** @type {any} */ body) => /** @type {ServerFrame} */ ({ event: { time: body.seq, ...body } });
export const sent = (/** @type {bigint} */ seq, /** @type {bigint} */ number) =>
  event({ seq, kind: "sent", body: { incarnation: 3n, cseq: 1n, conversation: 7n, seq: number } });

export const write = (/** @type {Database} */ db) => enqueue(db, [{ nonce: NONCE, time: 5, body: { kind: "send", to: { user: "bob" }, text: "mine" } }]);
export const shown = async (/** @type {Database} */ db) => (await messages(db, ME, { user: "bob" }, {})).map(({ text, state }) => `${text} ${state}`);
/** What the outbox holds, and how much it believes to hold. @param {Database} db */
export const outbox = async (db) => {
  const { outbox: { applied, rows: count, bytes }, rows } = await load(db, { user: ME, device: "device" });
  return { applied, count, bytes, rows: rows.map(({ cseq, applied }) => `${cseq} ${applied ? "applied" : "waits"}`) };
};
export const EMPTY = { applied: 1n, count: 0, bytes: 0, rows: [] };

/** The device has an outbox and is at the head of a conversation with one message of bob's. @param {Database} db */
export async function settled(db) {
  const { feed, breaks } = await open(db);
  await feed(
    welcome({ head: 0n }),
    event({ seq: 1n, kind: "started", body: { conversation: 7n, kind: "direct", members: [ME, "bob"] } }),
    event({ seq: 2n, kind: "message", body: { conversation: 7n, seq: 1n, from: "bob", content: { kind: "text", text: "hello", extensions: [] } } }),
  );
  await breaks();
}

/** A session in which the command is sent, and of which nothing comes back. @param {Database} db */
export async function sendInVain(db) {
  const { feed, breaks, commands } = await open(db);
  await feed(welcome({ head: 2n }));
  assert.deepEqual(commands(), [1n]);
  await breaks();
}
