// How soon a dead connection has to be noticed, by who looks where.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Attention } from "../../src/attention.js";
import { FakeBrowser } from "../harness/environment.js";

const ACTIVE = 4_000;
const LOOKED_AT = 10_000;
const HIDDEN = 25_000;

/** @param {boolean} isHidden */
function world(isHidden) {
  const clock = { now: 1_000_000 };
  const env = Object.assign(new FakeBrowser().tab(), { isHidden, now: () => clock.now });
  return { clock, env, attention: new Attention(env) };
}

test("silence is borne longest where nobody looks at any tab", () => {
  const { env, attention } = world(true);
  assert.equal(attention.patience, HIDDEN);
  attention.onSeen("two", true);
  assert.equal(attention.patience, LOOKED_AT, "another tab is seen");
  attention.onSeen("three", true);
  attention.onSeen("two", false);
  assert.equal(attention.patience, LOOKED_AT);
  attention.onSeen("three", false);
  assert.equal(attention.patience, HIDDEN);
  env.isHidden = false;
  assert.equal(attention.patience, LOOKED_AT);
});

test("silence is borne for the shortest time while somebody does something, in whichever tab that is seen", () => {
  const { clock, attention } = world(true);
  attention.onSeen("two", true);
  assert.equal(attention.onActive(), true);
  assert.equal(attention.patience, ACTIVE);
  clock.now += 60_000;
  assert.equal(attention.patience, LOOKED_AT);
});
