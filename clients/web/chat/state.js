// What the page knows, in one place: derived from the SDK's store, never written by the views.

/** @typedef {import("../src/index.js").Client} Client */
/** @typedef {import("../src/index.js").Conversation} Conversation */
/** @typedef {import("../src/index.js").Connection} Connection */

/** With more people online than this, only those one talks to are watched. */
const WATCH_EVERYONE_MAX = 500;
/** How many the protocol lets a session watch by name. */
const WATCH_MAX = 256;
/** With more changed conversations than this at once, all are read again. */
const READ_SINGLY_MAX = 8;

/**
 * Tells its views with these events, each at most once a turn of the event loop:
 *
 * - `people`: conversations, presence, typing, or the list of who is online
 * - `open`: another conversation is open, or none
 * - `connection`: its state
 * - `messages`: something about the messages of the open conversation changed
 * - `notice`: there is something to tell (detail: the text)
 */
export class State extends EventTarget {
  /** @param {Client} client */
  constructor(client) {
    super();
    this.client = client;
    /** @type {Map<string, Conversation>} by the other member */
    this.conversations = new Map();
    /** @type {Set<string>} */
    this.online = new Set();
    /** @type {Set<string>} who is typing to this user */
    this.typing = new Set();
    /** @type {string | null} the other member of the open conversation */
    this.open = null;
    /** Whether everybody's presence is watched, in this session. */
    this.everyone = false;
    /** How many messages wait to be sent. */
    this.waiting = 0;
    /** Whether the server could not be reached when it was last tried, until it is. */
    this.away = client.connection.state === "offline";
    /** @type {Set<string>} events to be told at the end of this turn */
    this.due = new Set();
    this.listen();
  }

  /** Reads what the device holds. */
  async start() {
    await this.readAll();
    if (this.client.connection.state === "connected") await this.watch();
  }

  get user() {
    return this.client.user;
  }

  /** What is known: nothing without a connection. @param {string} user */
  presence(user) {
    if (this.client.connection.state !== "connected") return "unknown";
    if (user === this.user) return "online";
    const told = this.client.presence(user);
    if (told !== "unknown") return told;
    // Who was online when the server was asked. Of everybody who is watched only those are told of who are online.
    if (this.online.has(user)) return "online";
    return this.everyone ? "offline" : "unknown";
  }

  /** The draft in the open conversation's box changed: the list shows it once the box is left.
   * @param {string} other @param {string} text */
  saveDraft(other, text) {
    const known = this.conversations.get(other);
    if (known) known.draft = text;
    return this.client.saveDraft({ user: other }, text);
  }

  /** Opens a conversation, or none. @param {string | null} other */
  show(other) {
    if (other === this.open) return;
    this.open = other;
    if (!this.everyone && this.client.connection.state === "connected") this.watchSome();
    this.tell("open");
    this.tell("people");
  }

  listen() {
    const { client } = this;
    client.addEventListener("connection", () => {
      this.tell("connection");
      this.tell("people");
      const { state } = client.connection;
      if (state !== "connecting") this.away = state === "offline";
      if (client.connection.state === "connected") this.watch().catch(() => {});
      else {
        this.online.clear();
        this.typing.clear();
        this.everyone = false;
      }
    });
    client.addEventListener("change", (event) => {
      // What could not be read now is read with the next change.
      this.changed(/** @type {CustomEvent} */ (event).detail.conversations).catch(() => {});
    });
    client.addEventListener("presence", (event) => {
      const { user, state } = /** @type {CustomEvent} */ (event).detail;
      if (state === "online") this.online.add(user);
      else this.online.delete(user);
      this.tell("people");
    });
    client.addEventListener("typing", (event) => {
      const { user, active } = /** @type {CustomEvent} */ (event).detail;
      if (user === this.user) return;
      if (active) this.typing.add(user);
      else this.typing.delete(user);
      this.tell("people");
    });
    client.addEventListener("message", (event) => {
      this.typing.delete(/** @type {CustomEvent} */ (event).detail.from);
    });
    client.addEventListener("reset", (event) => {
      const isOther = /** @type {CustomEvent} */ (event).detail.reason === "otherLog";
      this.readAll().catch(() => {});
      this.tell(isOther ? "forgotten" : "messages");
      this.tell("notice", { kind: isOther ? "otherLog" : "reset" });
    });
    client.addEventListener("conflict", (event) => {
      this.tell("notice", { kind: "conflict", message: /** @type {CustomEvent} */ (event).detail.message });
    });
  }

  async readAll() {
    const all = await this.client.conversations();
    this.conversations = new Map(all.map((conversation) => [conversation.other, conversation]));
    this.tell("people");
    await this.countWaiting();
  }

  /** The SDK counts all commands that wait; people count messages. */
  async countWaiting() {
    const begun = [...this.conversations.values()].filter(({ last }) => last !== null && last.seq === null);
    const pages = await Promise.all(begun.map(({ other }) => this.client.messages({ user: other }, { limit: 1 })));
    const waiting = pages.flat().filter(({ state }) => state === "sending").length;
    if (waiting === this.waiting) return;
    this.waiting = waiting;
    this.tell("connection");
  }

  /** @param {{ id: number | null, other: string }[]} which */
  async changed(which) {
    if (which.some(({ other }) => other === this.open)) this.tell("messages");
    if (which.length > READ_SINGLY_MAX) return this.readAll();
    const read = await Promise.all(which.map(({ other }) => this.client.conversation({ user: other })));
    for (const conversation of read) if (conversation) this.conversations.set(conversation.other, conversation);
    this.tell("people");
    await this.countWaiting();
  }

  /** Who is online: everybody on a server of a size where one may know everybody, else those one talks to. */
  async watch() {
    const online = await this.client.onlineUsers();
    if (this.client.connection.state !== "connected") return;
    this.online = new Set(online);
    this.everyone = online.length <= WATCH_EVERYONE_MAX;
    if (this.everyone) this.client.watch({ everyone: true });
    else this.watchSome();
    this.tell("people");
  }

  /** Those one talks to, and first of all whom one looks at. */
  watchSome() {
    const users = [...(this.open === null ? [] : [this.open]), ...this.conversations.keys()];
    this.client.watch({ users: [...new Set(users)].slice(0, WATCH_MAX) });
  }

  /** @param {string} name @param {unknown} [detail] with a detail it is told at once, as each matters */
  tell(name, detail) {
    if (detail !== undefined) {
      this.dispatchEvent(new CustomEvent(name, { detail }));
      return;
    }
    if (this.due.size === 0) {
      queueMicrotask(() => {
        const due = [...this.due];
        this.due.clear();
        for (const event of due) this.dispatchEvent(new CustomEvent(event));
      });
    }
    this.due.add(name);
  }
}
