// Clients of Socket.IO that are written only against the contract, with the libraries as they come: one face for all of them, and behind it
// the library for Node, the one for Python in a process of its own, or a page in Chromium.

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { io } from "socket.io-client";
import { launch } from "../harness/chromium.js";

const PATIENCE = 15_000;
/** The Python of the tests, with what their clients need. */
export const PYTHON = fileURLToPath(new URL("./.venv/bin/python", import.meta.url));

/** Who logs in. @typedef {{ id: string, name: string, avatar: string } | null} Login */
/** What a client is told to do, and does. @typedef {{ emit: (event: string, ...given: unknown[]) => void, ask: (number: number, event: string, data: unknown) => void, close: () => void }} Driver */
/** What it says: `event` with a name and data, `back` with a number and data, `connect`, `disconnect`. @typedef {(...line: any[]) => void} Hear */
/** `hasThreads` if its library takes each event in a thread of its own, in whatever order those run. @typedef {{ name: string, hasThreads?: boolean, open: (url: string, login: Login, hear: Hear) => Promise<Driver> | Driver }} Kind */

/** @param {string[]} transports @returns {Kind} */
const node = (...transports) => ({
  name: `socket.io-client over ${transports.join(", then ")}`,
  open(url, login, hear) {
    // The certificate is the server's own.
    const socket = io(url, { transports, forceNew: true, rejectUnauthorized: false, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    socket.on("connect", () => {
      hear("connect");
      if (login) socket.emit("user:login", login);
    });
    socket.on("disconnect", () => hear("disconnect"));
    socket.onAny((event, ...data) => hear("event", event, ...data));
    return {
      emit: (event, ...given) => void socket.emit(event, ...given),
      ask: (number, event, data) => void socket.timeout(PATIENCE).emit(event, data, (/** @type {any} */ why, /** @type {any} */ back) => hear("back", number, why ?? back)),
      close: () => void socket.disconnect(),
    };
  },
});

/** Bytes have a form of their own in lines of JSON. @param {string} name @param {any} value */
const fromBytes = (name, value) => (value?.type === "Buffer" ? { $bytes: Buffer.from(value.data).toString("base64") } : value);
/** @param {string} name @param {any} value */
const toBytes = (name, value) => (value?.$bytes === undefined ? value : Buffer.from(value.$bytes, "base64"));

/** @param {string[]} transports @returns {Kind} */
const python = (...transports) => ({
  name: `python-socketio over ${transports.join(", then ")}`,
  hasThreads: true,
  open(url, login, hear) {
    const child = spawn(PYTHON, [fileURLToPath(new URL("./client.py", import.meta.url)), JSON.stringify([url, transports, login])], { stdio: ["pipe", "pipe", "inherit"] });
    child.on("error", (why) => hear("event", "broken", `${PYTHON} does not run (test/run makes it): ${why.message}`));
    createInterface(child.stdout).on("line", (line) => hear(...JSON.parse(line, toBytes)));
    const say = (/** @type {unknown[]} */ ...line) => void child.stdin.write(`${JSON.stringify(line, fromBytes)}\n`);
    return { emit: (...given) => say("emit", ...given), ask: (...given) => say("ask", ...given), close: () => void child.stdin.end() };
  },
});

/** A browser and a place for the page, made when they are first asked for. */
class Pages {
  async open() {
    const files = { "/": new URL("./page.html", import.meta.url), "/socket.io.js": new URL("../../node_modules/socket.io-client/dist/socket.io.js", import.meta.url) };
    this.server = createServer(async (request, response) => {
      const path = /** @type {keyof typeof files} */ (new URL(request.url ?? "/", "http://127.0.0.1").pathname);
      response.setHeader("content-type", path === "/" ? "text/html" : "text/javascript");
      response.end(await readFile(files[path]));
    });
    await new Promise((resolve) => this.server?.listen(0, "127.0.0.1", () => resolve(null)));
    this.browser = await launch();
    return this;
  }

  get url() {
    return `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (this.server?.address()).port}/`;
  }

  async close() {
    await this.browser?.close();
    this.server?.closeAllConnections();
    this.server?.close();
  }
}

/** @type {Promise<Pages> | undefined} */
let pages;

/** @type {Kind} */
const page = {
  name: "a page in Chromium",
  async open(url, login, hear) {
    const { browser, url: place } = await (pages ??= new Pages().open());
    const page = await /** @type {import("playwright-core").Browser} */ (browser).newPage();
    await page.exposeFunction("heard", (/** @type {string} */ line) => hear(...JSON.parse(line, toBytes)));
    await page.goto(`${place}?${new URLSearchParams({ server: url, login: JSON.stringify(login) })}`);
    // One after the other, as they were said.
    let turn = Promise.resolve();
    const take = (/** @type {unknown[]} */ ...line) => {
      const given = JSON.parse(JSON.stringify(line, fromBytes));
      turn = turn.then(() => page.evaluate((line) => /** @type {any} */ (window).take(...line), given)).catch((why) => hear("event", "broken", String(why)));
    };
    return { emit: (...given) => take("emit", ...given), ask: (...given) => take("ask", ...given), close: () => void (turn = turn.then(() => page.close())) };
  },
};

/** What was told, to be compared with what should have been: of a kind with threads no order is known. @param {Kind} kind @param {string[]} told */
export const inOrder = (kind, told) => (kind.hasThreads ? [...told].sort() : told);

/** Every client of which there are many. @type {Kind[]} */
export const KINDS = [node("websocket"), node("polling"), node("polling", "websocket"), python("websocket"), python("polling", "websocket"), page];

/** @type {Set<Legacy>} */
const opened = new Set();

/** Once no client is needed any more. */
export async function over() {
  for (const client of opened) client.close();
  await (await pages)?.close();
}

/** A client that notes everything it is told. */
export class Legacy {
  /** @type {[string, any][]} */
  log = [];
  asked = 0;
  /** @type {Driver | undefined} */
  driver;

  /** @param {string} name what it is, for people */
  constructor(name) {
    this.name = name;
  }

  /** One that says nothing by itself, or logs in each time it is connected. @param {Kind} kind @param {{ url: string }} server @param {Login} login */
  static async open(kind, server, login) {
    const client = new Legacy(kind.name);
    opened.add(client);
    client.driver = await kind.open(server.url, login, (what, ...rest) => client.log.push(what === "event" ? [rest[0], rest[1]] : [what, what === "back" ? rest : undefined]));
    await client.told("connect");
    return client;
  }

  /** @param {Kind} kind @param {{ url: string }} server @param {string} id @param {string} [name] */
  static async user(kind, server, id, name = id) {
    const client = await Legacy.open(kind, server, { id, name, avatar: `https://example.org/${id}.png` });
    await client.told("user:login:success");
    return client;
  }

  /** @param {string} event @param {unknown[]} given */
  emit(event, ...given) {
    this.driver?.emit(event, ...given);
  }

  /** Asks, and waits to be called back. @param {string} event @param {unknown} data @returns {Promise<any>} */
  async ask(event, data) {
    const number = (this.asked += 1);
    this.driver?.ask(number, event, data);
    return (await this.told("back", ([to]) => to === number))[1];
  }

  /** All data of an event so far. @param {string} event @returns {any[]} */
  all(event) {
    return this.log.filter(([name]) => name === event).map(([, data]) => data);
  }

  /** Waits until an event was told, the `count`th that fits. @param {string} event @param {(data: any) => boolean} [fits] @param {number} [count] */
  async told(event, fits = () => true, count = 1) {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const found = this.log.filter(([name, data]) => name === event && fits(data))[count - 1];
      if (found) return found[1];
      if (Date.now() > end) throw new Error(`${this.name}: ${event} was not told; told was ${JSON.stringify(this.log.slice(-20))}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  close() {
    if (opened.delete(this)) this.driver?.close();
  }
}
