// Chromium for tests.

import { chromium } from "playwright-core";
import { existsSync } from "node:fs";

const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export function launch() {
  const executablePath = places.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("Chromium is missing: install it, or name it in the environment variable CHROMIUM");
  return chromium.launch({ executablePath, args: ["--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
}
