// Nothing is lost, doubled or out of order on either page: while the server is killed at random moments, and while a tab is.
// WHIMBREL_KILLS says how often; 20 times without it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "../harness/chromium.js";
import { Server } from "../harness/server.js";
import { check, compare } from "./checker.js";
import { Person, until } from "./people.js";

const KILLS = Number(process.env.WHIMBREL_KILLS ?? 20);
/** A kill comes at a random moment within so many milliseconds; that of a tab, which has to load first, within more. */
const MOMENT = 400;
const TAB_MOMENT = 1_500;

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Server} */
let server;

before(async () => {
  [browser, server] = await Promise.all([launch(), Server.start()]);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** @param {string} name @param {string} other */
const person = async (name, other) => new Person(await browser.newContext(), server.url, name, other).open();

const pause = (/** @type {number} */ most) => new Promise((resolve) => setTimeout(resolve, Math.random() * most));

/**
 * Types until told to stop, or until the tab is gone.
 * @param {Person} who
 * @param {{ stop: boolean }} signal
 */
async function type(who, signal) {
  while (!signal.stop) {
    await who.say(`${who.name} ${who.written.length}.`);
    await pause(60);
  }
}

/** @param {Person[]} people */
async function settled(people) {
  for (const who of people) {
    const accepted = who.written.filter((entry) => entry.accepted).at(-1);
    if (accepted) await until(`${who.name}'s last message gets through`, () => who.holds(), (held) => held.some((message) => message.text === accepted.text && message.seq !== null));
  }
  const written = new Map(people.map((who) => [who.name, who.written]));
  const [one, other] = people;
  // The last may still be on their way to the other side.
  await until("both sides hold the same", async () => compare(await one.holds(), await other.holds()), (differences) => differences.length === 0);
  for (const who of people) {
    assert.deepEqual(check(written, await who.holds()), [], `on ${who.name}'s page`);
    assert.deepEqual(who.complaints, []);
  }
}

test(`the server is killed ${KILLS} times while two people type`, async (t) => {
  const people = await Promise.all([person("alice", "bob"), person("bob", "alice")]);
  const signal = { stop: false };
  const typing = people.map((who) => type(who, signal));
  for (let kill = 0; kill < KILLS; kill += 1) {
    // Under load: both wrote something since the last time.
    const before = people.map((who) => who.written.length);
    await until("both go on typing", async () => people.map((who) => who.written.length), (now) => now.every((count, at) => count > before[at]));
    await pause(MOMENT);
    await server.kill();
    await pause(MOMENT);
    await server.restart();
  }
  signal.stop = true;
  await Promise.all(typing);
  await settled(people);
  t.diagnostic(`${people.map((who) => who.written.length).join(" and ")} messages`);
});

test(`a tab is killed ${KILLS} times while two people type`, async (t) => {
  const [carol, dave] = await Promise.all([person("carol", "dave"), person("dave", "carol")]);
  const signal = { stop: false };
  const typing = type(dave, signal);
  for (let kill = 0; kill < KILLS; kill += 1) {
    const mine = { stop: false };
    let gone = false;
    // What is being typed when the tab goes may get through or not, but never twice.
    const work = type(carol, mine).catch((error) => {
      if (!gone) throw error;
    });
    await pause(TAB_MOMENT);
    gone = true;
    await carol.crash();
    mine.stop = true;
    await work;
    await carol.open();
  }
  signal.stop = true;
  await typing;
  await settled([carol, dave]);
  t.diagnostic(`${carol.written.length} and ${dave.written.length} messages`);
});
