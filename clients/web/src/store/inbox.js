// What the device makes of its mailbox: events with their position, snapshots, pages of history, each in one transaction. Only the
// leader writes here.

import { toNumber } from "../numbers.js";
import { dropRow, markApplied, readOutbox } from "./outbox.js";

/** @typedef {import("./database.js").Database} Database */
/** @typedef {import("./database.js").Transaction} Transaction */
/** @typedef {import("./rows.js").ConversationRow} ConversationRow */
/** @typedef {import("./rows.js").MessageRow} MessageRow */
/** @typedef {import("../codec/frames.js").Event} Event */
/** @typedef {import("../codec/frames.js").Position} Position */
/** @typedef {import("../codec/frames.js").StoredMessage} StoredMessage */
/** @typedef {{ state: import("../uplink.js").OutboxState, applied: number[] }} OutboxChange which rows are applied, by id */

/** The newest messages of each conversation that are kept, give or take `TRIM_EVERY`; older ones are at the server. */
export const MESSAGES_KEPT = 20_000;
const TRIM_EVERY = 512;

/** The stores that everything here works on. @type {import("./database.js").StoreName[]} */
const STORES = ["meta", "outbox", "conversations", "peers", "messages"];

/**
 * @param {string} me
 * @param {string[]} members
 */
const otherOf = (me, members) => members.find((member) => member !== me) ?? me;

/**
 * Conversations as a transaction changes them: each is read once and written once.
 */
class Changes {
  /**
   * @param {Transaction} tx
   * @param {string} me
   */
  constructor(tx, me) {
    this.tx = tx;
    this.me = me;
    /** @type {Map<number, ConversationRow>} */
    this.rows = new Map();
    /** Those whose unread messages have to be counted anew. @type {Set<number>} */
    this.recount = new Set();
    /** New messages of others. @type {MessageRow[]} */
    this.received = [];
  }

  /**
   * @param {number} id
   * @returns {Promise<ConversationRow>}
   */
  async conversation(id) {
    let row = this.rows.get(id);
    if (!row) {
      row = (await this.tx.get("conversations", id)) ?? { id, kind: "direct", members: [], other: "", newest: 0, last: null, unread: 0 };
      this.rows.set(id, /** @type {ConversationRow} */ (row));
    }
    return /** @type {ConversationRow} */ (row);
  }

  /**
   * @param {ConversationRow} row
   * @param {string} user
   * @param {number} delivered
   * @param {number} read
   */
  raise(row, user, delivered, read) {
    let member = row.members.find((found) => found.user === user);
    if (!member) row.members.push((member = { user, delivered: 0, read: 0 }));
    if (user === this.me && read > member.read) this.recount.add(row.id);
    member.delivered = Math.max(member.delivered, delivered);
    member.read = Math.max(member.read, read);
  }

  /**
   * @param {ConversationRow} row
   * @param {string} kind
   * @param {string[]} members
   */
  begin(row, kind, members) {
    row.kind = kind;
    for (const user of members) this.raise(row, user, 0, 0);
    this.name(row, otherOf(this.me, members));
  }

  /**
   * @param {ConversationRow} row
   * @param {string} other
   */
  name(row, other) {
    row.other = other;
    this.tx.put("peers", other, row.id);
  }

  /**
   * A message, unless it is there already.
   * @param {ConversationRow} row
   * @param {MessageRow} message
   */
  async add(row, message) {
    const { seq } = message;
    const known = seq <= row.newest ? await this.tx.get("messages", [row.id, seq]) : undefined;
    if (known) {
      if (message.nonce && !known.nonce) this.tx.put("messages", [row.id, seq], { ...known, nonce: message.nonce });
      return;
    }
    if (!row.other && message.from && message.from !== this.me) this.name(row, message.from);
    if (seq > 1 && seq !== row.newest + 1) message.gap = true;
    this.tx.put("messages", [row.id, seq], message);
    const read = row.members.find((member) => member.user === this.me)?.read ?? 0;
    if (message.from !== this.me) {
      if (seq > read) row.unread += 1;
      this.received.push(message);
    }
    if (seq <= row.newest) return;
    if (Math.floor(seq / TRIM_EVERY) > Math.floor(row.newest / TRIM_EVERY) && seq > MESSAGES_KEPT) {
      this.tx.deleteRange("messages", { lower: [row.id, 0], upper: [row.id, seq - MESSAGES_KEPT] });
    }
    row.newest = seq;
    row.last = message;
  }

  /** Writes what changed. */
  async finish() {
    for (const id of this.recount) {
      const row = /** @type {ConversationRow} */ (this.rows.get(id));
      const read = row.members.find((member) => member.user === this.me)?.read ?? 0;
      /** @type {MessageRow[]} */
      const beyond = read < row.newest ? await this.tx.all("messages", { lower: [id, read + 1], upper: [id, row.newest] }) : [];
      row.unread = beyond.filter((message) => message.from !== this.me).length;
    }
    for (const row of this.rows.values()) this.tx.put("conversations", row.id, row);
    return [...this.rows.values()].map(({ id, other }) => ({ id, other }));
  }
}

/**
 * Takes events in order, together with the position of the last and what is known of the outbox.
 * @param {Database} db
 * @param {string} me
 * @param {Event[]} events
 * @param {Position} position
 * @param {OutboxChange} outbox
 * @param {(incarnation: bigint, cseq: bigint) => number | undefined} rowOf the outbox row with this number
 */
export function take(db, me, events, position, outbox, rowOf) {
  return db.write(STORES, async (tx) => {
    const changes = new Changes(tx, me);
    const meta = await readOutbox(tx);
    await markApplied(tx, meta, outbox.state, outbox.applied);
    /** @type {string[]} */
    const rejected = [];
    for (const event of events) {
      if (event.kind === "rejected") {
        const id = rowOf(event.body.incarnation, event.body.cseq);
        const row = id === undefined ? undefined : await tx.get("outbox", id);
        const { code, message } = event.body;
        if (row?.body.kind === "send") {
          tx.put("outbox", row.id, { ...row, applied: true, rejected: { code, message } });
          rejected.push(row.nonce);
        } else if (row) dropRow(tx, meta, row);
      } else if (event.kind === "sent") {
        const id = rowOf(event.body.incarnation, event.body.cseq);
        const row = id === undefined ? undefined : await tx.get("outbox", id);
        const conversation = await changes.conversation(toNumber(event.body.conversation));
        // Without a row it was taken before, in another life of the outbox: then the message itself has come.
        if (row?.body.kind !== "send") continue;
        if (!conversation.other && "user" in row.body.to) changes.name(conversation, row.body.to.user);
        await changes.add(conversation, {
          conversation: conversation.id, seq: toNumber(event.body.seq), from: me, time: toNumber(event.time), text: row.body.text, nonce: row.nonce,
        });
        dropRow(tx, meta, row);
      } else if (event.kind === "started" || event.kind === "message" || event.kind === "receipt") {
        const row = await changes.conversation(toNumber(event.body.conversation));
        if (event.kind === "started") changes.begin(row, event.body.kind, event.body.members);
        else if (event.kind === "receipt") {
          const user = event.body.user ?? row.other;
          if (user) changes.raise(row, user, toNumber(event.body.delivered), toNumber(event.body.read));
        } else {
          const from = event.body.from ?? row.other;
          const { seq, content } = event.body;
          await changes.add(row, { conversation: row.id, seq: toNumber(seq), from, time: toNumber(event.time), text: content.text });
        }
      }
    }
    tx.put("meta", "position", position);
    tx.put("meta", "outbox", meta);
    return { changed: await changes.finish(), received: changes.received, rejected };
  });
}

/**
 * Within a transaction: what came from the log goes, but not what waits to be sent to it.
 * @param {Transaction} tx
 */
function forgetLog(tx) {
  for (const store of /** @type {const} */ (["conversations", "peers", "messages"])) tx.deleteRange(store, {});
}

/**
 * Within a transaction: stores what is known of the outbox. Where the device begins after the outcomes of everything applied until now,
 * they will not be told, and nothing waits for them. Marked first: the welcome may have been the first to say what was applied.
 * @param {Transaction} tx
 * @param {OutboxChange} outbox
 * @param {boolean} outcomesGone
 */
async function takeOutbox(tx, { state, applied }, outcomesGone) {
  const meta = await readOutbox(tx);
  await markApplied(tx, meta, state, applied);
  if (outcomesGone) for (const row of await tx.all("outbox")) if (row.applied && !row.rejected) dropRow(tx, meta, row);
  tx.put("meta", "outbox", meta);
}

/**
 * The device continues at another position, without a snapshot.
 * @param {Database} db
 * @param {Position} position
 * @param {OutboxChange} outbox
 * @param {{ reset: string | null, outcomesGone: boolean }} how
 */
export function restart(db, position, outbox, { reset, outcomesGone }) {
  return db.write(STORES, async (tx) => {
    if (reset === "otherLog") forgetLog(tx);
    await takeOutbox(tx, outbox, outcomesGone);
    tx.put("meta", "position", position);
  });
}

/**
 * A page of a snapshot. It may come again, and more often than its successors: what it holds replaces what is there, and only the last
 * page moves the position. `reset` stands with the first page only.
 * @param {Database} db
 * @param {string} me
 * @param {import("../codec/frames.js").ConversationState[]} conversations
 * @param {OutboxChange} outbox
 * @param {{ reset: string | null, position: Position | null, outcomesGone: boolean }} how
 */
export function takeSnapshot(db, me, conversations, outbox, { reset, position, outcomesGone }) {
  return db.write(STORES, async (tx) => {
    if (reset === "otherLog") forgetLog(tx);
    await takeOutbox(tx, outbox, position !== null && outcomesGone);
    const changes = new Changes(tx, me);
    for (const state of conversations) {
      const row = await changes.conversation(toNumber(state.conversation));
      changes.begin(row, state.kind, state.members.map((member) => member.user));
      for (const { user, delivered, read } of state.members) changes.raise(row, user, toNumber(delivered), toNumber(read));
      for (const message of state.messages) await changes.add(row, messageRow(row.id, message));
      changes.recount.add(row.id);
    }
    if (position) tx.put("meta", "position", position);
    return changes.finish();
  });
}

/**
 * @param {number} conversation
 * @param {StoredMessage} message
 * @returns {MessageRow}
 */
function messageRow(conversation, { seq, time, from, content }) {
  return { conversation, seq: toNumber(seq), from, time: toNumber(time), text: content.text };
}

/**
 * A page of history: all there is between its ends, next to `from` (0: the end). Closes the gap that it fills, and marks the one that it
 * leaves.
 * @param {Database} db
 * @param {string} me
 * @param {import("../codec/frames.js").HistoryPage} page
 * @param {number} from
 * @param {"backwards" | "forwards"} direction
 */
export function takeHistory(db, me, page, from, direction) {
  return db.write(STORES, async (tx) => {
    const changes = new Changes(tx, me);
    const row = await changes.conversation(toNumber(page.conversation));
    const messages = page.messages.map((message) => messageRow(row.id, message));
    const [first, last] = [messages[0], messages[messages.length - 1]];
    if (!first) return { row, messages, changed: false };
    const range = { lower: /** @type {[number, number]} */ ([row.id, first.seq]), upper: /** @type {[number, number]} */ ([row.id, last.seq]) };
    /** @type {Map<number, MessageRow>} */
    const known = new Map((await tx.all("messages", range)).map((found) => [found.seq, found]));
    const before = await tx.get("messages", [row.id, direction === "forwards" ? from : first.seq - 1]);
    // Nothing is missing between the messages of a page. Before the first, something may be.
    const joined = before !== undefined || (direction === "forwards" ? from === 0 : !page.more);
    const other = messages.find((message) => message.from !== me);
    if (!row.other && other) changes.name(row, other.from);
    for (const message of messages) {
      const held = known.get(message.seq);
      const gap = message === first && !joined && (held ? Boolean(held.gap) : message.seq > 1);
      if (!held || Boolean(held.gap) !== gap) tx.put("messages", [row.id, message.seq], { ...(held ?? message), ...(gap ? { gap } : { gap: undefined }) });
    }
    if (direction === "backwards") {
      const next = from > 0 ? await tx.get("messages", [row.id, from]) : undefined;
      if (next?.gap) tx.put("messages", [row.id, from], { ...next, gap: undefined });
    }
    if (last.seq > row.newest) {
      row.newest = last.seq;
      row.last = last;
    }
    changes.recount.add(row.id);
    await changes.finish();
    return { row, messages: messages.map((message) => known.get(message.seq) ?? message), changed: true };
  });
}
