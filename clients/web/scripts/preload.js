// Writes the modules that the page loads into index.html, so that all are fetched at once: `node scripts/preload.js` after a module came
// or went. A test says when it has to run.

import { readFile, writeFile } from "node:fs/promises";
import { modulesOf } from "../test/page/modules.js";

const index = new URL("../chat/index.html", import.meta.url);
const links = (await modulesOf()).filter((path) => path !== "chat/main.js").map((path) => `<link rel="modulepreload" href="/web/${path}">\n`);
const html = (await readFile(index, "utf8")).replace(/<link rel="modulepreload"[^>]*>\n/g, "");
await writeFile(index, html.replace('<script type="module"', `${links.join("")}<script type="module"`));
