// The messages of one conversation, over an SDK of a few lines: what is fetched from where, and how holes close.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Messages } from "../../chat/messages.js";

/** @param {number[]} seqs @param {string} [state] */
const messages = (seqs, state = "received") => seqs.map((seq) => ({ conversation: 1, seq, nonce: null, from: state === "received" ? "bob" : "alice", time: seq, text: `${seq}`, state }));
const range = (/** @type {number} */ from, /** @type {number} */ to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

/** A client that holds some numbers of a conversation that has more. @param {number[]} held @param {number} count */
function client(held, count) {
  const own = {
    held: new Set(held),
    count,
    online: true,
    /** @type {number[]} where history was asked for */
    asked: [],
    waiting: /** @type {object[]} */ ([]),
    state: (/** @type {number} */ _seq) => "received",
    make: (/** @type {number[]} */ seqs) => seqs.flatMap((seq) => messages([seq], own.state(seq))),
    async messages(/** @type {unknown} */ _of, { before = Infinity, limit = 50 } = {}) {
      const page = own.make([...own.held].filter((seq) => seq < before).sort((a, b) => a - b).slice(-limit));
      return before === Infinity ? [...page, ...own.waiting] : page;
    },
    async loadHistory(/** @type {unknown} */ _of, { before = count + 1, limit = 50 }) {
      own.asked.push(before);
      if (!own.online) throw Object.assign(new Error("not connected"), { code: "offline" });
      const page = range(Math.max(1, before - limit), before - 1);
      for (const seq of page) own.held.add(seq);
      return { messages: own.make(page), more: (page[0] ?? 1) > 1 };
    },
  };
  return own;
}

/** @param {ReturnType<typeof client>} own */
async function opened(own) {
  const found = new Messages(/** @type {any} */ (own), "bob");
  await found.started;
  return found;
}

const seqs = (/** @type {Messages} */ found) => found.items.map(({ seq }) => seq);

test("older ones come from the device, then from the server, down to the first", async () => {
  const own = client(range(200, 500), 500);
  const found = await opened(own);
  while (!found.complete) assert.ok(await found.older(false));
  assert.deepEqual(seqs(found), range(1, 500));
  assert.deepEqual(own.asked, [200, 100]);
});

test("holes in what the device holds are closed by the server, never skipped", async () => {
  const own = client([...range(1, 120), ...range(300, 400), ...range(480, 500)], 500);
  const found = await opened(own);
  assert.deepEqual(seqs(found), range(480, 500));
  while (!found.complete) assert.ok(await found.older(false));
  assert.deepEqual(seqs(found), range(1, 500));
});

test("without a connection it stops at a hole, says why, and goes on later", async () => {
  const own = client([...range(1, 100), ...range(480, 500)], 500);
  own.online = false;
  const found = await opened(own);
  assert.equal(await found.older(false), false);
  assert.equal(found.trouble?.code, "offline");
  assert.deepEqual(seqs(found), range(480, 500));
  own.online = true;
  while (!found.complete) assert.ok(await found.older(false));
  assert.deepEqual(seqs(found), range(1, 500));
});

test("a conversation that the server does not know has no history", async () => {
  const own = client([], 0);
  own.loadHistory = async () => {
    throw Object.assign(new Error("no such conversation"), { code: "notFound" });
  };
  const found = await opened(own);
  assert.equal(await found.older(false), false);
  assert.deepEqual([found.complete, found.trouble], [true, null]);
});

test("many new ones at once leave no hole", async () => {
  const own = client(range(1, 60), 60);
  const found = await opened(own);
  for (const seq of range(61, 700)) own.held.add(seq);
  await found.refresh();
  assert.deepEqual(seqs(found), range(1, 700));
});

test("a hole that cannot be closed while refreshing has a reason, until it can", async () => {
  const own = client(range(1, 60), 60);
  const found = await opened(own);
  for (const seq of range(100, 120)) own.held.add(seq);
  own.online = false;
  await found.refresh();
  assert.deepEqual([seqs(found), found.trouble?.code], [range(100, 120), "offline"]);
  own.online = true;
  while (!found.complete) assert.ok(await found.older(false));
  assert.deepEqual([seqs(found), found.trouble], [range(1, 120), null]);
});

test("what was read by then is shown as read, however far back", async () => {
  const own = client(range(1, 800), 800);
  own.state = () => "sent";
  const found = await opened(own);
  while (!found.complete) await found.older(false);
  own.state = (seq) => (seq <= 400 ? "read" : "delivered");
  await found.refresh();
  assert.deepEqual(found.items.map(({ state }) => state), [...Array(400).fill("read"), ...Array(400).fill("delivered")]);
});

test("what comes while older ones are fetched is not lost, nor doubled", async () => {
  const own = client(range(400, 500), 500);
  const found = await opened(own);
  while ((found.first ?? 0) > 400) await found.older(false);
  /** @type {() => void} */
  let answer = () => {};
  const history = own.loadHistory;
  own.loadHistory = async (of, page) => {
    await new Promise((resolve) => (answer = () => resolve(null)));
    return history(of, page);
  };
  const older = found.older(false);
  await new Promise((resolve) => setImmediate(resolve));
  own.held.add(501);
  own.waiting = [{ conversation: 1, seq: null, nonce: "a".repeat(16), from: "alice", time: 502, text: "waits", state: "sending" }];
  await found.refresh();
  answer();
  assert.ok(await older);
  assert.deepEqual(seqs(found), [...range(300, 501), null]);
});
