// Whether a tab's page is suspended, or about to be: its application says so, or the browser does.
//
// A page that is merely hidden is not: on a desktop somebody is a click away from it. And one that the browser freezes and wakes for a
// moment, as Chromium does with hidden pages from time to time, stays suspended until it is seen: nobody has come.

export class Suspension {
  /** @param {import("./environment.js").Environment} env */
  constructor(env) {
    this.env = env;
    /**
     * Who says so. What the application says, the browser does not take back: the two tell of different things, in any order.
     * @type {"application" | "browser" | undefined}
     */
    this.by = undefined;
    /** Whether another page of this site takes the place of this one. */
    this.followed = false;
  }

  get is() {
    return this.by !== undefined;
  }

  /** The application says it. @param {boolean} suspended */
  say(suspended) {
    this.by = suspended ? "application" : undefined;
  }

  /**
   * Something happened to the page.
   * @param {any} event
   * @returns {boolean} whether that changes anything
   */
  onEvent({ type, persisted, activation }) {
    const before = this.is;
    // Whoever goes from page to page within a site has not left: the next one may say hello in a moment, and the server waits for it.
    // Browsers that do not tell (`activation` names the next page if it is of the same origin) show them offline for that moment.
    if (type === "pageswap") this.followed = !!activation;
    else if (type === "freeze" || (type === "pagehide" && persisted)) {
      if (!this.followed) this.by ??= "browser";
    } else if (type !== "pagehide") {
      if (type === "resume" || type === "pageshow") this.followed = false;
      if (this.by === "browser" && !this.env.hidden()) this.by = undefined;
    }
    return this.is !== before;
  }
}
