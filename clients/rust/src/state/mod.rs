//! What a device keeps: its outbox, its cursor, and what it was told.
//!
//! A [`Store`] is synchronous and belongs to one owner. [`Keeper`] is the handle to it: a thread of its own for a store on disk (which
//! commits everything that waits as one transaction), a lock for one in memory. Nothing here knows of connections.

#[cfg(test)]
mod death;
mod keeper;
mod memory;
mod model;
mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

#[cfg(test)]
pub(crate) use death::Death;
pub(crate) use keeper::Keeper;
pub(crate) use memory::MemoryStore;
pub(crate) use model::{Device, Loaded, OutboxRow, Told};
pub use model::{LocalConversation, LocalMessage, Waiting};
pub(crate) use sqlite::SqliteStore;

use std::path::PathBuf;
use whimbrel_protocol::frame::{Command, Event, Position, ResetReason, Snapshot};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, Disagreement, Incarnation, Nonce, OutboxState, UserId};

/// The newest messages of each conversation that are kept; older ones are at the server.
pub(crate) const MESSAGES_KEPT: usize = 1_000;

/// Why the device's state could not be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process holds the folder.
    #[error("{} is in use by another process: stop that one, or choose another state folder", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder or the database in it cannot be opened.
    #[error("the state in {} cannot be opened: {reason}", folder.display())]
    Open {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The folder belongs to another device or user.
    #[error("the state folder belongs to user {user:?}, device {device:?}: choose another folder, or connect as that one")]
    OtherDevice {
        /// Whose it is.
        user: String,
        /// Which device it is.
        device: String,
    },
    /// A read or write failed; nothing was changed by it.
    #[error("the device's state cannot be read or written: {0} (is the disk full?)")]
    Failed(String),
    /// What is stored cannot be understood.
    #[error("the device's state is damaged: {0}; move its folder away to begin anew from the server")]
    Damaged(String),
    /// The client has ended, and its state with it.
    #[error("the client has ended")]
    Closed,
}

/// A device's durable state.
///
/// # Guarantees (what the shared suite checks of both implementations)
/// - Each method is atomic. [`Keeper::call`] reports success only once it is durable.
/// - What [`load`](Self::load) returns is what the last successful calls left, also after a crash at any moment.
pub(crate) trait Store: Send {
    /// Everything a client begins with. Pages of a snapshot that was not completed are forgotten.
    fn load(&mut self) -> Result<Loaded, StateError>;

    /// Stores new commands; they are not applied.
    fn enqueue(&mut self, commands: &[Command]) -> Result<(), StateError>;

    /// The outbox is `state` now: rows up to its `applied` are marked, and forgotten where no outcome will be told.
    fn applied(&mut self, state: OutboxState) -> Result<(), StateError>;

    /// The outbox has a new incarnation, and these numbers in it; none of them is applied. A nonce that is not there is ignored: it was never stored.
    fn renumber(&mut self, state: OutboxState, numbers: &[(Nonce, CommandSeq)]) -> Result<(), StateError>;

    /// The outbox and the server contradict each other: the state is this one, the rows of `again` are no longer applied, and those of
    /// `untold` leave the outbox: their outcome will not be told. That and the contradiction are remembered until they are
    /// [`told`](Self::told); of several contradictions of a kind, the newest.
    fn disagree(&mut self, state: OutboxState, again: &[Nonce], untold: &[Nonce], why: Disagreement) -> Result<(), StateError>;

    /// Takes events in order, together with the position of the last and what is known of the outbox. Rows whose outcome is among
    /// them are removed; a message of this device gets its text from there.
    fn take(&mut self, me: &UserId, events: &[Event], position: Position, outbox: OutboxState) -> Result<(), StateError>;

    /// The device continues at another position, without a snapshot. If the log is another one, what came from the old goes. The rows of
    /// `untold` leave the outbox: their outcome will not be told. That and a reset are remembered until they are [`told`](Self::told).
    fn restart(&mut self, position: Position, reset: Option<ResetReason>, untold: &[Nonce]) -> Result<(), StateError>;

    /// `untold` leave the outbox: their outcome will not be told. That is remembered until it is [`told`](Self::told).
    fn give_up(&mut self, untold: &[Nonce]) -> Result<(), StateError>;

    /// Keeps a page of a snapshot aside; `first` forgets what was kept of an earlier one.
    fn stage(&mut self, page: &Snapshot, first: bool) -> Result<(), StateError>;

    /// The snapshot is complete: the pages become what the device knows (instead of it, if the log is another one), and the position
    /// is this one. For the rest it is as [`restart`](Self::restart).
    fn apply_snapshot(&mut self, position: Position, reset: Option<ResetReason>, untold: &[Nonce]) -> Result<(), StateError>;

    /// The application has taken note.
    fn told(&mut self, told: &Told) -> Result<(), StateError>;

    /// Conversations, the one with the newest message first.
    fn conversations(&mut self) -> Result<Vec<LocalConversation>, StateError>;

    /// The newest `limit` messages of a conversation before `before`, rising.
    fn messages(&mut self, id: ConversationId, before: Option<ConversationSeq>, limit: usize) -> Result<Vec<LocalMessage>, StateError>;

    /// What waits in the outbox, in order; before it what left it untold.
    fn waiting(&mut self) -> Result<Vec<Waiting>, StateError>;

    /// Something remembered, by key.
    fn note(&mut self, key: &str) -> Result<Option<String>, StateError>;

    /// Remembers something.
    fn set_note(&mut self, key: &str, value: &str) -> Result<(), StateError>;

    /// Begins a transaction around the calls that follow.
    fn begin(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    /// A point within the transaction to go back to if a call fails.
    fn savepoint(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    /// Ends the last savepoint: keeps or undoes what was done since.
    fn end_savepoint(&mut self, keep: bool) -> Result<(), StateError> {
        let _ = keep;
        Ok(())
    }

    /// Makes everything since [`begin`](Self::begin) durable.
    fn commit(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    /// Undoes everything since [`begin`](Self::begin).
    fn rollback(&mut self) {}
}

/// Of two resets that the application is to hear of, the one that says more.
pub(crate) fn graver(one: Option<ResetReason>, other: Option<ResetReason>) -> Option<ResetReason> {
    if one == Some(ResetReason::OtherLog) { one } else { other.or(one) }
}

/// A command's number within its outbox, and the outbox.
pub(crate) type CommandNumber = (Incarnation, CommandSeq);
