// The page from a real server, in real browsers.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server } from "../harness/server.js";
import { launch } from "../harness/chromium.js";
import { until } from "./open.js";

/** @typedef {import("playwright-core").Page} Page */

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
before(async () => {
  [server, browser] = await Promise.all([Server.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** What consoles said, each time. @type {string[]} */
let complaints = [];

/** A browser profile of its own. @param {string} path @param {import("playwright-core").BrowserContextOptions} [options] */
async function visit(path, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
  return tab(context, path);
}

/** @param {import("playwright-core").BrowserContext} context @param {string} path @param {string} [base] */
async function tab(context, path, base = server.url) {
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`${base}${path}`);
  return page;
}

/** Whichever transport won the race: on a busy machine it may be WebSocket. @param {Page} page */
const connected = (page) => page.locator("[data-connection=connected]").waitFor();
const over = (/** @type {Page} */ page, /** @type {string} */ transport) => page.locator(`[data-transport=${transport}]`).waitFor();

/** @param {Page} page @param {string} text */
async function say(page, text) {
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill(text);
  await box.press("Enter");
}

const message = (/** @type {Page} */ page, /** @type {string} */ text) => page.getByRole("log").locator("[data-message]", { hasText: text });

test("two people talk over WebTransport: sent, delivered, read, typing, presence", async () => {
  complaints = [];
  const alice = await visit("/?as=alice&to=bob&transport=webtransport");
  await over(alice, "webtransport");
  await alice.locator("[data-user=bob][data-presence=offline]").waitFor();
  await say(alice, "Are you there? 👋");
  const first = message(alice, "Are you there?");
  await first.waitFor();
  assert.match((await first.getAttribute("data-message")) ?? "", /^\d+\/1$/);
  await until(() => first.getAttribute("data-state"), (state) => state === "sent", "nobody is there yet");

  const bob = await visit("/?as=bob&transport=webtransport");
  await over(bob, "webtransport");
  await until(() => first.getAttribute("data-state"), (state) => state === "delivered", "on his device, not yet read");
  await alice.locator("[data-user=bob][data-presence=online]").waitFor();
  assert.equal(await bob.locator("[data-user=alice] [data-count]").getAttribute("data-count"), "1");
  await bob.locator("[data-user=alice]").click();
  await message(bob, "Are you there?").waitFor();
  await until(() => first.getAttribute("data-state"), (state) => state === "read", "he saw it");
  assert.equal(await bob.locator(".divider:visible").count(), 1);

  await bob.getByRole("textbox", { name: "Message" }).pressSequentially("Yes");
  await alice.getByText("bob is typing…").waitFor();
  await bob.keyboard.press("Enter");
  await message(alice, "Yes").waitFor();
  await until(() => message(bob, "Yes").getAttribute("data-state"), (state) => state === "read", "she looks at it");
  await bob.context().close();
  await alice.locator("[data-user=bob][data-presence=offline]").waitFor();
  await alice.context().close();
  assert.deepEqual(complaints, []);
});

test("over WebSocket where that is asked for, and on the secure address", async () => {
  complaints = [];
  const carol = await visit("/?as=carol&to=dave&transport=websocket");
  await over(carol, "websocket");
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const dave = await tab(context, "/?as=dave&to=carol&transport=websocket", `https://${server.secure}`);
  await over(dave, "websocket");
  await say(carol, "plain to secure");
  await message(dave, "plain to secure").waitFor();
  await say(dave, "and back");
  await message(carol, "and back").waitFor();
  const secure = await tab(context, "/?as=erin&transport=webtransport", `https://${server.secure}`);
  await over(secure, "webtransport");
  await context.close();
  await carol.context().close();
  assert.deepEqual(complaints.filter((text) => !/service worker|SSL certificate/i.test(text)), []);
});

test("several accounts, and several tabs of one, work side by side in one browser", async () => {
  complaints = [];
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const frank = await tab(context, "/?as=frank&to=grace");
  const grace = await tab(context, "/?as=grace&to=frank");
  const again = await tab(context, "/?as=frank&to=grace");
  for (const page of [frank, grace, again]) await connected(page);
  await say(frank, "one tab");
  for (const page of [grace, again]) await message(page, "one tab").waitFor();
  await say(again, "the other tab");
  for (const page of [frank, grace]) await message(page, "the other tab").waitFor();
  await grace.close();
  await frank.close();
  await say(again, "still here");
  await until(() => message(again, "still here").getAttribute("data-state"), (state) => state === "sent", "the tab that is left took over");
  await context.close();
  assert.deepEqual(complaints, []);
});

test("opens without the server, keeps what is written, and sends it once the server is back", async () => {
  const own = await Server.start();
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB" });
  const heidi = await tab(context, "/?as=heidi&to=ivan", own.url);
  await connected(heidi);
  await say(heidi, "before");
  await until(() => message(heidi, "before").getAttribute("data-state"), (state) => state === "sent", "sent");
  await heidi.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await own.kill();
  await heidi.reload();
  await message(heidi, "before").waitFor();
  await over(heidi, "none");
  await say(heidi, "while it was away");
  await heidi.locator("[data-state=sending]").waitFor();
  await heidi.getByText("Not connected: 1 waiting").first().waitFor();
  await heidi.reload();
  await heidi.locator("[data-state=sending]", { hasText: "while it was away" }).waitFor();
  await own.restart();
  await until(() => message(heidi, "while it was away").getAttribute("data-state").catch(() => null), (state) => state === "sent", "sent once it was back");
  await context.close();
  await own.stop();
});

test("is back by itself within seconds of the server, however long that was away", async () => {
  const own = await Server.start();
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB" });
  const nina = await tab(context, "/?as=nina&to=omar", own.url);
  await connected(nina);
  // Every wait that is told, and every attempt.
  await nina.evaluate(() => {
    const told = new Set();
    Object.assign(globalThis, { told });
    const when = document.querySelector(".retry .when");
    new MutationObserver(() => told.add(when.textContent)).observe(when, { childList: true, characterData: true, subtree: true });
  });
  let attempts = 0;
  nina.on("requestfailed", (request) => (attempts += Number(request.url().endsWith("/.well-known/whimbrel"))));
  await own.kill();
  // Long enough for the waits to have grown as far as they grow.
  await until(async () => attempts, (count) => count >= 7, "it goes on trying", 60_000);
  await own.restart();
  await connected(nina);
  const waits = (await nina.evaluate(() => [...globalThis.told])).flatMap((text) => text.match(/again in (\d+) s/)?.slice(1).map(Number) ?? []);
  assert.ok(waits.length > 0 && Math.max(...waits) <= 4, `${waits}`);
  await nina.locator(".retry:visible").waitFor({ state: "detached" });
  await context.close();
  await own.stop();
});

test("history is fetched from the server as one scrolls, on a device that is new", async () => {
  complaints = [];
  const judy = await visit("/?as=judy&to=kim");
  await connected(judy);
  await judy.evaluate(async () => {
    const { openClient } = await import("/web/src/index.js");
    const client = await openClient({ user: "judy", store: "memory", device: "bulk" });
    for (let at = 1; at <= 400; at++) await client.send({ user: "kim" }, `message number ${at}`);
    await new Promise((resolve) => {
      const look = () => (client.waiting === 0 ? resolve(null) : setTimeout(look, 20));
      look();
    });
    await client.close();
  });
  const kim = await visit("/?as=kim&to=judy");
  await message(kim, "message number 4").first().waitFor();
  await kim.getByRole("log").hover();
  await until(async () => {
    await kim.mouse.wheel(0, -2000);
    return kim.getByText("message number 1", { exact: true }).isVisible();
  }, (there) => there, "the first message is reached");
  assert.ok((await kim.locator("[data-message]").count()) < 150);
  await kim.getByText("This is where it begins").waitFor();
  await judy.context().close();
  await kim.context().close();
  assert.deepEqual(complaints, []);
});

test("can be installed", async () => {
  const context = await browser.newContext();
  const page = await tab(context, "/?as=niaj");
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  const session = await context.newCDPSession(page);
  const { errors, url, data } = await session.send("Page.getAppManifest");
  assert.deepEqual([errors, new URL(url).pathname], [[], "/web/chat/manifest.webmanifest"]);
  for (const { src, sizes } of JSON.parse(data ?? "{}").icons) {
    const [width] = await page.evaluate(async (path) => {
      const image = new Image();
      image.src = path;
      await image.decode();
      return [image.naturalWidth];
    }, src);
    assert.ok(width && (sizes === "any" || sizes === `${width}x${width}`), `${src} is ${width} wide, not ${sizes}`);
  }
  await context.close();
});

test("everything comes from the server itself", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  /** @type {string[]} */
  const hosts = [];
  page.on("request", (request) => hosts.push(new URL(request.url()).host));
  await page.goto(`${server.url}/?as=mallory`);
  await connected(page);
  assert.deepEqual([...new Set(hosts)], [server.http]);
  // The policy holds: what is not listed is refused.
  assert.equal(await page.evaluate(() => fetch("http://127.0.0.1:9/").then(() => "fetched", (why) => String(why)).then(String)).then((text) => text.includes("Failed")), true);
  assert.equal(await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "globalThis.ran = true";
    document.head.append(script);
    return "ran" in globalThis;
  }), false);
  await context.close();
});
