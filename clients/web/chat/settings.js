// The dialog with what is rarely needed: who one is, the connection, the language, the keys.

import { el, say } from "./dom.js";
import { icon } from "./icons.js";
import { chooseLanguage, language, languages, texts } from "./language.js";
import { connectionFactWords } from "./connection.js";

/** @typedef {import("./state.js").State} State */

const command = /mac|iphone|ipad/iu.test(navigator.userAgent) ? "⌘" : "Ctrl";

/** The name of the key for jumping, as this machine's keyboards have it. */
export const jumpKeys = `${command} K`;

/** One button a language, each named in its own. */
export function languageChoice() {
  const buttons = Object.entries(languages).map(([tag, { language: name }]) => el("button", {
    type: "button",
    class: "choice",
    lang: tag,
    "aria-pressed": String(tag === language),
    onclick: () => chooseLanguage(/** @type {keyof typeof languages} */ (tag)),
  }, name));
  return el("div", { class: "choices", role: "group", "aria-label": texts.settingsLanguage }, ...buttons);
}

/** @param {State} state */
export function connectionFact(state) {
  const fact = el("dd");
  const show = () => say(fact, connectionFactWords(state));
  state.addEventListener("connection", show);
  show();
  return fact;
}

/** The list of keys, where there may be a keyboard. */
export function keyList() {
  /** @type {[string, string][]} */
  const keys = [["Enter", texts.keySend], ["Shift Enter", texts.keyBreak], [jumpKeys, texts.keyJump], ["Esc", texts.keyBack]];
  return el("div", { class: "only-keyboard" }, el("h3", {}, texts.settingsKeys),
    el("dl", { class: "keys" }, ...keys.flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])));
}

/** @param {State} state @param {() => void} leave */
export function makeSettings(state, leave) {
  const dialog = el("dialog", { class: "dialog settings", "aria-labelledby": "settings-title", onclick: (/** @type {Event} */ event) => {
    // A click beside the card.
    if (event.target === dialog) dialog.close();
  } }, el("div", { class: "card" },
    el("header", {},
      el("h2", { id: "settings-title" }, texts.settings),
      el("button", { class: "button", type: "button", "aria-label": texts.close, title: texts.close, onclick: () => dialog.close() }, icon("close"))),
    el("dl", { class: "facts" },
      el("dt", {}, texts.settingsAccount), el("dd", {}, el("bdi", {}, state.user)),
      el("dt", {}, texts.settingsDevice), el("dd", {}, state.client.device),
      el("dt", {}, texts.settingsConnection), connectionFact(state)),
    el("h3", {}, texts.settingsLanguage), languageChoice(),
    keyList(),
    el("button", { class: "secondary", type: "button", onclick: leave }, texts.settingsLeave)));
  return dialog;
}
