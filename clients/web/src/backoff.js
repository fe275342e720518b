// How long to wait before the next attempt: at random up to a bound that doubles, so that clients who lost the same server do not all come
// back at once.

const FIRST = 500;
const MAX = 30_000;
/** While somebody looks, and would be kept waiting. */
const LOOKED_AT_MAX = 4_000;
/** Servers may ask for patience, but not for more than this. */
const RETRY_AFTER_MAX = 300_000;

export class Backoff {
  /** @param {() => number} random */
  constructor(random) {
    this.random = random;
    /** Attempts since the last session that lasted. */
    this.failures = 0;
  }

  /**
   * Milliseconds to wait; `asked` is what the server asks for, 0 if it does not.
   * @param {number} asked
   * @param {boolean} looked whether somebody looks at the page
   */
  next(asked, looked) {
    const bound = Math.min(FIRST * 2 ** this.failures, looked ? LOOKED_AT_MAX : MAX);
    this.failures += 1;
    return asked > 0 ? Math.min(asked, RETRY_AFTER_MAX) : bound * this.random();
  }

  reset() {
    this.failures = 0;
  }
}
