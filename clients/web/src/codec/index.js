// Frames to bytes and back, and frames out of a stream of bytes. Throws nothing but CodecError, whatever the bytes.

import { CodecError } from "../errors.js";
import { Reader, Writer } from "./bytes.js";
import { clientFrame, clientState, serverFrame } from "./schema.js";

/** The longest frame, in bytes. */
export const MAX_FRAME = 64 * 1024;
/** The most bytes that a length takes on a stream. */
const MAX_PREFIX = 3;
/** The key of the extension that holds a `ClientState`. */
const STATE_EXTENSION = 1;

/** @param {number} length */
function checkLength(length) {
  if (length > MAX_FRAME) throw new CodecError(`a frame of ${length} bytes is longer than the ${MAX_FRAME} allowed`);
}

/**
 * @param {import("./types.js").Type} type
 * @param {Uint8Array} bytes
 */
function decode(type, bytes) {
  checkLength(bytes.length);
  const reader = new Reader(bytes);
  const frame = type.read(reader);
  if (reader.left > 0) throw new CodecError(`${reader.left} bytes after the end of the frame`);
  return frame;
}

/**
 * @param {import("./types.js").Type} type
 * @param {unknown} frame
 */
function encode(type, frame) {
  const writer = new Writer();
  type.write(writer, frame);
  checkLength(writer.length);
  return writer.done();
}

/**
 * @param {Uint8Array} bytes exactly one frame
 * @returns {import("./frames.js").ServerFrame}
 */
export const decodeServerFrame = (bytes) => decode(serverFrame, bytes);
/**
 * @param {Uint8Array} bytes exactly one frame
 * @returns {import("./frames.js").ClientFrame}
 */
export const decodeClientFrame = (bytes) => decode(clientFrame, bytes);
/** @param {import("./frames.js").ClientFrame} frame */
export const encodeClientFrame = (frame) => encode(clientFrame, frame);
/** Of a hello: how the client is from the beginning. @param {import("./frames.js").ClientState} state */
export const stateExtension = (state) => ({ key: STATE_EXTENSION, value: encode(clientState, state) });
/** @param {import("./frames.js").ServerFrame} frame */
export const encodeServerFrame = (frame) => encode(serverFrame, frame);

/**
 * The same bytes with their length before them, as on a stream.
 * @param {Uint8Array} frame
 */
export function withLength(frame) {
  const writer = new Writer();
  writer.bytesWithLength(frame);
  return writer.done();
}

/** Cuts a stream of bytes, however it comes in pieces, into frames. Holds at most one frame that has not come whole. */
export class FrameSplitter {
  constructor() {
    /** @type {Uint8Array} */
    this.rest = new Uint8Array(0);
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {Uint8Array[]} the frames that are whole now, without their lengths
   */
  push(bytes) {
    if (this.rest.length > 0) {
      const joined = new Uint8Array(this.rest.length + bytes.length);
      joined.set(this.rest);
      joined.set(bytes, this.rest.length);
      bytes = joined;
    }
    const frames = [];
    let at = 0;
    for (;;) {
      const found = findFrame(bytes, at);
      if (!found) break;
      frames.push(bytes.subarray(found.start, found.end));
      at = found.end;
    }
    this.rest = bytes.slice(at);
    return frames;
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function findFrame(bytes, at) {
  let length = 0;
  for (let index = 0; index < MAX_PREFIX; index++) {
    if (at + index >= bytes.length) return undefined;
    const byte = bytes[at + index];
    length |= (byte & 0x7f) << (7 * index);
    if (byte < 0x80) {
      checkLength(length);
      const start = at + index + 1;
      return bytes.length - start >= length ? { start, end: start + length } : undefined;
    }
  }
  throw new CodecError(`the length before a frame takes more than ${MAX_PREFIX} bytes`);
}
