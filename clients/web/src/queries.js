// Questions: open until they are answered, however many sessions that takes, or until the connection is given up for now.

import { WhimbrelError } from "./errors.js";

/** @typedef {import("./codec/frames.js").QueryBody} QueryBody */
/** @typedef {import("./codec/frames.js").HistoryPage | import("./codec/frames.js").OnlinePage} Page */

/** Questions that may be open at once. */
const OPEN_MAX = 64;
/** Questions that are asked and not answered, at most: servers let 16 wait, and end a session with more. */
const ASKED_MAX = 16;
/** Messages or names in an answer, at most: the server cuts there too. */
const ITEMS_MAX = 500;

/**
 * @typedef {object} Open
 * @property {QueryBody} query
 * @property {boolean} asked in this session
 * @property {any} page what came so far
 * @property {(page: any) => void} resolve
 * @property {(why: WhimbrelError) => void} reject
 */

export class Queries {
  constructor() {
    this.last = 0n;
    /** @type {Map<bigint, Open>} */
    this.open = new Map();
  }

  /**
   * @param {QueryBody} query
   * @returns {Promise<any>} the page of the same kind
   */
  ask(query) {
    return new Promise((resolve, reject) => {
      if (this.open.size >= OPEN_MAX) throw new WhimbrelError("tooManyQueries", `${OPEN_MAX} questions are open already: wait for an answer`);
      this.last += 1n;
      this.open.set(this.last, { query, asked: false, page: undefined, resolve, reject });
    });
  }

  /** How many answers are awaited in this session. */
  get asked() {
    return [...this.open.values()].filter(({ asked }) => asked).length;
  }

  /** The next question that was not asked in this session. */
  pollTransmit() {
    if (this.asked >= ASKED_MAX) return undefined;
    for (const [id, open] of this.open) {
      if (open.asked) continue;
      open.asked = true;
      return { id, ...open.query };
    }
    return undefined;
  }

  /**
   * The way on which it was asked has ended. Says whether it is still to be answered: then from the beginning.
   * @param {bigint} id
   */
  onEnd(id) {
    const open = this.open.get(id);
    if (open) open.page = undefined;
    return open !== undefined;
  }

  /** The session ended: everything is asked again, from the beginning. */
  onDisconnect() {
    for (const open of this.open.values()) [open.asked, open.page] = [false, undefined];
  }

  /** @param {import("./codec/frames.js").Answer} answer */
  onAnswer(answer) {
    const open = this.open.get(answer.id);
    // An answer to nothing: whoever asked was told that it cannot be had.
    if (!open) return;
    const why = this.#add(open, answer);
    if (!why && !answer.last) return;
    this.open.delete(answer.id);
    if (why) open.reject(why);
    else open.resolve(open.page);
  }

  /**
   * @param {Open} open
   * @param {import("./codec/frames.js").Answer} answer
   */
  #add(open, answer) {
    if (answer.kind === "refused") return new WhimbrelError(answer.body.code, answer.body.message);
    if (answer.kind !== open.query.kind || !answer.body) return new WhimbrelError("badAnswer", "the server answered something else");
    const field = answer.kind === "history" ? "messages" : "users";
    const page = /** @type {any} */ (answer.body);
    open.page = open.page ? { ...page, [field]: open.page[field].concat(page[field]) } : page;
    return open.page[field].length > ITEMS_MAX ? new WhimbrelError("badAnswer", `the answer holds more than ${ITEMS_MAX}`) : undefined;
  }

  /**
   * Nothing will be answered for now.
   * @param {WhimbrelError} why
   */
  rejectAll(why) {
    const open = [...this.open.values()];
    this.open.clear();
    for (const { reject } of open) reject(why);
  }
}
