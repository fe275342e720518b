//! The shapes of what is stored.

use whimbrel_protocol::frame::{Command, CommandBody, Content, ConversationKind, MemberState, Position, ResetReason};
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, Nonce, OutboxState, Time, UserId};

/// Whose state it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub user: UserId,
    pub device: DeviceId,
}

/// What a client begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub outbox: OutboxState,
    /// Not known to be applied, in order of their numbers.
    pub pending: Vec<Command>,
    /// Applied, and their outcome not yet taken.
    pub awaiting: Vec<OutboxRow>,
    pub position: Option<Position>,
    /// That the mailbox could not be continued, and the application has not taken note of it yet.
    pub reset: Option<ResetReason>,
    /// Every conversation's kind and members.
    pub directory: Vec<(ConversationId, ConversationKind, Vec<UserId>)>,
}

/// A command in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxRow {
    pub command: Command,
    pub applied: bool,
}

/// A conversation as this device knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalConversation {
    /// Its name.
    pub id: ConversationId,
    /// What sort.
    pub kind: ConversationKind,
    /// Its members with their watermarks.
    pub members: Vec<MemberState>,
    /// Highest number in it that this device knows of.
    pub head: ConversationSeq,
    /// The newest message that this device knows.
    pub last: Option<LocalMessage>,
}

/// A message as this device knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalMessage {
    /// Where.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: ConversationSeq,
    /// Who wrote it; `None` only where this device does not know the conversation's members.
    pub from: Option<UserId>,
    /// When it was committed.
    pub time: Time,
    /// What it says.
    pub content: Content,
}

/// A command in the outbox whose outcome was not taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Names the command for its life: the one of its [`Ticket`](crate::Ticket).
    pub nonce: Nonce,
    /// What it is to do.
    pub body: CommandBody,
    /// Whether the server is known to have it durably.
    pub applied: bool,
}
