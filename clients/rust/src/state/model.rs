//! The shapes of what is stored.

use whimbrel_protocol::frame::{Command, CommandBody, Content, ConversationKind, MemberState, Position, ResetReason};
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, Disagreement, Nonce, OutboxState, Time, UserId};

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
    /// Commands whose outcome will not be told, and of which the application has not taken note yet.
    pub untold: Vec<Command>,
    /// Contradictions between the outbox and the server of which the application has not taken note yet.
    pub disagreements: Vec<Disagreement>,
    /// Every conversation's kind and members.
    pub directory: Vec<(ConversationId, ConversationKind, Vec<UserId>)>,
}

/// What the application has taken note of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// Every reset until now.
    pub reset: bool,
    /// That the outcomes of these will not be told.
    pub untold: Vec<Nonce>,
    /// These contradictions.
    pub disagreements: Vec<Disagreement>,
}

impl Told {
    pub fn is_nothing(&self) -> bool {
        !self.reset && self.untold.is_empty() && self.disagreements.is_empty()
    }
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
