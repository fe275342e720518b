// Makes what pages load of their modules and the SDK's, one script a page: `node scripts/bundle.js` after any of them changed. Fifty modules
// cost a tenth of a second at every start. A test says when it has to run.

import { readFile, mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** A page's first module, its bundle, and how old a browser may be. The second has to run where the first does not. */
const pages = [
  { from: "chat/main.js", to: "dist/page.js", target: "es2022" },
  { from: "doctor/main.js", to: "dist/doctor.js", target: "es2020" },
].map(({ from, to, target }) => ({ from, to: new URL(`../${to}`, import.meta.url), target }));

/** @param {{ from: string, target: string }} page @returns {Promise<string>} */
async function bundle({ from, target }) {
  const banner = { js: `// Made by scripts/bundle.js of clients/web/${from.split("/")[0]} and clients/web/src: read those.` };
  const entry = fileURLToPath(new URL(`../${from}`, import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", target, charset: "utf8", banner, write: false });
  return outputFiles[0].text;
}

/** Whether what is there is what the modules make. */
export async function isCurrent() {
  const current = await Promise.all(pages.map(async (page) => (await readFile(page.to, "utf8").catch(() => "")) === (await bundle(page))));
  return current.every(Boolean);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const page of pages) {
    await mkdir(new URL(".", page.to), { recursive: true });
    await writeFile(page.to, await bundle(page));
  }
}
