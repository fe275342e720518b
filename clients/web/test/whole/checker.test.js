// The checker is shown faults, and must find each.

import assert from "node:assert/strict";
import { test } from "node:test";
import { check, compare } from "./checker.js";

const written = new Map([
  ["alice", [1, 2, 3].map((number) => ({ text: `alice ${number}`, accepted: true }))],
  ["bob", [{ text: "bob 1", accepted: true }, { text: "bob 2", accepted: false }]],
]);

/** @param {string[]} texts */
const holds = (texts) => texts.map((text, at) => ({ seq: at + 1, from: text.split(" ")[0], text }));

test("finds nothing where nothing is wrong", () => {
  assert.deepEqual(check(written, holds(["alice 1", "bob 1", "alice 2", "alice 3"])), []);
  assert.deepEqual(check(written, holds(["alice 1", "bob 1", "bob 2", "alice 2", "alice 3"])), [], "what was not accepted may have got through");
});

test("finds a loss, a double, a reorder, an invention and a gap", () => {
  const faults = /** @type {[string[], RegExp][]} */ ([
    [["alice 1", "bob 1", "alice 3"], /alice 2 is lost/],
    [["alice 1", "alice 2", "alice 2", "alice 3", "bob 1"], /alice 2 is there twice/],
    [["alice 1", "bob 2", "bob 2", "alice 2", "alice 3", "bob 1"], /bob 2 is there twice/],
    [["alice 2", "alice 1", "alice 3", "bob 1"], /alice 1 is out of order/],
    [["alice 1", "alice 2", "alice 3", "bob 1", "bob 9"], /bob never wrote bob 9/],
  ]);
  for (const [texts, fault] of faults) assert.match(check(written, holds(texts)).join("; "), fault);
  const gap = holds(["alice 1", "alice 2", "alice 3", "bob 1"]).map((message) => ({ ...message, seq: message.seq + Number(message.seq > 2) }));
  assert.match(check(written, gap).join("; "), /number 4 \(alice 3\) where 3 belongs/);
});

test("finds where two sides differ", () => {
  assert.deepEqual(compare(holds(["alice 1", "bob 1"]), holds(["alice 1", "bob 1"])), []);
  assert.match(compare(holds(["alice 1", "bob 1"]), holds(["alice 1"])).join(), /one has 2 bob: bob 1, the other nothing/);
  assert.match(compare(holds(["alice 1"]), holds(["bob 1"])).join(), /one has 1 alice: alice 1, the other 1 bob: bob 1/);
});
