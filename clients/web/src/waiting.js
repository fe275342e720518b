// How many commands wait while there is no session, which would know by itself.

import { rowsAfter } from "./store/outbox.js";

export class Waiting {
  /** @param {import("./store/database.js").Database} db */
  constructor(db) {
    this.db = db;
    this.count = 0;
    /** The last row of the outbox that is counted. */
    this.lastId = 0;
    /** @type {Promise<void>} */
    this.turn = Promise.resolve();
  }

  /** @param {import("./store/rows.js").OutboxRow[]} rows the outbox */
  start(rows) {
    this.count = rows.filter((row) => !row.applied).length;
    this.lastId = rows.at(-1)?.id ?? 0;
  }

  /** @param {import("./session.js").Session} session that ends */
  onEnd(session) {
    [this.count, this.lastId] = [session.uplink.waiting, session.lastId];
  }

  /**
   * The outbox may hold something new.
   * @param {() => boolean} over whether there is a session by now
   * @returns {Promise<void>}
   */
  look(over) {
    // One after the other: none may count what another has counted.
    const looked = this.turn.then(async () => {
      const rows = await rowsAfter(this.db, this.lastId);
      if (over() || rows.length === 0) return;
      this.lastId = rows[rows.length - 1].id;
      this.count += rows.length;
    });
    this.turn = looked.catch(() => {});
    return looked;
  }
}
