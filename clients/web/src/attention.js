// Who looks at the page, and when somebody last did something. It decides how soon a dead connection has to be noticed, and how soon a
// lost one is tried again.

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
    /** The other tabs that are seen. @type {Set<string>} */
    this.seen = new Set();
  }

  /** Somebody turned to the page, or does something. Says whether nobody looked before. */
  onTurned() {
    const wasIdle = !this.looked;
    this.turnedAt = this.env.now();
    return wasIdle;
  }

  /**
   * Another tab is seen now, or not any more.
   * @param {string} tab
   * @param {boolean} seen
   */
  onSeen(tab, seen) {
    this.seen[seen ? "add" : "delete"](tab);
    if (seen) this.onTurned();
  }

  /** Whether any tab is seen: the one that leads need not be the one that is looked at. */
  get #seen() {
    return !this.env.hidden() || this.seen.size > 0;
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
