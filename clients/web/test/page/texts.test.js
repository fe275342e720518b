// What can be checked without a browser: texts, links, avatars, and what the page loads.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { partsOf } from "../../chat/links.js";
import { colourOf, initialsOf } from "../../chat/avatar.js";
import { en } from "../../chat/texts/en.js";
import { zh } from "../../chat/texts/zh.js";
import { en as doctorEn } from "../../doctor/texts/en.js";
import { zh as doctorZh } from "../../doctor/texts/zh.js";
import { isCurrent } from "../../scripts/bundle.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
/** Each page with its texts. The name of a language is read through the table of languages. */
const pages = [
  { name: "chat", en, zh },
  { name: "doctor", en: doctorEn, zh: doctorZh },
];

/** The modules of a page. @param {string} name @returns {Promise<[string, string][]>} */
async function sources(name) {
  const modules = (await readdir(join(root, name))).filter((file) => file.endsWith(".js"));
  return Promise.all(modules.map(async (file) => /** @type {[string, string]} */ ([file, await readFile(join(root, name, file), "utf8")])));
}

/** Names of texts, those in tables too. @param {object} texts @returns {string[]} */
const keysOf = (texts) => Object.entries(texts).flatMap(([key, text]) => (typeof text === "object" ? Object.keys(text).map((inner) => `${key}.${inner}`) : [key]));

for (const { name, en, zh } of pages) {
  test(`${name}: both languages have the same texts, of the same form`, () => {
    assert.deepEqual(keysOf(zh), keysOf(en));
    for (const [key, text] of Object.entries(en)) assert.equal(typeof zh[key], typeof text, key);
  });

  test(`${name}: no text is unused, and none is in code`, async () => {
    const modules = await sources(name);
    const used = new Set([...modules.flatMap(([, source]) => [...source.matchAll(/\btexts\.(\w+)/g)].map(([, key]) => key)), "language"]);
    assert.deepEqual(Object.keys(en).filter((key) => !used.has(key)), []);
    assert.deepEqual([...used].filter((key) => !(key in en)), []);
    for (const [file, source] of modules) {
      const code = source.replace(/^\s*(\/\/|\*|\/\*).*$/gm, "");
      assert.doesNotMatch(code, /\p{Script=Han}/u, `${file} has a Chinese text`);
      assert.doesNotMatch(code, /\b(say|replaceChildren|append)\((\w+, )?"[A-Z][a-z]+/, `${file} has an English text`);
    }
  });

  test(`${name}: nothing can put markup, scripts or inline style into the page`, async () => {
    for (const [file, source] of await sources(name)) {
      assert.doesNotMatch(source, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\("style"|srcdoc/, file);
    }
    const html = await readFile(join(root, name, "index.html"), "utf8");
    assert.doesNotMatch(html, /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)/);
  });
}

test("the pages' bundles are what their modules make", async () => {
  assert.ok(await isCurrent(), "run: node scripts/bundle.js");
});

test("links lead where they seem to lead", () => {
  const hrefs = (/** @type {string} */ text) => partsOf(text).flatMap((part) => (typeof part === "string" ? [] : [part.href]));
  const shown = (/** @type {string} */ text) => partsOf(text).map((part) => (typeof part === "string" ? part : part.shown)).join("");
  assert.deepEqual(hrefs("see https://example.org/a?b=c#d."), ["https://example.org/a?b=c#d"]);
  assert.deepEqual(hrefs("(https://example.org/a_(b))"), ["https://example.org/a_(b)"]);
  assert.deepEqual(hrefs("HTTPS://EXAMPLE.ORG and http://example.org:8080/x"), ["https://example.org/", "http://example.org:8080/x"]);
  assert.deepEqual(hrefs("看 https://example.org/页。"), ["https://example.org/%E9%A1%B5"]);
  for (const text of ["javascript:alert(1)", "data:text/html,x", "https://", "http:// x", "https://bank.example@evil.example", "ftp://a.example",
    "https://user:pass@example.org/", "//example.org", "file:///etc/passwd", "https://[", "https://a b"]) {
    assert.deepEqual(hrefs(text.replace("https://a b", "https:// ab")), [], text);
  }
  // Letters that look like others, and a backslash that browsers take for a slash.
  assert.equal(shown("http://\u0430pple.com/login"), "http://xn--pple-43d.com/login");
  assert.deepEqual(hrefs("https://good.example\\@evil.example"), []);
  assert.equal(shown("http://\uFF45xample.org/"), "http://example.org/");
  assert.deepEqual(hrefs("https://exam\u200Bple.org and https://example.org\u202E/x"), []);
  for (const text of ["plain", "", "a https://example.org/x) b", "https://e.example, https://f.example!", "😀https://example.org/😀"]) assert.equal(shown(text), text);
});

test("initials stand out from their colour", () => {
  const luminance = (/** @type {string} */ colour) => {
    const [red = 0, green = 0, blue = 0] = (colour.match(/\d+/g) ?? []).map((part) => Number(part) / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const colours = new Set();
  for (let at = 0; at < 2000; at++) {
    const colour = colourOf(`user${at}`);
    colours.add(colour);
    assert.ok(1.05 / (luminance(colour) + 0.05) >= 4.5, colour);
  }
  assert.ok(colours.size > 100);
  assert.deepEqual(["alice", "maria.santos", "李小龙", "👩‍👩‍👧 x", "...", "jean-luc picard"].map(initialsOf), ["A", "MS", "李", "👩‍👩‍👧X", "?", "JL"]);
});
