//! The session's stream, over WebTransport or over QUIC alone: each frame stands behind its length.

use super::LinkError;
use super::quic::any_address;
use super::window::Windows;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use whimbrel_protocol::codec::{CodecError, Form, find_frame, write_frame};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

/// QUIC gives up on a silent path after this; our own probe notices sooner.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// What the server may send on the stream before we have read it: a few of the longest frames.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How long the server may take for what is queued when the client leaves.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Read from the stream at once.
const READ_SIZE: usize = 16 * 1024;

/// How our connections behave, whatever runs in them.
pub(super) fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(quinn::VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .stream_receive_window(quinn::VarInt::from_u32(STREAM_WINDOW))
        .receive_window(quinn::VarInt::from_u32(4 * STREAM_WINDOW))
        .congestion_controller_factory(Arc::<Windows>::default());
    transport
}

/// Keeps a connection, and the socket under it, for as long as either half of the stream is used.
pub(super) struct Carrier {
    connection: quinn::Connection,
    local: Local,
}

/// Our end of the connection.
pub(super) enum Local {
    /// Ours, so that it can be bound anew.
    Quic(quinn::Endpoint),
    /// wtransport's, which keeps its socket to itself. It is bound to no address, so the kernel sends from the new one by itself.
    WebTransport { _session: wtransport::Connection, _endpoint: wtransport::Endpoint<wtransport::endpoint::endpoint_side::Client> },
}

impl Carrier {
    pub(super) fn new(connection: quinn::Connection, local: Local) -> Self {
        Self { connection, local }
    }

    fn rebind(&self) -> bool {
        let Local::Quic(endpoint) = &self.local else { return true };
        let bound = UdpSocket::bind(any_address(self.connection.remote_address())).and_then(|socket| endpoint.rebind(socket));
        if let Err(why) = &bound {
            tracing::debug!(%why, "no other socket for the connection");
        }
        bound.is_ok()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // Says at once that nobody is here any more; without it the server would wait for its idle time-out.
        self.connection.close(quinn::VarInt::from_u32(0), b"");
    }
}

/// Both halves of a stream. Their wrappers are kept, for they reset or stop the stream when they are dropped.
pub(super) fn link(carrier: Carrier, send: SendHalf, recv: RecvHalf) -> (Source, Sink) {
    let carrier = Arc::new(carrier);
    let source = Source { recv, read: Vec::new(), carrier: Arc::clone(&carrier) };
    (source, Sink { send, waiting: Vec::new(), sent: 0, carrier })
}

pub(super) enum SendHalf {
    WebTransport(wtransport::SendStream),
    Quic(quinn::SendStream),
}

impl SendHalf {
    fn quic(&mut self) -> &mut quinn::SendStream {
        match self {
            Self::WebTransport(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }
}

pub(super) enum RecvHalf {
    WebTransport(wtransport::RecvStream),
    Quic(quinn::RecvStream),
}

impl RecvHalf {
    fn quic(&mut self) -> &mut quinn::RecvStream {
        match self {
            Self::WebTransport(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }
}

pub(crate) struct Source {
    recv: RecvHalf,
    read: Vec<u8>,
    carrier: Arc<Carrier>,
}

impl Source {
    pub async fn next(&mut self) -> Result<Option<ServerFrame>, LinkError> {
        loop {
            if let Some((start, end)) = find_frame(&self.read)? {
                let frame = self.read.get(start..end).map(|bytes| Form::Postcard.decode(bytes));
                self.read.drain(..end);
                return Ok(frame.transpose()?);
            }
            match self.recv.quic().read_chunk(READ_SIZE, true).await {
                Ok(Some(chunk)) => self.read.extend_from_slice(&chunk.bytes),
                Ok(None) => return Ok(None),
                Err(why) => {
                    let reason = self.carrier.connection.close_reason();
                    return Err(LinkError::Gone(reason.map_or_else(|| why.to_string(), |reason| reason.to_string())));
                }
            }
        }
    }
}

pub(crate) struct Sink {
    send: SendHalf,
    waiting: Vec<u8>,
    /// How much of `waiting` the stream took.
    sent: usize,
    /// Named for its drop.
    carrier: Arc<Carrier>,
}

impl Sink {
    pub fn queued(&self) -> usize {
        self.waiting.len() - self.sent
    }

    /// Goes on from another socket.
    pub fn rebind(&self) -> bool {
        self.carrier.rebind()
    }

    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), CodecError> {
        write_frame(frame, &mut self.waiting)
    }

    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // What a dropped `write` had taken is told by its result only: it either takes something and ends, or took nothing.
            self.sent += self.send.quic().write(rest).await.map_err(|why| LinkError::Gone(why.to_string()))?;
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    pub async fn close(mut self) {
        let leave = async {
            // It fails only for a stream that is closed already.
            if self.flush().await.is_ok() && self.send.quic().finish().is_ok() {
                // Returns once the server has everything.
                let _ = self.send.quic().stopped().await;
            }
        };
        // Whoever does not take it in time is left alone: everything that matters comes again in the next session.
        let _ = timeout(CLOSE_TIMEOUT, leave).await;
        drop(self.carrier);
    }
}
