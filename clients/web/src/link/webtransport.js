// Frames over WebTransport: one bidirectional stream, each frame behind its length. One long-lived stream and no more, since Safari is
// reported to stall with many.

import { decodeServerFrame, FrameSplitter, withLength } from "../codec/index.js";
import { CodecError, WhimbrelError } from "../errors.js";

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
    return new WebTransportLink(transport, stream);
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
   */
  constructor(transport, stream) {
    /** @type {"webtransport"} */
    this.transport = "webtransport";
    this.session = transport;
    this.writer = stream.writable.getWriter();
    this.reader = stream.readable.getReader();
    this.queued = 0;
    this.over = false;
    /** @type {(why: WhimbrelError) => void} */
    this.onclosed = () => {};
  }

  /** @type {Link["start"]} */
  start(onframes, onclosed) {
    this.onclosed = onclosed;
    const lost = () => this.#lost(new WhimbrelError("connectionLost", "the WebTransport session was closed"));
    this.session.closed.then(lost, lost);
    this.#read(onframes).then(lost, (why) => (why instanceof CodecError ? this.#lost(why) : lost()));
  }

  /** @param {Parameters<Link["start"]>[0]} onframes */
  async #read(onframes) {
    const splitter = new FrameSplitter();
    while (!this.over) {
      const { value, done } = await this.reader.read();
      if (done || this.over) return;
      const frames = splitter.push(value).map(decodeServerFrame);
      if (frames.length > 0) await onframes(frames);
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
