//! One device on bare frames: it says hello, takes its mailbox in order, and acknowledges as the SDK does.

use super::BenchError;
use futures_util::FutureExt;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_client::frames::{Dialer, Sink, Source};
use whimbrel_protocol::frame::{Ack, Begin, ClientFrame, Error, Event, Hello, Origin, Position, ServerFrame, Welcome};
use whimbrel_protocol::{ACK_DELAY, ACK_EVENTS, DeviceId, ErrorCode, Incarnation, MailboxSeq, Time, UserId, VERSION_MAX, VERSION_MIN};

/// Frames taken before what goes out is looked at.
const FRAMES_AT_ONCE: usize = 256;

/// A device with a session.
pub(super) struct Peer {
    source: Source,
    sink: Sink,
    /// What the server said of it.
    pub welcome: Welcome,
    cursor: MailboxSeq,
    acked: MailboxSeq,
    /// The time of the entry at the cursor.
    time: Time,
    /// When an acknowledgement is due.
    ack_at: Option<Instant>,
}

/// What came, apart from what the peer sees to itself.
#[derive(Debug)]
pub(super) enum Came {
    /// Every command up to this one is durable.
    Applied(u64),
    /// The next event of the mailbox.
    Event(Event),
}

impl Peer {
    /// Connects and enters, at the present. If the server puts it off, it comes when it is told to.
    pub async fn enter(dialer: &Dialer, user: &UserId) -> Result<Self, BenchError> {
        Self::enter_with(dialer, hello(user)?).await
    }

    /// Connects again, and goes on after what it has.
    pub async fn come_back(self, dialer: &Dialer) -> Result<Self, BenchError> {
        let position = Some(Position { epoch: self.welcome.epoch, cursor: self.cursor, time: self.time });
        drop((self.source, self.sink));
        Self::enter_with(dialer, Hello { position, incarnation: self.welcome.incarnation, ..hello(&self.welcome.user)? }).await
    }

    async fn enter_with(dialer: &Dialer, hello: Hello) -> Result<Self, BenchError> {
        loop {
            let (mut source, mut sink) = dialer.dial().await?;
            sink.push(&ClientFrame::Hello(hello.clone()))?;
            sink.flush().await?;
            match source.next().await? {
                Some(ServerFrame::Welcome(welcome)) => {
                    let Begin { cursor, time, .. } = welcome.begin;
                    return Ok(Self { source, sink, welcome, cursor, acked: cursor, time, ack_at: None });
                }
                Some(ServerFrame::Error(Error { code: ErrorCode::Overloaded, retry_after_ms, .. })) => {
                    sink.close().await;
                    sleep(Duration::from_millis(retry_after_ms.into())).await;
                }
                other => return Err(unexpected("Welcome", other)),
            }
        }
    }

    /// Queues a frame; the next [`turn`](Self::turn) sends it.
    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), BenchError> {
        Ok(self.sink.push(frame)?)
    }

    /// Sends what is queued and takes what has come, waiting for the first until `until`.
    pub async fn turn(&mut self, until: Instant, mut take: impl FnMut(Came) -> Result<(), BenchError>) -> Result<(), BenchError> {
        loop {
            let wake = self.ack_at.map_or(until, |at| at.min(until));
            tokio::select! {
                biased;
                flushed = self.sink.flush(), if self.sink.queued() > 0 => flushed?,
                frame = self.source.next() => {
                    self.take(frame?, &mut take)?;
                    for _ in 1..FRAMES_AT_ONCE {
                        match self.source.next().now_or_never() {
                            Some(frame) => self.take(frame?, &mut take)?,
                            None => break,
                        }
                    }
                    if self.cursor.0 - self.acked.0 >= ACK_EVENTS {
                        self.acknowledge()?;
                    } else if self.cursor > self.acked && self.ack_at.is_none() {
                        self.ack_at = Some(Instant::now() + ACK_DELAY);
                    }
                    return Ok(());
                }
                () = sleep_until(wake) => {
                    if self.ack_at.is_some_and(|at| at <= Instant::now()) {
                        self.acknowledge()?;
                    }
                    if until <= Instant::now() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn take(&mut self, frame: Option<ServerFrame>, take: &mut impl FnMut(Came) -> Result<(), BenchError>) -> Result<(), BenchError> {
        match frame {
            Some(ServerFrame::Event(event)) => {
                if event.seq != self.cursor.next() {
                    let why = format!("the mailbox has a gap or a double: entry {} came after {}", event.seq, self.cursor);
                    return Err(BenchError::Failed(why));
                }
                (self.cursor, self.time) = (event.through(), event.time);
                take(Came::Event(event))
            }
            Some(ServerFrame::Applied(applied)) => take(Came::Applied(applied.cseq.0)),
            Some(ServerFrame::Ping(ping)) => self.push(&ClientFrame::Pong(ping)),
            Some(ServerFrame::Signal(_) | ServerFrame::Pong(_)) => Ok(()),
            other => Err(unexpected("an event", other)),
        }
    }

    fn acknowledge(&mut self) -> Result<(), BenchError> {
        self.acked = self.cursor;
        self.ack_at = None;
        self.push(&ClientFrame::Ack(Ack { seq: self.cursor }))
    }

    /// Leaves in an orderly way.
    pub async fn close(self) {
        self.sink.close().await;
    }
}

/// What a device of `user` says that was never here, to begin at the present.
pub(super) fn hello(user: &UserId) -> Result<Hello, BenchError> {
    Ok(Hello {
        min_version: VERSION_MIN,
        max_version: VERSION_MAX,
        user: user.clone(),
        device: DeviceId::new("bench").map_err(|why| BenchError::Failed(why.to_string()))?,
        token: String::new(),
        agent: concat!("whimbrel-bench/", env!("CARGO_PKG_VERSION")).into(),
        instance: Default::default(),
        attempt: 0,
        incarnation: Incarnation(0),
        position: None,
        origin: Origin::Now,
        extensions: Vec::new(),
    })
}

fn unexpected(wanted: &str, came: Option<ServerFrame>) -> BenchError {
    BenchError::Failed(match came {
        None => format!("the server closed a connection where {wanted} was expected"),
        Some(ServerFrame::Error(error)) => format!("the server ended a session: {} ({})", error.message, error.code),
        Some(other) => format!("instead of {wanted} came {other:?}"),
    })
}
