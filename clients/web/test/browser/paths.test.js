// Streams and datagrams of a real Chromium: questions on streams of their own, typing in datagrams, copies where the path loses packets.

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
 * A page with a client over WebTransport, which counts what goes over which way in `ways`.
 * @param {string} user
 * @param {number} [port] of a path to the server
 */
async function open(user, port) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.route("**/.well-known/whimbrel", async (route) => {
    const response = await route.fetch();
    const known = await response.json();
    if (port) known.webtransport.url = `https://127.0.0.1:${port}/wt`;
    await route.fulfill({ response, json: known });
  });
  await page.goto(pages.url);
  await page.evaluate(`Promise.all([import("/copies.js"), import("/queries.js")]).then(([{ Copies }, { Queries }]) => {
    window.ways = { streams: 0, again: 0, hints: 0, lossy: 0, copied: 0 };
    const { createBidirectionalStream } = WebTransport.prototype;
    WebTransport.prototype.createBidirectionalStream = function () {
      ways.streams += 1;
      return createBidirectionalStream.call(this);
    };
    const { write } = WritableStreamDefaultWriter.prototype;
    const datagrams = new WeakSet();
    const { getWriter } = WritableStream.prototype;
    const out = Object.getOwnPropertyDescriptor(WebTransportDatagramDuplexStream.prototype, "writable").get;
    Object.defineProperty(WebTransportDatagramDuplexStream.prototype, "writable", { get() {
      const stream = out.call(this);
      datagrams.add(stream);
      return stream;
    } });
    const hinters = new WeakSet();
    WritableStream.prototype.getWriter = function () {
      const writer = getWriter.call(this);
      if (datagrams.has(this)) hinters.add(writer);
      return writer;
    };
    WritableStreamDefaultWriter.prototype.write = function (chunk) {
      if (hinters.has(this)) ways.hints += 1;
      return write.call(this, chunk);
    };
    const { onEnd } = Queries.prototype;
    Queries.prototype.onEnd = function (id) {
      const again = onEnd.call(this, id);
      if (again) ways.again += 1;
      return again;
    };
    const { onLossy, pollTransmit } = Copies.prototype;
    Copies.prototype.onLossy = function (now) {
      ways.lossy += 1;
      return onLossy.call(this, now);
    };
    Copies.prototype.pollTransmit = function (...args) {
      const datagram = pollTransmit.apply(this, args);
      if (datagram) ways.copied += 1;
      return datagram;
    };
  })`);
  await openClient(page, { user, url: server.url, transport: "webtransport" });
  await until(page, 'client.connection.state === "connected"');
  return page;
}

/**
 * @param {import("playwright-core").Page} page
 * @returns {Promise<{ streams: number, again: number, hints: number, lossy: number, copied: number }>}
 */
const ways = (page) => page.evaluate("ways");
/** @param {import("playwright-core").Page} page @param {string} other @returns {Promise<string[]>} */
const texts = (page, other) =>
  page.evaluate(`client.messages({ user: "${other}" }, { limit: 1000 }).then((all) => all.map(({ text }) => text))`);

test("each question has a stream of its own, however many are asked at once", async () => {
  const [alice, bob] = await Promise.all([open("alice"), open("bob")]);
  await alice.evaluate('Promise.all(Array.from({ length: 120 }, (_, no) => client.send({ user: "bob" }, "m" + no)))');
  await until(alice, "client.waiting === 0");
  await until(bob, '(await client.messages({ user: "alice" }, { limit: 200 })).length === 120');
  assert.equal((await ways(bob)).streams, 1);
  const page = await bob.evaluate(`client.loadHistory({ user: "alice" }, { before: 101, limit: 50 })
    .then(({ messages, more }) => [messages.map(({ text }) => text), more])`);
  assert.deepEqual(page, [Array.from({ length: 50 }, (_, no) => `m${no + 50}`), true]);
  assert.equal((await ways(bob)).streams, 2);
  const pages = await bob.evaluate(`Promise.all(Array.from({ length: 40 }, (_, no) =>
    client.loadHistory({ user: "alice" }, { before: 20 + no, limit: 10 }).then(({ messages }) => messages[0].text)))`);
  assert.deepEqual(pages, Array.from({ length: 40 }, (_, no) => `m${no + 9}`));
  const { streams } = await ways(bob);
  assert.ok(streams > 8, `${streams} streams`);
  assert.ok((await bob.evaluate("client.onlineUsers()")).includes("alice"));
  const after = await ways(bob);
  assert.deepEqual([after.streams, after.again], [streams + 1, 0], "those that have ended made room, and none ended without an answer");
  assert.deepEqual(await bob.evaluate('seen.filter(([type, { state }]) => type === "connection" && state !== "connected")'), []);
  await Promise.all([alice.context().close(), bob.context().close()]);
});

test("that somebody types is said in datagrams", async () => {
  const [carol, dave] = await Promise.all([open("carol"), open("dave")]);
  await carol.evaluate('client.send({ user: "dave" }, "x")');
  await until(dave, '(await client.messages({ user: "carol" })).length === 1');
  await until(carol, '(await client.messages({ user: "dave" }))[0].seq !== null');
  await carol.evaluate('client.typing({ user: "dave" }, true)');
  await until(dave, 'seen.some(([type, { user, active }]) => type === "typing" && user === "carol" && active)');
  await carol.evaluate('client.typing({ user: "dave" }, false)');
  await until(dave, 'seen.some(([type, { user, active }]) => type === "typing" && user === "carol" && !active)');
  assert.equal((await ways(carol)).hints, 2);
  await Promise.all([carol.context().close(), dave.context().close()]);
});

test("on a path that loses packets copies go both ways, and every message comes once and in order", async (t) => {
  const path = await relay(server.secure, { delay: 20 });
  t.after(() => path.stop());
  const [erin, frank] = await Promise.all([open("erin", path.port), open("frank")]);
  path.path.loss = 0.1;
  const expected = [];
  for (let no = 0; no < 60; no++) {
    const [from, to, name] = no % 2 === 0 ? [erin, frank, "frank"] : [frank, erin, "erin"];
    expected.push(`m${no}`);
    await from.evaluate(`client.send({ user: "${name}" }, "m${no}")`);
    await until(to, `(await client.messages({ user: "${name === "frank" ? "erin" : "frank"}" }, { limit: 1 }))[0]?.text === "m${no}"`);
  }
  const { lossy, copied } = await ways(erin);
  t.diagnostic(`${lossy} copies of events came, ${copied} datagrams with copies of commands went`);
  assert.ok(lossy > 10 && copied > 10, `${lossy} came, ${copied} went`);
  assert.deepEqual((await ways(frank)), { streams: 1, again: 0, hints: 0, lossy: 0, copied: 0 }, "none where nothing is lost");
  for (const [page, other] of /** @type {const} */ ([[erin, "frank"], [frank, "erin"]])) {
    await until(page, "client.waiting === 0");
    assert.deepEqual(await texts(page, other), expected);
    const broke = 'seen.filter(([type, { state }]) => type === "reset" || type === "conflict" || state === "offline")';
    assert.deepEqual(await page.evaluate(broke), []);
    await page.context().close();
  }
});
