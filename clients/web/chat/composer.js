// The box to write in: grows to six lines, keeps its draft, says that one types.

import { el, set } from "./dom.js";
import { icon } from "./icons.js";
import { texts } from "./language.js";
import { keepLeft, takeLeft } from "./leaving.js";

/** @typedef {import("./state.js").State} State */

/** How long after the last key a draft is stored, in milliseconds. */
const DRAFT_PAUSE = 300;
/** The longest text in bytes of UTF-8; the server may allow less, and then says so. */
const TEXT_MAX = 61_440;

const encoder = new TextEncoder();

/** @param {State} state @param {string} other @param {() => void} sent called with every message that goes */
export function makeComposer(state, other, sent) {
  const to = { user: other };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let draftTimer;
  const box = el("textarea", {
    "aria-label": texts.message,
    placeholder: texts.message,
    rows: 1,
    dir: "auto",
    autocomplete: "off",
    enterkeyhint: "send",
    "aria-describedby": "composer-trouble",
    oninput: changed,
    onkeydown: pressed,
    onblur: storeDraft,
  });
  const button = el("button", { class: "send", type: "submit", "aria-label": texts.send, title: texts.send, disabled: true }, icon("send"));
  const trouble = el("div", { class: "trouble", id: "composer-trouble", role: "alert" });
  const element = el("form", { class: "composer", onsubmit: (/** @type {Event} */ event) => {
    event.preventDefault();
    send();
  } }, trouble, el("div", { class: "box" }, box, button));
  addEventListener("pagehide", leave);

  /** As high as its text, within the limits that the style sheet sets. */
  function fit() {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight}px`;
  }

  function changed() {
    const empty = box.value.trim() === "";
    button.disabled = empty;
    fit();
    trouble.replaceChildren();
    set(box, "aria-invalid", null);
    state.client.typing(to, !empty);
    clearTimeout(draftTimer);
    draftTimer = setTimeout(storeDraft, DRAFT_PAUSE);
  }

  function leave() {
    if (draftTimer === undefined) return;
    keepLeft(state.client.user, other, box.value);
    storeDraft();
  }

  function storeDraft() {
    if (draftTimer === undefined) return;
    clearTimeout(draftTimer);
    draftTimer = undefined;
    state.saveDraft(other, box.value).catch(complain);
  }

  /** @param {KeyboardEvent} event */
  function pressed(event) {
    // While an input method composes, Enter takes its suggestion.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send();
  }

  function send() {
    const text = box.value;
    if (text.trim() === "") return;
    const bytes = encoder.encode(text).length;
    if (bytes > TEXT_MAX) return warn(texts.tooLong(bytes - TEXT_MAX));
    put("");
    clearTimeout(draftTimer);
    draftTimer = undefined;
    state.client.typing(to, false);
    state.client.send(to, text).then(
      () => {
        if (box.value === "") state.saveDraft(other, "").catch(complain);
        sent();
      },
      (why) => {
        // Nothing was kept: the text goes back to where it can be sent from.
        put(box.value === "" ? text : `${text}\n${box.value}`);
        complain(why);
      },
    );
  }

  /** @param {string} text */
  function put(text) {
    box.value = text;
    button.disabled = text.trim() === "";
    trouble.replaceChildren();
    set(box, "aria-invalid", null);
    fit();
  }

  /** @param {string} text */
  function warn(text) {
    trouble.replaceChildren(text);
    set(box, "aria-invalid", "true");
  }

  /** @param {unknown} why */
  function complain(why) {
    warn(texts.sendFailed(why instanceof Error ? why.message : String(why)));
  }

  return {
    element,
    complain,
    /** Shows a stored draft; what was typed meanwhile goes before it. @param {string} text */
    set(text) {
      const left = takeLeft(state.client.user, other);
      if (left !== null) state.saveDraft(other, left).catch(complain);
      const found = left ?? text;
      // Nothing to fit: that would make the browser lay out the page before there are messages in it.
      if (box.value === "" && found !== "") put(found);
    },
    focus: () => box.focus(),
    fit,
    close() {
      storeDraft();
      state.client.typing(to, false);
      removeEventListener("pagehide", leave);
    },
  };
}
