// What the SDK uses of the browser, in one place, so that tests can give something else.

/**
 * @typedef {object} Environment
 * @property {typeof fetch} fetch
 * @property {typeof WebSocket | undefined} WebSocket
 * @property {any} WebTransport its constructor, or undefined
 * @property {IDBFactory | undefined} indexedDB
 * @property {Pick<LockManager, "request"> | undefined} locks
 * @property {typeof BroadcastChannel | undefined} BroadcastChannel
 * @property {Pick<StorageManager, "persist" | "persisted"> | undefined} storage
 * @property {string} userAgent
 * @property {() => string} network what can be known of the network that the device is on
 * @property {() => boolean} hidden whether nobody looks at the page
 * @property {(types: string[], handler: (event: Event) => void) => () => void} on listens to events of window and document; the result stops it
 * @property {() => number} now milliseconds that only rise
 * @property {() => number} time milliseconds since 1970
 * @property {() => number} random from 0 to 1, without 1
 */

/** @returns {Environment} */
export function browser() {
  const global = /** @type {any} */ (globalThis);
  const navigator = global.navigator ?? {};
  /** A page has many a "change" of its own: of every form. @type {(type: string) => (EventTarget | undefined)[]} */
  const targets = (type) => (type === "change" ? [navigator.connection] : [global.addEventListener && global, global.document]);
  return {
    fetch: (input, init) => fetch(input, init),
    WebSocket: global.WebSocket,
    WebTransport: global.WebTransport,
    indexedDB: global.indexedDB,
    locks: navigator.locks,
    BroadcastChannel: global.BroadcastChannel,
    storage: navigator.storage,
    userAgent: navigator.userAgent ?? "",
    network: () => navigator.connection?.type ?? "",
    hidden: () => global.document?.visibilityState === "hidden",
    on(types, handler) {
      for (const type of types) for (const target of targets(type)) target?.addEventListener?.(type, handler);
      return () => {
        for (const type of types) for (const target of targets(type)) target?.removeEventListener?.(type, handler);
      };
    },
    now: () => performance.now(),
    time: () => Date.now(),
    random: () => Math.random(),
  };
}

/**
 * Random bytes in hexadecimal digits: for nonces, names of devices and tabs.
 * @param {number} bytes
 */
export function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
