// What was being written when the page went. A page that goes has no time to wait for its database, which answers later or never: the last
// keys are kept where it takes no waiting, until the conversation is opened again.

/** @param {string} user @param {string} other */
const key = (user, other) => `whimbrel-left ${JSON.stringify([user, other])}`;

/** @param {string} user @param {string} other @param {string} text */
export function keepLeft(user, other, text) {
  try {
    localStorage.setItem(key(user, other), text);
  } catch {
    // Storage is forbidden or full: the draft is as old as its last pause.
  }
}

/** What was kept, once. @param {string} user @param {string} other @returns {string | null} */
export function takeLeft(user, other) {
  try {
    const text = localStorage.getItem(key(user, other));
    localStorage.removeItem(key(user, other));
    return text;
  } catch {
    return null;
  }
}
