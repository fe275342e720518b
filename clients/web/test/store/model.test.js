// What the device makes of its mailbox and its outbox, on both databases.

import assert from "node:assert/strict";
import { test } from "node:test";
import { freshDatabase } from "../harness/indexeddb.js";
import { MemoryDatabase } from "../../src/store/memory.js";
import { restart, take, takeHistory, takeSnapshot } from "../../src/store/inbox.js";
import { applied, discard, enqueue, markRead, OUTBOX_MAX, renumber, rowsAfter } from "../../src/store/outbox.js";
import { conversation, conversations, load, messages, saveDraft } from "../../src/store/views.js";
import { emptyOutbox, Uplink } from "../../src/uplink.js";

/** @typedef {import("../../src/store/database.js").Database} Database */
/** @typedef {import("../../src/codec/frames.js").Event} Event */

const ME = "alice";
const NOTHING = { state: emptyOutbox(), applied: [] };
const position = (/** @type {bigint} */ cursor) => ({ epoch: 1n, cursor, time: cursor });
const nobody = () => undefined;
const started = (/** @type {bigint} */ seq, other = "bob", conversation = 7n) =>
  /** @type {Event} */ ({ seq, time: seq, kind: "started", body: { conversation, kind: "direct", members: [ME, other] } });
const message = (/** @type {bigint} */ seq, /** @type {bigint} */ number, /** @type {string | null} */ from = null, conversation = 7n) =>
  /** @type {Event} */ ({ seq, time: seq, kind: "message", body: { conversation, seq: number, from, content: { kind: "text", text: `m${number}`, extensions: [] } } });
const stored = (/** @type {number} */ seq, from = "bob") => ({ seq: BigInt(seq), time: BigInt(seq), from, content: { kind: "text", text: `m${seq}`, extensions: [] } });
const receipt = (/** @type {bigint} */ seq, /** @type {string | null} */ user, /** @type {bigint} */ delivered, /** @type {bigint} */ read) =>
  /** @type {Event} */ ({ seq, time: seq, kind: "receipt", body: { conversation: 7n, user, delivered, read } });

/**
 * @param {Database} db
 * @param {Event[]} events
 */
const takeAll = (db, events) => take(db, ME, events, position(events[events.length - 1].seq), NOTHING, nobody);
const seqs = async (/** @type {Database} */ db, /** @type {any} */ page) => (await messages(db, ME, { conversation: 7 }, page)).map(({ seq }) => seq);

/** @type {[string, () => Promise<Database>][]} */
const KINDS = [["memory", async () => new MemoryDatabase()], ["indexeddb", freshDatabase]];
for (const [kind, open] of KINDS) {
  const on = (/** @type {string} */ what, /** @type {(db: Database) => Promise<void>} */ work) => test(`${kind}: ${what}`, async () => work(await open()));

  on("a device keeps its name, and a store belongs to one user", async (db) => {
    assert.equal((await load(db, { user: ME, device: "one" })).device, "one");
    assert.equal((await load(db, { user: ME, device: "two" })).device, "one");
    await assert.rejects(load(db, { user: "bob", device: "two" }), { code: "otherUser" });
  });

  on("events become conversations and messages, together with the position", async (db) => {
    const { changed, received } = await takeAll(db, [started(1n), message(2n, 1n), message(3n, 2n, ME), message(4n, 3n)]);
    assert.deepEqual(changed, [{ id: 7, other: "bob" }]);
    assert.deepEqual(received.map(({ seq, from }) => [seq, from]), [[1, "bob"], [3, "bob"]], "of others only");
    const [found] = await conversations(db, ME);
    assert.deepEqual([found.id, found.other, found.members, found.unread, found.last?.text], [7, "bob", [ME, "bob"], 2, "m3"]);
    assert.deepEqual((await load(db, { user: ME, device: "x" })).position, position(4n));
    await takeAll(db, [message(5n, 3n), message(6n, 1n)]);
    assert.equal((await conversations(db, ME))[0].unread, 2, "messages that come again count once");
    assert.deepEqual(await seqs(db, {}), [1, 2, 3]);
  });

  on("receipts move marks, and marks say how far a message has got", async (db) => {
    await takeAll(db, [started(1n), message(2n, 1n, ME), message(3n, 2n, ME), message(4n, 3n, ME), message(5n, 4n), message(6n, 5n)]);
    const states = async () => (await messages(db, ME, { user: "bob" }, {})).map(({ state }) => state);
    assert.deepEqual(await states(), ["sent", "sent", "sent", "received", "received"]);
    await takeAll(db, [receipt(7n, null, 2n, 1n)]);
    assert.deepEqual((await states()).slice(0, 3), ["read", "delivered", "sent"]);
    await takeAll(db, [receipt(8n, "bob", 1n, 0n)]);
    assert.deepEqual((await states()).slice(0, 3), ["read", "delivered", "sent"], "marks only rise");
    await takeAll(db, [receipt(9n, ME, 4n, 4n)]);
    const found = await conversation(db, ME, { user: "bob" });
    assert.deepEqual([found?.read, found?.unread], [4, 1], "the user's own mark, from another device");
  });

  on("a message waits, is sent, and keeps its nonce", async (db) => {
    const body = /** @type {const} */ ({ kind: "send", to: { user: "bob" }, text: "hello" });
    const [row] = await enqueue(db, [{ nonce: "00000000000000aa", time: 5, body }]);
    const [begun] = await conversations(db, ME);
    assert.deepEqual([begun.id, begun.other, begun.last?.state, begun.last?.text], [null, "bob", "sending", "hello"]);
    const rows = await renumber(db, 3n);
    assert.deepEqual(rows.map(({ id, incarnation, cseq }) => [id, incarnation, cseq]), [[row.id, 3n, 1n]]);
    const state = { incarnation: 3n, applied: 1n, appliedNonce: "00000000000000aa" };
    await applied(db, state, [row.id]);
    assert.equal((await messages(db, ME, { user: "bob" }, {}))[0].state, "sending", "until it is known what came of it");
    /** @type {Event} */
    const sent = { seq: 2n, time: 9n, kind: "sent", body: { incarnation: 3n, cseq: 1n, conversation: 7n, seq: 1n } };
    await take(db, ME, [started(1n), sent], position(2n), { state, applied: [] }, () => row.id);
    assert.deepEqual(await messages(db, ME, { user: "bob" }, {}), [
      { conversation: 7, seq: 1, nonce: "00000000000000aa", from: ME, time: 9, text: "hello", state: "sent" },
    ]);
    const { outbox, rows: left } = await load(db, { user: ME, device: "x" });
    assert.deepEqual([outbox.applied, outbox.rows, outbox.bytes, left], [1n, 0, 0, []]);
  });

  on("what was refused stays until it is discarded or sent again", async (db) => {
    const body = /** @type {const} */ ({ kind: "send", to: { user: "bob" }, text: "no" });
    const [row] = await enqueue(db, [{ nonce: "00000000000000ab", time: 5, body }]);
    await renumber(db, 3n);
    const state = { incarnation: 3n, applied: 1n, appliedNonce: row.nonce };
    /** @type {Event} */
    const rejected = { seq: 1n, time: 9n, kind: "rejected", body: { incarnation: 3n, cseq: 1n, code: "notFound", message: "nobody" } };
    await take(db, ME, [rejected], position(1n), { state, applied: [row.id] }, () => row.id);
    const [found] = await messages(db, ME, { user: "bob" }, {});
    assert.deepEqual([found.state, found.error], ["rejected", { code: "notFound", message: "nobody" }]);
    assert.deepEqual(await renumber(db, 4n), [], "it is not sent again by itself");
    const [again] = await enqueue(db, [{ nonce: "00000000000000ac", time: 6, body }], row.nonce);
    assert.deepEqual((await messages(db, ME, { user: "bob" }, {})).map(({ nonce, state }) => [nonce, state]), [[again.nonce, "sending"]]);
    await assert.rejects(discard(db, again.nonce), { code: "notFound" }, "it was not rejected");
    await assert.rejects(enqueue(db, [{ nonce: "00000000000000ad", time: 6, body }], row.nonce), { code: "notFound" });
  });

  on("a mark that was read counts at once, and is told to the server once", async (db) => {
    await takeAll(db, [started(1n), message(2n, 1n), message(3n, 2n), message(4n, 3n, ME), message(5n, 4n)]);
    const mark = (/** @type {number} */ seq) => markRead(db, ME, { conversation: 7, seq, nonce: "00000000000000ba", time: 1 });
    assert.equal(await mark(2), true);
    assert.deepEqual([(await conversation(db, ME, { user: "bob" }))?.unread, (await rowsAfter(db, 0)).length], [1, 1]);
    assert.equal(await mark(2), false);
    assert.equal(await mark(900), true);
    assert.deepEqual((await rowsAfter(db, 0)).map(({ body }) => body).at(-1), { kind: "markRead", conversation: 7, seq: 4 }, "not beyond what is there");
    assert.equal((await rowsAfter(db, 0)).length, 2);
    await assert.rejects(markRead(db, ME, { conversation: 8, seq: 1, nonce: "00000000000000bb", time: 1 }), { code: "notFound" });
  });

  on("the outbox has a bound, and numbers what comes after it as if nothing was", async (db) => {
    const body = /** @type {const} */ ({ kind: "markRead", conversation: 7, seq: 1 });
    const many = Array.from({ length: OUTBOX_MAX }, (_, at) => ({ nonce: at.toString(16).padStart(16, "0"), time: 1, body }));
    await enqueue(db, many);
    await assert.rejects(enqueue(db, [{ nonce: "f".repeat(16), time: 1, body }]), { code: "outboxFull" });
    const rows = await renumber(db, 1n);
    await applied(db, { incarnation: 1n, applied: 1n, appliedNonce: rows[0].nonce }, [rows[0].id]);
    const [next] = await enqueue(db, [{ nonce: "f".repeat(16), time: 1, body }]);
    assert.equal(next.cseq, BigInt(OUTBOX_MAX + 1));
  });

  on("numbers go on from what any tab has given, not from what the leader knew", async (db) => {
    const mark = (/** @type {string} */ digit) => ({ nonce: digit.repeat(16), time: 1, body: /** @type {const} */ ({ kind: "markRead", conversation: 7, seq: 1 }) });
    const [row] = await enqueue(db, [mark("1")]);
    await renumber(db, 1n);
    // What the leader began with, all of it.
    const { outbox } = await load(db, { user: ME, device: "x" });
    await enqueue(db, [mark("2"), mark("3")]);
    await applied(db, { ...outbox, applied: 1n, appliedNonce: row.nonce }, [row.id]);
    const [next] = await enqueue(db, [mark("4")]);
    assert.equal(next.cseq, 4n);
    assert.equal((await load(db, { user: ME, device: "x" })).outbox.rows, 3);
    assert.deepEqual(Object.keys(new Uplink(outbox).state), ["incarnation", "applied", "appliedNonce"]);
  });

  on("a new outbox takes what is not applied, and what the server has lost", async (db) => {
    const send = (/** @type {string} */ text) => ({ nonce: text.repeat(16), time: 1, body: /** @type {const} */ ({ kind: "send", to: { user: "bob" }, text }) });
    const rows = await enqueue(db, ["1", "2", "3"].map(send));
    await renumber(db, 5n);
    await applied(db, { incarnation: 5n, applied: 2n, appliedNonce: "2".repeat(16) }, [rows[0].id, rows[1].id]);
    const kept = await renumber(db, 0n, (row) => row.cseq > 1n);
    assert.deepEqual(kept.map(({ nonce, incarnation, cseq, applied }) => [nonce[0], incarnation, cseq, applied]), [["2", 0n, 1n, false], ["3", 0n, 2n, false]]);
    await enqueue(db, [send("4")]);
    assert.deepEqual((await renumber(db, 6n)).map(({ cseq, incarnation }) => [cseq, incarnation]), [[1n, 6n], [2n, 6n], [3n, 6n]]);
  });

  on("a snapshot comes in pages, and only the last moves the position", async (db) => {
    await takeAll(db, [started(1n, "carol", 9n), message(2n, 1n, "carol", 9n), started(3n), message(4n, 1n)]);
    await saveDraft(db, "carol", "unsaid");
    const members = [{ user: ME, delivered: 5n, read: 4n }, { user: "bob", delivered: 2n, read: 2n }];
    const state = { conversation: 7n, kind: "direct", members, head: 6n, messages: [stored(4), stored(5, ME), stored(6)] };
    await takeSnapshot(db, ME, [state], NOTHING, { reset: "trimmed", position: null, outcomesGone: true });
    assert.deepEqual((await load(db, { user: ME, device: "x" })).position, position(4n));
    assert.deepEqual(await seqs(db, {}), [4, 5, 6], "back to where something is missing");
    assert.equal((await conversation(db, ME, { user: "bob" }))?.unread, 1);
    await takeSnapshot(db, ME, [], NOTHING, { reset: null, position: position(90n), outcomesGone: true });
    assert.deepEqual((await load(db, { user: ME, device: "x" })).position, position(90n));
    assert.equal((await conversations(db, ME)).length, 2, "what is beyond a snapshot of the same log stays");
    await takeSnapshot(db, ME, [state], NOTHING, { reset: "otherLog", position: position(1n), outcomesGone: true });
    assert.deepEqual((await conversations(db, ME)).map(({ other, draft }) => [other, draft]), [["bob", ""], ["carol", "unsaid"]], "of another log nothing stays but what was not sent");
    assert.equal((await conversation(db, ME, { user: "carol" }))?.id, null);
  });

  on("a device that begins elsewhere is not told what came of commands", async (db) => {
    const send = (/** @type {string} */ nonce) => ({ nonce, time: 5, body: /** @type {const} */ ({ kind: "send", to: { user: "bob" }, text: "hello" }) });
    const rows = await enqueue(db, ["00000000000000aa", "00000000000000ab", "00000000000000ac"].map(send));
    await renumber(db, 3n);
    const state = (/** @type {number} */ at) => ({ incarnation: 3n, applied: BigInt(at), appliedNonce: rows[at - 1].nonce });
    await applied(db, state(1), [rows[0].id]);
    // Also of what is known to be applied only now.
    await restart(db, position(50n), { state: state(2), applied: [rows[1].id] }, { reset: "trimmed", outcomesGone: true });
    const found = await load(db, { user: ME, device: "x" });
    assert.deepEqual([found.rows.map(({ cseq }) => cseq), found.outbox.rows, found.outbox.applied], [[3n], 1, 2n]);
    const last = { state: state(3), applied: [rows[2].id] };
    await takeSnapshot(db, ME, [], last, { reset: "trimmed", position: null, outcomesGone: true });
    assert.deepEqual((await load(db, { user: ME, device: "x" })).rows.map(({ cseq, applied }) => [cseq, applied]), [[3n, true]]);
    await takeSnapshot(db, ME, [], { ...last, applied: [] }, { reset: null, position: position(60n), outcomesGone: true });
    assert.deepEqual((await load(db, { user: ME, device: "x" })).rows, []);
  });

  on("history fills gaps, and marks what it leaves", async (db) => {
    await takeAll(db, [started(1n), message(2n, 1n), message(3n, 2n)]);
    const state = { conversation: 7n, kind: "direct", members: [], head: 100n, messages: [stored(99), stored(100)] };
    await takeSnapshot(db, ME, [state], NOTHING, { reset: "trimmed", position: position(200n), outcomesGone: true });
    assert.deepEqual(await seqs(db, {}), [99, 100]);
    assert.deepEqual(await seqs(db, { before: 99 }), [], "what stands before 99 is not here");
    const page = (/** @type {number} */ from, /** @type {number} */ to, more = true) =>
      ({ conversation: 7n, messages: Array.from({ length: to - from + 1 }, (_, at) => stored(from + at)), more });
    await takeHistory(db, ME, page(96, 98), 99, "backwards");
    assert.deepEqual(await seqs(db, {}), [96, 97, 98, 99, 100]);
    assert.deepEqual(await seqs(db, { limit: 3 }), [98, 99, 100]);
    assert.deepEqual(await seqs(db, { before: 98, limit: 50 }), [96, 97]);
    assert.deepEqual(await seqs(db, { before: 3, limit: 50 }), [1, 2]);
    assert.deepEqual(await seqs(db, { after: 0, limit: 50 }), [1, 2]);
    await takeHistory(db, ME, page(3, 5), 2, "forwards");
    assert.deepEqual(await seqs(db, { after: 1, limit: 50 }), [2, 3, 4, 5]);
    await takeHistory(db, ME, page(3, 95), 96, "backwards");
    assert.equal((await seqs(db, { limit: 500 })).length, 100, "2 stands directly before 3");
    assert.deepEqual(await seqs(db, { before: 60, limit: 2 }), [58, 59]);
    assert.deepEqual(await seqs(db, { after: 98, limit: 50 }), [99, 100]);
  });

  on("the oldest page has nothing missing before it", async (db) => {
    await takeHistory(db, ME, { conversation: 7n, messages: [stored(5), stored(6, ME)], more: false }, 0, "backwards");
    const [found] = await conversations(db, ME);
    assert.deepEqual([found.other, found.last?.seq, await seqs(db, {})], ["bob", 6, [5, 6]]);
    await takeAll(db, [message(1n, 7n)]);
    assert.deepEqual(await seqs(db, {}), [5, 6, 7]);
  });

  on("a number that cannot be held is refused, and nothing of its transaction is kept", async (db) => {
    await assert.rejects(takeAll(db, [started(1n), message(2n, 1n << 60n)]), { code: "numberTooLarge" });
    assert.deepEqual(await conversations(db, ME), []);
  });
}
