//! Entries of a mailbox, as a device sees them.

use super::command::Content;
use super::open::{bodies, envelope, open_enum};
use crate::{CommandSeq, ConversationId, ConversationSeq, ErrorCode, Incarnation, MailboxSeq, Time, UserId};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// An entry of the user's mailbox, as this device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the mailbox.
    pub seq: MailboxSeq,
    /// When it was committed.
    pub time: Time,
    /// What happened.
    pub body: EventBody,
}

envelope!(Event { seq: MailboxSeq, time: Time } EventBody);

bodies! {
    /// The kinds of event.
    pub enum EventBody {
        /// Nothing for this device, up to and including a number.
        Skip(Skip) = 1 => "skip",
        /// A conversation that the user is in from now on.
        Started(Started) = 2 => "started",
        /// A message.
        Message(Message) = 3 => "message",
        /// The outcome of this device's own [`Send`](super::Send).
        Sent(Sent) = 4 => "sent",
        /// The outcome of a command of this device that was refused.
        Rejected(Rejected) = 5 => "rejected",
        /// How far somebody's devices have taken, or somebody has read, a conversation.
        Receipt(Receipt) = 6 => "receipt",
    }
}

impl Event {
    /// The last mailbox number that this event covers: its own, but for a [`Skip`].
    #[must_use]
    pub fn through(&self) -> MailboxSeq {
        match &self.body {
            EventBody::Skip(skip) => skip.through.max(self.seq),
            _ => self.seq,
        }
    }
}

/// The entries from the event's number up to and including `through` hold nothing for this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skip {
    /// Last number covered.
    pub through: MailboxSeq,
}

/// A conversation began, or the user joined it. Comes before anything else of that conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Its name.
    pub conversation: ConversationId,
    /// What sort.
    pub kind: ConversationKind,
    /// Who is in it. A direct conversation has two members, or one: the user's notes to themself.
    pub members: Vec<UserId>,
}

open_enum! {
    /// What sort of conversation.
    pub enum ConversationKind: u16 {
        /// Between two users, or a user's notes to themself.
        Direct = 1 => "direct",
    }
}

/// Somebody wrote a message; or the user did, on another device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Where.
    pub conversation: ConversationId,
    /// Its number there: the two name it for ever.
    pub seq: ConversationSeq,
    /// Who wrote it. In postcard `None` stands for the other member of a direct conversation; in JSON it is always given.
    pub from: Option<UserId>,
    /// What it says.
    pub content: Content,
}

/// This device's own message is in the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The outbox that the command was numbered in.
    pub incarnation: Incarnation,
    /// The command.
    pub cseq: CommandSeq,
    /// Where the message is.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: ConversationSeq,
}

/// A command of this device was refused, and used up its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// The outbox that the command was numbered in.
    pub incarnation: Incarnation,
    /// The command.
    pub cseq: CommandSeq,
    /// Why.
    pub code: ErrorCode,
    /// For people: what was wrong and what to do.
    pub message: String,
}

/// Watermarks of one member of a conversation; they only rise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Where.
    pub conversation: ConversationId,
    /// Who. In postcard `None` stands for the other member of a direct conversation; in JSON it is always given.
    pub user: Option<UserId>,
    /// A device of that user has durably taken the conversation up to here.
    pub delivered: ConversationSeq,
    /// That user has read up to here.
    pub read: ConversationSeq,
}
