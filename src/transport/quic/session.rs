//! A session: the client's stream, the queries that have streams of their own, and datagrams, as a source and a sink of frames.

use super::asked::{Answers, Asked, NoQuery, read_query};
use super::carrier::{Beside, Carrier, End, ReceiveHalf, SendHalf};
use super::path::Path;
use crate::transport::{Early, FrameSink, FrameSource, LinkError, Peer, Received};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{ReadError, WriteError};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use whimbrel_protocol::codec::{self, CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, Query, ServerFrame, ServerSignal, Signal};
use whimbrel_protocol::{Copies, TransportKind};

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
        let asked = Asked::default();
        let source = QuicSource {
            remote: self.carrier.remote_addr(),
            carrier: self.carrier.clone(),
            receive: self.receive,
            inbox: Inbox::default(),
            hints: VecDeque::new(),
            asking: FuturesUnordered::new(),
            asked: asked.clone(),
        };
        (source, QuicSink::new(self.carrier, self.send, asked))
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<(Query, SendHalf), NoQuery>> + Send>>;

/// The frames that the client sends.
#[derive(Debug)]
pub struct QuicSource {
    carrier: Carrier,
    /// Where the client was when something came last.
    remote: SocketAddr,
    receive: ReceiveHalf,
    inbox: Inbox,
    /// What came in the last datagram.
    hints: VecDeque<ClientFrame>,
    /// Streams whose query is being read: as many as the client may have open.
    asking: FuturesUnordered<Asking>,
    asked: Asked,
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
    async fn next(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(Some(frame.into()));
            }
            if let Some(frame) = self.hints.pop_front() {
                return Ok(Some(Received { frame, hint: true }));
            }
            // All are cancel-safe: quinn hands over bytes only with the result, and what is refused is not missed. The stream goes
            // first, so that what came before a close is read.
            let chunk = tokio::select! {
                biased;
                chunk = self.receive.quic().read_chunk(READ, true) => chunk,
                Some(query) = self.asking.next() => match query {
                    Ok((query, stream)) => {
                        self.asked.put(query.id, stream);
                        return Ok(Some(ClientFrame::Query(query).into()));
                    }
                    Err(NoQuery(mut stream)) => {
                        stream.refuse();
                        continue;
                    }
                },
                beside = self.carrier.beside() => match beside {
                    Ok(Beside::Stream(send, receive)) => {
                        self.asking.push(Box::pin(read_query(send, receive)));
                        continue;
                    }
                    Ok(Beside::Datagram(bytes)) => {
                        let hint = |frame: &ClientFrame| matches!(frame, ClientFrame::Command(_) | ClientFrame::Signal(Signal::Typing(_)));
                        self.hints.extend(codec::frames_in(&bytes).filter(hint));
                        self.look_where_it_is();
                        continue;
                    }
                    Err(end) => return ended(end),
                },
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

fn ended(end: End) -> Result<Option<Received>, LinkError> {
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
    answers: Answers,
    path: Path,
    copies: Copies,
    /// The zero of the time that `copies` is told.
    epoch: Instant,
}

/// Gives back the room of what was sent, once it is much: a buffer that is never empty would grow for ever.
pub(super) fn give_back(out: &mut Vec<u8>, sent: &mut usize) {
    if *sent >= READ {
        out.drain(..*sent);
        *sent = 0;
    }
}

impl QuicSink {
    fn new(carrier: Carrier, send: SendHalf, asked: Asked) -> Self {
        let now = Instant::now();
        let answers = Answers::new(asked, now);
        let path = Path::new(&carrier, now);
        Self { carrier, send, out: Vec::new(), sent: 0, answers, path, copies: Copies::default(), epoch: now }
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(self.send.quic()).poll_write(context, rest) {
                Poll::Ready(Ok(written)) => self.sent += written,
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Pending => {
                    give_back(&mut self.out, &mut self.sent);
                    return Poll::Pending;
                }
            }
        }
        self.sent = 0;
        if self.out.capacity() > KEEP {
            self.out = Vec::new()
        } else {
            self.out.clear()
        }
        Poll::Ready(Ok(()))
    }

    fn send_copies(&mut self) {
        if self.copies.poll_timeout().is_none() {
            return;
        }
        let most = self.carrier.max_datagram().unwrap_or(0);
        while let Some(copies) = self.copies.poll_transmit(self.epoch.elapsed(), most) {
            metrics::counter!("whimbrel_copies_total").increment(1);
            self.carrier.send_datagram(copies);
        }
    }

    /// Sends a frame in a datagram; `false` if it does not fit, or the client takes none.
    fn send_alone(&self, frame: &ServerFrame) -> Result<bool, CodecError> {
        let mut bytes = Vec::new();
        codec::write_frame(frame, &mut bytes)?;
        let fits = self.carrier.max_datagram().is_some_and(|most| bytes.len() <= most);
        if fits {
            self.carrier.send_datagram(bytes);
        }
        Ok(fits)
    }
}

impl FrameSink for QuicSink {
    fn queued(&self) -> usize {
        self.out.len() - self.sent
    }

    fn answers_queued(&self) -> usize {
        self.answers.queued() + self.queued()
    }

    fn due(&self) -> Option<Instant> {
        let copies = self.copies.poll_timeout().map(|due| self.epoch + due);
        copies.into_iter().chain(self.answers.due()).min()
    }

    fn push(&mut self, frame: &ServerFrame) -> Result<(), CodecError> {
        match frame {
            ServerFrame::Answer(answer) if self.answers.push(answer, frame)? => return Ok(()),
            // Who is told late that somebody types is better not told.
            ServerFrame::Signal(ServerSignal::Typing(_)) if self.send_alone(frame)? => return Ok(()),
            _ => {}
        }
        let before = self.out.len();
        codec::write_frame(frame, &mut self.out)?;
        if matches!(frame, ServerFrame::Event(_)) {
            let now = Instant::now();
            let copies = self.path.copies(now, &self.carrier);
            self.copies.push(self.out.get(before..).unwrap_or_default(), copies, now - self.epoch);
        }
        Ok(())
    }

    fn probe(&mut self) -> bool {
        // QUIC's own are answered by the client's library, and nobody here hears of it.
        false
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.send_copies();
        poll_fn(|context| {
            // The session's stream goes first. Nothing waits for the answers: their time comes again.
            let written = self.poll_write_out(context);
            self.answers.write(context, Instant::now(), self.carrier.quic());
            written
        })
        .await
        .map_err(|error| LinkError::Gone(error.to_string()))
    }

    async fn close(mut self) {
        let orderly = async {
            if poll_fn(|context| self.poll_write_out(context)).await.is_ok() && self.send.quic().finish().is_ok() {
                // The client closes when it has read to the end. If the server closed first, what is under way would be lost, and a
                // browser would not learn why.
                self.carrier.quic().closed().await;
            }
        };
        // Whoever does not close by then has had time to read; there is nothing else to do about it.
        let _ = timeout(CLOSE, orderly).await;
        self.carrier.close();
        self.path.end(&self.carrier);
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
