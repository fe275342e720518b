// When a server is asked whether it is there, and when it is believed that it is not.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Patience, Pulse } from "../../src/pulse.js";

const QUIET = 4_000;

/** What happens to a session of which nothing is heard from this time on: when it is asked, tried beside, given up. */
function silence(/** @type {Pulse} */ pulse, /** @type {boolean} */ hint = false) {
  const ask = pulse.askAt(QUIET);
  pulse.onProbe(ask, hint);
  const beside = pulse.suspectAt;
  pulse.onSuspected(beside);
  return { ask, beside: beside - ask, again: pulse.suspectAt - beside, giveUp: pulse.giveUpAt - ask };
}

test("a quiet server is asked, suspected and given up; sooner where it owes something or the network is said to have changed", () => {
  const quiet = new Pulse(0, new Patience());
  assert.deepEqual(silence(quiet), { ask: 4_000, beside: 2_000, again: 2_000, giveUp: 12_000 });
  const owing = new Pulse(0, new Patience());
  owing.heard = 5_000;
  owing.onOwing(5_000);
  owing.onOwing(5_900);
  assert.deepEqual(silence(owing, true), { ask: 6_000, beside: 1_000, again: 2_000, giveUp: 12_000 });
  // A hint while it is asked already makes it sooner, never later.
  const hinted = new Pulse(0, new Patience());
  hinted.onProbe(4_000, false);
  hinted.onProbe(4_500, true);
  assert.equal(hinted.suspectAt, 5_000);
  hinted.onProbe(4_600, false);
  assert.equal(hinted.suspectAt, 5_000);
});

test("what comes down does not hide that nothing gets up", () => {
  const pulse = new Pulse(0, new Patience());
  pulse.onOwing(100);
  for (let now = 200; now <= 1_100; now += 100) pulse.heard = now;
  assert.equal(pulse.askAt(QUIET), 1_100);
  pulse.onProbe(1_100, false);
  for (let now = 1_200; now <= 3_000; now += 100) pulse.heard = now;
  assert.deepEqual([pulse.probed, pulse.suspectAt, pulse.giveUpAt], [1_100, 3_100, 13_100]);
  // Something of what is owed does; the rest is waited for anew.
  pulse.onAnswer(3_000, true);
  assert.deepEqual([pulse.probed, pulse.suspectAt, pulse.askAt(QUIET)], [undefined, Infinity, 4_000]);
  pulse.onAnswer(3_500, false);
  assert.equal(pulse.askAt(QUIET), 3_000 + QUIET);
});

test("a network that needs longer gets more time, until something is answered promptly: a pong, or anything else", () => {
  const patience = new Patience();
  const session = () => new Pulse(0, patience);
  for (const beside of [2_000, 4_000, 8_000, 16_000, 16_000]) {
    const pulse = session();
    assert.deepEqual(silence(pulse), { ask: 4_000, beside, again: beside, giveUp: 6 * beside });
    pulse.onGivenUp();
  }
  // Late is no reason to be impatient again.
  const late = session();
  late.onOwing(0);
  late.onProbe(1_000, false);
  late.onAnswer(9_000, false);
  assert.equal(patience.factor, 8);
  late.onOwing(20_000);
  late.onAnswer(20_900, false);
  assert.equal(patience.factor, 1);
  // One that ended in peace says nothing.
  session().onGivenUp();
  assert.equal(patience.factor, 1);
  // A server that is slow to carry out but quick to say that it is there.
  const busy = session();
  silence(busy);
  busy.onGivenUp();
  const next = session();
  next.onOwing(0);
  next.onProbe(1_000, false);
  next.onAnswer(1_100, true);
  assert.equal(patience.factor, 1);
});
