// What axe finds, in both schemes and both languages, in every view; and what it cannot find.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { fake, stage } from "./open.js";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** @type {Awaited<ReturnType<typeof stage>>} */
let set;
before(async () => {
  set = await stage();
});
after(() => set.close());

const some = {
  conversations: {
    bob: { texts: ["one", "two https://example.org/", { text: "three", state: "sent", from: "alice" }, { text: "four", from: "bob" }], read: 3, waiting: [{ text: "waits" }] },
    carol: { texts: [{ text: "hi", from: "carol" }], read: 0, draft: "draft" },
    dave: { texts: [{ text: "x", from: "alice", state: "delivered" }] },
  },
  online: ["bob", "eve"],
  hold: true,
};

/** @type {[string, object, string, ((page: import("playwright-core").Page) => Promise<unknown>)?][]} */
const views = [
  ["login", some, "/"],
  ["list", some, "/?as=alice"],
  ["conversation", some, "/?as=alice&to=bob"],
  ["rejected", some, "/?as=alice&to=bob", (page) => fake(page, "reject", "bob", "tooLong", "too long")],
  ["offline", { ...some, connection: "offline" }, "/?as=alice&to=bob"],
  ["ended", { ...some, connection: "ended", error: { code: "replaced", message: "x" } }, "/?as=alice&to=bob"],
  ["jump", some, "/?as=alice", async (page) => {
    await page.locator("[data-user=bob]").waitFor();
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox").waitFor();
  }],
  ["settings", some, "/?as=alice", async (page) => {
    await page.locator(".me").click();
    await page.locator("dialog[open]").waitFor();
  }],
  ["failed", { fail: { open: "why" } }, "/?as=alice"],
];

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const lang of ["en", "zh"]) {
    for (const width of [360, 1280]) {
      test(`axe finds nothing: ${colorScheme}, ${lang}, ${width} pixels`, async () => {
        for (const [name, scenario, path, act] of views) {
          const page = await set.open(scenario, `${path}${path.includes("?") ? "&" : "?"}lang=${lang}`, { colorScheme, viewport: { width, height: 740 }, reducedMotion: "reduce", bypassCSP: true });
          await page.locator("main, nav").first().waitFor();
          if (path.includes("to=")) await page.locator("[data-message]").first().waitFor();
          await act?.(page);
          await page.addScriptTag({ path: axe });
          const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
          const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} (${failureSummary})`).join("; ")}`);
          assert.deepEqual(found, [], `${name}`);
          await page.context().close();
        }
      });
    }
  }
}

test("the order of focus is the order on the screen, and the focus is seen", async () => {
  const page = await set.open(some, "/?as=alice&to=bob");
  await page.locator('[data-message="1/4"]').waitFor();
  await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement)?.blur());
  const order = [];
  for (let step = 0; step < 16; step++) {
    await page.keyboard.press("Tab");
    order.push(await page.evaluate(() => {
      const { activeElement: one } = document;
      const { outlineStyle, outlineWidth } = getComputedStyle(one);
      const around = one.closest(".box");
      const ring = outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 2;
      const seen = ring || (around !== null && getComputedStyle(around).boxShadow !== "none");
      return { name: one.closest("[data-user]")?.getAttribute("data-user") ?? one.getAttribute("aria-label") ?? one.textContent, seen };
    }));
  }
  const names = order.map(({ name }) => name);
  const expected = ["Settings: alice", "New conversation", "bob", "carol", "dave", "eve", "Messages with bob", "https://example.org/", "Message"];
  assert.deepEqual(names.filter((name) => expected.includes(name)).slice(0, expected.length).sort(), [...expected].sort(), `${names}`);
  const at = (/** @type {string} */ name) => names.indexOf(name);
  assert.ok(at("Settings: alice") < at("New conversation") && at("New conversation") < at("bob") && at("eve") < at("Messages with bob") && at("Messages with bob") < at("Message"), `${names}`);
  assert.deepEqual(order.filter(({ name, seen }) => expected.includes(name) && !seen), []);
  await page.context().close();
});
