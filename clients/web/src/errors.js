// Every error that the SDK throws or reports has a code that programs compare, and a message that says what was wrong and what to do.

/** An error of the SDK. */
export class WhimbrelError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "WhimbrelError";
    this.code = code;
  }
}

/** Bytes that are not a frame of this protocol, or a value that is none. The only error that the codec throws. */
export class CodecError extends WhimbrelError {
  /** @param {string} message */
  constructor(message) {
    super("malformed", message);
    this.name = "CodecError";
  }
}

/**
 * What any thrown value says, as `{ code, message }`.
 * @param {unknown} why
 * @returns {{ code: string, message: string }}
 */
export function describe(why) {
  if (why instanceof WhimbrelError) return { code: why.code, message: why.message };
  if (why instanceof Error) return { code: why.name, message: why.message || why.name };
  return { code: "unknown", message: String(why) };
}

/** @type {Record<number, string>} */
export const CODES = {
  1: "internal", 2: "overloaded", 3: "helloTimeout", 4: "idle", 5: "storeUnavailable",
  200: "malformed", 201: "unsupportedVersion", 202: "frameTooLong", 203: "unauthorized", 204: "replaced", 205: "windowExceeded",
  206: "outboxConflict", 207: "tooManyDevices",
  300: "unsupported", 301: "notFound", 302: "tooLong", 303: "empty", 304: "failed",
};

/**
 * Whether a server that ends a session with this code says that connecting again the same way is of no use: the range is the
 * instruction, so that a number without a name can be acted on too.
 * @param {string} code a name, or digits
 */
export function givesUp(code) {
  const known = Object.entries(CODES).find(([, name]) => name === code);
  const number = Number(known ? known[0] : code);
  return number >= 200 && number <= 299;
}
