// What must hold of a conversation, whatever was killed meanwhile: everything that a page accepted is there once, in the order in which
// its writer wrote it, under numbers without a gap, and both sides hold the same.

/** @typedef {{ seq: number | null, from: string, text: string }} Held a message as a device's store holds it */
/** @typedef {{ text: string, accepted: boolean }} Written what was typed, and whether the page had shown it before anything was killed */

/**
 * @param {Map<string, Written[]>} written by writer, in order
 * @param {Held[]} held what one device holds, in its order
 * @returns {string[]} what is wrong
 */
export function check(written, held) {
  /** @type {string[]} */
  const wrong = [];
  held.forEach(({ seq, text }, at) => {
    if (seq !== at + 1) wrong.push(`number ${seq} (${text}) where ${at + 1} belongs`);
  });
  for (const [from, list] of written) {
    const texts = held.filter((message) => message.from === from).map((message) => message.text);
    const places = new Map(list.map(({ text }, at) => [text, at]));
    /** @type {Set<string>} */
    const seen = new Set();
    let last = -1;
    for (const text of texts) {
      const place = places.get(text);
      if (place === undefined) wrong.push(`${from} never wrote ${text}`);
      else if (seen.has(text)) wrong.push(`${text} is there twice`);
      else if (place < last) wrong.push(`${text} is out of order`);
      else last = place;
      seen.add(text);
    }
    for (const { text, accepted } of list) if (accepted && !seen.has(text)) wrong.push(`${text} is lost`);
  }
  return wrong;
}

/**
 * @param {Held[]} one
 * @param {Held[]} other
 * @returns {string[]} where the two sides differ
 */
export function compare(one, other) {
  const line = (/** @type {Held | undefined} */ message) => (message ? `${message.seq} ${message.from}: ${message.text}` : "nothing");
  const wrong = [];
  for (let at = 0; at < Math.max(one.length, other.length); at += 1) {
    if (line(one[at]) !== line(other[at])) wrong.push(`one has ${line(one[at])}, the other ${line(other[at])}`);
  }
  return wrong;
}
