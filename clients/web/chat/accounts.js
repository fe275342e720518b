// Which names were used in this browser, newest first. Only a convenience: everything else is in each account's own store.

const KEY = "whimbrel-accounts";
const KEPT = 5;

/** @returns {string[]} */
export function accounts() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((name) => typeof name === "string").slice(0, KEPT) : [];
  } catch {
    return [];
  }
}

/** @param {string} user */
export function rememberAccount(user) {
  try {
    localStorage.setItem(KEY, JSON.stringify([user, ...accounts().filter((name) => name !== user)].slice(0, KEPT)));
  } catch {
    // Storage is forbidden or full: the name has to be typed next time.
  }
}
