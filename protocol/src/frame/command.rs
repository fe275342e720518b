//! What a device wants done, once.

use super::hello::Extension;
use super::open::{bodies, envelope, open_enum};
use crate::{CommandSeq, ConversationId, ConversationSeq, Incarnation, Nonce, UserId};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Something to be done once, however often it is sent. It is durable on the device before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The outbox it is numbered in. A command of another than the session's is ignored.
    pub incarnation: Incarnation,
    /// Its number there.
    pub cseq: CommandSeq,
    /// Stays with it for its life, also when it is numbered anew.
    pub nonce: Nonce,
    /// What to do.
    pub body: CommandBody,
}

envelope!(Command { incarnation: Incarnation, cseq: CommandSeq, nonce: Nonce } CommandBody);

bodies! {
    /// The kinds of command.
    pub enum CommandBody {
        /// Write a message.
        Send(Send) = 1 => "send",
        /// Say how far the user has read.
        MarkRead(MarkRead) = 2 => "markRead",
    }
}

/// Write a message. Outcome: [`Sent`](super::Sent) for this device, [`Message`](super::Message) for everybody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// Where to.
    pub to: Target,
    /// What.
    pub content: Content,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// The direct conversation with this user, which begins if there is none.
    User(UserId),
    /// A conversation that the user is in.
    Conversation(ConversationId),
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// What sort of content.
    pub kind: ContentKind,
    /// The text; for a kind that a client does not know, the text to show instead. At most
    /// [`MAX_TEXT`](crate::codec::MAX_TEXT) bytes.
    pub text: String,
    /// What an application or a gateway keeps beside the text; unknown ones are ignored, and kept. At most
    /// [`MAX_EXTENSIONS`](crate::codec::MAX_EXTENSIONS) bytes in values, in at most [`EXTENSIONS_MAX`](crate::EXTENSIONS_MAX).
    #[serde(default)]
    pub extensions: Vec<Extension>,
}

impl Content {
    /// The key of the [`Extension`] with what clients of Socket.IO say beside the text of a message: a JSON object, as
    /// `docs/socketio.md` has it.
    pub const SOCKET_IO: u16 = 1;

    /// Plain text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: ContentKind::Text, text: text.into(), extensions: Vec::new() }
    }

    /// Its text and the values of its extensions, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.text.len() + self.extensions.iter().map(|extension| extension.value.len()).sum::<usize>()
    }
}

open_enum! {
    /// What sort of content.
    pub enum ContentKind: u16 {
        /// Plain text.
        Text = 1 => "text",
    }
}

/// The user has read everything in the conversation up to and including `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkRead {
    /// Where.
    pub conversation: ConversationId,
    /// How far.
    pub seq: ConversationSeq,
}
