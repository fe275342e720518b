// The messages of one conversation, as far as they were read: the newest ones, then older ones as they are asked for.

/** @typedef {import("../src/index.js").Client} Client */
/** @typedef {import("../src/index.js").Message} Message */

/** How many are read at once. */
const PAGE = 100;
/** How many are read at once where nothing could be seen before they are here. */
const LONG_PAGE = 500;
/** How many of the newest are read first: enough for a tall screen. */
const FIRST_PAGE = 60;
/** A conversation with more unread messages than this opens at the newest. */
const UNREAD_MAX = 1000;
/** How far back a gap is closed at once, in pages. */
const GAP_PAGES_MAX = 20;

/** What stays the same about a message from sending to read. @param {Message} message */
export const keyOf = (message) => message.nonce ?? `${message.seq}`;

/** The messages at the end of a rising page that follow each other without a hole up to `before`.
 * @param {Message[]} page @param {number} before */
function adjoining(page, before) {
  let from = page.length;
  while (from > 0 && page[from - 1]?.seq === before - 1) {
    from -= 1;
    before -= 1;
  }
  return page.slice(from);
}

/** @param {Message[]} messages */
const stored = (messages) => messages.filter(({ seq }) => seq !== null);

export class Messages {
  /** Begins to read at once. @param {Client} client @param {string} other */
  constructor(client, other) {
    this.client = client;
    this.other = other;
    this.of = { user: other };
    /** @type {Message[]} rising, without holes; those that wait at the end */
    this.items = [];
    /** Whether nothing is older than the first. */
    this.complete = false;
    /** @type {{ code: string, message: string } | null} why older ones could not be had */
    this.trouble = null;
    this.loading = false;
    this.refreshing = false;
    this.again = false;
    /** Done once the newest are here. */
    this.started = this.start();
  }

  async start() {
    this.take(await this.client.messages(this.of, { limit: FIRST_PAGE }));
  }

  /** Reads back to the first unread one too, if that is not too far. @param {number} unread */
  async reach(unread) {
    if (unread < this.items.length || unread > UNREAD_MAX || this.complete) return;
    this.take(await this.client.messages(this.of, { limit: FIRST_PAGE + unread }));
  }

  /** @param {Message[]} page the newest */
  take(page) {
    const known = stored(page);
    const newest = known.at(-1)?.seq;
    const whole = newest ? adjoining(known, newest + 1) : [];
    this.items = [...whole, ...page.filter(({ seq }) => seq === null)];
    this.complete = this.items[0]?.seq === 1;
  }

  /** The number of the oldest that was read. */
  get first() {
    return this.items[0]?.seq ?? null;
  }

  /** Nothing that was read counts any more: the server's log is another one. */
  forget() {
    this.items = [];
    this.complete = false;
    this.trouble = null;
  }

  /** Reads again what may have changed. Says whether it did it: a call while one runs makes that one go round again. */
  async refresh() {
    if (this.refreshing) {
      this.again = true;
      return false;
    }
    this.refreshing = true;
    try {
      do {
        this.again = false;
        await this.refreshOnce();
      } while (this.again);
    } finally {
      this.refreshing = false;
    }
    return true;
  }

  async refreshOnce() {
    let page = await this.client.messages(this.of, { limit: PAGE });
    const waiting = page.filter(({ seq }) => seq === null);
    const newest = stored(this.items).at(-1)?.seq;
    const known = stored(page);
    // What lies before a hole is not next to what is newest.
    let fresh = adjoining(known, (known.at(-1)?.seq ?? 0) + 1);
    // The device has less than is shown: the server's log is another one.
    if (newest === undefined || newest === null || (fresh.at(-1)?.seq ?? 0) < newest) return this.take(page);
    // Back until what is held adjoins, and until one that was read: what is older than that was read too.
    for (let pages = 0; pages < GAP_PAGES_MAX; pages++) {
      const oldest = fresh[0]?.seq ?? newest + 1;
      const joined = oldest <= newest + 1;
      if (oldest <= (this.first ?? 1) || (joined && fresh.some(({ state }) => state === "read"))) break;
      page = await this.before(oldest).catch((why) => {
        this.failed(why);
        return [];
      });
      if (page.length === 0) break;
      fresh = [...page, ...fresh];
    }
    const oldest = fresh[0]?.seq ?? newest + 1;
    if (oldest > newest + 1) {
      // A hole that cannot be closed now: what is newest is shown, the rest comes when it is scrolled to.
      this.items = [...fresh, ...waiting];
      this.complete = false;
      return;
    }
    // Only now: older ones may have come meanwhile.
    const first = this.first ?? oldest;
    const older = stored(this.items).filter(({ seq }) => seq !== null && seq < oldest);
    this.items = [...raised(older, fresh), ...fresh.filter(({ seq }) => seq !== null && seq >= first), ...waiting];
  }

  /** A page before a number: from the device if it has what adjoins, else from the server, which also closes holes.
   * @param {number} before @param {number} [limit] @returns {Promise<Message[]>} */
  async before(before, limit = PAGE) {
    const page = adjoining(stored(await this.client.messages(this.of, { before, limit })), before);
    if (page.length > 0) return page;
    const { messages, more } = await this.client.loadHistory(this.of, { before, limit });
    if (!more && messages.length === 0) this.complete = true;
    return messages;
  }

  /** Reads a page of older ones. Says whether anything came. @param {boolean} urgent whether somebody looks at where they will be */
  async older(urgent) {
    if (this.complete || this.loading) return false;
    this.loading = true;
    this.trouble = null;
    try {
      if (this.first === null) {
        const { messages, more } = await this.client.loadHistory(this.of, { limit: PAGE });
        this.items = [...messages, ...this.items.filter(({ seq }) => seq === null)];
        this.complete = !more;
        return messages.length > 0;
      }
      const { first } = this;
      const page = (await this.before(first, urgent ? LONG_PAGE : PAGE)).filter(({ seq }) => seq !== null && seq < first);
      // Something newer may have come in between; what is older has not.
      if (this.first === first) this.items = [...page, ...this.items];
      if (this.first === 1) this.complete = true;
      return page.length > 0;
    } catch (why) {
      this.failed(why);
      return false;
    } finally {
      this.loading = false;
    }
  }

  /** Notes why older ones did not come. @param {unknown} why */
  failed(why) {
    const { code = "", message = String(why) } = /** @type {{ code?: string, message?: string }} */ (why);
    // Not begun yet at the server: there is nothing older.
    if (code === "notFound") this.complete = true;
    else this.trouble = { code, message };
  }
}

/** How far messages got never falls with their number: what newer ones say holds for older ones.
 * @param {Message[]} older @param {Message[]} newer @returns {Message[]} */
function raised(older, newer) {
  const states = newer.map(({ state }) => state);
  const read = states.includes("read");
  // One that was only sent after all delivered ones says nothing of those before.
  const delivered = read || states.includes("delivered");
  if (!delivered) return older;
  return older.map((message) => {
    if (message.state === "sent" || (message.state === "delivered" && read)) return { ...message, state: read ? "read" : "delivered" };
    return message;
  });
}
