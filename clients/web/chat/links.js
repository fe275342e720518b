// Finds web addresses in a text. A link must lead where it seems to lead.

/** @typedef {string | { href: string, shown: string }} Part */

// Ends at white space, quotes, angle brackets, backslashes, control characters and everything invisible.
const CANDIDATE = /https?:\/\/[^\s<>"'`\\\p{C}]+/giu;

/** Punctuation at the end belongs to the sentence; a closing bracket only if it was not opened inside. @param {string} text */
function withoutTail(text) {
  for (;;) {
    const last = text.at(-1) ?? "";
    if (/[.,;:!?…。，；：！？、*_~]/u.test(last)) text = text.slice(0, -1);
    else if (")]}）】》」".includes(last) && !opened(text, last)) text = text.slice(0, -1);
    else return text;
  }
}

/** @param {string} text @param {string} close */
function opened(text, close) {
  const open = "([{（【《「"[")]}）】》」".indexOf(close)] ?? "";
  return text.split(open).length >= text.split(close).length;
}

/** @param {string} written @returns {Part} */
function link(written) {
  if (!URL.canParse(written)) return written;
  const url = new URL(written);
  // `https://bank.example@evil.example` leads to evil.example.
  if (url.username !== "" || url.password !== "" || url.hostname === "") return written;
  const host = written.slice(written.indexOf("//") + 2).split(/[/?#]/u, 1)[0] ?? "";
  // Look-alike letters show as what they are: the parsed address has punycode.
  const plain = host.toLowerCase() === url.host || host.toLowerCase() === `${url.host}:${url.protocol === "http:" ? 80 : 443}`;
  return { href: url.href, shown: plain ? written : url.href };
}

/** The text in parts: plain ones and links. @param {string} text @returns {Part[]} */
export function partsOf(text) {
  /** @type {Part[]} */
  const parts = [];
  let done = 0;
  for (const match of text.matchAll(CANDIDATE)) {
    const written = withoutTail(match[0]);
    const part = link(written);
    // What goes on behind something invisible, or a backslash that browsers take for a slash, would seem to be part of the link.
    const next = text.slice(match.index + match[0].length);
    if (typeof part === "string" || /^[\\\p{Cf}]/u.test(next)) continue;
    if (match.index > done) parts.push(text.slice(done, match.index));
    parts.push(part);
    done = match.index + written.length;
  }
  if (done < text.length) parts.push(text.slice(done));
  return parts;
}
