// Frames over WebTransport: one bidirectional stream for the session, one more for each question, each frame behind its length; and
// datagrams for what may get lost.

import { decodeServerFrame, FrameSplitter, withLength } from "../codec/index.js";
import { CodecError, WhimbrelError } from "../errors.js";

/** Datagrams that wait to be read, or to be sent; more are dropped. */
const HINTS_MAX = 64;
/** Chromium notices a path that drops UDP after 4 to 5 seconds. */
const OPEN_TIMEOUT = 8_000;

/**
 * Whether WebTransport is worth an attempt here. Safari has it, with faults that lose connections (credit that is not refilled), so it
 * uses WebSocket until that is known to be mended.
 * @param {import("../environment.js").Environment} env
 */
export function isUsable({ WebTransport, userAgent }) {
  const safari = /AppleWebKit/.test(userAgent) && !/Chrom(e|ium)\/|Edg\//.test(userAgent);
  return typeof WebTransport === "function" && !safari;
}

/**
 * @param {import("../environment.js").Environment} env
 * @param {{ url: string, hashes: Uint8Array[] }} endpoint
 * @param {AbortSignal} signal
 * @returns {Promise<import("./link.js").Link>}
 */
export async function connectWebTransport(env, { url, hashes }, signal) {
  // Empty: the certificate is publicly trusted, and pinning nothing would refuse it.
  const options = hashes.length > 0 ? { serverCertificateHashes: hashes.map((value) => ({ algorithm: "sha-256", value })) } : {};
  /** @type {WebTransport} */
  const transport = new env.WebTransport(url, options);
  // Whoever waits hears of it by `ready` or by the stream.
  transport.closed.catch(() => {});
  transport.ready.catch(() => {});
  let stop = () => {};
  const aborted = new Promise((_, reject) => {
    const fail = () => reject(new WhimbrelError("unreachable", `no WebTransport to ${url}`));
    const timer = setTimeout(fail, OPEN_TIMEOUT);
    signal.addEventListener("abort", fail);
    stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", fail);
    };
  });
  try {
    const opened = transport.ready.then(() => transport.createBidirectionalStream());
    opened.catch(() => {});
    const stream = await Promise.race([opened, aborted]);
    return new WebTransportLink(transport, stream, isUsable(env));
  } catch {
    closeQuietly(transport);
    throw new WhimbrelError("unreachable", `no WebTransport to ${url}`);
  } finally {
    stop();
  }
}

/** @param {WebTransport} transport */
function closeQuietly(transport) {
  try {
    transport.close();
  } catch {
    // It was never open, which is how browsers say so.
  }
}

/** @typedef {import("./link.js").Link} Link */

/** @implements {Link} */
class WebTransportLink {
  /**
   * @param {WebTransport} transport
   * @param {WebTransportBidirectionalStream} stream
   * @param {boolean} streams whether more streams may be opened
   */
  constructor(transport, stream, streams) {
    /** @type {"webtransport"} */
    this.transport = "webtransport";
    this.session = transport;
    this.ask = streams ? this.#ask : undefined;
    this.writer = stream.writable.getWriter();
    this.reader = stream.readable.getReader();
    this.queued = 0;
    this.over = false;
    /** Datagrams that the browser has not taken yet. */
    this.hints = 0;
    /** @type {WritableStreamDefaultWriter | undefined} */
    this.hinter = undefined;
    /** @type {(why: WhimbrelError) => void} */
    this.onclosed = () => {};
  }

  /** @type {Link["start"]} */
  start(onframes, onclosed, onhints) {
    this.onclosed = onclosed;
    const lost = () => this.#lost(new WhimbrelError("connectionLost", "the WebTransport session was closed"));
    this.session.closed.then(lost, lost);
    this.#read(this.reader, onframes).then(lost, (why) => (why instanceof CodecError ? this.#lost(why) : lost()));
    // Where there are none, or no more, the stream carries everything.
    this.#readHints(onhints).catch(() => {});
  }

  /**
   * @param {ReadableStreamDefaultReader<Uint8Array>} reader
   * @param {Parameters<Link["start"]>[0]} onframes
   */
  async #read(reader, onframes) {
    const splitter = new FrameSplitter();
    while (!this.over) {
      const { value, done } = await reader.read();
      if (done || this.over) return;
      const frames = splitter.push(value).map(decodeServerFrame);
      if (frames.length > 0) await onframes(frames);
    }
  }

  /** @param {Parameters<Link["start"]>[2]} onhints */
  async #readHints(onhints) {
    /** @type {any} */
    const { datagrams } = this.session;
    // A browser keeps one by itself, and drops what comes while it is busy. The second name is the newer one.
    datagrams.incomingHighWaterMark = datagrams.incomingMaxBufferedDatagrams = HINTS_MAX;
    const reader = datagrams.readable.getReader();
    while (!this.over) {
      const { value, done } = await reader.read();
      if (done || this.over) return;
      try {
        onhints(new FrameSplitter().push(value).map(decodeServerFrame));
      } catch (why) {
        if (!(why instanceof CodecError)) throw why;
      }
    }
  }

  /** @param {WhimbrelError} why */
  #lost(why) {
    if (this.over) return;
    this.over = true;
    closeQuietly(this.session);
    this.onclosed(why);
  }

  send(/** @type {Uint8Array} */ frame) {
    if (this.over) return;
    const bytes = withLength(frame);
    this.queued += bytes.length;
    const lost = () => this.#lost(new WhimbrelError("connectionLost", "the WebTransport stream takes nothing any more"));
    this.writer.write(bytes).then(() => (this.queued -= bytes.length), lost);
  }

  /** @type {NonNullable<Link["ask"]>} */
  async #ask(frame, onframes) {
    const { readable, writable } = await this.session.createBidirectionalStream();
    const [reader, writer] = [readable.getReader(), writable.getWriter()];
    try {
      // What goes wrong here shows in what is read.
      writer.write(withLength(frame)).catch(() => {});
      writer.close().catch(() => {});
      await this.#read(reader, onframes);
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  get datagramMax() {
    return this.session.datagrams?.maxDatagramSize ?? 0;
  }

  hint(/** @type {Uint8Array} */ datagram) {
    if (this.over || this.hints >= HINTS_MAX) return;
    /** @type {any} */
    const { datagrams } = this.session;
    this.hinter ??= /** @type {WritableStreamDefaultWriter} */ ((datagrams.writable ?? datagrams.createWritable()).getWriter());
    this.hints += 1;
    this.hinter.write(datagram).catch(() => {}).then(() => (this.hints -= 1));
  }

  close() {
    if (this.over) return;
    this.over = true;
    // What was written goes out first; a peer that takes nothing is not waited for.
    const timer = setTimeout(() => closeQuietly(this.session), 1_000);
    const close = () => {
      clearTimeout(timer);
      closeQuietly(this.session);
    };
    this.writer.close().then(close, close);
  }
}
