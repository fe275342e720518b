// WebTransport, tried beside a session over a WebSocket: soon at first, and less and less often where nothing lets it through.

/** A better transport is tried this long after a session began, in milliseconds … */
const FIRST = 2_000;
/** … and then so many times later each time … */
const GROWTH = 4;
/** … but no later than this: where something keeps it from getting through, each attempt costs a few packets. */
const LATEST = 3_600_000;
/** A session over the better transport that lasted this long shows that it is better. One that did not may be followed by the next like it,
 * and each costs the time that it takes to be found dead. */
const PROVEN_AFTER = 60_000;

/**
 * @typedef {object} Mover
 * @property {(signal: AbortSignal) => Promise<import("./link/link.js").Link>} open tries the better transport
 * @property {(link: import("./link/link.js").Link, attempt: AbortController) => void} arrived `take` the attempt with the session's place
 * @property {() => void} failed
 */

export class Upgrade {
  /** @param {Mover} mover */
  constructor(mover) {
    this.mover = mover;
    /** When the next attempt is due. */
    this.at = 0;
    this.wait = FIRST;
    /** The one under way, beside a session that is as good as ever. @type {AbortController | undefined} */
    this.attempt = undefined;
  }

  /** Another network, on which things may get through. What is tried began on the one before. @param {number} now */
  reset(now) {
    this.stop();
    this.wait = FIRST;
    this.at = now + FIRST;
  }

  /** A session begins. @param {number} now */
  onSession(now) {
    this.at = Math.max(this.at, now + this.wait);
  }

  /**
   * A session over WebTransport ended.
   * @param {number} lasted
   * @param {number} now
   */
  onEnd(lasted, now) {
    if (lasted >= PROVEN_AFTER) this.reset(now);
  }

  /**
   * Nothing speaks against an attempt now: begins one if it is time to.
   * @param {number} now
   * @returns {number} when to look again
   */
  poll(now) {
    if (this.attempt) return Infinity;
    if (now < this.at) return this.at;
    this.wait = Math.min(this.wait * GROWTH, LATEST);
    this.at = now + this.wait;
    const attempt = (this.attempt = new AbortController());
    this.mover.open(attempt.signal).then(
      (link) => this.mover.arrived(link, attempt),
      () => {
        if (this.take(attempt)) this.mover.failed();
      },
    );
    return Infinity;
  }

  /**
   * The attempt is somebody else's business from now on.
   * @param {AbortController} attempt
   * @returns {boolean} whether it was one of these
   */
  take(attempt) {
    if (this.attempt !== attempt) return false;
    this.attempt = undefined;
    return true;
  }

  /** There is no need of it any more. */
  stop() {
    this.attempt?.abort();
    this.attempt = undefined;
  }
}
