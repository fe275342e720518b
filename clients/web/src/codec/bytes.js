// Bytes in and out: varints, text and lengths as postcard has them. Reads nothing beyond the end, and allocates nothing that the bytes
// do not hold.

import { CodecError } from "../errors.js";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** @param {string} text */
export const utf8 = (text) => encoder.encode(text);

export class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  byte() {
    if (this.at >= this.bytes.length) throw new CodecError("a frame that is cut short");
    return this.bytes[this.at++];
  }

  /** @param {number} count */
  take(count) {
    if (count > this.left) throw new CodecError("something longer than the frame that holds it");
    return this.bytes.subarray(this.at, (this.at += count));
  }

  /**
   * A varint of at most `bits` bits, up to 32.
   * @param {number} bits
   */
  varint(bits) {
    let value = 0;
    for (let shift = 0; shift < bits; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value >= 2 ** bits) break;
        return value;
      }
    }
    throw new CodecError(`a number of more than ${bits} bits`);
  }

  /** A varint of at most 64 bits. */
  varint64() {
    // Most are small: numbers hold 49 bits, and are much faster than bigints.
    let low = 0;
    for (let shift = 0; shift < 49; shift += 7) {
      const byte = this.byte();
      low += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return BigInt(low);
    }
    let value = BigInt(low);
    for (let shift = 49n; shift < 70n; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (value > 0xffff_ffff_ffff_ffffn) break;
        return value;
      }
    }
    throw new CodecError("a number of more than 64 bits");
  }

  text() {
    const bytes = this.take(this.length());
    try {
      return decoder.decode(bytes);
    } catch {
      throw new CodecError("text that is not UTF-8");
    }
  }

  /** A length or count: what is longer than the rest of the frame is refused where it is used. */
  length() {
    const length = this.varint64();
    if (length > BigInt(this.left)) throw new CodecError("something longer than the frame that holds it");
    return Number(length);
  }
}

export class Writer {
  constructor() {
    this.bytes = new Uint8Array(128);
    this.length = 0;
  }

  /** @param {number} count */
  room(count) {
    if (this.length + count <= this.bytes.length) return;
    const bytes = new Uint8Array(Math.max(this.bytes.length * 2, this.length + count));
    bytes.set(this.bytes.subarray(0, this.length));
    this.bytes = bytes;
  }

  /** @param {number} byte */
  byte(byte) {
    this.room(1);
    this.bytes[this.length++] = byte;
  }

  /** @param {Uint8Array} bytes */
  put(bytes) {
    this.room(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** @param {number} value */
  varint(value) {
    while (value >= 0x80) {
      this.byte((value % 0x80) | 0x80);
      value = Math.floor(value / 0x80);
    }
    this.byte(value);
  }

  /** @param {bigint} value */
  varint64(value) {
    while (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      this.byte(Number(value & 0x7fn) | 0x80);
      value >>= 7n;
    }
    this.varint(Number(value));
  }

  /** @param {Uint8Array} bytes */
  bytesWithLength(bytes) {
    this.varint(bytes.length);
    this.put(bytes);
  }

  done() {
    return this.bytes.subarray(0, this.length);
  }
}
