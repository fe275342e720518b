//! The rows of the log.

use serde::{Deserialize, Serialize};
use whimbrel_protocol::frame::{Content, ConversationKind};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, DeviceId, ErrorCode, Incarnation, MailboxSeq, Nonce, Time};

/// Position in the log: rises with every record.
pub type Pos = u64;

/// A user as the store numbers them: small, for indexes. Never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserNo(pub u32);

/// A device: whose, and in which of the user's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceKey {
    /// Whose.
    pub user: UserNo,
    /// Slot, 0 to 31.
    pub slot: u8,
}

/// The command that made a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The device that sent it.
    pub device: DeviceKey,
    /// The outbox it was numbered in.
    pub incarnation: Incarnation,
    /// Its number there.
    pub cseq: CommandSeq,
    /// Its nonce.
    pub nonce: Nonce,
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub pos: Pos,
    /// When it was committed.
    pub time: Time,
    /// The mailboxes it is in, and its number in each.
    pub recipients: Vec<(UserNo, MailboxSeq)>,
    /// What happened.
    pub body: RecordBody,
}

impl Record {
    /// Bytes of content, for limits on what is read at once.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        match &self.body {
            RecordBody::Message { content, .. } => content.size(),
            RecordBody::Rejected { message, .. } => message.len(),
            _ => 0,
        }
    }
}

/// What happened, and how it changes the indexes. A body with an [`Origin`] makes that command the device's highest applied one and
/// the newest of its recent commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordBody {
    /// A device was seen for the first time, or has a new outbox: its incarnation is this one, `applied` is 0, its recent commands stay.
    Outbox {
        /// The device.
        device: DeviceKey,
        /// The client's name for it.
        name: DeviceId,
        /// The new outbox.
        incarnation: Incarnation,
    },
    /// A conversation begins, with these members and `head` 0.
    Started {
        /// Its id.
        conversation: ConversationId,
        /// What sort.
        kind: ConversationKind,
        /// Who is in it. A direct conversation is found again by its one or two members.
        members: Vec<UserNo>,
    },
    /// A message: the conversation's `head` becomes `seq` (which is the next number), its time rises to the record's, `sent` of the writer becomes `seq`.
    Message {
        /// Where.
        conversation: ConversationId,
        /// Its number there.
        seq: ConversationSeq,
        /// The writer's device and command.
        origin: Origin,
        /// What it says.
        content: Content,
    },
    /// Watermarks of a member rise to these (they never fall).
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        user: UserNo,
        /// Taken by a device up to here.
        delivered: ConversationSeq,
        /// Read up to here.
        read: ConversationSeq,
        /// The command that said so, if it was one.
        origin: Option<Origin>,
    },
    /// A command was refused.
    Rejected {
        /// The command.
        origin: Origin,
        /// Why.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// A command that had got through before came again under another number. Nothing changes but the device.
    Repeat {
        /// The command under its new number.
        origin: Origin,
        /// Where its message is, if it made one.
        message: Option<(ConversationId, ConversationSeq)>,
    },
}

impl RecordBody {
    /// The command that made it, if it was one.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Message { origin, .. } | Self::Rejected { origin, .. } | Self::Repeat { origin, .. } => Some(origin),
            Self::Receipt { origin, .. } => origin.as_ref(),
            Self::Outbox { .. } | Self::Started { .. } => None,
        }
    }
}
