// The list of people: conversations first, newest first, then whom one is about to write to, then who else is online. A person stands in
// it once.

import { avatar } from "./avatar.js";
import { makeConnection, makeRetry } from "./connection.js";
import { arrange, el, say, set } from "./dom.js";
import { icon, stateMark } from "./icons.js";
import { shortCount, shortDate, texts } from "./language.js";
import { jumpKeys } from "./settings.js";
import { nameOf } from "./thread.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("../src/index.js").Conversation} Conversation */

/** How many who are online, and whom one has not talked to, are listed. */
const OTHERS_MAX = 100;

/** @typedef {object} Row
 * @property {HTMLLIElement} item @property {HTMLButtonElement} button @property {HTMLElement} heading @property {HTMLElement} name
 * @property {HTMLElement} time @property {HTMLElement} lead @property {HTMLElement} preview @property {HTMLElement} mark
 * @property {HTMLElement} count @property {HTMLElement} countText @property {HTMLElement} presence */

export class People {
  /** @param {State} state @param {{ open: (user: string) => void, jump: () => void, settings: () => void }} actions */
  constructor(state, actions) {
    this.state = state;
    this.actions = actions;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    this.list = el("ul", { role: "list", "aria-label": texts.people, onkeydown: (/** @type {KeyboardEvent} */ event) => this.pressed(event) });
    this.empty = el("div", { class: "empty", hidden: true }, el("h2", {}, texts.peopleEmpty), el("p", {}, texts.peopleEmptyHint));
    this.more = el("button", { class: "more link", type: "button", hidden: true, onclick: actions.jump });
    this.me = el("button", { class: "button me", type: "button", "aria-label": `${texts.settings}: ${state.user}`, title: state.user, onclick: actions.settings },
      avatar(state.user, "small"));
    this.element = el("nav", { class: "people", "aria-label": texts.people },
      el("header", { class: "head" },
        this.me,
        el("div", { class: "who" }, el("h2", { dir: "auto" }, state.user), makeConnection(state)),
        el("button", { class: "button", type: "button", "aria-label": texts.peopleNew, title: `${texts.peopleNew} (${jumpKeys})`, onclick: actions.jump }, icon("add"))),
      el("div", { class: "scroll" }, this.list, this.more, this.empty),
      makeRetry(state));
    state.addEventListener("people", () => this.show());
    state.addEventListener("open", () => this.show());
    this.nextDay();
  }

  /** "Yesterday" is another day tomorrow. */
  nextDay() {
    const midnight = new Date().setHours(24, 0, 1, 0);
    setTimeout(() => {
      this.show();
      this.nextDay();
    }, midnight - Date.now());
  }

  show() {
    const { state } = this;
    const conversations = [...state.conversations.values()].sort((a, b) => (b.last?.time ?? 0) - (a.last?.time ?? 0));
    const others = [...state.online].filter((user) => user !== state.user && !state.conversations.has(user) && state.presence(user) === "online").sort();
    const { open } = state;
    const begun = open === null || state.conversations.has(open) || others.includes(open) ? [] : [open];
    const listed = others.slice(0, OTHERS_MAX);
    const focused = document.activeElement;
    const items = [...conversations.map(({ other }) => other), ...begun, ...listed].map((user) => this.row(user, state.conversations.get(user)));
    listed.forEach((user, index) => {
      const row = this.rows.get(user);
      if (row) row.heading.hidden = index > 0;
    });
    arrange(this.list, items);
    for (const [user, row] of this.rows) if (!row.item.isConnected) this.rows.delete(user);
    // Moving a row in the document takes the focus away from it.
    if (focused instanceof HTMLElement && this.list.contains(focused) && document.activeElement !== focused) focused.focus();
    const hidden = others.length - listed.length;
    this.more.hidden = hidden === 0;
    if (hidden > 0) say(this.more, texts.peopleMore(hidden));
    this.empty.hidden = items.length > 0;
    this.title(conversations);
  }

  /** @param {Conversation[]} conversations */
  title(conversations) {
    const unread = conversations.reduce((sum, conversation) => sum + conversation.unread, 0);
    const title = unread > 0 ? `(${shortCount(unread)}) ${texts.appName}` : texts.appName;
    if (document.title !== title) document.title = title;
  }

  /** @param {string} user @param {Conversation | undefined} conversation @returns {HTMLLIElement} */
  row(user, conversation) {
    const row = this.rows.get(user) ?? this.make(user);
    const { state } = this;
    const presence = state.presence(user);
    row.heading.hidden = true;
    set(row.item, "data-presence", presence);
    say(row.presence, presence === "online" ? texts.online : presence === "offline" ? texts.offline : texts.presenceUnknown);
    set(row.button, "aria-current", state.open === user ? "true" : null);
    const last = conversation?.last ?? null;
    say(row.time, last ? shortDate(last.time) : "");
    const unread = conversation?.unread ?? 0;
    row.count.hidden = unread === 0;
    say(row.countText, unread > 0 ? shortCount(unread) : "");
    set(row.countText, "aria-hidden", "true");
    set(row.count, "data-count", unread > 0 ? unread : null);
    say(/** @type {Node} */ (row.count.lastChild), unread > 0 ? texts.unread(unread) : "");
    this.preview(row, user, conversation);
    return row.item;
  }

  /** @param {Row} row @param {string} user @param {Conversation | undefined} conversation */
  preview(row, user, conversation) {
    const { state } = this;
    const last = conversation?.last ?? null;
    const typing = state.typing.has(user);
    const draft = state.open === user ? "" : conversation?.draft.trim() ?? "";
    row.preview.classList.toggle("accent", typing);
    row.lead.className = draft !== "" && !typing ? "lead-word draft" : "lead-word";
    let mark = "";
    if (typing) {
      say(row.lead, "");
      say(row.preview, texts.typingShort);
    } else if (draft !== "") {
      say(row.lead, texts.draft);
      say(row.preview, draft.slice(0, 200));
    } else if (last) {
      const own = last.from === state.user;
      say(row.lead, own && user !== state.user ? texts.youPrefix : "");
      say(row.preview, last.text.slice(0, 200));
      mark = own && last.state !== "received" ? last.state : "";
    } else {
      say(row.lead, "");
      say(row.preview, user === state.user ? texts.notesHint : texts.sayHello);
    }
    if (row.mark.dataset.mark !== mark) {
      row.mark.dataset.mark = mark;
      row.mark.replaceChildren(...(mark === "" ? [] : [stateMark(mark)]));
    }
  }

  /** @param {string} user @returns {Row} */
  make(user) {
    const heading = el("div", { class: "section", hidden: true }, texts.onlineNow);
    const name = el("span", { class: "name", dir: "auto" }, nameOf(this.state, user));
    const presence = el("span", { class: "unseen" });
    const time = el("span", { class: "time" });
    const lead = el("span", { class: "lead-word" });
    const preview = el("span", { class: "preview", dir: "auto" });
    const mark = el("span", { class: "state" });
    const countText = el("span");
    const count = el("span", { class: "count", hidden: true }, countText, el("span", { class: "unseen" }));
    const button = el("button", { class: "person", type: "button", onclick: () => this.actions.open(user) },
      el("span", { class: "face" }, avatar(user), el("span", { class: "presence", "aria-hidden": "true" })),
      el("span", { class: "lines" },
        el("span", { class: "line" }, name, " ", presence, " ", mark, time),
        el("span", { class: "line" }, el("span", { class: "said" }, lead, preview), " ", count)));
    const item = el("li", { "data-user": user }, heading, button);
    const row = { item, button, heading, name, time, lead, preview, mark, count, countText, presence };
    this.rows.set(user, row);
    return row;
  }

  /** Arrow keys go from person to person. @param {KeyboardEvent} event */
  pressed(event) {
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[to]?.focus();
  }

  /** Puts the focus where a person would look for it. @param {string | null} user */
  focus(user) {
    const row = user === null ? undefined : this.rows.get(user);
    (row?.button ?? this.list.querySelector("button") ?? this.me).focus();
  }
}
