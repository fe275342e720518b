//! What may get lost: never stored, never numbered, dropped rather than queued.

use super::command::Target;
use super::hello::{Extension, Hello};
use super::open::open_enum;
use crate::{ConversationId, UserId};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A signal from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signal {
    /// The user types, or has stopped. Repeated every few seconds while it is true.
    Typing(Typing),
    /// Whom this session wants to hear of. Replaces what was said before; a new session hears of nobody.
    Watch(Watch),
    /// How the client is from now on. Replaces what was said before, and what the `Hello` said ([`ClientState::in_hello`]).
    State(ClientState),
}

/// How the client of a session is: whether somebody may look, and how often it wants to be asked whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientState {
    /// The application is suspended, or about to be: its user does not look online for it, and is reached by push notifications.
    pub background: bool,
    /// After so many seconds without a word from the client the server asks it with a `Ping`, whatever the transport, and gives it up 20 seconds
    /// later. From 10 to 300; what is outside is brought to the nearer end, and 0 leaves time and means to the server.
    pub ask_after_s: u16,
}

impl ClientState {
    /// The key of the [`Extension`] of a `Hello` that says how the client is from the beginning.
    pub const EXTENSION: u16 = 1;

    /// As an extension of a `Hello`.
    #[must_use]
    pub fn to_extension(self) -> Extension {
        // Three bytes at most, which always have room.
        Extension { key: Self::EXTENSION, value: postcard::to_allocvec(&self).unwrap_or_default() }
    }

    /// What a `Hello` says. The default where it does not, or not so that it can be read.
    #[must_use]
    pub fn in_hello(hello: &Hello) -> Self {
        let said = hello.extensions.iter().rev().find(|extension| extension.key == Self::EXTENSION);
        said.and_then(|extension| postcard::from_bytes(&extension.value).ok()).unwrap_or_default()
    }
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

/// Whom this session wants to hear of: whose presence (the present state comes at once, changes at most once a second), and the lobby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// At most 256 users; more are ignored.
    pub users: Vec<UserId>,
    /// Everybody; then `users` does not matter. At most 256 changes a second are told.
    pub everyone: bool,
    /// What is said in the lobby, by clients that do not say who they are: from now on, and as it comes.
    #[serde(default)]
    pub lobby: bool,
}

/// A signal from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerSignal {
    /// Somebody types, or has stopped. Without a repeat for 6 seconds it has ended.
    Typing(TypingFrom),
    /// Who came and went.
    Presence(Vec<Presence>),
    /// A line in the lobby. Those who fall behind miss some.
    Lobby(LobbyLine),
}

/// Somebody said something in the lobby; nobody knows who.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LobbyLine {
    /// What.
    pub text: String,
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
