// A path to a server that can go bad: connections that are there fall silent, as when a phone leaves a network without a word.

import { connect, createServer } from "node:net";

/** @param {string} target host:port */
export async function proxy(target) {
  const [host, port] = target.split(":");
  /** @type {Set<import("node:net").Socket>} */
  const sockets = new Set();
  /** @type {Set<import("node:net").Socket>} */
  const silent = new Set();
  const server = createServer((client) => {
    const upstream = connect(Number(port), host);
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      sockets.add(one);
      one.on("data", (data) => !silent.has(one) && other.write(data));
      one.on("close", () => {
        sockets.delete(one);
        if (!silent.has(one)) other.destroy();
      });
      one.on("error", () => {});
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${address.port}`,
    /** What is connected now hears nothing more; new connections work. */
    fallSilent: () => sockets.forEach((socket) => silent.add(socket)),
    stop() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
