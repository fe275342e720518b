// A server as it should be, in memory: the least that keeps the promises, so that what a device sees can be compared with it.

import { NO_NONCE } from "../../src/uplink.js";
import { CONVERSATION, ServerStore, userId, userOf, view } from "./store.js";

/** @typedef {import("../../src/codec/frames.js").ClientFrame} ClientFrame */
/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */
/** @typedef {"good" | "unknownKept" | "unknownLost" | "crashBefore" | "crashAfter"} Commit how a commit ends */

const WINDOW = 4;
const RETRY_AFTER_MS = 20;

/** What came of something: frames to links, links to close, and contradictions with what devices may do. */
export class Out {
  constructor() {
    /** @type {[number, ServerFrame][]} */
    this.frames = [];
    /** @type {number[]} */
    this.closed = [];
    /** @type {string[]} */
    this.violations = [];
  }
}

/**
 * @typedef {object} Session
 * @property {number} device
 * @property {bigint} number
 * @property {bigint} incarnation
 * @property {bigint} accepted highest command taken in
 * @property {bigint} told highest command that the client was told is applied
 * @property {bigint} streamed highest command that came over the stream, since the last `busy`
 * @property {{ cseq: bigint, until: bigint } | undefined} busy commands are ignored until this one comes again, which it must not do before
 * @property {number} pushed highest event pushed
 */

export class Server {
  /** @param {import("./fault.js").Fault | undefined} fault */
  constructor(fault) {
    this.store = new ServerStore();
    /** @type {Map<number, Session>} */
    this.sessions = new Map();
    /** @type {{ device: number, session: bigint, command: import("../../src/codec/frames.js").Command }[]} */
    this.queue = [];
    this.overloaded = false;
    this.fault = fault;
  }

  get idle() {
    return this.queue.length === 0;
  }

  /** Everything that is not durable is gone. @param {Out} out */
  crash(out) {
    this.queue = [];
    out.closed.push(...this.sessions.keys());
    this.sessions.clear();
  }

  /**
   * A frame over the stream of a link, or a copy of one that came by another path.
   * @param {number} link
   * @param {ClientFrame} frame
   * @param {boolean} copy
   * @param {bigint} now
   * @param {Out} out
   */
  onFrame(link, frame, copy, now, out) {
    if ("hello" in frame) this.#onHello(link, frame.hello, now, out);
    else if ("command" in frame) this.#onCommand(link, frame.command, copy, now, out);
    else if ("ack" in frame) {
      const session = this.sessions.get(link);
      if (session && frame.ack.seq > session.pushed) out.violations.push(`an acknowledgement of ${frame.ack.seq} covers what was never sent`);
    } else out.violations.push(`${Object.keys(frame)} is not expected`);
  }

  /**
   * @param {number} link
   * @param {import("../../src/codec/frames.js").Hello} hello
   * @param {bigint} now
   * @param {Out} out
   */
  #onHello(link, hello, now, out) {
    const device = Number(hello.device);
    const user = userOf(device);
    const row = this.store.devices[device];
    row.session += 1n;
    if (hello.incarnation === 0n || hello.incarnation !== row.incarnation) {
      // Above all that were ever given, also by a later life of this store that is forgotten now: time sees to that.
      row.incarnation = [row.incarnation, hello.incarnation, now].reduce((a, b) => (a > b ? a : b)) + 1n;
      row.applied = 0n;
      if (this.fault === "forgetsNonces") row.recent = [];
    }
    const begin = this.#begin(hello, user);
    const appliedNonce = (row.applied > 0n && row.recent.at(-1)?.nonce) || NO_NONCE;
    const mailbox = this.store.mailboxes[user];
    /** @type {ServerFrame} */
    const welcome = {
      welcome: {
        version: 1, user: userId(user), sessionEpoch: row.session, epoch: this.store.epoch, incarnation: row.incarnation, applied: row.applied,
        appliedNonce, head: BigInt(mailbox.head), begin, window: WINDOW, maxText: 100, time: now, endpoints: [], extensions: [],
      },
    };
    for (const [older, session] of this.sessions) {
      if (session.device !== device) continue;
      this.sessions.delete(older);
      out.frames.push([older, { error: { code: "replaced", message: "", retryAfterMs: 0 } }]);
      out.closed.push(older);
    }
    this.sessions.set(link, {
      device, number: row.session, incarnation: row.incarnation, accepted: row.applied, told: row.applied, streamed: row.applied,
      busy: undefined, pushed: Number(begin.cursor),
    });
    out.frames.push([link, welcome]);
    if (begin.snapshot) this.#snapshot(link, user, Number(begin.cursor), out);
  }

  /**
   * @param {import("../../src/codec/frames.js").Hello} hello
   * @param {number} user
   * @returns {import("../../src/codec/frames.js").Begin}
   */
  #begin({ position, origin }, user) {
    const mailbox = this.store.mailboxes[user];
    /** @type {import("../../src/codec/frames.js").ResetReason | null} */
    let reset = null;
    if (position) {
      const { epoch, cursor, time } = position;
      const otherTime = time !== 0n && mailbox.timeAt(Number(cursor)) !== time && this.fault !== "forgetsTime";
      if (epoch !== this.store.epoch || cursor > mailbox.head || otherTime) reset = "otherLog";
      else if (cursor < mailbox.floor) reset = "trimmed";
    }
    let [cursor, snapshot] = [mailbox.head, origin === "snapshot"];
    if (position && !reset) [cursor, snapshot] = [Number(position.cursor), false];
    else if (origin === "oldest") [cursor, snapshot] = [mailbox.floor, mailbox.floor > 0];
    const time = this.fault === "beginsWithoutTime" ? 0n : mailbox.timeAt(cursor);
    return { cursor: BigInt(cursor), time, snapshot, reset };
  }

  /**
   * @param {number} link
   * @param {number} user
   * @param {number} cursor
   * @param {Out} out
   */
  #snapshot(link, user, cursor, out) {
    const messages = this.store.mailboxes[user].messages(cursor).map(({ seq, text }) => ({ seq, time: 0n, from: userId(0), content: { kind: "text", text, extensions: [] } }));
    const conversation = { conversation: CONVERSATION, kind: "direct", members: [], head: this.store.head, messages };
    out.frames.push([link, { snapshot: { conversations: [conversation], last: false } }]);
    out.frames.push([link, { snapshot: { conversations: [], last: true } }]);
  }

  /**
   * @param {number} link
   * @param {import("../../src/codec/frames.js").Command} command
   * @param {boolean} copy
   * @param {bigint} now
   * @param {Out} out
   */
  #onCommand(link, command, copy, now, out) {
    const session = this.sessions.get(link);
    if (!session || session.incarnation !== command.incarnation) return;
    const { cseq } = command;
    const next = session.accepted + 1n;
    if (copy && (session.busy || cseq !== next)) return;
    if (!copy) {
      const again = session.busy?.cseq === cseq ? session.busy : undefined;
      if ((!again && cseq <= session.streamed) || (again && now < again.until)) {
        out.violations.push(`command ${cseq} came again without need, or too soon`);
      }
      session.streamed = cseq;
      if (again) session.busy = undefined;
    }
    if (session.busy || cseq < next) return;
    if (cseq > next || cseq > this.store.devices[session.device].applied + BigInt(WINDOW)) {
      out.violations.push(`command ${cseq} where ${next} is next, within the window`);
      return;
    }
    if (this.overloaded && !copy) {
      session.busy = { cseq, until: now + BigInt(RETRY_AFTER_MS) };
      out.frames.push([link, { busy: { cseq, retryAfterMs: RETRY_AFTER_MS } }]);
      return;
    }
    session.accepted = cseq;
    if (this.fault === "appliesBeforeCommit") out.frames.push([link, { applied: { cseq } }]);
    this.queue.push({ device: session.device, session: session.number, command });
  }

  /**
   * Everything that waits, as one transaction; answers come after it.
   * @param {Commit} outcome
   * @param {bigint} now
   * @param {Out} out
   */
  commit(outcome, now, out) {
    const store = this.store.clone();
    for (const { device, session, command } of this.queue) store.decide(device, session, command, now, this.fault, out.violations);
    if (outcome !== "unknownLost" && outcome !== "crashBefore") this.store = store;
    // What waits after an unknown outcome is decided again, against what the store really holds.
    if (outcome === "unknownKept" || outcome === "unknownLost") return;
    if (outcome === "crashBefore" || outcome === "crashAfter") return void this.crash(out);
    this.queue = [];
    for (const [link, session] of this.sessions) {
      const cseq = this.store.devices[session.device].applied;
      if (cseq <= session.told) continue;
      session.told = cseq;
      out.frames.push([link, { applied: { cseq } }]);
    }
  }

  /**
   * Sends a link what its session has not seen yet, as far as there is room. A session that the trim has overtaken is closed.
   * @param {number} link
   * @param {number} room
   * @param {Out} out
   */
  pump(link, room, out) {
    const session = this.sessions.get(link);
    if (!session) return;
    const mailbox = this.store.mailboxes[userOf(session.device)];
    const see = (/** @type {number} */ seq) => view(mailbox.entries[seq - 1], session.device, session.incarnation);
    for (; room > 0; room--) {
      if (session.pushed < mailbox.floor) {
        this.sessions.delete(link);
        out.closed.push(link);
        return;
      }
      const seq = session.pushed + 1;
      if (seq > mailbox.head) return;
      let through = seq;
      const seen = see(seq);
      if (!seen) while (through < mailbox.head && !see(through + 1)) through += 1;
      const body = seen ?? { kind: /** @type {const} */ ("skip"), body: { through: BigInt(through) } };
      session.pushed = through;
      if (this.fault === "losesEvents" && seq % 5 === 0) continue;
      out.frames.push([link, { event: { seq: BigInt(seq), time: mailbox.timeAt(through), ...body } }]);
    }
  }
}
