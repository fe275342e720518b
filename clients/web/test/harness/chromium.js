// A real Chromium, and what tests do in its pages.

import { chromium } from "playwright-core";

/** Where Chromium is, unless CHROMIUM says. */
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** What of a page these need. @typedef {{ evaluate: (code: any, argument?: any) => Promise<any> }} Page */

/** @param {string[]} [more] flags @param {string[]} [without] of the driver's own */
export const launch = (more = [], without = []) =>
  chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", ...more],
    ignoreDefaultArgs: ["--disable-quic", ...without],
  });

/**
 * Opens a client in a page, as `window.client`; what happened to it is in `window.seen`.
 * @param {Page} page
 * @param {Record<string, unknown>} options
 */
export async function openClient(page, options) {
  await page.evaluate(async (/** @type {any} */ options) => {
    const global = /** @type {any} */ (window);
    const { openClient } = await import(/** @type {any} */ ("/index.js"));
    global.seen = [];
    global.client = await openClient(options);
    for (const type of ["connection", "message", "reset", "conflict", "typing", "presence"]) {
      global.client.addEventListener(type, (/** @type {any} */ event) => global.seen.push([type, event.detail]));
    }
  }, options);
}

const PATIENCE = 20_000;

/**
 * Waits until an expression about `client` and `seen` is true in the page.
 * @param {Page} page
 * @param {string} expression
 */
export async function until(page, expression) {
  const deadline = performance.now() + PATIENCE;
  // Not the driver's own way of waiting: to it a promise is as good as true.
  while (!(await page.evaluate(`(async () => { const { client, seen } = window; return Boolean(${expression}); })()`))) {
    if (performance.now() > deadline) throw new Error(`in vain: ${expression}; ${JSON.stringify(await page.evaluate("[client.connection, seen]"))}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
