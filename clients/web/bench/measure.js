// How fast the SDK is in a real Chromium: catching up with 10,000 messages, and the first message on screen after a navigation with
// 10,000 messages stored. Measures and prints; it judges nothing, since machines differ.
//
//   WHIMBREL_BIN=… node bench/measure.js [MESSAGES] [TRANSPORT]

import { launch, openClient, until } from "../test/harness/chromium.js";
import { openTab, until as untilHere } from "../test/harness/client.js";
import { servePages } from "../test/harness/pages.js";
import { Server } from "../test/harness/server.js";

const COUNT = Number(process.argv[2] ?? 10_000);
const TRANSPORT = process.argv[3] ?? "auto";
const NAVIGATIONS = 10;

const server = await Server.start();
const [browser, pages] = await Promise.all([launch(), servePages()]);
try {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(pages.url);
  const options = { user: "bob", url: server.url, transport: TRANSPORT };
  await openClient(page, options);
  // Once an event was taken the device has a place in its mailbox, and comes back to that instead of to a snapshot.
  await page.evaluate('client.send({ user: "bob" }, "a note to myself")');
  await until(page, '(await client.messages({ user: "bob" }))[0].state === "sent"');
  await page.evaluate("client.close()");

  const alice = await openTab({ user: "alice", url: server.url, store: "memory" });
  await alice.connected();
  const begun = performance.now();
  for (let sent = 0; sent < COUNT; ) {
    const batch = Array.from({ length: Math.min(500, COUNT - sent) }, () => alice.client.send({ user: "bob" }, `message ${++sent} of ${COUNT}, of the length of a line`));
    await Promise.all(batch);
    await untilHere(() => alice.client.waiting === 0, "they are sent");
  }
  console.log(`sent          ${COUNT} messages in ${Math.round(performance.now() - begun)} ms (Node, memory store, WebSocket)`);

  const caughtUp = await page.evaluate(async ([options, count]) => {
    const { openClient } = await import(/** @type {any} */ ("/index.js"));
    const begun = performance.now();
    const client = await openClient(options);
    const newest = async () => (await client.messages({ user: "alice" }, { limit: 1 }))[0]?.seq ?? 0;
    const before = await newest();
    while ((await newest()) < count) await new Promise((resolve) => client.addEventListener("change", resolve, { once: true }));
    const took = performance.now() - begun;
    let held = 0;
    for (let before; ; ) {
      /** @type {any[]} */
      const page = await client.messages({ user: "alice" }, { before, limit: 1000 });
      if (page.length === 0) break;
      held += page.length;
      before = page[0].seq;
    }
    return { before, took, held, transport: client.connection.transport };
  }, /** @type {[any, number]} */ ([options, COUNT]));
  const { before, took: ms, held, transport } = caughtUp;
  console.log(`caught up     from ${before} to ${held} messages in ${Math.round(ms)} ms over ${transport}, each batch durable before it is acknowledged`);

  const took = [];
  for (let no = 0; no < NAVIGATIONS; no++) {
    await page.goto(`${pages.url}?${no}`);
    took.push(await page.evaluate(async (options) => {
      const { openClient } = await import(/** @type {any} */ ("/index.js"));
      const client = await openClient(options);
      const shown = await client.messages({ user: "alice" }, { limit: 50 });
      for (const message of shown) document.body.append(Object.assign(document.createElement("p"), { textContent: message.text }));
      await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
      return performance.now();
    }, options));
  }
  took.sort((a, b) => a - b);
  const middle = Math.round(took[Math.floor(took.length / 2)]);
  console.log(`first message on screen ${middle} ms after navigation (median of ${NAVIGATIONS}; ${Math.round(took[0])} to ${Math.round(took[took.length - 1])}), sources unbundled`);
  await alice.client.close();
} finally {
  await browser.close();
  pages.stop();
  await server.stop();
}
