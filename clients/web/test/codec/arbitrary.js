// Any frame there can be, made from the same schema that the codec uses.

import fc from "fast-check";

const U64 = 0xffff_ffff_ffff_ffffn;
const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 }).filter((text) => {
  const bytes = Buffer.byteLength(text);
  return bytes >= 1 && bytes <= 64 && !/\p{Cc}/u.test(text) && !/^\p{White_Space}|\p{White_Space}$/u.test(text);
});
/** Numbers near the steps of a varint, too. */
const u64 = fc.oneof(fc.bigInt(0n, U64), fc.integer({ min: 0, max: 63 }).map((bits) => (1n << BigInt(bits)) - 1n), fc.integer({ min: 0, max: 63 }).map((bits) => 1n << BigInt(bits)));
const nibbles = fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString("hex"));

/**
 * @param {any} type
 * @param {any} nameType the schema's type of names, which differs from text in its bounds only
 * @returns {fc.Arbitrary<any>}
 */
export function arbitrary(type, nameType) {
  if (type === nameType) return name;
  const { doc, inner, table } = type;
  if (inner) {
    const held = arbitrary(inner, nameType);
    return doc.startsWith("list") ? fc.array(held, { maxLength: 3 }) : fc.option(held);
  }
  if (table?.tags) {
    return fc.oneof(...table.tags.map((/** @type {any} */ [tag, held]) => (held ? arbitrary(held, nameType).map((value) => ({ [tag]: value })) : fc.constant(tag))));
  }
  if (table?.numbers) {
    const names = Object.values(table.numbers);
    return fc.oneof(fc.constantFrom(...names), fc.integer({ min: 0, max: 65535 }).map((number) => table.numbers[number] ?? String(number)));
  }
  if (table) {
    const fields = fc.record(Object.fromEntries(Object.entries(table.fields).map(([field, held]) => [field, arbitrary(held, nameType)])), { noNullPrototype: true });
    if (!table.kinds) return fields;
    const body = fc.oneof(...Object.values(table.kinds).map((/** @type {any} */ held) => arbitrary(held, nameType).map((value) => ({ kind: held.kind, body: value }))));
    return fc.tuple(fields, body).map(([head, rest]) => ({ ...head, ...rest }));
  }
  switch (doc) {
    case "u8": return fc.integer({ min: 0, max: 255 });
    case "u16": return fc.integer({ min: 0, max: 65535 });
    case "u32": return fc.oneof(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.integer({ min: 0, max: 31 }).map((bits) => 2 ** bits));
    case "u64": return u64;
    case "bool": return fc.boolean();
    case "text": return fc.string({ unit: "binary", maxLength: 12 });
    case "bytes": return fc.uint8Array({ maxLength: 5 });
    case "hash": return fc.uint8Array({ minLength: 32, maxLength: 32 });
    case "nonce": return nibbles;
    default: throw new Error(`no arbitrary for ${doc}`);
  }
}
