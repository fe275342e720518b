// An environment for tests in Node: a browser's parts from the packages that imitate them, one set for each "browser".

import { WebSocket } from "ws";
import { browser } from "../../src/environment.js";
import { FakeLocks } from "./locks.js";

/** Several tabs of one browser share this. */
export class FakeBrowser {
  constructor() {
    this.locks = new FakeLocks();
  }

  /** @returns {import("../../src/environment.js").Environment & { emit: (type: string, more?: object) => void, isHidden: boolean, dials: number, channels: BroadcastChannel[] }} */
  tab() {
    /** @type {Set<{ types: string[], handler: (event: Event) => void }>} */
    const listeners = new Set();
    /** @type {BroadcastChannel[]} */
    const channels = [];
    const environment = {
      ...browser(),
      channels,
      BroadcastChannel: class extends BroadcastChannel {
        /** @param {string} name */
        constructor(name) {
          super(name);
          channels.push(/** @type {any} */ (this));
        }
      },
      WebSocket: /** @type {any} */ (WebSocket),
      WebTransport: undefined,
      indexedDB: globalThis.indexedDB,
      locks: /** @type {any} */ (this.locks.tab()),
      storage: undefined,
      userAgent: "node",
      isHidden: false,
      dials: 0,
      hidden: () => environment.isHidden,
      fetch: /** @type {typeof fetch} */ ((input, init) => {
        environment.dials += 1;
        return fetch(input, init);
      }),
      on(/** @type {string[]} */ types, /** @type {(event: Event) => void} */ handler) {
        const listener = { types, handler };
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
      emit(/** @type {string} */ type, more = {}) {
        for (const { types, handler } of [...listeners]) if (types.includes(type)) handler(Object.assign(new Event(type), more));
      },
    };
    return environment;
  }
}
