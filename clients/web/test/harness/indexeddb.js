// The package that imitates IndexedDB, as global, once.

import "fake-indexeddb/auto";
import { IdbDatabase } from "../../src/store/indexeddb.js";

let made = 0;

/** A database that no other test has. */
export const freshName = () => `test-${++made}`;
export const freshDatabase = () => IdbDatabase.open(freshName(), indexedDB);
