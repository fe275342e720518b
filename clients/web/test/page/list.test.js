// Ten thousand messages: few in the document, and nothing that is read ever moves.

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

const many = { conversations: { bob: { count: 10_000 } } };
const rows = (/** @type {Page} */ page) => page.locator("[data-message]").count();
const seqs = (/** @type {Page} */ page) => page.locator("[data-message]").evaluateAll((all) => all.map((one) => Number(one.dataset.message.split("/")[1])));
/** The first message that is seen whole: its number, and where it is. @param {Page} page */
const anchor = (page) => page.evaluate(() => {
  const edge = document.querySelector(".log").getBoundingClientRect().top;
  for (const one of document.querySelectorAll("[data-message]")) {
    const { top } = one.querySelector(".bubble").getBoundingClientRect();
    if (top >= edge) return { message: one.dataset.message, top };
  }
  return null;
});
const placeOf = (/** @type {Page} */ page, /** @type {string} */ message) =>
  page.locator(`[data-message="${message}"] .bubble`).evaluate((one) => one.getBoundingClientRect().top);

/** Watches every frame: counts those in which the middle of the log shows no message, and the rows. @param {Page} page */
const watch = (page) => page.evaluate(() => {
  const log = document.querySelector(".log");
  const seen = { frames: 0, empty: 0, most: 0 };
  Object.assign(globalThis, { seen });
  const frame = () => {
    const { left, top, width, height } = log.getBoundingClientRect();
    const shown = [0.25, 0.5, 0.75].some((part) => document.elementFromPoint(left + width / 2, top + height * part)?.closest(".row"));
    seen.frames += 1;
    if (!shown) seen.empty += 1;
    seen.most = Math.max(seen.most, document.querySelectorAll("[data-message]").length);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});

test("only what is visible, and a little around it, is in the document", async () => {
  const page = await set.open(many, "/?as=alice&to=bob");
  await page.locator('[data-message="1/10000"]').waitFor();
  assert.ok((await rows(page)) < 120, `${await rows(page)} rows`);
  await watch(page);
  await page.locator(".log").hover();
  for (let turn = 0; turn < 60; turn++) await page.mouse.wheel(0, -800);
  await until(() => seqs(page), (all) => Math.min(...all) < 9600, "scrolled up");
  const { most, frames, empty } = await page.evaluate(() => globalThis.seen);
  assert.ok(most < 200 && frames > 10, `${most} rows at most in ${frames} frames`);
  assert.equal(empty, 0, "no frame without messages");
  await page.context().close();
});

test("the wheel reaches the first message, and the numbers are complete", async () => {
  const page = await set.open({ conversations: { bob: { count: 1500 } } }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/1500"]').waitFor();
  // Every message that is ever put into the document, in the order of their coming.
  await page.evaluate(() => {
    const seen = new Set();
    const note = () => document.querySelectorAll("[data-message]").forEach((one) => seen.add(Number(one.dataset.message.split("/")[1])));
    new MutationObserver(note).observe(document.querySelector(".rows"), { childList: true });
    note();
    Object.assign(globalThis, { seen });
  });
  await page.locator(".log").hover();
  await until(async () => {
    await page.mouse.wheel(0, -600);
    return page.evaluate(() => globalThis.seen.has(1) && document.querySelector(".log").scrollTop === 0);
  }, (there) => there, "reached the beginning", 60_000);
  const missed = await page.evaluate(() => Array.from({ length: 1500 }, (_, at) => at + 1).filter((seq) => !globalThis.seen.has(seq)));
  assert.deepEqual(missed, []);
  await until(() => page.locator(".log").evaluate((log) => log.scrollTop), (top) => top === 0, "at the very top");
  assert.equal(await page.locator(".lead").innerText(), "This is where it begins");
  await page.context().close();
});

test("the beginning is in the document only together with the first message", async () => {
  const page = await set.open({ conversations: { bob: { count: 400 } } }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/400"]').waitFor();
  const beginning = page.getByText("This is where it begins");
  assert.equal(await beginning.count(), 0);
  await page.locator(".log").hover();
  await until(async () => {
    await page.mouse.wheel(0, -1500);
    return page.locator('[data-message="1/1"]').count();
  }, (count) => count === 1, "the first message");
  assert.equal(await beginning.count(), 1);
  await page.locator(".log").focus();
  await page.keyboard.press("End");
  await page.locator('[data-message="1/400"]').waitFor();
  assert.deepEqual([await page.locator('[data-message="1/1"]').count(), await beginning.count()], [0, 0]);
  await page.context().close();
});

test("history that is loaded above does not move what is read", async () => {
  // The device holds the newest 80; the server answers once the reader has come to rest.
  const page = await set.open({ conversations: { bob: { count: 2000, held: 80 } }, gated: ["history"] }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/2000"]').waitFor();
  await page.locator(".log").evaluate((log) => {
    log.scrollTop = log.scrollHeight - 3000;
  });
  await until(() => anchor(page), (found) => found !== null && Number(found.message.slice(2)) < 1960, "scrolled");
  await until(() => asked(page, "loadHistory"), ({ length }) => length > 0, "history was asked for");
  const before = await anchor(page);
  assert.ok(before);
  await fake(page, "release", "history");
  await until(() => asked(page, "historyGiven"), ({ length }) => length > 0, "history was given");
  // The page has taken it by now, and shows it in the next frame.
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  const after = await placeOf(page, before.message);
  assert.ok(Math.abs(after - before.top) <= 1, `${before.message} moved from ${before.top} to ${after}`);
  await page.context().close();
});

test("every load of history leaves the anchor where it was", async () => {
  const page = await set.open({ conversations: { bob: { count: 3000, held: 60 } }, slowHistory: 150 }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/3000"]').waitFor();
  let loads = 0;
  for (let turn = 0; turn < 12; turn++) {
    await page.locator(".log").evaluate((log) => log.scrollBy(0, -900));
    // What a frame later is where it is, has to stay there whatever comes.
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    const held = await anchor(page);
    assert.ok(held, "something is seen");
    const places = [];
    for (let look = 0; look < 8; look++) {
      places.push(await placeOf(page, held.message));
      await page.waitForTimeout(50);
    }
    const moved = Math.max(...places) - Math.min(...places);
    assert.ok(moved <= 1, `${held.message} moved by ${moved}`);
    loads = await page.evaluate(() => globalThis.fake.log.filter(([name]) => name === "loadHistory").length);
  }
  assert.ok(loads >= 2, `${loads} loads`);
  await page.context().close();
});

test("new messages do not move what is read; a pill counts them, and leads to them", async () => {
  const page = await set.open(many, "/?as=alice&to=bob");
  await page.locator('[data-message="1/10000"]').waitFor();
  await page.locator(".log").evaluate((log) => log.scrollBy(0, -5000));
  await until(() => anchor(page), (found) => found !== null && Number(found.message.slice(2)) < 9960, "scrolled");
  await page.waitForTimeout(250);
  const before = await anchor(page);
  assert.ok(before);
  for (const text of ["one", "two", "three"]) await fake(page, "receive", "bob", text);
  await page.getByRole("button", { name: "3 new" }).waitFor();
  assert.ok(Math.abs((await placeOf(page, before.message)) - before.top) <= 1);
  await page.getByRole("button", { name: "3 new" }).click();
  await page.locator('[data-message="1/10003"]').waitFor();
  await page.locator(".pill").waitFor({ state: "hidden" });
  await fake(page, "receive", "bob", "four");
  await page.locator('[data-message="1/10004"]').waitFor();
  await until(() => page.locator(".log").evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight), (rest) => rest < 2, "the end is followed");
  await page.context().close();
});

test("a far jump with the scroll bar lands on messages, there and back", async () => {
  const page = await set.open(many, "/?as=alice&to=bob");
  await page.locator('[data-message="1/10000"]').waitFor();
  const log = page.locator(".log");
  await log.evaluate((one) => {
    one.scrollTop = 0;
  });
  await page.locator('[data-message="1/1"]').waitFor({ timeout: 30_000 });
  assert.ok((await rows(page)) < 200);
  await log.evaluate((one) => {
    one.scrollTop = one.scrollHeight / 2;
  });
  await until(() => anchor(page), (found) => found !== null && Math.abs(Number(found.message.slice(2)) - 5000) < 1500, "the middle");
  await log.focus();
  await page.keyboard.press("End");
  await until(() => anchor(page), (found) => found !== null && Number(found.message.slice(2)) > 9900, "the end");
  await page.context().close();
});

test("a jump counts also where the list comes to rest before it has heard of it", async () => {
  const page = await set.open(many, "/?as=alice&to=bob");
  await page.locator('[data-message="1/10000"]').waitFor();
  for (const [from, to] of [[0, 5_000], [0.25, 7_500], [0.75, 2_500]]) {
    await page.locator(".log").evaluate(async (one, [first, then]) => {
      // The timers that are set by the first scrolling, in the test's hand.
      const { setTimeout: set } = globalThis;
      /** @type {(() => void)[]} */
      const timers = [];
      globalThis.setTimeout = /** @type {any} */ ((/** @type {() => void} */ callback) => (timers.push(callback), 0));
      one.scrollTop = one.scrollHeight * first;
      await new Promise((resolve) => one.addEventListener("scroll", resolve, { once: true }));
      globalThis.setTimeout = set;
      one.scrollTop = (one.scrollHeight * then) / 10_000;
      for (const due of timers) due();
    }, [from, to]);
    await until(() => anchor(page), (found) => found !== null && Math.abs(Number(found.message.slice(2)) - to) < 1500, `to ${to}`, 5_000);
  }
  await page.context().close();
});

test("another width keeps what is read in sight", async () => {
  const page = await set.open(many, "/?as=alice&to=bob");
  await page.locator('[data-message="1/10000"]').waitFor();
  await page.locator(".log").evaluate((log) => log.scrollBy(0, -3000));
  await until(() => anchor(page), (found) => found !== null && Number(found.message.slice(2)) < 9970, "scrolled");
  await page.waitForTimeout(250);
  const before = await anchor(page);
  assert.ok(before);
  await page.setViewportSize({ width: 600, height: 500 });
  const inSight = await until(() => page.locator(`[data-message="${before.message}"]`).evaluate((one) => {
    const box = one.getBoundingClientRect();
    const log = document.querySelector(".log").getBoundingClientRect();
    return box.bottom > log.top && box.top < log.bottom;
  }), (seen) => seen, "in sight");
  assert.ok(inSight);
  await page.context().close();
});
