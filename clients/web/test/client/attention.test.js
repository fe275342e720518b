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

test("a page that is suspended is not looked at, whatever can be seen of it; one tab that is not keeps the device out of the background", () => {
  const { env, attention } = world(false);
  assert.equal(attention.state.background, false);
  attention.suspended = true;
  assert.deepEqual([attention.quiet, attention.looked, attention.state], [HIDDEN, false, { background: true, askAfterS: 0 }]);
  attention.onSeen("two", false, false);
  assert.deepEqual([attention.quiet, attention.state.background], [HIDDEN, false], "it is only hidden");
  attention.onSeen("two", false, true);
  assert.equal(attention.state.background, true);
  attention.onSeen("three", true);
  assert.deepEqual([attention.quiet, attention.state.background], [LOOKED_AT, false]);
  attention.onGone("three");
  assert.deepEqual([attention.quiet, attention.state.background], [HIDDEN, true]);
  attention.suspended = false;
  env.isHidden = true;
  assert.equal(attention.state.background, false);
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
