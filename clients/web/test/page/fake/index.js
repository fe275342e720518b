// The SDK's surface over nothing but memory, for tests of the page alone: any number of messages, every state, every error, at will.
//
// A test sets `globalThis.scenario` before the page starts, and steers through `globalThis.fake` afterwards.

const scenario = { conversations: {}, online: [], connection: "connected", transport: "webtransport", server: {}, fail: {}, ...globalThis.scenario };
const START = Date.UTC(2026, 10, 2, 8, 0, 0);

/** @param {string} code @param {string} message */
const failure = (code, message) => Object.assign(new Error(message), { code });

/** `{ count: 10_000 }` makes that many; `{ texts: [...] }` those. The server may hold older ones than the device. */
function history(user, other, { count = 0, texts, every = 70_000, end = Date.now() - 60_000, state = "read", held }) {
  const words = "the bird with the long curved bill walks along the shore at low tide and looks for crabs while it calls".split(" ");
  const all = texts ?? Array.from({ length: count }, (_, at) => words.slice(0, 2 + ((at * 7) % 18)).join(" ") + ` ${at + 1}`);
  const begin = end - all.length * every;
  const messages = all.map((entry, at) => {
    const { text, from = at % 3 === 0 ? user : other, ...rest } = typeof entry === "string" ? { text: entry } : entry;
    const own = from === user;
    return { conversation: 0, seq: at + 1, nonce: null, from, time: begin + at * every, text, state: own ? state : "received", ...rest };
  });
  return { messages, held: held ?? messages.length };
}

class Fake extends EventTarget {
  constructor(options) {
    super();
    this.user = options.user;
    this.options = options;
    this.device = options.device ?? "web-12345678";
    this.connection = { state: scenario.connection, transport: scenario.connection === "connected" ? scenario.transport : "none", ...(scenario.error ? { error: scenario.error } : {}), ...(scenario.connection === "offline" ? { retryAt: Date.now() + 3_000 } : {}) };
    this.online = new Set(scenario.online);
    this.told = new Set();
    this.log = [];
    this.gates = new Map((scenario.gated ?? []).map((name) => [name, Promise.withResolvers()]));
    this.threads = new Map();
    let id = 0;
    for (const [other, wanted] of Object.entries(scenario.conversations)) {
      id += 1;
      const { messages, held } = history(this.user, other, wanted);
      for (const message of messages) message.conversation = id;
      const waiting = (wanted.waiting ?? []).map((entry, at) => ({ conversation: id, seq: null, nonce: `00000000000000${id}${at}`, from: this.user, time: Date.now(), state: "sending", ...entry }));
      this.threads.set(other, { id, all: messages, held, waiting, read: wanted.read ?? messages.length, draft: wanted.draft ?? "" });
    }
    this.ids = id;
    this.nonces = 0;
  }

  get waiting() {
    return [...this.threads.values()].reduce((sum, { waiting }) => sum + waiting.filter(({ state }) => state === "sending").length, 0);
  }

  /** Waits until a test lets the answer through, where `scenario.gated` names it. */
  answers(name) {
    return this.gates.get(name)?.promise;
  }

  /** Lets an answer through, and all later ones. */
  release(name) {
    this.gates.get(name).resolve();
  }

  thread(other) {
    let thread = this.threads.get(other);
    if (!thread) this.threads.set(other, (thread = { id: null, all: [], held: 0, waiting: [], read: 0, draft: "" }));
    return thread;
  }

  stored(thread) {
    return thread.all.slice(thread.all.length - thread.held);
  }

  async conversations() {
    const all = [...this.threads.keys()].filter((other) => this.threads.get(other).id !== null || this.threads.get(other).waiting.length > 0 || this.threads.get(other).draft);
    return Promise.all(all.map((other) => this.conversation({ user: other })));
  }

  async conversation({ user: other }) {
    const thread = this.threads.get(other);
    if (!thread) return null;
    const unread = thread.all.filter(({ seq, from }) => seq > thread.read && from !== this.user).length;
    return { id: thread.id, kind: "direct", members: [this.user, other], other, last: thread.waiting.at(-1) ?? thread.all.at(-1) ?? null, unread, read: thread.read, draft: thread.draft };
  }

  async messages({ user: other }, { before, after, limit = 100 } = {}) {
    const thread = this.thread(other);
    const stored = this.stored(thread).filter(({ seq }) => (before === undefined || seq < before) && (after === undefined || seq > after));
    const page = after === undefined ? stored.slice(-limit) : stored.slice(0, limit);
    return structuredClone(before === undefined && after === undefined ? [...page, ...thread.waiting] : page);
  }

  async loadHistory({ user: other }, { before, limit = 100 }) {
    this.log.push(["loadHistory", other, before]);
    await this.answers("history");
    if (scenario.slowHistory) await new Promise((resolve) => setTimeout(resolve, scenario.slowHistory));
    if (this.connection.state !== "connected") throw failure("offline", "not connected");
    if (scenario.fail.history) throw failure("internal", scenario.fail.history);
    const thread = this.thread(other);
    if (thread.id === null) throw failure("notFound", "no such conversation");
    const older = thread.all.filter(({ seq }) => before === undefined || seq < before);
    const messages = older.slice(-limit);
    if (messages.length > 0) thread.held = Math.max(thread.held, thread.all.length - messages[0].seq + 1);
    this.log.push(["historyGiven", other, messages.length]);
    return { messages: structuredClone(messages), more: older.length > messages.length };
  }

  async onlineUsers() {
    await this.answers("online");
    return [...this.online];
  }

  async send({ user: other }, text) {
    if (scenario.fail.send) throw failure("internal", scenario.fail.send);
    const thread = this.thread(other);
    const nonce = `f${String((this.nonces += 1)).padStart(15, "0")}`;
    const message = { conversation: thread.id, seq: null, nonce, from: this.user, time: Date.now(), text, state: "sending" };
    thread.waiting.push(message);
    this.changed(other);
    if (this.connection.state === "connected" && !scenario.hold) setTimeout(() => this.settle(other), 5);
    return { ...message };
  }

  /** The server took what waits. */
  settle(other, state = "sent") {
    const thread = this.thread(other);
    thread.id ??= this.ids += 1;
    const sending = thread.waiting.filter((message) => message.state === "sending");
    thread.waiting = thread.waiting.filter((message) => message.state !== "sending");
    for (const message of sending) this.add(thread, { ...message, state });
    this.changed(other);
  }

  /** All of one's own messages got as far as that. */
  mark(other, state) {
    for (const message of this.thread(other).all) if (message.from === this.user) message.state = state;
    this.changed(other);
  }

  reject(other, code, message) {
    for (const waiting of this.thread(other).waiting) Object.assign(waiting, { state: "rejected", error: { code, message } });
    this.changed(other);
  }

  async retry(nonce) {
    for (const [other, thread] of this.threads) {
      const found = thread.waiting.find((message) => message.nonce === nonce);
      if (!found) continue;
      Object.assign(found, { state: "sending", nonce: `a${nonce.slice(1)}` });
      delete found.error;
      this.settle(other);
      return found;
    }
    throw failure("notFound", "no such message");
  }

  async discard(nonce) {
    for (const [other, thread] of this.threads) {
      thread.waiting = thread.waiting.filter((message) => message.nonce !== nonce);
      this.changed(other);
    }
  }

  async markRead({ user: other }, seq) {
    this.log.push(["markRead", other, seq]);
    const thread = this.thread(other);
    thread.read = Math.max(thread.read, seq);
    this.changed(other);
  }

  async saveDraft({ user: other }, text) {
    this.thread(other).draft = text;
    this.log.push(["saveDraft", other, text]);
  }

  typing(to, active) {
    this.log.push(["typing", to.user, active]);
  }

  watch() {}

  presence(user) {
    // What no signal has told yet, although the server may have listed who is online.
    if (this.connection.state !== "connected" || (scenario.quiet && !this.told.has(user))) return "unknown";
    return this.online.has(user) ? "online" : "offline";
  }

  reconnect() {
    this.log.push(["reconnect"]);
    this.connect("connected");
  }

  async close() {}

  add(thread, message) {
    thread.all.push({ ...message, conversation: thread.id, seq: thread.all.length + 1 });
    thread.held += 1;
  }

  /** Somebody else writes. */
  receive(other, text) {
    const thread = this.thread(other);
    thread.id ??= this.ids += 1;
    this.add(thread, { nonce: null, from: other, time: Date.now(), text, state: "received" });
    this.tell("message", thread.all.at(-1));
    this.changed(other);
  }

  /** The server begins anew: nothing that was is known to it, nor kept here, but for the first few messages where it was restored. */
  beginAnew(restored = 0) {
    if (restored === 0) this.threads.clear();
    for (const thread of this.threads.values()) Object.assign(thread, { all: thread.all.slice(0, restored), held: restored, read: 0 });
    this.tell("reset", { reason: "otherLog" });
  }

  /** The user writes on another device. */
  writeElsewhere(other, text) {
    const thread = this.thread(other);
    this.add(thread, { nonce: null, from: this.user, time: Date.now(), text, state: "sent" });
    this.changed(other);
  }

  setTyping(user, active) {
    this.tell("typing", { conversation: this.thread(user).id, user, active });
  }

  setPresence(user, state) {
    this.told.add(user);
    if (state === "online") this.online.add(user);
    else this.online.delete(user);
    this.tell("presence", { user, state });
  }

  /** An offline one is tried again after `wait` milliseconds; that the test has to do. */
  connect(state, wait = 3_000) {
    this.connection = { state, transport: state === "connected" ? scenario.transport : "none", ...(state === "offline" ? { retryAt: Date.now() + wait } : {}) };
    this.tell("connection", this.connection);
    if (state === "connected") for (const other of this.threads.keys()) if (this.thread(other).waiting.length > 0) this.settle(other);
  }

  changed(other) {
    this.tell("change", { conversations: [{ id: this.thread(other).id, other }] });
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

export async function openClient(options) {
  if (scenario.fail.open) throw failure("internal", scenario.fail.open);
  globalThis.fake = new Fake(options);
  return globalThis.fake;
}
