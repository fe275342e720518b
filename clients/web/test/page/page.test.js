// The page as people and outside checks use it, over the fake SDK.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { asked, fake, stage, until } from "./open.js";

/** @type {Awaited<ReturnType<typeof stage>>} */
let set;
before(async () => {
  set = await stage();
});
after(async () => {
  await set.close();
  assert.deepEqual(set.complaints, [], "the console stays quiet");
});

const some = { conversations: { bob: { texts: ["one", "two"], read: 2 }, carol: { texts: [{ text: "hi", from: "carol" }], read: 0, every: 1000 } }, online: ["bob", "dave"] };
const own = "[data-state]";

test("logs in by address, shows people with presence, opens a conversation", async () => {
  const page = await set.open(some, "/?as=alice&to=bob");
  await page.locator('[role=log] [data-message="1/2"]').waitFor();
  assert.equal(await page.locator("[data-transport]").getAttribute("data-transport"), "webtransport");
  assert.equal(await page.getByRole("list").count(), 1);
  const people = page.getByRole("list").locator("[data-user]");
  assert.deepEqual(await people.evaluateAll((all) => all.map((one) => [one.dataset.user, one.dataset.presence])),
    [["carol", "offline"], ["bob", "online"], ["dave", "online"]], "the newest conversation first, then who else is online");
  assert.match(await people.nth(0).innerText(), /hi/);
  assert.equal(await people.nth(0).locator("[data-count]").getAttribute("data-count"), "1");
  await fake(page, "setPresence", "carol", "online");
  await page.locator('[data-user=carol][data-presence=online]').waitFor();
  await page.context().close();
});

test("asks for a name, says what is wrong with one, and remembers it", async () => {
  const page = await set.open(some, "/");
  const name = page.getByRole("textbox");
  await page.keyboard.press("Enter");
  await page.getByText("Type a name first.").waitFor();
  await name.fill("x".repeat(65));
  await page.keyboard.press("Enter");
  await page.getByText("too long").waitFor();
  await name.fill("  alice ");
  await page.keyboard.press("Enter");
  await page.locator("[data-user=bob]").waitFor();
  assert.match(page.url(), /as=alice/);
  await page.goto(`${set.site.url}/`);
  await page.getByRole("button", { name: "alice" }).click();
  await page.locator("[data-user=bob]").waitFor();
  await page.context().close();
});

test("sends with Enter, breaks lines with Shift+Enter, and goes from sending to read", async () => {
  const page = await set.open({ ...some, hold: true }, "/?as=alice&to=bob");
  const box = page.getByRole("textbox", { name: "Message" });
  await box.click();
  await page.keyboard.type("first");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second");
  await page.keyboard.press("Enter");
  const sending = page.locator("[data-state=sending]");
  await sending.waitFor();
  assert.equal(await box.inputValue(), "");
  assert.equal(await sending.locator(".text").evaluate((text) => text.textContent), "first\nsecond");
  assert.equal(await sending.getAttribute("data-message"), null);
  const element = await sending.elementHandle();
  for (const [state, words] of [["sent", "Sent"], ["delivered", "Delivered"], ["read", "Read"]]) {
    await (state === "sent" ? fake(page, "settle", "bob") : fake(page, "mark", "bob", state));
    await page.locator(`[data-message="1/3"][data-state=${state}]`).waitFor();
    assert.match(await page.locator('[data-message="1/3"] .state').innerText(), new RegExp(words));
  }
  assert.ok(await element?.evaluate((one) => one.isConnected), "it is the same element all the way");
  await page.context().close();
});

test("a refused message can be sent again or deleted; one that could not be kept goes back into the box", async () => {
  const page = await set.open({ ...some, hold: true }, "/?as=alice&to=bob");
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill("too much");
  await box.press("Enter");
  await page.locator("[data-state=sending]").waitFor();
  await fake(page, "reject", "bob", "tooLong", "longer than allowed");
  await page.getByText("Not sent: it is longer than this server allows").waitFor();
  await page.getByRole("button", { name: "Send again" }).click();
  await page.locator('[data-message="1/3"][data-state=sent]').waitFor();
  await box.fill("again too much");
  await box.press("Enter");
  await page.locator("[data-state=sending]").waitFor();
  await fake(page, "reject", "bob", "new", "the server's own words");
  await page.getByText("Not sent: the server's own words").waitFor();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.locator("[data-state=rejected]").waitFor({ state: "detached" });
  await page.context().close();

  const full = await set.open({ ...some, fail: { send: "the disk is full" } }, "/?as=alice&to=bob");
  const message = full.getByRole("textbox", { name: "Message" });
  await message.fill("precious");
  await message.press("Enter");
  await full.getByText("the disk is full").waitFor();
  assert.equal(await message.inputValue(), "precious");
  await message.fill("é".repeat(31_000));
  await message.press("Enter");
  await full.getByText("Too long by 560 bytes").waitFor();
  await full.context().close();
});

test("what waits is said, and goes when connected", async () => {
  const page = await set.open({ ...some, connection: "offline", error: { code: "offline", message: "refused" } }, "/?as=alice&to=bob");
  await page.getByText("Not connected", { exact: true }).first().waitFor();
  assert.equal(await page.locator("[data-transport]").getAttribute("data-transport"), "none");
  assert.equal(await page.locator("[data-user=bob]").getAttribute("data-presence"), "unknown");
  for (const text of ["a", "b", "c"]) {
    await page.getByRole("textbox", { name: "Message" }).fill(text);
    await page.keyboard.press("Enter");
  }
  await page.getByText("Not connected: 3 waiting").first().waitFor();
  await page.getByRole("button", { name: "Try now" }).click();
  await page.locator('[data-transport=webtransport]').waitFor();
  await page.locator('[data-message="1/5"][data-state=sent]').waitFor();
  assert.equal(await page.getByText("Connected").first().isVisible(), true);
  await page.context().close();
});

test("what was read is told once it is seen in a page that is looked at", async () => {
  const page = await set.open({ conversations: { bob: { count: 60, read: 60 } } }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/60"]').waitFor();
  await page.locator("[role=log]").hover();
  await page.mouse.wheel(0, -1500);
  await until(() => page.locator(".log").evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight), (rest) => rest > 1000, "scrolled");
  await fake(page, "receive", "bob", "unseen yet");
  await page.getByRole("button", { name: "1 new" }).waitFor();
  assert.deepEqual(await asked(page, "markRead"), []);
  assert.equal(await page.locator("[data-user=bob] [data-count]").getAttribute("data-count"), "1");
  await page.getByRole("button", { name: "1 new" }).click();
  await until(() => asked(page, "markRead"), (marks) => marks.length === 1 && marks[0]?.[2] === 61, "marked");
  await page.locator("[data-user=bob] [data-count]").waitFor({ state: "detached" }).catch(() => {});
  assert.equal(await page.locator("[data-user=bob] .count").isHidden(), true);
  await page.context().close();
});

test("opens at what is new, with a line before it", async () => {
  const page = await set.open({ conversations: { bob: { count: 400, read: 250 } } }, "/?as=alice&to=bob");
  const divider = page.locator(".divider:visible");
  await divider.waitFor();
  assert.equal(await divider.innerText(), "New");
  const [line, log] = await Promise.all([divider.boundingBox(), page.locator(".log").boundingBox()]);
  assert.ok(line && log && line.y >= log.y && line.y < log.y + log.height / 3, `${JSON.stringify([line, log])}`);
  const first = await page.locator(".row:has(.divider:visible) [data-message]").getAttribute("data-message");
  // The first of somebody else beyond what was read.
  assert.match(first ?? "", /^1\/25[1-3]$/);
  await page.context().close();
});

test("the line before what is new goes once it is answered, here or on another device", async () => {
  for (const elsewhere of [false, true]) {
    const page = await set.open({ conversations: { bob: { count: 40, read: 30 } } }, "/?as=alice&to=bob");
    const divider = page.locator(".divider:visible");
    await divider.waitFor();
    await fake(page, "receive", "bob", "one more");
    await page.locator('[data-message="1/41"]').waitFor();
    assert.equal(await divider.count(), 1, "not by what comes");
    if (elsewhere) await fake(page, "writeElsewhere", "bob", "an answer");
    else {
      await page.getByRole("textbox", { name: "Message" }).fill("an answer");
      await page.keyboard.press("Enter");
    }
    await page.locator('[data-message="1/42"]').waitFor();
    assert.equal(await divider.count(), 0);
    await page.context().close();
  }
});

test("the line before what is new goes once it was read and the page was left", async () => {
  const page = await set.open({ ...some, conversations: { ...some.conversations, bob: { count: 41, read: 39 } } }, "/?as=alice&to=bob");
  const divider = page.locator(".divider:visible");
  await divider.waitFor();
  await until(() => asked(page, "markRead"), (marks) => marks.some(([, , seq]) => seq === 41), "it is read");
  const look = (/** @type {boolean} */ seen) => page.evaluate((value) => {
    Object.defineProperty(document, "visibilityState", { configurable: true, value: value ? "visible" : "hidden" });
    document.hasFocus = () => value;
    document.dispatchEvent(new Event("visibilitychange"));
  }, seen);
  await look(false);
  assert.equal(await divider.count(), 0);
  // What nobody sees gets a line of its own, and that stays until it was read.
  await fake(page, "receive", "bob", "while nobody looks");
  await page.locator('[data-message="1/42"]').waitFor();
  assert.equal(await page.locator('.row:has(.divider:visible) [data-message="1/42"]').count(), 1);
  await look(true);
  await until(() => asked(page, "markRead"), (marks) => marks.some(([, , seq]) => seq === 42), "it is read too");
  assert.equal(await divider.count(), 1);
  await page.locator("[data-user=carol]").click();
  await page.locator("[data-user=bob]").click();
  await page.locator('[data-message="1/42"]').waitFor();
  assert.equal(await divider.count(), 0);
  await page.context().close();
});

test("days have a line between them", async () => {
  const end = Date.now();
  const day = 24 * 60 * 60 * 1000;
  const texts = [3 * day, 3 * day - 1000, day, 0].map((ago, at) => ({ text: `day ${at}`, time: end - ago, from: "bob" }));
  const page = await set.open({ conversations: { bob: { texts } } }, "/?as=alice&to=bob");
  await page.getByText("Today", { exact: true }).waitFor();
  assert.equal(await page.locator(".day:visible").count(), 3);
  assert.equal(await page.locator(".day:visible").nth(1).innerText(), "Yesterday");
  await page.context().close();
});

test("the time of day is what Intl writes, without asking it for each start", async () => {
  for (const locale of ["en-GB", "en-US", "zh-CN"]) {
    const texts = Array.from({ length: 24 }, (_, hour) => ({ text: `hour ${hour}`, from: "bob", time: new Date(2026, 0, 5, hour, hour * 2 + 3).getTime() }));
    const page = await set.open({ conversations: { bob: { texts } } }, "/?as=alice&to=bob", { locale });
    // Which of them are in the document is the list's business.
    const wrong = () => page.evaluate(() => {
      const clock = new Intl.DateTimeFormat(navigator.language, { hour: "numeric", minute: "2-digit" });
      return [...document.querySelectorAll(".message time")].filter((one) => one.textContent !== clock.format(Date.parse(one.dateTime))).map((one) => one.textContent);
    });
    await page.locator('[data-message="1/24"]').waitFor();
    assert.deepEqual(await wrong(), [], `${locale}, the first time`);
    // Counts what is asked of Intl before the first message stands.
    await page.addInitScript(() => {
      const Real = Intl.DateTimeFormat;
      globalThis.clocks = 0;
      Intl.DateTimeFormat = class extends Real {
        constructor(/** @type {string} */ tag, /** @type {Intl.DateTimeFormatOptions} */ options) {
          super(tag, options);
          if (options?.minute && !document.querySelector("[data-message]")) globalThis.clocks += 1;
        }
      };
    });
    await page.reload();
    await page.locator('[data-message="1/24"]').waitFor();
    assert.equal(await page.evaluate(() => globalThis.clocks), 0);
    assert.deepEqual(await wrong(), [], `${locale}, from what was learnt`);
    // Somebody chose another clock: what was learnt is put right for the next start.
    await page.evaluate(() => {
      const kept = JSON.parse(localStorage.getItem("whimbrel-clock") ?? "");
      localStorage.setItem("whimbrel-clock", JSON.stringify({ ...kept, texts: kept.texts.map(() => "old 57") }));
    });
    await page.reload();
    await until(() => page.evaluate(() => localStorage.getItem("whimbrel-clock")), (text) => !text?.includes("old"), "learnt again");
    await page.context().close();
  }
});

test("typing shows in its place, and is sent", async () => {
  const page = await set.open(some, "/?as=alice&to=bob");
  await page.locator('[data-message="1/2"]').waitFor();
  const place = () => page.locator('[data-message="1/2"]').boundingBox();
  const before = await place();
  await fake(page, "setTyping", "bob", true);
  await page.getByText("bob is typing…").waitFor();
  assert.deepEqual(await place(), before, "nothing moves");
  await fake(page, "receive", "bob", "done");
  await until(() => page.locator(".typing").innerText(), (text) => text === "", "typing ends with the message");
  await page.getByRole("textbox", { name: "Message" }).pressSequentially("x");
  assert.deepEqual((await asked(page, "typing")).at(-1), ["typing", "bob", true]);
  await page.context().close();
});

test("drafts are kept, each with its conversation", async () => {
  const page = await set.open(some, "/?as=alice&to=bob");
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill("for bob");
  await page.locator("[data-user=carol]").click();
  await page.locator('[data-message="2/1"]').waitFor();
  assert.equal(await box.inputValue(), "");
  await page.locator("[data-user=bob]").getByText("Draft: ").waitFor();
  await page.locator("[data-user=bob]").click();
  await until(() => box.inputValue(), (value) => value === "for bob", "the draft is back");
  await page.context().close();
});

test("works with the keyboard alone", async () => {
  const page = await set.open(some, "/?as=alice");
  await page.locator("[data-user=bob]").waitFor();
  await page.keyboard.press("Control+k");
  const field = page.getByRole("combobox");
  await field.waitFor();
  await page.keyboard.type("ca");
  assert.equal(await page.getByRole("option", { selected: true }).innerText().then((text) => text.includes("carol")), true);
  await page.keyboard.press("Enter");
  await page.locator('[data-message="2/1"]').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("aria-label")), "Message");
  await page.keyboard.type("by keys");
  await page.keyboard.press("Enter");
  await page.locator(`${own} >> text=by keys`).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("log").waitFor({ state: "detached" });
  await until(() => page.evaluate(() => document.activeElement?.closest("[data-user]")?.getAttribute("data-user")), (user) => user === "carol", "the focus is where one came from");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.locator('[data-message="1/2"]').waitFor();
  // Somebody new, by a name typed in full.
  await page.keyboard.press("Control+k");
  await page.keyboard.type("newcomer");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "newcomer", level: 2 }).first().waitFor();
  await page.getByText("This is where it begins").waitFor();
  await page.context().close();
});

test("on a phone it is one pane, and the browser's back leads to the list", async () => {
  const page = await set.open(some, "/?as=alice", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await page.locator("[data-user=bob]").tap();
  await page.locator('[data-message="1/2"]').waitFor();
  assert.equal(await page.getByRole("list").isVisible(), false);
  await page.goBack();
  await page.getByRole("list").waitFor();
  await page.locator("[data-user=bob]").tap();
  await page.getByRole("button", { name: "Back to the list" }).tap();
  await page.getByRole("list").waitFor();
  const small = await page.locator("button:visible").evaluateAll((all) => all.map((one) => [one.className, one.getBoundingClientRect()]).filter(([, box]) => box.height < 44 || box.width < 44).map(([name]) => name));
  assert.deepEqual(small, [], "everything is big enough for a finger");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  await page.context().close();
});

test("speaks Chinese", async () => {
  const page = await set.open(some, "/?as=alice&to=bob&lang=zh");
  await page.getByRole("textbox", { name: "消息" }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.lang), "zh-CN");
  await page.getByText("已连接").first().waitFor();
  await page.context().close();
  const chosen = await set.open(some, "/?as=alice", { locale: "zh-CN" });
  await chosen.locator(".me").click();
  await chosen.getByRole("button", { name: "English" }).click();
  await chosen.getByText("Connected").first().waitFor();
  await chosen.context().close();
});

test("keys are told only where there may be a keyboard", async () => {
  const keys = "kbd:visible";
  for (const [options, keyboard] of /** @type {const} */ ([
    [{ viewport: { width: 1280, height: 800 } }, true],
    [{ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, false],
    [{ viewport: { width: 360, height: 740 } }, false],
    [{ viewport: { width: 1280, height: 800 }, hasTouch: true, isMobile: true }, false],
  ])) {
    const page = await set.open(some, "/?as=alice", options);
    await page.locator("[data-user=bob]").waitFor();
    assert.equal((await page.locator(keys).count()) > 0, keyboard, "beside the dialog");
    assert.equal((await page.getByText("press the keys").count()) > 0 && (await page.getByText("press the keys").isVisible()), keyboard, "the hint");
    await page.locator(".me").click();
    assert.equal((await page.locator(`dialog ${keys}`).count()) > 0, keyboard, JSON.stringify(options));
    assert.equal(await page.locator("dialog").getByText("Keys", { exact: true }).isVisible(), keyboard);
    await page.context().close();
  }
});

test("links open elsewhere, and take nothing with them", async () => {
  const page = await set.open({ conversations: { bob: { texts: ["see https://example.org/a"] } } }, "/?as=alice&to=bob");
  const link = page.getByRole("link", { name: "https://example.org/a" });
  await link.waitFor();
  assert.equal(await link.getAttribute("rel"), "noopener noreferrer nofollow");
  assert.equal(await link.getAttribute("target"), "_blank");
  await page.context().close();
});

test("an ended session says why, and goes on only when somebody wants it to", async () => {
  const page = await set.open({ ...some, connection: "ended", error: { code: "replaced", message: "another" } }, "/?as=alice&to=bob");
  await page.getByText("This account is open elsewhere").waitFor();
  await page.getByRole("button", { name: "Use it here" }).click();
  await page.locator("[data-transport=webtransport]").waitFor();
  await page.getByText("This account is open elsewhere").waitFor({ state: "detached" });
  await page.context().close();
});

test("new messages are announced, old ones are not", async () => {
  const page = await set.open({ conversations: { bob: { count: 200 } } }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/200"]').waitFor();
  const told = page.locator(".thread > [aria-live=polite]");
  assert.equal(await told.innerText(), "");
  await fake(page, "receive", "bob", "hear me");
  await until(() => told.innerText(), (text) => text.includes("bob: hear me"), "announced");
  await page.getByRole("log").hover();
  await page.mouse.wheel(0, -4000);
  // Where exactly that leads depends on how many heights were measured by then.
  await page.locator('[data-message="1/120"]').waitFor();
  assert.equal(await told.innerText(), "bob: hear me");
  await page.context().close();
});

test("a page that cannot start says why", async () => {
  const page = await set.open({ fail: { open: "no database here" } }, "/?as=alice");
  await page.getByText("no database here").waitFor();
  await page.getByRole("button", { name: "Try again" }).waitFor();
  await page.context().close();
});

test("a server that begins anew leaves nothing of before on the page, and what is read counts again", async () => {
  const page = await set.open({ conversations: { bob: { count: 10 } } }, "/?as=alice&to=bob");
  /** @type {string[]} */
  const faults = [];
  page.on("pageerror", ({ message }) => faults.push(message));
  await page.locator('[data-message="1/10"]').waitFor();
  await fake(page, "beginAnew");
  await page.locator('[data-message="1/10"]').waitFor({ state: "detached" });
  assert.equal(await page.locator("[data-message]").count(), 0);
  await fake(page, "receive", "bob", "anew");
  await page.locator('[data-message$="/1"]').waitFor();
  await until(() => asked(page, "markRead"), (told) => told.some(([, , seq]) => seq === 1), "the new message is told to be read");
  assert.deepEqual(faults, []);
  await page.context().close();
});

test("what a server that was restored still has is shown, and is no news", async () => {
  const page = await set.open({ conversations: { bob: { count: 300 } } }, "/?as=alice&to=bob");
  await page.locator('[data-message="1/300"]').waitFor();
  await page.evaluate(() => {
    const announcer = document.querySelector(".thread > .unseen[role=status]");
    if (!announcer) throw new Error("nothing announces");
    globalThis.heard = [];
    new MutationObserver(() => globalThis.heard.push(announcer.textContent)).observe(announcer, { childList: true, characterData: true, subtree: true });
  });
  await fake(page, "beginAnew", 200);
  await page.locator('[data-message="1/200"]').waitFor();
  assert.deepEqual(await page.evaluate(() => globalThis.heard), []);
  assert.equal(await page.locator(".thread .pill:visible").count(), 0);
  await fake(page, "receive", "bob", "and this is");
  await until(() => page.evaluate(() => globalThis.heard.length), (count) => count > 0, "what is new is announced");
  await page.context().close();
});

test("a name that cannot be one is said where another can be typed", async () => {
  for (const name of ["x".repeat(65), "a%07b"]) {
    const page = await set.open(some, `/?as=${name}&to=bob`);
    const box = page.getByRole("textbox");
    await page.locator("#login-fault", { hasText: /./ }).waitFor();
    await box.fill("alice");
    await box.press("Enter");
    await page.locator('[data-message]').first().waitFor();
    await page.context().close();
  }
  const page = await set.open(some, `/?as=alice&to=${"x".repeat(80)}`);
  await page.locator("[data-user=bob]").waitFor();
  assert.equal(await page.getByRole("textbox", { name: "Message" }).count(), 0, "nobody has this name");
  await page.context().close();
});
