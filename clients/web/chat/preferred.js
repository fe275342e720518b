// Which of our languages is wanted: for every page of ours.

/** @typedef {"en" | "zh"} Language */

const CHOICE = "whimbrel-language";

/** @param {string | null | undefined} tag @returns {Language | null} */
function known(tag) {
  const primary = tag?.toLowerCase().split("-")[0];
  return primary === "en" || primary === "zh" ? primary : null;
}

/** Storage may be forbidden; the page works without. @returns {string | null} */
function stored() {
  try {
    return localStorage.getItem(CHOICE);
  } catch {
    return null;
  }
}

/** The language asked for in the address, else the stored choice, else the first that the browser wants and we have. */
export const language = known(new URLSearchParams(location.search).get("lang"))
  ?? known(stored())
  ?? navigator.languages.map(known).find((tag) => tag !== null)
  ?? "en";

/** What `Intl` formats by: the browser's own variant of the language (`en-GB`), where it has one. */
export const locale = navigator.languages.find((tag) => known(tag) === language) ?? (language === "zh" ? "zh-CN" : "en");

/** Takes another language from now on. The page starts anew with it: what is shown comes from the store, drafts included.
 * @param {Language} tag */
export function chooseLanguage(tag) {
  try {
    localStorage.setItem(CHOICE, tag);
  } catch {
    // Then the address carries it.
  }
  const address = new URL(location.href);
  address.searchParams.set("lang", tag);
  location.replace(address);
}
