// Frames in memory to the protocol's JSON form and back, led by the same schema that the codec uses. Only tests need JSON.

import { clientFrame, serverFrame } from "../../src/codec/schema.js";

export const hex = (/** @type {Uint8Array} */ bytes) => Buffer.from(bytes).toString("hex");
export const unhex = (/** @type {string} */ text) => new Uint8Array(Buffer.from(text, "hex"));

/**
 * @param {any} value
 * @returns {any}
 */
export function toJson(value) {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(toJson);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, toJson(field)]));
}

/**
 * @param {"client" | "server"} from
 * @param {any} json
 */
export const fromJson = (from, json) => convert(from === "client" ? clientFrame : serverFrame, json);

/**
 * @param {any} type
 * @param {any} json
 * @returns {any}
 */
function convert(type, json) {
  if (json === null) return null;
  if (type.doc.endsWith("u64") && typeof json === "string") return BigInt(json);
  if ((type.doc === "bytes" || type.doc === "hash") && Array.isArray(json)) return new Uint8Array(json);
  if (type.inner) return Array.isArray(json) && type.doc.startsWith("list") ? json.map((item) => convert(type.inner, item)) : convert(type.inner, json);
  const table = type.table;
  if (!table) return json;
  if (table.tags) {
    if (typeof json === "string") return json;
    const [[name, held]] = Object.entries(json);
    return { [name]: convert(table.tags.find((/** @type {any} */ tag) => tag[0] === name)[1], held) };
  }
  if (table.numbers) return json;
  const value = Object.fromEntries(Object.entries(table.fields).map(([field, inner]) => [field, convert(inner, json[field])]));
  if (!table.kinds) return value;
  const kind = /** @type {any} */ (Object.values(table.kinds).find((/** @type {any} */ found) => found.kind === json.kind));
  return { ...value, kind: json.kind, body: convert(kind, json.body) };
}
