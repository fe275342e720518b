// Lines above everything else: what went wrong, and what one can do about it.

import { endedWords } from "./connection.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { texts } from "./language.js";

/** @param {import("./state.js").State} state @param {() => void} leave to another name */
export function makeNotices(state, leave) {
  const element = el("div", { class: "notices", role: "alert" });
  /** @type {HTMLElement | null} */
  let ended = null;
  let warned = "";

  /** @param {string} text @param {{ loss?: boolean, action?: [string, () => void], closable?: boolean }} how */
  function add(text, { loss = false, action, closable = true }) {
    const notice = el("div", { class: loss ? "notice is-loss" : "notice" }, el("span", {}, text),
      action ? el("button", { class: "link", type: "button", onclick: action[1] }, action[0]) : null,
      closable
        ? el("button", { class: "button", type: "button", "aria-label": texts.dismiss, title: texts.dismiss, onclick: () => notice.remove() }, icon("close"))
        : null);
    element.append(notice);
    return notice;
  }

  function connection() {
    const { connection: now } = state.client;
    if (now.warning && now.warning.code !== warned) {
      warned = now.warning.code;
      add(texts.nothingKept, { loss: true });
    }
    if (now.state !== "ended") {
      ended?.remove();
      ended = null;
    } else if (!ended) {
      const unauthorized = now.error?.code === "unauthorized";
      ended = add(endedWords(now.error), {
        loss: true,
        closable: false,
        action: unauthorized ? [texts.settingsLeave, leave] : [now.error?.code === "replaced" ? texts.connectHere : texts.tryAgain, () => state.client.reconnect()],
      });
    }
  }

  state.addEventListener("connection", connection);
  state.addEventListener("notice", (event) => {
    const { kind, message } = /** @type {CustomEvent} */ (event).detail;
    if (kind === "version") add(texts.newVersion, { action: [texts.reload, () => location.reload()] });
    else add(kind === "conflict" ? texts.conflict(message) : kind === "otherLog" ? texts.otherLog : texts.reset, {});
  });
  connection();
  return element;
}
