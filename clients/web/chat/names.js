// What a name may be: the same rules as the server's, told before it has to refuse.

import { texts } from "./language.js";

const BYTES_MAX = 64;

/** What is wrong with a name, or nothing. @param {string} name without white space at its ends */
export function faultOf(name) {
  if (name === "") return texts.loginEmpty;
  if (/\p{Cc}/u.test(name)) return texts.loginBadCharacters;
  return new TextEncoder().encode(name).length > BYTES_MAX ? texts.loginTooLong : null;
}
