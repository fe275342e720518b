//! What only this store has to prove.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::suite::{Ground, store_suite};
use super::*;
use tempfile::TempDir;

/// Everything that is bounded as small as it can be.
pub(super) fn small() -> SqliteOptions {
    SqliteOptions {
        ring_bytes: 2_000,
        cache_bytes: 4_000,
        mmap_bytes: 0,
        readers: 2,
        sweep_entries: 40,
        hooks: Hooks { chunk_bytes: 8, checkpoint_pages: 60, vfs: None, synchronous_off: false },
    }
}

struct SqliteGround {
    directory: TempDir,
    options: SqliteOptions,
}

impl Ground for SqliteGround {
    type Store = SqliteStore;
    fn new(small: bool) -> (Self, SqliteStore) {
        let options = if small { self::small() } else { SqliteOptions::default() };
        let ground = Self { directory: TempDir::new().unwrap(), options };
        let store = SqliteStore::open(&ground.directory.path().join("store.db"), ground.options.clone()).unwrap();
        (ground, store)
    }
    fn reopen(&self, store: SqliteStore) -> SqliteStore {
        drop(store);
        let path = self.directory.path().join("store.db");
        let report = check(&path).unwrap();
        assert!(report.is_sound(), "{report:?}");
        SqliteStore::open(&path, self.options.clone()).unwrap()
    }
}

store_suite!(SqliteGround);
