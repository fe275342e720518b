// The page opens without the server, and notices a new version of itself.

import assert from "node:assert/strict";
import { test } from "node:test";
import { stage } from "./open.js";

const some = { conversations: { bob: { texts: ["kept on the device"] } } };

test("opens without the server, and shows what is stored", async () => {
  const set = await stage();
  const page = await set.open(some, "/?as=alice&to=bob", { serviceWorkers: "allow" });
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await set.site.close();
  await page.reload();
  await page.getByRole("log").getByText("kept on the device").waitFor();
  await page.goto(`${set.site.url}/?as=alice`);
  await page.locator("[data-user=bob]").waitFor();
  await set.browser.close();
});

test("the worker leaves everything else to the server", async () => {
  const set = await stage();
  const page = await set.open(some, "/?as=alice&to=bob", { serviceWorkers: "allow" });
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  assert.equal(await page.evaluate(async () => (await fetch("/healthz")).status), 404, "the test's server has none");
  const kept = await page.evaluate(async () => {
    const names = await caches.keys();
    const cache = await caches.open(names[0]);
    return { names: names.length, files: (await cache.keys()).map(({ url }) => new URL(url).pathname) };
  });
  assert.equal(kept.names, 1);
  assert.ok(kept.files.includes("/") && kept.files.includes("/web/chat/main.js") && !kept.files.includes("/web/chat/sw.js"));
  await set.close();
});

test("a new version is fetched beside the old one, and offered", async () => {
  const set = await stage();
  const page = await set.open(some, "/?as=alice&to=bob", { serviceWorkers: "allow" });
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.reload();
  await page.getByRole("log").getByText("kept on the device").waitFor();
  set.site.change("/web/chat/texts/en.js", (body) => body.replace('message: "Message"', 'message: "Message, the next"'));
  await page.reload();
  await page.getByText("A new version of this page is ready.").waitFor();
  await page.getByRole("textbox", { name: "Message", exact: true }).waitFor();
  await page.getByRole("button", { name: "Reload" }).click();
  await page.getByRole("textbox", { name: "Message, the next" }).waitFor();
  assert.equal(await page.evaluate(async () => (await caches.keys()).length), 1, "the old version is gone");
  await set.close();
});
