// People at the chat page: what a person sees and does, through the handles that stay (README, "The chat page").

import assert from "node:assert/strict";

/** @typedef {import("playwright-core").Page} Page */

/** Long enough for a loaded machine; whoever waits that long has failed. */
export const PATIENCE = 30_000;

export class Person {
  /**
   * @param {import("playwright-core").BrowserContext} context
   * @param {string} url of the server
   * @param {string} name
   * @param {string} other whom the person talks to
   * @param {string} [more] of the address, such as `&transport=websocket`
   */
  constructor(context, url, name, other, more = "") {
    this.context = context;
    this.name = name;
    this.other = other;
    this.address = `${url}/?as=${name}&to=${other}&lang=en${more}`;
    /** @type {import("./checker.js").Written[]} what was typed, in order */
    this.written = [];
    /** @type {string[]} what the console complained of beyond failed connections */
    this.complaints = [];
  }

  /** Opens the page, in a new tab. */
  async open() {
    const page = await this.context.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    await page.goto(this.address);
    this.page = page;
    return this;
  }

  /** @returns {Page} */
  get tab() {
    assert.ok(this.page, `${this.name} has not opened the page`);
    return this.page;
  }

  get box() {
    return this.tab.getByRole("textbox", { name: "Message" });
  }

  /** @param {string} text */
  message(text) {
    return this.tab.getByRole("log").locator("[data-message], [data-state]").filter({ hasText: text });
  }

  /**
   * Types a text and sends it; it is accepted once the page shows it.
   * @param {string} text
   */
  async say(text) {
    const entry = { text, accepted: false };
    this.written.push(entry);
    await this.box.fill(text);
    await this.box.press("Enter");
    await this.message(text).first().waitFor();
    entry.accepted = true;
  }

  /** @param {string} text */
  async sees(text) {
    await this.message(text).first().waitFor();
  }

  /**
   * Waits until an own message has one of these states.
   * @param {string} text
   * @param {...string} states
   */
  async sent(text, ...states) {
    const wanted = states.map((state) => `[data-state="${state}"]`).join(", ");
    await this.tab.getByRole("log").locator(wanted).filter({ hasText: text }).first().waitFor();
  }

  /** Waits for a transport. @param {"webtransport" | "websocket" | "none"} transport */
  async uses(transport) {
    await this.tab.locator(`[data-transport="${transport}"]`).first().waitFor({ state: "attached" });
  }

  /**
   * The whole conversation as the device's store holds it, once nothing waits any more.
   * @returns {Promise<import("./checker.js").Held[]>}
   */
  async holds() {
    return this.tab.evaluate(
      async ([user, other]) => {
        // A second client of the page's own origin is one more tab: it reads the same store.
        const { openClient } = await import(/** @type {any} */ ("/web/src/index.js"));
        const client = await openClient({ user });
        try {
          const messages = await client.messages({ user: other }, { limit: 1_000_000 });
          return messages.map((/** @type {any} */ { seq, from, text }) => ({ seq, from, text }));
        } finally {
          await client.close();
        }
      },
      [this.name, this.other],
    );
  }

  /** The tab is gone from one moment to the next, as when the system takes its memory. */
  async crash() {
    const { tab } = this;
    const crashed = new Promise((resolve) => tab.once("crash", resolve));
    const session = await this.context.newCDPSession(tab);
    session.send("Page.crash").catch(() => {});
    await crashed;
    await tab.close();
    this.page = undefined;
  }
}

/**
 * Waits until something is so; says what was seen last if it never is.
 * @template T
 * @param {string} what
 * @param {() => Promise<T>} look
 * @param {(seen: T) => boolean} wanted
 */
export async function until(what, look, wanted) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const seen = await look();
    if (wanted(seen)) return seen;
    assert.ok(Date.now() < end, `${what}: last seen was ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
