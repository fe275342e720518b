// The best transport that works: both are tried, one with a head start, and what worked is remembered.

import { WhimbrelError } from "../errors.js";
import { discover } from "./discover.js";
import { connectWebSocket } from "./websocket.js";
import { connectWebTransport, isUsable } from "./webtransport.js";

/** @typedef {import("./link.js").Link} Link */
/** @typedef {import("./link.js").TransportKind} TransportKind */
/** @typedef {(signal: AbortSignal) => Promise<Link>} Attempt */

/** How long the favourite may take before the other is tried too. */
export const HEAD_START = 200;
/** So long a WebSocket stays the favourite on a network where it won. */
const REMEMBERED_FOR = 3_600_000;
/** Chromium makes a page wait longer with each WebTransport attempt that fails, and forgets that after this long. */
const THROTTLED_FOR = 300_000;
const FAILURES_MAX = 3;
/** A server that has said where it is, and does not say it again within this time, is looked for where it was: browsers ask over a
 * connection that they kept, which may be as dead as the one to be replaced. */
const KNOWN_AFTER = 500;

/** Which transport to try first, and whether at all. */
export class Ways {
  /**
   * @param {import("../environment.js").Environment} env
   * @param {"auto" | TransportKind} wanted
   * @param {import("../store/rows.js").Way | null} way how the server was last reached
   * @param {(way: import("../store/rows.js").Way | null) => void} remember
   */
  constructor(env, wanted, way, remember) {
    this.env = env;
    this.wanted = wanted;
    this.way = way;
    this.remember = remember;
    /** When WebTransport failed of late. @type {number[]} */
    this.failed = [];
    /** What the server said last of where it is. @type {import("./link.js").Endpoints | undefined} */
    this.known = undefined;
  }

  /** Whether a WebSocket goes first: it won here of late. */
  get #remembered() {
    const { way, env } = this;
    return way?.transport === "websocket" && way.network === env.network() && env.time() - way.at < REMEMBERED_FOR;
  }

  /** @param {import("../store/rows.js").Way | null} way */
  #note(way) {
    this.way = way;
    this.remember(way);
  }

  /**
   * In the order to try them.
   * @param {import("./link.js").Endpoints} endpoints
   * @returns {TransportKind[]}
   */
  order({ webtransport, websocket }) {
    const now = this.env.time();
    this.failed = this.failed.filter((at) => now - at < THROTTLED_FOR);
    const quic = webtransport && this.wanted !== "websocket" && (this.wanted === "webtransport" || isUsable(this.env));
    if (this.wanted === "webtransport") return quic && typeof this.env.WebTransport === "function" ? ["webtransport"] : [];
    if (!websocket) return quic ? ["webtransport"] : [];
    if (!quic || this.failed.length >= FAILURES_MAX) return ["websocket"];
    return this.#remembered ? ["websocket", "webtransport"] : ["webtransport", "websocket"];
  }

  /**
   * WebTransport failed, was too slow, or brought nothing.
   * @param {TransportKind} transport
   */
  onFailed(transport) {
    if (transport === "webtransport") this.failed.push(this.env.time());
  }

  /**
   * A path that lets handshakes through and then nothing: the other transport goes first next time.
   * @param {TransportKind} transport
   */
  onMute(transport) {
    this.onFailed(transport);
    this.#prefer(transport === "websocket" ? "webtransport" : "websocket");
  }

  /**
   * A session is there.
   * @param {TransportKind} transport
   */
  onConnected(transport) {
    if (transport === "webtransport") this.failed = [];
    this.#prefer(transport);
  }

  /** @param {TransportKind} transport */
  #prefer(transport) {
    const favoured = this.#remembered ? "websocket" : "webtransport";
    if (this.wanted !== "auto" || favoured === transport) return;
    const { env } = this;
    this.#note(transport === "websocket" ? { transport, network: env.network(), at: env.time() } : null);
  }

  /**
   * Whether there may be something better than what carries a session. It is seldom tried, so what failed of late does not count: the wait
   * that browsers put before the next attempt is short against that.
   * @param {TransportKind} transport
   */
  better(transport) {
    return this.wanted === "auto" && transport === "websocket" && !!this.known?.webtransport && isUsable(this.env);
  }

  /** The network is another one: what was found out of the old one says nothing about it. */
  onNetworkChanged() {
    if (this.way) this.#note(null);
    this.failed = this.failed.slice(0, FAILURES_MAX - 1);
  }
}

/**
 * Finds out where the server is and opens a link to it. Only the link that is returned ever carries a frame: two `hello`s of one device
 * would replace each other.
 * @param {import("../environment.js").Environment} env
 * @param {URL} base
 * @param {Ways} ways
 * @param {AbortSignal} signal
 * @param {boolean} [better] only what may be better than a session's WebSocket
 * @returns {Promise<Link>}
 */
export async function connect(env, base, ways, signal, better = false) {
  const endpoints = await find(env, base, ways, signal);
  /** @type {Record<TransportKind, Attempt>} */
  const attempts = {
    webtransport: async (own) => {
      try {
        return await connectWebTransport(env, /** @type {any} */ (endpoints.webtransport), own);
      } catch (why) {
        // Given up together with the whole round it says nothing of the path.
        if (!signal.aborted) ways.onFailed("webtransport");
        throw why;
      }
    },
    websocket: (signal) => connectWebSocket(env, /** @type {any} */ (endpoints.websocket).url, signal),
  };
  const { webtransport } = endpoints;
  const [first, second] = better ? ways.order({ webtransport }) : ways.order(endpoints);
  if (!first) throw new WhimbrelError("unsupportedTransport", `the server or this browser does not offer ${ways.wanted}: choose "auto"`);
  return race(attempts[first], second && attempts[second], signal);
}

/**
 * Where the server is.
 * @param {import("../environment.js").Environment} env
 * @param {URL} base
 * @param {Ways} ways
 * @param {AbortSignal} signal
 * @returns {Promise<import("./link.js").Endpoints>}
 */
function find(env, base, ways, signal) {
  const { known } = ways;
  const found = discover(env, base, signal).then((endpoints) => (ways.known = endpoints));
  if (!known) return found;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(known), KNOWN_AFTER);
    found.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * The first of two that succeeds; the second begins when the first has failed or had its head start. The loser is given up.
 * @param {Attempt} first
 * @param {Attempt | undefined} second
 * @param {AbortSignal} signal
 * @param {number} [headStart]
 * @returns {Promise<Link>}
 */
export function race(first, second, signal, headStart = HEAD_START) {
  return new Promise((resolve, reject) => {
    let over = false;
    let running = 0;
    /** @type {string[]} */
    const reasons = [];
    /** @type {Set<AbortController>} */
    const aborts = new Set();
    let rest = second ? [first, second] : [first];
    const end = () => {
      over = true;
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      for (const abort of aborts) abort.abort();
    };
    const cancel = () => {
      end();
      reject(new WhimbrelError("unreachable", "given up"));
    };
    const begin = () => {
      const attempt = rest.shift();
      if (!attempt || over) return;
      const abort = new AbortController();
      aborts.add(abort);
      running += 1;
      attempt(abort.signal).then(
        (link) => {
          if (over) return link.close();
          aborts.delete(abort);
          end();
          return resolve(link);
        },
        (why) => {
          running -= 1;
          aborts.delete(abort);
          reasons.push(why instanceof Error ? why.message : String(why));
          if (over) return;
          if (rest.length > 0) begin();
          else if (running === 0) {
            end();
            reject(new WhimbrelError("unreachable", reasons.join("; ")));
          }
        },
      );
    };
    const timer = setTimeout(begin, headStart);
    if (signal.aborted) cancel();
    else {
      signal.addEventListener("abort", cancel);
      begin();
    }
  });
}
