//! A session over WebTransport or over QUIC alone: its stream, on which each frame stands behind its length, queries on streams of their
//! own, and datagrams.

use super::asking::{Answered, Asked, Asking};
use super::quic::any_address;
use super::window::Windows;
use super::{LinkError, Received};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use whimbrel_protocol::codec::{CodecError, Form, find_frame, frames_in, write_frame};
use whimbrel_protocol::frame::{ClientFrame, Query, ServerFrame, ServerSignal, Signal};
use whimbrel_protocol::{Copies, Loss};

/// QUIC gives up on a silent path after this: longer than the longest silence that a server asks after. Our own probes notice sooner.
const IDLE_TIMEOUT_MS: u32 = 360_000;
/// What the server may send on the stream before we have read it: a few of the longest frames.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How long the server may take for what is queued when the client leaves.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Read from the stream at once.
const READ_SIZE: usize = 16 * 1024;
/// Datagrams that wait for us, or for the network: the oldest are dropped beyond this.
const DATAGRAM_BUFFER: usize = 16 * 1024;
/// How often the path is asked for its losses, at most.
const LOOK: Duration = Duration::from_millis(20);

/// How our connections behave, whatever runs in them.
pub(super) fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(quinn::VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .stream_receive_window(quinn::VarInt::from_u32(STREAM_WINDOW))
        .receive_window(quinn::VarInt::from_u32(4 * STREAM_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // As on the server: a phone would pay for them at each beginning, and has few long packets to send.
        .mtu_discovery_config(None)
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
    WebTransport { session: wtransport::Connection, _endpoint: wtransport::Endpoint<wtransport::endpoint::endpoint_side::Client> },
}

impl Carrier {
    pub(super) fn new(connection: quinn::Connection, local: Local) -> Self {
        Self { connection, local }
    }

    /// Opens a stream, once the server allows another.
    pub(super) async fn open(&self) -> Result<(SendHalf, RecvHalf), String> {
        match &self.local {
            Local::Quic(_) => {
                let (send, recv) = self.connection.open_bi().await.map_err(|why| why.to_string())?;
                Ok((SendHalf::Quic(send), RecvHalf::Quic(recv)))
            }
            Local::WebTransport { session, .. } => {
                let opening = session.open_bi().await.map_err(|why| why.to_string())?;
                let (send, recv) = opening.await.map_err(|why| why.to_string())?;
                Ok((SendHalf::WebTransport(send), RecvHalf::WebTransport(recv)))
            }
        }
    }

    async fn datagram(&self) -> Result<Bytes, LinkError> {
        match &self.local {
            Local::Quic(_) => self.connection.read_datagram().await.map_err(|why| LinkError::Gone(why.to_string())),
            Local::WebTransport { session, .. } => {
                session.receive_datagram().await.map(|datagram| datagram.payload()).map_err(|why| LinkError::Gone(why.to_string()))
            }
        }
    }

    /// The longest datagram that can be sent now; 0 if the server takes none.
    fn max_datagram(&self) -> usize {
        let most = match &self.local {
            Local::Quic(_) => self.connection.max_datagram_size(),
            Local::WebTransport { session, .. } => session.max_datagram_size(),
        };
        most.unwrap_or(0)
    }

    /// Sends a datagram, or does not: it is a hint.
    fn send_datagram(&self, bytes: Vec<u8>) {
        let sent = match &self.local {
            Local::Quic(_) => self.connection.send_datagram(bytes.into()).map_err(|why| why.to_string()),
            Local::WebTransport { session, .. } => session.send_datagram(bytes).map_err(|why| why.to_string()),
        };
        if let Err(why) = sent {
            tracing::trace!(why, "a datagram was not sent");
        }
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
    let (asking, asked) = Asking::new();
    let source =
        Source { recv, read: Vec::new(), hints: VecDeque::new(), asked, answers: FuturesUnordered::new(), carrier: Arc::clone(&carrier) };
    let now = Instant::now();
    let path = Path { loss: Loss::default(), looked: now };
    let sink = Sink { send, waiting: Vec::new(), sent: 0, asking, path, copies: Copies::default(), epoch: now, carrier };
    (source, sink)
}

pub(super) enum SendHalf {
    WebTransport(wtransport::SendStream),
    Quic(quinn::SendStream),
}

impl SendHalf {
    pub(super) fn quic(&mut self) -> &mut quinn::SendStream {
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
    pub(super) fn quic(&mut self) -> &mut quinn::RecvStream {
        match self {
            Self::WebTransport(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Answered, LinkError>> + Send>>;

pub(crate) struct Source {
    recv: RecvHalf,
    read: Vec<u8>,
    /// What came in the last datagram.
    hints: VecDeque<ServerFrame>,
    /// Queries that were asked on streams of their own …
    asked: mpsc::UnboundedReceiver<Asked>,
    /// … and their answers.
    answers: FuturesUnordered<Answering>,
    carrier: Arc<Carrier>,
}

impl Source {
    pub async fn next(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some((start, end)) = find_frame(&self.read)? {
                let frame = self.read.get(start..end).map(|bytes| Form::Postcard.decode(bytes)).transpose()?;
                self.read.drain(..end);
                return Ok(frame.map(Received::Frame));
            }
            if let Some(hint) = self.hints.pop_front() {
                return Ok(Some(Received::Hint(hint)));
            }
            // All are cancel-safe. The stream goes first, so that what came before a close is read.
            tokio::select! {
                biased;
                chunk = self.recv.quic().read_chunk(READ_SIZE, true) => match chunk {
                    Ok(Some(chunk)) => self.read.extend_from_slice(&chunk.bytes),
                    Ok(None) => return Ok(None),
                    Err(why) => {
                        let reason = self.carrier.connection.close_reason();
                        return Err(LinkError::Gone(reason.map_or_else(|| why.to_string(), |reason| reason.to_string())));
                    }
                },
                Some(answered) = self.answers.next() => match answered? {
                    Answered::Part(frame, more) => {
                        if let Some(asked) = more {
                            self.answers.push(Box::pin(asked.next()));
                        }
                        return Ok(Some(Received::Frame(*frame)));
                    }
                    Answered::Not(id) => return Ok(Some(Received::Unanswered(id))),
                },
                Some(asked) = self.asked.recv() => self.answers.push(Box::pin(asked.next())),
                datagram = self.carrier.datagram() => {
                    let hint = |frame: &ServerFrame| {
                        matches!(frame, ServerFrame::Event(_) | ServerFrame::Signal(ServerSignal::Typing(_)))
                    };
                    self.hints.extend(frames_in(&datagram?).filter(hint));
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
    asking: Asking,
    path: Path,
    copies: Copies,
    /// The zero of the time that `copies` is told.
    epoch: Instant,
    carrier: Arc<Carrier>,
}

/// What is known of the way to the server.
struct Path {
    loss: Loss,
    looked: Instant,
}

impl Sink {
    pub fn queued(&self) -> usize {
        self.waiting.len() - self.sent
    }

    /// Whether [`flush`](Self::flush) has something to do.
    pub fn has_work(&self) -> bool {
        self.queued() > 0 || !self.asking.is_idle() || self.due().is_some_and(|due| due <= Instant::now())
    }

    /// When [`flush`](Self::flush) has something to do although nothing was pushed.
    pub fn due(&self) -> Option<Instant> {
        self.copies.poll_timeout().map(|due| self.epoch + due)
    }

    /// Goes on from another socket.
    pub fn rebind(&mut self) -> bool {
        self.path.loss.on_other_path(self.epoch.elapsed(), self.carrier.connection.rtt());
        self.carrier.rebind()
    }

    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), CodecError> {
        // Who is told late that somebody types is better not told.
        if matches!(frame, ClientFrame::Signal(Signal::Typing(_))) && self.send_alone(frame)? {
            return Ok(());
        }
        let before = self.waiting.len();
        write_frame(frame, &mut self.waiting)?;
        if matches!(frame, ClientFrame::Command(_)) {
            let now = Instant::now();
            let copies = self.copies(now);
            self.copies.push(self.waiting.get(before..).unwrap_or_default(), copies, now - self.epoch);
        }
        Ok(())
    }

    /// Asks on a stream of its own.
    pub fn ask(&mut self, query: Query) -> Result<(), CodecError> {
        self.asking.ask(query)
    }

    /// How many copies the losses of the path ask for, as of a moment ago.
    fn copies(&mut self, now: Instant) -> usize {
        if now.duration_since(self.path.looked) >= LOOK {
            self.path.looked = now;
            let counts = self.carrier.connection.stats().path;
            self.path.loss.on_counts(now - self.epoch, counts.sent_packets, counts.lost_packets);
        }
        self.path.loss.copies()
    }

    /// Sends a frame in a datagram; `false` if it does not fit, or the server takes none.
    fn send_alone(&self, frame: &ClientFrame) -> Result<bool, CodecError> {
        let mut bytes = Vec::new();
        write_frame(frame, &mut bytes)?;
        let fits = bytes.len() <= self.carrier.max_datagram();
        if fits {
            self.carrier.send_datagram(bytes);
        }
        Ok(fits)
    }

    fn send_copies(&mut self) {
        if self.copies.poll_timeout().is_none() {
            return;
        }
        let most = self.carrier.max_datagram();
        while let Some(copies) = self.copies.poll_transmit(self.epoch.elapsed(), most) {
            self.carrier.send_datagram(copies);
        }
    }

    pub async fn flush(&mut self) -> Result<(), LinkError> {
        self.send_copies();
        poll_fn(|context| {
            // Queries wait for the server to allow another stream; nothing waits for them.
            let asked = self.asking.poll_flush(context, &self.carrier)?;
            ready!(self.poll_write(context))?;
            asked.map(Ok)
        })
        .await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let Poll::Ready(written) = Pin::new(self.send.quic()).poll_write(context, rest) else {
                // A buffer that is never empty would grow for ever.
                if self.sent >= READ_SIZE {
                    self.waiting.drain(..self.sent);
                    self.sent = 0;
                }
                return Poll::Pending;
            };
            self.sent += written.map_err(|why| LinkError::Gone(why.to_string()))?;
        }
        self.waiting.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    pub async fn close(mut self) {
        let leave = async {
            // It fails only for a stream that is closed already.
            if poll_fn(|context| self.poll_write(context)).await.is_ok() && self.send.quic().finish().is_ok() {
                // Returns once the server has everything.
                let _ = self.send.quic().stopped().await;
            }
        };
        // Whoever does not take it in time is left alone: everything that matters comes again in the next session.
        let _ = timeout(CLOSE_TIMEOUT, leave).await;
        drop(self.carrier);
    }
}
