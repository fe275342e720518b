// Clients for tests in Node, and waiting for what they come to without guessing how long that takes.

import "./indexeddb.js";
import { Client } from "../../src/client.js";
import { FakeBrowser } from "./environment.js";

const PATIENCE = 20_000;

/**
 * Waits until `condition` holds, looking again whenever something happened to the client, or a moment has passed.
 * @param {() => boolean | Promise<boolean>} condition
 * @param {string} what
 */
export async function until(condition, what) {
  const deadline = performance.now() + PATIENCE;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** @type {Set<Client>} */
const opened = new Set();

/** Closes what a failed test has left open: nothing would end otherwise. */
export const closeAll = () => Promise.all([...opened].map((client) => client.close()));

/**
 * A client in a tab, with everything that its events said.
 * @param {import("../../src/index.js").ClientOptions} options
 * @param {FakeBrowser} [browser] whose tab it is; its own if none is given
 * @param {(env: ReturnType<FakeBrowser["tab"]>) => void} [change]
 */
export async function openTab(options, browser = new FakeBrowser(), change = () => {}) {
  const env = browser.tab();
  change(env);
  const client = await Client.open(options, env);
  opened.add(client);
  /** @type {[string, any][]} */
  const seen = [];
  for (const type of ["connection", "change", "message", "typing", "presence", "lobby", "reset", "conflict"]) {
    client.addEventListener(type, (event) => seen.push([type, /** @type {CustomEvent} */ (event).detail]));
  }
  const of = (/** @type {string} */ type) => seen.filter(([found]) => found === type).map(([, detail]) => detail);
  const texts = async (/** @type {string} */ user) => (await client.messages({ user }, { limit: 1000 })).map(({ text }) => text);
  const states = async (/** @type {string} */ user) => (await client.messages({ user }, { limit: 1000 })).map(({ state }) => state);
  const connected = () => until(() => client.connection.state === "connected", `${options.user} connects: ${JSON.stringify(client.connection)}`);
  return { client, env, seen, of, texts, states, connected };
}
