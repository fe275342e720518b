// A database in memory, for tests and for where the browser has none to give: it keeps nothing beyond the page.

/** @typedef {import("./database.js").Key} Key */
/** @typedef {import("./database.js").Database} Database */
/** @typedef {import("./database.js").Transaction} Transaction */
/** @typedef {import("./database.js").StoreName} StoreName */
/** @typedef {import("./database.js").Range} Range */

/**
 * @param {Key} a
 * @param {Key} b
 * @returns {number}
 */
function compare(a, b) {
  if (Array.isArray(a) && Array.isArray(b)) return a[0] - b[0] || a[1] - b[1];
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Entries by rising key. */
class Table {
  constructor() {
    /** @type {Key[]} */
    this.keys = [];
    /** @type {unknown[]} */
    this.values = [];
  }

  /**
   * Where `key` is, or would be.
   * @param {Key} key
   */
  find(key) {
    let low = 0;
    let high = this.keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.keys[middle], key) < 0) low = middle + 1;
      else high = middle;
    }
    return { at: low, found: low < this.keys.length && compare(this.keys[low], key) === 0 };
  }

  /** @param {Range} range */
  bounds({ lower, upper }) {
    const from = lower === undefined ? 0 : this.find(lower).at;
    if (upper === undefined) return [from, this.keys.length];
    const { at, found } = this.find(upper);
    return [from, Math.max(from, found ? at + 1 : at)];
  }
}

/** @implements {Transaction} */
class MemoryTransaction {
  /**
   * @param {Map<StoreName, Table>} tables
   * @param {StoreName[]} stores
   * @param {boolean} writes
   */
  constructor(tables, stores, writes) {
    this.tables = tables;
    this.stores = stores;
    this.writes = writes;
    /** What to do to undo it, last first. @type {(() => void)[]} */
    this.undo = [];
  }

  /**
   * @param {StoreName} store
   * @param {boolean} [write]
   */
  table(store, write = false) {
    if (!this.stores.includes(store) || (write && !this.writes)) throw new TypeError(`${store} is not part of the transaction`);
    let table = this.tables.get(store);
    if (!table) this.tables.set(store, (table = new Table()));
    return table;
  }

  /** @type {Transaction["get"]} */
  async get(store, key) {
    const table = this.table(store);
    const { at, found } = table.find(key);
    return found ? structuredClone(table.values[at]) : undefined;
  }

  /** @type {Transaction["all"]} */
  async all(store, range = {}) {
    const table = this.table(store);
    const [from, to] = table.bounds(range);
    return structuredClone(table.values.slice(from, Math.min(to, from + (range.limit ?? Infinity))));
  }

  /** @type {Transaction["put"]} */
  put(store, key, value) {
    const table = this.table(store, true);
    const copy = structuredClone(value);
    const { at, found } = table.find(key);
    if (found) {
      const before = table.values[at];
      this.undo.push(() => (table.values[table.find(key).at] = before));
      table.values[at] = copy;
    } else {
      this.undo.push(() => this.#remove(table, table.find(key).at, 1));
      table.keys.splice(at, 0, key);
      table.values.splice(at, 0, copy);
    }
  }

  /** @type {Transaction["delete"]} */
  delete(store, key) {
    this.deleteRange(store, { lower: key, upper: key });
  }

  /** @type {Transaction["deleteRange"]} */
  deleteRange(store, range) {
    const table = this.table(store, true);
    const [from, to] = table.bounds(range);
    const [keys, values] = this.#remove(table, from, to - from);
    this.undo.push(() => {
      table.keys.splice(from, 0, ...keys);
      table.values.splice(from, 0, ...values);
    });
  }

  /**
   * @param {Table} table
   * @param {number} from
   * @param {number} count
   * @returns {[Key[], unknown[]]}
   */
  #remove(table, from, count) {
    return [table.keys.splice(from, count), table.values.splice(from, count)];
  }
}

/** @implements {Database} */
export class MemoryDatabase {
  constructor() {
    /** @type {"memory"} */
    this.kind = "memory";
    /** @type {Map<StoreName, Table>} */
    this.tables = new Map();
    /** Transactions run one after the other. @type {Promise<unknown>} */
    this.queue = Promise.resolve();
    /** @type {Database["onlost"]} */
    this.onlost = () => {};
  }

  /** @type {Database["read"]} */
  read(stores, work) {
    return this.#run(stores, false, work);
  }

  /** @type {Database["write"]} */
  write(stores, work) {
    return this.#run(stores, true, work);
  }

  /**
   * @template T
   * @param {StoreName[]} stores
   * @param {boolean} writes
   * @param {(tx: Transaction) => Promise<T>} work
   * @returns {Promise<T>}
   */
  #run(stores, writes, work) {
    const run = async () => {
      const tx = new MemoryTransaction(this.tables, stores, writes);
      try {
        return await work(tx);
      } catch (why) {
        for (const undo of tx.undo.reverse()) undo();
        throw why;
      }
    };
    const result = this.queue.then(run);
    this.queue = result.catch(() => {});
    return result;
  }

  close() {}
}
