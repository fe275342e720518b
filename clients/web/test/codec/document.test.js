// The schema is what docs/protocol.md says: the tables there are read and compared, structure by structure.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { CODES } from "../../src/errors.js";
import { clientFrame, serverFrame } from "../../src/codec/schema.js";

const document = readFileSync(new URL("../../../../docs/protocol.md", import.meta.url), "utf8");

/**
 * The cells of a table in the section with this title, without the last column.
 * @param {string} title
 * @returns {string[][]}
 */
function table(title) {
  const section = document.split(/^### /m).find((part) => part.startsWith(`${title}\n`));
  assert.ok(section, `docs/protocol.md says nothing of ${title}`);
  const rows = section.split("\n").filter((line) => line.startsWith("| ") && !/^\| ?(tag|kind|field|number|range|---)/.test(line));
  return rows.map((row) => row.split("|").slice(1, -2).map((cell) => cell.trim().replaceAll("`", ""))).filter((cells) => !/^\d+–/.test(cells[0]));
}

/** @type {Map<string, string[][]>} */
const found = new Map();

/** @param {any} type */
function collect(type) {
  if (type.inner) return collect(type.inner);
  const { doc, table } = type;
  if (!table || found.has(doc)) return undefined;
  if (table.numbers) found.set(doc, Object.entries(table.numbers).map(([number, name]) => [number, name]));
  else if (table.tags) {
    found.set(doc, table.tags.map((/** @type {any} */ [name, held], /** @type {number} */ tag) => [String(tag), name, held?.doc ?? ""]));
    for (const [, held] of table.tags) if (held) collect(held);
  } else {
    const fields = Object.entries(table.fields).map(([field, held]) => [field, /** @type {any} */ (held).doc]);
    found.set(doc, table.kinds ? [...fields, ["kind", `kind of ${table.bodyDoc}`], ["body", table.bodyDoc]] : fields);
    for (const held of Object.values(table.fields)) collect(held);
    if (!table.kinds) return undefined;
    found.set(table.bodyDoc, Object.entries(table.kinds).map(([number, held]) => [number, /** @type {any} */ (held).kind, /** @type {any} */ (held).doc]));
    for (const held of Object.values(table.kinds)) collect(held);
  }
  return undefined;
}

collect(clientFrame);
collect(serverFrame);

test("every structure stands in docs/protocol.md as it is here", () => {
  assert.ok(found.size > 40);
  for (const [title, rows] of found) {
    const width = rows[0].length;
    assert.deepEqual(rows, table(title).map((cells) => cells.slice(0, width)), title);
  }
});

test("every structure of docs/protocol.md is here", () => {
  const section = document.slice(document.indexOf("\n## Frames"), document.indexOf("\n## A session"));
  const titles = [...section.matchAll(/^### (\w+)$/gm)].map((match) => match[1]);
  assert.deepEqual(titles.filter((title) => !found.has(title)), []);
});

test("the error codes are those of docs/protocol.md", () => {
  assert.deepEqual(Object.entries(CODES), table("ErrorCode"));
});
