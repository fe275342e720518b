// The building blocks of `frames.js`: each knows how to read and write one sort of value, and by which name `docs/protocol.md` calls it.
// Values have the shapes of the protocol's JSON form, but for three: `u64` is a bigint, `bytes` and `hash` are a Uint8Array.

import { CodecError } from "../errors.js";
import { Reader, utf8, Writer } from "./bytes.js";

/**
 * @typedef {object} Type
 * @property {string} doc how docs/protocol.md writes it
 * @property {(from: Reader) => any} read
 * @property {(to: Writer, value: any) => void} write
 * @property {Type} [inner] of a list or what is optional
 * @property {any} [table] what it is made of, for the test that compares it with docs/protocol.md
 */

/**
 * @param {string} what
 * @returns {never}
 */
function refuse(what) {
  throw new CodecError(`not a value of the protocol: ${what}`);
}

/**
 * @param {string} doc
 * @param {number} bits
 * @returns {Type}
 */
function number(doc, bits) {
  return {
    doc,
    read: (from) => (bits === 8 ? from.byte() : from.varint(bits)),
    write(to, value) {
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits) refuse(`${value} as ${doc}`);
      if (bits === 8) to.byte(value);
      else to.varint(value);
    },
  };
}

export const u8 = number("u8", 8);
export const u16 = number("u16", 16);
export const u32 = number("u32", 32);

/** @type {Type} */
export const u64 = {
  doc: "u64",
  read: (from) => from.varint64(),
  write(to, value) {
    if (typeof value !== "bigint" || value < 0n || value > 0xffff_ffff_ffff_ffffn) refuse(`${value} as u64`);
    to.varint64(value);
  },
};

/** @type {Type} */
export const bool = {
  doc: "bool",
  read(from) {
    const byte = from.byte();
    if (byte > 1) refuse(`${byte} as bool`);
    return byte === 1;
  },
  write: (to, value) => (typeof value === "boolean" ? to.byte(value ? 1 : 0) : refuse(`${value} as bool`)),
};

/** @type {Type} */
export const text = {
  doc: "text",
  read: (from) => from.text(),
  write: (to, value) => (typeof value === "string" ? to.bytesWithLength(utf8(value)) : refuse(`${typeof value} as text`)),
};

/**
 * Says what is wrong with a user id or device name; nothing if it can be one.
 * @param {string} name
 */
export function nameFault(name) {
  const bytes = utf8(name).length;
  if (bytes < 1 || bytes > 64) return `it has ${bytes} bytes of UTF-8, and must have 1 to 64`;
  if (/\p{Cc}/u.test(name)) return "it has a control character in it";
  if (/^\p{White_Space}|\p{White_Space}$/u.test(name)) return "it begins or ends with white space";
  return undefined;
}

/** @type {Type} */
export const name = {
  doc: "text",
  read(from) {
    const value = from.text();
    const fault = nameFault(value);
    return fault ? refuse(`a name: ${fault}`) : value;
  },
  write(to, value) {
    const fault = typeof value === "string" ? nameFault(value) : "it is not text";
    return fault ? refuse(`a name: ${fault}`) : text.write(to, value);
  },
};

/** @type {Type} */
export const bytes = {
  doc: "bytes",
  read: (from) => from.take(from.length()).slice(),
  write: (to, value) => (value instanceof Uint8Array ? to.bytesWithLength(value) : refuse("something else than bytes")),
};

/** @type {Type} */
export const nonce = {
  doc: "nonce",
  read: (from) => Array.from(from.take(8), (byte) => byte.toString(16).padStart(2, "0")).join(""),
  write(to, value) {
    if (!/^[0-9a-f]{16}$/i.test(value)) refuse(`${value} as nonce`);
    for (let at = 0; at < 16; at += 2) to.byte(parseInt(value.slice(at, at + 2), 16));
  },
};

/** @type {Type} */
export const hash = {
  doc: "hash",
  read: (from) => from.take(32).slice(),
  write: (to, value) => (value instanceof Uint8Array && value.length === 32 ? to.put(value) : refuse("something else than a hash")),
};

/**
 * @param {Type} type
 * @returns {Type}
 */
export function optional(type) {
  return {
    doc: `optional ${type.doc}`,
    inner: type,
    read: (from) => (bool.read(from) ? type.read(from) : null),
    write(to, value) {
      bool.write(to, value !== null && value !== undefined);
      if (value !== null && value !== undefined) type.write(to, value);
    },
  };
}

/**
 * @param {Type} type
 * @returns {Type}
 */
export function list(type) {
  return {
    doc: `list of ${type.doc}`,
    inner: type,
    read(from) {
      // Nothing takes less than a byte, so a count cannot be beyond the bytes that are left.
      const values = [];
      for (let left = from.length(); left > 0; left--) values.push(type.read(from));
      return values;
    },
    write(to, value) {
      if (!Array.isArray(value)) refuse("something else than a list");
      to.varint(value.length);
      for (const item of value) type.write(to, item);
    },
  };
}

/**
 * A structure: its fields in order.
 * @param {string} doc
 * @param {Record<string, Type>} fields
 * @returns {Type}
 */
export function struct(doc, fields) {
  const entries = Object.entries(fields);
  return {
    doc,
    table: { fields },
    read(from) {
      /** @type {Record<string, unknown>} */
      const value = {};
      for (const [field, type] of entries) value[field] = type.read(from);
      return value;
    },
    write(to, value) {
      if (typeof value !== "object" || value === null) refuse(`${value} as ${doc}`);
      for (const [field, type] of entries) type.write(to, value[field]);
    },
  };
}

/**
 * A choice: `"name"` where it holds nothing, else `{ name: … }`.
 * @param {string} doc
 * @param {[string, Type | null][]} tags
 * @returns {Type}
 */
export function choice(doc, tags) {
  return {
    doc,
    table: { tags },
    read(from) {
      const tag = from.varint(32);
      if (tag >= tags.length) refuse(`${tag} as ${doc}`);
      const [name, type] = tags[tag];
      return type ? { [name]: type.read(from) } : name;
    },
    write(to, value) {
      const held = typeof value === "object" && value !== null;
      const names = held ? Object.keys(value) : [value];
      const tag = names.length === 1 ? tags.findIndex(([name, type]) => name === names[0] && Boolean(type) === held) : -1;
      if (tag < 0) refuse(`${names.join(" and ")} as ${doc}`);
      to.varint(tag);
      tags[tag][1]?.write(to, value[names[0]]);
    },
  };
}

/**
 * An open number: a name, or digits where the number has none here.
 * @param {string} doc
 * @param {Record<number, string>} names
 * @returns {Type}
 */
export function open(doc, names) {
  const numbers = new Map(Object.entries(names).map(([number, name]) => [name, Number(number)]));
  return {
    doc,
    table: { numbers: names },
    read(from) {
      const number = from.varint(16);
      return names[number] ?? String(number);
    },
    write(to, value) {
      const digits = /^[0-9]{1,5}$/.test(value) ? Number(value) : undefined;
      u16.write(to, numbers.get(value) ?? digits);
    },
  };
}

/**
 * A structure whose last two fields are the kind of its body and the body, which is stepped over if it cannot be read: then `kind` is
 * `"unknown"` and `body` is `null`.
 * @param {string} doc
 * @param {Record<string, Type>} fields
 * @param {string} bodyDoc
 * @param {Record<number, Type & { kind: string }>} kinds
 * @returns {Type}
 */
export function envelope(doc, fields, bodyDoc, kinds) {
  const head = struct(doc, fields);
  const numbers = new Map(Object.entries(kinds).map(([number, type]) => [type.kind, Number(number)]));
  return {
    doc,
    table: { fields, bodyDoc, kinds },
    read(from) {
      const value = head.read(from);
      const type = kinds[from.varint(16)];
      const body = new Reader(from.take(from.length()));
      value.kind = "unknown";
      value.body = null;
      try {
        // Bytes after the fields that are known here are a later version's.
        if (type) [value.body, value.kind] = [type.read(body), type.kind];
      } catch (why) {
        if (!(why instanceof CodecError)) throw why;
      }
      return value;
    },
    write(to, value) {
      head.write(to, value);
      const number = numbers.get(value.kind);
      if (number === undefined) return refuse(`${value.kind} as a kind of ${bodyDoc}`);
      const body = new Writer();
      kinds[number].write(body, value.body);
      to.varint(number);
      to.bytesWithLength(body.done());
    },
  };
}

/**
 * @param {string} kind
 * @param {Type} type
 */
export const kind = (kind, type) => ({ ...type, kind });
