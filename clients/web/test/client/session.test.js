// Sessions that are handed frames: what becomes of the outbox where connections break, on both databases.

import assert from "node:assert/strict";
import { test } from "node:test";
import { markRead } from "../../src/store/outbox.js";
import { MemoryDatabase } from "../../src/store/memory.js";
import { freshDatabase } from "../harness/indexeddb.js";
import { clock, EMPTY, event, ME, NONCE, open, outbox, page, sendInVain, sent, settled, shown, welcome, write } from "../harness/session.js";

/** @typedef {import("../../src/store/database.js").Database} Database */

/** @type {[string, () => Promise<Database>][]} */
const KINDS = [["memory", async () => new MemoryDatabase()], ["indexeddb", freshDatabase]];
for (const [kind, fresh] of KINDS) {
  const on = (/** @type {string} */ what, /** @type {(db: Database) => Promise<void>} */ work) => test(`${kind}: ${what}`, async () => work(await fresh()));

  on("a mark that a welcome shows to be applied leaves the outbox", async (db) => {
    await settled(db);
    await markRead(db, ME, { conversation: 7, seq: 1, nonce: NONCE, time: 5 });
    await sendInVain(db);
    const { session, feed } = await open(db);
    await feed(welcome({ applied: 1n, head: 3n, cursor: 2n }));
    assert.equal(session.uplink.waiting, 0);
    await feed(event({ seq: 3n, kind: "receipt", body: { conversation: 7n, user: ME, delivered: 1n, read: 1n } }));
    assert.deepEqual(await outbox(db), EMPTY);
    await session.leave();
  });

  on("a message that a welcome shows to be applied is stored as such, and its outcome removes it", async (db) => {
    await settled(db);
    await write(db);
    await sendInVain(db);
    const { session, feed, commands } = await open(db);
    await feed(welcome({ applied: 1n, head: 3n, cursor: 2n }));
    // No event carries it along: it is stored by itself a moment later.
    clock.now += 1_000;
    session.poll();
    assert.deepEqual(await outbox(db), { applied: 1n, count: 1, bytes: 12, rows: ["1 applied"] });
    await feed(sent(3n, 2n));
    assert.deepEqual(await outbox(db), EMPTY);
    assert.deepEqual([await shown(db), commands()], [["hello received", "mine sent"], []]);
    await session.leave();
  });

  on("what was written before the first session is sent after the last page of its snapshot, and stored once", async (db) => {
    await write(db);
    const { session, feed, commands } = await open(db);
    await feed(welcome({ head: 2n, snapshot: true }));
    await feed(page(8n, "carol", [[1n, "carol", "other"]]));
    session.poll();
    assert.deepEqual(commands(), [], "not while the snapshot is under way");
    await feed(page(7n, "bob", [[1n, "bob", "hello"]], true));
    assert.deepEqual(commands(), [1n]);
    await feed({ applied: { cseq: 1n } }, sent(3n, 2n));
    assert.deepEqual(await shown(db), ["hello received", "mine sent"]);
    assert.deepEqual(await outbox(db), EMPTY);
    assert.equal(session.uplink.waiting, 0);
    await session.leave();
  });

  on("what came before a session began is no news, unless it takes the place of one that listened", async (db) => {
    await settled(db);
    const text = (/** @type {bigint} */ seq) =>
      event({ seq, kind: "message", body: { conversation: 7n, seq: seq - 1n, from: "bob", content: { kind: "text", text: `text ${seq}`, extensions: [] } } });
    /** @type {string[]} */
    const news = [];
    const begin = async (/** @type {bigint | undefined} */ newsAfter, /** @type {import("../../src/codec/frames.js").ServerFrame[]} */ ...frames) => {
      const { session, feed } = await open(db, {}, newsAfter);
      session.host.received = (row) => void news.push(row.text);
      await feed(...frames);
      await session.leave();
      return news.splice(0);
    };
    assert.deepEqual(await begin(undefined, welcome({ head: 4n, cursor: 2n }), text(3n), text(4n), text(5n)), ["text 5"]);
    assert.deepEqual(await begin(2n, welcome({ head: 7n, cursor: 5n }), text(6n), text(7n), text(8n)), ["text 6", "text 7", "text 8"]);
    assert.deepEqual(await begin(9n, welcome({ head: 9n, cursor: 8n }), text(9n), text(10n)), ["text 10"], "that one had not caught up itself");
    assert.deepEqual(await begin(2n, welcome({ head: 21n, cursor: 20n, reset: "trimmed" }), text(21n), text(22n)), ["text 22"], "a reset is news of its own");
  });

  on("what waits does not wait for the events behind a snapshot too", async (db) => {
    await write(db);
    const { session, feed, commands } = await open(db);
    let early = 0;
    const { changed } = session.host;
    session.host.changed = (rows) => {
      early ||= commands().length;
      changed(rows);
    };
    await feed(welcome({ head: 2n, snapshot: true }), page(7n, "bob", [[1n, "bob", "hello"]], true));
    assert.equal(early, 1);
    await session.leave();
  });

  on("a snapshot that breaks off after a command was carried out leaves its message once", async (db) => {
    await settled(db);
    await write(db);
    await sendInVain(db);
    const mine = [/** @type {[bigint, string, string]} */ ([1n, "bob", "hello"]), /** @type {[bigint, string, string]} */ ([2n, ME, "mine"])];
    const first = await open(db);
    await first.feed(welcome({ head: 9n, snapshot: true, reset: "trimmed" }), page(7n, "bob", mine));
    await first.breaks();
    assert.deepEqual(first.commands(), []);
    // Everything at once: there is no time for the mark to be stored by itself.
    const second = await open(db);
    await second.feed(welcome({ applied: 1n, head: 9n, snapshot: true, reset: "trimmed" }), page(7n, "bob", mine), page(8n, "carol", [], true));
    assert.deepEqual(await shown(db), ["hello received", "mine sent"]);
    assert.deepEqual(await outbox(db), EMPTY);
    assert.deepEqual([second.session.uplink.waiting, second.commands()], [0, []]);
    await second.session.leave();
    const third = await open(db);
    assert.equal(third.session.uplink.waiting, 0, "and it is not sent again");
    await third.session.leave();
  });

  on("a snapshot that breaks off between the mark and the last page forgets the message at the next one", async (db) => {
    await settled(db);
    await write(db);
    await sendInVain(db);
    const first = await open(db);
    await first.feed(welcome({ applied: 1n, head: 9n, snapshot: true, reset: "trimmed" }), page(8n, "carol", []));
    assert.deepEqual(await outbox(db), { applied: 1n, count: 1, bytes: 12, rows: ["1 applied"] }, "the outcome is gone with the last page only");
    await first.breaks();
    const second = await open(db);
    await second.feed(welcome({ applied: 1n, head: 9n, snapshot: true, reset: "trimmed" }), page(7n, "bob", [[1n, "bob", "hello"], [2n, ME, "mine"]], true));
    assert.deepEqual([await shown(db), await outbox(db)], [["hello received", "mine sent"], EMPTY]);
    await second.session.leave();
  });

  on("a device that begins elsewhere without a snapshot forgets what was applied before", async (db) => {
    await settled(db);
    await write(db);
    await sendInVain(db);
    const { session, feed } = await open(db);
    await feed(welcome({ applied: 1n, head: 9n, reset: "trimmed" }));
    assert.deepEqual(await outbox(db), EMPTY);
    assert.deepEqual(await shown(db), ["hello received"]);
    await session.leave();
  });
}

test("what comes down does not pass for an answer to what went up", async () => {
  const db = new MemoryDatabase();
  await settled(db);
  const { session, feed } = await open(db);
  await feed(welcome({ applied: 0n, head: 2n }));
  const { pulse } = session;
  assert.equal(pulse.owed, undefined);
  await write(db);
  await session.sync();
  const since = clock.now;
  assert.equal(pulse.owed, since);
  clock.now += 700;
  await feed(event({ seq: 3n, kind: "receipt", body: { conversation: 7n, user: "bob", delivered: 1n, read: 1n } }), { ping: { id: 1 } });
  assert.deepEqual([pulse.heard, pulse.owed], [clock.now, since]);
  session.ping(false);
  await feed(event({ seq: 4n, kind: "receipt", body: { conversation: 7n, user: "bob", delivered: 2n, read: 2n } }));
  assert.deepEqual([pulse.probed, pulse.owed], [clock.now, since]);
  await feed({ pong: { id: /** @type {number} */ (session.pinged) } });
  assert.deepEqual([pulse.probed, pulse.owed], [undefined, clock.now], "the command is owed still");
  clock.now += 100;
  await feed({ applied: { cseq: 1n } });
  assert.deepEqual([pulse.probed, pulse.owed], [undefined, undefined]);
  await session.leave();
});
