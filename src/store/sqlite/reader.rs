//! Reads: what is in memory first, then the rows, in this order. Rows only ever gain what memory held before, so the two together
//! leave nothing out; the other way round, a sweep in between could hide entries from both.

use super::super::{Conversation, Entry, MailboxBounds, Pos, Record, StoreError, UserNo, fold};
use super::index::{State, apply_to_conversation};
use super::rows::{self, Chunks, Open};
use super::schema::{Access, connect, damaged};
use super::tail::Tail;
use super::{Shared, SqliteOptions};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use whimbrel_protocol::frame::Direction;
use whimbrel_protocol::{ConversationId, ConversationSeq, MailboxSeq, UserId};

/// Positions that are looked up at once: bounds what a read without a limit holds.
const PAGE: u64 = 1024;

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    options: SqliteOptions,
    idle: Mutex<Idle>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Connection>,
    /// Connections there are, idle or not.
    open: usize,
}

impl Readers {
    pub(super) fn new(path: &Path, options: SqliteOptions) -> Self {
        Self { path: path.to_owned(), options, idle: Mutex::default(), returned: Condvar::new() }
    }

    /// A connection, if need be a new one, if need be after waiting for one.
    fn take(&self) -> Result<Connection, StoreError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = idle.connections.pop() {
                return Ok(connection);
            }
            if idle.open < self.options.readers.max(1) {
                idle.open += 1;
                drop(idle);
                return connect(&self.path, Access::Read, &self.options).inspect_err(|_| self.lost());
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).connections.push(connection);
        self.returned.notify_one();
    }

    fn lost(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).open -= 1;
        self.returned.notify_one();
    }
}

/// A read transaction that begins when it is first needed: many reads need only memory.
struct Snapshot<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl<'a> Snapshot<'a> {
    fn new(readers: &'a Readers) -> Self {
        Self { readers, connection: None }
    }

    fn rows(&mut self) -> Result<&Connection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = self.readers.take()?;
                if let Err(error) = rows::run(&connection, "BEGIN", []) {
                    drop(connection);
                    self.readers.lost();
                    return Err(error);
                }
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // A connection that cannot even end a read is not used again.
            match rows::run(&connection, "COMMIT", []) {
                Ok(_) => self.readers.give_back(connection),
                Err(_) => {
                    drop(connection);
                    self.readers.lost();
                }
            }
        }
    }
}

/// The part of a tail that a read may need, as it was when the read began.
struct View {
    head: u64,
    entries: Vec<(u64, Pos)>,
}

impl View {
    fn of(tail: &Tail, low: u64, limit: usize) -> Self {
        Self { head: tail.head(), entries: tail.range(low, u64::MAX).take(limit).collect() }
    }

    fn get(&self, seq: u64) -> Option<Pos> {
        let first = self.entries.first()?.0;
        self.entries.get(usize::try_from(seq.checked_sub(first)?).ok()?).map(|(_, pos)| *pos)
    }
}

/// One index as a read sees it: the tail in memory over the chunks.
struct Merged<'a> {
    chunks: &'static Chunks,
    key: u64,
    view: Option<View>,
    open: Option<Open>,
    snapshot: Snapshot<'a>,
}

impl Merged<'_> {
    fn open(&mut self) -> Result<&Open, StoreError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.chunks.open(self.snapshot.rows()?, self.key)?.unwrap_or_default(),
        };
        Ok(self.open.insert(open))
    }

    /// The last entry.
    fn head(&mut self) -> Result<u64, StoreError> {
        match &self.view {
            Some(view) => Ok(view.head),
            None => self.open().map(Open::head),
        }
    }

    /// Positions of the entries from `low` to `high`, as far as there are any.
    fn positions(&mut self, low: u64, high: u64) -> Result<Vec<Pos>, StoreError> {
        let mut found = Vec::new();
        if self.view.as_ref().is_none_or(|view| view.get(low).is_none()) {
            self.open()?;
            if let Some(open) = &self.open {
                let (chunks, key) = (self.chunks, self.key);
                found = chunks.positions(self.snapshot.rows()?, key, open, low, high)?;
            }
        }
        if let Some(view) = &self.view {
            let further = low + found.len() as u64..=high.min(view.head);
            found.extend(further.map_while(|seq| view.get(seq)));
        }
        Ok(found)
    }
}

impl Shared {
    fn merged(&self, chunks: &'static Chunks, key: u64, view: Option<View>) -> Merged<'_> {
        Merged { chunks, key, view, open: None, snapshot: Snapshot::new(&self.readers) }
    }

    fn record(&self, pos: Pos, snapshot: &mut Snapshot<'_>) -> Result<Arc<Record>, StoreError> {
        if let Some(record) = self.index()?.record(pos) {
            return Ok(record.clone());
        }
        let record = rows::record(snapshot.rows()?, pos)?;
        record.map(Arc::new).ok_or_else(|| damaged(format!("record {pos} is in an index, but not in the log")))
    }

    pub(super) fn read_user(&self, id: &UserId) -> Result<Option<UserNo>, StoreError> {
        if let Some(user) = self.facts().users.get(id) {
            return Ok(Some(user));
        }
        let found = rows::user(Snapshot::new(&self.readers).rows()?, id)?;
        // A row may be there before it is published: that is not there yet.
        let next = self.index()?.next.user;
        let found = found.filter(|user| *user < next);
        if let Some(user) = found {
            self.facts().know_user(user, id);
        }
        Ok(found)
    }

    pub(super) fn read_user_id(&self, user: UserNo) -> Result<UserId, StoreError> {
        if let Some(id) = self.facts().ids.get(&user) {
            return Ok(id);
        }
        let id = rows::user_id(Snapshot::new(&self.readers).rows()?, user)?;
        let id = id.ok_or_else(|| StoreError::Refused(format!("there is no user {}", user.0)))?;
        self.facts().know_user(user, &id);
        Ok(id)
    }

    pub(super) fn read_mailbox(&self, user: UserNo) -> Result<MailboxBounds, StoreError> {
        let view = self.index()?.user(user).and_then(|slot| slot.mailbox.as_ref()).map(|tail| View::of(tail, u64::MAX, 0));
        let mut merged = self.merged(&rows::MAILBOX, u64::from(user.0), view);
        let floor = merged.open()?.floor;
        // The floor may have risen since, beyond what was the head then.
        let head = merged.head()?.max(floor);
        Ok(MailboxBounds { floor: MailboxSeq(floor), head: MailboxSeq(head) })
    }

    pub(super) fn read_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let mut after = after.0;
        if after == u64::MAX || limit == 0 {
            return Ok(Vec::new());
        }
        loop {
            let index = self.index()?;
            if let Some(entries) = index.entries(user, after, limit, max_bytes) {
                return Ok(entries);
            }
            let view = index.user(user).and_then(|slot| slot.mailbox.as_ref()).map(|tail| View::of(tail, after + 1, limit));
            drop(index);
            let mut merged = self.merged(&rows::MAILBOX, u64::from(user.0), view);
            let floor = merged.open()?.floor;
            if floor > after {
                after = floor;
                continue;
            }
            let mut budget = fold::Budget::new(limit, max_bytes);
            let mut entries = Vec::new();
            loop {
                let low = after + 1 + entries.len() as u64;
                let high = low.saturating_add(PAGE.min((limit - entries.len()) as u64)).saturating_sub(1);
                let positions = merged.positions(low, high)?;
                let last = (positions.len() as u64) < PAGE;
                for (seq, pos) in (low..).zip(positions) {
                    let record = self.record(pos, &mut merged.snapshot)?;
                    if !budget.take(&record) {
                        return Ok(entries);
                    }
                    entries.push(Entry { seq: MailboxSeq(seq), record });
                }
                if last || entries.len() == limit {
                    return Ok(entries);
                }
            }
        }
    }

    pub(super) fn read_conversation_entries(
        &self,
        id: ConversationId,
        from: ConversationSeq,
        direction: Direction,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Numbers next to `from` on its far side, if there are any.
        let below = |head: u64| if from.0 == 0 { head } else { head.min(from.0 - 1) };
        let view = self.index()?.conversation(id).and_then(|slot| slot.tail.as_ref()).map(|tail| {
            let low = match direction {
                Direction::Forwards => from.0.saturating_add(1),
                Direction::Backwards => below(tail.head()).saturating_sub(limit as u64) + 1,
            };
            View::of(tail, low, limit)
        });
        let mut merged = self.merged(&rows::CONVERSATION, id.0, view);
        let head = merged.head()?;
        let mut budget = fold::Budget::new(limit, max_bytes);
        let mut records = Vec::new();
        match direction {
            Direction::Forwards => {
                let mut low = from.0.saturating_add(1);
                while low <= head && records.len() < limit {
                    let high = head.min(low + PAGE.min((limit - records.len()) as u64) - 1);
                    for pos in merged.positions(low, high)? {
                        let record = self.record(pos, &mut merged.snapshot)?;
                        if !budget.take(&record) {
                            return Ok(records);
                        }
                        records.push(record);
                    }
                    low = high + 1;
                }
            }
            Direction::Backwards => {
                let mut high = below(head);
                'pages: while high > 0 && records.len() < limit {
                    let low = high.saturating_sub(PAGE.min((limit - records.len()) as u64)) + 1;
                    for pos in merged.positions(low, high)?.into_iter().rev() {
                        let record = self.record(pos, &mut merged.snapshot)?;
                        if !budget.take(&record) {
                            break 'pages;
                        }
                        records.push(record);
                    }
                    high = low - 1;
                }
                records.reverse();
            }
        }
        Ok(records)
    }

    /// Conversations by id; those that there are not (yet) are left out.
    pub(super) fn read_conversations(&self, ids: &[ConversationId]) -> Result<Vec<Conversation>, StoreError> {
        enum Found {
            Here(Arc<Conversation>),
            Behind(ConversationId, Vec<Arc<Record>>),
        }
        let index = self.index()?;
        let found: Vec<_> = ids
            .iter()
            .map(|id| match index.conversation(*id).map(|slot| &slot.state) {
                Some(State::Here(conversation)) => Found::Here(conversation.clone()),
                Some(State::Behind(records)) => Found::Behind(*id, records.clone()),
                None => Found::Behind(*id, Vec::new()),
            })
            .collect();
        drop(index);
        let mut snapshot = Snapshot::new(&self.readers);
        let mut conversations = Vec::with_capacity(found.len());
        for found in found {
            let conversation = match found {
                Found::Here(conversation) => Some(conversation),
                Found::Behind(id, records) => match rows::conversation(snapshot.rows()?, id)? {
                    Some(row) if row.started < self.index()?.next.pos => {
                        let mut conversation = Some(Arc::new(row.conversation));
                        for record in records.iter().filter(|record| record.pos >= row.upto) {
                            apply_to_conversation(&mut conversation, record).map_err(damaged)?;
                        }
                        conversation
                    }
                    _ => None,
                },
            };
            conversations.extend(conversation.map(Arc::unwrap_or_clone));
        }
        Ok(conversations)
    }

    pub(super) fn read_memberships(&self, user: UserNo, after: ConversationId, limit: usize) -> Result<Vec<ConversationId>, StoreError> {
        rows::memberships(Snapshot::new(&self.readers).rows()?, user, after, limit)
    }

    pub(super) fn read_position(&self, user: UserNo) -> Result<Option<MailboxSeq>, StoreError> {
        let sql = "SELECT seq FROM position WHERE user = ?1";
        rows::one(Snapshot::new(&self.readers).rows()?, sql, [user.0], |row| row.get(0).map(|seq: i64| MailboxSeq(seq as u64)))
    }

    pub(super) fn read_direct(&self, pair: (UserNo, UserNo)) -> Result<Option<ConversationId>, StoreError> {
        if let Some(id) = self.facts().directs.get(&pair) {
            return Ok(Some(id));
        }
        let found = rows::direct(Snapshot::new(&self.readers).rows()?, pair)?;
        let next = self.index()?.next.pos;
        let found = found.filter(|(_, started)| *started < next).map(|(id, _)| id);
        if let Some(id) = found {
            self.facts().directs.insert(pair, id);
        }
        Ok(found)
    }
}
