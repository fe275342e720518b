// What may happen: scripts of steps, made so that they shrink well (indices are taken modulo what there is).

import fc from "fast-check";

/**
 * Which sorts of things may happen.
 * @typedef {"badDays" | "oddDevices" | "oddServers" | "oddEverything"} Kind
 */

/**
 * - `enqueue`: the application wants something done.
 * - `connect`: the device opens a session, whether or not it has one. Its older links keep what is under way to the server.
 * - `disconnect`: the device gives its link up; what is under way to the server may still arrive.
 * - `up`, `down`: frames arrive, over some link that has any. `upCopy`, `downCopy`: a copy of a frame arrives by another path, perhaps again.
 * - `commit`, `overload`, `wait`; `crash`: the device's process dies after some more of the things it does; `serverCrash`.
 * - `trim`: only the latest entries of a mailbox are kept.
 * - `backup`, `restore`: the device's store is copied, and put back over whatever is there. `clone`: a second process with a copy of it.
 * - `serverBackup`, `serverRestore`: the server's store is put back as it was copied, with or without a higher epoch.
 * @typedef {{ do: "enqueue", device: number, kind: number } | { do: "connect" | "backup" | "restore" | "clone", device: number }
 *   | { do: "disconnect", device: number, arrives: boolean } | { do: "up" | "down", link: number, count: number }
 *   | { do: "upCopy" | "downCopy", pick: number, again: boolean } | { do: "commit", outcome: import("./server.js").Commit }
 *   | { do: "overload", overloaded: boolean } | { do: "wait", ms: number } | { do: "crash", device: number, after: number }
 *   | { do: "serverCrash" | "serverBackup" } | { do: "trim", user: number, keep: number } | { do: "serverRestore", raise: boolean }} Step
 */

const index = fc.nat(5);
const commit = fc.oneof(
  { weight: 8, arbitrary: fc.constant("good") },
  ...["unknownKept", "unknownLost", "crashBefore", "crashAfter"].map((outcome) => ({ weight: 1, arbitrary: fc.constant(outcome) })),
);

/**
 * @param {number} weight
 * @param {string} what
 * @param {Record<string, fc.Arbitrary<unknown>>} [fields]
 */
const step = (weight, what, fields = {}) => ({ weight, arbitrary: fc.record({ do: fc.constant(what), ...fields }, { noNullPrototype: true }) });

/** A bad network, processes that die, a store of unknown outcomes: nothing may be lost, doubled or out of order. */
const badDay = [
  step(12, "enqueue", { device: index, kind: fc.nat(3) }),
  step(5, "connect", { device: index }),
  step(2, "disconnect", { device: index, arrives: fc.boolean() }),
  step(12, "up", { link: index, count: fc.integer({ min: 1, max: 5 }) }),
  step(12, "down", { link: index, count: fc.integer({ min: 1, max: 5 }) }),
  step(4, "upCopy", { pick: fc.nat(63), again: fc.boolean() }),
  step(4, "downCopy", { pick: fc.nat(63), again: fc.boolean() }),
  step(9, "commit", { outcome: commit }),
  step(2, "overload", { overloaded: fc.boolean() }),
  step(3, "wait", { ms: fc.nat(59) }),
  step(3, "crash", { device: index, after: fc.nat(7) }),
  step(1, "serverCrash"),
  step(1, "trim", { user: fc.nat(1), keep: fc.nat(5) }),
];
/** Beside that, stores of devices that are put back or copied … */
const oddDevice = [step(1, "backup", { device: index }), step(1, "restore", { device: index }), step(1, "clone", { device: index })];
/** … and the store of the server. */
const oddServer = [step(1, "serverBackup"), step(1, "serverRestore", { raise: fc.boolean() })];

/**
 * @param {[number, { weight: number, arbitrary: fc.Arbitrary<any> }[]][]} groups
 */
const mixed = (groups) => fc.oneof(...groups.map(([weight, steps]) => ({ weight, arbitrary: fc.oneof(...steps) })));

const STEPS = {
  badDays: mixed([[1, badDay]]),
  oddDevices: mixed([[9, badDay], [1, oddDevice]]),
  oddServers: mixed([[12, badDay], [1, oddServer]]),
  oddEverything: mixed([[12, badDay], [1, oddDevice], [1, oddServer]]),
};

/**
 * Scripts for a world. Every device begins connected, so that short scripts do something.
 * @param {Kind} kind
 * @returns {fc.Arbitrary<Step[]>}
 */
export const scripts = (kind) => fc.array(STEPS[kind], { minLength: 1, maxLength: 120, size: "max" });
