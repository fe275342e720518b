// Draws the icons that have to be pictures of pixels, from icon.svg: `node scripts/icons.js`.

import { readFile, writeFile } from "node:fs/promises";
import { launch } from "../test/page/browser.js";

const folder = new URL("../chat/icons/", import.meta.url);
const svg = await readFile(new URL("icon.svg", folder), "utf8");
// What a launcher may cut to any shape reaches to the edges.
const maskable = svg.replace('rx="15"', 'rx="0"').replace("translate(8.5 9) scale(0.72)", "translate(14 14.5) scale(0.55)");

const browser = await launch();
for (const [name, size, drawing] of [["icon-192", 192, svg], ["icon-512", 512, svg], ["icon-maskable-512", 512, maskable]]) {
  const page = await browser.newPage({ viewport: { width: size, height: size } });
  await page.setContent(`<body style="margin:0">${drawing.replace("<svg ", `<svg width="${size}" height="${size}" style="display:block" `)}`);
  await writeFile(new URL(`${name}.png`, folder), await page.screenshot({ omitBackground: true }));
  await page.close();
}
await browser.close();
