// From what an application asks for to a store: which one, under which name, and what to do where the browser has none to give.

import { randomHex } from "./environment.js";
import { WhimbrelError, describe } from "./errors.js";
import { nameFault } from "./codec/types.js";
import { parseUrl } from "./link/discover.js";
import { IdbDatabase } from "./store/indexeddb.js";
import { MemoryDatabase } from "./store/memory.js";

/** @typedef {import("./index.js").ClientOptions} ClientOptions */

/**
 * @param {ClientOptions} options
 */
export function checked(options) {
  const { user, device, token = "", transport = "auto", store = "indexeddb" } = options;
  for (const [what, name] of /** @type {const} */ ([["user", user], ["device", device]])) {
    if (what === "device" && name === undefined) continue;
    const fault = typeof name === "string" ? nameFault(name) : "it is not text";
    if (fault) throw new WhimbrelError("badArgument", `${JSON.stringify(name)} cannot be the name of a ${what}: ${fault}`);
  }
  const base = options.url ?? globalThis.location?.origin;
  const parsed = parseUrl(base);
  if (!parsed || !/^https?:$/.test(parsed.protocol)) {
    throw new WhimbrelError("badArgument", `${JSON.stringify(base)} is no address of a server: say "https://chat.example.org" or the like`);
  }
  if (!["auto", "webtransport", "websocket"].includes(transport)) {
    throw new WhimbrelError("badArgument", `there is no transport ${JSON.stringify(transport)}: "auto", "webtransport" or "websocket"`);
  }
  if (!["indexeddb", "memory"].includes(store)) {
    throw new WhimbrelError("badArgument", `there is no store ${JSON.stringify(store)}: "indexeddb" or "memory"`);
  }
  return { user, device, token, transport, store, url: parsed };
}

/**
 * The database of this user, and the name that tabs share. A device that is named has a database of its own. Falls back to memory where
 * the browser gives none, or could not keep two tabs from being the same device; the warning says so.
 * @param {import("./environment.js").Environment} env
 * @param {ReturnType<typeof checked>} options
 */
export async function openStore(env, { url, user, device, store }) {
  /** @param {{ code: string, message: string }} [warning] */
  const memory = (warning) => ({ db: new MemoryDatabase(), name: undefined, warning });
  if (store === "memory") return memory();
  if (!env.locks || !env.BroadcastChannel) {
    return memory({ code: "storageUnavailable", message: "this browser, or a page that was not loaded securely, cannot keep messages safely: they are kept until this tab is closed" });
  }
  const name = ["whimbrel", url.origin, user, ...(device ? [device] : [])].map(encodeURIComponent).join("/");
  try {
    return { db: await IdbDatabase.open(name, env.indexedDB), name, warning: undefined };
  } catch (why) {
    const { code, message } = describe(why);
    if (code === "outdated" || code === "storageBlocked") throw why;
    return memory({ code, message: `nothing can be stored here (${message}): messages are kept until this tab is closed` });
  }
}

/** A new device's name. */
export const newDevice = () => `web-${randomHex(4)}`;
