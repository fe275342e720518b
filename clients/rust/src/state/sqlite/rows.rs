//! Rows and values, to and from our types.

use super::super::{Device, OutboxRow, StateError};
use rusqlite::{Connection, Row, params};
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{Command, ConversationKind, ResetReason};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, DeviceId, Disagreement, Incarnation, Nonce, UserId};

/// Makes the folder this device's if it is new, and says whose it is.
pub(super) fn whose(db: &Connection, user_id: &UserId, wanted: Option<&DeviceId>, fresh: &DeviceId) -> Result<Device, StateError> {
    let device = wanted.unwrap_or(fresh);
    db.execute(
        "INSERT INTO device (one, user, device, incarnation, applied, applied_nonce) VALUES (1, ?, ?, 0, 0, ?) ON CONFLICT DO NOTHING",
        params![user_id.as_str(), device.as_str(), Nonce::default().0],
    )?;
    let (stored_user, stored): (String, String) =
        db.query_row("SELECT user, device FROM device", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if stored_user != user_id.as_str() || wanted.is_some_and(|wanted| wanted.as_str() != stored) {
        return Err(StateError::OtherDevice { user: stored_user, device: stored });
    }
    Ok(Device { user: user_id.clone(), device: DeviceId::new(&stored).map_err(damaged)? })
}

pub(super) fn list(db: &Connection) -> Result<Vec<(ConversationId, ConversationKind, ConversationSeq)>, StateError> {
    let mut select = db.prepare_cached("SELECT id, kind, head FROM conversations ORDER BY id")?;
    let rows = select.query_map([], |row| {
        let (id, kind, head): (i64, u16, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((ConversationId(id.cast_unsigned()), ConversationKind::from_number(kind), ConversationSeq(head.cast_unsigned())))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn outbox_row(row: &Row<'_>) -> Result<OutboxRow, StateError> {
    let bytes: Vec<u8> = row.get("command")?;
    let mut command: Command = Form::Postcard.decode(&bytes).map_err(damaged)?;
    // The columns are the truth: numbers change without the bytes being written again.
    command.incarnation = Incarnation(row.get::<_, i64>("incarnation")?.cast_unsigned());
    command.cseq = CommandSeq(row.get::<_, i64>("cseq")?.cast_unsigned());
    Ok(OutboxRow { command, applied: row.get("applied")? })
}

/// SQLite's integers have a sign; the same 64 bits come back out. Real sequences never reach the sign.
pub(super) fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// Rising with what it says: of two the higher stays.
pub(super) fn reset_number(reset: ResetReason) -> i64 {
    match reset {
        ResetReason::Trimmed => 1,
        ResetReason::OtherLog => 2,
    }
}

pub(super) fn reset(number: i64) -> Result<ResetReason, StateError> {
    let known = [ResetReason::Trimmed, ResetReason::OtherLog].into_iter().find(|reset| reset_number(*reset) == number);
    known.ok_or_else(|| StateError::Damaged(format!("{number} is no reason for a reset")))
}

/// The kind of a contradiction, and its two numbers.
pub(super) fn disagreement_numbers(why: Disagreement) -> [i64; 3] {
    match why {
        Disagreement::OutboxIsOlder { server, numbered } => [1, int(server.0), int(numbered.0)],
        Disagreement::AnotherCommand { cseq } => [2, int(cseq.0), int(cseq.0)],
        Disagreement::ServerIsOlder { server, ours } => [3, int(server.0), int(ours.0)],
        Disagreement::AnotherOutbox { server, ours } => [4, int(server.0), int(ours.0)],
    }
}

pub(super) fn disagreement(kind: i64, server: i64, ours: i64) -> Result<Disagreement, StateError> {
    let (server, ours) = (server.cast_unsigned(), ours.cast_unsigned());
    match kind {
        1 => Ok(Disagreement::OutboxIsOlder { server: CommandSeq(server), numbered: CommandSeq(ours) }),
        2 => Ok(Disagreement::AnotherCommand { cseq: CommandSeq(server) }),
        3 => Ok(Disagreement::ServerIsOlder { server: CommandSeq(server), ours: CommandSeq(ours) }),
        4 => Ok(Disagreement::AnotherOutbox { server: Incarnation(server), ours: Incarnation(ours) }),
        _ => Err(StateError::Damaged(format!("{kind} is no kind of disagreement"))),
    }
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn user(name: &str) -> Result<UserId, StateError> {
    UserId::new(name).map_err(|why| StateError::Damaged(format!("{name:?} is not a user id: {why}")))
}

pub(super) fn damaged(why: impl std::fmt::Display) -> StateError {
    StateError::Damaged(why.to_string())
}

pub(super) fn failed(why: impl std::fmt::Display) -> StateError {
    StateError::Failed(why.to_string())
}

impl From<rusqlite::Error> for StateError {
    fn from(why: rusqlite::Error) -> Self {
        failed(why)
    }
}
