// Sessions that are handed frames: what becomes of the outbox where connections break, on both databases.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeClientFrame } from "../../src/codec/index.js";
import { WhimbrelError } from "../../src/errors.js";
import { Patience } from "../../src/pulse.js";
import { Queries } from "../../src/queries.js";
import { Session } from "../../src/session.js";
import { enqueue, markRead } from "../../src/store/outbox.js";
import { MemoryDatabase } from "../../src/store/memory.js";
import { load, messages } from "../../src/store/views.js";
import { FakeBrowser } from "../harness/environment.js";
import { freshDatabase } from "../harness/indexeddb.js";

/** @typedef {import("../../src/store/database.js").Database} Database */
/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */
/** @typedef {import("../../src/codec/frames.js").Event} Event */

const ME = "alice";
const NONCE = "00000000000000aa";
const NO_NONCE = "0000000000000000";

/** A clock that only tests move: what is put off until later does not happen by itself. */
let now = 0;

/**
 * A session over what the database holds, and a server in the test's hand.
 * @param {Database} db
 */
async function open(db) {
  /** @type {import("../../src/codec/frames.js").ClientFrame[]} */
  const said = [];
  /** @type {(frames: ServerFrame[]) => Promise<void> | void} */
  let onframes = () => {};
  /** @type {(why: any) => void} */
  let onclosed = () => {};
  /** @type {import("../../src/link/link.js").Link} */
  const link = {
    transport: "websocket",
    queued: 0,
    start: (frames, closed) => void ([onframes, onclosed] = [frames, closed]),
    send: (frame) => void said.push(decodeClientFrame(frame)),
    close: () => {},
  };
  /** @type {string[]} */
  const lost = [];
  /** @type {import("../../src/session.js").Host} */
  const host = {
    env: { ...new FakeBrowser().tab(), now: () => now },
    db, user: ME, queries: new Queries(), patience: new Patience(),
    hello: (incarnation, position) => ({
      minVersion: 1, maxVersion: 1, user: ME, device: "device", token: "", agent: "test", instance: NO_NONCE, attempt: 1, incarnation, position,
      origin: "snapshot", extensions: [],
    }),
    greeted: () => {},
    lost: (_, why) => void lost.push(why.code),
    ended: (_, why) => void lost.push(why.code),
    wake: () => void session.poll(),
    changed: () => {}, received: () => {}, signal: () => {}, reset: () => {}, conflict: () => lost.push("conflict"), watch: () => undefined,
  };
  const session = new Session(host, link, await load(db, { user: ME, device: "device" }));
  session.start();
  /** Frames arrive together, and are through when this resolves. @param {ServerFrame[]} frames */
  const feed = async (...frames) => {
    void onframes(frames);
    await session.draining;
    assert.deepEqual(lost, []);
  };
  /** The connection breaks. */
  const breaks = async () => {
    onclosed(new WhimbrelError("connectionLost", "by the test"));
    assert.deepEqual(lost.splice(0), ["connectionLost"]);
    await session.leave();
  };
  const commands = () => said.flatMap((frame) => ("command" in frame ? [frame.command.cseq] : []));
  return { session, feed, breaks, commands };
}

/**
 * @param {{ applied?: bigint, nonce?: string, head?: bigint, cursor?: bigint, snapshot?: boolean, reset?: "trimmed" | null }} [what]
 * @returns {ServerFrame}
 */
const welcome = ({ applied = 0n, nonce = applied ? NONCE : NO_NONCE, head = 0n, cursor = head, snapshot = false, reset = null } = {}) => ({
  welcome: {
    version: 1, user: ME, sessionEpoch: 1n, epoch: 1n, incarnation: 3n, applied, appliedNonce: nonce, head,
    begin: { cursor, time: cursor, snapshot, reset }, window: 16, maxText: 61_440, time: 0n, endpoints: [], extensions: [],
  },
});
const member = (/** @type {string} */ user) => ({ user, delivered: 0n, read: 0n });
/**
 * A page of a snapshot with one conversation.
 * @param {bigint} conversation
 * @param {string} other
 * @param {[bigint, string, string][]} lines
 * @param {boolean} [last]
 * @returns {ServerFrame}
 */
const page = (conversation, other, lines, last = false) => ({
  snapshot: {
    conversations: [{
      conversation, kind: "direct", members: [member(ME), member(other)], head: lines.at(-1)?.[0] ?? 0n,
      messages: lines.map(([seq, from, text]) => ({ seq, time: seq, from, content: { kind: "text", text } })),
    }],
    last,
  },
});
const event = (/** @type {any} */ body) => /** @type {ServerFrame} */ ({ event: { time: body.seq, ...body } });
const sent = (/** @type {bigint} */ seq, /** @type {bigint} */ number) =>
  event({ seq, kind: "sent", body: { incarnation: 3n, cseq: 1n, conversation: 7n, seq: number } });

const write = (/** @type {Database} */ db) => enqueue(db, [{ nonce: NONCE, time: 5, body: { kind: "send", to: { user: "bob" }, text: "mine" } }]);
const shown = async (/** @type {Database} */ db) => (await messages(db, ME, { user: "bob" }, {})).map(({ text, state }) => `${text} ${state}`);
/** What the outbox holds, and how much it believes to hold. @param {Database} db */
const outbox = async (db) => {
  const { outbox: { applied, rows: count, bytes }, rows } = await load(db, { user: ME, device: "device" });
  return { applied, count, bytes, rows: rows.map(({ cseq, applied }) => `${cseq} ${applied ? "applied" : "waits"}`) };
};
const EMPTY = { applied: 1n, count: 0, bytes: 0, rows: [] };

/** The device has an outbox and is at the head of a conversation with one message of bob's. @param {Database} db */
async function settled(db) {
  const { feed, breaks } = await open(db);
  await feed(
    welcome({ head: 0n }),
    event({ seq: 1n, kind: "started", body: { conversation: 7n, kind: "direct", members: [ME, "bob"] } }),
    event({ seq: 2n, kind: "message", body: { conversation: 7n, seq: 1n, from: "bob", content: { kind: "text", text: "hello" } } }),
  );
  await breaks();
}

/** A session in which the command is sent, and of which nothing comes back. @param {Database} db */
async function sendInVain(db) {
  const { feed, breaks, commands } = await open(db);
  await feed(welcome({ head: 2n }));
  assert.deepEqual(commands(), [1n]);
  await breaks();
}

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
    now += 1_000;
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
  const since = now;
  assert.equal(pulse.owed, since);
  now += 700;
  await feed(event({ seq: 3n, kind: "receipt", body: { conversation: 7n, user: "bob", delivered: 1n, read: 1n } }), { ping: { id: 1 } });
  assert.deepEqual([pulse.heard, pulse.owed], [now, since]);
  session.ping(false);
  await feed(event({ seq: 4n, kind: "receipt", body: { conversation: 7n, user: "bob", delivered: 2n, read: 2n } }));
  assert.deepEqual([pulse.probed, pulse.owed], [now, since]);
  await feed({ pong: { id: /** @type {number} */ (session.pinged) } });
  assert.deepEqual([pulse.probed, pulse.owed], [undefined, now], "the command is owed still");
  now += 100;
  await feed({ applied: { cseq: 1n } });
  assert.deepEqual([pulse.probed, pulse.owed], [undefined, undefined]);
  await session.leave();
});
