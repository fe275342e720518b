// One row of a conversation: the line between days, the line before what is new, and the message itself.

import { avatar } from "./avatar.js";
import { el, say, set } from "./dom.js";
import { stateMark } from "./icons.js";
import { clockTime, dayName, dayOf, exactTime, texts } from "./language.js";
import { partsOf } from "./links.js";
import { keyOf } from "./messages.js";

/** @typedef {import("../src/index.js").Message} Message */

/** Messages of one person within this time of each other share one name and avatar. */
const GROUP = 5 * 60 * 1000;
/** Beyond this a message is folded until somebody wants all of it. */
const FOLD_LENGTH = 12_000;
const FOLD_LINES = 120;
/** Only the beginning of a folded text is looked through for an estimate of its height. */
const FOLDED_HEIGHT = 480;

const states = {
  sending: texts.stateSending,
  sent: texts.stateSent,
  delivered: texts.stateDelivered,
  read: texts.stateRead,
  rejected: texts.stateRejected,
};

/** @typedef {object} RowActions
 * @property {(nonce: string) => void} retry
 * @property {(nonce: string) => void} discard
 * @property {() => void} resized a row changed its height */

/** The parts of a row that change. @typedef {object} Parts
 * @property {HTMLElement} row @property {HTMLElement} day @property {HTMLElement} divider @property {HTMLElement} message
 * @property {HTMLElement} side @property {HTMLElement} name @property {HTMLElement} text @property {HTMLTimeElement} time
 * @property {HTMLElement} state @property {HTMLElement} bubble @property {HTMLElement} after
 * @property {string | null} shownText @property {string | null} shownState @property {string | null} error */

/** @type {WeakMap<HTMLElement, Parts>} */
const partsOfRow = new WeakMap();

/** The whole of a time, once somebody points at it. @param {Event} event */
function explain(event) {
  const time = /** @type {HTMLTimeElement} */ (event.currentTarget);
  set(time, "title", exactTime(Date.parse(time.dateTime)));
}

/** @returns {HTMLElement} */
export function makeRow() {
  const day = el("div", { class: "day", hidden: true }, el("span"));
  const divider = el("div", { class: "divider", hidden: true }, el("span", {}, texts.unreadDivider));
  const side = el("div", { class: "side" });
  const name = el("span", { class: "name" });
  const text = el("span", { class: "text" });
  const time = el("time", { dir: "ltr", onpointerenter: explain });
  const state = el("span", { class: "state" });
  const bubble = el("div", { class: "bubble", dir: "auto" }, text, el("span", { class: "meta" }, time, state));
  const after = el("div", { class: "after" });
  const message = el("div", { class: "message", role: "article" }, side, el("div", { class: "column" }, name, bubble, after));
  const row = el("div", { class: "row" }, day, divider, message);
  const parts = { row, day, divider, side, name, text, time, state, bubble, message, after, shownText: null, shownState: null, error: null };
  partsOfRow.set(row, parts);
  return row;
}

/** Whether a message begins a group. @param {Message[]} items @param {number} index */
function begins(items, index) {
  const before = items[index - 1];
  const message = /** @type {Message} */ (items[index]);
  return !before || before.from !== message.from || message.time - before.time > GROUP || dayOf(before.time) !== dayOf(message.time);
}

/** Whether the line before what is new stands above a message: the first of somebody else beyond the mark.
 * @param {Message[]} items @param {number} index @param {number | null} mark @param {string} user */
export function isFirstNew(items, index, mark, user) {
  const message = items[index];
  if (mark === null || !message || message.seq === null || message.seq <= mark || message.from === user) return false;
  for (let at = index - 1; at >= 0; at--) {
    const before = /** @type {Message} */ (items[at]);
    if (before.seq === null || before.seq <= mark) return true;
    if (before.from !== user) return false;
  }
  return true;
}

/**
 * @param {HTMLElement} row @param {Message[]} items @param {number} index @param {string} user
 * @param {number | null} mark what was read when the conversation was opened
 * @param {Set<string>} unfolded
 * @param {RowActions} actions
 */
export function fillRow(row, items, index, user, mark, unfolded, actions) {
  const parts = /** @type {Parts} */ (partsOfRow.get(row));
  const message = /** @type {Message} */ (items[index]);
  const own = message.from === user;
  const before = items[index - 1];
  const newDay = !before || dayOf(before.time) !== dayOf(message.time);
  const firstNew = isFirstNew(items, index, mark, user);
  const first = firstNew || begins(items, index);
  parts.day.hidden = !newDay;
  if (newDay) say(/** @type {Node} */ (parts.day.firstChild), dayName(message.time));
  parts.divider.hidden = !firstNew;
  const className = `row ${own ? "own" : "theirs"}${first ? " first" : ""}`;
  if (row.className !== className) row.className = className;

  const place = message.seq === null || message.conversation === null ? null : `${message.conversation}/${message.seq}`;
  set(parts.message, "data-message", place);
  set(parts.message, "data-state", own ? message.state : null);
  if (parts.shownText !== message.text) fillOnce(parts, message, own);
  fold(parts, message, unfolded, actions);
  const clock = clockTime(message.time);
  say(parts.time, clock);
  set(parts.bubble, "data-time", clock);
  set(parts.time, "datetime", new Date(message.time).toISOString());
  const shown = first && !own;
  if (shown !== parts.side.hasChildNodes()) parts.side.replaceChildren(...(shown ? [avatar(message.from, "small")] : []));
  parts.name.classList.toggle("quiet", !shown);
  fillState(parts, message, own, actions);
}

/** What never changes about a message. @param {Parts} parts @param {Message} message @param {boolean} own */
function fillOnce(parts, message, own) {
  parts.shownText = message.text;
  say(parts.name, own ? texts.you : message.from);
  set(parts.name, "dir", "auto");
  parts.text.replaceChildren(...partsOf(message.text).map((part) => {
    if (typeof part === "string") return document.createTextNode(part);
    return el("a", { href: part.href, rel: "noopener noreferrer nofollow", target: "_blank", dir: "ltr" }, part.shown);
  }));
}

/** @param {string} text */
function isLong(text) {
  if (text.length > FOLD_LENGTH) return true;
  let lines = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines += 1;
  return lines > FOLD_LINES;
}

/** @param {Parts} parts @param {Message} message @param {Set<string>} unfolded @param {RowActions} actions */
function fold(parts, message, unfolded, actions) {
  const folded = isLong(message.text) && !unfolded.has(keyOf(message));
  const button = parts.bubble.querySelector("button");
  parts.text.classList.toggle("folded", folded);
  if (folded === (button !== null)) return;
  if (button) return button.remove();
  parts.text.after(el("button", {
    class: "link unfold",
    type: "button",
    onclick: () => {
      unfolded.add(keyOf(message));
      actions.resized();
    },
  }, texts.showAll));
}

/** @param {Parts} parts @param {Message} message @param {boolean} own @param {RowActions} actions */
function fillState(parts, message, own, actions) {
  const state = own ? message.state : "";
  if (parts.shownState !== state) {
    parts.shownState = state;
    parts.state.replaceChildren();
    if (state !== "" && state !== "received") {
      parts.state.append(stateMark(state), el("span", { class: "unseen" }, states[state]));
      parts.state.title = states[state];
    }
  }
  const error = state === "rejected" ? texts.reasons[message.error?.code ?? ""] ?? message.error?.message ?? "" : null;
  if (parts.error === error) return;
  parts.error = error;
  const { nonce } = message;
  if (error === null || nonce === null) return parts.after.replaceChildren();
  parts.after.replaceChildren(
    el("div", { class: "loss" }, texts.rejectedWhy(error)),
    el("button", { class: "link", type: "button", onclick: () => actions.retry(nonce) }, texts.retry),
    el("button", { class: "link", type: "button", onclick: () => actions.discard(nonce) }, texts.discard),
  );
}

/** The likely height of a row, near enough that scrolling stays even. @param {Message[]} items @param {number} index @param {number} width */
export function estimateRow(items, index, width) {
  const message = /** @type {Message} */ (items[index]);
  const inside = Math.min(width * 0.8, 560) - 76;
  let lines = 0;
  for (const line of message.text.slice(0, FOLD_LENGTH).split("\n")) {
    let wide = 0;
    for (let at = 0; at < line.length; at++) wide += line.charCodeAt(at) > 0x2e80 ? 15 : 7.3;
    lines += Math.max(1, Math.ceil(wide / inside));
  }
  const text = isLong(message.text) ? FOLDED_HEIGHT : lines * 21.75;
  const before = items[index - 1];
  const day = before && dayOf(before.time) === dayOf(message.time) ? 0 : 44;
  return text + 14 + (begins(items, index) ? 10 : 2) + day;
}
