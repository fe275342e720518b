// Jumping to a person by name: one that is known, or one that is typed in full.

import { avatar } from "./avatar.js";
import { el, set } from "./dom.js";
import { icon } from "./icons.js";
import { texts } from "./language.js";
import { faultOf } from "./names.js";
import { nameOf } from "./thread.js";

/** @typedef {import("./state.js").State} State */

const SHOWN_MAX = 8;

/** @param {State} state @param {(user: string) => void} open */
export function makeJump(state, open) {
  let at = 0;
  /** @type {string[]} */
  let found = [];
  const input = el("input", {
    type: "text", role: "combobox", "aria-label": texts.jump, placeholder: texts.jumpHint, dir: "auto", "aria-expanded": "true",
    "aria-controls": "jump-results", "aria-autocomplete": "list", autocomplete: "off", autocapitalize: "none", spellcheck: "false",
    oninput: () => {
      at = 0;
      show();
    },
    onkeydown: pressed,
  });
  const results = el("div", { id: "jump-results", role: "listbox", "aria-label": texts.jumpResults });
  const fault = el("p", { class: "hint", role: "status" });
  const dialog = el("dialog", { class: "dialog jump", "aria-label": texts.jump, onclick: (/** @type {Event} */ event) => {
    if (event.target === dialog) dialog.close();
  } }, el("div", { class: "card" }, el("div", { class: "field" }, icon("search"), input), results, fault));

  /** Names with the letters first at their beginning, then anywhere; what was typed last, as somebody new. */
  function search() {
    const typed = input.value.trim();
    const wanted = typed.toLocaleLowerCase();
    const known = [...new Set([...state.conversations.keys(), ...state.online, state.user])];
    const shown = (/** @type {string} */ user) => nameOf(state, user).toLocaleLowerCase();
    const matching = known.filter((user) => user.toLocaleLowerCase().includes(wanted) || shown(user).includes(wanted));
    const begins = (/** @type {string} */ user) => (user.toLocaleLowerCase().startsWith(wanted) ? 0 : 1);
    if (wanted !== "") matching.sort((a, b) => begins(a) - begins(b));
    found = matching.slice(0, SHOWN_MAX);
    if (typed !== "" && !found.includes(typed) && faultOf(typed) === null) found.push(typed);
  }

  function show() {
    search();
    at = Math.min(at, Math.max(0, found.length - 1));
    results.replaceChildren(...found.map((user, index) => {
      const isNew = !state.conversations.has(user) && !state.online.has(user) && user !== state.user;
      return el("div", {
        id: `jump-${index}`, role: "option", class: "option", "aria-selected": String(index === at),
        onclick: () => choose(user),
      }, avatar(user, "small"), el("span", { dir: "auto" }, isNew ? texts.jumpStart(user) : nameOf(state, user)));
    }));
    set(input, "aria-activedescendant", found.length > 0 ? `jump-${at}` : null);
    const typed = input.value.trim();
    fault.textContent = found.length > 0 ? "" : (typed !== "" && faultOf(typed)) || texts.jumpNone;
  }

  /** @param {string} user */
  function choose(user) {
    dialog.close();
    open(user);
  }

  /** @param {KeyboardEvent} event */
  function pressed(event) {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined && found.length > 0) {
      event.preventDefault();
      at = (at + step + found.length) % found.length;
      show();
    } else if (event.key === "Enter") {
      event.preventDefault();
      const user = found[at];
      if (user !== undefined) choose(user);
    }
  }

  return {
    element: dialog,
    open() {
      if (dialog.open) return;
      input.value = "";
      at = 0;
      show();
      dialog.showModal();
      input.focus();
    },
  };
}
