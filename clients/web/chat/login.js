// The form that asks for a name.

import { accounts } from "./accounts.js";
import { avatar } from "./avatar.js";
import { el, set } from "./dom.js";
import { bird } from "./icons.js";
import { texts } from "./language.js";
import { languageChoice } from "./settings.js";
import { faultOf } from "./names.js";

/** @param {HTMLElement} place @param {string} [wanted] a name that was asked for; where it cannot be one, that is said
 * @returns {Promise<string>} the name */
export function askName(place, wanted = "") {
  return new Promise((resolve) => {
    const known = accounts();
    const input = el("input", {
      id: "login-name",
      type: "text",
      autocomplete: "username",
      autocapitalize: "none",
      spellcheck: "false",
      dir: "auto",
      "aria-describedby": "login-fault login-hint",
      oninput: () => fault.replaceChildren(),
    });
    const fault = el("p", { id: "login-fault", class: "loss", role: "alert" });
    const enter = (/** @type {string} */ name) => {
      const why = faultOf(name);
      set(input, "aria-invalid", why === null ? null : "true");
      if (why === null) return resolve(name);
      fault.replaceChildren(why);
      input.focus();
    };
    const recent = known.length === 0 ? null : el("div", { class: "recent" }, el("h2", {}, texts.loginRecent),
      ...known.map((name) => el("button", { type: "button", class: "account", onclick: () => enter(name) }, avatar(name, "small"), el("bdi", {}, name))));
    place.replaceChildren(el("main", { class: "login" },
      el("form", { class: "card", novalidate: true, onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        enter(input.value.trim());
      } },
      el("div", { class: "brand" }, bird(), el("h1", {}, texts.appName)),
      el("label", { for: "login-name" }, el("span", { class: "lead-in" }, texts.loginLead), el("span", { class: "unseen" }, ` ${texts.loginName}`)),
      input, fault,
      el("p", { id: "login-hint", class: "hint" }, texts.loginHint),
      el("button", { class: "primary", type: "submit" }, texts.loginEnter),
      recent),
      languageChoice()));
    input.focus();
    if (wanted !== "") {
      input.value = wanted;
      enter(wanted);
    }
  });
}
