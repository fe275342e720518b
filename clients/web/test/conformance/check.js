// What must be true once everything has come to rest.

import { through } from "../../src/downlink.js";
import { userOf, view } from "./store.js";

/** @typedef {import("./world.js").World} World */
/** @typedef {import("./device.js").Device} Device */

const show = (/** @type {unknown} */ value) => JSON.stringify(value, (_, field) => (typeof field === "bigint" ? String(field) : field));
const same = (/** @type {unknown} */ a, /** @type {unknown} */ b) => show(a) === show(b);

/**
 * Checks every promise; says the first that was broken.
 * @param {World} world
 * @param {import("./script.js").Kind} kind
 */
export function checkAll(world, kind) {
  for (const [id, count] of world.server.store.effects) if (count !== 1) throw new Error(`command ${id} took effect ${count} times`);
  world.devices.forEach((device, no) => {
    try {
      told(world, device, kind);
      commands(world, device);
      views(world, device);
    } catch (why) {
      throw new Error(`process ${no}: ${/** @type {Error} */ (why).message}`);
    }
  });
}

/**
 * Nobody is told of what cannot have happened.
 * @param {World} world
 * @param {Device} device
 * @param {import("./script.js").Kind} kind
 */
function told(world, device, kind) {
  for (const [, told] of device.store.told) {
    let possible;
    if ("reset" in told) possible = told.reset === "trimmed" || kind === "oddServers" || kind === "oddEverything";
    else possible = kind !== "badDays" || (told.disagreement.reason === "anotherOutbox" && world.overtaken.has(device.no));
    if (!possible) throw new Error(`was told of ${show(told)}`);
  }
}

/**
 * Every command took effect; or the server lost it when it was rolled back, and the application was told something then or later.
 * @param {World} world
 * @param {Device} device
 */
function commands(world, { store }) {
  for (const id of store.enqueued) {
    const knownIn = store.known.get(id);
    if (knownIn === undefined) throw new Error(`command ${id} has vanished`);
    if (world.server.store.effects.has(id)) continue;
    const lostIn = world.lives.findIndex((life, no) => no > knownIn && !life.effectsAtStart.has(id));
    if (lostIn < 0) throw new Error(`command ${id} is applied and has no effect`);
    const named = store.told.some(([life, told]) => life >= lostIn && !("reset" in told && told.reset === "trimmed"));
    if (!named) throw new Error(`command ${id} was lost in silence: ${show(store.told)}`);
  }
}

/**
 * The device saw every entry once and in order, from where it began or was reset to.
 * @param {World} world
 * @param {Device} device
 */
function views(world, device) {
  const user = userOf(device.no);
  const { segments, told } = device.store;
  segments.forEach((segment, no) => {
    const present = segment.life + 1 === world.lives.length;
    const mailbox = present ? world.server.store.mailboxes[user] : world.lives[segment.life].mailboxes[user];
    const at = look(segment, mailbox, device.no);
    if (no === segments.length - 1 && (at !== mailbox.head || !present)) {
      throw new Error(`saw entries up to ${at} of ${mailbox.head}, in life ${segment.life} of ${world.lives.length}`);
    }
  });
  const resets = told.filter(([, told]) => "reset" in told).length;
  if (segments.length > resets + 1) throw new Error(`began ${segments.length} times and was told of ${resets} resets`);
}

/**
 * @param {import("./device.js").Segment} segment
 * @param {import("./store.js").Mailbox} mailbox
 * @param {number} device
 */
function look(segment, mailbox, device) {
  let at = Number(segment.begin);
  if (segment.snapshot && !same(segment.snapshot, mailbox.messages(at))) throw new Error(`the snapshot at ${at} is of another log`);
  for (const [event, incarnation] of segment.events) {
    if (event.seq !== BigInt(at + 1)) throw new Error(`took event ${event.seq} after ${at}`);
    at = Number(through(event));
    const last = mailbox.entries[at - 1];
    if (last?.time !== event.time) throw new Error(`took ${show(event)}, which is not what the mailbox holds`);
    const { kind, body } = event;
    const seen = view(last, device, incarnation);
    const fits = seen ? same(seen, { kind, body }) : kind === "skip";
    const covered = mailbox.entries.slice(Number(event.seq) - 1, at);
    const nothing = covered.every((entry) => !view(entry, device, incarnation));
    if (!fits || (kind === "skip" && !nothing)) throw new Error(`took ${show(event)} where the mailbox holds ${show(last)}`);
  }
  return at;
}
