//! Which transports there are, and which a client may use.

use std::fmt;
use std::str::FromStr;
use whimbrel_protocol::codec::Form;

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// WebTransport: one bidirectional stream over QUIC.
    WebTransport,
    /// WebSocket, frames in postcard.
    WebSocket,
    /// WebSocket, frames in JSON.
    WebSocketJson,
}

impl TransportKind {
    /// The name, as flags and logs have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
            Self::WebSocketJson => "websocket-json",
        }
    }

    /// The form of its frames.
    pub(crate) const fn form(self) -> Form {
        match self {
            Self::WebTransport | Self::WebSocket => Form::Postcard,
            Self::WebSocketJson => Form::Json,
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which transport a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// The best that works, found by racing them.
    #[default]
    Auto,
    /// Only WebTransport.
    WebTransport,
    /// Only WebSocket, frames in postcard.
    WebSocket,
    /// Only WebSocket, frames in JSON.
    WebSocketJson,
}

/// A transport's name was not one that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no transport: choose auto, webtransport, websocket or websocket-json")]
pub struct UnknownTransport(pub String);

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        match name {
            "auto" => Ok(Self::Auto),
            "webtransport" => Ok(Self::WebTransport),
            "websocket" => Ok(Self::WebSocket),
            "websocket-json" => Ok(Self::WebSocketJson),
            other => Err(UnknownTransport(other.into())),
        }
    }
}
