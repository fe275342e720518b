// Web Locks as the browser has them: exclusive, first come, first served, let go of when a tab dies.

export class FakeLocks {
  constructor() {
    /** @type {Map<string, { tab: object, run: () => void, drop: () => void }[]>} */
    this.queues = new Map();
  }

  tab() {
    const tab = {
      /**
       * @param {string} name
       * @param {{ signal?: AbortSignal }} options
       * @param {() => Promise<unknown>} work
       */
      request: (name, { signal }, work) => this.#request(tab, name, signal, work),
      /** The tab is gone: what it held and waited for is the next one's. */
      crash: () => {
        for (const [name, queue] of this.queues) {
          const held = queue[0]?.tab === tab;
          this.queues.set(name, queue.filter((entry) => entry.tab !== tab));
          if (held) this.queues.get(name)?.[0]?.run();
        }
      },
    };
    return tab;
  }

  /**
   * @param {object} tab
   * @param {string} name
   * @param {AbortSignal | undefined} signal
   * @param {() => Promise<unknown>} work
   */
  #request(tab, name, signal, work) {
    return new Promise((resolve, reject) => {
      const queue = this.queues.get(name) ?? [];
      this.queues.set(name, queue);
      let granted = false;
      const leave = () => {
        const now = this.queues.get(name) ?? [];
        const at = now.indexOf(entry);
        if (at < 0) return;
        now.splice(at, 1);
        if (at === 0) now[0]?.run();
      };
      const entry = {
        tab,
        run: () => {
          granted = true;
          queueMicrotask(() => work().then(resolve, reject).finally(leave));
        },
        drop: leave,
      };
      signal?.addEventListener("abort", () => {
        if (granted) return;
        leave();
        reject(new DOMException("aborted", "AbortError"));
      });
      queue.push(entry);
      if (queue.length === 1) entry.run();
    });
  }
}
