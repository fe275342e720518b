//! What carries a session: a name for each, the same on both sides.

use crate::codec::Form;
use core::fmt;

/// The protocol's name in TLS, where QUIC carries it alone.
pub const ALPN: &str = "whimbrel/1";

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// QUIC alone, ALPN `whimbrel/1`: one bidirectional stream, frames in postcard.
    Quic,
    /// WebTransport: one bidirectional stream over QUIC, frames in postcard.
    WebTransport,
    /// WebSocket, frames in postcard.
    WebSocket,
    /// WebSocket, frames in JSON.
    WebSocketJson,
    /// Socket.IO, over WebSocket or polling: events of its own, no frames. Only servers speak it.
    SocketIo,
}

impl TransportKind {
    /// Every transport that carries frames, best first.
    pub const ALL: [Self; 4] = [Self::Quic, Self::WebTransport, Self::WebSocket, Self::WebSocketJson];

    /// The name, as flags, logs and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
            Self::WebSocketJson => "websocket-json",
            Self::SocketIo => "socket.io",
        }
    }

    /// The form of its frames; of Socket.IO the one that leaves nothing out, for the gateway that turns them into events.
    #[must_use]
    pub const fn form(self) -> Form {
        match self {
            Self::Quic | Self::WebTransport | Self::WebSocket => Form::Postcard,
            Self::WebSocketJson | Self::SocketIo => Form::Json,
        }
    }

    /// How a WebSocket asks for it; nothing where it is none.
    #[must_use]
    pub const fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Quic | Self::WebTransport | Self::SocketIo => None,
            Self::WebSocket => Some("whimbrel.v1.postcard"),
            Self::WebSocketJson => Some("whimbrel.v1.json"),
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
