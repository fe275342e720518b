// A path for UDP to a server that can change and go bad: it swallows everything, loses some, takes its time, or is suddenly seen under
// another port by the server, as behind a NAT that forgot.

import { createSocket } from "node:dgram";

/** Random numbers from 0 to 1 that are the same with each run. @param {number} seed */
function randoms(seed) {
  return () => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed / 2 ** 32;
  };
}

/**
 * @param {string} target host:port
 * @param {{ delay?: number, loss?: number, seed?: number }} [path] one way in milliseconds; the share of packets lost, each way
 */
export async function relay(target, { delay = 0, loss = 0, seed = 1 } = {}) {
  const [host, port] = target.split(":");
  const random = randoms(seed);
  const path = { dark: false, loss, delay };
  /** What the server sees of each client. @type {Map<number, import("node:dgram").Socket>} */
  const outer = new Map();
  const inner = createSocket("udp4");
  let stopped = false;
  /** @param {() => void} send */
  const carry = (send) => {
    if (path.dark || random() < path.loss) return;
    if (path.delay === 0) send();
    else setTimeout(() => stopped || send(), path.delay);
  };
  /** @param {number} client */
  const open = (client) => {
    const socket = createSocket("udp4");
    socket.on("message", (data) => carry(() => inner.send(data, client, "127.0.0.1")));
    outer.set(client, socket);
    return socket;
  };
  inner.on("message", (data, { port: client }) => carry(() => (outer.get(client) ?? open(client)).send(data, Number(port), host)));
  await new Promise((resolve) => inner.bind(0, "127.0.0.1", () => resolve(undefined)));
  return {
    port: inner.address().port,
    path,
    /** The server sees every client under another port from now on. What is on its way to the old one is lost. */
    rebind() {
      for (const [client, socket] of outer) {
        socket.close();
        open(client);
      }
    },
    stop() {
      stopped = true;
      inner.close();
      for (const socket of outer.values()) socket.close();
    },
  };
}
