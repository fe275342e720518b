// The open conversation: its head, its messages, who is typing, and the box to write in.

import { avatar } from "./avatar.js";
import { makeComposer } from "./composer.js";
import { connectionWord, makeRetry } from "./connection.js";
import { el, say, set } from "./dom.js";
import { icon } from "./icons.js";
import { texts } from "./language.js";
import { VirtualList } from "./list.js";
import { estimateRow, fillRow, isFirstNew, makeRow } from "./message.js";
import { keyOf } from "./messages.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./messages.js").Messages} Messages */
/** @typedef {import("../src/index.js").Message} Message */

/** Nearer to the first message that was read than this, in pixels, older ones are fetched. */
const OLDER_WITHIN = 2400;
/** What was read is told at most so often, in milliseconds. */
const READ_PAUSE = 400;
/** "Loading" is said only after this: most pages come sooner. */
const LOADING_PAUSE = 300;
/** Where the line before what is new stands when a conversation is opened, below the upper edge. */
const DIVIDER_AT = 56;
/** More new messages than this at once are announced as a number. */
const ANNOUNCE_MAX = 3;

/** @param {State} state @param {string} other */
export const nameOf = (state, other) => (other === state.user ? texts.notes : other);

export class Thread {
  /** @param {State} state @param {Messages} messages of the conversation @param {() => void} back */
  constructor(state, messages, back) {
    const { other } = messages;
    this.state = state;
    this.other = other;
    this.messages = messages;
    /** What was read when it was opened, or when the page was left: the line before what is new stands there. None once it was answered,
     * or read and left. @type {number | null} */
    this.mark = null;
    this.unseen = 0;
    this.newest = 0;
    this.newestTheirs = 0;
    this.ready = false;
    /** Whether the server's log is another one since the messages were read. */
    this.anew = false;
    /** Whether something changed before what was read first is shown. */
    this.stale = false;
    /** @type {Set<string>} */
    this.unfolded = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.readTimer = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.loadingTimer = undefined;
    /** @type {number} what was told to be read last */
    this.reported = 0;
    this.leaving = new AbortController();
    const { signal } = this.leaving;

    const name = nameOf(state, other);
    this.status = el("span", { class: "status" });
    this.heading = el("h2", { dir: "auto", tabindex: -1 }, name);
    const head = el("header", { class: "head" },
      el("button", { class: "button only-narrow", type: "button", "aria-label": texts.back, title: texts.back, onclick: back }, icon("back")),
      avatar(other),
      el("div", { class: "who" }, this.heading, this.status));
    this.leadText = el("span");
    this.leadAgain = el("button", { class: "link", type: "button", hidden: true, onclick: () => this.fetchOlder() }, texts.tryAgain);
    this.lead = el("div", { class: "lead" }, this.leadText, this.leadAgain);
    this.log = el("div", { class: "log", role: "log", "aria-live": "off", "aria-label": texts.messages(name), tabindex: 0 });
    // To the newest message: where the browser takes the end to be is a guess for as long as not every message was measured.
    this.log.addEventListener("keydown", (event) => {
      if (event.key !== "End" || event.shiftKey || event.target !== this.log) return;
      event.preventDefault();
      this.toNewest();
    });
    this.pillText = el("span");
    this.pill = el("button", { class: "pill", type: "button", hidden: true, onclick: () => this.toNewest() }, icon("down"), this.pillText);
    this.typingLine = el("div", { class: "typing", "aria-live": "off" });
    this.announcer = el("div", { class: "unseen", role: "status", "aria-live": "polite" });
    this.composer = makeComposer(state, other, () => {
      this.unmark();
      this.toNewest();
    });
    const actions = {
      retry: (/** @type {string} */ nonce) => void state.client.retry(nonce).catch((why) => this.composer.complain(why)),
      discard: (/** @type {string} */ nonce) => void state.client.discard(nonce).catch((why) => this.composer.complain(why)),
      resized: () => this.list.setItems(this.messages.items),
    };
    this.list = new VirtualList(this.log, this.lead, {
      key: keyOf,
      make: makeRow,
      fill: (row, /** @type {Message[]} */ items, index) => fillRow(row, items, index, state.user, this.mark, this.unfolded, actions),
      before: () => (this.messages.complete ? 0 : Math.max(0, (this.messages.first ?? 1) - 1)),
      estimate: (/** @type {Message[]} */ items, index) => estimateRow(items, index, this.log.clientWidth),
      rendered: () => this.showLead(),
    });
    this.element = el("section", { class: "thread", "aria-label": texts.conversation },
      head, el("div", { class: "stage" }, this.log, this.pill), el("div", { class: "beneath" }, this.typingLine, makeRetry(state, signal)),
      this.composer.element, this.announcer);

    const options = { signal };
    this.log.addEventListener("scroll", () => this.moved(), { passive: true, ...options });
    state.addEventListener("people", () => this.showStatus(), options);
    state.addEventListener("connection", () => {
      this.showStatus();
      this.moved();
    }, options);
    state.addEventListener("messages", () => void this.refresh(), options);
    state.addEventListener("forgotten", () => this.begin(), options);
    for (const event of ["focus", "blur"]) addEventListener(event, () => this.attended(), options);
    document.addEventListener("visibilitychange", () => {
      // While nobody sees it go.
      if (document.visibilityState === "hidden" && this.allRead) this.unmark();
      this.attended();
    }, options);
    this.showStatus();
  }

  /** Reads and shows the messages. @param {Promise<import("../src/index.js").Conversation | null>} conversation */
  async open(conversation) {
    // Both at once: each is a turn of the device's database.
    const [known] = await Promise.all([conversation, this.messages.started]);
    if (known && !this.state.conversations.has(this.other)) this.state.conversations.set(this.other, known);
    const unread = known?.unread ?? 0;
    this.composer.set(known?.draft ?? "");
    if (unread > 0) await this.messages.reach(unread);
    if (this.leaving.signal.aborted) return;
    if (known && unread > 0) this.mark = known.read;
    const { items } = this.messages;
    this.newest = newestOf(items);
    this.newestTheirs = newestOf(this.theirs(items));
    this.list.setItems(items);
    const divider = items.findIndex((_, index) => isFirstNew(items, index, this.mark, this.state.user));
    if (divider >= 0) this.list.toItem(divider, DIVIDER_AT);
    this.ready = true;
    this.moved();
    this.showLead();
    if (this.stale) await this.refresh();
  }

  /** The server's log is another one: numbers begin anew. What is there now is shown, and is no news. */
  begin() {
    this.messages.forget();
    this.list.setItems([]);
    this.unseen = 0;
    this.reported = 0;
    this.anew = true;
    void this.refresh();
  }

  /** Something changed in the store. */
  async refresh() {
    if (!this.ready) {
      this.stale = true;
      return;
    }
    if (!(await this.messages.refresh()) || this.leaving.signal.aborted) return;
    const { items } = this.messages;
    const newest = newestOf(items);
    if (this.anew) {
      this.anew = false;
      this.mark = null;
      this.newest = newest;
      this.newestTheirs = newestOf(this.theirs(items));
    }
    // Of this device's own messages those that are written now answer what is above them, and not those that only now got through.
    if (items.some(({ from, nonce, seq }) => from === this.state.user && nonce === null && seq !== null && seq > this.newest)) this.mark = null;
    const fresh = this.theirs(items).filter(({ seq }) => seq !== null && seq > this.newest);
    // All was read, and now something comes that nobody sees.
    if (fresh.length > 0 && !attentive() && this.allRead) this.mark = this.readMark;
    if (!this.list.following) this.unseen += fresh.length;
    this.newest = Math.max(this.newest, newest);
    this.list.setItems(items);
    this.announce(fresh);
    this.newestTheirs = newestOf(this.theirs(items));
    this.moved();
  }

  /** @param {Message[]} items those of others */
  theirs(items) {
    return items.filter(({ from }) => from !== this.state.user);
  }

  /** What was read, also where the store has not said so yet. */
  get readMark() {
    return Math.max(this.state.conversations.get(this.other)?.read ?? 0, this.reported);
  }

  get allRead() {
    return this.newestTheirs <= this.readMark;
  }

  /** The line before what is new goes: it was answered, or read and left. */
  unmark() {
    if (this.mark === null) return;
    this.mark = null;
    this.list.setItems(this.messages.items);
  }

  /** @param {Message[]} fresh */
  announce(fresh) {
    if (fresh.length === 0) return;
    const { from } = /** @type {Message} */ (fresh[0]);
    say(this.announcer, fresh.length > ANNOUNCE_MAX
      ? texts.announceMany(fresh.length)
      : fresh.map(({ text }) => texts.announce(from, text)).join("\n"));
  }

  toNewest() {
    this.unseen = 0;
    this.list.toEnd();
    this.moved();
  }

  /** The place, or what stands there, changed. */
  moved() {
    if (!this.ready) return;
    if (this.list.following) this.unseen = 0;
    const away = !this.list.following && (this.unseen > 0 || this.list.toGo > this.log.clientHeight);
    this.pill.hidden = !away;
    say(this.pillText, this.unseen > 0 ? texts.newBelow(this.unseen) : "");
    set(this.pill, "aria-label", this.unseen > 0 ? `${texts.newBelow(this.unseen)}. ${texts.toNewest}` : texts.toNewest);
    if (this.list.aboveEdge < OLDER_WITHIN) this.fetchOlder();
    this.attended();
  }

  fetchOlder() {
    const { messages } = this;
    if (!this.ready || messages.complete || messages.loading) return;
    if (messages.trouble && this.state.client.connection.state !== "connected") return this.showLead();
    this.loadingTimer = setTimeout(() => this.showLead(), LOADING_PAUSE);
    void messages.older(this.list.aboveEdge < 0).then((some) => {
      clearTimeout(this.loadingTimer);
      if (this.leaving.signal.aborted) return;
      this.list.setItems(messages.items);
      if (some) this.moved();
      this.showLead();
    });
  }

  /** The line above all messages. */
  showLead() {
    const { complete, loading, trouble } = this.messages;
    const offline = this.state.client.connection.state !== "connected";
    const mayAgain = !complete && !loading && trouble !== null && !offline;
    let words = "";
    // Where it begins is said beside the first message, and not far away from it.
    if (complete && this.list.start === 0) words = this.other === this.state.user ? texts.notesHint : texts.beginning;
    else if (!complete && loading) words = texts.loadingOlder;
    else if (!complete && trouble) words = offline ? texts.olderWait : texts.olderFailed(trouble.message);
    say(this.leadText, words);
    this.leadAgain.hidden = !mayAgain;
  }

  /** Presence, or typing, or what is wrong with the connection: in one place. */
  showStatus() {
    const { state, other } = this;
    const connected = state.client.connection.state === "connected";
    const presence = state.presence(other);
    const word = presence === "online" ? texts.online : presence === "offline" ? texts.offline : texts.presenceUnknown;
    say(this.status, connected ? word : connectionWord(state));
    set(this.status, "data-online", connected && presence === "online");
    const typing = state.typing.has(other);
    say(this.typingLine, typing ? texts.typing(other) : "");
  }

  /** Tells what was read: what somebody could really see, in a page that is looked at. */
  attended() {
    if (!this.ready || !attentive() || this.readTimer !== undefined) return;
    const [from, to] = this.list.visible();
    const seen = this.list.items.slice(from, to).reduce((most, { seq, from: author }) => (author === this.state.user ? most : Math.max(most, seq ?? 0)), 0);
    if (seen <= this.readMark) return;
    this.reported = seen;
    this.state.client.markRead({ user: this.other }, seen).catch(() => {
      this.reported = 0;
    });
    this.readTimer = setTimeout(() => {
      this.readTimer = undefined;
      this.attended();
    }, READ_PAUSE);
  }

  /** Leaves the conversation; the draft is kept. */
  close() {
    this.leaving.abort();
    clearTimeout(this.readTimer);
    clearTimeout(this.loadingTimer);
    this.list.stop();
    this.composer.close();
    this.element.remove();
  }
}

/** @param {Message[]} items */
const newestOf = (items) => items.reduce((most, { seq }) => Math.max(most, seq ?? 0), 0);

/** Whether somebody looks at the page. */
const attentive = () => document.visibilityState === "visible" && document.hasFocus();
