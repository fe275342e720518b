// What the page says of its connection: calmly, whole, and when it tries again.

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
  assert.deepEqual(await heard(), ["Offline Not connected"]);
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
