// One suite for both databases: what the model above them relies on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { freshDatabase, freshName } from "../harness/indexeddb.js";
import { IdbDatabase } from "../../src/store/indexeddb.js";
import { MemoryDatabase } from "../../src/store/memory.js";
import { WhimbrelError } from "../../src/errors.js";

/** @type {[string, () => Promise<import("../../src/store/database.js").Database>][]} */
const KINDS = [["memory", async () => new MemoryDatabase()], ["indexeddb", freshDatabase]];

for (const [kind, open] of KINDS) {
  test(`${kind}: what is put is there, by rising key`, async () => {
    const db = await open();
    assert.equal(db.kind, kind);
    await db.write(["messages", "meta"], async (tx) => {
      for (const seq of [5, 1, 10, 3]) tx.put("messages", [7, seq], { seq });
      tx.put("messages", [8, 2], { seq: 2 });
      tx.put("meta", "b", 1n);
    });
    await db.read(["messages", "meta"], async (tx) => {
      assert.equal(await tx.get("meta", "b"), 1n);
      assert.equal(await tx.get("meta", "none"), undefined);
      const seqs = async (/** @type {any} */ range) => (await tx.all("messages", range)).map(({ seq }) => seq);
      assert.deepEqual(await seqs({}), [1, 3, 5, 10, 2]);
      assert.deepEqual(await seqs({ lower: [7, 2], upper: [7, 5] }), [3, 5]);
      assert.deepEqual(await seqs({ lower: [7, 3], limit: 2 }), [3, 5]);
      assert.deepEqual(await seqs({ upper: [7, 3] }), [1, 3]);
      assert.deepEqual(await seqs({ lower: [7, 9], upper: [7, 4] }), [], "an end before the beginning");
    });
  });

  test(`${kind}: ranges are deleted, and single keys`, async () => {
    const db = await open();
    await db.write(["drafts", "messages"], async (tx) => {
      for (let seq = 1; seq <= 5; seq++) tx.put("messages", [1, seq], seq);
      tx.deleteRange("messages", { lower: [1, 2], upper: [1, 3] });
      tx.deleteRange("messages", { lower: [1, 9], upper: [1, 8] });
      tx.delete("messages", [1, 5]);
      tx.delete("messages", [1, 77]);
      tx.put("drafts", "bob", "x");
      tx.deleteRange("drafts", {});
    });
    assert.deepEqual(await db.read(["messages"], (tx) => tx.all("messages")), [1, 4]);
    assert.deepEqual(await db.read(["drafts"], (tx) => tx.all("drafts")), []);
  });

  test(`${kind}: a transaction that fails has changed nothing`, async () => {
    const db = await open();
    await db.write(["meta"], async (tx) => {
      tx.put("meta", "a", 1);
      tx.put("meta", "b", 2);
    });
    const failing = db.write(["meta"], async (tx) => {
      tx.put("meta", "a", 10);
      tx.put("meta", "c", 3);
      tx.deleteRange("meta", { lower: "b", upper: "b" });
      assert.equal(await tx.get("meta", "a"), 10, "what was written is read in the same transaction");
      throw new WhimbrelError("planned", "on purpose");
    });
    await assert.rejects(failing, { code: "planned" });
    assert.deepEqual(await db.read(["meta"], (tx) => tx.all("meta")), [1, 2]);
  });

  test(`${kind}: writers come one after the other`, async () => {
    const db = await open();
    const add = () => db.write(["meta"], async (tx) => tx.put("meta", "n", ((await tx.get("meta", "n")) ?? 0) + 1));
    await Promise.all(Array.from({ length: 50 }, add));
    assert.equal(await db.read(["meta"], (tx) => tx.get("meta", "n")), 50);
  });

  test(`${kind}: what was read is a copy`, async () => {
    const db = await open();
    const value = { list: [1] };
    await db.write(["meta"], async (tx) => tx.put("meta", "v", value));
    value.list.push(2);
    const read = await db.read(["meta"], (tx) => tx.get("meta", "v"));
    read.list.push(3);
    assert.deepEqual(await db.read(["meta"], (tx) => tx.get("meta", "v")), { list: [1] });
  });

  test(`${kind}: a read cannot write`, async () => {
    const db = await open();
    await assert.rejects(db.read(["meta"], async (tx) => tx.put("meta", "a", 1)));
  });
}

test("indexeddb: a database that another version has used is refused, and one that a newer version wants is let go of", async () => {
  const name = freshName();
  const db = await IdbDatabase.open(name, indexedDB);
  /** @type {WhimbrelError[]} */
  const lost = [];
  db.onlost = (why) => lost.push(why);
  await new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 99);
    request.onsuccess = () => resolve(request.result.close());
    request.onerror = reject;
  });
  assert.deepEqual(lost.map((why) => why.code), ["outdated"]);
  await assert.rejects(db.read(["meta"], (tx) => tx.get("meta", "a")), { code: "storageFailed" });
  await assert.rejects(IdbDatabase.open(name, indexedDB), { code: "outdated" });
});

test("indexeddb: a full disk has a name", async () => {
  const db = await freshDatabase();
  const full = new DOMException("no room", "QuotaExceededError");
  const failing = db.write(["meta"], async () => {
    throw full;
  });
  await assert.rejects(failing, (why) => why === full, "what the work throws comes through");
  db.db.transaction = () => {
    throw full;
  };
  await assert.rejects(db.write(["meta"], async () => {}), { code: "storageFull" });
});
