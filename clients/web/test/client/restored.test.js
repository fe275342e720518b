// Stores that are put back or copied, the device's and the server's: every disagreement has its name, and nothing is lost in silence.

import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Client } from "../../src/client.js";
import { checked } from "../../src/open.js";
import { MemoryDatabase } from "../../src/store/memory.js";
import { load } from "../../src/store/views.js";
import { closeAll, openTab, until } from "../harness/client.js";
import { FakeBrowser } from "../harness/environment.js";
import { Server } from "../harness/server.js";

/** @type {Server} */
let server;
before(async () => void (server = await Server.start()));
after(async () => {
  await closeAll();
  await server?.stop();
});

/**
 * A client over a database that the test holds.
 * @param {MemoryDatabase} db
 * @param {string} user
 * @param {string} url
 */
async function over(db, user, url) {
  const client = new Client(new FakeBrowser().tab(), checked({ user, url }), db, undefined, await load(db, { user, device: "device" }), undefined);
  /** @type {[string, any][]} */
  const told = [];
  for (const type of ["reset", "conflict"]) client.addEventListener(type, (event) => told.push([type, /** @type {CustomEvent} */ (event).detail]));
  const texts = async (/** @type {string} */ other) => (await client.messages({ user: other }, { limit: 1000 })).map(({ text, state }) => `${text} ${state}`);
  return { client, told, texts };
}

/** @param {MemoryDatabase} db */
function copy(db) {
  const clone = new MemoryDatabase();
  for (const [name, { keys, values }] of db.tables) {
    const table = Object.create(Object.getPrototypeOf(db.tables.get(name)));
    clone.tables.set(name, Object.assign(table, structuredClone({ keys, values })));
  }
  return clone;
}

test("a device whose store was put back is told, loses nothing, and doubles nothing", async () => {
  const db = new MemoryDatabase();
  const first = await over(db, "alice", server.url);
  await first.client.send({ user: "bob" }, "one");
  await until(async () => (await first.texts("bob")).join() === "one sent", "it is sent");
  const backup = copy(db);
  await first.client.send({ user: "bob" }, "two");
  await until(async () => (await first.texts("bob")).join() === "one sent,two sent", "it is sent");
  await first.client.close();

  const second = await over(backup, "alice", server.url);
  await second.client.send({ user: "bob" }, "three");
  await until(async () => (await second.texts("bob")).join() === "one sent,two sent,three sent", "the other life's message, and this one's");
  assert.deepEqual(second.told.map(([type]) => type), ["conflict"]);
  assert.equal(second.client.waiting, 0);
  await second.client.close();
});

test("a device whose command got through before its store was put back does not repeat it", async () => {
  const db = new MemoryDatabase();
  const offline = await over(db, "carol", "http://127.0.0.1:1");
  await offline.client.send({ user: "dave" }, "only once");
  await offline.client.close();
  const backup = copy(db);
  for (const life of [db, backup]) {
    const { client, texts } = await over(life, "carol", server.url);
    await until(async () => (await texts("dave")).join() === "only once sent", "it is sent");
    await client.close();
  }
  const dave = await openTab({ user: "dave", url: server.url });
  await until(async () => (await dave.texts("carol")).length > 0, "it arrives");
  assert.deepEqual(await dave.texts("carol"), ["only once"]);
  await dave.client.close();
});

test("a server that was put back has its name, and the device goes on with what the server has", async (t) => {
  const home = await Server.start();
  t.after(() => home.stop());
  const db = new MemoryDatabase();
  const { client, told, texts } = await over(db, "erin", home.url);
  await client.send({ user: "frank" }, "kept");
  await until(async () => (await texts("frank")).join() === "kept sent", "it is sent");
  const [data, backup] = [join(home.folder, "data"), join(home.folder, "backup")];
  await home.kill("SIGTERM");
  cpSync(data, backup, { recursive: true });
  await home.restart();
  client.reconnect();
  await client.send({ user: "frank" }, "lost");
  await until(async () => (await texts("frank")).join() === "kept sent,lost sent", "it is sent");
  await home.kill("SIGTERM");
  rmSync(data, { recursive: true });
  cpSync(backup, data, { recursive: true });
  await home.restart();
  client.reconnect();
  await until(() => told.some(([type]) => type === "conflict") && told.some(([type]) => type === "reset"), "both are told of");
  await client.send({ user: "frank" }, "after");
  await until(async () => (await texts("frank")).join() === "kept sent,after sent", "as the server has it now");
  await client.close();
});
