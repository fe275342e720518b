// The server is killed, or leaves, under clients that connect again by themselves while somebody sends.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server } from "../harness/server.js";
import { KINDS, Legacy, over } from "./client.js";

/** @type {Server} */
let server;
before(async () => {
  server = await Server.start();
});
after(async () => {
  await over();
  await server.stop();
});

for (const [at, kind] of KINDS.entries()) {
  for (const end of /** @type {const} */ (["kill", "leave"])) {
    test(`${kind.name}: messages sent while the server is gone (${end}) are there, once in the log`, async () => {
      const [a, b] = [`ann-${at}-${end}`, `bob-${at}-${end}`];
      const ann = await Legacy.user(kind, server, a);
      const bob = await Legacy.user(kind, server, b);
      let count = 0;
      const message = (/** @type {number} */ number) => ({ id: `m${number}`, fromId: a, toId: b, content: `${number}` });
      // What was told a while ago is not told again: it is written each half second how far clients have got.
      const early = 30;
      while (count < early) ann.emit("message", message((count += 1)));
      await bob.told("message", ({ id }) => id === `m${early}`);
      if (end === "kill") await new Promise((resolve) => setTimeout(resolve, 2_000));
      const timer = setInterval(() => ann.emit("message", message((count += 1))), 10);
      await bob.told("message", () => true, early + 5);
      await server.kill(end === "kill" ? "SIGKILL" : "SIGTERM");
      await server.restart();
      for (const client of [ann, bob]) await client.told("user:login:success", () => true, 2);
      const later = count + 5;
      await bob.told("message", ({ id }) => id === `m${later}`);
      clearInterval(timer);
      // What was on its way when the server went is sent again, as it was, by an app that looks at receipts.
      const sent = new Set(ann.all("message:sent").filter(({ status }) => status === "sent").map(({ messageId }) => messageId));
      for (let at = 1; at <= count; at++) if (!sent.has(`m${at}`)) ann.emit("message", message(at));
      for (let at = 1; at <= count; at++) await bob.told("message", ({ id }) => id === `m${at}`);
      const times = new Map();
      for (const { id } of bob.all("message")) times.set(id, (times.get(id) ?? 0) + 1);
      const again = [...times].filter(([id, number]) => number > 1 && Number(id.slice(1)) <= early);
      assert.deepEqual(again, [], "told again");
      const history = await bob.ask("get_history", { friendId: a });
      assert.deepEqual(history.map((/** @type {any} */ { id }) => id).sort(), Array.from({ length: count }, (_, at) => `m${at + 1}`).sort());
      if (end === "leave") assert.ok(bob.all("server:shutdown").every(({ message }) => message.length > 0) && bob.all("server:shutdown").length === 1);
      for (const client of [ann, bob]) client.close();
    });
  }
}
