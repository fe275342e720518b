// The page at `/doctor` of a real server, with ills on the way to it.

import { createSocket } from "node:dgram";

/** UDP that goes nowhere: something is there, and says nothing. */
export async function hole() {
  const socket = createSocket("udp4");
  await new Promise((resolve) => socket.bind(0, "127.0.0.1", () => resolve(undefined)));
  return { port: socket.address().port, stop: () => socket.close() };
}

/** A port of TCP, and of UDP, where nothing listens: others are given from elsewhere. */
export const CLOSED = 1;

/**
 * @param {import("playwright-core").Browser} browser
 * @param {string} url with its query
 * @param {{ udp?: number, websocket?: number, hashes?: string[], late?: number }} [ills] ports that the server tells of instead of its own;
 * how much later than it is the server's clock says, in milliseconds
 * @param {import("playwright-core").BrowserContextOptions} [options]
 */
export async function openDoctor(browser, url, ills = {}, options = {}) {
  const { udp, websocket, hashes, late } = ills;
  // The page's policy knows of no other ports.
  const context = await browser.newContext({ locale: "en-GB", serviceWorkers: "block", bypassCSP: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  // The driver asks in the page's place, and does not know each name that the browser was given.
  if (Object.keys(ills).length > 0) await page.route("**/.well-known/whimbrel", async (route) => {
    const response = await route.fetch();
    const known = await response.json();
    if (udp) known.webtransport.url = `https://127.0.0.1:${udp}/wt`;
    if (websocket) known.websocket.url = `ws://127.0.0.1:${websocket}/ws`;
    if (hashes) known.webtransport.certificateHashes = hashes;
    const headers = { ...response.headers(), ...(late ? { date: new Date(Date.now() + late).toUTCString() } : {}) };
    await route.fulfill({ response, json: known, headers });
  });
  await page.goto(url);
  return page;
}

/** What the page says once it has looked at everything. @param {import("playwright-core").Page} page */
export async function verdict(page) {
  await page.locator(".verdict:not([data-verdict=runs])").waitFor();
  return page.locator(".verdict").getAttribute("data-verdict");
}
