// Sessions with more than one way: streams of their own for questions, datagrams for what may get lost.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeClientFrame, FrameSplitter } from "../../src/codec/index.js";
import { enqueue } from "../../src/store/outbox.js";
import { MemoryDatabase } from "../../src/store/memory.js";
import { messages } from "../../src/store/views.js";
import { clock, event, ME, open, page, settled, welcome } from "../harness/session.js";

/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */

/** A link with datagrams and streams of its own for questions, in the test's hand. */
function quic() {
  /** @type {import("../../src/codec/frames.js").ClientFrame[][]} */
  const datagrams = [];
  /** @type {{ query: any, answer: (...frames: ServerFrame[]) => void, end: () => void, reset: () => void }[]} */
  const streams = [];
  /** @type {Partial<import("../../src/link/link.js").Link>} */
  const link = {
    transport: "webtransport",
    datagramMax: 1_200,
    hint: (datagram) => void datagrams.push(new FrameSplitter().push(datagram).map(decodeClientFrame)),
    ask: (frame, onframes) =>
      new Promise((resolve, reject) => {
        const answer = (/** @type {ServerFrame[]} */ ...frames) => {
          // As a link does: what the session throws ends the stream.
          try {
            void onframes(frames);
          } catch (why) {
            reject(why);
          }
        };
        /** @type {any} */
        const { query } = decodeClientFrame(frame);
        streams.push({ query, answer, end: () => resolve(undefined), reset: () => reject(new Error("reset")) });
      }),
  };
  return { link, datagrams, streams };
}
const settle = () => new Promise((resolve) => setImmediate(resolve));
const text = (/** @type {bigint} */ seq, body = `text ${seq}`) =>
  event({ seq, kind: "message", body: { conversation: 7n, seq: seq - 1n, from: "bob", content: { kind: "text", text: body, extensions: [] } } });
const online = (/** @type {bigint} */ id, /** @type {string[]} */ users, last = true) =>
  /** @type {ServerFrame} */ ({ answer: { id, last, kind: "online", body: { users, more: false } } });
const ASK_ONLINE = /** @type {const} */ ({ kind: "online", body: { after: "", limit: 500 } });

/** A session over QUIC that was welcomed at event 2, and its store. */
async function overQuic() {
  const db = new MemoryDatabase();
  await settled(db);
  const { link, datagrams, streams } = quic();
  const opened = await open(db, link);
  await opened.feed(welcome({ head: 2n }));
  const queries = () => opened.said.flatMap((frame) => ("query" in frame ? [frame.query.id] : []));
  const texts = async () => (await messages(db, ME, { user: "bob" }, { limit: 1_000 })).map(({ text }) => text);
  const ask = () => {
    const answer = opened.session.host.queries.ask(ASK_ONLINE);
    opened.session.poll();
    return answer;
  };
  return { ...opened, db, datagrams, streams, queries, texts, ask };
}

test("a question goes on a stream of its own, and is asked again on the session's where that brings no answer", async () => {
  const { session, feed, streams, queries, ask } = await overQuic();
  const answered = ask();
  assert.deepEqual([streams.length, streams[0].query.id, queries()], [1, 1n, []]);
  streams[0].answer(online(1n, ["bob"], false), online(1n, ["carol"]));
  assert.deepEqual((await answered).users, ["bob", "carol"]);
  streams[0].end();
  await settle();
  assert.deepEqual(queries(), []);
  assert.equal(session.pulse.owed, undefined);
  /** @type {[string, (stream: (typeof streams)[0]) => void][]} */
  const faults = [
    ["reset at once", (stream) => stream.reset()],
    ["ended without an answer", (stream) => stream.end()],
    ["ended in the middle of an answer", (stream) => (stream.answer(online(stream.query.id, ["half"], false)), stream.end())],
    ["something else", (stream) => stream.answer({ applied: { cseq: 9n } })],
    ["an answer to another question", (stream) => stream.answer(online(77n, ["x"]))],
  ];
  for (const [what, fault] of faults) {
    const before = queries().length;
    const answer = ask();
    const stream = /** @type {(typeof streams)[0]} */ (streams.at(-1));
    assert.equal(queries().length, before, what);
    fault(stream);
    await settle();
    assert.deepEqual(queries().slice(before), [stream.query.id], what);
    await feed(online(stream.query.id, ["whole"]));
    assert.deepEqual((await answer).users, ["whole"], what);
  }
  await session.leave();
});

test("only so many questions have streams of their own at once; in the next session all are asked anew", async () => {
  const { session, feed, streams, queries, ask, breaks } = await overQuic();
  const answers = Array.from({ length: 20 }, ask);
  assert.deepEqual([streams.length, queries()], [8, [9n, 10n, 11n, 12n, 13n, 14n, 15n, 16n]], "and servers let 16 wait");
  streams[0].answer(online(1n, []));
  streams[0].end();
  await settle();
  assert.deepEqual([streams.length, queries().at(-1)], [8, 17n], "one that is answered makes room");
  await feed(online(9n, []));
  assert.deepEqual([streams.length, streams[8].query.id], [9, 18n]);
  assert.equal((await answers[0]).users.length, 0);
  // With the connection all streams end: nothing is asked on one that is gone.
  const { host } = session;
  await breaks();
  for (const stream of streams) stream.reset();
  await settle();
  assert.equal(queries().at(-1), 17n);
  host.queries.onDisconnect();
  assert.equal(host.queries.asked, 0);
});

test("copies of events are taken once and in order, whichever way is faster", async () => {
  const { session, feed, hint, texts } = await overQuic();
  await hint(text(4n));
  await hint(text(4n), text(6n));
  assert.deepEqual(await texts(), ["hello"], "what is before them is not there");
  await hint(text(3n));
  assert.deepEqual(await texts(), ["hello", "text 3", "text 4"]);
  await feed(text(3n), text(4n), text(5n));
  assert.deepEqual(await texts(), ["hello", "text 3", "text 4", "text 5", "text 6"]);
  await hint(text(5n));
  await feed(text(6n), text(7n));
  assert.equal(session.downlink.taken, 7n);
  assert.equal((await texts()).length, 6);
  await session.leave();
});

test("no more than 64 copies are held before their turn, and a gap on the stream stays a fault, whatever is held", async () => {
  const { session, feed, hint, texts, lost, db } = await overQuic();
  for (let seq = 80n; seq > 3n; seq--) await hint(text(seq));
  assert.equal(session.downlink.early.size, 64);
  await feed(text(3n));
  // 4 to 16 found no place: the stream brings them.
  assert.equal(session.downlink.taken, 3n);
  await assert.rejects(feed(text(5n)), /outOfOrder/);
  assert.deepEqual(lost, ["outOfOrder"]);
  const again = await open(db, quic().link);
  await again.feed(welcome({ head: 80n, cursor: 3n }));
  for (let seq = 80n; seq > 10n; seq--) await again.hint(text(seq));
  for (let seq = 4n; seq <= 80n; seq++) await again.feed(text(seq));
  assert.deepEqual(await texts(), ["hello", ...Array.from({ length: 78 }, (_, no) => `text ${no + 3}`)]);
  await again.session.leave();
});

test("what comes in datagrams before the welcome, or has no place there, is ignored", async () => {
  const db = new MemoryDatabase();
  await settled(db);
  const { link } = quic();
  const { session, feed, hint, signals } = await open(db, link);
  const typing = { typing: { conversation: 7n, user: "bob", active: true } };
  await hint(text(3n), { signal: typing });
  await feed(welcome({ head: 2n }));
  assert.deepEqual([session.downlink.taken, signals], [2n, []]);
  const presence = [{ user: "bob", state: "online" }];
  await hint({ error: { code: "internal", message: "", retryAfterMs: 0 } }, { applied: { cseq: 1n } }, { signal: { presence } });
  assert.deepEqual(signals, []);
  await hint({ signal: typing });
  assert.deepEqual(signals, [typing]);
  // Nor in the middle of a snapshot.
  await session.leave();
  const fresh = await open(new MemoryDatabase(), link);
  await fresh.feed(welcome({ head: 2n, snapshot: true }), page(8n, "carol", []));
  await fresh.hint(text(3n));
  await fresh.feed(page(7n, "bob", [[1n, "bob", "hello"]], true));
  assert.deepEqual([fresh.session.downlink.taken, fresh.session.downlink.early.size], [2n, 0]);
  await fresh.session.leave();
});

test("typing goes in a datagram if there are such, who is watched and how the device is always over the stream", async () => {
  const { session, feed, said, datagrams } = await overQuic();
  const typing = { typing: { to: { user: "bob" }, active: true } };
  session.signal(typing);
  assert.deepEqual(datagrams, [[{ signal: typing }]]);
  assert.ok(!said.some((frame) => "signal" in frame));
  /** @type {any} */ (session.link).datagramMax = 5;
  session.signal(typing);
  assert.deepEqual([datagrams.length, said.filter((frame) => "signal" in frame)], [1, [{ signal: typing }]]);
  const watch = { users: ["bob"], everyone: false, lobby: false };
  session.host.watch = () => watch;
  Object.assign(session.link, { datagramMax: 1_200, queued: 1024 * 1024 });
  session.watched = false;
  session.poll();
  assert.deepEqual([datagrams.length, said.at(-1)], [1, { signal: { watch } }], "however much waits there");
  await feed(text(3n));
  assert.ok(!said.some((frame) => "ack" in frame), "it may take another along");
  const state = { background: true, askAfterS: 0 };
  session.host.state = () => state;
  session.poll();
  const last = [{ ack: { seq: 3n } }, { signal: { state } }, { ping: { id: session.pinged } }];
  assert.deepEqual([datagrams.length, said.slice(-3)], [1, last], "behind what was put off, before a question");
  await session.leave();
});

test("while the server sends copies, small commands are copied too, 10 and 30 ms later, until they are known to have arrived", async () => {
  const { session, feed, hint, datagrams, db, commands } = await overQuic();
  const send = async (/** @type {string} */ body = "mine") => {
    const nonce = `${datagrams.length}${commands().length}`.padStart(16, "0");
    await enqueue(db, [{ nonce, time: 5, body: { kind: "send", to: { user: "bob" }, text: body } }]);
    await session.sync();
    session.poll();
  };
  const copies = () => datagrams.map((frames) => frames.map((frame) => Number(/** @type {any} */ (frame).command.cseq)));
  const pass = (/** @type {number} */ ms) => {
    clock.now += ms;
    return session.poll();
  };
  await send();
  pass(10);
  pass(30);
  assert.deepEqual(copies(), [], "the path is good");
  await hint(text(3n));
  await send();
  assert.ok(pass(0) <= clock.now + 10, "it wakes for them");
  pass(9);
  assert.deepEqual(copies(), []);
  pass(1);
  assert.deepEqual(copies(), [[2]]);
  pass(5);
  await send();
  await send("x".repeat(2_000));
  pass(12);
  assert.deepEqual(copies(), [[2], [2, 3]], "those that are due together share a datagram, and long ones are not copied");
  pass(20);
  assert.deepEqual(copies(), [[2], [2, 3], [3]]);
  await send();
  await feed({ applied: { cseq: 5n } });
  pass(50);
  assert.equal(datagrams.length, 3, "it arrived");
  await send();
  await feed({ busy: { cseq: 6n, retryAfterMs: 5_000 } });
  pass(50);
  assert.equal(datagrams.length, 3, "the server wants none now");
  pass(60_000);
  assert.deepEqual(commands().at(-1), 6n);
  pass(50);
  assert.equal(datagrams.length, 3, "the path has become good again");
  await session.leave();
});
