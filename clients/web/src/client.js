// What applications hold: reads the store, puts commands into the outbox, and tells what changed, whichever tab it happened in.

import { randomHex } from "./environment.js";
import { WhimbrelError, describe } from "./errors.js";
import { utf8 } from "./codec/bytes.js";
import { nameFault } from "./codec/types.js";
import { toBigInt } from "./numbers.js";
import { Leader } from "./leader.js";
import { checked, newDevice, openStore } from "./open.js";
import { Marks } from "./marks.js";
import { Signals } from "./signals.js";
import { discard, enqueue, markRead, readRejected } from "./store/outbox.js";
import { conversation, conversations, load, lookUp, messages, pendingMessage, saveDraft } from "./store/views.js";
import { Suspension } from "./suspension.js";
import { Tabs } from "./tabs.js";

/** @typedef {import("./index.js").Message} Message */
/** @typedef {import("./index.js").Target} Target */
/** @typedef {import("./tabs.js").Note} Note */
/** @typedef {{ command: import("./store/outbox.js").NewCommand, instead?: string, resolve: (row: import("./store/rows.js").OutboxRow) => void, reject: (why: unknown) => void }} Waiting */

/** The longest text of a message, in bytes of UTF-8. */
const TEXT_MAX = 61_440;
/** Messages that are stored in one transaction. */
const ENQUEUE_MAX = 256;
/** The tab that leads has this long to try again by itself, before another one reminds it. */
const LATE = 500;
/** How long a page that is about to be suspended waits for the server. */
const KNOWN_TIMEOUT = 5_000;

/** @implements {ClientInterface} */
export class Client extends EventTarget {
  /**
   * @param {import("./index.js").ClientOptions} options
   * @param {import("./environment.js").Environment} env
   */
  static async open(options, env) {
    const wanted = checked(options);
    const { db, name, warning } = await openStore(env, wanted);
    try {
      const loaded = await load(db, { user: wanted.user, device: wanted.device ?? newDevice() });
      return new Client(env, wanted, db, name, loaded, warning);
    } catch (why) {
      db.close();
      throw why;
    }
  }

  /**
   * @param {import("./environment.js").Environment} env
   * @param {ReturnType<typeof checked>} options
   * @param {import("./store/database.js").Database} db
   * @param {string | undefined} name
   * @param {import("./store/rows.js").Loaded} loaded
   * @param {{ code: string, message: string } | undefined} warning
   */
  constructor(env, options, db, name, loaded, warning) {
    super();
    this.user = options.user;
    this.device = loaded.device;
    /** @type {import("./index.js").Connection} */
    this.connection = { state: "connecting", transport: "none", ...(warning && { warning }) };
    this.waiting = loaded.rows.filter((row) => !row.applied).length;
    this.#env = env;
    this.#options = options;
    this.#db = db;
    this.#warning = warning;
    this.#signals = new Signals((type, detail) => this.#emit(type, detail), (note) => this.#tabs.toLeader(note), env);
    this.#suspension = new Suspension(env);
    db.onlost = (why) => void this.#lostStore(why);
    this.#tabs = new Tabs(env, name, { lead: () => this.#lead(), note: (note) => this.#onNote(note) });
    this.#tabs.join();
    this.#off = env.on(["visibilitychange", "pageshow", "focus", "freeze", "resume", "pagehide", "pageswap"], (event) => this.#onPage(event));
  }

  #env;
  #options;
  #db;
  #warning;
  #signals;
  #tabs;
  #suspension;
  #off;
  #closed = false;
  #asked = false;
  /** @type {Leader | undefined} */
  #leader = undefined;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer = undefined;
  /** @type {Waiting[]} */
  #unstored = [];
  #storing = false;
  #marks = new Marks();

  #store() {
    if (this.#closed) throw new WhimbrelError("closed", "the client was closed");
    return this.#db;
  }

  // From the local store.

  async conversations() {
    return conversations(this.#store(), this.user);
  }

  /** @param {Target} of */
  async conversation(of) {
    return conversation(this.#store(), this.user, target(of));
  }

  /**
   * @param {Target} of
   * @param {{ before?: number, after?: number, limit?: number }} [page]
   */
  async messages(of, page = {}) {
    return messages(this.#store(), this.user, target(of), page);
  }

  // From the server.

  /**
   * @param {Target} of
   * @param {{ before?: number, after?: number, limit?: number }} page
   * @returns {Promise<{ messages: Message[], more: boolean }>}
   */
  async loadHistory(of, page) {
    return this.#tabs.ask("history", { of: target(of), page });
  }

  /** @returns {Promise<string[]>} */
  async onlineUsers() {
    return this.#tabs.ask("online", {});
  }

  // Into the outbox.

  /**
   * @param {Target} to
   * @param {string} text
   * @returns {Promise<Message>}
   */
  async send(to, text) {
    // Half a surrogate pair cannot be sent: it becomes what it would become on the way.
    const bytes = utf8(text);
    if (bytes.length > TEXT_MAX) {
      throw new WhimbrelError("tooLong", `the text has ${bytes.length} bytes, at most ${TEXT_MAX} are allowed: send several messages`);
    }
    if (text.trim() === "") throw new WhimbrelError("empty", "there is no text to send");
    const found = await lookUp(this.#store(), target(to));
    return this.#send(found, new TextDecoder().decode(bytes));
  }

  /**
   * @param {{ id: number | null, other: string, to: import("./store/rows.js").RowTarget }} where
   * @param {string} text
   * @param {string} [instead]
   */
  async #send({ id, other, to }, text, instead) {
    const row = await this.#enqueue({ nonce: randomHex(8), time: this.#env.time(), body: { kind: "send", to, text } }, instead);
    this.waiting += 1;
    this.#tabs.toLeader({ type: "kick" });
    this.#tabs.tell({ type: "changed", conversations: [{ id, other }] });
    if (!this.#asked) void this.#askToPersist();
    return pendingMessage(row, this.user, id);
  }

  /**
   * The browser may otherwise throw the store away when it is short of space. Some ask the user, who should not be asked before there is
   * something to keep.
   */
  async #askToPersist() {
    this.#asked = true;
    if (this.#db.kind !== "indexeddb") return;
    try {
      if (!(await this.#env.storage?.persisted())) await this.#env.storage?.persist();
    } catch {
      // It decides without saying so.
    }
  }

  /**
   * Stores a command together with all that wait to be: one write to the disk serves them.
   * @param {import("./store/outbox.js").NewCommand} command
   * @param {string} [instead]
   * @returns {Promise<import("./store/rows.js").OutboxRow>}
   */
  #enqueue(command, instead) {
    return new Promise((resolve, reject) => {
      this.#unstored.push({ command, instead, resolve, reject });
      if (!this.#storing) void this.#storeAll();
    });
  }

  async #storeAll() {
    this.#storing = true;
    for (let first; (first = this.#unstored[0]); ) {
      const alone = this.#unstored.findIndex((waiting) => waiting.instead);
      const batch = this.#unstored.splice(0, alone < 0 ? ENQUEUE_MAX : Math.min(Math.max(alone, 1), ENQUEUE_MAX));
      try {
        const rows = await enqueue(this.#db, batch.map((waiting) => waiting.command), first.instead);
        batch.forEach((waiting, at) => waiting.resolve(rows[at]));
      } catch (why) {
        for (const waiting of batch) waiting.reject(why);
      }
    }
    this.#storing = false;
  }

  /** @param {string} nonce */
  async retry(nonce) {
    const { body } = await readRejected(this.#store(), nonce);
    if (body.kind !== "send") throw new WhimbrelError("notFound", `no message with the nonce ${nonce} was rejected`);
    return this.#send(await lookUp(this.#db, body.to), body.text, nonce);
  }

  /** @param {string} nonce */
  async discard(nonce) {
    const { body } = await discard(this.#store(), nonce);
    if (body.kind !== "send") return;
    const { id, other } = await lookUp(this.#db, body.to);
    this.#tabs.tell({ type: "changed", conversations: [{ id, other }] });
  }

  /**
   * @param {Target} of
   * @param {number} seq
   */
  async markRead(of, seq) {
    toBigInt(seq, "the number of a message");
    const { id, other } = await lookUp(this.#store(), target(of));
    if (id === null) return;
    const upTo = await this.#marks.turn(id, seq);
    if (upTo === undefined) return;
    const mark = { conversation: id, seq: upTo, nonce: randomHex(8), time: this.#env.time() };
    if (!(await markRead(this.#store(), this.user, mark))) return;
    this.waiting += 1;
    this.#tabs.toLeader({ type: "kick" });
    this.#tabs.tell({ type: "changed", conversations: [{ id, other }] });
  }

  /**
   * @param {Target} of
   * @param {string} text
   */
  async saveDraft(of, text) {
    const to = target(of);
    // Before anything is asked: a page that is about to go writes what it begins now, and hears no answer.
    const stored = "user" in to ? saveDraft(this.#store(), to.user, text) : undefined;
    const [{ id, other }] = await Promise.all([lookUp(this.#store(), to), stored]);
    if (!stored) await saveDraft(this.#store(), other, text);
    this.#tabs.tell({ type: "changed", conversations: [{ id, other }] });
  }

  // Fleeting things.

  /**
   * @param {Target} to
   * @param {boolean} active
   */
  typing(to, active) {
    this.#signals.typing(target(to), active);
  }

  /** @param {{ users?: string[], everyone?: boolean, lobby?: boolean }} who */
  watch(who) {
    this.#signals.watch(who);
  }

  /** @param {string} user */
  presence(user) {
    return this.#signals.presence(user);
  }

  reconnect() {
    this.#tabs.toLeader({ type: "reconnect" });
  }

  background() {
    return this.#sayState(true);
  }

  foreground() {
    return this.#sayState(false);
  }

  /** @param {boolean} background */
  async #sayState(background) {
    if (this.#closed) return;
    this.#suspension.say(background);
    this.#tellState(!background);
    // It goes on without us.
    await this.#tabs.ask("known", {}, KNOWN_TIMEOUT).catch(() => {});
  }

  async close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#off();
    clearTimeout(this.#retryTimer);
    this.#signals.close();
    await this.#tabs.close();
    this.#db.close();
    this.#show({ state: "ended", transport: "none", error: { code: "closed", message: "the client was closed" } });
  }

  // Between tabs.

  async #lead() {
    const { user, device } = this;
    const leader = new Leader({ ...this.#options, env: this.#env, db: this.#db, user, device }, this.#tabs, this.#signals);
    leader.driver.attention.suspended = this.#suspension.is;
    this.#leader = leader;
    this.#signals.lead();
    try {
      await leader.driver.start();
    } catch (why) {
      this.#show({ state: "ended", transport: "none", error: describe(why) });
    }
    return async () => {
      this.#leader = undefined;
      await leader.driver.stop();
    };
  }

  /** @param {Note} note */
  #onNote(note) {
    const { type } = note;
    if (this.#closed) return;
    if (type === "state") {
      this.waiting = note.waiting;
      this.#show(note.connection);
    } else if (type === "changed") this.#emit("change", { conversations: note.conversations });
    else if (type === "message") this.#emit("message", note.message);
    else if (type === "reset") this.#emit("reset", { reason: note.reason });
    else if (type === "conflict") this.#emit("conflict", { message: note.message });
    else if (type === "signal") this.#signals.onSignal(note.signal);
    else if (type === "leads") {
      this.#signals.onLeader();
      if (!this.#tabs.leading) this.#tellState(false);
    } else this.#leader?.onNote(note);
  }

  /**
   * Something happened to this tab's page.
   * @param {Event} event
   */
  #onPage(event) {
    const { type } = event;
    const changed = this.#suspension.onEvent(event);
    if (type === "pageswap") return;
    if (type === "freeze" || type === "pagehide") {
      // What is sent in here gets out; what would come later does not. So first the news, while there is a session that can tell it.
      if (changed) this.#tellState(false);
      if (type === "pagehide" && !(/** @type {PageTransitionEvent} */ (event).persisted)) this.#tabs.say({ type: "bye" });
      // Then the lock: a frozen page that held it would leave the other tabs without a connection. On desktops Chromium freezes no page that
      // holds one; but it does on phones, and pages that are kept for the way back everywhere. Where only the application says that it is
      // suspended, the lock stays: whoever suspends it suspends all of its pages, so that none could lead instead.
      void this.#tabs.leave();
      return;
    }
    if (type === "resume" || type === "pageshow") this.#tabs.join();
    if (!this.#tabs.leading) {
      this.#tellState(!this.#env.hidden());
      this.#awaitRetry();
    } else if (changed) this.#tellState(true);
  }

  /**
   * The tab that leads may be one that nobody looks at: it hears how this one is.
   * @param {boolean} turned whether somebody turned to it
   */
  #tellState(turned) {
    const suspended = this.#suspension.is;
    if (this.#leader) this.#leader.driver.onSuspended(suspended);
    // A page that goes hears that it is hidden after it has said goodbye.
    else if (this.#tabs.joined) this.#tabs.say({ type: "seen", seen: !suspended && !this.#env.hidden(), suspended, turned });
  }

  /** … and when it is time to connect again, since the timers of such a tab come late. */
  #awaitRetry() {
    clearTimeout(this.#retryTimer);
    const { state, retryAt } = this.connection;
    if (state !== "offline" || retryAt === undefined || this.#closed || this.#tabs.leading || this.#env.hidden()) return;
    this.#retryTimer = setTimeout(() => this.#tabs.say({ type: "due" }), Math.max(0, retryAt - this.#env.time()) + LATE);
  }

  /** @param {import("./index.js").Connection} connection */
  #show(connection) {
    const before = JSON.stringify(this.connection);
    this.connection = { ...connection, ...(this.#warning && { warning: this.#warning }) };
    if (connection.state !== "connected") this.#signals.forget();
    this.#awaitRetry();
    if (JSON.stringify(this.connection) !== before) this.#emit("connection", this.connection);
  }

  /** @param {WhimbrelError} why */
  async #lostStore(why) {
    await this.close();
    this.#show({ state: "ended", transport: "none", error: describe(why) });
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @typedef {Omit<import("./index.js").Client, "addEventListener">} ClientInterface */

/**
 * @param {Target} of
 * @returns {Target}
 */
function target(of) {
  if (of && "user" in of) {
    const fault = typeof of.user === "string" ? nameFault(of.user) : "it is not text";
    if (fault) throw new WhimbrelError("badArgument", `${JSON.stringify(of.user)} cannot be the name of a user: ${fault}`);
    return { user: of.user };
  }
  toBigInt(of?.conversation, "the number of a conversation");
  return { conversation: of.conversation };
}
