// What the tab that leads does for all tabs: it holds the connection, tells what happened, and asks the server what others want to know.

import { Driver } from "./driver.js";
import { describe } from "./errors.js";
import { toBigInt } from "./numbers.js";
import { takeHistory } from "./store/inbox.js";
import { lookUp, storedMessage } from "./store/views.js";

/** @typedef {import("./index.js").Target} Target */
/** @typedef {import("./tabs.js").Note} Note */
/** @typedef {Pick<import("./driver.js").Config, "env" | "db" | "user" | "device" | "token" | "url" | "transport">} Config */

/** What the protocol gives at once. */
const HISTORY_MAX = 500;
const ONLINE_PAGES_MAX = 20;

export class Leader {
  /**
   * @param {Config} config
   * @param {import("./tabs.js").Tabs} tabs
   * @param {import("./signals.js").Signals} signals
   */
  constructor(config, tabs, signals) {
    this.config = config;
    this.tabs = tabs;
    this.signals = signals;
    this.driver = new Driver({
      ...config,
      status: () => this.tellState(),
      changed: (conversations) => {
        tabs.tell({ type: "changed", conversations });
        this.tellState();
      },
      received: ({ conversation, seq, from, time, text }) =>
        tabs.tell({ type: "message", message: { conversation, seq, nonce: null, from, time, text, state: "received" } }),
      signal: (signal) => tabs.tell({ type: "signal", signal }),
      reset: (reason) => tabs.tell({ type: "reset", reason }),
      conflict: (message) => tabs.tell({ type: "conflict", message }),
      watch: () => signals.wanted(),
    });
  }

  tellState() {
    // Whoever leads now says how it is.
    if (this.driver.stopped) return;
    const { connection, waiting } = this.driver;
    this.tabs.tell({ type: "state", connection, waiting });
  }

  /**
   * What this or another tab asks of the one that leads.
   * @param {Note} note
   */
  onNote(note) {
    const { driver, signals, tabs } = this;
    if (note.type === "kick") void driver.kick().then(() => this.tellState(), () => {});
    else if (note.type === "reconnect") driver.reconnect();
    else if (note.type === "due") driver.due();
    else if (note.type === "typing") driver.signal({ typing: { to: frameTarget(note.target), active: note.active } });
    else if (note.type === "seen") driver.onSeen(note);
    else if (note.type === "watch" || note.type === "bye") {
      if (note.type === "bye") driver.onGone(note.from);
      if (signals.onWish(note)) driver.watchAgain();
    } else if (note.type === "who") {
      tabs.say({ type: "leads" });
      this.tellState();
      const signal = { presence: signals.known() };
      if (signal.presence.length > 0) tabs.say({ type: "signal", signal });
    } else if (note.type === "ask") {
      const answer = note.what === "history" ? this.#history(note.args) : note.what === "known" ? driver.known() : this.#online();
      answer.then((result) => tabs.answer(note, { result }), (why) => tabs.answer(note, { error: describe(why) }));
    }
  }

  /**
   * @param {{ of: Target, page: { before?: number, after?: number, limit?: number } }} args
   */
  async #history({ of, page: { before, after, limit = 50 } }) {
    const { db, user } = this.config;
    /** @type {"backwards" | "forwards"} */
    const direction = after === undefined ? "backwards" : "forwards";
    const from = (direction === "forwards" ? after : before) ?? 0;
    const { to } = await lookUp(db, of);
    const count = Math.max(1, Math.min(limit, HISTORY_MAX));
    const query = { of: frameTarget(to), from: toBigInt(from, "the number of a message"), direction, limit: count };
    /** @type {import("./codec/frames.js").HistoryPage} */
    const answer = await this.driver.ask({ kind: "history", body: query });
    const { row, messages, changed } = await takeHistory(db, user, answer, from, direction);
    if (changed) this.tabs.tell({ type: "changed", conversations: [{ id: row.id, other: row.other }] });
    return { messages: messages.map((message) => storedMessage(message, user, row)), more: answer.more };
  }

  async #online() {
    /** @type {string[]} */
    const users = [];
    for (let page = 0; page < ONLINE_PAGES_MAX; page++) {
      const after = users.at(-1) ?? "";
      /** @type {import("./codec/frames.js").OnlinePage} */
      const answer = await this.driver.ask({ kind: "online", body: { after, limit: HISTORY_MAX } });
      users.push(...answer.users);
      if (!answer.more || answer.users.length === 0) break;
    }
    return users;
  }
}

/**
 * @param {Target} of
 * @returns {import("./codec/frames.js").Target}
 */
const frameTarget = (of) => ("user" in of ? of : { conversation: BigInt(of.conversation) });
