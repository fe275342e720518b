// Who looks at the page, and when somebody last did something. It decides how soon a dead connection has to be noticed, and how soon a
// lost one is tried again.

/** After this much silence the server is asked whether it is there: while somebody does something … */
const PROBE_AFTER_ACTIVE = 4_000;
/** … which lasts this long after the last thing done … */
const ACTIVE_FOR = 60_000;
/** … while somebody only looks … */
const PROBE_AFTER = 10_000;
/** … where nobody looks at any tab after this much: it keeps address translations alive, and not the device awake. */
const PROBE_AFTER_HIDDEN = 25_000;
/** A page that is seen counts as looked at for this long after somebody last turned to it or did something: many are left open for days. */
const LOOKED_AT_FOR = 600_000;

export class Attention {
  /** @param {import("./environment.js").Environment} env */
  constructor(env) {
    this.env = env;
    /** When somebody last did something. */
    this.activeAt = -Infinity;
    /** When somebody last did something, or turned to the page. */
    this.turnedAt = env.now();
    /** The other tabs that are seen. @type {Set<string>} */
    this.seen = new Set();
  }

  /** Somebody does something. Says whether nobody did for a while. */
  onActive() {
    const wasIdle = !this.#active;
    this.activeAt = this.turnedAt = this.env.now();
    return wasIdle;
  }

  /** Somebody turned to the page. */
  onTurned() {
    this.turnedAt = this.env.now();
  }

  /**
   * Another tab is seen now, or not any more.
   * @param {string} tab
   * @param {boolean} seen
   */
  onSeen(tab, seen) {
    if (!seen) return void this.seen.delete(tab);
    this.seen.add(tab);
    return this.onTurned();
  }

  get #active() {
    return this.env.now() < this.activeAt + ACTIVE_FOR;
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
  get patience() {
    if (!this.#seen) return PROBE_AFTER_HIDDEN;
    return this.#active ? PROBE_AFTER_ACTIVE : PROBE_AFTER;
  }
}
