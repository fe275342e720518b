// What the device keeps of its outbox. Any tab may enqueue; everything else is the leader's.

import { WhimbrelError } from "../errors.js";
import { emptyOutbox } from "../uplink.js";

/** @typedef {import("./database.js").Database} Database */
/** @typedef {import("./database.js").Transaction} Transaction */
/** @typedef {import("./rows.js").OutboxRow} OutboxRow */
/** @typedef {import("./rows.js").OutboxMeta} OutboxMeta */

/** Commands in the outbox at most, those that were rejected and not yet discarded included … */
export const OUTBOX_MAX = 10_000;
/** … and bytes of text in them. */
const BYTES_MAX = 64 * 1024 * 1024;

/** @type {() => OutboxMeta} */
const emptyMeta = () => ({ ...emptyOutbox(), last: 0n, rows: 0, bytes: 0 });

/**
 * @param {Transaction} tx
 * @returns {Promise<OutboxMeta>}
 */
export const readOutbox = async (tx) => (await tx.get("meta", "outbox")) ?? emptyMeta();

/** @param {OutboxRow} row */
const size = (row) => (row.body.kind === "send" ? row.body.text.length * 3 : 0);

/**
 * Removes a row. The caller writes `meta`.
 * @param {Transaction} tx
 * @param {OutboxMeta} meta
 * @param {OutboxRow} row
 */
export function dropRow(tx, meta, row) {
  tx.delete("outbox", row.id);
  meta.rows -= 1;
  meta.bytes -= size(row);
}

/**
 * The command that a row of the outbox stands for.
 * @param {OutboxRow} row
 * @returns {import("../codec/frames.js").Command & { id: number }}
 */
export function command({ id, incarnation, cseq, nonce, body }) {
  const head = { id, incarnation, cseq, nonce };
  if (body.kind === "markRead") {
    return { ...head, kind: "markRead", body: { conversation: BigInt(body.conversation), seq: BigInt(body.seq) } };
  }
  const to = "user" in body.to ? body.to : { conversation: BigInt(body.to.conversation) };
  return { ...head, kind: "send", body: { to, content: { kind: "text", text: body.text, extensions: [] } } };
}

/** @typedef {{ nonce: string, time: number, body: import("./rows.js").OutboxBody }} NewCommand */

/**
 * Within a transaction on `meta` and `outbox`: numbers commands and stores them.
 * @param {Transaction} tx
 * @param {NewCommand[]} commands
 * @param {string} [instead] the nonce of a rejected one that these take the place of
 */
async function add(tx, commands, instead) {
  const meta = await readOutbox(tx);
  if (instead) dropRow(tx, meta, await rejected(tx, instead));
  let id = (await tx.get("meta", "lastId")) ?? 0;
  const rows = commands.map(({ nonce, time, body }) => {
    meta.last += 1n;
    id += 1;
    /** @type {OutboxRow} */
    const row = { id, incarnation: meta.incarnation, cseq: meta.last, nonce, time, applied: false, body };
    meta.rows += 1;
    meta.bytes += size(row);
    tx.put("outbox", id, row);
    return row;
  });
  if (meta.rows > OUTBOX_MAX || meta.bytes > BYTES_MAX) {
    throw new WhimbrelError("outboxFull", `${meta.rows - rows.length} messages wait to be sent already: wait until some of them are`);
  }
  tx.put("meta", "lastId", id);
  tx.put("meta", "outbox", meta);
  return rows;
}

/**
 * Numbers commands and stores them.
 * @param {Database} db
 * @param {NewCommand[]} commands
 * @param {string} [instead] the nonce of a rejected one that these take the place of
 * @returns {Promise<OutboxRow[]>}
 */
export const enqueue = (db, commands, instead) => db.write(["meta", "outbox"], (tx) => add(tx, commands, instead));

/**
 * The user's own read mark rises at once, and the command that says so to the server goes into the outbox, together.
 * @param {Database} db
 * @param {string} me
 * @param {{ conversation: number, seq: number, nonce: string, time: number }} mark
 * @returns {Promise<boolean>} whether it rose
 */
export function markRead(db, me, { conversation, seq, nonce, time }) {
  return db.write(["meta", "outbox", "conversations", "messages"], async (tx) => {
    /** @type {import("./rows.js").ConversationRow | undefined} */
    const row = await tx.get("conversations", conversation);
    if (!row) throw new WhimbrelError("notFound", `this device knows no conversation ${conversation}`);
    let member = row.members.find((found) => found.user === me);
    if (!member) row.members.push((member = { user: me, delivered: 0, read: 0 }));
    const upTo = Math.min(seq, row.newest);
    if (upTo <= member.read) return false;
    member.read = upTo;
    /** @type {import("./rows.js").MessageRow[]} */
    const beyond = upTo < row.newest ? await tx.all("messages", { lower: [conversation, upTo + 1], upper: [conversation, row.newest] }) : [];
    row.unread = beyond.filter((message) => message.from !== me).length;
    tx.put("conversations", conversation, row);
    await add(tx, [{ nonce, time, body: { kind: "markRead", conversation, seq: upTo } }]);
    return true;
  });
}

/**
 * @param {Transaction} tx
 * @param {string} nonce
 * @returns {Promise<OutboxRow>}
 */
async function rejected(tx, nonce) {
  /** @type {OutboxRow[]} */
  const rows = await tx.all("outbox");
  const row = rows.find((found) => found.nonce === nonce && found.rejected);
  if (!row) throw new WhimbrelError("notFound", `no message with the nonce ${nonce} was rejected`);
  return row;
}

/**
 * A message that was rejected, as it was enqueued.
 * @param {Database} db
 * @param {string} nonce
 */
export const readRejected = (db, nonce) => db.read(["outbox"], (tx) => rejected(tx, nonce));

/**
 * Forgets a rejected message.
 * @param {Database} db
 * @param {string} nonce
 */
export function discard(db, nonce) {
  return db.write(["meta", "outbox"], async (tx) => {
    const meta = await readOutbox(tx);
    const row = await rejected(tx, nonce);
    dropRow(tx, meta, row);
    tx.put("meta", "outbox", meta);
    return row;
  });
}

/**
 * Rows enqueued after the one with this id.
 * @param {Database} db
 * @param {number} id
 * @returns {Promise<OutboxRow[]>}
 */
export const rowsAfter = (db, id) => db.read(["outbox"], (tx) => tx.all("outbox", { lower: id + 1 }));

/**
 * Within a transaction on `meta` and `outbox`: the outbox has got so far, and these rows are applied.
 * @param {Transaction} tx
 * @param {OutboxMeta} meta
 * @param {import("../uplink.js").OutboxState} state
 * @param {number[]} ids
 */
export async function markApplied(tx, meta, state, ids) {
  const { incarnation, applied, appliedNonce } = state;
  Object.assign(meta, { incarnation, applied, appliedNonce });
  for (const row of await Promise.all(ids.map((id) => tx.get("outbox", id)))) {
    // Only a message has an outcome that its text is needed for.
    if (row?.body.kind === "send") tx.put("outbox", row.id, { ...row, applied: true });
    else if (row) dropRow(tx, meta, row);
  }
}

/**
 * @param {Database} db
 * @param {import("../uplink.js").OutboxState} state
 * @param {number[]} ids
 */
export function applied(db, state, ids) {
  return db.write(["meta", "outbox"], async (tx) => {
    const meta = await readOutbox(tx);
    await markApplied(tx, meta, state, ids);
    tx.put("meta", "outbox", meta);
  });
}

/**
 * The outbox has another incarnation: everything that is not applied is numbered from 1 in it, also what another tab has enqueued since
 * the leader looked last. Rows that were applied and whose outcome did not come are forgotten (it will come as a message), or sent again
 * where `again` says so.
 * @param {Database} db
 * @param {bigint} incarnation 0 until the server gives one
 * @param {(row: OutboxRow) => boolean} [again]
 * @returns {Promise<OutboxRow[]>} what is not applied, in order
 */
export function renumber(db, incarnation, again) {
  return db.write(["meta", "outbox"], async (tx) => {
    const meta = await readOutbox(tx);
    Object.assign(meta, emptyOutbox(), { incarnation, last: 0n });
    /** @type {OutboxRow[]} */
    const rows = [];
    for (const row of /** @type {OutboxRow[]} */ (await tx.all("outbox"))) {
      if (row.rejected) continue;
      if (row.applied && again && !again(row)) {
        dropRow(tx, meta, row);
        continue;
      }
      if (row.applied && !again) continue;
      meta.last += 1n;
      const numbered = { ...row, incarnation, cseq: meta.last, applied: false };
      tx.put("outbox", row.id, numbered);
      rows.push(numbered);
    }
    tx.put("meta", "outbox", meta);
    return rows;
  });
}
