// Makes `dist/page.js`, the one script that the chat page loads, of the page's modules and the SDK's: `node scripts/bundle.js` after any of
// them changed. Fifty modules cost a tenth of a second at every start. A test says when it has to run.

import { readFile, mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const from = fileURLToPath(new URL("../chat/main.js", import.meta.url));
const to = new URL("../dist/page.js", import.meta.url);

/** @returns {Promise<string>} */
async function bundle() {
  const banner = { js: "// Made by scripts/bundle.js of clients/web/chat and clients/web/src: read those." };
  const { outputFiles } = await build({ entryPoints: [from], bundle: true, minify: true, format: "esm", target: "es2022", charset: "utf8", banner, write: false });
  return outputFiles[0].text;
}

/** Whether what is there is what the modules make. */
export async function isCurrent() {
  return (await readFile(to, "utf8").catch(() => "")) === (await bundle());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await mkdir(new URL(".", to), { recursive: true });
  await writeFile(to, await bundle());
}
