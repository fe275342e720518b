//! Proving that the indexes say what the log says.
//!
//! The whole log is replayed with the same functions that every commit goes through, and the result is compared with what a start
//! would find. Memory: about 3 bytes an entry of a mailbox or conversation, and the devices.

use super::super::staged::Base;
use super::super::{ConversationId, Device, NONCES_MAX, Pos, Record, RecordBody, StoreError, UserNo, fold};
use super::checkpoint::Checkpoints;
use super::chunk::{self, Positions};
use super::index::{DeviceSlot, apply_to_conversation, apply_to_devices};
use super::rows::{self, Chunks};
use super::schema::{damaged, failed, known_version, meta};
use super::writer::{Published, load};
use super::{Shared, SqliteOptions, copy};
use rusqlite::Connection;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use whimbrel_protocol::MailboxSeq;

/// Shows a store of the first schema, which a check must not bring up to date, as the present one would be. Only this connection sees it.
const FIRST_SCHEMA: &str = "PRAGMA query_only=OFF; CREATE TEMP VIEW device AS SELECT *, 0 AS since FROM main.device; PRAGMA query_only=ON";

/// How many problems are listed; more are only counted.
const LISTED: usize = 100;

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records in the log.
    pub records: u64,
    /// Users.
    pub users: u64,
    /// Conversations.
    pub conversations: u64,
    /// What is wrong, for people; at most 100.
    pub problems: Vec<String>,
    /// How many more problems there are.
    pub more: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, what: impl Into<String>) {
        if self.problems.len() < LISTED {
            self.problems.push(what.into());
        } else {
            self.more += 1;
        }
    }

    /// [`Self::note`] for a part of the file that SQLite reads: it does not say itself which one is damaged.
    fn part<T>(&mut self, what: &str, found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        self.note(found.map_err(|error| match error {
            StoreError::Damaged(why) => StoreError::Damaged(format!("{what}: {why}")),
            other => other,
        }))
    }

    /// Notes what is damaged and goes on; anything else ends the check.
    fn note<T>(&mut self, found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::Damaged(what)) => {
                self.problem(what);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

/// Checks the store at `path` and changes nothing. A server may go on writing meanwhile; its write-ahead log grows until the check ends.
///
/// # Errors
/// If the store is not there, cannot be read for reasons that are not its own, or is of a newer version. What is wrong in it is in the
/// report.
pub fn check(path: &Path) -> Result<Report, StoreError> {
    // Mapped memory would turn an unreadable sector into a signal.
    let options = SqliteOptions { mmap_bytes: 0, ..SqliteOptions::default() };
    let mut report = Report::default();
    let opened = copy::reader(path, &options).and_then(|connection| {
        connection.execute_batch("BEGIN").map_err(|error| failed(&error))?;
        let version = known_version(&connection)?;
        if version == 1 {
            connection.execute_batch(FIRST_SCHEMA).map_err(|error| failed(&error))?;
        }
        Ok((connection, version))
    });
    match report.part("the file", opened)? {
        Some((_, 0)) => return Err(StoreError::Unavailable(format!("{} is not a store", path.display()))),
        Some((connection, _)) => contents(path, &connection, options, &mut report)?,
        // It begins with damage: there is nothing more to be had.
        None => {}
    }
    Ok(report)
}

fn contents(path: &Path, connection: &Connection, options: SqliteOptions, report: &mut Report) -> Result<(), StoreError> {
    file(connection, report)?;
    let replay = Replay::run(connection, report)?;
    users(connection, report)?;
    report.conversations = replay.conversations.len() as u64;
    if !replay.whole {
        // Everything that only the rest of the log knows would be called wrong.
        report.problem("the log cannot be read to its end, so that nothing else could be compared with it");
        return Ok(());
    }
    tables(connection, &replay, report)?;
    let tail = report.part("the facts about the file", meta(connection, "tail"))?.flatten().unwrap_or(1);
    for (user, entries) in &replay.mailboxes {
        let key = u64::from(user.0);
        let found = index(connection, &rows::MAILBOX, key, entries, tail);
        report.note(found)?;
    }
    for (id, entries) in &replay.numbered {
        let found = index(connection, &rows::CONVERSATION, id.0, entries, tail);
        report.note(found)?;
    }
    states(path, connection, options, &replay, report)
}

fn file(connection: &Connection, report: &mut Report) -> Result<(), StoreError> {
    let read = rows::each(connection, "PRAGMA quick_check(100)", [], |row| {
        let found: String = rows::column(row, 0)?;
        // Several lines are several problems; the first may only name the database.
        for line in found.lines().filter(|line| *line != "ok" && !line.starts_with("***")) {
            report.problem(format!("the file: {line}"));
        }
        Ok(true)
    });
    report.part("the file", read).map(drop)
}

/// What the log says.
#[derive(Default)]
struct Replay {
    end: Pos,
    /// The log could be read to its end.
    whole: bool,
    devices: BTreeMap<UserNo, Vec<DeviceSlot>>,
    conversations: BTreeMap<ConversationId, Option<Arc<super::Conversation>>>,
    numbered: BTreeMap<ConversationId, Positions>,
    mailboxes: BTreeMap<UserNo, Positions>,
    directs: HashSet<(UserNo, UserNo, ConversationId)>,
    members: HashSet<(UserNo, ConversationId)>,
}

impl Replay {
    fn run(connection: &Connection, report: &mut Report) -> Result<Self, StoreError> {
        let users = report.part("the users", last_user(connection))?;
        let mut replay = Self { end: 1, ..Self::default() };
        let read = rows::each(connection, rows::LOG_FROM, [i64::MIN], |row| {
            let pos = rows::number(row, 0)?;
            if pos != replay.end {
                report.problem(format!("the log: record {pos} comes where {} should be", replay.end));
            }
            if pos < replay.end || i64::try_from(pos).is_err() {
                // A page that lies about its keys. Nothing that follows could be told apart from it.
                return Ok(true);
            }
            replay.end = pos + 1;
            report.records += 1;
            if let Some(record) = report.note(rows::log_row(row))? {
                for what in replay.apply(&record, users) {
                    report.problem(format!("record {pos}: {what}"));
                }
            }
            Ok(true)
        });
        replay.whole = report.part("the log", read)?.is_some();
        Ok(replay)
    }

    /// Returns what the record contradicts. `users`: the last of them, if that can be read.
    fn apply(&mut self, record: &Record, users: Option<u32>) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(key) = fold::device_of(&record.body) {
            problems.extend(apply_to_devices(self.devices.entry(key.user).or_default(), record).err());
        }
        if let Some(id) = fold::conversation_of(&record.body) {
            problems.extend(apply_to_conversation(self.conversations.entry(id).or_default(), record).err());
        }
        if let Some((id, _)) = fold::numbered(&record.body) {
            self.numbered.entry(id).or_default().push(record.pos);
        }
        if let RecordBody::Started { conversation, kind, members } = &record.body {
            self.numbered.entry(*conversation).or_default();
            self.directs.extend(fold::direct_pair(*kind, members).map(|(one, other)| (one, other, *conversation)));
            self.members.extend(members.iter().map(|user| (*user, *conversation)));
        }
        for (user, seq) in &record.recipients {
            if user.0 == 0 || users.is_some_and(|last| user.0 > last) {
                problems.push(format!("it is in the mailbox of user {}, whom there is not", user.0));
            }
            let mailbox = self.mailboxes.entry(*user).or_default();
            if seq.0 != mailbox.count() + 1 {
                problems.push(format!("it is entry {seq} of mailbox {}, after {}", user.0, mailbox.count()));
            }
            if mailbox.last() < record.pos {
                mailbox.push(record.pos);
            } else {
                problems.push(format!("it is in mailbox {} twice", user.0));
            }
        }
        problems
    }
}

/// Compares tables that are written at once, and looks for rows that belong to nothing.
fn tables(connection: &Connection, replay: &Replay, report: &mut Report) -> Result<(), StoreError> {
    let mut missing = replay.directs.clone();
    let read = rows::each(connection, "SELECT one, other, conversation FROM direct", [], |row| {
        let found = (UserNo(rows::column(row, 0)?), UserNo(rows::column(row, 1)?), ConversationId(rows::number(row, 2)?));
        if !missing.remove(&found) {
            report.problem(format!("a direct conversation that the log does not know: {found:?}"));
        }
        Ok(true)
    });
    // What was not read is not missing.
    if report.part("the direct conversations", read)?.is_some() {
        for found in missing {
            report.problem(format!("a direct conversation that cannot be found by its members: {found:?}"));
        }
    }
    let mut missing = replay.members.clone();
    let read = rows::each(connection, "SELECT user, conversation FROM member", [], |row| {
        let found = (UserNo(rows::column(row, 0)?), ConversationId(rows::number(row, 1)?));
        if !missing.remove(&found) {
            report.problem(format!("a membership that the log does not know: {found:?}"));
        }
        Ok(true)
    });
    if report.part("the memberships", read)?.is_some() {
        for found in missing {
            report.problem(format!("a membership that is not listed: {found:?}"));
        }
    }
    for (table, column, known) in [
        ("mailbox", "user", replay.mailboxes.keys().map(|user| u64::from(user.0)).collect::<HashSet<_>>()),
        ("mailbox_chunk", "user", replay.mailboxes.keys().map(|user| u64::from(user.0)).collect()),
        ("conversation", "conversation", replay.conversations.keys().map(|id| id.0).collect()),
        ("conversation_chunk", "conversation", replay.conversations.keys().map(|id| id.0).collect()),
    ] {
        let read = rows::each(connection, &format!("SELECT DISTINCT {column} FROM {table}"), [], |row| {
            let key = rows::number(row, 0)?;
            if !known.contains(&key) {
                report.problem(format!("{table} has {column} {key}, which the log does not know"));
            }
            Ok(true)
        });
        report.part(table, read)?;
    }
    Ok(())
}

fn users(connection: &Connection, report: &mut Report) -> Result<(), StoreError> {
    let read = rows::each(connection, "SELECT user FROM user", [], |row| {
        let user = UserNo(rows::column(row, 0)?);
        report.users += 1;
        let named = rows::user_id(connection, user).and_then(|id| id.ok_or_else(|| damaged(format!("user {} has no name", user.0))));
        report.note(named)?;
        Ok(true)
    });
    report.part("the users", read).map(drop)
}

fn last_user(connection: &Connection) -> Result<u32, StoreError> {
    let last = rows::one(connection, "SELECT coalesce(max(user), 0) FROM user", [], |row| row.get(0))?;
    Ok(last.unwrap_or(0))
}

/// Compares one index with the log: what is in chunks must be the beginning of `entries`, at least up to `tail`.
fn index(connection: &Connection, chunks: &Chunks, key: u64, entries: &Positions, tail: Pos) -> Result<(), StoreError> {
    let wrong = |what: String| Err(damaged(format!("{} {key}: {what}", chunks.what())));
    let open = chunks.open(connection, key)?.unwrap_or_default();
    let found = chunks.positions(connection, key, &open, open.floor + 1, u64::MAX)?;
    if open.floor + found.len() as u64 > entries.count() {
        return wrong(format!("it has {} entries, the log {}", open.floor + found.len() as u64, entries.count()));
    }
    let closed = chunks.closed(connection, key)?;
    if open.floor + closed + 1 != open.first {
        return wrong(format!("its closed chunks hold {closed} entries, not {}", open.first.saturating_sub(1 + open.floor)));
    }
    let mut found = found.into_iter();
    for (seq, pos) in (1..).zip(chunk::positions(entries.bytes())).skip(usize::try_from(open.floor).unwrap_or(usize::MAX)) {
        // What was just written can be read.
        let pos = pos.unwrap_or(0);
        match found.next() {
            Some(found) if found != pos => return wrong(format!("entry {seq} points at record {found}, the log says {pos}")),
            None if pos < tail => {
                return wrong(format!("entry {seq} (record {pos}) is in no chunk, though the rows are complete up to {tail}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Compares devices and conversations, as a start would find them, with the log.
fn states(path: &Path, connection: &Connection, options: SqliteOptions, replay: &Replay, report: &mut Report) -> Result<(), StoreError> {
    let Some((fresh, _)) = report.note(load(connection, &options))? else { return Ok(()) };
    let shared = Shared::new(path, options, fresh, Checkpoints::none());
    let mut published = Published { connection, shared: &shared };
    let Some(users) = report.part("the users", last_user(connection))? else { return Ok(()) };
    // All but how far it has got, which the log does not say.
    let known = |device: &Device| Device { cursor: MailboxSeq(0), ..device.clone() };
    // The first schema did not tell the commands of former devices from its own.
    let unsplit = |mut device: Device| {
        device.former.append(&mut device.recent);
        device.former.drain(..device.former.len().saturating_sub(NONCES_MAX));
        Device { since: 0, recent: std::mem::take(&mut device.former), ..device }
    };
    for user in (1..=users).map(UserNo) {
        let Some(found) = report.note(published.devices(user))? else { continue };
        let found: Vec<_> = found.iter().map(|device| known(device)).collect();
        let replayed = replay.devices.get(&user).into_iter().flatten().map(|slot| known(&slot.device));
        let older = |key| found.iter().any(|device| device.key == key && device.since == 0);
        let expected: Vec<_> = replayed.map(|device| if older(device.key) { unsplit(device) } else { device }).collect();
        if found != expected {
            report.problem(format!("the devices of user {}: {found:?} where the log says {expected:?}", user.0));
        }
        shared.index.write().unwrap_or_else(PoisonError::into_inner).evict(shared.options.cache_bytes, false);
    }
    for (id, expected) in &replay.conversations {
        let Some(found) = report.note(published.conversation(*id))? else { continue };
        if found != *expected {
            report.problem(format!("conversation {id}: {found:?} where the log says {expected:?}"));
        }
        shared.index.write().unwrap_or_else(PoisonError::into_inner).evict(shared.options.cache_bytes, false);
    }
    Ok(())
}
