//! A session: the client's one stream, as a source and a sink of frames.

use super::carrier::{Carrier, End, ReceiveHalf, SendHalf};
use crate::transport::{Early, FrameSink, FrameSource, LinkError, Peer};
use quinn::{ReadError, WriteError};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use whimbrel_protocol::TransportKind;
use whimbrel_protocol::codec::{self, CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

/// The most that is read at once, beyond a frame that is being put together.
const READ: usize = 16 * 1024;
/// A buffer for sending that has grown larger is given back when it is empty.
const KEEP: usize = 512;
/// How long a close may take to send what is queued and to hear the client's own close.
const CLOSE: Duration = Duration::from_secs(1);

/// A session whose client has opened its stream.
#[derive(Debug)]
pub struct QuicSession {
    carrier: Carrier,
    send: SendHalf,
    receive: ReceiveHalf,
    early: Option<Early>,
}

impl QuicSession {
    pub(super) fn new(carrier: Carrier, send: SendHalf, receive: ReceiveHalf) -> Self {
        Self { carrier, send, receive, early: None }
    }

    /// A session whose handshake is not over.
    pub(super) fn before(self, early: Early) -> Self {
        Self { early: Some(early), ..self }
    }

    /// Who it is with.
    pub fn peer(&mut self) -> Peer {
        Peer { kind: self.kind(), remote: self.remote_addr(), early: self.early.take() }
    }

    /// WebTransport, or QUIC alone.
    #[must_use]
    pub fn kind(&self) -> TransportKind {
        self.carrier.kind()
    }

    /// Where the client is now: it may move.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.carrier.remote_addr()
    }

    /// Both halves. The connection ends when both are dropped.
    #[must_use]
    pub fn split(self) -> (QuicSource, QuicSink) {
        let source = QuicSource {
            remote: self.carrier.remote_addr(),
            carrier: self.carrier.clone(),
            receive: self.receive,
            inbox: Inbox::default(),
        };
        let sink = QuicSink { carrier: self.carrier, send: self.send, out: Vec::new(), sent: 0 };
        (source, sink)
    }
}

/// The frames that the client sends.
#[derive(Debug)]
pub struct QuicSource {
    carrier: Carrier,
    /// Where the client was when something came last.
    remote: SocketAddr,
    receive: ReceiveHalf,
    inbox: Inbox,
}

impl QuicSource {
    /// Where the client is now: it may move.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.carrier.remote_addr()
    }

    /// QUIC follows a client that moves, and validates its new path, without a word: this is where it is seen.
    fn look_where_it_is(&mut self) {
        let remote = self.carrier.remote_addr();
        if remote == self.remote {
            return;
        }
        let (from, transport) = (std::mem::replace(&mut self.remote, remote), self.carrier.kind());
        // The same address with another port is a NAT that forgot; another address is another network.
        let what = if from.ip() == remote.ip() { "port" } else { "address" };
        metrics::counter!("whimbrel_migrations_total", "transport" => transport.name(), "changed" => what).increment(1);
        tracing::info!(%from, to = %remote, %transport, "a client moved");
    }
}

impl FrameSource for QuicSource {
    async fn next(&mut self) -> Result<Option<ClientFrame>, LinkError> {
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(Some(frame));
            }
            // Both are cancel-safe: quinn hands over bytes only with the result, and what is refused is not missed. The stream goes
            // first, so that what came before a close is read.
            let chunk = tokio::select! {
                biased;
                chunk = self.receive.quic().read_chunk(READ, true) => chunk,
                end = self.carrier.refuse_the_rest() => return ended(end),
            };
            match chunk {
                Ok(Some(chunk)) => {
                    self.inbox.bytes.extend_from_slice(&chunk.bytes);
                    self.look_where_it_is();
                }
                Ok(None) if self.inbox.bytes.is_empty() => return Ok(None),
                Ok(None) => return Err(LinkError::Gone("the stream ended in the middle of a frame".into())),
                Err(ReadError::ConnectionLost(error)) => return ended(End::of(&error)),
                Err(error) => return Err(LinkError::Gone(error.to_string())),
            }
        }
    }
}

fn ended(end: End) -> Result<Option<ClientFrame>, LinkError> {
    match end {
        End::Closed => Ok(None),
        End::Lost(why) => Err(LinkError::Gone(why)),
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
pub struct QuicSink {
    carrier: Carrier,
    send: SendHalf,
    out: Vec<u8>,
    /// What is before this has been handed to QUIC.
    sent: usize,
}

impl QuicSink {
    async fn write_out(&mut self) -> Result<(), WriteError> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // Cancel-safe: it either took bytes and says how many, or took none.
            self.sent += self.send.quic().write(rest).await?;
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

impl FrameSink for QuicSink {
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
            if self.write_out().await.is_ok() && self.send.quic().finish().is_ok() {
                // The client closes when it has read to the end. If the server closed first, what is under way would be lost, and a
                // browser would not learn why.
                self.carrier.quic().closed().await;
            }
        };
        // Whoever does not close by then has had time to read; there is nothing else to do about it.
        let _ = timeout(CLOSE, orderly).await;
        self.carrier.close();
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
