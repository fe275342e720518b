//! What may get lost: never stored, never numbered, dropped rather than queued.

use super::command::Target;
use super::open::open_enum;
use crate::{ConversationId, UserId};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A signal from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signal {
    /// The user types, or has stopped. Repeated every few seconds while it is true.
    Typing(Typing),
    /// Whose presence this session wants to hear of. Replaces what was said before; a new session hears of nobody.
    Watch(Watch),
}

/// The user types, or has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Typing {
    /// Where.
    pub to: Target,
    /// Whether it goes on.
    pub active: bool,
}

/// Whose presence this session wants to hear of. The present state comes at once, changes at most once a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// At most 256 users; more are ignored.
    pub users: Vec<UserId>,
    /// Everybody; then `users` does not matter. At most 256 changes a second are told.
    pub everyone: bool,
}

/// A signal from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerSignal {
    /// Somebody types, or has stopped. Without a repeat for 6 seconds it has ended.
    Typing(TypingFrom),
    /// Who came and went.
    Presence(Vec<Presence>),
}

/// Somebody types, or has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypingFrom {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
    /// Whether it goes on.
    pub active: bool,
}

/// A user's presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// What.
    pub state: PresenceState,
}

open_enum! {
    /// Whether a user can be reached right now.
    pub enum PresenceState: u16 {
        /// A device is connected, or was until less than the grace time ago.
        Online = 1 => "online",
        /// No device is connected.
        Offline = 2 => "offline",
    }
}
