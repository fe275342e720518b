// Pictures of the page in every state, for people to look at: `node test/page/shots.js [part of a name]`. They go to test/screenshots.
// With `--few` only the narrowest and the widest, light in English and dark in Chinese.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launch } from "../harness/chromium.js";
import { CLOSED, hole, openDoctor, verdict } from "../harness/doctor.js";
import { Server } from "../harness/server.js";
import { serveFake } from "./site.js";

const folder = fileURLToPath(new URL("../screenshots/", import.meta.url));
const few = process.argv.includes("--few");
const only = process.argv.slice(2).find((part) => part !== "--few") ?? "";
const now = Date.now();
const minutes = (/** @type {number} */ count) => now - count * 60_000;
const talk = [
  { text: "Are you coming to the shore tomorrow? Low tide is at 7:40.", from: "bob", time: minutes(60 * 26) },
  { text: "Yes. I bring the telescope.", from: "alice", time: minutes(60 * 26 - 2) },
  { text: "Good. Last year we counted 214 of them on one morning, which nobody believed until they saw the pictures: https://example.org/counts/2025?place=shore#whimbrels", from: "bob", time: minutes(300) },
  { text: "👍", from: "bob", time: minutes(299) },
  { text: "I remember 😀", from: "alice", time: minutes(200) },
  { text: "We could take the early bus. It leaves at 6:05 from the station, and the way from the last stop to the hide is twenty minutes on foot.\n\nOr we go by car, then I can fetch you at six.", from: "alice", time: minutes(199) },
  { text: "By car, please.", from: "bob", time: minutes(8) },
  { text: "And bring something warm to drink.", from: "bob", time: minutes(7) },
  { text: "Tea or coffee?", from: "alice", time: minutes(3), state: "read" },
  { text: "I have both", from: "alice", time: minutes(2), state: "delivered" },
  { text: "And biscuits.", from: "alice", time: minutes(1), state: "sent" },
];
const conversations = {
  bob: { texts: talk, read: 6, waiting: [{ text: "See you at six then" }] },
  "李小龙": { texts: [{ text: "明天早上七点见，别忘了带相机。", from: "李小龙", time: minutes(42) }], read: 0 },
  "maria.santos": { texts: [{ text: "Muito obrigada!", from: "maria.santos", time: minutes(60 * 5) }] },
  "עדי": { texts: [{ text: "שלום, מה שלומך?", from: "עדי", time: minutes(60 * 30) }] },
  "a-very-long-name-that-somebody-chose-because-nobody-said-no-to-it": { texts: [{ text: "Is this name too long?", from: "alice", time: minutes(60 * 24 * 3), state: "delivered" }] },
  carol: { texts: [{ text: "ok", from: "alice", time: minutes(60 * 24 * 9) }], draft: "I wanted to ask you" },
  dave: { texts: Array.from({ length: 130 }, (_, at) => ({ text: `line ${at}`, from: "dave", time: minutes(60 * 24 * 40 - at) })), read: 0 },
};
const hostile = [
  "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b> &amp; &lt;",
  "👩‍👩‍👧‍👦🏳️‍🌈👨🏽‍🚀 ".repeat(12),
  "مرحبا بالعالم، هذا نص طويل باللغة العربية مع رابط https://example.org/a في الوسط ثم بقية الجملة",
  "\u202Egnidaer edirrevo thgir ot tfel\u202C and \u200B\u200Bzero\u200Bwidth\u200D\uFEFF",
  "W".repeat(400),
  "Z̸̡͚̞̠̰̗̤͖̩̥͋̃̀̆͌̎̚͝a̶̛͎̳͖͖̠̪̩̹̐̉̿͛̂͝l̵̨̧̠̝̮̭̦̙̓̈́̽̄͗̓͝g̸̢̤̦̮͙̹̥̒̿̊̈́̓͑o̷̡̬̻̘̯̫̝̾̋͛̄̅̀ text",
  "http://аpple.com/login https://bank.example@evil.example/ https://example.org/(a_(b)), (https://example.org).",
  "Line\n\n\n\nbreaks",
];
const full = { conversations, online: ["bob", "李小龙", "carol", "eve", "frank"] };
const big = { ...full, conversations: { bob: { count: 300, read: 290 } } };

/** @type {[string, any, string, ((page: import("playwright-core").Page) => Promise<unknown>)?][]} */
const views = [
  ["login", {}, "/"],
  ["list", full, "/?as=alice"],
  ["empty", { online: [] }, "/?as=alice"],
  ["conversation", { ...full, hold: true }, "/?as=alice&to=bob", (page) => page.evaluate(() => globalThis.fake.setTyping("bob", true))],
  ["offline", { ...full, connection: "offline", error: { code: "offline", message: "connection refused" } }, "/?as=alice&to=bob"],
  ["ended", { ...full, connection: "ended", error: { code: "replaced", message: "replaced" } }, "/?as=alice&to=bob"],
  ["rejected", { ...full, hold: true }, "/?as=alice&to=bob", (page) => page.evaluate(() => globalThis.fake.reject("bob", "tooLong", "the text is longer than this server allows"))],
  ["hostile", { ...full, conversations: { bob: { texts: hostile.flatMap((text) => [{ text, from: "bob" }, { text, from: "alice" }]), every: 400_000 } } }, "/?as=alice&to=bob"],
  ["pill", big, "/?as=alice&to=bob", async (page) => {
    await page.locator(".log").hover();
    await page.mouse.wheel(0, -3000);
    await page.waitForTimeout(300);
    await page.evaluate(() => ["one", "two", "three"].forEach((text) => globalThis.fake.receive("bob", text)));
    await page.waitForTimeout(300);
  }],
  ["composing", full, "/?as=alice&to=carol", (page) => page.getByRole("textbox").fill("one\ntwo\nthree\nfour\nfive\nsix\nseven\neight")],
  ["jump", full, "/?as=alice&to=bob", async (page) => {
    await page.keyboard.press("Control+k");
    await page.keyboard.type("ma");
  }],
  ["settings", full, "/?as=alice", (page) => page.locator(".me").click()],
  ["error", { fail: { open: "The database could not be opened." } }, "/?as=alice"],
];

/** Calls `shoot` for each picture of a view that is wanted.
 * @param {string} name @param {(file: string, options: import("playwright-core").BrowserContextOptions) => Promise<void>} shoot */
async function each(name, shoot) {
  for (const width of [360, 900, 1280]) {
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      for (const lang of ["en", "zh"]) {
        const file = `${name}-${width}-${colorScheme}-${lang}.png`;
        if (!file.includes(only) || (few && (width === 900 || (colorScheme === "light") !== (lang === "en")))) continue;
        await shoot(file, { viewport: { width, height: width === 360 ? 740 : 800 }, colorScheme, locale: lang === "zh" ? "zh-CN" : "en-GB", hasTouch: width === 360, isMobile: width === 360, serviceWorkers: "block" });
      }
    }
  }
}

await mkdir(folder, { recursive: true });
const site = await serveFake();
const browser = await launch();
for (const [name, scenario, path, act] of views) {
  await each(name, async (file, options) => {
    const context = await browser.newContext(options);
    await context.addInitScript((value) => {
      globalThis.scenario = value;
    }, scenario);
    const page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && console.error(`${file}: ${message.text()}`));
    page.on("pageerror", (error) => console.error(`${file}: ${error}`));
    await page.goto(`${site.url}${path}`);
    await page.waitForTimeout(250);
    await act?.(page);
    await page.waitForTimeout(150);
    await page.screenshot({ path: `${folder}${file}` });
    await context.close();
  });
}
await site.close();

// This one asks a server, and its pictures are as long as it is.
const [server, nowhere] = await Promise.all([Server.start(), hole()]);
for (const [name, ills, query] of /** @type {const} */ ([
  ["doctor", {}, "?as=alice"],
  ["doctor-ill", { udp: nowhere.port, websocket: CLOSED, late: 3 * 60 * 60_000 }, ""],
])) {
  await each(name, async (file, options) => {
    const page = await openDoctor(browser, `${server.url}/doctor${query}`, ills, options);
    page.on("pageerror", (error) => console.error(`${file}: ${error}`));
    await verdict(page);
    await page.setViewportSize({ width: options.viewport?.width ?? 0, height: await page.evaluate(() => document.querySelector("main")?.scrollHeight ?? 0) });
    await page.screenshot({ path: `${folder}${file}` });
    await page.context().close();
  });
}
nowhere.stop();
await server.stop();
await browser.close();
