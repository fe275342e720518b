// A client of Socket.IO that is written only against the contract, with the library as it comes from npm.

import { io } from "socket.io-client";
import { Server } from "../harness/server.js";

/** The ways in which the library connects: WebSocket only, polling only, and from polling to WebSocket. */
export const WAYS = /** @type {const} */ ([["websocket"], ["polling"], ["polling", "websocket"]]);
const PATIENCE = 15_000;

/** A socket that notes everything it is told. */
export class Legacy {
  /** @param {Server} server @param {readonly string[]} transports */
  constructor(server, transports) {
    this.transports = transports;
    /** @type {[string, any][]} */
    this.log = [];
    this.socket = io(server.url, { transports: [...transports], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    this.socket.onAny((event, data) => this.log.push([event, data]));
    this.socket.on("disconnect", (why) => this.log.push(["disconnect", why]));
  }

  /** One that logs in, each time it is connected. @param {Server} server @param {readonly string[]} transports @param {string} id @param {string} [name] */
  static async user(server, transports, id, name = id) {
    const client = new Legacy(server, transports);
    client.socket.on("connect", () => client.emit("user:login", { id, name, avatar: `https://example.org/${id}.png` }));
    await client.told("user:login:success");
    return client;
  }

  /** @param {string} event @param {unknown[]} given */
  emit(event, ...given) {
    this.socket.emit(event, ...given);
  }

  /** Asks, and waits to be called back. @param {string} event @param {unknown} data @returns {Promise<any>} */
  ask(event, data) {
    return this.socket.timeout(PATIENCE).emitWithAck(event, data);
  }

  /** All data of an event so far. @param {string} event @returns {any[]} */
  all(event) {
    return this.log.filter(([name]) => name === event).map(([, data]) => data);
  }

  /** Waits until an event was told, the `count`th that fits. @param {string} event @param {(data: any) => boolean} [fits] @param {number} [count] */
  async told(event, fits = () => true, count = 1) {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const found = this.all(event).filter(fits)[count - 1];
      if (found !== undefined) return found;
      if (Date.now() > end) throw new Error(`${this.transports}: ${event} was not told; told was ${JSON.stringify(this.log.slice(-20))}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  close() {
    this.socket.disconnect();
  }
}
