// The golden vectors that every client's tests read, in both directions.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { decodeClientFrame, decodeServerFrame, encodeClientFrame, encodeServerFrame, FrameSplitter, withLength } from "../../src/codec/index.js";
import { CodecError } from "../../src/errors.js";
import { fromJson, hex, toJson, unhex } from "./json.js";

const read = (/** @type {string} */ name) =>
  JSON.parse(readFileSync(new URL(`../../../../protocol/vectors/${name}.json`, import.meta.url), "utf8"));
const decode = (/** @type {string} */ from) => (from === "client" ? decodeClientFrame : decodeServerFrame);

for (const file of ["hello", "control", "error", "command", "event", "query", "snapshot", "signal"]) {
  test(`${file}.json is read and written as it stands`, () => {
    const vectors = read(file);
    assert.ok(vectors.length > 0);
    for (const { name, from, hex: bytes, json } of vectors) {
      assert.deepEqual(toJson(decode(from)(unhex(bytes))), json, name);
      const frame = fromJson(from, json);
      const encoded = from === "client" ? encodeClientFrame(/** @type {any} */ (frame)) : encodeServerFrame(/** @type {any} */ (frame));
      assert.equal(hex(encoded), bytes, name);
    }
  });
}

test("what only readers meet is read or refused as it should be", () => {
  const vectors = read("reading").filter((/** @type {any} */ vector) => vector.hex !== undefined);
  assert.ok(vectors.length > 20);
  for (const { name, from, hex: bytes, reads } of vectors) {
    if (reads === null) assert.throws(() => decode(from)(unhex(bytes)), CodecError, name);
    else assert.deepEqual(toJson(decode(from)(unhex(bytes))), reads, name);
  }
});

test("streams are cut into the same frames wherever they are cut into pieces", () => {
  for (const { name, hex: bytes, frames, left } of read("stream")) {
    const stream = unhex(bytes);
    for (let cut = 0; cut <= stream.length; cut++) {
      const splitter = new FrameSplitter();
      const cutUp = () => [...splitter.push(stream.subarray(0, cut)), ...splitter.push(stream.subarray(cut))].map(hex);
      if (frames === null) assert.throws(cutUp, CodecError, name);
      else assert.deepEqual([cutUp(), splitter.rest.length], [frames, left], `${name}, cut at ${cut}`);
    }
  }
  assert.equal(hex(withLength(new Uint8Array(300))).slice(0, 4), "ac02");
});
