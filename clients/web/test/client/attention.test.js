// How soon a dead connection has to be noticed, by who looks where.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Attention } from "../../src/attention.js";
import { FakeBrowser } from "../harness/environment.js";

const LOOKED_AT = 4_000;
const LEFT = 10_000;
const HIDDEN = 25_000;

/** @param {boolean} isHidden */
function world(isHidden) {
  const clock = { now: 1_000_000 };
  const env = Object.assign(new FakeBrowser().tab(), { isHidden, now: () => clock.now });
  return { clock, env, attention: new Attention(env) };
}

test("silence is borne longest where nobody looks at any tab", () => {
  const { env, attention } = world(true);
  assert.equal(attention.quiet, HIDDEN);
  attention.onSeen("two", true);
  assert.equal(attention.quiet, LOOKED_AT, "another tab is seen");
  attention.onSeen("three", true);
  attention.onSeen("two", false);
  assert.equal(attention.quiet, LOOKED_AT);
  attention.onSeen("three", false);
  assert.equal(attention.quiet, HIDDEN);
  env.isHidden = false;
  assert.equal(attention.quiet, LOOKED_AT);
});

test("silence is borne for the shortest time until a tab that is seen was left alone for long", () => {
  const { clock, attention } = world(true);
  attention.onSeen("two", true);
  assert.equal(attention.onTurned(), false);
  clock.now += 599_999;
  assert.equal(attention.quiet, LOOKED_AT);
  clock.now += 1;
  assert.equal(attention.quiet, LEFT);
  assert.equal(attention.onTurned(), true);
  assert.equal(attention.quiet, LOOKED_AT);
});
