// The JSON subprotocol from another language, with a library that knows nothing of Whimbrel: as its document says.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BINARY, Server } from "../harness/server.js";
import { PYTHON } from "./client.js";

const run = promisify(execFile);
const PATIENCE = 20_000;
const DOCUMENT = fileURLToPath(new URL("../../../../docs/protocol.md", import.meta.url));
const REPLAY = fileURLToPath(new URL("./transcript.py", import.meta.url));

/** @type {Server} */
let server;
before(async () => {
  server = await Server.start();
});
after(() => server.stop());

test("what two people say over JSON in the protocol's document is what is said", async () => {
  const { stdout } = await run(PYTHON, [REPLAY, `ws://${server.http}/ws`, DOCUMENT], { timeout: PATIENCE });
  assert.match(stdout, /^\d\d said, \d\d told$/m);
});

test("an answer that stands otherwise in the document is found", async () => {
  const text = readFileSync(DOCUMENT, "utf8");
  const changed = text.replace('"delivered":"1","read":"0"', '"delivered":"1","read":"1"');
  assert.notEqual(changed, text);
  const other = await Server.start();
  try {
    // From standard input: a copy of the document needs no place.
    const replay = run(PYTHON, [REPLAY, `ws://${other.http}/ws`, "-"], { timeout: PATIENCE });
    replay.child.stdin?.end(changed);
    await assert.rejects(replay, /alice was told .*"read": "0".*and waits for .*"read": "1"/s);
  } finally {
    await other.stop();
  }
});

test("the client in ten lines prints what comes", async () => {
  const [, code] = /### A client in ten lines[^]*?```python\n([^]*?)```/.exec(readFileSync(DOCUMENT, "utf8")) ?? [];
  assert.ok(code.includes("ws://127.0.0.1:8080/ws") && code.trim().split("\n").length <= 10);
  const child = spawn(PYTHON, ["-u", "-c", code.replace("127.0.0.1:8080", server.http)], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const end = Date.now() + PATIENCE;
    const send = (/** @type {string} */ text) => run(BINARY, ["send", "--as", "dan", "--to", "bob", "--url", server.url, "--state", server.folder, "--timeout", "20", text]);
    // It begins with what comes once it is there: so until one is heard.
    const heard = lines.next();
    for (let number = 1; ; number++) {
      await send(`hello ${number}`);
      const line = await Promise.race([heard, new Promise((resolve) => setTimeout(resolve, 200))]);
      if (line) {
        assert.match(line.value, /^\d+ dan hello \d+$/);
        return;
      }
      assert.ok(Date.now() < end, "nothing was printed");
    }
  } finally {
    child.kill();
  }
});
