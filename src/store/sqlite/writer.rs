//! The one writer: runs transactions, commits them, publishes them.

use super::super::staged::{Base, Next, Staged};
use super::super::{Conversation, Device, DeviceKey, Pos, Record, RecordBody, StoreError, Transaction, UserNo, fold};
use super::index::{Devices, Index, State, apply_to_conversation, apply_to_devices};
use super::schema::{damaged, failed, meta, set_meta};
use super::sweep::Sweep;
use super::tail::Tail;
use super::{Shared, chunk, encode, rows};
use rusqlite::{Connection, ErrorCode};
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use whimbrel_protocol::{ConversationId, MailboxSeq, UserId};

/// What is published, as the writer reads it: memory, and where that does not hold it the rows, which it then keeps in memory.
/// Only the writer does that: a reader could put back something older.
#[derive(Clone, Copy)]
pub(super) struct Published<'a> {
    pub(super) connection: &'a Connection,
    pub(super) shared: &'a Shared,
}

impl<'a> Published<'a> {
    pub(super) fn index(&self) -> Result<RwLockReadGuard<'a, Index>, StoreError> {
        self.shared.index()
    }

    fn index_mut(&self) -> RwLockWriteGuard<'a, Index> {
        self.shared.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the devices of a user into memory.
    pub(super) fn load_devices(&self, user: UserNo) -> Result<(), StoreError> {
        let mut devices = rows::devices(self.connection, user)?;
        let mut index = self.index_mut();
        let slot = index.user_mut(user);
        let Devices::Behind { records, cursors } = &slot.devices else { return Ok(()) };
        for record in records {
            let upto = fold::device_of(&record.body)
                .and_then(|key| devices.iter().find(|slot| slot.device.key == key))
                .map_or(0, |slot| slot.upto);
            if record.pos >= upto {
                apply_to_devices(&mut devices, record).map_err(damaged)?;
            }
        }
        for (number, cursor) in cursors {
            for slot in devices.iter_mut().filter(|slot| slot.device.key.slot == *number && slot.device.cursor < *cursor) {
                Arc::make_mut(&mut slot.device).cursor = *cursor;
                slot.dirty = true;
            }
        }
        slot.devices = Devices::Here(devices);
        Ok(())
    }

    /// Brings a conversation into memory.
    pub(super) fn load_conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        if let Some(State::Here(conversation)) = self.index()?.conversation(id).map(|slot| &slot.state) {
            return Ok(Some(conversation.clone()));
        }
        let row = rows::conversation(self.connection, id)?;
        let mut index = self.index_mut();
        let records = match index.conversation(id).map(|slot| &slot.state) {
            Some(State::Behind(records)) => records.clone(),
            _ => Vec::new(),
        };
        let Some(row) = row else {
            return if records.is_empty() { Ok(None) } else { Err(damaged(format!("conversation {id} has no row"))) };
        };
        let head = row.conversation.head.0;
        let mut conversation = Some(Arc::new(row.conversation));
        for record in records.iter().filter(|record| record.pos >= row.upto) {
            apply_to_conversation(&mut conversation, record).map_err(damaged)?;
        }
        let slot = index.conversation_mut(id);
        slot.tail.get_or_insert_with(|| Tail::after(head));
        if let Some(conversation) = &conversation {
            slot.state = State::Here(conversation.clone());
        }
        Ok(conversation)
    }
}

impl Base for Published<'_> {
    fn user(&mut self, id: &UserId) -> Result<Option<UserNo>, StoreError> {
        if let Some(user) = self.shared.facts().users.get(id) {
            return Ok(Some(user));
        }
        let user = rows::user(self.connection, id)?;
        if let Some(user) = user {
            self.shared.facts().know_user(user, id);
        }
        Ok(user)
    }

    fn devices(&mut self, user: UserNo) -> Result<Vec<Arc<Device>>, StoreError> {
        if let Some(Devices::Here(devices)) = self.index()?.user(user).map(|slot| &slot.devices) {
            return Ok(devices.iter().map(|slot| slot.device.clone()).collect());
        }
        self.load_devices(user)?;
        match self.index()?.user(user).map(|slot| &slot.devices) {
            Some(Devices::Here(devices)) => Ok(devices.iter().map(|slot| slot.device.clone()).collect()),
            _ => Ok(Vec::new()),
        }
    }

    fn device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError> {
        if let Some(Devices::Here(devices)) = self.index()?.user(key.user).map(|slot| &slot.devices) {
            return Ok(devices.iter().find(|slot| slot.device.key == key).map(|slot| slot.device.clone()));
        }
        Ok(self.devices(key.user)?.into_iter().find(|device| device.key == key))
    }

    fn conversation(&mut self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        self.load_conversation(id)
    }

    fn direct(&mut self, pair: (UserNo, UserNo)) -> Result<Option<ConversationId>, StoreError> {
        if let Some(id) = self.shared.facts().directs.get(&pair) {
            return Ok(Some(id));
        }
        let found = rows::direct(self.connection, pair)?.map(|(id, _)| id);
        if let Some(id) = found {
            self.shared.facts().directs.insert(pair, id);
        }
        Ok(found)
    }

    fn record(&mut self, pos: Pos) -> Result<Arc<Record>, StoreError> {
        if let Some(record) = self.index()?.record(pos) {
            return Ok(record.clone());
        }
        let record = rows::record(self.connection, pos)?;
        record.map(Arc::new).ok_or_else(|| StoreError::Refused(format!("there is no record {pos}")))
    }

    fn mailbox_head(&mut self, user: UserNo) -> Result<MailboxSeq, StoreError> {
        if let Some(tail) = self.index()?.user(user).and_then(|slot| slot.mailbox.as_ref()) {
            return Ok(MailboxSeq(tail.head()));
        }
        let open = rows::MAILBOX.open(self.connection, u64::from(user.0))?.unwrap_or_default();
        let mut index = self.index_mut();
        Ok(MailboxSeq(index.user_mut(user).mailbox.get_or_insert_with(|| Tail::after(open.head())).head()))
    }
}

/// An SQLite transaction: rolled back unless it was committed.
struct Begun<'a>(&'a Connection);

impl<'a> Begun<'a> {
    fn new(connection: &'a Connection) -> Result<Self, StoreError> {
        // Something may be left of one that could not be rolled back.
        drop(Begun(connection));
        rows::run(connection, "BEGIN IMMEDIATE", [])?;
        Ok(Self(connection))
    }

    fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(|_| ())
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // If even this fails, the next one to begin tries again.
            let _ = rows::run(self.0, "ROLLBACK", []);
        }
    }
}

/// The writer's side of the store.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) sweep: Sweep,
    body: Vec<u8>,
    recipients: Vec<u8>,
}

impl Writer {
    pub(super) fn new(connection: Connection, sweep: Sweep) -> Self {
        Self { connection, sweep, body: Vec::new(), recipients: Vec::new() }
    }

    pub(super) fn transact(
        &mut self,
        shared: &Shared,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.ready(shared)?;
        shared.checkpoints.follow(&self.connection);
        let published = Published { connection: &self.connection, shared };
        let next = published.index()?.next;
        let begun = Begun::new(&self.connection)?;
        let mut staged = Staged::new(published, next);
        let done = work(&mut staged);
        let Staged { next, users, records, .. } = staged;
        // Ids of conversations are never given twice, not even when the transaction that they were for fails.
        published.index_mut().next.conversation = next.conversation;
        done?;
        if users.is_empty() && records.is_empty() {
            return Ok(());
        }
        for (user, id) in &users {
            rows::run(&self.connection, "INSERT INTO user (user, id) VALUES (?1, ?2)", (user.0, id.as_str()))?;
        }
        append(&self.connection, &records, &mut self.body, &mut self.recipients)?;
        let entries = records.iter().map(|record| weight(record)).sum();
        let step = self.sweep.step(entries, shared.options.sweep_entries);
        let keys = self.sweep.write(step, &published)?;
        if let Err(error) = begun.commit() {
            return Err(self.commit_failed(shared, &error));
        }

        let mut index = published.index_mut();
        index.begin_round();
        self.sweep.committed(step, &mut index);
        index.next.user = next.user;
        for record in &records {
            if let Err(what) = index.apply(record) {
                // The transaction checked the same things: only a fault of this program gets here. What is on disk is read again.
                index.broken = Some(what);
                break;
            }
        }
        index.evict(shared.options.cache_bytes, false);
        drop(index);
        let mut facts = shared.facts();
        for (user, id) in &users {
            facts.know_user(*user, id);
        }
        drop(facts);
        shared.checkpoints.committed(entries, keys);
        Ok(())
    }

    /// What a commit that failed leaves behind.
    fn commit_failed(&mut self, shared: &Shared, error: &rusqlite::Error) -> StoreError {
        drop(Begun(&self.connection));
        // The frame that makes a transaction count is the last that is written; where there is no room it was not, so nothing is open.
        if matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy)) {
            return failed(error);
        }
        self.forget(shared, &error.to_string());
        // If it cannot be read again now, the next call tries.
        let _ = self.ready(shared);
        StoreError::Unknown(error.to_string())
    }

    /// Drops what is in memory.
    fn forget(&mut self, shared: &Shared, why: &str) {
        let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
        index.broken = Some(why.to_owned());
    }

    /// Reads again what was dropped, and takes over the cursors that were noted since.
    pub(super) fn ready(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let broken = shared.index.read().unwrap_or_else(PoisonError::into_inner).broken.is_some();
        if broken {
            // If the last commit's sync failed, its pages may lie behind the end of the write-ahead log as this process knows it, and a
            // crash could bring them back to life. A commit that goes through takes their place: what is read then stays so.
            drop(Begun(&self.connection));
            settle(&self.connection)?;
            let (mut fresh, sweep) = load(&self.connection, &shared.options)?;
            let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
            fresh.next.conversation = fresh.next.conversation.max(index.next.conversation);
            for (user, cursors) in index.unsaved_cursors() {
                for (slot, cursor) in cursors {
                    fresh.raise_cursor(DeviceKey { user, slot }, cursor);
                }
            }
            *index = fresh;
            self.sweep = sweep;
        }
        let cursors = std::mem::take(&mut *shared.cursors.lock().unwrap_or_else(PoisonError::into_inner));
        if !cursors.is_empty() {
            let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
            for (key, cursor) in cursors {
                index.raise_cursor(key, cursor);
            }
        }
        Ok(())
    }

    /// Begins to write all that is dirty. Returns the position up to which the rows will be complete; `None` if they are.
    pub(super) fn begin_flush(&mut self, shared: &Shared) -> Result<Option<Pos>, StoreError> {
        self.ready(shared)?;
        let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
        if self.sweep.is_clean(&index) {
            return Ok(None);
        }
        Ok(Some(self.sweep.restart(&mut index)))
    }

    /// Writes the rows of up to `keys` keys. Returns whether the rows are complete up to `upto`.
    pub(super) fn flush_some(&mut self, shared: &Shared, keys: usize, upto: Pos) -> Result<bool, StoreError> {
        self.ready(shared)?;
        let published = Published { connection: &self.connection, shared };
        let step = self.sweep.slice(keys);
        let begun = Begun::new(&self.connection)?;
        let written = self.sweep.write(step, &published)?;
        if let Err(error) = begun.commit() {
            return Err(self.commit_failed(shared, &error));
        }
        let mut index = published.index_mut();
        self.sweep.committed(step, &mut index);
        if self.sweep.tail >= upto {
            index.evict(shared.options.cache_bytes, true);
        }
        drop(index);
        shared.checkpoints.committed(0, written);
        Ok(self.sweep.tail >= upto)
    }

    /// Runs `change` in a transaction of its own: for what is not a record.
    pub(super) fn change<T>(
        &mut self,
        shared: &Shared,
        change: impl FnOnce(&Published<'_>, &Sweep) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.ready(shared)?;
        let published = Published { connection: &self.connection, shared };
        let begun = Begun::new(&self.connection)?;
        let done = change(&published, &self.sweep)?;
        match begun.commit() {
            Ok(()) => Ok(done),
            Err(error) => Err(self.commit_failed(shared, &error)),
        }
    }
}

/// How many entries of indexes a record counts as: its own, and more if it is long. So the tail is bounded in bytes, too.
fn weight(record: &Record) -> u64 {
    2 + (record.recipients.len() + record.content_bytes() / 256) as u64
}

/// Writes rows of the log, and the rows of conversations that begin.
fn append(connection: &Connection, records: &[Arc<Record>], body: &mut Vec<u8>, recipients: &mut Vec<u8>) -> Result<(), StoreError> {
    let sql = "INSERT INTO log (pos, time, kind, body, recipients) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = connection.prepare_cached(sql).map_err(|error| failed(&error))?;
    for record in records {
        let kind = encode::encode(&record.body, body)?;
        recipients.clear();
        chunk::put_recipients(recipients, &record.recipients);
        insert.execute((record.pos as i64, record.time.0 as i64, kind, &*body, &*recipients)).map_err(|error| failed(&error))?;
        if let RecordBody::Started { conversation: id, kind, members } = &record.body {
            let mut conversation = None;
            fold::apply_conversation(&mut conversation, record.time, &record.body);
            if let Some(conversation) = conversation {
                rows::insert_conversation(connection, record.pos, &conversation)?;
            }
            if let Some((one, other)) = fold::direct_pair(*kind, members) {
                rows::run(connection, "INSERT INTO direct (one, other, conversation) VALUES (?1, ?2, ?3)", (one.0, other.0, id.0 as i64))?;
            }
        }
    }
    Ok(())
}

/// A commit of its own, and nothing else: once it is through, all that was committed before is durable, and nothing else comes back.
pub(super) fn settle(connection: &Connection) -> Result<(), StoreError> {
    let settled = meta(connection, "settled")?.unwrap_or(0);
    set_meta(connection, "settled", settled + 1)
}

/// Reads what is to be in memory: the tail of the log, behind what the rows hold.
pub(super) fn load(connection: &Connection, options: &super::SqliteOptions) -> Result<(Index, Sweep), StoreError> {
    let tail = meta(connection, "tail")?.unwrap_or(1);
    let end = rows::log_end(connection)?;
    let highest = |sql: &str| rows::one(connection, sql, [], |row| row.get::<_, Option<i64>>(0)).map(|found| found.flatten().unwrap_or(0));
    let user = highest("SELECT max(user) FROM user")?;
    let conversation = highest("SELECT max(conversation) FROM conversation")?;
    let user = u32::try_from(user).ok().and_then(|user| user.checked_add(1)).ok_or_else(|| damaged(format!("there is a user {user}")))?;
    let next = Next { pos: tail, user: UserNo(user), conversation: ConversationId((conversation as u64).saturating_add(1)) };
    let mut index = Index::new(next, options.ring_bytes);
    rows::each(connection, rows::LOG_FROM, [tail as i64], |row| {
        index.apply(&Arc::new(rows::log_row(row)?)).map_err(damaged)?;
        Ok(true)
    })?;
    if index.next.pos != end {
        return Err(damaged(format!("the log ends before record {end}, the indexes at {}", index.next.pos)));
    }
    let sweep = Sweep::new(tail, &mut index);
    Ok((index, sweep))
}
