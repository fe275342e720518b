//! Rows, read and written: each function is a statement or two. Where a read needs several of them to agree, the caller has begun a
//! transaction.

use super::super::{Conversation, Device, DeviceKey, Pos, RecentCommand, Record, StoreError, UserNo};
use super::chunk::{self, Positions};
use super::encode;
use super::index::DeviceSlot;
use super::schema::{damaged, failed};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use std::collections::VecDeque;
use std::sync::Arc;
use whimbrel_protocol::frame::ConversationKind;
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, DeviceId, Incarnation, MailboxSeq, Time, UserId};

/// How many commands the row of a device holds before they become a chunk.
const OPEN_COMMANDS: usize = 32;

pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    let row = connection.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional());
    row.map_err(|error| failed(&error))
}

pub(super) fn run(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(|error| failed(&error))
}

/// Calls `each` with every row.
pub(super) fn each(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| failed(&error))?;
    let mut rows = statement.query(params).map_err(|error| failed(&error))?;
    while let Some(row) = rows.next().map_err(|error| failed(&error))? {
        if !each(row)? {
            break;
        }
    }
    Ok(())
}

/// A column; a wrong type is damage.
pub(super) fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, index: usize) -> Result<T, StoreError> {
    row.get(index).map_err(|error| failed(&error))
}

/// A number of 64 bits: SQLite's are signed.
pub(super) fn number(row: &Row<'_>, index: usize) -> Result<u64, StoreError> {
    column::<i64>(row, index).map(|value| value as u64)
}

fn blob<'r>(row: &'r Row<'_>, index: usize) -> Result<&'r [u8], StoreError> {
    row.get_ref(index).map_err(|error| failed(&error))?.as_blob().map_err(|error| damaged(error.to_string()))
}

// The log.

pub(super) const LOG_FROM: &str = "SELECT pos, time, kind, body, recipients FROM log WHERE pos >= ?1 ORDER BY pos";

/// Reads a row of [`LOG_FROM`] or the like.
pub(super) fn log_row(row: &Row<'_>) -> Result<Record, StoreError> {
    let pos = number(row, 0)?;
    let body = encode::decode(pos, column(row, 2)?, blob(row, 3)?)?;
    let recipients =
        chunk::read_recipients(blob(row, 4)?).ok_or_else(|| damaged(format!("the recipients of record {pos} cannot be read")))?;
    Ok(Record { pos, time: Time(number(row, 1)?), recipients, body })
}

pub(super) fn record(connection: &Connection, pos: Pos) -> Result<Option<Record>, StoreError> {
    let mut found = None;
    each(connection, "SELECT pos, time, kind, body, recipients FROM log WHERE pos = ?1", [pos as i64], |row| {
        found = Some(log_row(row)?);
        Ok(false)
    })?;
    Ok(found)
}

/// Position after the last record.
pub(super) fn log_end(connection: &Connection) -> Result<Pos, StoreError> {
    let last = one(connection, "SELECT max(pos) FROM log", [], |row| row.get::<_, Option<i64>>(0))?;
    Ok(last.flatten().map_or(1, |last| (last as u64).saturating_add(1)))
}

// Users.

pub(super) fn user(connection: &Connection, id: &UserId) -> Result<Option<UserNo>, StoreError> {
    one(connection, "SELECT user FROM user WHERE id = ?1", [id.as_str()], |row| row.get(0).map(UserNo))
}

pub(super) fn user_id(connection: &Connection, user: UserNo) -> Result<Option<UserId>, StoreError> {
    let id = one(connection, "SELECT id FROM user WHERE user = ?1", [user.0], |row| row.get::<_, String>(0))?;
    let name = |id: String| UserId::new(&id).map_err(|error| damaged(format!("the name of user {}: {error}", user.0)));
    id.map(name).transpose()
}

// The chunks of mailboxes and conversations: closed ones in a table of their own, the open one in the row of its owner.

/// The statements that read one index.
pub(super) struct Chunks {
    what: &'static str,
    open: &'static str,
    at: &'static str,
    next: &'static str,
    close: &'static str,
}

pub(super) const MAILBOX: Chunks = Chunks {
    what: "mailbox",
    open: "SELECT floor, first, positions FROM mailbox WHERE user = ?1",
    at: "SELECT first, positions FROM mailbox_chunk WHERE user = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
    next: "SELECT first, positions FROM mailbox_chunk WHERE user = ?1 AND first > ?2 ORDER BY first",
    close: "INSERT INTO mailbox_chunk (user, first, positions) VALUES (?1, ?2, ?3)",
};

pub(super) const CONVERSATION: Chunks = Chunks {
    what: "conversation",
    open: "SELECT 0, first, positions FROM conversation WHERE conversation = ?1",
    at: "SELECT first, positions FROM conversation_chunk WHERE conversation = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
    next: "SELECT first, positions FROM conversation_chunk WHERE conversation = ?1 AND first > ?2 ORDER BY first",
    close: "INSERT INTO conversation_chunk (conversation, first, positions) VALUES (?1, ?2, ?3)",
};

/// An open chunk.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// Entries up to here are gone.
    pub(super) floor: u64,
    /// Number of the first entry of `positions`.
    pub(super) first: u64,
    pub(super) positions: Positions,
}

impl Default for Open {
    fn default() -> Self {
        Self { floor: 0, first: 1, positions: Positions::default() }
    }
}

impl Open {
    /// Number of the last entry that is in a chunk.
    pub(super) fn head(&self) -> u64 {
        self.first + self.positions.count() - 1
    }
}

impl Chunks {
    fn damaged(&self, key: u64, what: &str) -> StoreError {
        damaged(format!("{} {key}: {what}", self.what))
    }

    /// What it is an index of, for people.
    pub(super) fn what(&self) -> &'static str {
        self.what
    }

    /// How many entries there are in closed chunks.
    pub(super) fn closed(&self, connection: &Connection, key: u64) -> Result<u64, StoreError> {
        let mut entries = 0;
        each(connection, self.next, (key as i64, i64::MIN), |row| {
            let positions = Positions::read(blob(row, 1)?.to_vec()).ok_or_else(|| self.damaged(key, "a chunk cannot be read"))?;
            entries += positions.count();
            Ok(true)
        })?;
        Ok(entries)
    }

    /// The open chunk. `None` if the owner has no row.
    pub(super) fn open(&self, connection: &Connection, key: u64) -> Result<Option<Open>, StoreError> {
        let row = one(connection, self.open, [key as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?)))?;
        let Some((floor, first, positions)) = row else { return Ok(None) };
        if floor < 0 || first < 1 {
            return Err(self.damaged(key, "the numbers of its entries are out of range"));
        }
        let positions = Positions::read(positions).ok_or_else(|| self.damaged(key, "the open chunk cannot be read"))?;
        Ok(Some(Open { floor: floor as u64, first: first as u64, positions }))
    }

    /// Positions of the entries from `low` to `high`, as far as they are in chunks, without a gap. `open` is the open chunk.
    pub(super) fn positions(&self, connection: &Connection, key: u64, open: &Open, low: u64, high: u64) -> Result<Vec<Pos>, StoreError> {
        let high = high.min(open.head());
        let mut found = Vec::new();
        if low > high {
            return Ok(found);
        }
        let mut next = low;
        let mut take = |first: u64, bytes: &[u8]| -> Result<bool, StoreError> {
            if first > next {
                return Err(self.damaged(key, &format!("entries {next} to {} are in no chunk", first - 1)));
            }
            for (seq, pos) in (first..).zip(chunk::positions(bytes)) {
                let pos = pos.ok_or_else(|| self.damaged(key, &format!("the chunk at {first} cannot be read")))?;
                if seq > high {
                    break;
                }
                if seq == next {
                    found.push(pos);
                    next += 1;
                }
            }
            Ok(next <= high)
        };
        if low < open.first {
            let mut first = 0;
            let mut more = true;
            each(connection, self.at, (key as i64, low as i64), |row| {
                first = number(row, 0)?;
                more = take(first, blob(row, 1)?)?;
                Ok(false)
            })?;
            if more {
                each(connection, self.next, (key as i64, first as i64), |row| {
                    more = take(number(row, 0)?, blob(row, 1)?)?;
                    Ok(more)
                })?;
            }
        }
        if high >= open.first {
            take(open.first, open.positions.bytes())?;
        }
        if next <= high {
            return Err(self.damaged(key, &format!("entry {next} is in no chunk")));
        }
        Ok(found)
    }

    /// Appends entries to the open chunk, closing it each time it is full. The caller writes the row.
    pub(super) fn append(
        &self,
        connection: &Connection,
        key: u64,
        open: &mut Open,
        entries: impl Iterator<Item = (u64, Pos)>,
        chunk_bytes: usize,
    ) -> Result<(), StoreError> {
        for (seq, pos) in entries {
            if seq != open.head() + 1 || pos <= open.positions.last() {
                return Err(self.damaged(key, &format!("entry {seq} (record {pos}) comes after {}", open.head())));
            }
            if open.positions.bytes().len() >= chunk_bytes {
                run(connection, self.close, (key as i64, open.first as i64, open.positions.bytes()))?;
                *open = Open { floor: open.floor, first: seq, positions: Positions::default() };
            }
            open.positions.push(pos);
        }
        Ok(())
    }
}

pub(super) fn write_mailbox(connection: &Connection, user: UserNo, open: &Open) -> Result<(), StoreError> {
    let sql = "INSERT INTO mailbox (user, floor, first, positions) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (user) DO UPDATE SET floor = excluded.floor, first = excluded.first, positions = excluded.positions";
    run(connection, sql, (user.0, open.floor as i64, open.first as i64, open.positions.bytes())).map(|_| ())
}

// Conversations.

/// A conversation as its row says.
#[derive(Debug, Clone)]
pub(super) struct ConversationRow {
    pub(super) conversation: Conversation,
    /// Position of the record that began it.
    pub(super) started: Pos,
    /// The row holds what records before this position did.
    pub(super) upto: Pos,
}

pub(super) fn conversation(connection: &Connection, id: ConversationId) -> Result<Option<ConversationRow>, StoreError> {
    let mut found = None;
    let sql = "SELECT kind, started, upto, head, time, members FROM conversation WHERE conversation = ?1";
    each(connection, sql, [id.0 as i64], |row| {
        let members = chunk::read_members(blob(row, 5)?);
        let members = members.ok_or_else(|| damaged(format!("the members of conversation {id} cannot be read")))?;
        let kind = ConversationKind::from_number(column(row, 0)?);
        let (head, time) = (ConversationSeq(number(row, 3)?), Time(number(row, 4)?));
        let conversation = Conversation { id, kind, members, head, time };
        found = Some(ConversationRow { conversation, started: number(row, 1)?, upto: number(row, 2)? });
        Ok(false)
    })?;
    Ok(found)
}

/// Writes the rows of a conversation that begins.
pub(super) fn insert_conversation(connection: &Connection, pos: Pos, conversation: &Conversation) -> Result<(), StoreError> {
    let mut members = Vec::new();
    chunk::put_members(&mut members, &conversation.members);
    let sql = "INSERT INTO conversation (conversation, kind, started, upto, head, time, members, first, positions)
        VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, 1, x'')";
    let id = conversation.id.0 as i64;
    run(connection, sql, (id, conversation.kind.to_number(), pos as i64, pos as i64 + 1, conversation.time.0 as i64, members))?;
    for member in &conversation.members {
        run(connection, "INSERT INTO member (user, conversation) VALUES (?1, ?2)", (member.user.0, id))?;
    }
    Ok(())
}

pub(super) fn write_conversation(connection: &Connection, conversation: &Conversation, upto: Pos, open: &Open) -> Result<(), StoreError> {
    let mut members = Vec::new();
    chunk::put_members(&mut members, &conversation.members);
    let sql = "UPDATE conversation SET upto = ?2, head = ?3, time = ?4, members = ?5, first = ?6, positions = ?7 WHERE conversation = ?1";
    let (head, time) = (conversation.head.0 as i64, conversation.time.0 as i64);
    let row = (conversation.id.0 as i64, upto as i64, head, time, members, open.first as i64, open.positions.bytes());
    match run(connection, sql, row)? {
        1 => Ok(()),
        _ => Err(damaged(format!("conversation {} has no row", conversation.id))),
    }
}

/// The direct conversation of a pair, and the position of the record that began it.
pub(super) fn direct(connection: &Connection, pair: (UserNo, UserNo)) -> Result<Option<(ConversationId, Pos)>, StoreError> {
    let sql = "SELECT direct.conversation, conversation.started FROM direct
        JOIN conversation ON conversation.conversation = direct.conversation WHERE one = ?1 AND other = ?2";
    let found = one(connection, sql, (pair.0.0, pair.1.0), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    Ok(found.map(|(id, started)| (ConversationId(id as u64), started as u64)))
}

/// Ids of conversations that a user is in, after `after`, rising.
pub(super) fn memberships(
    connection: &Connection,
    user: UserNo,
    after: ConversationId,
    limit: usize,
) -> Result<Vec<ConversationId>, StoreError> {
    let mut found = Vec::new();
    let sql = "SELECT conversation FROM member WHERE user = ?1 AND conversation > ?2 ORDER BY conversation LIMIT ?3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Ids are never beyond what SQLite's signed numbers hold; a caller may well ask for what comes after the largest there is.
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    each(connection, sql, (user.0, after, limit), |row| {
        found.push(ConversationId(number(row, 0)?));
        Ok(true)
    })?;
    Ok(found)
}

// Devices.

/// The number of a device in the tables.
pub(super) fn device_number(key: DeviceKey) -> i64 {
    i64::from(key.user.0) * 32 + i64::from(key.slot)
}

/// A user's devices as their rows say, by slot.
pub(super) fn devices(connection: &Connection, user: UserNo) -> Result<Vec<DeviceSlot>, StoreError> {
    let first = device_number(DeviceKey { user, slot: 0 });
    let mut found = Vec::new();
    let sql = "SELECT device, name, incarnation, applied, cursor, upto, commands, since FROM device WHERE device BETWEEN ?1 AND ?2 ORDER BY device";
    each(connection, sql, (first, first + 31), |row| {
        let number_of = column::<i64>(row, 0)?;
        let key = DeviceKey { user, slot: (number_of - first) as u8 };
        let bad = |what: &str| damaged(format!("the {what} of device {} of user {} cannot be read", key.slot, user.0));
        let name = DeviceId::new(&column::<String>(row, 1)?).map_err(|_| bad("name"))?;
        let mut commands = Vec::new();
        each(connection, "SELECT commands FROM device_commands WHERE device = ?1 ORDER BY first", [number_of], |row| {
            chunk::read_commands(blob(row, 0)?, &mut commands).map(|()| true).ok_or_else(|| bad("commands"))
        })?;
        chunk::read_commands(blob(row, 6)?, &mut commands).ok_or_else(|| bad("commands"))?;
        if commands.windows(2).any(|two| two[0].pos >= two[1].pos) {
            return Err(bad("order of the commands"));
        }
        let since = number(row, 7)?;
        let mut recent = commands.split_off(commands.partition_point(|command| command.pos < since));
        for commands in [&mut commands, &mut recent] {
            commands.drain(..commands.len().saturating_sub(super::super::NONCES_MAX));
        }
        let device = Device {
            key,
            name,
            incarnation: Incarnation(number(row, 2)?),
            applied: CommandSeq(number(row, 3)?),
            recent: VecDeque::from(recent),
            since,
            former: VecDeque::from(commands),
            cursor: MailboxSeq(number(row, 4)?),
        };
        found.push(DeviceSlot { device: Arc::new(device), upto: number(row, 5)?, dirty: false });
        Ok(true)
    })?;
    Ok(found)
}

/// Writes the rows of a device. Its row holds what records before `slot.upto` did; commands from there on are appended.
pub(super) fn write_device(connection: &Connection, slot: &DeviceSlot, upto: Pos) -> Result<(), StoreError> {
    let device = &slot.device;
    let key = device_number(device.key);
    let new: Vec<RecentCommand> = device.former.iter().chain(&device.recent).filter(|command| command.pos >= slot.upto).copied().collect();
    let open = one(connection, "SELECT commands FROM device WHERE device = ?1", [key], |row| row.get::<_, Vec<u8>>(0))?;
    let mut bytes = open.unwrap_or_default();
    if !new.is_empty() {
        let mut commands: Vec<RecentCommand> = Vec::new();
        chunk::read_commands(&bytes, &mut commands).ok_or_else(|| damaged(format!("the commands of device {key} cannot be read")))?;
        commands.extend(new);
        let mut closed = false;
        while commands.len() > OPEN_COMMANDS {
            let rest = commands.split_off(OPEN_COMMANDS);
            let sql = "INSERT INTO device_commands (device, first, commands) VALUES (?1, ?2, ?3)";
            run(connection, sql, (key, commands[0].pos as i64, encoded(&commands)))?;
            (commands, closed) = (rest, true);
        }
        bytes = encoded(&commands);
        if closed {
            // Before the chunk that the oldest remembered command is in, all are forgotten: those of the former devices and its own.
            let sql = "DELETE FROM device_commands WHERE device = ?1
                AND (first < (SELECT max(first) FROM device_commands WHERE device = ?1 AND first <= ?2)
                OR first > ?3 AND first < (SELECT max(first) FROM device_commands WHERE device = ?1 AND first <= ?4))";
            let at = |command: Option<&RecentCommand>, none: i64| command.map_or(none, |command| command.pos as i64);
            let (oldest, newest) = (at(device.former.front(), -1), at(device.former.back(), -1));
            run(connection, sql, (key, oldest, newest, at(device.recent.front(), device.since as i64)))?;
        }
    }
    let sql = "INSERT INTO device (device, name, incarnation, applied, cursor, upto, commands, since)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT (device) DO UPDATE SET name = excluded.name, incarnation = excluded.incarnation, applied = excluded.applied,
        cursor = excluded.cursor, upto = excluded.upto, commands = excluded.commands, since = excluded.since";
    let (incarnation, applied) = (device.incarnation.0 as i64, device.applied.0 as i64);
    let (cursor, since) = (device.cursor.0 as i64, device.since as i64);
    run(connection, sql, (key, device.name.as_str(), incarnation, applied, cursor, upto as i64, bytes, since)).map(|_| ())
}

fn encoded(commands: &[RecentCommand]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(commands.len() * 10);
    let mut last = 0;
    for command in commands {
        chunk::put_command(&mut bytes, last, command);
        last = command.pos;
    }
    bytes
}
