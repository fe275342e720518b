// Whether the server of a session still answers: when to ask it, and when to stop waiting. No I/O and no clock: times are milliseconds
// that the caller passes in.

/** What the server owes (that a command was applied, an answer) is asked after when it has not come for this long. */
const ASK_AFTER = 1_000;
/** No answer to that after this long: a second connection is tried beside the first. After a hint that the network changed, sooner. */
const SUSPECT_AFTER = 2_000;
const SUSPECT_AFTER_HINT = 1_000;
/** So many times that, and the connection is given up. */
const GIVE_UP_TIMES = 6;
/** An answer that takes longer is no reason to be impatient again. */
const PROMPT = 1_000;
/** Each session in a row that is given up for its silence doubles the patience with the next, so many times: a network that needs longer
 * than we wait would never get anything through. */
const DOUBLINGS_MAX = 3;

/** How patient to be, over all sessions. */
export class Patience {
  /** Sessions in a row that did not answer in time, none of them promptly before that. */
  silences = 0;

  get factor() {
    return 2 ** Math.min(this.silences, DOUBLINGS_MAX);
  }
}

/**
 * One session's. Only what shows that the way *up* works ends a wait: an answer, an outcome, a pong. A lively way down says nothing of it.
 */
export class Pulse {
  /**
   * @param {number} now
   * @param {Patience} patience
   */
  constructor(now, patience) {
    this.patience = patience;
    /** When something came last. */
    this.heard = now;
    /** Since when something is owed and nothing of it came. @type {number | undefined} */
    this.owed = undefined;
    /** When the server was asked whether it is there, and did not answer since. @type {number | undefined} */
    this.probed = undefined;
    /** When the next attempt beside this session is due. */
    this.suspectAt = Infinity;
  }

  /** Something was sent that is answered. @param {number} now */
  onOwing(now) {
    this.owed ??= now;
  }

  /**
   * Something of what was owed came.
   * @param {number} now
   * @param {boolean} more whether more is owed
   */
  onAnswer(now, more) {
    if (now - Math.max(this.owed ?? -Infinity, this.probed ?? -Infinity) <= PROMPT) this.patience.silences = 0;
    this.owed = more ? now : undefined;
    this.probed = undefined;
    this.suspectAt = Infinity;
  }

  /**
   * The server is asked now.
   * @param {number} now
   * @param {boolean} hint whether there is a reason to believe that the network changed
   */
  onProbe(now, hint) {
    this.probed ??= now;
    const wait = (hint ? SUSPECT_AFTER_HINT : SUSPECT_AFTER) * this.patience.factor;
    this.suspectAt = Math.min(this.suspectAt, this.probed + wait);
  }

  /** An attempt beside this session begins. The next, if this one fails, is not worth hurrying for. @param {number} now */
  onSuspected(now) {
    this.suspectAt = now + SUSPECT_AFTER * this.patience.factor;
  }

  /** It was given up for its silence, or another took its place. */
  onGivenUp() {
    if (this.probed !== undefined) this.patience.silences += 1;
  }

  /** When to ask, if nothing comes; `quiet` is how long the server may have nothing to say. @param {number} quiet */
  askAt(quiet) {
    return Math.min(this.heard + quiet, (this.owed ?? Infinity) + ASK_AFTER);
  }

  /** When to stop waiting. */
  get giveUpAt() {
    return this.probed === undefined ? Infinity : this.probed + SUSPECT_AFTER * this.patience.factor * GIVE_UP_TIMES;
  }
}
