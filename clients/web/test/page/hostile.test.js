// Whatever somebody writes, or calls themselves: shown as text, with the layout intact.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { stage } from "./open.js";

/** @type {Awaited<ReturnType<typeof stage>>} */
let set;
before(async () => {
  set = await stage();
});
after(async () => {
  await set.close();
  assert.deepEqual(set.complaints, [], "the console stays quiet, and nothing ran");
});

const hostile = [
  "<img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)>",
  "</div></section><style>*{display:none}</style>&lt;&amp;&#x27;",
  "👩‍👩‍👧‍👦🏳️‍🌈👨🏽‍🚀".repeat(40),
  "مرحبا بالعالم ".repeat(40),
  "\u202Egnidaer edirrevo thgir ot tfel, never closed",
  "a\u200Bb\u200Cc\u200Dd\u2060e\uFEFFf".repeat(100),
  "W".repeat(4000),
  "words of 4000 ".repeat(286).slice(0, 4000),
  "\u0001\u0002\u001B[31mred\u0007",
  "Z̸̡͚̞̠̰̗̤͖̩̥͋̃̀̆͌̎̚͝a̶̛͎̳͖͖̠̪̩̹̐̉̿͛̂͝l̵̨̧̠̝̮̭̦̙̓̈́̽̄͗̓͝g̸̢̤̦̮͙̹̥̒̿̊̈́̓͑o̷̡̬̻̘̯̫̝̾̋͛̄̅̀".repeat(20),
  "one\n\n\n\n\ntwo\r\nthree\ttabbed",
  "javascript:alert(1) https://bank.example@evil.example https://example.org/<script>",
];

for (const width of [360, 1280]) {
  test(`whatever is written is shown as text, and nothing breaks, at ${width} pixels`, async () => {
    const texts = hostile.flatMap((text) => [{ text, from: "bob" }, { text, from: "alice" }]);
    const name = "<b>\u202Ename</b> " + "x".repeat(40);
    for (let at = 0; at < texts.length; at += 4) {
      const page = await set.open({ conversations: { [name]: { texts: texts.slice(at, at + 4) }, bob: { texts: texts.slice(at, at + 1) } } },
        `/?as=alice&to=${encodeURIComponent(name)}`, { viewport: { width, height: 16_000 } });
      await page.locator('[data-message="1/4"]').waitFor();
      const shown = await page.locator("[data-message] .text").evaluateAll((all) => all.map((one) => one.textContent));
      const wrong = texts.slice(at, at + 4).filter(({ text }, index) => shown[index] !== text);
      assert.deepEqual(wrong.map(({ text }) => text.slice(0, 60)), [], `${shown.length} are shown`);
      const bad = await page.evaluate(() => {
        const log = document.querySelector(".log")?.getBoundingClientRect();
        const inside = [...document.querySelectorAll(".bubble")].flatMap((bubble) => {
          const box = bubble.getBoundingClientRect();
          const text = bubble.querySelector(".text")?.getClientRects() ?? [];
          const meta = bubble.querySelector(".meta")?.getBoundingClientRect();
          const beside = [...text].some((line) => meta && line.right > meta.left + 1 && line.left < meta.right - 1 && line.bottom - 4 > meta.top && line.top < meta.bottom - 4);
          return !log || box.left < log.left || box.right > log.right || [...text].some((line) => line.right > box.right + 1 || line.left < box.left - 1) || beside
            ? [bubble.textContent?.slice(0, 40)] : [];
        });
        const foreign = document.querySelectorAll("[data-message] img, [data-message] script, [data-message] style, [data-message] b").length;
        return { inside, foreign, wide: document.documentElement.scrollWidth > innerWidth };
      });
      assert.deepEqual(bad, { inside: [], foreign: 0, wide: false });
      await page.context().close();
    }
  });
}
