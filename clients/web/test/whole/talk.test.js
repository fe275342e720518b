// The whole road, as people walk it: two pages of the real server in a real browser, over every transport and through every mishap.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, afterEach, before, test } from "node:test";
import { join } from "node:path";
import { launch } from "../harness/chromium.js";
import { BINARY, Server } from "../harness/server.js";
import { Person, until } from "./people.js";

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Server} */
let server;

before(async () => {
  [browser, server] = await Promise.all([launch(), Server.start()]);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

// What is open would come back when a later test starts the server again.
afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()));
});

/**
 * @param {string} name
 * @param {string} other
 * @param {string} [more]
 */
const person = async (name, other, more) => new Person(await browser.newContext(), server.url, name, other, more).open();

/** Sessions by transport, as the server counts them. */
async function sessions() {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return Object.fromEntries([...text.matchAll(/^whimbrel_sessions\{transport="([^"]+)"\} (\d+)$/gm)].map(([, name, count]) => [name, Number(count)]));
}

// Where the transport is the point it is asked for: left to the race, a machine that is busy for a quarter of a second gets a WebSocket.
const OVER_QUIC = "&transport=webtransport";

test("two pages over WebTransport, a third over WebSocket because UDP is refused to it", async () => {
  const alice = await person("alice", "bob", OVER_QUIC);
  const bob = await person("bob", "alice", OVER_QUIC);
  await Promise.all([alice.uses("webtransport"), bob.uses("webtransport")]);
  await alice.say("Hello Bob");
  await bob.sees("Hello Bob");
  await alice.sent("Hello Bob", "delivered", "read");
  await bob.say("Hello Alice 👋");
  await alice.sees("Hello Alice 👋");
  await alice.sent("Hello Bob", "read");

  // A browser that reaches a closed port where QUIC listens: what a firewall that refuses UDP does to it.
  const port = server.secure.split(":")[1];
  const walled = await launch([`--host-resolver-rules=MAP 127.0.0.1:${port} 127.0.0.1:9`]);
  try {
    const carol = await new Person(await walled.newContext(), server.url, "carol", "alice").open();
    await carol.uses("websocket");
    await carol.say("From behind the wall");
    await carol.sent("From behind the wall", "sent", "delivered");
    const again = await new Person(await browser.newContext(), server.url, "alice", "carol", OVER_QUIC).open();
    await again.sees("From behind the wall");
    await again.say("I hear you");
    await carol.sees("I hear you");
    assert.equal((await sessions()).websocket, 1);
  } finally {
    await walled.close();
  }
});

test("where UDP gets through the race takes WebTransport", async () => {
  const walter = await person("walter", "xena");
  await walter.uses("webtransport");
});

test("one can ask for WebSocket", async () => {
  const alice = await person("alice", "bob", "&transport=websocket");
  await alice.uses("websocket");
});

test("a reload keeps everything, also what is only half written", async () => {
  const erin = await person("erin", "frank");
  for (const text of ["one", "two", "three"]) await erin.say(`erin ${text}`);
  await erin.sent("erin three", "sent");
  const before = await erin.holds();
  await erin.box.fill("half a sent");
  await erin.tab.reload();
  await erin.sees("erin three");
  assert.equal(await erin.box.inputValue(), "half a sent");
  assert.deepEqual(await erin.holds(), before);
});

test("the server is killed and started again while they type", async () => {
  const grace = await person("grace", "heidi");
  const heidi = await person("heidi", "grace");
  await grace.say("before");
  await heidi.sees("before");
  await grace.box.pressSequentially("a thought that is ");
  await server.kill();
  await grace.uses("none");
  await grace.box.pressSequentially("not interrupted");
  await grace.box.press("Enter");
  await grace.sent("a thought that is not interrupted", "sending");
  await heidi.say("written in the dark");
  await heidi.sent("written in the dark", "sending");
  await server.restart();
  await Promise.all([grace.sees("written in the dark"), heidi.sees("a thought that is not interrupted")]);
  await grace.sent("a thought that is not interrupted", "delivered", "read");
});

test("two tabs of one user are one device and show the same", async () => {
  const ivan = await person("ivan", "judy", OVER_QUIC);
  const first = ivan.tab;
  await ivan.uses("webtransport");
  const before = await sessions();
  await ivan.open();
  await ivan.uses("webtransport");
  await ivan.say("from the second tab");
  await ivan.sent("from the second tab", "sent");
  const other = new Person(ivan.context, server.url, "ivan", "judy");
  other.page = first;
  await other.sees("from the second tab");
  await other.say("from the first");
  await ivan.sees("from the first");
  assert.deepEqual(await sessions(), before, "the second tab opened no session of its own");

  // The tab that has the connection goes: the other takes over.
  await first.close();
  await ivan.uses("webtransport");
  await ivan.say("alone again");
  await ivan.sent("alone again", "sent");
});

test("a page opens without the server, shows what it has, and sends later", async () => {
  const mallory = await person("mallory", "niaj");
  await mallory.say("kept for later");
  await mallory.sent("kept for later", "sent");
  await mallory.tab.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
  await server.kill();
  try {
    await mallory.tab.close();
    await mallory.open();
    await mallory.sees("kept for later");
    await mallory.uses("none");
    await mallory.say("written offline");
    await mallory.sent("written offline", "sending");
  } finally {
    await server.restart();
  }
  await mallory.sent("written offline", "sent");
});

test("the certificate is renewed while a page is open", async () => {
  const olivia = await person("olivia", "peggy", OVER_QUIC);
  await olivia.uses("webtransport");
  const hashes = async () => (await (await fetch(`${server.url}/.well-known/whimbrel`)).json()).webtransport.certificateHashes;
  const before = await hashes();
  const total = async () => Number(/^whimbrel_sessions_total\{transport="webtransport"\} (\d+)$/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1]);
  const count = await total();
  execFileSync(BINARY, ["certs", "renew", "--certs", join(server.folder, "certs")]);
  await until("the server uses the new certificate", hashes, (now) => now[0] !== before[0]);
  await olivia.say("still here");
  await olivia.sent("still here", "sent");
  assert.equal(await total(), count, "nobody was dropped");
  await olivia.tab.reload();
  await olivia.uses("webtransport");
  await olivia.sees("still here");
});
