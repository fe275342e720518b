// A real server for tests: a process of its own with folders of its own, that can be killed and started again at the same address.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const BINARY = process.env.WHIMBREL_BIN ?? fileURLToPath(new URL("../../../../target/debug/whimbrel", import.meta.url));
const READY_TIMEOUT = 30_000;

export class Server {
  /** @param {string[]} [flags] */
  static async start(flags) {
    const server = new Server(mkdtempSync(join(tmpdir(), "whimbrel-web-")), flags);
    await server.run("127.0.0.1:0", "127.0.0.1:0");
    return server;
  }

  /** @param {string} folder @param {string[]} [flags] */
  constructor(folder, flags = []) {
    this.folder = folder;
    this.flags = flags;
    this.http = "";
    this.secure = "";
    /** @type {import("node:child_process").ChildProcess | undefined} */
    this.child = undefined;
  }

  get url() {
    return `http://${this.http}`;
  }

  /**
   * @param {string} http
   * @param {string} secure
   * @returns {Promise<void>}
   */
  run(http, secure) {
    const args = ["serve", "--http", http, "--secure", secure, "--data", join(this.folder, "data"), "--certs", join(this.folder, "certs"), ...this.flags];
    const child = (this.child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"] }));
    let out = "";
    let complaints = "";
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the server is not ready in time: ${complaints}`)), READY_TIMEOUT);
      child.on("error", (why) => reject(new Error(`${BINARY} does not run (${why.message}): build it, or name it in WHIMBREL_BIN`)));
      child.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${complaints}`)));
      child.stderr?.on("data", (data) => (complaints = (complaints + data).slice(-4_000)));
      child.stdout?.on("data", (data) => {
        out += data;
        const ready = /whimbrel ready http=(\S+) secure=(\S+)/.exec(out);
        if (!ready) return;
        clearTimeout(timer);
        [, this.http, this.secure] = ready;
        resolve();
      });
    });
  }

  /** Again at the same address, with the same store. */
  async restart() {
    await this.run(this.http, this.secure);
  }

  /** @param {NodeJS.Signals} [signal] */
  async kill(signal = "SIGKILL") {
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await exited;
  }

  async stop() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
