// From the wire's 64 bits to numbers, and back.

import { WhimbrelError } from "./errors.js";

/**
 * @param {bigint} value
 */
export function toNumber(value) {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new WhimbrelError("numberTooLarge", `${value} is beyond what this SDK can hold (2^53 - 1): use a client of another language`);
}

/**
 * @param {number} value
 * @param {string} what
 */
export function toBigInt(value, what) {
  if (Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  throw new WhimbrelError("badArgument", `${what} must be a whole number from 0 to 2^53 - 1, not ${value}`);
}
