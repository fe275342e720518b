// What the model server keeps: one mailbox a user, one row a device; and how a command changes it.

/** @typedef {import("../../src/codec/frames.js").Command} Command */
/** @typedef {import("../../src/codec/frames.js").EventBody} EventBody */
/** @typedef {{ device: number, incarnation: bigint, cseq: bigint }} Origin which command made an entry */
/** @typedef {{ sent: bigint } | "rejected" | "read"} Outcome */
/** @typedef {{ message: { user: number, seq: bigint, text: string } } | { receipt: { user: number, read: bigint } } | { outcome: Outcome }} What */
/** @typedef {{ time: bigint, by: Origin, what: What }} Entry */

/** Nonces remembered for each device. Scripts are shorter than this. */
const NONCES = 256;
export const CONVERSATION = 1n;
const USERS = ["alice", "bob"];
/** Three devices: two of Alice's, one of Bob's. */
export const DEVICES = 3;

/** What a command is known by to the checker: all of a nonce but the first byte, so that a fault can change the nonce. @param {string} nonce */
export const commandId = (nonce) => nonce.slice(2);
/** @param {number} device */
export const userOf = (device) => (device === 2 ? 1 : 0);
/** @param {number} user */
export const userId = (user) => USERS[user];

/**
 * What a device sees of an entry in a session with this outbox; nothing stands for a skip.
 * @param {Entry} entry
 * @param {number} device
 * @param {bigint} incarnation
 * @returns {EventBody | undefined}
 */
export function view({ by, what }, device, incarnation) {
  const own = by.device === device && by.incarnation === incarnation;
  /** @type {(seq: bigint) => EventBody} */
  const sent = (seq) => ({ kind: "sent", body: { incarnation, cseq: by.cseq, conversation: CONVERSATION, seq } });
  if ("message" in what) {
    const { user, seq, text } = what.message;
    if (own) return sent(seq);
    return { kind: "message", body: { conversation: CONVERSATION, seq, from: userId(user), content: { kind: "text", text, extensions: [] } } };
  }
  if ("receipt" in what) {
    const { user, read } = what.receipt;
    return { kind: "receipt", body: { conversation: CONVERSATION, user: userId(user), delivered: read, read } };
  }
  if (!own || what.outcome === "read") return undefined;
  if (what.outcome === "rejected") return { kind: "rejected", body: { incarnation, cseq: by.cseq, code: "unsupported", message: "" } };
  return sent(what.outcome.sent);
}

export class Mailbox {
  constructor() {
    /** Highest entry that is no longer served; the model keeps it all the same, to compare with. */
    this.floor = 0;
    /** @type {Entry[]} */
    this.entries = [];
  }

  get head() {
    return this.entries.length;
  }

  /** Also known for the last entry that was trimmed: a server keeps that one time. @param {number} cursor */
  timeAt(cursor) {
    return this.entries[cursor - 1]?.time ?? 0n;
  }

  /** What a snapshot at this cursor holds. @param {number} cursor */
  messages(cursor) {
    const entries = this.entries.slice(0, cursor);
    return entries.flatMap(({ what }) => ("message" in what ? [{ seq: what.message.seq, text: what.message.text }] : []));
  }

  clone() {
    const copy = new Mailbox();
    [copy.floor, copy.entries] = [this.floor, [...this.entries]];
    return copy;
  }
}

/** What is durable. */
export class ServerStore {
  constructor() {
    this.epoch = 1n;
    this.mailboxes = [new Mailbox(), new Mailbox()];
    this.devices = Array.from({ length: DEVICES }, () => ({
      incarnation: 0n, applied: 0n, session: 0n,
      recent: /** @type {{ nonce: string, incarnation: bigint, cseq: bigint, outcome: Outcome }[]} */ ([]),
    }));
    this.head = 0n;
    /** How often each command took effect: this is what must be one. @type {Map<string, number>} */
    this.effects = new Map();
  }

  clone() {
    const copy = new ServerStore();
    copy.epoch = this.epoch;
    copy.mailboxes = this.mailboxes.map((mailbox) => mailbox.clone());
    copy.devices = this.devices.map((row) => ({ ...row, recent: [...row.recent] }));
    copy.head = this.head;
    copy.effects = new Map(this.effects);
    return copy;
  }

  /**
   * @param {number} device
   * @param {bigint} session
   * @param {Command} command
   * @param {bigint} time
   * @param {import("./fault.js").Fault | undefined} fault
   * @param {string[]} violations
   */
  decide(device, session, command, time, fault, violations) {
    const row = this.devices[device];
    if ((row.session !== session && fault !== "doesNotFence") || command.incarnation !== row.incarnation) return;
    const repeat = command.cseq <= row.applied;
    if (repeat && fault !== "countsRepeats") {
      const known = row.recent.find(({ incarnation, cseq }) => incarnation === command.incarnation && cseq === command.cseq);
      if (known && known.nonce !== command.nonce && !fault) violations.push(`command ${command.cseq} is another one than the server knows`);
      return;
    }
    if (command.cseq > row.applied + 1n) return;
    if (command.cseq > row.applied) row.applied = command.cseq;
    const by = { device, incarnation: command.incarnation, cseq: command.cseq };
    const known = repeat ? undefined : row.recent.find((recent) => recent.nonce === command.nonce);
    if (known) this.#enter([userOf(device)], { time, by, what: { outcome: known.outcome } });
    const outcome = known ? known.outcome : this.#carryOut(by, command, time);
    row.recent.push({ nonce: command.nonce, incarnation: command.incarnation, cseq: command.cseq, outcome });
    row.recent.splice(0, row.recent.length - NONCES);
  }

  /**
   * @param {Origin} by
   * @param {Command} command
   * @param {bigint} time
   * @returns {Outcome}
   */
  #carryOut(by, command, time) {
    const id = commandId(command.nonce);
    this.effects.set(id, (this.effects.get(id) ?? 0) + 1);
    const user = userOf(by.device);
    if (command.kind === "send") {
      const { text } = command.body.content;
      // The model refuses what a script wants refused.
      if (text === "") {
        this.#enter([user], { time, by, what: { outcome: "rejected" } });
        return "rejected";
      }
      this.head += 1n;
      this.#enter([0, 1], { time, by, what: { message: { user, seq: this.head, text } } });
      return { sent: this.head };
    }
    if (command.kind !== "markRead") throw new Error("scripts have no such command");
    this.#enter([1 - user], { time, by, what: { receipt: { user, read: command.body.seq } } });
    return "read";
  }

  /**
   * @param {number[]} users
   * @param {Entry} entry
   */
  #enter(users, entry) {
    for (const user of users) this.mailboxes[user].entries.push(entry);
  }
}
