// A database in IndexedDB: what all tabs of an origin share, and what survives them.

import { WhimbrelError } from "../errors.js";

/** @typedef {import("./database.js").Database} Database */
/** @typedef {import("./database.js").Transaction} Transaction */
/** @typedef {import("./database.js").StoreName} StoreName */
/** @typedef {import("./database.js").Range} Range */

const VERSION = 1;
/** How long other tabs may take to make way for a newer version, in milliseconds. */
const BLOCKED_MAX = 10_000;

/**
 * Brings a database to `VERSION`, a step for each version since `from`. Steps of released versions never change.
 * @param {IDBDatabase} db
 * @param {number} from
 */
function upgrade(db, from) {
  if (from < 1) for (const store of ["meta", "outbox", "conversations", "peers", "messages", "drafts"]) db.createObjectStore(store);
}

/**
 * @param {unknown} why
 */
function storageError(why) {
  const name = why instanceof Error || why instanceof DOMException ? why.name : "unknown";
  const message = why instanceof Error || why instanceof DOMException ? why.message : String(why);
  if (name === "QuotaExceededError") {
    return new WhimbrelError("storageFull", "the browser gives this site no more storage: free some space on this device, then try again");
  }
  return new WhimbrelError("storageFailed", `the browser's database failed (${name}: ${message}): reload the page`);
}

/**
 * @param {Range} range
 */
function keyRange({ lower, upper }) {
  if (lower !== undefined && upper !== undefined) return IDBKeyRange.bound(lower, upper);
  if (lower !== undefined) return IDBKeyRange.lowerBound(lower);
  return upper === undefined ? undefined : IDBKeyRange.upperBound(upper);
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(storageError(request.error));
  });
}

/** @implements {Transaction} */
class IdbTransaction {
  /** @param {IDBTransaction} tx */
  constructor(tx) {
    this.tx = tx;
  }

  /** @type {Transaction["get"]} */
  get(store, key) {
    return done(this.tx.objectStore(store).get(key));
  }

  /** @type {Transaction["all"]} */
  all(store, range = {}) {
    if (range.limit === 0 || isEmpty(range)) return Promise.resolve([]);
    return done(this.tx.objectStore(store).getAll(keyRange(range), range.limit));
  }

  // What is written is not waited for: a failure aborts the transaction.

  /** @type {Transaction["put"]} */
  put(store, key, value) {
    this.tx.objectStore(store).put(value, key);
  }

  /** @type {Transaction["delete"]} */
  delete(store, key) {
    this.tx.objectStore(store).delete(key);
  }

  /** @type {Transaction["deleteRange"]} */
  deleteRange(store, range) {
    if (isEmpty(range)) return;
    const keys = keyRange(range);
    if (keys) this.tx.objectStore(store).delete(keys);
    else this.tx.objectStore(store).clear();
  }
}

/**
 * IndexedDB refuses a range whose end is before its beginning.
 * @param {Range} range
 */
function isEmpty({ lower, upper }) {
  return lower !== undefined && upper !== undefined && indexedDB.cmp(lower, upper) > 0;
}

/** @implements {Database} */
export class IdbDatabase {
  /** @param {IDBDatabase} db */
  constructor(db) {
    /** @type {"indexeddb"} */
    this.kind = "indexeddb";
    this.db = db;
    /** @type {Database["onlost"]} */
    this.onlost = () => {};
    db.onversionchange = () => {
      db.close();
      this.onlost(new WhimbrelError("outdated", "a newer version of this application runs in another tab: reload this one"));
    };
    db.onclose = () => this.onlost(new WhimbrelError("storageFailed", "the browser closed the database: reload the page"));
  }

  /**
   * @param {string} name
   * @param {IDBFactory | undefined} factory
   * @returns {Promise<IdbDatabase>}
   */
  static open(name, factory) {
    return new Promise((resolve, reject) => {
      if (!factory) throw new WhimbrelError("storageFailed", "this browser has no IndexedDB, or does not give it to this page");
      const request = factory.open(name, VERSION);
      let late = false;
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let timer;
      request.onupgradeneeded = (event) => upgrade(request.result, event.oldVersion);
      request.onblocked = () => {
        timer = setTimeout(() => {
          late = true;
          reject(new WhimbrelError("storageBlocked", "another tab holds an older version of the database: close or reload it, then reload this one"));
        }, BLOCKED_MAX);
      };
      request.onerror = () => {
        clearTimeout(timer);
        const newer = request.error?.name === "VersionError";
        const outdated = () => new WhimbrelError("outdated", "a newer version of this application has used the database: reload the page");
        reject(newer ? outdated() : storageError(request.error));
      };
      request.onsuccess = () => {
        clearTimeout(timer);
        if (late) request.result.close();
        else resolve(new IdbDatabase(request.result));
      };
    });
  }

  /** @type {Database["read"]} */
  read(stores, work) {
    return this.#run(stores, "readonly", work);
  }

  /** @type {Database["write"]} */
  write(stores, work) {
    return this.#run(stores, "readwrite", work);
  }

  /**
   * @template T
   * @param {StoreName[]} stores
   * @param {IDBTransactionMode} mode
   * @param {(tx: Transaction) => Promise<T>} work
   * @returns {Promise<T>}
   */
  #run(stores, mode, work) {
    return new Promise((resolve, reject) => {
      /** @type {IDBTransaction} */
      let tx;
      try {
        // Not only with the operating system, but on the disk: what is acknowledged must survive a power cut.
        tx = this.db.transaction(stores, mode, { durability: "strict" });
      } catch (why) {
        reject(storageError(why));
        return;
      }
      /** @type {{ value: T } | undefined} */
      let result;
      /** @type {unknown} */
      let failed;
      tx.oncomplete = () => (result ? resolve(result.value) : reject(failed ?? storageError(new Error("it ended too early"))));
      tx.onabort = () => reject(failed ?? storageError(tx.error));
      work(new IdbTransaction(tx)).then(
        (value) => {
          result = { value };
          // What was read was read; only what is written has to wait for the end.
          if (mode === "readonly") resolve(value);
        },
        (why) => {
          failed ??= why;
          try {
            tx.abort();
          } catch {
            // It has ended already, by a failure of its own.
          }
        },
      );
    });
  }

  close() {
    this.db.close();
  }
}
