// The third pane of wide screens: who one talks to, and what there is to know about the connection.

import { avatar } from "./avatar.js";
import { el, say } from "./dom.js";
import { texts } from "./language.js";
import { connectionFact, keyList } from "./settings.js";
import { nameOf } from "./thread.js";

/** @param {import("./state.js").State} state */
export function makeDetails(state) {
  const face = el("div", { class: "portrait" });
  const name = el("h2", { dir: "auto" });
  const presence = el("p", { class: "status" });
  const person = el("div", { class: "person-card" }, face, name, presence);
  const element = el("section", { class: "details", "aria-label": texts.details }, person,
    el("dl", { class: "facts" },
      el("dt", {}, texts.settingsConnection), connectionFact(state),
      el("dt", {}, texts.settingsDevice), el("dd", {}, state.client.device)),
    keyList());

  /** @type {string | null} */
  let shown = null;
  function show() {
    const { open } = state;
    person.hidden = open === null;
    if (open === null) return;
    if (open !== shown) face.replaceChildren(avatar(open, "large"));
    shown = open;
    say(name, nameOf(state, open));
    const known = state.presence(open);
    say(presence, known === "online" ? texts.online : known === "offline" ? texts.offline : texts.presenceUnknown);
  }
  state.addEventListener("open", show);
  state.addEventListener("people", show);
  show();
  return element;
}
