// The server is killed, or leaves, under clients that connect again by themselves while somebody sends.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server } from "../harness/server.js";
import { Legacy, WAYS } from "./client.js";

/** @type {Server} */
let server;
before(async () => {
  server = await Server.start();
});
after(() => server.stop());

for (const way of WAYS) {
  for (const end of /** @type {const} */ (["kill", "leave"])) {
    test(`${way.join(", then ")}: messages sent while the server is gone (${end}) are there, once in the log`, async () => {
      const [a, b] = [`ann-${way.join("-")}-${end}`, `bob-${way.join("-")}-${end}`];
      const ann = await Legacy.user(server, way, a);
      const bob = await Legacy.user(server, way, b);
      /** @type {Map<string, object>} */
      const waiting = new Map();
      ann.socket.on("message:sent", ({ messageId, status }) => status === "sent" && waiting.delete(messageId));
      let count = 0;
      const timer = setInterval(() => {
        const message = { id: `m${(count += 1)}`, fromId: a, toId: b, content: `${count}` };
        waiting.set(message.id, message);
        ann.emit("message", message);
      }, 10);
      await bob.told("message", () => true, 5);
      await server.kill(end === "kill" ? "SIGKILL" : "SIGTERM");
      await server.restart();
      for (const client of [ann, bob]) await client.told("user:login:success", () => true, 2);
      await bob.told("message", ({ id }) => id === `m${count}`);
      clearInterval(timer);
      // What was on its way when the server went is sent again, as it was, by an app that looks at receipts.
      for (const message of waiting.values()) ann.emit("message", message);
      for (let at = 1; at <= count; at++) await bob.told("message", ({ id }) => id === `m${at}`);
      const history = await bob.ask("get_history", { friendId: a });
      assert.deepEqual(history.map((/** @type {any} */ { id }) => id).sort(), Array.from({ length: count }, (_, at) => `m${at + 1}`).sort());
      if (end === "leave") assert.ok(bob.all("server:shutdown").every(({ message }) => message.length > 0) && bob.all("server:shutdown").length === 1);
      for (const client of [ann, bob]) client.close();
    });
  }
}
