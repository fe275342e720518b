// What WebTransport costs a page where it does not get through, in a real Chromium: from `openClient` to the first session, in a browser
// that knows nothing of the network, over a path that drops UDP, against WebSocket alone. And how soon a page moves up, and falls back.
// Measures and prints; it judges nothing, since machines differ.
//
//   WHIMBREL_BIN=… node bench/fallback.js [ROUNDS]

import { createSocket } from "node:dgram";
import { createServer } from "node:http";
import { launch, openClient, until } from "../test/harness/chromium.js";
import { servePages } from "../test/harness/pages.js";
import { relay } from "../test/harness/relay.js";
import { Server } from "../test/harness/server.js";

const ROUNDS = Number(process.argv[2] ?? 20);
const MOVES = Math.ceil(ROUNDS / 4);

const server = await Server.start();
const [browser, pages] = await Promise.all([launch(), servePages()]);
const known = await (await fetch(`${server.url}/.well-known/whimbrel`)).json();
/** Takes what is sent there, and says nothing. */
const hole = createSocket("udp4");
await new Promise((resolve) => hole.bind(0, "127.0.0.1", () => resolve(undefined)));
const path = await relay(server.secure);
/** What the server says of itself, but for the port of its WebTransport. @param {number} port */
const teller = async (port) => {
  const url = new URL(known.webtransport.url);
  url.host = `127.0.0.1:${port}`;
  const told = JSON.stringify({ ...known, webtransport: { ...known.webtransport, url: url.href } });
  const http = createServer((_, response) => response.setHeader("access-control-allow-origin", "*").end(told));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", () => resolve(undefined)));
  return { http, url: `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (http.address()).port}` };
};
const [dropping, working] = [await teller(hole.address().port), await teller(path.port)];

let users = 0;

/** @param {import("playwright-core").BrowserContext} context */
async function blank(context) {
  const page = await context.newPage();
  await page.goto(pages.url);
  // The modules are there: only the connection is measured.
  await page.evaluate('import("/index.js").then(() => {})');
  return page;
}

/**
 * How long a page takes to its first session, and over what.
 * @param {import("playwright-core").BrowserContext} context
 * @param {Record<string, unknown>} options
 * @returns {Promise<{ took: number, transport: string }>}
 */
async function first(context, options) {
  const page = await blank(context);
  const result = await page.evaluate(async (options) => {
    const { openClient } = await import(/** @type {any} */ ("/index.js"));
    const begun = performance.now();
    const client = await openClient(options);
    while (client.connection.state !== "connected") await new Promise((resolve) => client.addEventListener("connection", resolve, { once: true }));
    const took = performance.now() - begun;
    const { transport } = client.connection;
    await client.close();
    return { took, transport };
  }, options);
  await page.close();
  return result;
}

/** @param {string} name @param {{ took: number, transport: string }[]} all */
function report(name, all) {
  const took = all.map(({ took }) => took).sort((a, b) => a - b);
  const middle = (took[Math.floor((took.length - 1) / 2)] + took[Math.ceil((took.length - 1) / 2)]) / 2;
  const over = [...new Set(all.map(({ transport }) => transport))].join(", ");
  console.log(`${name.padEnd(44)} ${middle.toFixed(0).padStart(6)} ms  (${took[0].toFixed(0)} to ${took[took.length - 1].toFixed(0)}; ${all.length} times, over ${over})`);
  return middle;
}

/** @type {Record<"plain" | "dropped" | "again" | "free", { took: number, transport: string }[]>} */
const found = { plain: [], dropped: [], again: [], free: [] };
try {
  // In turns, so that what else the machine does hits all alike, and each is the first as often. The first round warms up. What is
  // remembered can only be found in a browser that was here before, and that is warm otherwise too.
  for (let round = 0; round <= ROUNDS; round++) {
    const results = {};
    const kinds = /** @type {const} */ (["plain", "dropped", "free"]);
    for (const kind of kinds.map((_, at) => kinds[(at + round) % kinds.length])) {
      const context = await browser.newContext();
      const options = { user: `u${++users}`, url: kind === "free" ? working.url : dropping.url, transport: kind === "plain" ? "websocket" : "auto" };
      Object.assign(results, { [kind]: await first(context, options) });
      if (kind === "dropped") Object.assign(results, { again: await first(context, options) });
      await context.close();
    }
    if (round > 0) for (const [kind, result] of Object.entries(results)) found[/** @type {keyof typeof found} */ (kind)].push(/** @type {any} */ (result));
  }
  console.log("openClient to the first session, median (least to most)");
  const plain = report("WebSocket alone", found.plain);
  const dropped = report("auto, UDP dropped, nothing remembered", found.dropped);
  const again = report("auto, UDP dropped, remembered", found.again);
  report("auto, UDP gets through", found.free);
  console.log(`UDP dropped costs ${(dropped - plain).toFixed(0)} ms over a WebSocket, and ${(again - plain).toFixed(0)} ms the next time`);

  /** @type {typeof found.plain[]} */
  const [up, fall] = [[], []];
  for (let round = 0; round < MOVES; round++) {
    path.path.dark = true;
    const context = await browser.newContext();
    const page = await blank(context);
    await openClient(page, { user: `u${++users}`, url: working.url });
    await until(page, 'client.connection.state === "connected"');
    const now = async (/** @type {string} */ transport, /** @type {boolean} */ writes) => {
      const begun = performance.now();
      if (writes) await page.evaluate('client.send({ user: "bob" }, "into the void")');
      await until(page, `client.connection.transport === "${transport}"`);
      return { took: performance.now() - begun, transport };
    };
    path.path.dark = false;
    up.push(await now("webtransport", false));
    path.path.dark = true;
    fall.push(await now("websocket", true));
    await context.close();
  }
  report("UDP gets through: until the page has moved", up);
  report("UDP is dropped, somebody writes: until it fell back", fall);
} finally {
  await browser.close();
  pages.stop();
  path.stop();
  hole.close();
  for (const { http } of [dropping, working]) http.close();
  await server.stop();
}
