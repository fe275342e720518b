// What the device's store needs of a database. IndexedDB and memory both give it, and pass one suite of tests.

export type Key = number | string | [number, number];
export type StoreName = "meta" | "outbox" | "conversations" | "peers" | "messages" | "drafts";

export interface Range {
  lower?: Key;        // included
  upper?: Key;        // included
  limit?: number;
}

/** Only promises of the transaction itself may be awaited while it runs: anything else ends it. */
export interface Transaction {
  get(store: StoreName, key: Key): Promise<any>;              // undefined where there is nothing
  all(store: StoreName, range?: Range): Promise<any[]>;       // by rising key
  put(store: StoreName, key: Key, value: unknown): void;
  delete(store: StoreName, key: Key): void;
  deleteRange(store: StoreName, range: Range): void;          // everything where the range is empty; `limit` means nothing
}

export interface Database {
  readonly kind: "indexeddb" | "memory";
  /** Reads as of one moment. */
  read<T>(stores: StoreName[], work: (tx: Transaction) => Promise<T>): Promise<T>;
  /** All or nothing, one after the other. Resolves once it is durable; rejects with what `work` threw, or a WhimbrelError `storage…`. */
  write<T>(stores: StoreName[], work: (tx: Transaction) => Promise<T>): Promise<T>;
  close(): void;
  /** The database went away by itself, or has to for a newer version. */
  onlost: (why: import("../errors.js").WhimbrelError) => void;
}
