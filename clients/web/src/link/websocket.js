// Frames over a WebSocket: a message holds exactly one.

import { decodeServerFrame } from "../codec/index.js";
import { CodecError, WhimbrelError } from "../errors.js";

const PROTOCOL = "whimbrel.v1.postcard";
const OPEN_TIMEOUT = 8_000;

/**
 * @param {import("../environment.js").Environment} env
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<import("./link.js").Link>}
 */
export function connectWebSocket(env, url, signal) {
  return new Promise((resolve, reject) => {
    const WebSocket = env.WebSocket;
    if (!WebSocket) throw new WhimbrelError("unreachable", "this browser has no WebSocket");
    const socket = new WebSocket(url, PROTOCOL);
    socket.binaryType = "arraybuffer";
    const fail = () => {
      stop();
      // Outside browsers one that is closed before it was open has an error to tell of.
      socket.onerror = () => {};
      socket.close();
      reject(new WhimbrelError("unreachable", `no WebSocket to ${url}`));
    };
    const timer = setTimeout(fail, OPEN_TIMEOUT);
    const stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", fail);
      socket.onopen = socket.onerror = socket.onclose = null;
    };
    signal.addEventListener("abort", fail);
    socket.onerror = socket.onclose = fail;
    socket.onopen = () => {
      stop();
      resolve(new WebSocketLink(socket));
    };
  });
}

/** @typedef {import("./link.js").Link} Link */

/** @implements {Link} */
class WebSocketLink {
  /** @param {WebSocket} socket */
  constructor(socket) {
    /** @type {"websocket"} */
    this.transport = "websocket";
    this.datagramMax = 0;
    this.socket = socket;
  }

  /** @type {Link["start"]} */
  start(onframes, onclosed) {
    const { socket } = this;
    socket.onclose = socket.onerror = () => {
      this.close();
      onclosed(new WhimbrelError("connectionLost", "the WebSocket was closed"));
    };
    socket.onmessage = ({ data }) => {
      try {
        if (!(data instanceof ArrayBuffer)) throw new CodecError("the server sent text where bytes were asked for");
        // A browser's WebSocket cannot be told to wait; the session bounds what it holds.
        void onframes([decodeServerFrame(new Uint8Array(data))]);
      } catch (why) {
        if (!(why instanceof CodecError)) throw why;
        this.close();
        onclosed(why);
      }
    };
    // It may have closed before anybody listened.
    if (socket.readyState > 1) queueMicrotask(() => socket.onclose?.(/** @type {CloseEvent} */ (new Event("close"))));
  }

  send(/** @type {Uint8Array} */ frame) {
    if (this.socket.readyState === 1) this.socket.send(/** @type {Uint8Array<ArrayBuffer>} */ (frame));
  }

  hint() {}

  get queued() {
    return this.socket.bufferedAmount;
  }

  close() {
    this.socket.onclose = this.socket.onerror = this.socket.onmessage = null;
    this.socket.close();
  }
}
