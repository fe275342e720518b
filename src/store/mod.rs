//! The store: one append-only log, and what is derived from it.
//!
//! A [`Record`] is a row of the log and the only truth. Mailboxes (whose entries point at records), conversations, outboxes and
//! watermarks are indexes over the log: an implementation may keep them in any form and write them late, as long as reads see
//! every committed record and none that is not. How each record changes the indexes is said at [`RecordBody`].
//!
//! This module never decides what is allowed: that is the engine's. Calls block; the engine makes them off the async threads.

mod fold;
mod memory;
mod record;
pub mod sqlite;
mod staged;
#[cfg(test)]
mod suite;

pub use memory::{FailPoint, MemoryStore};
pub use record::{DeviceKey, Origin, Pos, Record, RecordBody, UserNo};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_protocol::frame::{ConversationKind, Direction};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, DeviceId, Incarnation, LogEpoch, MailboxSeq, Nonce, Time, UserId};

/// The most devices a user has.
pub const DEVICES_MAX: usize = 32;
/// How many of a device's last commands are remembered, across its outboxes. Larger than the command window.
pub const NONCES_MAX: usize = 256;

/// Why a store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or its disk is full; nothing was changed. Trying again later may work.
    #[error("{0}")]
    Unavailable(String),
    /// It is not known whether the transaction was committed. Caches were dropped: what is read next is what is really there.
    #[error("it is not known whether a transaction was committed: {0}")]
    Unknown(String),
    /// The transaction failed because of what was in it; nothing was changed. The same one would fail again.
    #[error("a transaction was refused: {0}")]
    Refused(String),
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0} (see `whimbrel store check`)")]
    Damaged(String),
}

/// A durable log with indexes.
///
/// # Guarantees (what the shared suite checks of every implementation)
/// - [`transact`](Self::transact) is atomic and durable: when it returns `Ok`, a power cut loses nothing of it; when it returns an error
///   other than [`StoreError::Unknown`], nothing of it is ever seen.
/// - Transactions are serial: each sees all that were committed before it.
/// - Positions rise with commit order. Mailbox and conversation sequences have no gaps and no doubles, for any reader at any moment.
/// - A read sees every transaction that had returned before the read began, and never a part of one.
pub trait Store: Send + Sync + 'static {
    /// The epoch of this log: higher than that of any copy it was restored from.
    fn epoch(&self) -> LogEpoch;

    /// Runs `work` and commits what it appended, durably, as one.
    ///
    /// # Errors
    /// What `work` returned (nothing is committed then), or what went wrong in the store.
    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// The number of a user, if the user was ever seen.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn user(&self, id: &UserId) -> Result<Option<UserNo>, StoreError>;

    /// The name of a user.
    ///
    /// # Errors
    /// If the store cannot be read, or the number was never given.
    fn user_id(&self, user: UserNo) -> Result<UserId, StoreError>;

    /// What a user's mailbox holds.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn mailbox(&self, user: UserNo) -> Result<MailboxBounds, StoreError>;

    /// Entries of a mailbox after `after`, in order, without a gap: as many as there are, up to `limit` entries, and no more once they
    /// hold `max_bytes` of content (but always at least one). Entries at or below the floor are not there: if `after` is below the
    /// floor the answer begins after the floor.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn mailbox_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError>;

    /// As [`mailbox_entries`](Self::mailbox_entries), from memory: never blocks on a disk or network. `None` where memory does not hold it.
    fn recent_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Option<Vec<Entry>>;

    /// A conversation as it stands.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError>;

    /// The direct conversation of two users (which may be the same), if it has begun.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn direct(&self, one: UserNo, other: UserNo) -> Result<Option<ConversationId>, StoreError>;

    /// Records numbered in a conversation next to `from` (not included; backwards from 0 means from the end), in rising order, up to
    /// `limit`, and no more once they hold `max_bytes` of content (but always at least one). Cut at the far end.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn conversation_entries(
        &self,
        id: ConversationId,
        from: ConversationSeq,
        direction: Direction,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Record>>, StoreError>;

    /// Conversations that a user is in, with ids after `after`, rising, up to `limit`.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn conversations_of(&self, user: UserNo, after: ConversationId, limit: usize) -> Result<Vec<Conversation>, StoreError>;

    /// Notes how far devices have got. Only rises. May become durable later: a device says its cursor itself when it comes back.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn save_cursors(&self, cursors: &[(DeviceKey, MailboxSeq)]) -> Result<(), StoreError>;

    /// Notes how far the clients of users have got that keep no position of their own. Only rises, and is as durable as a transaction.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn save_positions(&self, positions: &[(UserNo, MailboxSeq)]) -> Result<(), StoreError>;

    /// What was noted of a user, if anything was.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn position(&self, user: UserNo) -> Result<Option<MailboxSeq>, StoreError>;

    /// Removes mailbox entries that are beyond what is kept. Conversations keep their messages. Returns how many were removed.
    ///
    /// # Errors
    /// If the store cannot be written; what was removed until then stays removed.
    fn trim(&self, keep: Retention, now: Time) -> Result<u64, StoreError>;

    /// Commits so many bytes that mean nothing, as durably as a transaction, and takes them away again: whether commits go through.
    ///
    /// # Errors
    /// What a transaction would say.
    fn probe(&self, bytes: usize) -> Result<(), StoreError>;

    /// Writes what may be written late, so that the next start is quick. Called before trimming and at the end.
    ///
    /// # Errors
    /// If the store cannot be written; nothing is lost then.
    fn flush(&self) -> Result<(), StoreError>;
}

/// What a decision may ask and do. Reads see what was appended before in the same transaction. Devices and conversations are shared, not
/// copied: who lets go of them before appending spares the transaction a copy.
pub trait Transaction {
    /// The number of a user, given now if there is none.
    ///
    /// # Errors
    /// If the store fails.
    fn user(&mut self, id: &UserId) -> Result<UserNo, StoreError>;

    /// A user's devices, by slot.
    ///
    /// # Errors
    /// If the store fails.
    fn devices(&mut self, user: UserNo) -> Result<Vec<Arc<Device>>, StoreError>;

    /// One device. `None` if there is none in that slot.
    ///
    /// # Errors
    /// If the store fails.
    fn device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError>;

    /// A conversation as it stands.
    ///
    /// # Errors
    /// If the store fails.
    fn conversation(&mut self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError>;

    /// The direct conversation of two users (which may be the same), if it has begun.
    ///
    /// # Errors
    /// If the store fails.
    fn direct(&mut self, one: UserNo, other: UserNo) -> Result<Option<ConversationId>, StoreError>;

    /// An id for a conversation that is about to begin. Never the same twice.
    ///
    /// # Errors
    /// If the store fails.
    fn next_conversation(&mut self) -> Result<ConversationId, StoreError>;

    /// A record by its position.
    ///
    /// # Errors
    /// If the store fails or there is none.
    fn record(&mut self, pos: Pos) -> Result<Arc<Record>, StoreError>;

    /// Appends a record, puts it into the mailboxes of `recipients` (each named once), and brings the indexes up to date.
    ///
    /// # Errors
    /// If the store fails, or the record contradicts the indexes (a sequence that is not the next one).
    fn append(&mut self, time: Time, body: RecordBody, recipients: &[UserNo]) -> Result<Arc<Record>, StoreError>;
}

/// An entry of a mailbox.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number there.
    pub seq: MailboxSeq,
    /// What it points at.
    pub record: Arc<Record>,
}

/// What a mailbox holds: the entries after `floor`, up to `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailboxBounds {
    /// Highest entry that is no longer held; 0 if all are.
    pub floor: MailboxSeq,
    /// Highest entry.
    pub head: MailboxSeq,
}

/// A device as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Whose, and in which slot.
    pub key: DeviceKey,
    /// The client's name for it.
    pub name: DeviceId,
    /// Its present outbox.
    pub incarnation: Incarnation,
    /// Highest applied command of that outbox.
    pub applied: CommandSeq,
    /// Its last commands, oldest first, across its outboxes, at most [`NONCES_MAX`].
    pub recent: VecDeque<RecentCommand>,
    /// Where in the log it took its slot. What the slot's commands before are, is [`former`](Self::former).
    pub since: Pos,
    /// The last commands of the devices that had its slot before it, oldest first, at most [`NONCES_MAX`]: one of those may come back
    /// and send again what was on its way when it left, however much this device has sent since.
    pub former: VecDeque<RecentCommand>,
    /// How far the device has got, as far as it said.
    pub cursor: MailboxSeq,
}

impl Device {
    /// The nonce of the highest applied command; zeros where there is none in this outbox.
    #[must_use]
    pub fn applied_nonce(&self) -> Nonce {
        match self.recent.back() {
            Some(last) if self.applied.0 > 0 => last.nonce,
            _ => Nonce::default(),
        }
    }
}

/// A command that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentCommand {
    /// Its nonce.
    pub nonce: Nonce,
    /// The record that it made.
    pub pos: Pos,
}

/// A conversation as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// What sort.
    pub kind: ConversationKind,
    /// Who is in it.
    pub members: Vec<Member>,
    /// Highest number in it.
    pub head: ConversationSeq,
    /// Time of the newest record in it: times in a conversation never run backwards.
    pub time: Time,
}

impl Conversation {
    /// A member, if the user is one.
    #[must_use]
    pub fn member(&self, user: UserNo) -> Option<&Member> {
        self.members.iter().find(|member| member.user == user)
    }
}

/// A member of a conversation and how far they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserNo,
    /// Highest message that they wrote; 0 if none.
    pub sent: ConversationSeq,
    /// A device of theirs has durably taken it up to here.
    pub delivered: ConversationSeq,
    /// They have read up to here.
    pub read: ConversationSeq,
}

/// How much of each mailbox is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most this many entries.
    pub entries: u64,
    /// At most this old.
    pub age: Duration,
}
