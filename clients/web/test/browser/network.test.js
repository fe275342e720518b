// Networks that change under a page: the SDK in a real Chromium, whose WebTransport goes through a path that dies, heals, or moves.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openClient, until } from "../harness/chromium.js";
import { servePages } from "../harness/pages.js";
import { relay } from "../harness/relay.js";
import { Server } from "../harness/server.js";

/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof servePages>>} */
let pages;

before(async () => {
  [server, browser, pages] = await Promise.all([Server.start(), launch(), servePages()]);
});

after(async () => {
  await browser?.close();
  pages?.stop();
  await server?.stop();
});

/**
 * A page with a client whose WebTransport takes this path.
 * @param {string} user
 * @param {number} [port] of the path; straight to the server without it
 * @param {string} [transport] what it has to begin over
 */
async function open(user, port, transport = "webtransport") {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.addInitScript(paths, port ?? null);
  await page.goto(pages.url);
  if (transport === "websocket") await page.evaluate("path.rival = true");
  await openClient(page, { user, url: server.url });
  await until(page, CONNECTED);
  assert.equal(await page.evaluate("client.connection.transport"), transport);
  await page.evaluate("path.rival = true");
  return { page };
}

/**
 * In the page: `path` says which port WebTransport goes to instead of the server's, and whether it has a rival. It has none in the beginning:
 * on a machine that is busy the other might win. What the server says of itself stays as it is, for the client remembers it.
 * @param {number | null} port
 */
function paths(port) {
  const path = { port, rival: false };
  const [Quic, Tcp] = [globalThis.WebTransport, globalThis.WebSocket];
  const through = (/** @type {string | URL} */ to) => {
    const url = new URL(to);
    if (path.port) url.host = `127.0.0.1:${path.port}`;
    return url.href;
  };
  Object.assign(globalThis, {
    path,
    WebTransport: class extends Quic {
      /** @param {string | URL} url @param {WebTransportOptions} [options] */
      constructor(url, options) {
        super(through(url), options);
      }
    },
    WebSocket: class extends Tcp {
      /** @param {string | URL} url @param {string | string[]} [protocols] */
      constructor(url, protocols) {
        super(path.rival ? url : "ws://127.0.0.1:1/ws", protocols);
      }
    },
  });
}

const CONNECTED = 'client.connection.state === "connected"';

/**
 * How long it takes from now until the next session, in milliseconds; and over what.
 * @param {import("playwright-core").Page} page
 * @param {string} [first] is done in the page at the beginning
 * @returns {Promise<{ took: number, transport: string }>}
 */
const nextSession = (page, first = "") => page.evaluate(`new Promise((resolve, reject) => {
  const begun = performance.now();
  setTimeout(() => reject(new Error("in vain: " + JSON.stringify(client.connection))), 30000);
  client.addEventListener("connection", ({ detail: { state, transport } }) => {
    if (state === "connected") resolve({ took: Math.round(performance.now() - begun), transport });
  });
  ${first};
})`);

/** @param {import("playwright-core").Page} page @param {string} other */
const texts = (page, other) =>
  page.evaluate(`client.messages({ user: "${other}" }, { limit: 1000 }).then((all) => all.map(({ text }) => text))`);

test("a session that is dead when the browser says that there is a network again has a successor a second later", async (t) => {
  const old = await relay(server.secure);
  t.after(() => old.stop());
  const { page } = await open("alice", old.port);
  old.path.dark = true;
  await page.evaluate("Object.assign(path, { port: null, rival: false })");
  const begun = performance.now();
  // By itself a message that is not answered takes longer to be a reason.
  await page.evaluate('dispatchEvent(new Event("online")), void client.send({ user: "bob" }, "here I am")');
  await until(page, '(await client.messages({ user: "bob" }))[0]?.state === "sent"');
  const took = Math.round(performance.now() - begun);
  t.diagnostic(`online to sent: ${took} ms`);
  assert.ok(took < 1_900, `${took} ms`);
  assert.equal(await page.evaluate("client.connection.transport"), "webtransport");
  assert.deepEqual(await page.evaluate('seen.filter(([type, { state }]) => type === "connection" && state === "offline")'), []);
  await page.context().close();
});

test("a path that swallows UDP while somebody looks is noticed in seconds, and what is written goes over a WebSocket", async (t) => {
  const path = await relay(server.secure);
  t.after(() => path.stop());
  const { page } = await open("carol", path.port);
  path.path.dark = true;
  const idle = await nextSession(page);
  t.diagnostic(`only looked at: ${idle.took} ms to ${idle.transport}`);
  assert.ok(idle.took < 8_000, `${idle.took} ms`);
  assert.equal(idle.transport, "websocket");
  await page.context().close();
});

test("somebody who writes into a path that swallows UDP waits for a few seconds at most", async (t) => {
  const path = await relay(server.secure);
  t.after(() => path.stop());
  const { page } = await open("dave", path.port);
  path.path.dark = true;
  const { took, transport } = await nextSession(page, 'client.send({ user: "erin" }, "into the void")');
  t.diagnostic(`after a message: ${took} ms to ${transport}`);
  assert.ok(took < 5_000, `${took} ms`);
  assert.equal(transport, "websocket");
  await until(page, 'client.waiting === 0 && (await client.messages({ user: "erin" })).length === 1');
  await page.context().close();
});

test("a session goes on when a NAT gives its client another port", async (t) => {
  const path = await relay(server.secure);
  t.after(() => path.stop());
  const moves = async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    return Number(/^whimbrel_migrations_total\{[^}]*webtransport[^}]*\} (\d+)/m.exec(metrics)?.[1] ?? 0);
  };
  const before = await moves();
  const [{ page: frank }, { page: grace }] = await Promise.all([open("frank", path.port), open("grace")]);
  await frank.evaluate("seen.length = 0");
  for (let round = 0; round < 10; round++) {
    await frank.evaluate(`client.send({ user: "grace" }, "up ${round}")`);
    path.rebind();
    await until(frank, "client.waiting === 0");
    await grace.evaluate(`client.send({ user: "frank" }, "down ${round}")`);
    await until(frank, `(await client.messages({ user: "grace" })).some(({ text }) => text === "down ${round}")`);
  }
  assert.ok((await moves()) - before >= 8, `the server saw ${(await moves()) - before} moves of 10`);
  assert.deepEqual(await frank.evaluate('seen.filter(([type]) => type === "connection")'), [], "the session is the same");
  const expected = Array.from({ length: 10 }, (_, round) => [`up ${round}`, `down ${round}`]).flat();
  for (const [page, other] of /** @type {const} */ ([[frank, "grace"], [grace, "frank"]])) {
    await until(page, `(await client.messages({ user: "${other}" })).length === 20`);
    assert.deepEqual(await texts(page, other), expected);
    await page.context().close();
  }
});

test("messages come once and in order while the path dies, heals and moves", async (t) => {
  const path = await relay(server.secure, { delay: 20 });
  t.after(() => path.stop());
  const [{ page: heidi }, { page: ivan }] = await Promise.all([open("heidi", path.port), open("ivan")]);
  const expected = [];
  for (let round = 0; round < 4; round++) {
    for (let no = 0; no < 10; no++) {
      expected.push(`${round}/${no}`);
      await heidi.evaluate(`client.send({ user: "ivan" }, "${round}/${no}")`);
      if (no === 3) path.path.dark = true;
      if (no === 6) {
        path.rebind();
        path.path.dark = false;
        await heidi.evaluate('dispatchEvent(new Event("online"))');
      }
    }
    path.path.dark = round === 2;
    await until(heidi, "client.waiting === 0");
    path.path.dark = false;
  }
  await until(ivan, `(await client.messages({ user: "heidi" })).length >= ${expected.length}`);
  for (const [page, other] of /** @type {const} */ ([[heidi, "ivan"], [ivan, "heidi"]])) {
    assert.deepEqual(await texts(page, other), expected);
    assert.deepEqual(await page.evaluate('seen.filter(([type]) => type === "reset" || type === "conflict")'), []);
    await page.context().close();
  }
});

test("what changes in a form of the page is no change of the network", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(pages.url);
  const heard = await page.evaluate(`import("/environment.js").then(({ browser }) => {
    const heard = [];
    const hear = ({ type, target }) => heard.push([type, target === navigator.connection]);
    const stop = browser().on(["online", "change", "visibilitychange"], hear);
    const input = document.body.appendChild(document.createElement("input"));
    input.dispatchEvent(new Event("change", { bubbles: true }));
    navigator.connection.dispatchEvent(new Event("change"));
    dispatchEvent(new Event("online"));
    document.dispatchEvent(new Event("visibilitychange"));
    stop();
    const all = [window, document, navigator.connection];
    for (const target of all) target.dispatchEvent(new Event("online")), target.dispatchEvent(new Event("change"));
    return heard;
  })`);
  assert.deepEqual(heard, [["change", true], ["online", false], ["visibilitychange", false]]);
  await context.close();
});

/**
 * Has a page write without a pause until it is carried by this, and was for a while; each message says its number.
 * @param {import("playwright-core").Page} page
 * @param {string} other
 * @param {string} transport
 */
const write = (page, other, transport) => page.evaluate(`(async () => {
  globalThis.written ??= 0;
  for (let after = 0; after < 100; ) {
    await client.send({ user: "${other}" }, "text " + written++);
    if (client.connection.transport === "${transport}") after += 1;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
})()`);

/** In a page: all that came from them. @param {string} other */
const stored = (other) => `(async () => {
  const all = [];
  for (let before; ; ) {
    const page = await client.messages({ user: "${other}" }, { before, limit: 1000 });
    if (page.length === 0) return all.filter(({ from }) => from === "${other}").map(({ text }) => text);
    all.unshift(...page);
    before = page[0].seq;
  }
})()`;

/** What was shown of the connection. @param {import("playwright-core").Page} page */
const shown = (page) =>
  page.evaluate('seen.flatMap(([type, { state, transport }]) => (type === "connection" ? [state === "connected" ? transport : state] : []))');

test("a page that began over a WebSocket moves to WebTransport once UDP gets through, and notices nothing", async (t) => {
  const path = await relay(server.secure);
  t.after(() => path.stop());
  path.path.dark = true;
  const judy = await open("judy", path.port, "websocket");
  const ken = await open("ken");
  await judy.page.evaluate("seen.length = 0");
  path.path.dark = false;
  const begun = performance.now();
  // Each of what happens in the moment without a session was a reason to begin another one.
  await Promise.all([write(judy.page, "ken", "webtransport"), write(ken.page, "judy", "webtransport")]);
  await until(judy.page, 'client.connection.transport === "webtransport"');
  t.diagnostic(`it has moved, and has written for a while, ${Math.round(performance.now() - begun)} ms after UDP got through`);
  assert.deepEqual(await shown(judy.page), ["webtransport"], "nobody was told of a connection that is gone");
  for (const [from, to, other] of /** @type {const} */ ([[judy, ken, "judy"], [ken, judy, "ken"]])) {
    await until(from.page, "client.waiting === 0");
    const expected = Array.from({ length: /** @type {number} */ (await from.page.evaluate("written")) }, (_, no) => `text ${no}`);
    const heard = 'seen.flatMap(([type, { text }]) => (type === "message" ? [text] : []))';
    await until(to.page, `${heard}.length >= ${expected.length}`);
    assert.deepEqual(await to.page.evaluate(heard), expected, `what came from ${other}`);
  }
  await Promise.all([judy.page.context().close(), ken.page.context().close()]);
});

test("a session whose UDP is dropped and comes back falls back and moves up again, and every message comes once and in order", async (t) => {
  const path = await relay(server.secure);
  t.after(() => path.stop());
  const [laura, mike] = await Promise.all([open("laura", path.port), open("mike")]);
  await laura.page.evaluate("seen.length = 0");
  for (let round = 0; round < 2; round++) {
    path.path.dark = true;
    let begun = performance.now();
    await Promise.all([write(laura.page, "mike", "websocket"), write(mike.page, "laura", "webtransport")]);
    t.diagnostic(`fell back, and wrote 100 messages, in ${Math.round(performance.now() - begun)} ms`);
    path.path.dark = false;
    begun = performance.now();
    await write(laura.page, "mike", "webtransport");
    t.diagnostic(`moved up, and wrote 100 messages, in ${Math.round(performance.now() - begun)} ms`);
  }
  // What is in doubt is not gone: only the transport changes.
  assert.deepEqual(await shown(laura.page), ["websocket", "webtransport", "websocket", "webtransport"]);
  for (const [from, to, other] of /** @type {const} */ ([[laura, mike, "laura"], [mike, laura, "mike"]])) {
    await until(from.page, "client.waiting === 0");
    const expected = Array.from({ length: /** @type {number} */ (await from.page.evaluate("written")) }, (_, no) => `text ${no}`);
    await until(to.page, `(await ${stored(other)}).length >= ${expected.length}`);
    assert.deepEqual(await to.page.evaluate(stored(other)), expected, `what came from ${other}`);
  }
  await Promise.all([laura.page.context().close(), mike.page.context().close()]);
});
