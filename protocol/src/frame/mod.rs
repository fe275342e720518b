//! Everything that travels, one file a family.
//!
//! [`ClientFrame`] and [`ServerFrame`] are the two alphabets. What is numbered ([`Command`], [`Event`]), and what is asked ([`Query`],
//! [`Answer`]), has an *envelope*: number, kind, and a body with its length. Software that does not know a kind, or cannot read a
//! body, steps over it and still counts the number. A body may grow at its end: readers ignore bytes that follow what they know.

mod command;
mod event;
mod hello;
mod open;
mod query;
mod signal;

pub use command::{Command, CommandBody, Content, ContentKind, MarkRead, Send, Target};
pub use event::{ConversationKind, Event, EventBody, Message, Receipt, Rejected, Sent, Skip, Started};
pub use hello::{Begin, Endpoint, Extension, Hello, Origin, Position, ResetReason, Welcome};
pub use open::Unknown;
pub(crate) use open::open_enum;
pub use query::{
    Answer, AnswerBody, ConversationState, Direction, History, HistoryPage, MemberState, Online, OnlinePage, Query, QueryBody, Refused,
    Snapshot, StoredMessage,
};
pub use signal::{ClientState, LobbyLine, Presence, PresenceState, ServerSignal, Signal, Typing, TypingFrom, Watch};

use crate::{CommandSeq, ErrorCode, MailboxSeq};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// What a client sends. The order of the variants is the wire's tag and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientFrame {
    /// Who I am and how far I have got; always first.
    Hello(Hello),
    /// Do something, once.
    Command(Command),
    /// I have durably taken the mailbox up to here.
    Ack(Ack),
    /// Tell me something.
    Query(Query),
    /// Something that may get lost.
    Signal(Signal),
    /// Are you there?
    Ping(Ping),
    /// The answer to the server's [`ServerFrame::Ping`].
    Pong(Ping),
}

/// What a server sends. The order of the variants is the wire's tag and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerFrame {
    /// The answer to `Hello`.
    Welcome(Welcome),
    /// Commands up to here are durable.
    Applied(Applied),
    /// An entry of the mailbox.
    Event(Event),
    /// A page of what a device needs that cannot be served from the log.
    Snapshot(Snapshot),
    /// The answer, or a part of it, to a query.
    Answer(Answer),
    /// Something that may get lost.
    Signal(ServerSignal),
    /// Are you there?
    Ping(Ping),
    /// The answer to the client's [`ClientFrame::Ping`].
    Pong(Ping),
    /// Not now: this command was not taken and used up no number.
    Busy(Busy),
    /// The server is about to close this session for a reason of its own.
    GoAway(GoAway),
    /// Something was wrong; the session ends after it.
    Error(Error),
}

/// Cumulative: the device has every event up to and including `seq` in its own durable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The device's cursor.
    pub seq: MailboxSeq,
}

/// Cumulative: every command of this incarnation up to and including `cseq` is durable. Its outcome is, or will be, an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Highest applied command.
    pub cseq: CommandSeq,
}

/// A probe; the answer carries the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// Chosen by whoever asks.
    pub id: u32,
}

/// The server is full. Send `cseq` and what follows it again after the time given; they used up no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Busy {
    /// The first command that was not taken.
    pub cseq: CommandSeq,
    /// Milliseconds to wait.
    pub retry_after_ms: u32,
}

/// The server closes this session soon: connect again after the time given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoAway {
    /// Milliseconds to wait before connecting again; spread by the server so that not all come at once.
    pub retry_after_ms: u32,
    /// For people.
    pub message: String,
}

/// Why the session ends. What to do about it is in the range of the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Error {
    /// From the one table.
    pub code: ErrorCode,
    /// For people: what was wrong and what to do.
    pub message: String,
    /// Milliseconds to wait before connecting again, where the code says to; 0 leaves it to the client.
    pub retry_after_ms: u32,
}
