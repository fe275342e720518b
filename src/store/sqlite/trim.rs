//! Taking away mailbox entries that are beyond what is kept.
//!
//! By whole chunks, so a mailbox may keep somewhat more than it must. Only what lies before `meta.tail` is taken: a start reads the log
//! from there, and must not find again what was taken away. Rows of the log stay, also those that no mailbox points at any more: they
//! are the messages of conversations, the memory of nonces, and what `store check` proves the indexes with.

use super::super::{Pos, Retention, StoreError, UserNo};
use super::SqliteStore;
use super::chunk::Positions;
use super::rows::{self, MAILBOX, Open};
use super::schema::damaged;
use super::sweep::Sweep;
use super::writer::Published;
use std::sync::PoisonError;
use whimbrel_protocol::Time;

/// Mailboxes that are trimmed in one transaction.
const MAILBOXES: i64 = 256;

impl SqliteStore {
    pub(super) fn trim_mailboxes(&self, keep: Retention, now: Time) -> Result<u64, StoreError> {
        let oldest = Time(now.0.saturating_sub(u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX)));
        let mut removed = 0;
        let mut after = -1;
        loop {
            let mut writer = self.writer();
            let mut floors = Vec::new();
            let last = writer.change(&self.shared, |published, sweep| {
                let mut users = Vec::new();
                rows::each(
                    published.connection,
                    "SELECT user FROM mailbox WHERE user > ?1 ORDER BY user LIMIT ?2",
                    (after, MAILBOXES),
                    |row| {
                        users.push(UserNo(rows::column(row, 0)?));
                        Ok(true)
                    },
                )?;
                for user in &users {
                    if let Some((was, floor)) = trim_mailbox(published, sweep, *user, keep.entries, oldest)? {
                        removed += floor - was;
                        floors.push((*user, floor));
                    }
                }
                Ok(users.last().copied())
            })?;
            let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            for (user, floor) in floors {
                index.trimmed(user, floor);
            }
            match last {
                Some(user) => after = i64::from(user.0),
                None => return Ok(removed),
            }
        }
    }
}

/// Trims one mailbox. Returns its floor before and after, if that rose.
fn trim_mailbox(published: &Published<'_>, sweep: &Sweep, user: UserNo, keep: u64, oldest: Time) -> Result<Option<(u64, u64)>, StoreError> {
    let connection = published.connection;
    let key = u64::from(user.0);
    let Some(mut open) = MAILBOX.open(connection, key)? else { return Ok(None) };
    let head = published.index()?.user(user).and_then(|slot| slot.mailbox.as_ref()).map_or(open.head(), |tail| tail.head());
    let was = open.floor;
    let beyond = |last: u64, pos: Pos| -> Result<bool, StoreError> {
        if pos >= sweep.tail {
            return Ok(false);
        }
        if last <= head.saturating_sub(keep) {
            return Ok(true);
        }
        let time = rows::one(connection, "SELECT time FROM log WHERE pos = ?1", [pos as i64], |row| row.get::<_, i64>(0))?;
        let time = time.ok_or_else(|| damaged(format!("record {pos} is in mailbox {key}, but not in the log")))?;
        Ok(Time(time as u64) < oldest)
    };
    while open.floor + 1 < open.first {
        let sql = "SELECT first, positions FROM mailbox_chunk WHERE user = ?1 ORDER BY first LIMIT 1";
        let chunk = rows::one(connection, sql, [key as i64], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, Vec<u8>>(1)?)))?;
        let missing = || damaged(format!("mailbox {key}: entry {} is in no chunk", open.floor + 1));
        let (first, bytes) = chunk.ok_or_else(missing)?;
        let positions = Positions::read(bytes).filter(|_| first == open.floor + 1).ok_or_else(missing)?;
        let last = first + positions.count() - 1;
        if !beyond(last, positions.last())? {
            break;
        }
        rows::run(connection, "DELETE FROM mailbox_chunk WHERE user = ?1 AND first = ?2", (key as i64, first as i64))?;
        open.floor = last;
    }
    if open.floor + 1 == open.first && open.positions.count() > 0 && beyond(open.head(), open.positions.last())? {
        let head = open.head();
        open = Open { floor: head, first: head + 1, positions: Positions::default() };
    }
    if open.floor == was {
        return Ok(None);
    }
    rows::write_mailbox(connection, user, &open)?;
    Ok(Some((was, open.floor)))
}
