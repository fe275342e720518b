//! The embedded store: one SQLite file, written as a log.
//!
//! # Layout
//! The usual tables and indexes make every message dirty several random pages, each written twice. So the random pages are taken away:
//! a message is one row at the end of `log`, which is the truth, and everything else is an index that is written *late and in the order
//! of its keys*, as chunks of positions (`sweep`). What is not yet written is in memory (`index`), and made again at start from the
//! last part of the log. Users and the beginnings of conversations are rare and written at once.
//!
//! # Who does what
//! One writer at a time (`writer`) runs a transaction over what is published, writes its records and a step of the sweep, commits,
//! and then publishes. Readers (`reader`) have connections of their own and never wait for the writer. A thread of its own moves the
//! write-ahead log into the file (`checkpoint`). A second process cannot open the store for writing (the `.lock` file beside it, whatever
//! symlinks lead there; a hard link is another file to it, and to SQLite: give a store one name);
//! [`check()`] and [`backup()`] read, and may run at any time.
//!
//! # Which life of the log this is
//! The epoch rises when a store is found to be a copy: a device of another life must not trust its cursor. What is noticed: a file that
//! was made by [`backup()`]; one that lies elsewhere than where it was last opened (another device or inode: copied, moved between file
//! systems, restored by most tools); one whose log ends before where the `.lock` file beside it says that it had got (an older copy
//! put back in place). What is **not** noticed: a file system or virtual machine set back as a whole, where all of these go back together.
//! Use [`backup()`] for copies; or remove the `identity` row from `meta` by hand after such a thing. A rise that was not needed (some
//! file systems number their devices anew at each boot) costs each client one reset, and loses nothing.

mod cache;
mod check;
mod checkpoint;
mod chunk;
mod copy;
mod encode;
mod index;
mod reader;
mod rows;
mod schema;
mod sweep;
mod tail;
mod trim;
mod writer;

#[cfg(test)]
mod powercut;
#[cfg(test)]
mod tests;

pub use check::{Report, check};
pub use copy::{Compacted, backup, compact};

use super::{Conversation, DeviceKey, Entry, MailboxBounds, Record, Retention, Store, StoreError, Transaction, UserNo, fold};
use cache::Facts;
use checkpoint::Checkpoints;
use index::Index;
use reader::Readers;
use schema::{Access, Lock};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use whimbrel_protocol::frame::Direction;
use whimbrel_protocol::{ConversationId, ConversationSeq, LogEpoch, MailboxSeq, Time, UserId};
use writer::Writer;

/// The least that a probe writes.
const PROBE_MIN: usize = 64 * 1024;
/// How many keys a flush writes before it lets others at the store.
const FLUSH_KEYS: usize = 1024;

/// How much of the machine a store takes. The defaults suit a server with 512 MiB for itself or more.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Bytes of recent records that are kept in memory, for devices that are connected. 32 MiB: about 100,000 short messages, more
    /// than a second at full speed.
    pub ring_bytes: usize,
    /// Bytes of users, devices and conversations that are kept in memory beyond those not yet written. 64 MiB: some 15,000 busy users.
    pub cache_bytes: usize,
    /// Bytes of the file that may be mapped into memory instead of being read: 2 GiB. Reads of what is not recent take half the time so;
    /// the price is that a disk that fails under a mapped page ends the process. 0 reads everything.
    pub mmap_bytes: u64,
    /// The most connections that read. A reader beyond them waits.
    pub readers: usize,
    /// Entries of indexes (a direct message makes 4: two mailboxes, a conversation, a device) after which each index that had something
    /// to write has been written. More means less writing; but a start after a crash reads up to twice as much, at about
    /// half a million entries a tenth of a second.
    pub sweep_entries: u64,
    hooks: Hooks,
}

/// What only tests change.
#[derive(Debug, Clone)]
struct Hooks {
    /// Bytes at which a chunk is closed. A full one of 512 holds some 250 entries.
    chunk_bytes: usize,
    /// Pages after which a checkpoint is due: 8 MiB.
    checkpoint_pages: u64,
    vfs: Option<&'static str>,
    synchronous_off: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 32 << 20,
            cache_bytes: 64 << 20,
            mmap_bytes: 2 << 30,
            readers: 4,
            sweep_entries: 128 << 10,
            hooks: Hooks { chunk_bytes: 512, checkpoint_pages: 2048, vfs: None, synchronous_off: false },
        }
    }
}

/// Facts that never change, as far as they are in memory.
#[derive(Debug)]
struct KnownFacts {
    users: Facts<UserId, UserNo>,
    ids: Facts<UserNo, UserId>,
    directs: Facts<(UserNo, UserNo), ConversationId>,
}

impl KnownFacts {
    fn know_user(&mut self, user: UserNo, id: &UserId) {
        self.users.insert(id.clone(), user);
        self.ids.insert(user, id.clone());
    }
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    options: SqliteOptions,
    /// Only the thread that holds the writer changes it.
    index: RwLock<Index>,
    facts: Mutex<KnownFacts>,
    /// Cursors that the writer has not taken over yet: at most one a device.
    cursors: Mutex<HashMap<DeviceKey, MailboxSeq>>,
    readers: Readers,
    checkpoints: Checkpoints,
}

impl Shared {
    fn new(path: &Path, options: SqliteOptions, index: Index, checkpoints: Checkpoints) -> Self {
        Self {
            index: RwLock::new(index),
            facts: Mutex::new(KnownFacts { users: Facts::new(65_536), ids: Facts::new(65_536), directs: Facts::new(65_536) }),
            cursors: Mutex::default(),
            readers: Readers::new(path, options.clone()),
            checkpoints,
            options,
        }
    }

    fn index(&self) -> Result<RwLockReadGuard<'_, Index>, StoreError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match &index.broken {
            Some(why) => Err(StoreError::Unavailable(format!("it has to be read again after a failure: {why}"))),
            None => Ok(index),
        }
    }

    fn facts(&self) -> MutexGuard<'_, KnownFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    epoch: LogEpoch,
    writer: Mutex<Writer>,
    shared: Shared,
    /// The last to go: until then connections are being closed.
    lock: Mutex<Lock>,
}

impl SqliteStore {
    /// Opens the store in the file at `path`, which is made if there is none. Brings its schema up to date.
    ///
    /// # Errors
    /// If the file cannot be opened, is open for writing in another process, is of a newer version, is no store, or is damaged.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = &schema::canonical(path)?;
        let mut lock = Lock::take(path)?;
        let mut connection = schema::connect(path, Access::Write, &options)?;
        let new = schema::known_version(&connection)? == 0;
        schema::migrate(&mut connection)?;
        if new {
            schema::sync_directory(path)?;
        }
        // A process that was killed may have left commits that are in the file, but not yet on the disk; they are about to be served.
        writer::settle(&connection)?;
        let (index, sweep) = writer::load(&connection, &options)?;
        let end = index.next.pos;
        let epoch = schema::settle_epoch(&mut connection, path, lock.seen, end)?;
        lock.note(end);
        let behind = end - sweep.tail;
        let checkpoints = Checkpoints::start(schema::connect(path, Access::Write, &options)?, options.hooks.checkpoint_pages)?;
        let shared = Shared::new(path, options, index, checkpoints);
        let store = Self { epoch, writer: Mutex::new(Writer::new(connection, sweep)), shared, lock: Mutex::new(lock) };
        // A tail this long comes of a server that was killed again and again before a sweep was through. It must not grow for ever.
        if behind > store.shared.options.sweep_entries {
            store.flush()?;
        }
        Ok(store)
    }

    // A panic while the writer is held can only be the caller's `work`; the transaction was rolled back on the way.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn epoch(&self) -> LogEpoch {
        self.epoch
    }

    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.writer().transact(&self.shared, work)
    }

    fn user(&self, id: &UserId) -> Result<Option<UserNo>, StoreError> {
        self.shared.read_user(id)
    }

    fn user_id(&self, user: UserNo) -> Result<UserId, StoreError> {
        self.shared.read_user_id(user)
    }

    fn mailbox(&self, user: UserNo) -> Result<MailboxBounds, StoreError> {
        self.shared.read_mailbox(user)
    }

    fn mailbox_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        self.shared.read_entries(user, after, limit, max_bytes)
    }

    fn recent_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Option<Vec<Entry>> {
        self.shared.index().ok()?.entries(user, after.0, limit, max_bytes)
    }

    fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        Ok(self.shared.read_conversations(&[id])?.pop())
    }

    fn direct(&self, one: UserNo, other: UserNo) -> Result<Option<ConversationId>, StoreError> {
        self.shared.read_direct(fold::pair(one, other))
    }

    fn conversation_entries(
        &self,
        id: ConversationId,
        from: ConversationSeq,
        direction: Direction,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        self.shared.read_conversation_entries(id, from, direction, limit, max_bytes)
    }

    fn conversations_of(&self, user: UserNo, after: ConversationId, limit: usize) -> Result<Vec<Conversation>, StoreError> {
        let ids = self.shared.read_memberships(user, after, limit)?;
        self.shared.read_conversations(&ids)
    }

    fn save_cursors(&self, cursors: &[(DeviceKey, MailboxSeq)]) -> Result<(), StoreError> {
        let mut waiting = self.shared.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, cursor) in cursors {
            let noted = waiting.entry(*key).or_default();
            *noted = (*noted).max(*cursor);
        }
        Ok(())
    }

    fn save_positions(&self, positions: &[(UserNo, MailboxSeq)]) -> Result<(), StoreError> {
        let write = "INSERT INTO position (user, seq) VALUES (?1, ?2) ON CONFLICT (user) DO UPDATE SET seq = max(seq, excluded.seq)";
        self.writer().change(&self.shared, |published, _| {
            positions.iter().try_for_each(|(user, seq)| rows::run(published.connection, write, (user.0, seq.0 as i64)).map(drop))
        })
    }

    fn position(&self, user: UserNo) -> Result<Option<MailboxSeq>, StoreError> {
        self.shared.read_position(user)
    }

    fn trim(&self, keep: Retention, now: Time) -> Result<u64, StoreError> {
        self.trim_mailboxes(keep, now)
    }

    fn probe(&self, bytes: usize) -> Result<(), StoreError> {
        // At least a long message, so that the last few bytes of a full disk do not count as room.
        let bytes = i64::try_from(bytes.max(PROBE_MIN)).unwrap_or(i64::MAX);
        let write = "INSERT INTO meta (name, value) VALUES ('probe', zeroblob(?1)) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.writer().change(&self.shared, |published, _| rows::run(published.connection, write, [bytes]))?;
        let remove = "DELETE FROM meta WHERE name = 'probe'";
        self.writer().change(&self.shared, |published, _| rows::run(published.connection, remove, [])).map(drop)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let upto = self.writer().begin_flush(&self.shared)?;
        if let Some(upto) = upto {
            // In slices, so that a transaction does not have to wait for all of it.
            while !self.writer().flush_some(&self.shared, FLUSH_KEYS, upto)? {}
        }
        let writer = self.writer();
        let end = self.shared.index()?.next.pos;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).note(end);
        checkpoint::checkpoint(&writer.connection).map_err(|error| schema::failed(&error))
    }
}
