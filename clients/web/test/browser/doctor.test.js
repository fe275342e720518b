// The page at `/doctor` in a real Chromium: what it says of a server that is well, and of every ill on the way to it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "../harness/chromium.js";
import { CLOSED, hole, openDoctor, verdict } from "../harness/doctor.js";
import { Server } from "../harness/server.js";

const axe = new URL(import.meta.resolve("axe-core")).pathname;

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof hole>>} */
let nowhere;

before(async () => {
  // A second name for this machine, from which pages are not trusted.
  [server, browser, nowhere] = await Promise.all([Server.start(), launch(["--host-resolver-rules=MAP plain.test 127.0.0.1"]), hole()]);
});

after(async () => {
  nowhere?.stop();
  await browser?.close();
  await server?.stop();
});

/** What is said of a step. @param {import("playwright-core").Page} page @param {string} name */
async function step(page, name) {
  const element = page.locator(`[data-step=${name}]`);
  const text = async (/** @type {string} */ part) => (await element.locator(part).textContent()) ?? "";
  return { state: await element.getAttribute("data-state"), seen: await text(".seen"), mend: await text(".mend"), took: await text(".took") };
}

/** Every step's outcome. @param {import("playwright-core").Page} page @returns {Promise<Record<string, string>>} */
const outcomes = (page) =>
  page.locator(".step").evaluateAll((all) => Object.fromEntries(all.map((one) => [one.getAttribute("data-step"), one.getAttribute("data-state")])));

/** @param {string} query @param {Parameters<typeof openDoctor>[2]} [ills] @param {Parameters<typeof openDoctor>[3]} [options] */
const open = (query, ills, options) => openDoctor(browser, `${server.url}/doctor${query}`, ills, options);

const WELL = { network: "works", server: "works", clock: "works", page: "works", webtransport: "works", websocket: "works", storage: "works", session: "works" };

test("all is well, under the page's own policy, and the user of the address is let in", async () => {
  const context = await browser.newContext({ locale: "en-GB" });
  const page = await context.newPage();
  /** @type {string[]} */
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`${server.url}/doctor?as=alice`);
  assert.equal(await verdict(page), "well");
  assert.deepEqual(await outcomes(page), WELL);
  assert.match((await step(page, "session")).seen, /alice.*WebTransport/);
  assert.match((await step(page, "webtransport")).took, /^[\d,]+ ms$/);
  assert.equal(await page.evaluate("indexedDB.databases().then((all) => all.length)"), 0, "nothing is left behind");
  assert.deepEqual(complaints, []);
  await context.close();
});

test("a name is asked for, and who it is not is not signed in", async () => {
  const page = await open("");
  assert.equal(await verdict(page), "well");
  assert.equal((await step(page, "session")).state, "skipped");
  const online = async () => (await (await fetch(`${server.url}/api/online-users`)).json()).users.map((/** @type {any} */ { id }) => id);
  assert.ok(!(await online()).includes("bob"));
  await page.getByLabel("Your name").fill("bob");
  await page.getByRole("button", { name: "Try signing in" }).click();
  await page.locator("[data-step=session][data-state=works]").waitFor();
  assert.ok((await online()).includes("bob"));
  await page.getByLabel("Your name").fill("x".repeat(65));
  await page.getByRole("button", { name: "Try signing in" }).click();
  await page.locator("[data-step=session][data-state=fails]").waitFor();
  assert.equal(await verdict(page), "refused");
  await page.context().close();
});

test("UDP that is swallowed is told from a certificate that is another", async () => {
  const silent = await open("?as=carol", { udp: nowhere.port });
  const other = await open("?as=dave", { hashes: [`${"A".repeat(43)}=`] });
  assert.equal(await verdict(other), "part");
  assert.deepEqual(await outcomes(other), { ...WELL, webtransport: "fails" });
  assert.match((await step(other, "webtransport")).mend, /certificate/);
  assert.equal(await verdict(silent), "part");
  assert.deepEqual(await outcomes(silent), { ...WELL, webtransport: "fails" });
  assert.match((await step(silent, "webtransport")).mend, new RegExp(`UDP is blocked.*UDP port ${nowhere.port} `));
  assert.match((await step(silent, "session")).seen, /over WebSocket/);
  // It is mended, and tried again.
  await silent.unroute("**/.well-known/whimbrel");
  await silent.getByRole("button", { name: "Try again" }).click();
  await silent.locator("[data-verdict=well]").waitFor();
  await Promise.all([silent.context().close(), other.context().close()]);
});

test("without WebSocket WebTransport is left; without either nobody connects", async () => {
  const page = await open("?as=erin", { websocket: CLOSED });
  assert.equal(await verdict(page), "part");
  assert.deepEqual(await outcomes(page), { ...WELL, websocket: "fails" });
  assert.match((await step(page, "websocket")).mend, /Upgrade: websocket/);
  assert.match((await step(page, "session")).seen, /over WebTransport/);
  await page.context().close();
  const neither = await open("?as=erin", { udp: CLOSED, websocket: CLOSED });
  assert.equal(await verdict(neither), "none");
  assert.deepEqual(await outcomes(neither), { ...WELL, webtransport: "fails", websocket: "fails", session: "skipped" });
  await neither.context().close();
});

test("clocks that differ, either way", async () => {
  for (const [late, words] of /** @type {const} */ ([[3 * 3_600_000, "3 hours behind"], [-5 * 86_400_000, "5 days ahead of"]])) {
    const page = await open("", { late });
    assert.equal(await verdict(page), "part");
    const { state, seen } = await step(page, "clock");
    assert.equal(state, "fails");
    assert.ok(seen.includes(words), seen);
    await page.context().close();
  }
});

test("a server that is gone, a sign-in page in its place, a device that is offline", async () => {
  const page = await open("?as=frank");
  await verdict(page);
  const again = async () => {
    await page.getByRole("button", { name: "Try again" }).click();
    return verdict(page);
  };
  await page.unroute("**/.well-known/whimbrel");
  await page.route("**/.well-known/whimbrel", (route) => route.fulfill({ body: "<h1>Hotel</h1>", contentType: "text/html" }));
  assert.equal(await again(), "none");
  assert.match((await step(page, "server")).mend, /sign in/);
  await page.unroute("**/.well-known/whimbrel");
  await page.context().setOffline(true);
  assert.equal(await again(), "none");
  assert.deepEqual([(await step(page, "network")).state, (await step(page, "server")).state], ["fails", "fails"]);
  assert.match((await step(page, "network")).mend, /flight mode/);
  assert.deepEqual([(await step(page, "clock")).state, (await step(page, "websocket")).state], ["skipped", "skipped"]);
  await page.context().close();
});

test("a name that cannot be one is what is wrong, and not the connection", async () => {
  const page = await open(`?as=${"x".repeat(70)}`);
  await verdict(page);
  const { state, mend } = await step(page, "session");
  assert.deepEqual([state, mend], ["fails", "Type another name below."]);
  await page.context().close();
});

test("whoever was at the chat page can look why although the server is gone, and the chat page leads there", async (t) => {
  const own = await Server.start();
  t.after(() => own.stop());
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 360, height: 740 } });
  const chat = await context.newPage();
  await chat.goto(`${own.url}/?as=heidi`);
  await chat.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await own.kill();
  const opened = context.waitForEvent("page");
  await chat.getByRole("link", { name: "Why?" }).click();
  const page = await opened;
  assert.equal(await verdict(page), "none");
  assert.equal(new URL(page.url()).pathname, "/doctor");
  assert.match((await step(page, "server")).mend, /Is the server running/);
  await page.getByLabel("Your name").and(page.locator('[value="heidi"]')).waitFor();
  await context.close();
});

test("a page that browsers do not trust, a browser without WebTransport, one that keeps nothing", async () => {
  const port = new URL(server.url).port;
  const plain = await openDoctor(browser, `http://plain.test:${port}/doctor`);
  await verdict(plain);
  const { state, mend } = await step(plain, "page");
  assert.equal(state, "fails");
  assert.ok(mend.includes(`https://plain.test:${new URL(`http://${server.secure}`).port}`), mend);
  assert.equal((await step(plain, "webtransport")).state, "skipped");
  await plain.context().close();
  const old = await open("");
  await old.addInitScript("delete globalThis.WebTransport; IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError') }");
  await old.reload();
  assert.equal(await verdict(old), "part");
  assert.deepEqual(await outcomes(old), { ...WELL, page: "fails", webtransport: "skipped", storage: "fails", session: "skipped" });
  assert.match((await step(old, "page")).mend, /Firefox/);
  assert.match((await step(old, "storage")).seen, /SecurityError/);
  await old.context().close();
});

test("the report says everything but the token", async () => {
  const page = await open("?as=grace", { websocket: CLOSED }, { permissions: ["clipboard-read", "clipboard-write"] });
  await page.getByLabel("Token").fill("very-secret");
  await page.getByRole("button", { name: "Try signing in" }).click();
  await verdict(page);
  await page.getByRole("button", { name: "Copy report" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  const report = /** @type {string} */ (await page.evaluate("navigator.clipboard.readText()"));
  assert.match(report, /^WebSocket \(TCP\): fails \([\d,]+ ms\)\. No WebSocket to 127\.0\.0\.1:1 could be opened\.\n {2}What to do: /m);
  assert.match(report, /^Signing in: works/m);
  assert.ok(report.includes(await page.evaluate("navigator.userAgent")) && !report.includes("very-secret"), report);
  await page.context().close();
});

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const [locale, lang] of /** @type {const} */ ([["en-GB", "en"], ["zh-CN", "zh-CN"]])) {
    for (const width of [360, 1280]) {
      test(`axe finds nothing: ${colorScheme}, ${lang}, ${width} pixels`, async () => {
        const page = await open("", { udp: CLOSED, websocket: CLOSED, late: 3_600_000 }, { colorScheme, locale, viewport: { width, height: 740 }, reducedMotion: "reduce" });
        await verdict(page);
        assert.equal(await page.evaluate("document.documentElement.lang"), lang);
        assert.ok(await page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), "nothing is wider than the screen");
        await page.addScriptTag({ path: axe });
        const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
        const found = violations.map((/** @type {any} */ { id, nodes }) => `${id}: ${nodes.map((/** @type {any} */ { html }) => html.slice(0, 160)).join("; ")}`);
        assert.deepEqual(found, []);
        await page.context().close();
      });
    }
  }
}
