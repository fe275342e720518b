// How fast the page is with 10,000 stored messages: `node test/page/speed.js`. Wants the server's binary (WHIMBREL_BIN, else target/debug).
//
// Measured: from navigation to the first message painted, with the page's files from the server and from the service worker; and how long
// frames take while 10,000 messages are scrolled through.

import { Server } from "../harness/server.js";
import { launch } from "../harness/chromium.js";

const MESSAGES = 10_000;
const VISITS = 15;

const server = await Server.start();
const browser = await launch();

/** Notes when the first message was painted. */
function watchFirst() {
  const look = () => {
    if (!document.querySelector("[data-message]")) return void requestAnimationFrame(look);
    // The next frame begins after this one was painted.
    requestAnimationFrame(() => Object.assign(globalThis, { firstMessage: performance.now() }));
  };
  requestAnimationFrame(look);
}

/** @param {import("playwright-core").BrowserContext} context */
async function fill(context) {
  const page = await context.newPage();
  await page.goto(`${server.url}/?as=alice`);
  await page.locator("[data-transport=webtransport]").waitFor();
  await page.evaluate(async (count) => {
    const { openClient } = await import("/web/src/index.js");
    const bob = await openClient({ user: "bob", store: "memory", device: "bulk" });
    for (let at = 1; at <= count; at++) await bob.send({ user: "alice" }, `message number ${at} ${"and some more words ".repeat(at % 5)}`);
    while (bob.waiting > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    await bob.close();
  }, MESSAGES);
  await page.goto(`${server.url}/?as=alice&to=bob`);
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.locator("[data-message]").first().waitFor();
  // All of them are to be in the device's own store.
  await page.evaluate(async () => {
    const log = document.querySelector(".log");
    const first = () => document.querySelector('[data-message$="/1"]');
    while (!first()) {
      log.scrollTop = 0;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
  await page.close();
}

/** @param {import("playwright-core").BrowserContext} context @param {string} what */
async function visits(context, what) {
  const times = [];
  for (let visit = 0; visit < VISITS; visit++) {
    const page = await context.newPage();
    await page.addInitScript(watchFirst);
    await page.goto(`${server.url}/?as=alice&to=bob`);
    times.push(await page.waitForFunction(() => globalThis.firstMessage).then((handle) => handle.jsonValue()));
    // One visit at a time: what this page still does, and its end, is not to be in the next one's time.
    await page.locator("[data-transport=webtransport]").waitFor({ state: "attached" });
    await page.close();
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  times.sort((a, b) => a - b);
  console.log(`first message, ${what}: median ${times[VISITS >> 1]?.toFixed(0)} ms, worst ${times.at(-1)?.toFixed(0)} ms of ${VISITS}`);
}

/** @param {import("playwright-core").BrowserContext} context */
async function scroll(context) {
  const page = await context.newPage();
  await page.goto(`${server.url}/?as=alice&to=bob`);
  await page.locator("[data-message]").first().waitFor();
  await page.getByRole("log").hover();
  await page.evaluate(() => {
    const gaps = [];
    let last = performance.now();
    let most = 0;
    const frame = () => {
      const now = performance.now();
      gaps.push(now - last);
      last = now;
      most = Math.max(most, document.querySelectorAll("[data-message]").length);
      Object.assign(globalThis, { gaps, most });
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  for (let turn = 0; turn < 200; turn++) {
    await page.mouse.wheel(0, -700);
    await page.waitForTimeout(16);
  }
  const { gaps, most, left } = await page.evaluate(() => ({ gaps: globalThis.gaps, most: globalThis.most, left: Number(document.querySelector("[data-message]").dataset.message.split("/")[1]) }));
  gaps.sort((a, b) => a - b);
  const at = (/** @type {number} */ part) => gaps[Math.floor(gaps.length * part)]?.toFixed(1);
  console.log(`scrolling up to message ${left}: frames of ${at(0.5)} ms (median), ${at(0.95)} (95 %), ${at(0.99)} (99 %), ${gaps.at(-1)?.toFixed(1)} (worst) of ${gaps.length}; at most ${most} messages in the document`);
  await page.close();
}

const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
await fill(context);
await visits(context, "files from the service worker");
await scroll(context);
const kept = await context.storageState({ indexedDB: true });
const plain = await browser.newContext({ viewport: { width: 1280, height: 800 }, serviceWorkers: "block", storageState: kept });
await visits(plain, "files from the server");
await browser.close();
await server.stop();
