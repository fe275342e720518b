// One session: what comes over a link goes through the two machines into the store, in order; what the machines have to say goes out.
// Both machines begin with what the store holds, which is the truth whatever happened to the session before.

import { Asking } from "./asking.js";
import { encodeClientFrame, withLength } from "./codec/index.js";
import { Copies } from "./copies.js";
import { Downlink, through } from "./downlink.js";
import { CodecError, WhimbrelError, describe, givesUp } from "./errors.js";
import { Pulse } from "./pulse.js";
import { restart, take, takeSnapshot } from "./store/inbox.js";
import { applied, command, renumber, rowsAfter } from "./store/outbox.js";
import { explain, Uplink } from "./uplink.js";

/** @typedef {import("./codec/frames.js").ServerFrame} ServerFrame */
/** @typedef {import("./store/rows.js").OutboxRow} OutboxRow */

/** Events that are stored in one transaction. */
const TAKE_MAX = 512;
/** Frames that wait to be stored before the link is asked to read no further … */
const QUEUE_HIGH = 2_048;
/** … and before the session is given up, where the link cannot stop reading: what was not taken comes again … */
const QUEUE_MAX = 32_768;
/** … or characters of text in them. */
const TEXT_MAX = 16 * 1024 * 1024;
/** That commands were applied is stored this much later, if the events that follow do not carry it along. */
const SAVE_DELAY = 100;
/** Bytes that may wait in the link before signals are dropped. */
const QUEUED_MAX = 64 * 1024;
/** Commands that a server that has forgotten an outbox is sent again, at most: it knows the nonces of twice as many. */
const REPEATS_MAX = 128n;

/** @typedef {import("./host.js").Host} Host */

export class Session {
  /**
   * @param {Host} host
   * @param {import("./link/link.js").Link} link
   * @param {import("./store/rows.js").Loaded} loaded
   * @param {bigint} [newsAfter] since when somebody listens, to the session whose place this one takes
   */
  constructor(host, link, loaded, newsAfter) {
    this.host = host;
    this.link = link;
    const pending = loaded.rows.filter((row) => !row.applied);
    this.uplink = new Uplink(loaded.outbox, pending.map(command));
    this.downlink = new Downlink(loaded.position);
    /** Rows of the outbox by incarnation and number: those whose outcome may come. @type {Map<string, number>} */
    this.rowIds = new Map();
    this.#know(loaded.rows);
    this.lastId = loaded.rows.at(-1)?.id ?? 0;
    /** Rows that are applied and not yet stored as such. @type {number[]} */
    this.applied = [];
    /** @type {number | undefined} */
    this.unsavedSince = undefined;
    this.copies = new Copies();
    this.asking = new Asking(link, (answer) => this.#onAnswer(answer), (query) => {
      // No answer came: the session's own stream brings it.
      if (!this.over && host.queries.onEnd(query.id)) this.#send({ query });
      host.wake();
    });
    /** @type {(ServerFrame | { copy: import("./codec/frames.js").Event })[]} */
    this.queue = [];
    this.queuedText = 0;
    /** Runs while there is something in the queue. @type {Promise<void> | undefined} */
    this.draining = undefined;
    this.over = false;
    this.ready = false;
    this.begun = host.env.now();
    this.pulse = new Pulse(this.begun, host.patience);
    this.mute = true;
    /** The ping that no pong came to. @type {number | undefined} */
    this.pinged = undefined;
    /** Nobody is told that messages up to this event came: that happened before anybody listened. */
    this.newsAfter = newsAfter;
    this.watched = false;
    /** What the server was told of whether the device is in the background, and whether it is not known yet that it has heard that. */
    this.background = false;
    this.telling = false;
    this.reading = false;
    this.readAgain = false;
    /** What the pages of a snapshot have to be told. @type {{ reset: string | null, outcomesGone: boolean } | undefined} */
    this.snapshot = undefined;
  }

  start() {
    this.link.start((frames) => this.#onFrames(frames), (why) => this.#lost(why), (frames) => this.#onHints(frames));
    this.background = this.host.state().background;
    this.#send({ hello: this.host.hello(this.uplink.state.incarnation, this.downlink.stored) });
  }

  /** Says goodbye in order. Resolves when nothing of this session touches the store any more. */
  async leave() {
    if (!this.over && this.ready) {
      const seq = this.downlink.flushAck();
      if (seq !== undefined) this.#send({ ack: { seq } });
    }
    this.over = true;
    this.link.close();
    await this.draining;
  }

  /** @param {import("./codec/frames.js").ClientFrame} frame */
  #send(frame) {
    const bytes = encodeClientFrame(frame);
    const now = this.host.env.now();
    this.link.send(bytes);
    if ("command" in frame) this.copies.push(frame.command.cseq, bytes, now);
    if (!("ack" in frame || "pong" in frame || "signal" in frame)) this.pulse.onOwing(now);
  }

  /**
   * Asks whether the server is there; tells it before how the device is, if it knows otherwise, so that the answer shows that it has heard.
   * @param {boolean} hint whether something says that the network changed
   */
  ping(hint) {
    const state = this.host.state();
    if (state.background !== this.background) {
      this.#send({ signal: { state } });
      [this.background, this.telling] = [state.background, true];
    }
    this.pinged = Math.floor(this.host.env.random() * 2 ** 32);
    this.pulse.onProbe(this.host.env.now(), hint);
    this.#send({ ping: { id: this.pinged } });
  }

  /** The server answered something: what was sent gets there. */
  #onAnswered() {
    const more = this.uplink.inFlight > 0 || this.host.queries.asked > 0 || this.pinged !== undefined;
    this.pulse.onAnswer(this.host.env.now(), more);
  }

  /** @param {import("./codec/frames.js").Signal} signal */
  signal(signal) {
    if (!this.ready) return;
    const datagram = withLength(encodeClientFrame({ signal }));
    if (datagram.length <= this.link.datagramMax) this.link.hint(datagram);
    else if (this.link.queued < QUEUED_MAX) this.#send({ signal });
  }

  /** @param {import("./codec/frames.js").Query} query */
  #ask(query) {
    if (this.asking.ask(query)) this.pulse.onOwing(this.host.env.now());
    else this.#send({ query });
  }

  /** @param {WhimbrelError} why */
  #lost(why, retryAfterMs = 0) {
    if (this.over) return;
    this.over = true;
    this.link.close();
    this.host.lost(this, describe(why), retryAfterMs);
  }

  /** @param {{ code: string, message: string }} why */
  #ended(why) {
    if (this.over) return;
    this.over = true;
    this.link.close();
    this.host.ended(this, why);
  }

  /** @param {OutboxRow[]} rows */
  #know(rows) {
    for (const row of rows) this.rowIds.set(`${row.incarnation}:${row.cseq}`, row.id);
  }

  /** @param {ServerFrame[]} frames */
  #onFrames(frames) {
    if (this.over) return undefined;
    this.pulse.heard = this.host.env.now();
    this.mute = false;
    for (const frame of frames) {
      if (this.#atOnce(frame)) continue;
      this.queue.push(frame);
      if ("event" in frame && frame.event.kind === "message") this.queuedText += frame.event.body.content.text.length;
    }
    if (this.queue.length > QUEUE_MAX || this.queuedText > TEXT_MAX) {
      this.#lost(new WhimbrelError("overflow", "more came at once than could be stored: what is missing comes again"), -1);
      return undefined;
    }
    this.#work();
    return this.queue.length > QUEUE_HIGH ? this.draining : undefined;
  }

  /**
   * What came in datagrams: signals, and copies of events, which have not to be in order.
   * @param {ServerFrame[]} frames
   */
  #onHints(frames) {
    if (this.over || !this.ready) return;
    const now = (this.pulse.heard = this.host.env.now());
    for (const frame of frames) {
      if ("signal" in frame && "typing" in frame.signal) this.host.signal(frame.signal);
      if (!("event" in frame)) continue;
      this.copies.onLossy(now);
      if (this.queue.length < QUEUE_HIGH && through(frame.event) > this.downlink.taken) this.queue.push({ copy: frame.event });
    }
    this.#work();
  }

  #work() {
    if (!this.draining && this.queue.length > 0) {
      this.draining = this.#drain().finally(() => {
        this.draining = undefined;
        this.host.wake();
      });
    }
    this.host.wake();
  }

  /**
   * What needs no store, and has no place in the order of events.
   * @param {ServerFrame} frame
   */
  #atOnce(frame) {
    if (this.over) return true;
    if ("ping" in frame) this.#send({ pong: frame.ping });
    else if ("goAway" in frame) {
      const seq = this.ready ? this.downlink.flushAck() : undefined;
      if (seq !== undefined) this.#send({ ack: { seq } });
      this.#lost(new WhimbrelError("goAway", `the server is going away: ${frame.goAway.message}`), frame.goAway.retryAfterMs);
    } else if ("error" in frame) {
      const { code, message, retryAfterMs } = frame.error;
      if (givesUp(code)) this.#ended({ code, message });
      else this.#lost(new WhimbrelError(code, message), retryAfterMs);
    } else if ("pong" in frame) {
      if (frame.pong.id === this.pinged) [this.pinged, this.telling] = [undefined, false];
      this.#onAnswered();
    } else {
      if (!this.ready) return false;
      if ("applied" in frame) this.#onApplied(this.uplink.onApplied(frame.applied.cseq));
      else if ("busy" in frame) {
        this.uplink.onBusy(frame.busy.cseq, frame.busy.retryAfterMs, this.host.env.now());
        this.copies.drop(this.uplink.last);
        this.#onAnswered();
      } else if ("answer" in frame) this.#onAnswer(frame.answer);
      else if ("signal" in frame) this.host.signal(frame.signal);
      else return false;
    }
    return true;
  }

  /** @param {import("./codec/frames.js").Command[]} commands */
  #onApplied(commands) {
    if (commands.length === 0) return;
    this.copies.drop(this.uplink.state.applied);
    this.applied.push(...commands.map((command) => /** @type {any} */ (command).id));
    this.unsavedSince ??= this.host.env.now();
    this.#onAnswered();
  }

  /** @param {import("./codec/frames.js").Answer} answer */
  #onAnswer(answer) {
    if (this.over) return;
    this.pulse.heard = this.host.env.now();
    this.host.queries.onAnswer(answer);
    this.#onAnswered();
    this.host.wake();
  }

  /** What is to be stored of the outbox with the next transaction. */
  #outboxChange() {
    this.unsavedSince = undefined;
    return { state: this.uplink.state, applied: this.applied.splice(0) };
  }

  async #drain() {
    try {
      let at = 0;
      while (at < this.queue.length && !this.over) {
        /** @type {import("./codec/frames.js").Event[]} */
        const events = [];
        for (; at < this.queue.length && events.length < TAKE_MAX; at++) {
          const frame = this.queue[at];
          const copied = "copy" in frame;
          const event = copied ? frame.copy : "event" in frame && frame.event;
          if (!event || !this.ready) break;
          // One reliable stream has no business with gaps: waiting would be for ever. Copies get lost.
          if (!copied && this.downlink.isEarly(event)) {
            throw new WhimbrelError("outOfOrder", "the server sent an event with a gap before it");
          }
          const taken = this.downlink.onEvent(event);
          if (typeof taken !== "string") events.push(...taken);
        }
        if (events.length > 0) await this.#take(events);
        else if (at < this.queue.length) {
          const frame = /** @type {ServerFrame} */ (this.queue[at++]);
          if (!this.#atOnce(frame)) await this.#inOrder(frame);
        }
        if (at > QUEUE_HIGH) this.queue.splice(0, at), (at = 0);
      }
      this.queue.length = this.queuedText = 0;
    } catch (why) {
      const described = why instanceof WhimbrelError ? why : new WhimbrelError("internal", describe(why).message);
      if (described.code === "numberTooLarge" || described.code === "outdated") this.#ended(described);
      else this.#lost(described);
    }
  }

  /** @param {ServerFrame} frame */
  async #inOrder(frame) {
    if ("welcome" in frame && !this.ready && !this.snapshot) return this.#onWelcome(frame.welcome);
    if ("snapshot" in frame && this.snapshot) return this.#onSnapshot(frame.snapshot);
    throw new CodecError(`the server sent "${Object.keys(frame)[0]}" where it has no place`);
  }

  /** @param {import("./codec/frames.js").Event[]} events */
  async #take(events) {
    const { db, user, env } = this.host;
    for (const { kind, body } of events) {
      // An outcome says that the command is durable; `applied` may come later. Stored together with the event.
      const own = (kind === "sent" || kind === "rejected") && body.incarnation === this.uplink.state.incarnation;
      if (own) this.#onApplied(this.uplink.onApplied(body.cseq));
    }
    const last = events[events.length - 1];
    const position = this.downlink.positionAt(last);
    const rowOf = (/** @type {bigint} */ incarnation, /** @type {bigint} */ cseq) => this.rowIds.get(`${incarnation}:${cseq}`);
    const { changed, received } = await take(db, user, events, position, this.#outboxChange(), rowOf);
    for (const { kind, body } of events) {
      if (kind === "sent" || kind === "rejected") this.rowIds.delete(`${body.incarnation}:${body.cseq}`);
    }
    this.downlink.onStored(position, env.now());
    this.#acknowledge();
    this.host.changed(changed);
    const { newsAfter = 0n } = this;
    if (through(last) <= newsAfter) return;
    const live = new Set(events.map(({ seq, kind, body }) => (kind === "message" && seq > newsAfter ? `${body.conversation}:${body.seq}` : "")));
    for (const row of received) if (live.has(`${row.conversation}:${row.seq}`)) this.host.received(row);
  }

  #acknowledge() {
    if (this.over) return;
    // Timers of pages that are hidden come late, of those that are suspended not at all: there the acknowledgement is not put off.
    const { env, state } = this.host;
    const seq = env.hidden() || state().background ? this.downlink.flushAck() : this.downlink.pollAck(env.now());
    if (seq !== undefined) this.#send({ ack: { seq } });
  }

  /** @param {import("./codec/frames.js").Welcome} welcome */
  async #onWelcome(welcome) {
    const { db, user } = this.host;
    if (welcome.version !== 1) {
      return this.#ended({ code: "unsupportedVersion", message: `the server chose version ${welcome.version}, this SDK speaks 1: update it` });
    }
    if (welcome.user !== user) {
      return this.#ended({ code: "unauthorized", message: `the server takes us for ${welcome.user}, we are ${user}: the token is somebody else's` });
    }
    if (!(await this.#agree(welcome)) || this.over) return undefined;
    const { begin, head } = welcome;
    const { reset, position } = this.downlink.onWelcome(welcome);
    this.newsAfter = reset === null && this.newsAfter !== undefined && this.newsAfter < head ? this.newsAfter : head;
    // Everything applied by now has its outcome in the log up to the head.
    const outcomesGone = (reset !== null || position !== null || begin.snapshot) && begin.cursor >= head;
    if (begin.snapshot) this.snapshot = { reset, outcomesGone };
    else if (position) await restart(db, position, this.#outboxChange(), { reset, outcomesGone });
    this.ready = true;
    this.pulse.owed = undefined;
    if (reset && !begin.snapshot) this.host.reset(reset);
    this.host.greeted(this);
    this.host.wake();
    return this.sync();
  }

  /**
   * Makes the outbox and the server agree, or says why they cannot. What is to be stored is, when this returns.
   * @param {import("./codec/frames.js").Welcome} welcome
   */
  async #agree(welcome) {
    const { db } = this.host;
    // A copy: the uplink takes from its own what it learns to be applied.
    const before = [...this.uplink.pending];
    const { applied: appliedBefore, incarnation } = this.uplink.state;
    const agreement = this.uplink.onWelcome(welcome);
    if (agreement.agreed === "agreed") {
      this.#onApplied(before.slice(0, before.length - this.uplink.pending.length));
      return true;
    }
    if (agreement.agreed === "renumbered") {
      const rows = await renumber(db, welcome.incarnation);
      this.#know(rows);
      // Another tab may have enqueued more meanwhile.
      this.uplink.adopt(rows.map(command));
      this.lastId = Math.max(this.lastId, rows.at(-1)?.id ?? 0);
      return true;
    }
    const { why } = agreement;
    // Said before it is stored: afterwards nothing remembers the contradiction.
    this.host.conflict(explain(why));
    // What the server may have lost is sent again; a command that it has after all is a repeat there. Of the rest it is known that it was
    // carried out: it comes as an ordinary message.
    const again = (/** @type {OutboxRow} */ row) =>
      (why.reason === "serverIsOlder" && row.cseq > why.server)
      || (why.reason === "anotherOutbox" && why.server < why.ours && row.cseq > appliedBefore - REPEATS_MAX);
    await renumber(db, 0n, again);
    // At once, for a new outbox. A server that disagrees with that one too is not worth hurrying for.
    this.#lost(new WhimbrelError("outboxConflict", explain(why)), incarnation === 0n ? 0 : -1);
    return false;
  }

  /** @param {import("./codec/frames.js").Snapshot} page */
  async #onSnapshot(page) {
    const { db, user } = this.host;
    const { reset, outcomesGone } = /** @type {NonNullable<typeof this.snapshot>} */ (this.snapshot);
    const position = page.last ? this.downlink.snapshotPosition : null;
    const changed = await takeSnapshot(db, user, page.conversations, this.#outboxChange(), { reset, position, outcomesGone });
    this.snapshot = page.last ? undefined : { reset: null, outcomesGone };
    if (reset) this.host.reset(reset);
    if (page.last) {
      this.downlink.onSnapshotStored();
      this.#acknowledge();
      // Commands may go now, before the events that are here already are stored.
      this.host.wake();
    }
    this.host.changed(changed);
  }

  /** Takes what any tab has put into the outbox since it was last looked at. */
  async sync() {
    if (this.reading) {
      this.readAgain = true;
      return;
    }
    this.reading = true;
    try {
      do {
        this.readAgain = false;
        const rows = await rowsAfter(this.host.db, this.lastId);
        if (rows.length > 0) {
          this.lastId = rows[rows.length - 1].id;
          this.#know(rows);
          this.uplink.adopt(rows.map(command));
          this.host.wake();
        }
      } while (this.readAgain);
    } catch (why) {
      this.#lost(why instanceof WhimbrelError ? why : new WhimbrelError("internal", describe(why).message));
    } finally {
      this.reading = false;
    }
  }

  /** Sends whatever there is to send, and says when it is worth another call although nothing happened. */
  poll() {
    if (this.over || !this.ready) return Infinity;
    const { env, queries } = this.host;
    const now = env.now();
    this.#acknowledge();
    if (this.host.state().background !== this.background) this.ping(false);
    const watch = this.watched ? undefined : this.host.watch();
    // Nobody repeats it: it goes over the stream, whatever waits there.
    if (watch) this.#send({ signal: { watch } });
    this.watched = true;
    for (let query; (query = queries.pollTransmit()); ) this.#ask(query);
    // The window bounds what this puts into the link. Nothing while a snapshot is under way: if it breaks off, the next one may begin after
    // the outcome.
    for (let command; !this.snapshot && (command = this.uplink.pollTransmit(now)); ) this.#send({ command });
    for (let datagram; (datagram = this.copies.pollTransmit(now, this.link.datagramMax)); ) this.link.hint(datagram);
    let wake = Math.min(this.uplink.pollTimeout() ?? Infinity, this.downlink.pollTimeout() ?? Infinity, this.copies.due);
    if (this.unsavedSince !== undefined && !this.draining) {
      const due = this.unsavedSince + SAVE_DELAY;
      if (now >= due) this.#save();
      else wake = Math.min(wake, due);
    }
    return wake;
  }

  #save() {
    const { state, applied: ids } = this.#outboxChange();
    applied(this.host.db, state, ids).catch((why) => this.#lost(why));
  }
}
