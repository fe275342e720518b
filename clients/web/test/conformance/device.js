// A device: a durable store, and a process that may die between any two things it does.

import { Downlink } from "../../src/downlink.js";
import { emptyOutbox, NO_NONCE, Uplink } from "../../src/uplink.js";
import { commandId, userId, userOf } from "./store.js";

/** @typedef {import("../../src/codec/frames.js").ClientFrame} ClientFrame */
/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */
/** @typedef {import("../../src/codec/frames.js").Event} Event */
/** @typedef {import("../../src/codec/frames.js").Position} Position */
/** @typedef {{ reset: string } | { disagreement: import("../../src/uplink.js").Disagreement }} Told what the application was told */
/** @typedef {{ seq: bigint, text: string }} Page */

/**
 * A stretch of a mailbox without a reset in it.
 * @typedef {object} Segment
 * @property {number} life of the server that it was last continued in
 * @property {bigint} begin the cursor at its beginning
 * @property {Page[] | undefined} snapshot
 * @property {[Event, bigint][]} events each with the outbox of the session that it came in: the view depends on it
 */

/** What is durable on a device. Backups and clones are copies of this. */
export class DeviceStore {
  constructor() {
    this.outbox = emptyOutbox();
    /** @type {import("../../src/codec/frames.js").Command[]} */
    this.commands = [];
    /** @type {Position | null} */
    this.position = null;
    /** @type {Page[]} */
    this.pages = [];
    /** @type {Segment[]} */
    this.segments = [];
    /** Every command this store ever held. @type {string[]} */
    this.enqueued = [];
    /** Commands known to be applied, each with the life of the server that said so. @type {Map<string, number>} */
    this.known = new Map();
    /** What the application was told, each with the life of the server that it was about. @type {[number, Told][]} */
    this.told = [];
    /** A disagreement that was told of, and no new outbox agreed on since. @type {import("../../src/uplink.js").Disagreement | undefined} */
    this.standing = undefined;
  }

  /** @returns {DeviceStore} */
  clone() {
    return Object.assign(new DeviceStore(), structuredClone({ ...this }));
  }

  /**
   * @param {number} life
   * @param {Position} position
   * @param {Page[]} [snapshot]
   */
  begin(life, position, snapshot) {
    this.position = position;
    this.segments.push({ life, begin: position.cursor, snapshot, events: [] });
  }
}

/** What a device works with, and what comes of it. */
export class Work {
  /**
   * @param {number} now
   * @param {number} life of the server at the other end
   */
  constructor(now, life) {
    this.now = now;
    this.life = life;
    /** @type {ClientFrame[]} */
    this.out = [];
    /** Commands that the device has just heard to be applied. @type {string[]} */
    this.applied = [];
    this.reconnect = false;
    /** @type {string[]} */
    this.violations = [];
  }
}

/** The process has died. */
export class Dead extends Error {}

export class Device {
  /**
   * @param {number} no
   * @param {DeviceStore} store
   * @param {import("./fault.js").Fault | undefined} fault
   */
  constructor(no, store, fault) {
    this.no = no;
    this.store = store;
    this.fault = fault;
    /** @type {{ uplink: Uplink, downlink: Downlink, incarnation: bigint } | undefined} */
    this.process = undefined;
    /** The link of the session that the process takes for its own. @type {number | undefined} */
    this.link = undefined;
    /** The process dies after so many more things. @type {number | undefined} */
    this.fuse = undefined;
  }

  kill() {
    this.process = this.link = this.fuse = undefined;
  }

  disconnect() {
    this.link = undefined;
    this.process?.uplink.onDisconnect();
    this.process?.downlink.onDisconnect();
  }

  /**
   * Starts the process if it does not run, and says what it opens a session with.
   * @returns {import("../../src/codec/frames.js").Hello}
   */
  hello() {
    const { store } = this;
    this.process ??= { uplink: new Uplink(store.outbox, store.commands), downlink: new Downlink(store.position), incarnation: 0n };
    return {
      minVersion: 1, maxVersion: 1, user: userId(userOf(this.no)), device: String(this.no), token: "", agent: "", instance: NO_NONCE, attempt: 0,
      incarnation: this.process.uplink.state.incarnation, position: this.process.downlink.stored,
      origin: /** @type {const} */ (["snapshot", "oldest", "now"])[this.no], extensions: [],
    };
  }

  /** Nothing is left to do: every command applied, every event up to this one stored. @param {number} head */
  done(head) {
    return this.process?.uplink.waiting === 0 && this.store.position?.cursor === BigInt(head);
  }

  /** One of the things between which a process may die. */
  #step() {
    if (this.fuse === 0) {
      this.kill();
      throw new Dead();
    }
    if (this.fuse !== undefined) this.fuse -= 1;
  }

  /** A transaction on the store: the process may die before it, or after it. @param {(store: DeviceStore) => void} change */
  #write(change) {
    this.#step();
    change(this.store);
    this.#step();
  }

  #alive() {
    if (!this.process) throw new Dead();
    return this.process;
  }

  /**
   * @param {string} nonce
   * @param {import("../../src/codec/frames.js").CommandBody} body
   * @param {Work} work
   */
  enqueue(nonce, body, work) {
    const command = this.#alive().uplink.enqueue(nonce, body);
    if (this.fault === "sendsBeforeStoring") this.transmit(work);
    this.#write((store) => {
      store.enqueued.push(commandId(nonce));
      store.commands.push(command);
    });
    this.transmit(work);
  }

  /** Sends what may be sent now. @param {Work} work */
  transmit(work) {
    for (let command; (command = this.#alive().uplink.pollTransmit(work.now)); ) {
      this.#step();
      work.out.push({ command });
    }
    const ack = this.#alive().downlink.pollAck(work.now);
    if (ack !== undefined) this.#ack(ack, work);
  }

  /**
   * @param {bigint} seq
   * @param {Work} work
   */
  #ack(seq, work) {
    if (!this.store.position || seq > this.store.position.cursor) work.violations.push(`an acknowledgement of ${seq} covers what is not stored`);
    this.#step();
    work.out.push({ ack: { seq } });
  }

  /**
   * @param {ServerFrame} frame
   * @param {Work} work
   */
  onFrame(frame, work) {
    if ("welcome" in frame) this.#onWelcome(frame.welcome, work);
    else if ("applied" in frame) this.#agree(work, (uplink) => (uplink.onApplied(frame.applied.cseq), { agreed: "agreed" }));
    else if ("event" in frame) this.#onEvent(frame.event, work);
    else if ("snapshot" in frame) this.#onSnapshot(frame.snapshot, work);
    else if ("busy" in frame) this.#alive().uplink.onBusy(frame.busy.cseq, frame.busy.retryAfterMs, work.now);
    else if ("error" in frame && frame.error.code === "replaced") this.disconnect();
    else work.violations.push(`${Object.keys(frame)} is not expected`);
    this.transmit(work);
  }

  /**
   * @param {import("../../src/codec/frames.js").Welcome} welcome
   * @param {Work} work
   */
  #onWelcome(welcome, work) {
    const process = this.#alive();
    process.incarnation = welcome.incarnation;
    const { reset, position } = process.downlink.onWelcome(welcome);
    this.#write((store) => {
      store.pages = [];
      if (reset) store.told.push([work.life, { reset }]);
      const last = store.segments.at(-1);
      if (position) store.begin(work.life, position);
      else if (last && !welcome.begin.snapshot) last.life = work.life;
    });
    const agreement = this.#agree(work, (uplink) => uplink.onWelcome(welcome));
    work.reconnect = agreement.agreed === "disagreed";
    if (agreement.agreed === "renumbered" && this.fault === "changesNonces") this.#changeNonces(welcome);
  }

  /**
   * Does something that may forget commands, and stores in one transaction what is left and what the application is to be told.
   * @param {Work} work
   * @param {(uplink: Uplink) => import("../../src/uplink.js").Agreement} change
   */
  #agree(work, change) {
    const { uplink } = this.#alive();
    const before = uplink.pending.map((command) => commandId(command.nonce));
    const agreement = change(uplink);
    const applied = before.slice(0, before.length - uplink.pending.length);
    work.applied.push(...applied);
    this.#write((store) => {
      for (const id of applied) store.known.set(id, work.life);
      [store.outbox, store.commands] = [uplink.state, [...uplink.pending]];
      let told;
      if (agreement.agreed === "disagreed") {
        if (this.fault !== "keepsSilent" || agreement.why.reason !== "anotherOutbox") told = store.standing = agreement.why;
      } else if (agreement.agreed === "renumbered") {
        told = store.standing;
        store.standing = undefined;
      }
      if (told) store.told.push([work.life, { disagreement: told }]);
    });
    return agreement;
  }

  /** @param {import("../../src/codec/frames.js").Welcome} welcome */
  #changeNonces(welcome) {
    const process = this.#alive();
    const changed = this.store.commands.map((command) => {
      const first = (parseInt(command.nonce.slice(0, 2), 16) + 1) % 256;
      return { ...command, nonce: first.toString(16).padStart(2, "0") + command.nonce.slice(2) };
    });
    process.uplink = new Uplink(process.uplink.state, changed);
    process.uplink.onWelcome(welcome);
    this.#write((store) => (store.commands = changed));
  }

  /**
   * @param {Event} event
   * @param {Work} work
   */
  #onEvent(event, work) {
    const { downlink, incarnation } = this.#alive();
    let events = downlink.onEvent(event);
    if (events === "early" && this.fault === "takesEarly") events = [event];
    if (events === "dropped" && this.fault === "takesDoubles" && this.store.segments.length > 0) events = [event];
    if (typeof events === "string") return;
    const taken = events;
    const position = downlink.positionAt(taken[taken.length - 1]);
    if (this.fault === "acksBeforeStoring") {
      downlink.onStored(position, work.now);
      const ack = downlink.flushAck();
      if (ack !== undefined) this.#ack(ack, work);
    }
    if (this.fault === "storesPositionFirst") this.#write((store) => (store.position = position));
    this.#write((store) => {
      store.position = position;
      store.segments.at(-1)?.events.push(...taken.map((event) => /** @type {[Event, bigint]} */ ([event, incarnation])));
    });
    this.#alive().downlink.onStored(position, work.now);
  }

  /**
   * @param {import("../../src/codec/frames.js").Snapshot} page
   * @param {Work} work
   */
  #onSnapshot(page, work) {
    const messages = page.conversations.flatMap((conversation) => conversation.messages);
    const position = page.last ? this.#alive().downlink.snapshotPosition : null;
    this.#write((store) => {
      store.pages.push(...messages.map(({ seq, content }) => ({ seq, text: content.text })));
      if (position) store.begin(work.life, position, store.pages.splice(0));
    });
    if (position) this.#alive().downlink.onSnapshotStored();
  }
}
