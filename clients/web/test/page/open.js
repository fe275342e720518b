// Opens the page over the fake SDK for a test.

import { launch } from "../harness/chromium.js";
import { serveFake } from "./site.js";

/** @typedef {import("playwright-core").Page} Page */

export async function stage() {
  const [site, browser] = await Promise.all([serveFake(), launch()]);
  /** @type {string[]} what the console complained of, and must not have */
  const complaints = [];
  return {
    site,
    browser,
    complaints,
    /** @param {object} scenario @param {string} path @param {import("playwright-core").BrowserContextOptions} [options] @returns {Promise<Page>} */
    async open(scenario, path, options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", serviceWorkers: "block", ...options });
      await context.addInitScript((value) => {
        Object.assign(globalThis, { scenario: value });
      }, scenario);
      const page = await context.newPage();
      page.setDefaultTimeout(20_000);
      page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("dialog", (dialog) => {
        complaints.push(`a dialog opened: ${dialog.message()}`);
        void dialog.dismiss();
      });
      await page.goto(`${site.url}${path}`);
      return page;
    },
    async close() {
      await browser.close();
      await site.close();
    },
  };
}

/** Calls the fake of the SDK in the page. @param {Page} page @param {string} method @param {...unknown} given */
export function fake(page, method, ...given) {
  return page.evaluate(([name, values]) => globalThis.fake[name](...values), /** @type {[string, unknown[]]} */ ([method, given]));
}

/** What the page asked of the SDK under a name. @param {Page} page @param {string} name @returns {Promise<unknown[][]>} */
export function asked(page, name) {
  return page.evaluate((wanted) => globalThis.fake.log.filter((entry) => entry[0] === wanted), name);
}

/** Waits until a condition holds; says what was last seen if it never does.
 * @template T @param {() => Promise<T>} look @param {(seen: T) => boolean} wanted @param {string} what @param {number} [limit] in milliseconds
 * @returns {Promise<T>} */
export async function until(look, wanted, what, limit = 20_000) {
  const end = Date.now() + limit;
  for (;;) {
    const seen = await look();
    if (wanted(seen)) return seen;
    if (Date.now() > end) throw new Error(`${what}: last seen was ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
