//! Adapters: each turns its own thing into a source of client frames and a sink of server frames. They know frames and bytes, and
//! nothing of conversations; nothing above knows which one it talks to.

pub mod websocket;
pub mod webtransport;

use std::fmt;
use std::future::Future;
use whimbrel_protocol::codec::{CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

/// Which adapter a session came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// WebTransport: one bidirectional stream, postcard.
    WebTransport,
    /// WebSocket, subprotocol `whimbrel.v1.postcard`.
    WebSocket,
    /// WebSocket, subprotocol `whimbrel.v1.json`.
    WebSocketJson,
}

impl TransportKind {
    /// The name, as flags, logs and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
            Self::WebSocketJson => "websocket-json",
        }
    }

    /// The form of its frames.
    #[must_use]
    pub const fn form(self) -> Form {
        match self {
            Self::WebTransport | Self::WebSocket => Form::Postcard,
            Self::WebSocketJson => Form::Json,
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a link gave out.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Gone(String),
    /// What the peer sent is not a frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Where client frames come from.
pub trait FrameSource: Send {
    /// The next frame; `None` when the peer closed in an orderly way. Cancel-safe: a future that is dropped loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Option<ClientFrame>, LinkError>> + Send;
}

/// Where server frames go.
pub trait FrameSink: Send {
    /// Bytes that were pushed and not yet taken by the network: the caller stops pushing beyond a limit of its own.
    fn queued(&self) -> usize;

    /// Encodes a frame and queues it; sends nothing.
    ///
    /// # Errors
    /// If the frame is longer than the form allows.
    fn push(&mut self, frame: &ServerFrame) -> Result<(), CodecError>;

    /// Asks a silent peer, by the transport's own means, whether it is there. `false` if the transport watches over that itself; else
    /// something is heard from the source if the peer lives.
    fn probe(&mut self) -> bool;

    /// Sends what is queued. Cancel-safe: what a dropped future had not sent stays queued.
    fn flush(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Sends what is queued, as far as the peer takes it in a short while, and closes.
    fn close(self) -> impl Future<Output = ()> + Send;
}
