//! A session: the client's one stream, as a source and a sink of frames.

use crate::transport::{FrameSink, FrameSource, LinkError};
use quinn::{ReadError, WriteError};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use whimbrel_protocol::codec::{self, CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};
use wtransport::error::ConnectionError;
use wtransport::{Connection, RecvStream, SendStream, VarInt};

/// The most that is read at once, beyond a frame that is being put together.
const READ: usize = 16 * 1024;
/// A buffer for sending that has grown larger is given back when it is empty.
const KEEP: usize = 512;
/// How long a close may take to send what is queued and to hear the client's own close.
const CLOSE: Duration = Duration::from_secs(1);
/// What a client hears of a stream that nobody asked for: `WEBTRANSPORT_BUFFERED_STREAM_REJECTED`.
const NOT_WANTED: VarInt = VarInt::from_u32(0x3994_bd84);
/// `H3_NO_ERROR`: as orderly as 0.
const H3_NO_ERROR: u64 = 0x100;

/// A session whose client has opened its stream.
#[derive(Debug)]
pub struct WebTransportSession {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

impl WebTransportSession {
    pub(super) fn new(connection: Connection, send: SendStream, receive: RecvStream) -> Self {
        Self { connection, send, receive }
    }

    /// Where the client is now: it may move.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        remote_addr(&self.connection)
    }

    /// The round trip as QUIC estimates it.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Both halves. The connection ends when both are dropped.
    #[must_use]
    pub fn split(self) -> (WebTransportSource, WebTransportSink) {
        let source = WebTransportSource { connection: self.connection.clone(), receive: self.receive, inbox: Inbox::default() };
        let sink = WebTransportSink { connection: self.connection, send: self.send, out: Vec::new(), sent: 0 };
        (source, sink)
    }
}

/// On a socket for both families IPv4 addresses come dressed as IPv6.
fn remote_addr(connection: &Connection) -> SocketAddr {
    let addr = connection.remote_address();
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The frames that the client sends.
#[derive(Debug)]
pub struct WebTransportSource {
    connection: Connection,
    receive: RecvStream,
    inbox: Inbox,
}

impl WebTransportSource {
    /// Where the client is now: it may move.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        remote_addr(&self.connection)
    }

    /// The round trip as QUIC estimates it.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }
}

impl FrameSource for WebTransportSource {
    async fn next(&mut self) -> Result<Option<ClientFrame>, LinkError> {
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(Some(frame));
            }
            // Both are cancel-safe: quinn hands over bytes only with the result, and what is refused is not missed. The stream goes
            // first, so that what came before a close is read.
            let chunk = tokio::select! {
                biased;
                chunk = self.receive.quic_stream_mut().read_chunk(READ, true) => chunk,
                end = refuse_the_rest(&self.connection) => return match end {
                    Ok(never) => match never {},
                    Err(ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed) => Ok(None),
                    Err(error) => Err(LinkError::Gone(error.to_string())),
                },
            };
            match chunk {
                Ok(Some(chunk)) => self.inbox.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) if self.inbox.bytes.is_empty() => return Ok(None),
                Ok(None) => return Err(LinkError::Gone("the stream ended in the middle of a frame".into())),
                Err(ReadError::ConnectionLost(error)) => return lost(&error),
                Err(error) => return Err(LinkError::Gone(error.to_string())),
            }
        }
    }
}

/// Takes whatever else the client opens or sends, and drops it, until the connection ends. wtransport's queues hold few, and what is
/// not taken keeps its memory.
async fn refuse_the_rest(connection: &Connection) -> Result<Infallible, ConnectionError> {
    loop {
        tokio::select! {
            stream = connection.accept_uni() => stream?.stop(NOT_WANTED),
            stream = connection.accept_bi() => {
                let (mut send, receive) = stream?;
                receive.stop(NOT_WANTED);
                // Fails only for a stream that is closed already.
                let _ = send.reset(NOT_WANTED);
            }
            datagram = connection.receive_datagram() => drop(datagram?),
        }
    }
}

/// Whether the end of a connection was meant.
fn lost(error: &quinn::ConnectionError) -> Result<Option<ClientFrame>, LinkError> {
    match error {
        // A browser's close is a capsule, upon which wtransport closes the connection on our side.
        quinn::ConnectionError::LocallyClosed => Ok(None),
        quinn::ConnectionError::ApplicationClosed(close) if matches!(close.error_code.into_inner(), 0 | H3_NO_ERROR) => Ok(None),
        error => Err(LinkError::Gone(error.to_string())),
    }
}

/// Bytes that have come and are not yet frames. Holds no memory while it is empty, and never more than a frame and a read.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// What is before this has been taken.
    taken: usize,
}

impl Inbox {
    fn take(&mut self) -> Result<Option<ClientFrame>, CodecError> {
        let left = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((start, end)) = codec::find_frame(left)? else {
            self.bytes.drain(..self.taken);
            self.taken = 0;
            return Ok(None);
        };
        let frame = Form::Postcard.decode(left.get(start..end).unwrap_or_default())?;
        self.taken += end;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
        Ok(Some(frame))
    }
}

/// The frames that the client gets.
#[derive(Debug)]
pub struct WebTransportSink {
    connection: Connection,
    send: SendStream,
    out: Vec<u8>,
    /// What is before this has been handed to QUIC.
    sent: usize,
}

impl WebTransportSink {
    async fn write_out(&mut self) -> Result<(), WriteError> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // Cancel-safe: it either took bytes and says how many, or took none.
            self.sent += self.send.quic_stream_mut().write(rest).await?;
        }
        self.sent = 0;
        if self.out.capacity() > KEEP {
            self.out = Vec::new()
        } else {
            self.out.clear()
        }
        Ok(())
    }
}

impl FrameSink for WebTransportSink {
    fn queued(&self) -> usize {
        self.out.len() - self.sent
    }

    fn push(&mut self, frame: &ServerFrame) -> Result<(), CodecError> {
        codec::write_frame(frame, &mut self.out)
    }

    fn probe(&mut self) -> bool {
        // QUIC keeps the connection alive, and ends it when it is not.
        false
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.write_out().await.map_err(|error| LinkError::Gone(error.to_string()))
    }

    async fn close(mut self) {
        let orderly = async {
            if self.write_out().await.is_ok() && self.send.quic_stream_mut().finish().is_ok() {
                // The client closes when it has read to the end. If the server closed first, what is under way would be lost, and a
                // browser would not learn why.
                self.connection.closed().await;
            }
        };
        // Whoever does not close by then has had time to read; there is nothing else to do about it.
        let _ = timeout(CLOSE, orderly).await;
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use whimbrel_protocol::frame::Ping;

    fn ping(id: u32) -> ClientFrame {
        ClientFrame::Ping(Ping { id })
    }

    #[test]
    fn frames_come_out_whole_however_they_came_in() {
        let mut bytes = Vec::new();
        for id in 0..200 {
            codec::write_frame(&ping(id * 1000), &mut bytes).unwrap();
        }
        for step in [1, 2, 3, 7, 64, bytes.len()] {
            let (mut inbox, mut out) = (Inbox::default(), Vec::new());
            for chunk in bytes.chunks(step) {
                inbox.bytes.extend_from_slice(chunk);
                while let Some(frame) = inbox.take().unwrap() {
                    out.push(frame);
                }
            }
            assert_eq!(out, (0..200).map(|id| ping(id * 1000)).collect::<Vec<_>>());
            assert_eq!(inbox.bytes.capacity(), 0, "an idle inbox holds memory");
        }
    }

    #[test]
    fn a_frame_too_long_is_an_error_by_its_length_alone() {
        let mut inbox = Inbox { bytes: vec![0x81, 0x80, 0x04], taken: 0 };
        assert_eq!(inbox.take(), Err(CodecError::TooLong { len: codec::MAX_FRAME + 1, max: codec::MAX_FRAME }));
    }
}
