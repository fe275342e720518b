// Who looks at the page, and when somebody last did something. It decides how soon a dead connection has to be noticed, how soon a lost one
// is tried again, and whether the server is told that the device is in the background.

/** After this much silence the server is asked whether it is there: while somebody looks … */
const PROBE_AFTER = 4_000;
/** … where a tab is seen, but was left alone … */
const PROBE_AFTER_LEFT = 10_000;
/** … where none is seen: it keeps address translations alive, and not the device awake. */
const PROBE_AFTER_HIDDEN = 25_000;
/** A page that is seen counts as looked at for this long after somebody last turned to it or did something: many are left open for days. */
const LOOKED_AT_FOR = 600_000;

export class Attention {
  /** @param {import("./environment.js").Environment} env */
  constructor(env) {
    this.env = env;
    /** When somebody last did something, or turned to the page. */
    this.turnedAt = env.now();
    /** Whether this tab's page is suspended, or about to be. */
    this.suspended = false;
    /**
     * Of the other tabs, as each said last: whether it is seen, whether its page is suspended.
     * @type {Map<string, { seen: boolean, suspended: boolean }>}
     */
    this.others = new Map();
  }

  /** Somebody turned to the page, or does something. Says whether nobody looked before. */
  onTurned() {
    const wasIdle = !this.looked;
    this.turnedAt = this.env.now();
    return wasIdle;
  }

  /**
   * Another tab is seen now, or not any more; its page is suspended, or not.
   * @param {string} tab
   * @param {boolean} seen
   * @param {boolean} [suspended]
   */
  onSeen(tab, seen, suspended = false) {
    this.others.set(tab, { seen, suspended });
    if (seen) this.onTurned();
  }

  /** Another tab is closed. @param {string} tab */
  onGone(tab) {
    this.others.delete(tab);
  }

  /**
   * How the device is: in the background, if every tab's page is suspended. One that is closed does not count. When to ask whether we are there
   * is left to the server (0): browsers close a WebTransport connection through which nothing came for about 30 s, and a page does not see
   * which network it is on, so it cannot find out how long each bears silence, as the Rust client does.
   * @returns {import("./codec/frames.js").ClientState}
   */
  get state() {
    return { background: this.suspended && [...this.others.values()].every(({ suspended }) => suspended), askAfterS: 0 };
  }

  /** Whether any tab is seen: the one that leads need not be the one that is looked at. */
  get #seen() {
    return (!this.suspended && !this.env.hidden()) || [...this.others.values()].some(({ seen }) => seen);
  }

  /** Whether somebody looks at the page, in any tab, as far as can be known. */
  get looked() {
    return this.#seen && this.env.now() < this.turnedAt + LOOKED_AT_FOR;
  }

  /** How long the server may be silent before it is asked whether it is there. */
  get quiet() {
    if (!this.#seen) return PROBE_AFTER_HIDDEN;
    return this.looked ? PROBE_AFTER : PROBE_AFTER_LEFT;
  }
}
