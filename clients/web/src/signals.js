// What may get lost: who types, who is there. Nothing of it is stored.

/** What is not repeated for this long has ended. */
const TYPING_ENDS = 6_000;
/** A typing signal is repeated at most this often. */
const TYPING_EVERY = 3_000;
/** What the protocol takes. */
const WATCH_MAX = 256;
/** Names whose presence is remembered, at most. */
const KNOWN_MAX = 10_000;

/** Whom a tab wants to hear of. @typedef {{ users: string[], everyone: boolean, lobby: boolean }} Wish */

export class Signals {
  /**
   * @param {(type: "typing" | "presence" | "lobby", detail: unknown) => void} emit
   * @param {(note: Record<string, any>) => void} toLeader
   * @param {import("./environment.js").Environment} env
   */
  constructor(emit, toLeader, env) {
    this.emit = emit;
    this.toLeader = toLeader;
    this.env = env;
    /** @type {Map<string, "online" | "offline">} */
    this.states = new Map();
    /** Who types, and what ends it. @type {Map<string, ReturnType<typeof setTimeout>>} */
    this.typers = new Map();
    /** When it was last said that the user types. @type {Map<string, number>} */
    this.said = new Map();
    /** What this tab wants to hear of. @type {Wish | undefined} */
    this.wish = undefined;
    /** What each tab wants to hear of; only the tab that leads needs it. @type {Map<string, Wish>} */
    this.wishes = new Map();
  }

  /**
   * @param {import("./index.js").Target} target
   * @param {boolean} active
   */
  typing(target, active) {
    const key = JSON.stringify(target);
    const now = this.env.now();
    if (active && now - (this.said.get(key) ?? -Infinity) < TYPING_EVERY) return;
    if (!active && !this.said.has(key)) return;
    // One conversation at a time is typed in: what is kept of others is of no use.
    this.said.clear();
    if (active) this.said.set(key, now);
    this.toLeader({ type: "typing", target, active });
  }

  /** @param {Partial<Wish>} who */
  watch({ users = [], everyone = false, lobby = false }) {
    this.wish = { users: users.slice(0, WATCH_MAX), everyone, lobby };
    this.onLeader();
  }

  /** This tab leads from now on, and hears what the others want. */
  lead() {
    this.wishes.clear();
    this.onLeader();
  }

  /** Another tab leads: it does not know what this one wants. */
  onLeader() {
    if (this.wish) this.toLeader({ type: "watch", wish: this.wish });
  }

  /**
   * As leader: a tab says what it wants to hear of, or closes. Returns whether that changes anything.
   * @param {import("./tabs.js").Note} note
   */
  onWish({ from, wish }) {
    const before = JSON.stringify(this.wanted());
    if (wish) this.wishes.set(from, wish);
    else this.wishes.delete(from);
    return JSON.stringify(this.wanted()) !== before;
  }

  /** What all tabs together want to hear of. */
  wanted() {
    if (this.wishes.size === 0) return undefined;
    const wishes = [...this.wishes.values()];
    const everyone = wishes.some((wish) => wish.everyone);
    const users = everyone ? [] : [...new Set(wishes.flatMap((wish) => wish.users))].slice(0, WATCH_MAX);
    return { users, everyone, lobby: wishes.some((wish) => wish.lobby) };
  }

  /** @param {import("./codec/frames.js").ServerSignal} signal */
  onSignal(signal) {
    if ("presence" in signal) {
      for (const { user, state } of signal.presence) {
        if (state !== "online" && state !== "offline") continue;
        if (!this.states.has(user) && this.states.size >= KNOWN_MAX) continue;
        this.states.set(user, state);
        this.emit("presence", { user, state });
      }
      return;
    }
    if ("lobby" in signal) {
      // Another tab may have asked for it.
      if (this.wish?.lobby) this.emit("lobby", signal.lobby);
      return;
    }
    const conversation = Number(signal.typing.conversation);
    const { user, active } = signal.typing;
    const key = `${conversation}:${user}`;
    const before = this.typers.get(key);
    clearTimeout(before);
    this.typers.delete(key);
    if (active) {
      this.typers.set(key, setTimeout(() => this.onSignal({ typing: { ...signal.typing, active: false } }), TYPING_ENDS));
    } else if (before === undefined) return;
    this.emit("typing", { conversation, user, active });
  }

  /** @param {string} user */
  presence(user) {
    return this.states.get(user) ?? "unknown";
  }

  known() {
    return Array.from(this.states, ([user, state]) => ({ user, state }));
  }

  /** There is no session: nothing is known any more. */
  forget() {
    this.states.clear();
  }

  close() {
    for (const timer of this.typers.values()) clearTimeout(timer);
    this.typers.clear();
  }
}
