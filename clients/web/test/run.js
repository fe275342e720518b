// Runs what `test/run` names: types, size, then every test file. The last line says how many passed and failed.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "node:test";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** What an application loads, minified and compressed with gzip, at most. */
const SIZE_MAX = 25 * 1024;
/** Test files at once: each has a server of its own. */
const CONCURRENCY = 2;
const TIMEOUT = 300_000;

let passed = 0;
let failed = 0;
/**
 * @param {string} name
 * @param {boolean} works
 * @param {string} [detail]
 */
function report(name, works, detail = "") {
  if (works) passed += 1;
  else failed += 1;
  console.log(`${works ? "ok    " : "FAILED"} ${name}${detail && (works ? `: ${detail}` : `\n${detail}`)}`);
}

function types() {
  for (const [project, name] of [[ROOT, "types are right"], [join(ROOT, "chat"), "types of the chat page are right"], [join(ROOT, "doctor"), "types of the doctor page are right"]]) {
    const { status, stdout } = spawnSync(process.execPath, [join(ROOT, "node_modules/typescript/bin/tsc"), "--project", project], { encoding: "utf8", cwd: ROOT });
    report(name, status === 0, stdout);
  }
}

async function size() {
  const { outputFiles } = await build({ entryPoints: [join(ROOT, "src/index.js")], bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  const [{ contents }] = outputFiles;
  const gzip = gzipSync(contents, { level: 9 }).length;
  const kib = (/** @type {number} */ bytes) => `${(bytes / 1024).toFixed(1)} KiB`;
  const detail = `${kib(contents.length)} minified, ${kib(gzip)} with gzip (at most ${kib(SIZE_MAX)}), ${kib(brotliCompressSync(contents).length)} with brotli`;
  report("the SDK is small", gzip <= SIZE_MAX, detail);
}

/** The lock file names packages, and no place to get them from; the package depends on nothing at run time. */
function packaging() {
  const lock = readFileSync(join(ROOT, "package-lock.json"), "utf8");
  report("the lock file names no registry", !lock.includes('"resolved"'));
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const loose = Object.entries(manifest.devDependencies).filter(([, version]) => !/^\d/.test(String(version)));
  report("nothing is needed at run time, and development dependencies are pinned", !manifest.dependencies && loose.length === 0, loose.join());
}

/** @param {string[]} files */
async function tests(files) {
  for await (const { type, data } of run({ files, concurrency: CONCURRENCY, timeout: TIMEOUT })) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    // A file is reported too, once it is through: it counts only where it failed before its tests could.
    const isFile = files.some((file) => data.name === file || file.endsWith(data.name));
    if (isFile && (type === "test:pass" || data.details.error?.failureType === "subtestsFailed")) continue;
    const error = /** @type {any} */ (data.details.error);
    report(data.name, type === "test:pass", type === "test:fail" ? String(error?.cause?.stack ?? error?.stack ?? error) : "");
  }
}

/** @param {string} folder @returns {string[]} */
const testFiles = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? testFiles(path) : entry.name.endsWith(".test.js") ? [path] : [];
  });

/** Every view as it looks, kept to be looked at. */
function pictures() {
  const { status, stderr } = spawnSync(process.execPath, [join(ROOT, "test/page/shots.js"), "--few"], { encoding: "utf8", cwd: ROOT });
  report("pictures of every view are in test/screenshots, and no page complained", status === 0 && stderr === "", stderr);
}

const named = process.argv.slice(2);
if (named.length === 0) {
  types();
  await size();
  packaging();
}
if (named.length === 0) pictures();
await tests(named.length > 0 ? named.map((file) => join(process.cwd(), file)) : testFiles(join(ROOT, "test")));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
