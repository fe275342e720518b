// What applications read: conversations and messages as the API shows them. Reads only, but for drafts.

import { WhimbrelError } from "../errors.js";
import { readOutbox } from "./outbox.js";

/** @typedef {import("./database.js").Database} Database */
/** @typedef {import("./database.js").Transaction} Transaction */
/** @typedef {import("./rows.js").ConversationRow} ConversationRow */
/** @typedef {import("./rows.js").MessageRow} MessageRow */
/** @typedef {import("./rows.js").OutboxRow} OutboxRow */
/** @typedef {import("../index.js").Conversation} Conversation */
/** @typedef {import("../index.js").Message} Message */
/** @typedef {import("../index.js").Target} Target */

/** Messages in a page at most, and by default. */
export const PAGE_MAX = 1_000;
const PAGE = 50;

/**
 * @param {OutboxRow} row
 * @param {string} me
 * @param {number | null} conversation
 * @returns {Message}
 */
export function pendingMessage(row, me, conversation) {
  const { nonce, time, body, rejected } = row;
  const text = body.kind === "send" ? body.text : "";
  /** @type {Message} */
  const message = { conversation, seq: null, nonce, from: me, time, text, state: rejected ? "rejected" : "sending" };
  if (rejected) message.error = rejected;
  return message;
}

/**
 * @param {MessageRow} row
 * @param {string} me
 * @param {ConversationRow} conversation
 * @returns {Message}
 */
export function storedMessage(row, me, conversation) {
  const other = conversation.members.find((member) => member.user !== me);
  /** @type {Message["state"]} */
  let state = "received";
  if (row.from === me) state = row.seq <= (other?.read ?? 0) ? "read" : row.seq <= (other?.delivered ?? 0) ? "delivered" : "sent";
  return { conversation: row.conversation, seq: row.seq, nonce: row.nonce ?? null, from: row.from, time: row.time, text: row.text, state };
}

/**
 * @param {OutboxRow} row
 * @param {string} other
 * @param {number | null} id
 */
const isFor = ({ body }, other, id) =>
  body.kind === "send" && ("user" in body.to ? body.to.user === other : body.to.conversation === id);

/**
 * @param {string} me
 * @param {ConversationRow | undefined} row
 * @param {string} other
 * @param {OutboxRow[]} pending of this conversation, in order
 * @param {string} draft
 * @returns {Conversation}
 */
function view(me, row, other, pending, draft) {
  const id = row?.id ?? null;
  const waits = pending[pending.length - 1];
  const last = waits ? pendingMessage(waits, me, id) : row?.last ? storedMessage(row.last, me, row) : null;
  const members = row ? row.members.map((member) => member.user) : [...new Set([me, other])];
  const read = row?.members.find((member) => member.user === me)?.read ?? 0;
  return { id, kind: "direct", members, other, last, unread: row?.unread ?? 0, read, draft };
}

/**
 * All conversations, those begun here included, the one with the newest message first.
 * @param {Database} db
 * @param {string} me
 * @returns {Promise<Conversation[]>}
 */
export function conversations(db, me) {
  return db.read(["conversations", "outbox", "drafts"], async (tx) => {
    const [rows, outbox, drafts] = await Promise.all([tx.all("conversations"), tx.all("outbox"), tx.all("drafts")]);
    const draftOf = new Map(drafts.map((draft) => [draft.other, draft.text]));
    const known = new Set(rows.map((row) => row.other));
    const begun = new Set(draftOf.keys());
    for (const { body } of outbox) if (body.kind === "send" && "user" in body.to) begun.add(body.to.user);
    /** @type {[ConversationRow | undefined, string][]} */
    const all = rows.map((row) => [row, row.other]);
    for (const other of begun) if (!known.has(other)) all.push([undefined, other]);
    const views = all.map(([row, other]) => {
      const pending = outbox.filter((found) => isFor(found, other, row?.id ?? null));
      return view(me, row, other, pending, draftOf.get(other) ?? "");
    });
    return views.sort((a, b) => (b.last?.time ?? 0) - (a.last?.time ?? 0));
  });
}

/**
 * The conversation's row and the other member; nothing where neither is known.
 * @param {Transaction} tx on `peers` and `conversations`
 * @param {Target} of
 * @returns {Promise<{ row: ConversationRow | undefined, other: string } | undefined>}
 */
async function resolve(tx, of) {
  const id = "user" in of ? await tx.get("peers", of.user) : of.conversation;
  const row = id === undefined ? undefined : await tx.get("conversations", id);
  if (row) return { row, other: row.other };
  return "user" in of ? { row: undefined, other: of.user } : undefined;
}

/**
 * @param {Database} db
 * @param {string} me
 * @param {Target} of
 * @returns {Promise<Conversation | null>} null where there is nothing: no message, none that waits, no draft
 */
export function conversation(db, me, of) {
  return db.read(["peers", "conversations", "outbox", "drafts"], async (tx) => {
    // Side by side where they can be: each turn waits for whatever else the page does.
    const [found, outbox] = await Promise.all([resolve(tx, of), tx.all("outbox")]);
    if (!found) return null;
    const { row, other } = found;
    const draft = await tx.get("drafts", other);
    const pending = outbox.filter((waits) => isFor(waits, other, row?.id ?? null));
    if (!row && pending.length === 0 && !draft) return null;
    return view(me, row, other, pending, draft?.text ?? "");
  });
}

/**
 * @param {Database} db
 * @param {string} me
 * @param {Target} of
 * @param {{ before?: number, after?: number, limit?: number }} page
 * @returns {Promise<Message[]>} rising; what waits stands at the end of the newest page
 */
export function messages(db, me, of, { before, after, limit = PAGE }) {
  const count = Math.max(1, Math.min(limit, PAGE_MAX));
  return db.read(["peers", "conversations", "outbox", "messages"], async (tx) => {
    const isNewest = before === undefined && after === undefined;
    const [found, waiting] = await Promise.all([resolve(tx, of), isNewest ? tx.all("outbox") : undefined]);
    if (!found) return [];
    const { row, other } = found;
    /** @type {MessageRow[]} */
    let rows = [];
    if (row) rows = after === undefined ? await backwards(tx, row, before, count) : await forwards(tx, row, after, count);
    const newest = rows.length > 0 ? rows[rows.length - 1].seq : (after ?? 0);
    const shown = row ? rows.map((message) => storedMessage(message, me, row)) : [];
    if (before !== undefined || newest < (row?.newest ?? 0)) return shown;
    /** @type {OutboxRow[]} */
    const outbox = waiting ?? (await tx.all("outbox"));
    const pending = outbox.filter((waits) => isFor(waits, other, row?.id ?? null));
    return [...shown, ...pending.map((waits) => pendingMessage(waits, me, row?.id ?? null))];
  });
}

/**
 * The newest messages before `before`, back to where one may be missing. By ranges, not by a cursor: one request instead of one for each
 * message, and numbers hardly ever have holes in them.
 * @param {Transaction} tx
 * @param {ConversationRow} row
 * @param {number | undefined} before
 * @param {number} count
 */
async function backwards(tx, row, before, count) {
  /** @type {MessageRow[]} */
  let rows = [];
  let upper = Math.min(row.newest, (before ?? Infinity) - 1);
  if (before !== undefined) {
    // What stands directly before a gap does not stand before the message after it.
    const at = await tx.get("messages", [row.id, before]);
    if (at?.gap) return rows;
  }
  for (let width = count; upper > 0 && rows.length < count; width *= 4) {
    const lower = Math.max(1, upper - width + 1);
    rows = [...(await tx.all("messages", { lower: [row.id, lower], upper: [row.id, upper] })), ...rows];
    const gap = rows.findLastIndex((message) => message.gap);
    if (gap >= 0 && rows.length - gap <= count) return rows.slice(gap);
    upper = lower - 1;
  }
  return rows.slice(-count);
}

/**
 * The oldest messages after `after`, up to where one may be missing.
 * @param {Transaction} tx
 * @param {ConversationRow} row
 * @param {number} after
 * @param {number} count
 */
async function forwards(tx, row, after, count) {
  /** @type {MessageRow[]} */
  const rows = await tx.all("messages", { lower: [row.id, after + 1], upper: [row.id, row.newest], limit: count });
  const gap = rows.findIndex((message, at) => message.gap && (at > 0 || after > 0));
  return gap < 0 ? rows : rows.slice(0, gap);
}

/**
 * Who an application means, as a command says it: by user wherever that is known, since a conversation's number may mean another one to
 * a server that was restored.
 * @param {Database} db
 * @param {Target} of
 * @returns {Promise<{ id: number | null, other: string, to: import("./rows.js").RowTarget }>}
 */
export function lookUp(db, of) {
  return db.read(["peers", "conversations"], async (tx) => {
    const found = await resolve(tx, of);
    if (!found) {
      const id = /** @type {{ conversation: number }} */ (of).conversation;
      throw new WhimbrelError("notFound", `this device knows no conversation ${id}: name the user instead`);
    }
    const { row, other } = found;
    return { id: row?.id ?? null, other, to: other ? { user: other } : { conversation: /** @type {ConversationRow} */ (row).id } };
  });
}

/**
 * @param {Database} db
 * @param {string} other
 * @param {string} text
 */
export function saveDraft(db, other, text) {
  return db.write(["drafts"], async (tx) => (text ? tx.put("drafts", other, { other, text }) : tx.delete("drafts", other)));
}

/**
 * Everything a client begins with. A new store is given this device name.
 * @param {Database} db
 * @param {{ user: string, device: string }} me
 * @returns {Promise<import("./rows.js").Loaded>}
 */
export async function load(db, { user, device }) {
  /** @returns {(tx: Transaction) => Promise<import("./rows.js").Loaded | undefined>} */
  const read = () => async (tx) => {
    const [owner, outbox, position, way, rows] = await Promise.all([
      tx.get("meta", "device"), readOutbox(tx), tx.get("meta", "position"), tx.get("meta", "way"), tx.all("outbox"),
    ]);
    if (!owner) return undefined;
    if (owner.user !== user) throw new WhimbrelError("otherUser", `the store belongs to ${owner.user}, not ${user}`);
    const waiting = rows.filter((/** @type {OutboxRow} */ row) => !row.rejected);
    return { device: owner.device, outbox, position: position ?? null, rows: waiting, way: way ?? null };
  };
  const found = await db.read(["meta", "outbox"], read());
  if (found) return found;
  return db.write(["meta", "outbox"], async (tx) => {
    // Another tab may have been faster.
    if (!(await tx.get("meta", "device"))) tx.put("meta", "device", { user, device });
    return /** @type {import("./rows.js").Loaded} */ (await read()(tx));
  });
}

/**
 * @param {Database} db
 * @param {import("./rows.js").Way | null} way
 */
export const saveWay = (db, way) => db.write(["meta"], async (tx) => tx.put("meta", "way", way));
