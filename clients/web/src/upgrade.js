// When to try WebTransport beside a session over a WebSocket: soon at first, and less and less often where nothing lets it through.

/** A better transport is tried this long after a session began, in milliseconds … */
const FIRST = 3_000;
/** … and then so many times later each time … */
const GROWTH = 4;
/** … but no later than this. */
const LATEST = 3_600_000;
/** A session over the better transport that lasted this long shows that it is better. */
const PROVEN_AFTER = 60_000;

export class Upgrade {
  constructor() {
    this.at = 0;
    this.wait = FIRST;
  }

  /** What did not get through before may do now. @param {number} now */
  reset(now) {
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

  /** @param {number} now */
  onTry(now) {
    this.at = now + this.wait;
    this.wait = Math.min(this.wait * GROWTH, LATEST);
  }
}
