// A link over an imitated WebTransport: what comes in datagrams, what goes out in them, and streams of their own for questions.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeClientFrame, encodeClientFrame, encodeServerFrame, FrameSplitter, withLength } from "../../src/codec/index.js";
import { connectWebTransport } from "../../src/link/webtransport.js";
import { FakeBrowser } from "../harness/environment.js";

/** @typedef {import("../../src/codec/frames.js").ServerFrame} ServerFrame */

const settle = () => new Promise((resolve) => setTimeout(resolve));
const ping = (/** @type {number} */ id) => encodeServerFrame({ ping: { id } });
const framed = (/** @type {Uint8Array[]} */ ...frames) => new Uint8Array(frames.flatMap((frame) => [...withLength(frame)]));
const CHROMIUM = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
const SAFARI = "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.4 Safari/605.1.15";

/** One direction, with the test at its other end. */
function pipe() {
  /** @type {ReadableStreamDefaultController<Uint8Array>} */
  let controller = /** @type {any} */ (undefined);
  const readable = new ReadableStream({ start: (made) => void (controller = made) });
  const feed = (/** @type {Uint8Array} */ bytes) => controller.enqueue(bytes);
  return { readable, feed, end: () => controller.close(), break: () => controller.error(new Error("reset")) };
}

/** @param {{ userAgent?: string, takes?: Promise<void> }} [how] `takes` is when datagrams go out */
async function open({ userAgent = CHROMIUM, takes } = {}) {
  /** @type {(ReturnType<typeof pipe> & { out: Uint8Array[], finished: boolean })[]} */
  const streams = [];
  const incoming = pipe();
  /** @type {Uint8Array[]} */
  const datagrams = [];
  class FakeWebTransport {
    ready = Promise.resolve();
    closed = new Promise(() => {});
    datagrams = {
      maxDatagramSize: 1_200,
      readable: incoming.readable,
      writable: new WritableStream({ write: (chunk) => (datagrams.push(chunk), takes) }),
    };
    async createBidirectionalStream() {
      const stream = { ...pipe(), out: /** @type {Uint8Array[]} */ ([]), finished: false };
      streams.push(stream);
      const writable = new WritableStream({ write: (chunk) => void stream.out.push(chunk), close: () => void (stream.finished = true) });
      return { readable: stream.readable, writable };
    }
    close() {}
  }
  const env = Object.assign(new FakeBrowser().tab(), { WebTransport: FakeWebTransport, userAgent });
  const link = await connectWebTransport(env, { url: "https://h/wt", hashes: [] }, new AbortController().signal);
  /** @type {ServerFrame[]} */
  const frames = [];
  /** @type {ServerFrame[]} */
  const hints = [];
  /** @type {string[]} */
  const lost = [];
  link.start((more) => void frames.push(...more), (why) => lost.push(why.code), (more) => void hints.push(...more));
  return { link, streams, incoming, datagrams, frames, hints, lost };
}

test("datagrams hold whole frames; bytes that are none are ignored, and harm nothing after them", async () => {
  const { link, streams, incoming, frames, hints, lost } = await open();
  incoming.feed(framed(ping(1), ping(2)));
  const whole = framed(ping(3));
  for (const broken of [[], [5, 1], [255, 255, 255, 255], [2, 99, 99], whole.subarray(0, -1)]) incoming.feed(new Uint8Array(broken));
  for (let round = 0; round < 500; round++) {
    incoming.feed(crypto.getRandomValues(new Uint8Array(round % 64)).map((byte) => byte | 0x40));
  }
  incoming.feed(framed(ping(4)));
  await settle();
  const ids = hints.flatMap((frame) => ("ping" in frame ? [frame.ping.id] : []));
  assert.deepEqual([ids.slice(0, 2), ids.at(-1)], [[1, 2], 4]);
  incoming.break();
  streams[0].feed(framed(ping(5)));
  await settle();
  assert.deepEqual([frames, lost], [[{ ping: { id: 5 } }], []], "and the stream goes on without datagrams");
  link.close();
});

test("what the browser does not take goes nowhere: no more than 64 datagrams wait", async () => {
  /** @type {() => void} */
  let take = () => {};
  const { link, datagrams } = await open({ takes: new Promise((resolve) => (take = resolve)) });
  assert.equal(link.datagramMax, 1_200);
  for (let no = 0; no < 1_000; no++) link.hint(new Uint8Array([no % 256]));
  take();
  await settle();
  assert.equal(datagrams.length, 64);
  link.hint(new Uint8Array([7]));
  await settle();
  assert.deepEqual(datagrams.at(-1), new Uint8Array([7]));
  link.close();
  link.hint(new Uint8Array([8]));
  await settle();
  assert.equal(datagrams.length, 65);
});

test("a question is alone on its stream, which ends with it or breaks by itself", async () => {
  const { link, streams, lost } = await open();
  const query = encodeClientFrame({ query: { id: 1n, kind: "online", body: { after: "", limit: 5 } } });
  const ask = () => {
    /** @type {ServerFrame[]} */
    const got = [];
    return { got, end: /** @type {NonNullable<typeof link.ask>} */ (link.ask)(query, (frames) => void got.push(...frames)) };
  };
  const asked = ask();
  await settle();
  assert.equal(streams.length, 2);
  assert.deepEqual(new FrameSplitter().push(streams[1].out[0]).map(decodeClientFrame), [decodeClientFrame(query)]);
  assert.ok(streams[1].finished && !streams[0].finished);
  const bytes = framed(ping(1), ping(2));
  streams[1].feed(bytes.subarray(0, 3));
  streams[1].feed(bytes.subarray(3));
  streams[1].end();
  await asked.end;
  assert.equal(asked.got.length, 2);
  for (const fault of [() => streams[2].break(), () => streams[3].feed(new Uint8Array([2, 99, 99]))]) {
    const broken = ask();
    await settle();
    fault();
    await assert.rejects(broken.end);
  }
  assert.deepEqual(lost, []);
  link.close();
});

test("where more streams are known to stall there is none for questions", async () => {
  const { link } = await open({ userAgent: SAFARI });
  assert.equal(link.ask, undefined);
  link.close();
});
