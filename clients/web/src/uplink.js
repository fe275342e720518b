// The outbox of a device: what it wants done, numbered, until the server says that it is durable. No I/O and no clock: times are
// milliseconds that the caller passes in.

/** @typedef {import("./codec/frames.js").Command} Command */
/** @typedef {import("./codec/frames.js").Welcome} Welcome */

/**
 * What a device keeps durably beside its commands.
 * @typedef {object} OutboxState
 * @property {bigint} incarnation 0 until the server gave one
 * @property {bigint} applied highest command known to be applied
 * @property {string} appliedNonce its nonce; zeros where `applied` is 0
 */

/**
 * Why an outbox and the server contradict each other.
 * @typedef {object} Disagreement
 * @property {"outboxIsOlder" | "anotherCommand" | "serverIsOlder" | "anotherOutbox"} reason
 * @property {bigint} server what the server says: its `applied`, or its outbox
 * @property {bigint} ours the same of this outbox
 */

/** @typedef {{ agreed: "agreed" } | { agreed: "renumbered" } | { agreed: "disagreed", why: Disagreement }} Agreement */

export const NO_NONCE = "0000000000000000";

/** @type {() => OutboxState} */
export const emptyOutbox = () => ({ incarnation: 0n, applied: 0n, appliedNonce: NO_NONCE });

/**
 * @param {Disagreement} why
 */
export function explain({ reason, server, ours }) {
  switch (reason) {
    case "outboxIsOlder":
      return `the server has carried out command ${server} of this device, which has given out numbers up to ${ours}: its data was restored from a backup, or copied`;
    case "anotherCommand":
      return `command ${server} is another one for the server: two copies of this device's data are in use`;
    case "serverIsOlder":
      return `the server had confirmed commands up to ${ours} and knows of ${server} now: its data was restored from a backup, what lies between may be lost there`;
    case "anotherOutbox":
      return server > ours
        ? "the server knows another outbox of this device: the server's data was deleted or restored from a backup, or this device's was, or copied"
        : "the server does not know this device any more: its data was deleted, or restored from a backup";
  }
}

/**
 * The outbox. Order to keep, so that nothing is lost or done twice, whenever the page is killed:
 *
 * 1. `enqueue` or `adopt` commands only once they are durable, or do not call `pollTransmit` before they are;
 * 2. on a `welcome`, `onWelcome`; store what it asks for, then transmit:
 *    - `agreed`: the state if it changed;
 *    - `renumbered`: state and new numbers in one transaction, before any is sent;
 *    - `disagreed`: the state (its incarnation is 0 now), and tell the application before that; then connect again;
 * 3. on `applied`, `onApplied`, then store the state whenever convenient: repeats are harmless.
 *
 * Only frames of the session whose `welcome` came last may be handed in. The caller bounds how many commands wait.
 */
export class Uplink {
  /**
   * An outbox as it was stored. Commands at or below `state.applied` are dropped.
   * @param {OutboxState} [state]
   * @param {Iterable<Command>} [pending] in order
   */
  constructor(state = emptyOutbox(), pending = []) {
    // No more than this, whatever else the caller keeps with it: what it stores of the outbox must not overwrite that.
    const { incarnation, applied, appliedNonce } = state;
    /** @type {OutboxState} */
    this.state = { incarnation, applied, appliedNonce };
    /** Not known to be applied: the first has the number after `applied`, the others follow without a gap. @type {Command[]} */
    this.pending = [...pending].filter((command) => command.cseq > state.applied);
    /** How many of `pending`, from the front, were handed out in this session. */
    this.inFlight = 0;
    /** How many may be in flight; 0 while there is no session. */
    this.window = 0;
    /** Nothing is sent before this time: the server was busy. @type {number | undefined} */
    this.notBefore = undefined;
  }

  get waiting() {
    return this.pending.length;
  }

  /** The highest number given. */
  get last() {
    return this.pending.at(-1)?.cseq ?? this.state.applied;
  }

  /**
   * Numbers a new command, which must be durable before the next `pollTransmit`.
   * @param {string} nonce
   * @param {import("./codec/frames.js").CommandBody} body
   * @returns {Command}
   */
  enqueue(nonce, body) {
    const command = { incarnation: this.state.incarnation, cseq: this.last + 1n, nonce, ...body };
    this.pending.push(command);
    return command;
  }

  /**
   * Takes commands that were numbered and stored by somebody else, another tab perhaps; those it has are passed over.
   * @param {Iterable<Command>} commands in order
   */
  adopt(commands) {
    for (const command of commands) {
      if (command.incarnation === this.state.incarnation && command.cseq === this.last + 1n) this.pending.push(command);
    }
  }

  /**
   * Compares the outbox with what the server says of it, and opens the window if they agree. An outbox changes its incarnation only when
   * its `hello` asked for a new one, so every other change is a disagreement that the application hears of.
   * @param {Welcome} welcome
   * @returns {Agreement}
   */
  onWelcome(welcome) {
    this.onDisconnect();
    if (this.state.incarnation === 0n && welcome.applied === 0n) {
      this.state = { ...emptyOutbox(), incarnation: welcome.incarnation };
      this.pending = this.pending.map((command, at) => ({ ...command, incarnation: welcome.incarnation, cseq: BigInt(at + 1) }));
      this.window = welcome.window;
      return { agreed: "renumbered" };
    }
    const why = this.#compare(welcome);
    if (why) {
      this.state = { ...this.state, incarnation: 0n };
      return { agreed: "disagreed", why };
    }
    this.window = welcome.window;
    this.onApplied(welcome.applied);
    return { agreed: "agreed" };
  }

  /**
   * @param {Welcome} welcome
   * @returns {Disagreement | undefined}
   */
  #compare({ incarnation, applied, appliedNonce }) {
    const ours = this.state.applied;
    if (incarnation !== this.state.incarnation) return { reason: "anotherOutbox", server: incarnation, ours: this.state.incarnation };
    if (applied < ours) return { reason: "serverIsOlder", server: applied, ours };
    if (applied > this.last) return { reason: "outboxIsOlder", server: applied, ours: this.last };
    const nonce = applied === ours ? this.state.appliedNonce : this.pending[Number(applied - ours) - 1].nonce;
    return nonce === appliedNonce ? undefined : { reason: "anotherCommand", server: applied, ours: applied };
  }

  /**
   * The next command to send, as long as the window has room. Each is handed out once a session.
   * @param {number} now
   */
  pollTransmit(now) {
    if (this.notBefore !== undefined && now < this.notBefore) return undefined;
    if (this.inFlight >= Math.min(this.window, this.pending.length)) return undefined;
    this.notBefore = undefined;
    return this.pending[this.inFlight++];
  }

  /** When `pollTransmit` is worth another call although nothing arrived. */
  pollTimeout() {
    return this.inFlight < Math.min(this.window, this.pending.length) ? this.notBefore : undefined;
  }

  /**
   * Everything up to `cseq` is durable at the server. Returns the commands that this forgets. A number that was never given is ignored:
   * it can only be a stray of another session.
   * @param {bigint} cseq
   */
  onApplied(cseq) {
    const count = cseq - this.state.applied;
    if (count <= 0n || count > BigInt(this.pending.length)) return [];
    const applied = this.pending.splice(0, Number(count));
    this.state = { ...this.state, applied: cseq, appliedNonce: applied[applied.length - 1].nonce };
    this.inFlight = Math.max(0, this.inFlight - applied.length);
    return applied;
  }

  /**
   * The server took nothing from `cseq` on; it is sent again after `retryAfterMs`.
   * @param {bigint} cseq
   * @param {number} retryAfterMs
   * @param {number} now
   */
  onBusy(cseq, retryAfterMs, now) {
    const taken = cseq - this.state.applied - 1n;
    this.inFlight = Math.min(this.inFlight, taken > 0n ? Number(taken) : 0);
    this.notBefore = now + retryAfterMs;
  }

  /** The session ended: whatever was in flight is sent again in the next one. */
  onDisconnect() {
    this.inFlight = 0;
    this.window = 0;
    this.notBefore = undefined;
  }
}
