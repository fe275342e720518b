// The two machines of a device against a model of the server, over a bad network, under a clock of their own: crashes between any two
// steps, sessions that overlap, commits of unknown outcome, stores that are restored and cloned. The same scenarios as on the Rust side.
//
// `WHIMBREL_CASES` is the number of scripts for each property, `WHIMBREL_SEED` another beginning.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DEVICE, SERVER, SERVER_WITH_ODD_DEVICES } from "./fault.js";
import { scripts } from "./script.js";
import { World } from "./world.js";

const CASES = Number(process.env.WHIMBREL_CASES ?? 2_000);
const SEED = Number(process.env.WHIMBREL_SEED ?? 1);

/** @param {import("./script.js").Kind} kind */
const holds = (kind) => fc.assert(fc.property(scripts(kind), (script) => World.run(script, kind)), { seed: SEED, numRuns: CASES });

/**
 * The checker must find the fault, and in the same world nothing without it.
 * @param {import("./fault.js").Fault} fault
 * @param {import("./script.js").Kind} kind
 */
function isCaught(fault, kind) {
  const found = fc.check(fc.property(scripts(kind), (script) => World.run(script, kind, fault)), { seed: SEED, numRuns: 20_000, endOnFailure: true });
  assert.ok(found.failed, `${fault} was not noticed`);
}

test("on bad days nothing is lost, doubled or out of order", () => holds("badDays"));
test("devices that are restored or cloned lose nothing", () => holds("oddDevices"));
test("servers that are restored lose nothing in silence", () => holds("oddServers"));
test("nothing is lost in silence, whatever is restored", () => holds("oddEverything"));

for (const fault of SERVER) test(`a server's fault is noticed: ${fault}`, () => isCaught(fault, "badDays"));
for (const fault of SERVER_WITH_ODD_DEVICES) test(`a server's fault is noticed with odd devices: ${fault}`, () => isCaught(fault, "oddDevices"));
test("a restored server's fault is noticed: forgetsTime", () => isCaught("forgetsTime", "oddServers"));
for (const fault of DEVICE) test(`a device's fault is noticed: ${fault}`, () => isCaught(fault, "badDays"));
test("a device's fault is noticed: changesNonces", () => isCaught("changesNonces", "oddDevices"));
test("a device's fault is noticed: keepsSilent", () => isCaught("keepsSilent", "oddServers"));

// Too rare for chance: a device that has only a snapshot, of a log that is rolled back and grows again to the same length.
test("a snapshot of a log that was rolled back is noticed", () => {
  /** @type {import("./script.js").Step[]} */
  const [up, down] = [{ do: "up", link: 0, count: 9 }, { do: "down", link: 0, count: 9 }];
  /** @type {import("./script.js").Step[]} */
  const say = [{ do: "enqueue", device: 2, kind: 0 }, up, { do: "commit", outcome: "good" }, down];
  /** @type {import("./script.js").Step[]} */
  const script = [
    up, down, { do: "serverBackup" }, ...say,
    // One device takes a snapshot …
    { do: "up", link: 1, count: 9 }, down,
    { do: "serverRestore", raise: false },
    // … and another is told, and numbers anew.
    { do: "connect", device: 2 }, up, down, up, down,
    ...say,
  ];
  World.run(script, "oddServers");
  assert.throws(() => World.run(script, "oddServers", "beginsWithoutTime"), /the snapshot at 1 is of another log/);
});
