//! What lies below a session's stream: a WebTransport session, or a QUIC connection of its own. Both are QUIC streams in the end; how
//! they are opened, refused and closed differs.

use bytes::Bytes;
use quinn::VarInt;
use std::net::SocketAddr;
use whimbrel_protocol::TransportKind;

/// What a WebTransport client hears of a stream that nobody asked for: `WEBTRANSPORT_BUFFERED_STREAM_REJECTED`.
const NOT_WANTED_H3: wtransport::VarInt = wtransport::VarInt::from_u32(0x3994_bd84);
/// What a raw QUIC client hears.
const NOT_WANTED: VarInt = VarInt::from_u32(1);
/// `H3_NO_ERROR`: as orderly as 0.
const H3_NO_ERROR: u64 = 0x100;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// One of the two closed it.
    Closed,
    /// It broke, for this reason.
    Lost(String),
}

/// What a client sends beside the session's stream.
#[derive(Debug)]
pub(super) enum Beside {
    /// A stream that it opened.
    Stream(SendHalf, ReceiveHalf),
    /// A datagram.
    Datagram(Bytes),
}

/// A connection that carries a session.
#[derive(Debug, Clone)]
pub(super) enum Carrier {
    /// In HTTP/3.
    WebTransport(wtransport::Connection),
    /// ALPN `whimbrel/1`.
    Quic(quinn::Connection),
}

impl Carrier {
    pub(super) fn kind(&self) -> TransportKind {
        match self {
            Self::WebTransport(_) => TransportKind::WebTransport,
            Self::Quic(_) => TransportKind::Quic,
        }
    }

    /// The connection below.
    pub(super) fn quic(&self) -> &quinn::Connection {
        match self {
            Self::WebTransport(session) => session.quic_connection(),
            Self::Quic(connection) => connection,
        }
    }

    /// Where the client is now: it may move. On a socket for both families IPv4 addresses come dressed as IPv6.
    pub(super) fn remote_addr(&self) -> SocketAddr {
        let addr = self.quic().remote_address();
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    /// What comes beside the session's stream; streams of one direction are refused. wtransport's queues hold few, and what is not taken
    /// keeps its memory, so this is to be called again and again. Cancel-safe.
    pub(super) async fn beside(&self) -> Result<Beside, End> {
        match self {
            Self::WebTransport(session) => beside_session(session).await.map_err(|why| match why {
                wtransport::error::ConnectionError::ApplicationClosed(_) | wtransport::error::ConnectionError::LocallyClosed => End::Closed,
                why => End::Lost(why.to_string()),
            }),
            Self::Quic(connection) => beside_connection(connection).await.map_err(|why| End::of(&why)),
        }
    }

    /// The longest datagram that can be sent now; `None` if the client takes none.
    pub(super) fn max_datagram(&self) -> Option<usize> {
        match self {
            Self::WebTransport(session) => session.max_datagram_size(),
            Self::Quic(connection) => connection.max_datagram_size(),
        }
    }

    /// Sends a datagram, or does not: it is a hint.
    pub(super) fn send_datagram(&self, bytes: Vec<u8>) {
        let sent = match self {
            Self::WebTransport(session) => session.send_datagram(bytes).map_err(|why| why.to_string()),
            Self::Quic(connection) => connection.send_datagram(bytes.into()).map_err(|why| why.to_string()),
        };
        if let Err(why) = sent {
            tracing::trace!(why, "a datagram was not sent");
        }
    }

    /// Ends the connection in an orderly way.
    pub(super) fn close(&self) {
        match self {
            Self::WebTransport(session) => session.close(wtransport::VarInt::from_u32(0), b""),
            Self::Quic(connection) => connection.close(VarInt::from_u32(0), b""),
        }
    }
}

impl End {
    /// Whether the end of a connection was meant.
    pub(super) fn of(why: &quinn::ConnectionError) -> Self {
        match why {
            // A browser's close is a capsule, upon which wtransport closes the connection on our side.
            quinn::ConnectionError::LocallyClosed => Self::Closed,
            quinn::ConnectionError::ApplicationClosed(close) if matches!(close.error_code.into_inner(), 0 | H3_NO_ERROR) => Self::Closed,
            why => Self::Lost(why.to_string()),
        }
    }
}

async fn beside_session(session: &wtransport::Connection) -> Result<Beside, wtransport::error::ConnectionError> {
    loop {
        tokio::select! {
            stream = session.accept_uni() => stream?.stop(NOT_WANTED_H3),
            stream = session.accept_bi() => {
                let (send, receive) = stream?;
                return Ok(Beside::Stream(SendHalf::WebTransport(send), ReceiveHalf::WebTransport(receive)));
            }
            datagram = session.receive_datagram() => return Ok(Beside::Datagram(datagram?.payload())),
        }
    }
}

async fn beside_connection(connection: &quinn::Connection) -> Result<Beside, quinn::ConnectionError> {
    loop {
        tokio::select! {
            // It fails only for a stream that is closed already.
            stream = connection.accept_uni() => drop(stream?.stop(NOT_WANTED)),
            stream = connection.accept_bi() => {
                let (send, receive) = stream?;
                return Ok(Beside::Stream(SendHalf::Quic(send), ReceiveHalf::Quic(receive)));
            }
            datagram = connection.read_datagram() => return Ok(Beside::Datagram(datagram?)),
        }
    }
}

/// The half of the session's stream that we write.
#[derive(Debug)]
pub(super) enum SendHalf {
    /// In a WebTransport session.
    WebTransport(wtransport::SendStream),
    /// In a connection of its own.
    Quic(quinn::SendStream),
}

impl SendHalf {
    pub(super) fn quic(&mut self) -> &mut quinn::SendStream {
        match self {
            Self::WebTransport(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }

    /// Nobody wants what would come on this stream.
    pub(super) fn refuse(&mut self) {
        // Both fail only for a stream that is closed already.
        match self {
            Self::WebTransport(stream) => drop(stream.reset(NOT_WANTED_H3)),
            Self::Quic(stream) => drop(stream.reset(NOT_WANTED)),
        }
    }
}

/// The half of the session's stream that we read.
#[derive(Debug)]
pub(super) enum ReceiveHalf {
    /// In a WebTransport session.
    WebTransport(wtransport::RecvStream),
    /// In a connection of its own.
    Quic(quinn::RecvStream),
}

impl ReceiveHalf {
    pub(super) fn quic(&mut self) -> &mut quinn::RecvStream {
        match self {
            Self::WebTransport(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }
}
