// What the page says of its connection, calmly, in full, and when it tries again; and of who is there, only what it knows.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { asked, fake, stage, until } from "./open.js";

/** @typedef {import("playwright-core").Page} Page */

/** @type {Awaited<ReturnType<typeof stage>>} */
let set;
before(async () => {
  set = await stage();
});
after(async () => {
  await set.close();
  assert.deepEqual(set.complaints, [], "the console stays quiet");
});

const some = { conversations: { bob: { texts: ["one", "two"] } }, online: ["bob", "dave"] };
const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

/** What stands where the next attempt is told, as far as it can be seen. @param {Page} page */
const told = (page) => page.locator(".retry:visible .when").allInnerTexts();

test("the wait for the next attempt is counted down, and need not be waited for", async () => {
  for (const [lang, words, now, options] of /** @type {const} */ ([
    ["en", (/** @type {number} */ seconds) => `Trying again in ${seconds} s`, "Try now", {}],
    ["zh", (/** @type {number} */ seconds) => `${seconds} 秒后重试`, "立即重试", phone],
  ])) {
    const page = await set.open(some, `/?as=alice&to=bob&lang=${lang}`, options);
    await page.locator('[data-message="1/2"]').waitFor();
    assert.deepEqual(await told(page), []);
    await page.clock.install();
    await page.clock.pauseAt(Date.now() + 60_000);
    const place = await page.locator('[data-message="1/2"]').boundingBox();
    await fake(page, "connect", "offline", 2_400);
    for (const seconds of [3, 2, 1]) {
      assert.deepEqual(await told(page), [words(seconds)]);
      await page.clock.runFor(seconds === 3 ? 400 : 1_000);
    }
    assert.deepEqual(await page.locator('[data-message="1/2"]').boundingBox(), place, "nothing moves");
    await fake(page, "connect", "offline", 4_000);
    assert.deepEqual(await told(page), [words(4)]);
    await page.getByRole("button", { name: now }).click();
    assert.equal((await asked(page, "reconnect")).length, 1);
    assert.deepEqual(await told(page), []);
    await page.context().close();
  }
});

test("attempts that fail, and the seconds between them, are not announced", async () => {
  const page = await set.open(some, "/?as=alice&to=bob");
  await page.locator('[data-message="1/2"]').waitFor();
  await page.evaluate(() => {
    const heard = [];
    Object.assign(globalThis, { heard });
    for (const region of document.querySelectorAll("[role=status], [role=alert], [aria-live=polite], [aria-live=assertive]")) {
      new MutationObserver(() => heard.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
    }
  });
  for (let attempt = 0; attempt < 4; attempt++) {
    await fake(page, "connect", "offline", 1_900);
    await page.locator(".retry:visible", { hasText: "in 2 s" }).waitFor();
    await page.locator(".retry:visible", { hasText: "in 1 s" }).waitFor();
    await fake(page, "connect", "connecting");
    await page.locator(".retry:visible", { hasText: "Trying now…" }).waitFor();
  }
  const heard = () => page.evaluate(() => globalThis.heard.map((text) => text.trim()));
  assert.deepEqual(await heard(), ["Not connected"]);
  await fake(page, "connect", "connected");
  await until(heard, (all) => all.length === 2, "the end of it is told");
  assert.equal(await page.locator(".retry").evaluateAll((all) => all.some((one) => one.closest("[role=status], [role=log], [aria-live=polite]"))), false);
  await page.context().close();
});

test("what waits is said in full, however narrow the place and whichever the language", async () => {
  for (const width of [360, 900, 1280]) {
    for (const lang of ["en", "zh"]) {
      for (const waiting of [3, 1_000]) {
        const conversations = { bob: { texts: ["one"], waiting: Array.from({ length: waiting }, () => ({ text: "waits" })) } };
        const page = await set.open({ conversations, connection: "offline" }, `/?as=alice&lang=${lang}`, width === 360 ? phone : { viewport: { width, height: 740 } });
        await page.locator(".connection .word", { hasText: String(waiting) }).waitFor();
        const cut = await page.locator(".connection, .connection *, .retry:visible, .retry:visible *").evaluateAll((all) => all
          .filter((one) => !one.closest(".unseen") && one.scrollWidth > one.clientWidth && one.clientWidth > 0 && getComputedStyle(one).display !== "inline")
          .map((one) => `${one.className} ${one.textContent}`));
        assert.deepEqual(cut, [], `${width} ${lang}`);
        const [word, pane] = await Promise.all([".connection .word", ".people .who"].map((place) => page.locator(place).boundingBox()));
        assert.ok(word && pane && word.x + word.width <= pane.x + pane.width, `${width} ${lang}: ${JSON.stringify([word, pane])}`);
        await page.context().close();
      }
    }
  }
});

/** Who stands in the list, under "Online now" or not, and with what presence. @param {Page} page */
const listed = (page) => page.locator("[data-user]").evaluateAll((all) => {
  let under = "";
  return all.map((one) => {
    const heading = one.querySelector(".section:not([hidden])");
    if (heading) under = `${heading.textContent}: `;
    return `${under}${one.dataset.user} ${one.dataset.presence}`;
  });
});

test("only who is known to be online stands under \"Online now\"", async () => {
  const page = await set.open({ ...some, gated: ["online"], quiet: true }, "/?as=alice&to=zoe");
  await page.locator("[data-user=zoe]").waitFor();
  await page.locator("[data-connection=connected]").waitFor();
  assert.deepEqual(await listed(page), ["bob unknown", "zoe unknown"], "before the server has said who is there");
  await fake(page, "release", "online");
  await page.locator("[data-user=dave]").waitFor();
  assert.deepEqual(await listed(page), ["bob online", "zoe offline", "Online now: dave online"], "the list says it, before any signal does");
  await fake(page, "setPresence", "zoe", "online");
  await page.locator("[data-user=zoe][data-presence=online]").waitFor();
  assert.deepEqual(await listed(page), ["bob online", "Online now: dave online", "Online now: zoe online"]);
  await fake(page, "setPresence", "dave", "offline");
  await page.locator("[data-user=dave]").waitFor({ state: "detached" });
  await page.context().close();
});

test("without a connection nobody is said to be online or offline", async () => {
  const page = await set.open(some, "/?as=alice&to=bob");
  await page.locator("[data-user=dave][data-presence=online]").waitFor();
  assert.equal(await page.locator(".presence:visible").count(), 2);
  await fake(page, "connect", "offline");
  await page.locator("[data-connection=offline]").waitFor();
  assert.deepEqual(await listed(page), ["bob unknown"]);
  assert.equal(await page.locator(".presence:visible").count(), 0);
  for (const place of [".thread .status", ".details .status", "[data-user=bob]"]) {
    assert.doesNotMatch(await page.locator(place).innerText(), /\b(online|offline)\b/, place);
  }
  await fake(page, "connect", "connecting");
  assert.deepEqual(await listed(page), ["bob unknown"]);
  await fake(page, "connect", "connected");
  await page.locator("[data-user=dave][data-presence=online]").waitFor();
  await page.context().close();

  const away = await set.open({ ...some, connection: "offline" }, "/?as=alice&to=zoe");
  await away.locator("[data-user=zoe]").waitFor();
  assert.deepEqual(await listed(away), ["bob unknown", "zoe unknown"]);
  await away.context().close();
});
