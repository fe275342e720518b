// Several tabs of one user share one session: one leads, the others go through it. Who leads holds a Web Lock, which the browser hands on
// when that tab closes or crashes; a tab that is about to be frozen lets go of it (client.js says why). The channel between tabs carries
// hints and signals only: what must not be lost is in the database that all of them read.

import { randomHex } from "./environment.js";
import { WhimbrelError } from "./errors.js";

/** How long a question waits for a tab that leads and answers. */
const ASK_TIMEOUT = 30_000;
/** Questions of this tab that may be open at once. */
const ASKS_MAX = 64;

/**
 * What a tab says to the others. `from` is the tab, `to` is one tab; without it all are meant.
 * @typedef {{ from: string, to?: string } & Record<string, any>} Note
 */

/**
 * @typedef {object} Role
 * @property {() => Promise<() => Promise<void>>} lead begins to lead; the result ends it
 * @property {(note: Note) => void} note another tab said something, or this one said it to all
 */

export class Tabs {
  /**
   * @param {import("./environment.js").Environment} env
   * @param {string | undefined} name what the tabs share; nothing if this one is alone
   * @param {Role} role
   */
  constructor(env, name, role) {
    this.env = env;
    this.name = name;
    this.role = role;
    this.id = randomHex(8);
    this.leading = false;
    /** @type {AbortController | undefined} */
    this.joined = undefined;
    /** Lets go of the lock. */
    this.release = () => {};
    /** @type {Promise<unknown>} */
    this.left = Promise.resolve();
    /** @type {Map<string, { note: Note, resolve: (result: any) => void, reject: (why: Error) => void, timer: ReturnType<typeof setTimeout> }>} */
    this.asks = new Map();
    this.channel = name && env.BroadcastChannel ? new env.BroadcastChannel(name) : undefined;
    if (this.channel) this.channel.onmessage = ({ data }) => this.#onNote(data);
  }

  /** Waits for its turn to lead. */
  join() {
    if (this.joined) return;
    const joined = (this.joined = new AbortController());
    const { env, name } = this;
    const locked = env.locks && name ? env.locks.request(name, { signal: joined.signal }, () => this.#lead(joined)) : this.#lead(joined);
    // Aborted, which is how waiting ends.
    this.left = Promise.resolve(locked).catch(() => {});
    this.say({ type: "who" });
  }

  /** @param {AbortController} joined */
  async #lead(joined) {
    if (joined.signal.aborted) return;
    const released = new Promise((resolve) => (this.release = () => resolve(undefined)));
    this.leading = true;
    const stop = await this.role.lead();
    this.say({ type: "leads" });
    for (const { note } of this.asks.values()) this.role.note(note);
    await released;
    this.leading = false;
    await stop();
  }

  /** Lets another tab lead, until this one joins again. */
  async leave() {
    this.joined?.abort();
    this.joined = undefined;
    this.release();
    await this.left;
  }

  /**
   * Tells the other tabs.
   * @param {Omit<Note, "from">} note
   */
  say(note) {
    this.channel?.postMessage({ ...note, from: this.id });
  }

  /**
   * Tells the other tabs and this one.
   * @param {Omit<Note, "from">} note
   */
  tell(note) {
    this.say(note);
    this.role.note({ ...note, from: this.id });
  }

  /**
   * Tells the tab that leads, which may be this one.
   * @param {Omit<Note, "from">} note
   */
  toLeader(note) {
    if (this.leading) this.role.note({ ...note, from: this.id });
    else this.say(note);
  }

  /**
   * Asks the tab that leads; asked again if another one takes over.
   * @param {string} what
   * @param {unknown} args
   * @param {number} [timeout]
   * @returns {Promise<any>}
   */
  ask(what, args, timeout = ASK_TIMEOUT) {
    return new Promise((resolve, reject) => {
      if (this.asks.size >= ASKS_MAX) throw new WhimbrelError("tooManyQueries", `${ASKS_MAX} questions are open already: wait for an answer`);
      const id = randomHex(8);
      const note = { type: "ask", id, what, args, from: this.id };
      const timer = setTimeout(() => this.#settle(id, { error: { code: "offline", message: "nothing answers" } }), timeout);
      this.asks.set(id, { note, resolve, reject, timer });
      this.toLeader(note);
    });
  }

  /**
   * @param {Note} ask
   * @param {{ result?: any, error?: { code: string, message: string } }} outcome
   */
  answer(ask, outcome) {
    if (ask.from === this.id) this.#settle(ask.id, outcome);
    else this.say({ type: "answer", to: ask.from, id: ask.id, ...outcome });
  }

  /**
   * @param {string} id
   * @param {{ result?: any, error?: { code: string, message: string } }} outcome
   */
  #settle(id, { result, error }) {
    const ask = this.asks.get(id);
    if (!ask) return;
    this.asks.delete(id);
    clearTimeout(ask.timer);
    if (error) ask.reject(new WhimbrelError(error.code, error.message));
    else ask.resolve(result);
  }

  /** @param {Note} note */
  #onNote(note) {
    if (typeof note !== "object" || note === null || (note.to && note.to !== this.id)) return;
    if (note.type === "answer") return this.#settle(note.id, { result: note.result, error: note.error });
    this.role.note(note);
    // Whoever led before may have taken the questions with it.
    if (note.type === "leads") for (const ask of this.asks.values()) this.say(ask.note);
    return undefined;
  }

  async close() {
    for (const id of [...this.asks.keys()]) this.#settle(id, { error: { code: "closed", message: "the client was closed" } });
    await this.leave();
    this.say({ type: "bye" });
    this.channel?.close();
    // What is still under way in this tab concerns nobody any more.
    this.channel = undefined;
  }
}
