// Which modules the page needs, by what they import.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("../../", import.meta.url));

/** @returns {Promise<string[]>} paths in this package, sorted */
export async function modulesOf() {
  /** @type {Set<string>} */
  const needed = new Set();
  const walk = async (/** @type {URL} */ url) => {
    const path = fileURLToPath(url).slice(web.length);
    if (needed.has(path)) return;
    needed.add(path);
    const source = await readFile(url, "utf8");
    for (const [, found] of source.matchAll(/^(?:import|export)\b[^;]*?\sfrom\s+"(\.[^"]+)"/gm)) await walk(new URL(found ?? "", url));
  };
  await walk(new URL("../../chat/main.js", import.meta.url));
  return [...needed].sort();
}
