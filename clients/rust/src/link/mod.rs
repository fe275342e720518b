//! From a URL to a link that carries frames. Knows frames and bytes, and nothing of commands, events or stores.

mod address;
mod asking;
mod discover;
mod flight;
mod quic;
mod race;
mod stream;
mod tickets;
mod tls;
mod websocket;
mod webtransport;
mod window;

pub(crate) use address::Address;
#[cfg(test)]
pub(crate) use discover::BoxedStream;
pub(crate) use discover::{Endpoints, QuicEndpoint, Told, WebTransportEndpoint, ask, discover};
pub(crate) use quic::connect as quic;
pub(crate) use race::{Attempt, Established, Known, connect};
pub(crate) use tls::{Fault, PinError, Trust, TrustError, parse_pin, shake};
pub(crate) use websocket::connect as websocket;
pub(crate) use webtransport::connect as webtransport;

use crate::TransportKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::QueryId;
use whimbrel_protocol::codec::{CodecError, write_frame};
use whimbrel_protocol::frame::{ClientFrame, Query, ServerFrame};

/// How long each step of connecting may take.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that may wait in a sink before no more is pushed.
pub(crate) const QUEUED_MAX: usize = 64 * 1024;

/// Why a link could not be established, or gave out. For people; it is tried again later each time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Unreachable(String),
    /// Who answers is not who was configured, or is not spoken to like this: the URL, the CA or the pin has to be changed, or the server.
    #[error("{0}")]
    Mismatch(String),
    #[error("the connection is gone: {0}")]
    Gone(String),
    #[error("the server sent something that is not the protocol: {0}")]
    Codec(#[from] CodecError),
}

/// What may be sent before the server has said a word: the `Hello`, and behind it the first commands.
///
/// Only QUIC alone takes it along, and an attempt over it may lose the race after that. Then the server may have heard it all, and may even
/// begin a session with it: the `Hello` of whatever is tried or said after it has a higher `attempt`, so it replaces that session, or the server refuses
/// that session as late. The commands are in the outbox still, and sent again, and a command that comes twice is carried out once.
#[derive(Clone, Default)]
pub(crate) struct Opening {
    /// Frames behind their lengths, as on a stream.
    bytes: Vec<u8>,
}

impl Opening {
    /// Adds a frame, if it all stays within `max` bytes. Returns whether it did.
    pub fn push(&mut self, frame: &ClientFrame, max: usize) -> Result<bool, CodecError> {
        let before = self.bytes.len();
        write_frame(frame, &mut self.bytes)?;
        let fits = self.bytes.len() <= max;
        if !fits {
            self.bytes.truncate(before);
        }
        Ok(fits)
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Whether somebody waits for the connection: then the network is not spared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Haste(Arc<AtomicBool>);

impl Haste {
    pub fn set(&self, haste: bool) {
        self.0.store(haste, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Both halves of a link.
pub(crate) struct Link {
    pub source: Source,
    pub sink: Sink,
    pub transport: TransportKind,
    /// Where the server is.
    pub peer: SocketAddr,
    /// The opening was sent over it, and this is how long the network takes.
    pub opened: Option<Duration>,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Received {
    /// A frame, in its order.
    Frame(ServerFrame),
    /// A frame that came in a datagram: early, doubled or late, and it comes in its order too if it matters.
    Hint(ServerFrame),
    /// A query that was asked on a stream of its own is not answered there.
    Unanswered(QueryId),
}

/// Where server frames come from.
pub(crate) enum Source {
    WebSocket(websocket::Source),
    /// WebTransport, or QUIC alone.
    Quic(stream::Source),
}

impl Source {
    /// The next frame; `None` when the server closed in an orderly way. A future that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Option<Received>, LinkError> {
        match self {
            Self::WebSocket(source) => Ok(source.next().await?.map(Received::Frame)),
            Self::Quic(source) => source.next().await,
        }
    }
}

/// Where client frames go.
pub(crate) enum Sink {
    WebSocket(websocket::Sink),
    /// WebTransport, or QUIC alone.
    Quic(stream::Sink),
}

impl Sink {
    /// Bytes that were pushed and not yet taken by the network.
    pub fn queued(&self) -> usize {
        match self {
            Self::WebSocket(sink) => sink.queued(),
            Self::Quic(sink) => sink.queued(),
        }
    }

    /// Whether [`flush`](Self::flush) has something to do.
    pub fn has_work(&self) -> bool {
        match self {
            Self::WebSocket(sink) => sink.queued() > 0,
            Self::Quic(sink) => sink.has_work(),
        }
    }

    /// When it has although nothing was pushed.
    pub fn due(&self) -> Option<Instant> {
        match self {
            Self::WebSocket(_) => None,
            Self::Quic(sink) => sink.due(),
        }
    }

    /// Encodes a query and queues it, where it is answered beside everything else if the transport can do that.
    pub fn ask(&mut self, query: Query) -> Result<(), CodecError> {
        match self {
            Self::WebSocket(sink) => sink.push(&ClientFrame::Query(query)),
            Self::Quic(sink) => sink.ask(query),
        }
    }

    /// Encodes a frame and queues it; sends nothing.
    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), CodecError> {
        match self {
            Self::WebSocket(sink) => sink.push(frame),
            Self::Quic(sink) => sink.push(frame),
        }
    }

    /// Goes on from another socket, if the connection can: the network is another one. What it does there is to be found out.
    pub fn rebind(&mut self) -> bool {
        match self {
            Self::WebSocket(_) => false,
            Self::Quic(sink) => sink.rebind(),
        }
    }

    /// Sends what is queued. A future that is dropped leaves queued what it had not sent.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        match self {
            Self::WebSocket(sink) => sink.flush().await,
            Self::Quic(sink) => sink.flush().await,
        }
    }

    /// Sends what is queued, as far as the server takes it in a short while, and closes.
    pub async fn close(self) {
        match self {
            Self::WebSocket(sink) => sink.close().await,
            Self::Quic(sink) => sink.close().await,
        }
    }
}
