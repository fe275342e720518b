// Properties of the codec, alone and against the Rust side.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import fc from "fast-check";
import { decodeClientFrame, decodeServerFrame, encodeClientFrame, encodeServerFrame, FrameSplitter, MAX_FRAME } from "../../src/codec/index.js";
import { clientFrame, serverFrame } from "../../src/codec/schema.js";
import { name } from "../../src/codec/types.js";
import { CodecError } from "../../src/errors.js";
import { arbitrary } from "./arbitrary.js";
import { fromJson, hex, toJson, unhex } from "./json.js";

const SEED = Number(process.env.WHIMBREL_SEED ?? 1);
const CASES = Number(process.env.WHIMBREL_CASES ?? 2_000);
const FRAMES = process.env.WHIMBREL_FRAMES ?? fileURLToPath(new URL("../../../../target/debug/examples/frames", import.meta.url));

const decode = (/** @type {string} */ from, /** @type {Uint8Array} */ bytes) => (from === "client" ? decodeClientFrame(bytes) : decodeServerFrame(bytes));
const encode = (/** @type {string} */ from, /** @type {any} */ frame) => (from === "client" ? encodeClientFrame(frame) : encodeServerFrame(frame));
const anyFrame = fc.oneof(
  arbitrary(clientFrame, name).map((frame) => /** @type {const} */ (["client", frame])),
  arbitrary(serverFrame, name).map((frame) => /** @type {const} */ (["server", frame])),
);

/**
 * @param {string[]} args
 * @param {string} [input]
 */
function rust(args, input) {
  const { status, stdout, stderr, error } = spawnSync(FRAMES, args, { input, encoding: "utf8", maxBuffer: 1 << 28 });
  if (error) throw new Error(`${FRAMES} does not run (${error.message}): cargo build -p whimbrel-protocol --example frames`);
  assert.equal(status, 0, stderr);
  return stdout;
}

test("every frame comes back as it was", () => {
  fc.assert(fc.property(anyFrame, ([from, frame]) => assert.deepEqual(decode(from, encode(from, frame)), frame)), { seed: SEED, numRuns: CASES });
});

test("random frames of the Rust side are read and written as it does", () => {
  const lines = rust(["write", String(CASES), String(SEED)]).trimEnd().split("\n");
  assert.equal(lines.length, CASES);
  for (const line of lines) {
    const [, from, bytes, json] = /** @type {RegExpExecArray} */ (/^(\w+) (\S*) (.*)$/s.exec(line));
    const parsed = JSON.parse(json);
    assert.deepEqual(toJson(decode(from, unhex(bytes))), parsed, line);
    assert.equal(hex(encode(from, fromJson(/** @type {any} */ (from), parsed))), bytes, line);
  }
});

test("the Rust side reads random frames of ours as we do, and would write the same bytes", () => {
  const lines = fc.sample(anyFrame, { seed: SEED, numRuns: CASES }).map(([from, frame]) => `${from} ${hex(encode(from, frame))} ${JSON.stringify(toJson(frame))}\n`);
  assert.match(rust(["check"], lines.join("")), new RegExp(`^${CASES} frames`));
});

test("the Rust side would tell us of a difference", () => {
  const check = (/** @type {string} */ line) => spawnSync(FRAMES, ["check"], { input: line, encoding: "utf8" }).status;
  assert.equal(check('client 0205 {"ack":{"seq":"5"}}\n'), 0);
  assert.equal(check('client 0206 {"ack":{"seq":"5"}}\n'), 1);
  assert.equal(check('client 028500 {"ack":{"seq":"5"}}\n'), 1);
});

test("no bytes make the codec throw anything but its one error", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    // Frames with a byte changed, cut off or doubled get further.
    fc.tuple(anyFrame, fc.nat(), fc.nat(255), fc.nat()).map(([[from, frame], at, byte, cut]) => {
      const encoded = encode(from, frame).slice();
      encoded[at % encoded.length] = byte;
      return encoded.subarray(0, cut % 4 === 0 ? cut % encoded.length : undefined);
    }),
  );
  let refused = 0;
  let read = 0;
  const attempt = (/** @type {() => unknown} */ work) => {
    try {
      work();
      read += 1;
    } catch (why) {
      assert.ok(why instanceof CodecError, String(why));
      refused += 1;
    }
  };
  fc.assert(
    fc.property(bytes, (bytes) => {
      attempt(() => decodeClientFrame(bytes));
      attempt(() => decodeServerFrame(bytes));
      attempt(() => new FrameSplitter().push(bytes));
    }),
    { seed: SEED, numRuns: Math.max(CASES, 10_000) },
  );
  assert.ok(refused > 1_000 && read > 1_000, "both outcomes are met");
});

test("what is too large is refused before anything is made of it", () => {
  assert.throws(() => decodeServerFrame(new Uint8Array(MAX_FRAME + 1)), CodecError);
  assert.throws(() => encodeClientFrame({ command: { incarnation: 1n, cseq: 1n, nonce: "0".repeat(16), kind: "send", body: { to: { user: "a" }, content: { kind: "text", text: "x".repeat(MAX_FRAME), extensions: [] } } } }), CodecError);
  // A list that announces more than the frame holds.
  assert.throws(() => decodeClientFrame(unhex("0401ffffffff0f0161")), CodecError);
});

test("values that are none are refused", () => {
  for (const frame of [{}, { ack: {} }, { ack: { seq: 5 } }, { ack: { seq: -1n } }, { ack: { seq: 1n << 64n } }, { later: {} }, { ack: { seq: 1n }, ping: { id: 1 } }, "ack", null, { ping: { id: 2 ** 32 } }, { ping: { id: 0.5 } }, { signal: { watch: { users: [" a"], everyone: true } } }]) {
    assert.throws(() => encodeClientFrame(/** @type {any} */ (frame)), CodecError, String(JSON.stringify(frame, (_, value) => (typeof value === "bigint" ? String(value) : value))));
  }
});
