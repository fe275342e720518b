// The cursor of a device: takes each event of the mailbox once and in order, from however many paths they come. No I/O and no clock.

/** @typedef {import("./codec/frames.js").Event} Event */
/** @typedef {import("./codec/frames.js").Position} Position */
/** @typedef {import("./codec/frames.js").Welcome} Welcome */

/** Events that came before their turn are held, up to this many; others are dropped and come again. */
export const EARLY_MAX = 64;
/** An acknowledgement is due after this many events … */
export const ACK_EVENTS = 64n;
/** … or this many milliseconds after the first event that was not acknowledged. */
export const ACK_DELAY = 50;

/**
 * The last number that an event covers.
 * @param {Event} event
 */
export function through(event) {
  return event.kind === "skip" && event.body.through > event.seq ? event.body.through : event.seq;
}

/**
 * The cursor. Order to keep, one thing after the other:
 *
 * 1. on a `welcome`, `onWelcome`, and store the position it gives, if any;
 * 2. if it begins with a snapshot, store its pages, and with the last one the position that `snapshotPosition` gives, then
 *    `onSnapshotStored`; only then hand in events;
 * 3. for each event `onEvent`; store what it returns together with `positionAt` the last in one transaction, then `onStored`. Only what
 *    was stored is acknowledged.
 *
 * Only frames of the session whose `welcome` came last may be handed in.
 */
export class Downlink {
  /** @param {Position | null} [position] as it was stored; null for a device that was never here */
  constructor(position = null) {
    /** @type {Position | null} */
    this.stored = position;
    /** The log that this session reads. */
    this.epoch = 0n;
    /** Highest event handed out; at or above the stored cursor. */
    this.taken = 0n;
    /** Events before their turn, by number. @type {Map<bigint, Event>} */
    this.early = new Map();
    /** Between a `welcome` with a snapshot and its last page: where the events begin after it. @type {Position | null} */
    this.snapshot = null;
    this.live = false;
    this.acked = 0n;
    /** Since when something stored waits to be acknowledged. @type {number | undefined} */
    this.ackSince = undefined;
  }

  /**
   * A session begins. `reset` says why the old position could not be served: tell the application. `position` is to be stored before the
   * first event: the session begins, without a snapshot, elsewhere than the device was.
   * @param {Welcome} welcome
   * @returns {{ reset: import("./codec/frames.js").ResetReason | null, position: Position | null }}
   */
  onWelcome({ epoch, begin: { cursor, time, snapshot, reset } }) {
    this.onDisconnect();
    this.epoch = epoch;
    const begin = { epoch, cursor, time };
    // What was stored after the `hello` was said is not taken back: events up to there are dropped when they come again.
    const held = this.stored && this.stored.epoch === epoch && this.stored.cursor >= cursor && !snapshot && !reset ? this.stored : null;
    // A server that begins elsewhere and does not say why: the application must hear of it all the same.
    const named = reset ?? (this.stored && !held ? "otherLog" : null);
    const position = held || snapshot ? null : begin;
    this.stored = position ?? this.stored;
    this.taken = held ? held.cursor : cursor;
    this.acked = cursor;
    this.snapshot = snapshot ? begin : null;
    this.live = !snapshot;
    return { reset: named, position };
  }

  /** The position to store together with the last page of a snapshot; null if none is under way. */
  get snapshotPosition() {
    return this.snapshot;
  }

  /** It is stored. Events follow, and an acknowledgement is due at once: what the snapshot held is delivered. */
  onSnapshotStored() {
    if (!this.snapshot) return;
    this.stored = this.snapshot;
    this.snapshot = null;
    this.live = true;
    this.ackSince = -Infinity;
  }

  /** Whether others have to come before it. @param {Event} event */
  isEarly(event) {
    return this.live && event.seq > this.taken + 1n;
  }

  /**
   * An event arrived, over any path.
   * @param {Event} event
   * @returns {Event[] | "early" | "dropped"} those that are next, in order; or that it waits for others, or is of no use
   */
  onEvent(event) {
    if (!this.live || through(event) <= this.taken) return "dropped";
    if (this.isEarly(event)) {
      if (this.early.size >= EARLY_MAX) return "dropped";
      this.early.set(event.seq, event);
      return "early";
    }
    const next = [event];
    this.taken = through(event);
    const waiting = this.early.size > 0 ? [...this.early.keys()].sort((a, b) => (a < b ? -1 : 1)) : [];
    for (const seq of waiting) {
      if (seq > this.taken + 1n) break;
      const early = /** @type {Event} */ (this.early.get(seq));
      this.early.delete(seq);
      if (through(early) > this.taken) {
        this.taken = through(early);
        next.push(early);
      }
    }
    return next;
  }

  /**
   * The position to store together with `event` and all before it.
   * @param {Event} event
   * @returns {Position}
   */
  positionAt(event) {
    return { epoch: this.epoch, cursor: through(event), time: event.time };
  }

  /**
   * The device has durably stored everything up to `position`.
   * @param {Position} position
   * @param {number} now
   */
  onStored(position, now) {
    if (position.epoch !== this.epoch) return;
    if (this.stored && this.stored.epoch === position.epoch && this.stored.cursor >= position.cursor) return;
    this.stored = position;
    if (position.cursor > this.taken) this.taken = position.cursor;
    if (this.live) this.ackSince ??= now;
  }

  /**
   * The cursor to acknowledge, if that is due.
   * @param {number} now
   */
  pollAck(now) {
    if (this.ackSince === undefined || !this.stored) return undefined;
    if (this.stored.cursor - this.acked < ACK_EVENTS && now < this.ackSince + ACK_DELAY) return undefined;
    return this.flushAck();
  }

  /** The cursor to acknowledge, due or not: before leaving. */
  flushAck() {
    if (this.ackSince === undefined || !this.stored) return undefined;
    this.ackSince = undefined;
    this.acked = this.stored.cursor;
    return this.acked;
  }

  /** When `pollAck` is worth another call although nothing arrived. */
  pollTimeout() {
    return this.ackSince === undefined ? undefined : this.ackSince + ACK_DELAY;
  }

  /** The session ended. */
  onDisconnect() {
    this.live = false;
    this.snapshot = null;
    this.early.clear();
    this.ackSince = undefined;
  }
}
