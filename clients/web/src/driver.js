// The connection of a device: connects, greets, notices when a connection is dead, and connects again, over whichever transport works.
// Runs in one tab only, the one that leads.

import { Attention } from "./attention.js";
import { Backoff } from "./backoff.js";
import { stateExtension } from "./codec/index.js";
import { randomHex } from "./environment.js";
import { WhimbrelError, describe } from "./errors.js";
import { connect, Ways } from "./link/race.js";
import { Patience } from "./pulse.js";
import { Queries } from "./queries.js";
import { Session } from "./session.js";
import { load, saveWay } from "./store/views.js";
import { Upgrade } from "./upgrade.js";
import { Waiting } from "./waiting.js";

/** @typedef {import("./index.js").Connection} Connection */
/** @typedef {import("./host.js").Config} Config */
/** @typedef {import("./host.js").Host} Host */

/** How long the server may take to welcome us, in milliseconds. */
const WELCOME_TIMEOUT = 8_000;
/** … and where the session before worked, before others are tried beside this one. */
const MOVE_TIMEOUT = 2_000;
/** A session that lasted this long makes the next wait a first one again. */
const STABLE_AFTER = 5_000;
/** Waits shorter than this are not shown as being offline. */
const SHORT_WAIT = 1_000;
/** What somebody does while there is no connection is a reason to try at once, but not sooner than this after the last attempt. */
const HURRY_EVERY = 1_000;
const AGENT = "whimbrel-web/0.1.0";

export class Driver {
  /** @param {Config} config */
  constructor(config) {
    this.config = config;
    this.env = config.env;
    /** @type {Connection} */
    this.connection = { state: "connecting", transport: "none" };
    this.queries = new Queries();
    this.backoff = new Backoff(config.env.random);
    /** This run, and how often it has said hello: so that a hello that comes late cannot replace a newer session. */
    this.instance = randomHex(8);
    this.attempts = 0;
    /** @type {Session | undefined} */
    this.session = undefined;
    /** The attempt that is under way. @type {AbortController | undefined} */
    this.attempt = undefined;
    this.upgrade = new Upgrade({
      open: (signal) => connect(config.env, config.url, /** @type {Ways} */ (this.ways), signal, true),
      arrived: (link, attempt) => this.#begin(link, attempt),
      failed: () => this.#arm(),
    });
    /** Whether the session, or the next, is one that a session as good as ever moved to. */
    this.moving = false;
    this.triedAt = -Infinity;
    this.retryAt = Infinity;
    /** Whether the server asked for the wait that ends then. */
    this.asked = false;
    this.attention = new Attention(config.env);
    this.patience = new Patience();
    this.network = config.env.network();
    /** Who waits for the server to know how the device is. @type {(() => void)[]} */
    this.telling = [];
    this.idle = new Waiting(config.db);
    this.stopped = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** What sessions do to the store one after the other. @type {Promise<void>} */
    this.turn = Promise.resolve();
    this.off = this.env.on(["online", "change", "visibilitychange", "pageshow", "focus", "offline"], (event) => this.#onHint(event.type));
  }

  async start() {
    const { env, db, transport } = this.config;
    const loaded = await load(db, this.config);
    this.idle.start(loaded.rows);
    // A hint: losing it costs a head start at the next time.
    this.ways = new Ways(env, transport, loaded.way, (way) => void saveWay(db, way).catch(() => {}));
    this.#connect();
  }

  get waiting() {
    return this.session ? this.session.uplink.waiting : this.idle.count;
  }

  /** The outbox may hold something new. */
  async kick() {
    this.#onActive();
    if (this.session) return this.session.sync();
    this.#hurry();
    return this.idle.look(() => this.session !== undefined);
  }

  /**
   * Another tab is seen now, or not any more: that decides how soon to look whether the connection is alive. If somebody `turned` to it,
   * that matters now.
   * @param {Record<string, any>} how
   */
  onSeen({ from, seen, suspended, turned }) {
    this.attention.onSeen(from, seen, suspended);
    this.#onTurned(turned);
  }

  /** Another tab is closed. @param {string} tab */
  onGone(tab) {
    this.attention.onGone(tab);
    this.#arm();
  }

  /** This tab's page is suspended, or about to be; or no longer. @param {boolean} suspended */
  onSuspended(suspended) {
    this.attention.suspended = suspended;
    this.#onTurned(!suspended);
  }

  /** @param {boolean} turned */
  #onTurned(turned) {
    if (turned) this.#onHint("pageshow");
    this.#arm();
  }

  /**
   * Resolves when the server knows how the device is, or when there is no connection over which it could: the next one begins with it.
   * @returns {Promise<void>}
   */
  known() {
    return new Promise((resolve) => {
      this.telling.push(resolve);
      this.#arm();
    });
  }

  #onKnown() {
    const { session } = this;
    if (session ? session.ready && !session.telling : !this.attempt) for (const resolve of this.telling.splice(0)) resolve();
  }

  /** By another tab's clock it is time to look: the timers of a page that nobody looks at come late. */
  due() {
    this.#tick();
  }

  /** @param {import("./codec/frames.js").QueryBody} query */
  ask(query) {
    const { state, error } = this.connection;
    if (state === "offline" || state === "ended") {
      return Promise.reject(new WhimbrelError("offline", `there is no connection${error ? `: ${error.message}` : ""}`));
    }
    const answer = this.queries.ask(query);
    this.attention.onTurned();
    this.#poll();
    return answer;
  }

  /** @param {import("./codec/frames.js").Signal} signal */
  signal(signal) {
    this.session?.signal(signal);
    this.#onActive();
  }

  /** Somebody does something: a connection that died meanwhile should be noticed soon. */
  #onActive() {
    if (this.attention.onTurned()) this.#arm();
  }

  /** Somebody waits: the next attempt comes now, unless the server asked for patience, or it ended and only `reconnect` begins anew. */
  #hurry() {
    if (this.connection.state === "ended") return;
    const now = this.env.now();
    const at = Math.max(now, this.triedAt + HURRY_EVERY);
    if (this.session || this.attempt || this.asked || at >= this.retryAt) return;
    if (at === now) return this.#connect();
    this.#wait(at - now);
  }

  /** Whose presence is wanted has changed. */
  watchAgain() {
    if (this.session) this.session.watched = false;
    this.#poll();
  }

  /** Tries now, whatever it was that stood in the way. */
  reconnect() {
    if (this.stopped) return;
    this.backoff.reset();
    this.#onNetworkChanged();
    if (this.session?.ready) this.#probe(true);
    else if (!this.attempt) this.#connect();
  }

  #onNetworkChanged() {
    this.ways?.onNetworkChanged();
    this.upgrade.reset(this.env.now());
  }

  /** Ends in order. Resolves when the store is not touched any more. */
  async stop() {
    this.stopped = true;
    this.off();
    clearTimeout(this.timer);
    this.attempt?.abort();
    this.upgrade.stop();
    this.queries.rejectAll(new WhimbrelError("closed", "the client was closed"));
    await this.turn;
    await this.session?.leave();
    this.session = undefined;
  }

  /** @param {Connection} connection */
  #show(connection) {
    this.connection = connection;
    if (connection.state === "offline" || connection.state === "ended") {
      const why = connection.error?.message ?? "there is no connection";
      this.queries.rejectAll(new WhimbrelError("offline", why));
      this.#onKnown();
    }
    this.config.status(connection);
  }

  /** @param {string} type */
  #onHint(type) {
    if (this.stopped || this.connection.state === "ended" || (type === "visibilitychange" && this.env.hidden())) return;
    const { network } = this;
    this.network = this.env.network();
    // Browsers tell of a change also where only their estimate of the same network is another one.
    const changed = type === "online" || (type === "change" && this.network !== network);
    if (changed) {
      this.#onNetworkChanged();
      this.patience.silences = 0;
    } else if (type !== "offline" && type !== "change") this.attention.onTurned();
    if (this.session?.ready) this.#probe(true);
    else if (!this.attempt && type !== "offline" && !(this.asked && this.env.now() < this.retryAt)) {
      this.backoff.reset();
      return this.#connect();
    }
    // What is under way began on a network that is gone, and may wait for it for long.
    if (changed && this.attempt) this.#connect();
  }

  /** Tries to connect, also beside a session that may be dead. */
  #connect() {
    if (this.stopped || !this.ways) return;
    this.attempt?.abort();
    this.upgrade.stop();
    const attempt = (this.attempt = new AbortController());
    this.retryAt = Infinity;
    this.asked = false;
    this.triedAt = this.env.now();
    if (!this.session) this.#show({ state: "connecting", transport: "none" });
    connect(this.env, this.config.url, this.ways, attempt.signal).then(
      (link) => (attempt.signal.aborted ? link.close() : this.#begin(link, attempt)),
      (why) => {
        if (this.attempt !== attempt) return;
        this.attempt = undefined;
        const { session } = this;
        if (!session) this.#retry(describe(why), 0);
        else if (session.pulse.probed !== undefined) {
          // It does not answer, and no other way leads there: it is gone.
          void session.leave();
          this.#onLost(session, describe(why), 0);
        }
      },
    );
    this.#arm();
  }

  /**
   * A link is there: the session before it, if any, gives way, and the next begins with what the store holds then.
   * @param {import("./link/link.js").Link} link
   * @param {AbortController} attempt
   */
  #begin(link, attempt) {
    this.turn = this.turn.then(async () => {
      if (attempt.signal.aborted) return link.close();
      const before = this.session;
      this.moving = this.upgrade.take(attempt);
      // While there is no session it is the attempt: who sees neither begins another, which would take this one's place.
      if (this.moving) this.attempt = attempt;
      else before?.pulse.onGivenUp();
      if (before) this.#onEnd(before);
      this.session = undefined;
      this.queries.onDisconnect();
      try {
        await before?.leave();
        const loaded = await load(this.config.db, this.config);
        if (attempt.signal.aborted || this.stopped) return link.close();
        this.attempt = undefined;
        const { newsAfter } = this.moving || !before?.ready ? before ?? {} : {};
        this.session = new Session(this.#host(), link, loaded, newsAfter);
        this.session.start();
      } catch (why) {
        link.close();
        if (this.attempt === attempt) this.attempt = undefined;
        this.#retry(describe(why), 0);
      }
      return this.#arm();
    });
  }

  /** @returns {Host} */
  #host() {
    const { env, db, user, changed, received, signal, reset, conflict, watch } = this.config;
    const { attention } = this;
    return {
      env, db, user, changed, received, signal, reset, conflict, watch, queries: this.queries, patience: this.patience,
      hello: (incarnation, position) => ({
        minVersion: 1, maxVersion: 1, user, device: this.config.device, token: this.config.token, agent: AGENT, instance: this.instance,
        attempt: ++this.attempts, incarnation, position, origin: "snapshot",
        extensions: attention.state.background ? [stateExtension(attention.state)] : [],
      }),
      state: () => attention.state,
      greeted: (session) => {
        if (session !== this.session) return;
        this.ways?.onConnected(session.link.transport);
        this.upgrade.onSession(this.env.now());
        this.#show({ state: "connected", transport: session.link.transport });
      },
      lost: (session, why, retryAfterMs) => this.#onLost(session, why, retryAfterMs),
      ended: (session, error) => {
        if (session !== this.session) return;
        this.#keepTurn(session);
        // Also one beside it: its hello would throw out whoever took this one's place.
        this.attempt?.abort();
        this.attempt = undefined;
        this.#show({ state: "ended", transport: "none", error });
      },
      wake: () => this.#poll(),
    };
  }

  /**
   * The session is over, but may still be writing.
   * @param {Session} session
   */
  #keepTurn(session) {
    session.pulse.onGivenUp();
    this.upgrade.stop();
    this.#onEnd(session);
    this.session = undefined;
    this.queries.onDisconnect();
    const { draining } = session;
    this.turn = this.turn.then(() => draining);
  }

  /** What remains of a session that ends. @param {Session} session */
  #onEnd(session) {
    this.idle.onEnd(session);
    const now = this.env.now();
    if (session.ready && session.link.transport === "webtransport") this.upgrade.onEnd(now - session.begun, now);
  }

  /**
   * Tries something better beside a session that is as good as ever, and that moves when the other is there.
   * @param {Session} session
   * @param {number} now
   * @returns {number} when to look again, unless something calls by itself
   */
  #tryBetter(session, now) {
    const wanted = this.attention.looked && !session.snapshot && this.ways?.better(session.link.transport);
    return wanted ? this.upgrade.poll(now) : Infinity;
  }

  /**
   * @param {Session} session
   * @param {{ code: string, message: string }} why
   * @param {number} retryAfterMs
   */
  #onLost(session, why, retryAfterMs) {
    if (session !== this.session) return;
    this.#keepTurn(session);
    if (session.ready && this.env.now() - session.begun >= STABLE_AFTER) this.backoff.reset();
    // A path that lets handshakes through and then nothing.
    if (session.mute) this.ways?.onMute(session.link.transport);
    // An attempt beside it was under way already: that is now the one.
    if (this.attempt) this.#show({ state: "connecting", transport: "none" });
    else if (retryAfterMs < 0) this.#connect();
    else this.#retry(why, retryAfterMs);
  }

  /**
   * @param {{ code: string, message: string }} error
   * @param {number} asked
   */
  #retry(error, asked) {
    if (this.stopped) return;
    if (error.code === "outdated" || error.code === "unsupportedVersion" || error.code === "unsupportedTransport") {
      return this.#show({ state: "ended", transport: "none", error });
    }
    this.asked = asked > 0;
    this.#wait(this.backoff.next(asked, this.attention.looked), error);
  }

  /**
   * @param {number} wait until the next attempt
   * @param {{ code: string, message: string }} [error]
   */
  #wait(wait, error = this.connection.error) {
    this.retryAt = this.env.now() + wait;
    const retryAt = Math.round(this.env.time() + wait);
    if (wait < SHORT_WAIT && this.backoff.failures <= 1) this.#show({ state: "connecting", transport: "none", error });
    else this.#show({ state: "offline", transport: "none", error, retryAt });
    this.#arm();
  }

  /** @param {boolean} hint whether something says that the network changed */
  #probe(hint) {
    this.session?.ping(hint);
    this.#arm();
  }

  /**
   * Looks after a session: asks whether the server is there, tries beside it where no answer comes, gives it up in the end.
   * @param {Session} session
   * @param {number} now
   * @returns {number} when to look again
   */
  #watchOver(session, now) {
    const { pulse } = session;
    if (!session.ready) {
      const giveUpAt = session.begun + WELCOME_TIMEOUT;
      const suspectAt = this.moving ? session.begun + MOVE_TIMEOUT : giveUpAt;
      if (now < suspectAt) return suspectAt;
      if (now < giveUpAt) {
        this.moving = false;
        this.ways?.onMute(session.link.transport);
        if (!this.attempt) this.#connect();
        return giveUpAt;
      }
      void session.leave();
      this.#onLost(session, { code: "timeout", message: "the server did not welcome us in time" }, 0);
      return Infinity;
    }
    if (pulse.probed === undefined) {
      // It lives: an attempt beside it was for nothing.
      this.attempt?.abort();
      this.attempt = undefined;
      const due = pulse.askAt(this.attention.quiet);
      if (now < due) return Math.min(due, this.#tryBetter(session, now));
      session.ping(false);
    }
    if (now >= pulse.giveUpAt) {
      void session.leave();
      this.#onLost(session, { code: "timeout", message: "the server does not answer any more" }, -1);
      return Infinity;
    }
    if (now >= pulse.suspectAt) {
      pulse.onSuspected(now);
      if (!this.attempt) this.#connect();
    }
    return Math.min(pulse.suspectAt, pulse.giveUpAt);
  }

  #poll() {
    if (this.stopped) return;
    const wake = this.session?.poll() ?? Infinity;
    this.#arm(wake);
  }

  /** Sets the one timer to whatever comes first. @param {number} [wake] */
  #arm(wake = this.session?.poll() ?? Infinity) {
    if (this.stopped) return;
    this.#onKnown();
    const now = this.env.now();
    if (this.session) wake = Math.min(wake, this.#watchOver(this.session, now));
    wake = Math.min(wake, this.retryAt);
    clearTimeout(this.timer);
    this.timer = wake === Infinity ? undefined : setTimeout(() => this.#tick(), Math.max(0, Math.min(wake - now, 2 ** 31 - 1)));
  }

  #tick() {
    if (this.stopped) return;
    if (this.env.now() >= this.retryAt && !this.session && !this.attempt) this.#connect();
    else this.#arm();
  }
}
