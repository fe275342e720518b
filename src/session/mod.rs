//! One device's stay: the handshake, then frames in and frames out, until one side leaves.
//!
//! A session is a cursor. What it sends is read from the log after that cursor, whether it was appended a week or a moment ago; the
//! hub only says when to look. A session whose peer takes nothing stops reading the log and holds at most [`QUEUE_BYTES`] and what one
//! read gave; it always goes on taking frames in, so that acknowledgements are never stuck.

mod admission;
mod beginning;
pub(crate) mod commands;
mod silence;
mod stay;

use crate::engine::{End, Engine, Entered, SessionHandle, SnapshotCursor, SnapshotPage, Viewer};
use crate::transport::{FrameSink, FrameSource, LinkError, Peer, Received};
pub use admission::Admission;
pub(crate) use admission::Admitted;
use beginning::Waiting;
use commands::Commands;
use futures_util::FutureExt;
use silence::{Silence, Silent};
use stay::Stay;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};
use whimbrel_protocol::codec::{CodecError, Form};
use whimbrel_protocol::frame::{
    Answer, AnswerBody, Applied, ClientFrame, ClientState, Command, Endpoint, Error, Event, Hello, Ping, Query, ServerFrame, Signal,
};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, ErrorCode, MailboxSeq, QUERIES_MAX, QueryId, TransportKind, UserId};

/// `Hello` is due within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A session stops reading the log while this many bytes wait for its peer.
pub const QUEUE_BYTES: usize = 32 * 1024;
/// Beyond that, room for what is short and urgent.
pub const URGENT_BYTES: usize = 1024;
/// How long a peer that was told to go may take to close.
const FAREWELL: Duration = Duration::from_secs(1);
/// Frames taken in before the session looks at what goes out.
const FRAMES_AT_ONCE: usize = 64;

/// Says who a client is, from its hello.
pub type Authenticate = dyn Fn(&Hello) -> Result<UserId, Error> + Send + Sync;
/// Says where else the server can be reached, now: certificates change.
pub type Endpoints = dyn Fn() -> Vec<Endpoint> + Send + Sync;

/// What every session needs to know of the server.
pub struct Context {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Where else the server can be reached.
    pub endpoints: Box<Endpoints>,
    /// Says who a client is.
    pub auth: Box<Authenticate>,
    /// Who may begin a session.
    pub admission: Admission,
}

/// Serves one connection until it ends.
pub async fn serve<I: FrameSource, O: FrameSink>(context: Arc<Context>, peer: Peer, source: I, sink: O) {
    serve_at(None, context, peer, source, sink).await;
}

/// The same for one that may have a place among the sessions already.
pub(crate) async fn serve_at<I: FrameSource, O: FrameSink>(
    place: Option<Arc<Admitted>>,
    context: Arc<Context>,
    peer: Peer,
    mut source: I,
    mut sink: O,
) {
    let Peer { kind, remote, early } = peer;
    let hello = match timeout(HELLO_TIMEOUT, beginning::first(&mut source)).await {
        Ok(Ok(Some(ClientFrame::Hello(hello)))) => hello,
        Ok(Ok(Some(_))) => return refuse(source, sink, error(ErrorCode::Malformed, "the first frame must be Hello")).await,
        Ok(Err(LinkError::Codec(why))) => return refuse(source, sink, codec_error(&why)).await,
        Ok(Ok(None) | Err(LinkError::Gone(_))) => return sink.close().await,
        Err(_) => return refuse(source, sink, error(ErrorCode::HelloTimeout, "no Hello came within 10 seconds")).await,
    };
    // Who it says that it is, unproved: it takes nobody's place before that is looked at.
    let takes_over = context.engine.hub().has(&hello.user, &hello.device);
    let _admitted = match context.admission.ask(takes_over, place) {
        Ok(admitted) => admitted,
        Err(later) => {
            metrics::counter!("whimbrel_sessions_put_off_total").increment(1);
            tracing::debug!(%remote, transport = %kind, user = %hello.user, "put off");
            return tell(source, sink, later.into()).await;
        }
    };
    let (entered, waiting) = match beginning::enter(&context, &hello, early).await {
        Ok(both) => both,
        Err(error) => {
            tracing::info!(%remote, transport = %kind, user = %hello.user, code = %error.code, why = error.message, "refused");
            return refuse(source, sink, error).await;
        }
    };
    let stay = Stay::begin(context.engine.clone(), entered.session.clone(), kind);
    let (user, device, early) = (&stay.session.user_id, &hello.device, waiting.is_some());
    tracing::info!(%remote, transport = %kind, %user, %device, agent = hello.agent, cursor = %entered.begin.cursor, early, "came");

    let end = match sink.push(&ServerFrame::Welcome(beginning::welcome(&context, &entered))) {
        Ok(()) => {
            Pump::new(context.engine.clone(), kind, ClientState::in_hello(&hello), entered, waiting).run(&mut source, &mut sink).await
        }
        Err(why) => Ended::Broken(why.to_string()),
    };

    tracing::info!(%remote, transport = %kind, %user, %device, why = %end, "left");
    drop(stay);
    match end {
        Ended::Refused(error) => refuse(source, sink, error).await,
        _ => close(source, sink).await,
    }
}

/// Says why, and closes.
async fn refuse<I: FrameSource, O: FrameSink>(source: I, sink: O, error: Error) {
    metrics::counter!("whimbrel_session_errors_total", "code" => error.code.to_string()).increment(1);
    tell(source, sink, ServerFrame::Error(error)).await;
}

/// Says a last word, and closes.
async fn tell<I: FrameSource, O: FrameSink>(source: I, mut sink: O, word: ServerFrame) {
    if let Err(why) = sink.push(&word) {
        tracing::warn!(%why, "a last word could not be told");
    }
    close(source, sink).await;
}

/// Closes, and reads on for a while: TCP resets a connection that is closed while something unread lies there, and systems other than
/// Linux may then forget what was said last. After bytes that are no frame nothing more can be read, and Linux has to do.
async fn close<I: FrameSource, O: FrameSink>(mut source: I, sink: O) {
    let read_on = async { while let Ok(Some(_)) = source.next().await {} };
    tokio::join!(sink.close(), async { drop(timeout(FAREWELL, read_on).await) });
}

fn error(code: ErrorCode, message: impl Into<String>) -> Error {
    Error { code, message: message.into(), retry_after_ms: 0 }
}

fn codec_error(why: &CodecError) -> Error {
    let code = match why {
        CodecError::TooLong { .. } => ErrorCode::FrameTooLong,
        _ => ErrorCode::Malformed,
    };
    error(code, why.to_string())
}

/// Why a session ended.
enum Ended {
    /// The client closed.
    Closed,
    /// The connection broke.
    Broken(String),
    /// The server ended it; the client is to be told.
    Refused(Error),
    /// The server leaves; the client was told.
    Away,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the client"),
            Self::Broken(why) => f.write_str(why),
            Self::Refused(error) => write!(f, "{}: {}", error.code, error.message),
            Self::Away => f.write_str("the server is going down"),
        }
    }
}

/// What a session reads of its log in the background; one thing at a time.
enum Read {
    Events(Result<Vec<Event>, Error>),
    Snapshot(Result<SnapshotPage, Error>),
}

/// The state of a session between two awaits.
struct Pump {
    engine: Arc<Engine>,
    session: Arc<SessionHandle>,
    viewer: Viewer,
    commands: Commands,
    /// Where the events begin: who acknowledges this has the snapshot before it, if there was one.
    begin: MailboxSeq,
    /// Highest event handed to the sink.
    sent: MailboxSeq,
    /// Highest `Applied` handed to the sink.
    answered: CommandSeq,
    snapshot: Option<SnapshotCursor>,
    /// What the pages of the snapshot held, until the device has acknowledged it: 16 bytes a conversation.
    holds: Vec<(ConversationId, ConversationSeq)>,
    queries: std::collections::VecDeque<Query>,
    /// Answers that wait for room, for the query that is being answered.
    answers: std::vec::IntoIter<AnswerBody>,
    answering: QueryId,
    /// The answer to `answering` is being read.
    asking: Option<JoinHandle<Vec<AnswerBody>>>,
    reading: Option<JoinHandle<Read>>,
    pong: Option<Ping>,
    silence: Silence,
    /// The handshake is not over.
    waiting: Option<Waiting>,
}

impl Pump {
    fn new(engine: Arc<Engine>, kind: TransportKind, state: ClientState, entered: Entered, waiting: Option<Waiting>) -> Self {
        let session = entered.session;
        let viewer = Viewer {
            device: session.device,
            user: session.user_id.clone(),
            incarnation: session.incarnation,
            full_names: kind.form() == Form::Json,
        };
        Self {
            engine,
            viewer,
            commands: Commands::new(session.incarnation, entered.arrival.applied),
            begin: entered.begin.cursor,
            sent: entered.begin.cursor,
            answered: entered.arrival.applied,
            snapshot: entered.snapshot,
            holds: Vec::new(),
            queries: Default::default(),
            answers: Vec::new().into_iter(),
            answering: QueryId(0),
            asking: None,
            reading: None,
            pong: None,
            silence: Silence::new(kind, state, Instant::now()),
            waiting,
            session,
        }
    }

    async fn run<I: FrameSource, O: FrameSink>(mut self, source: &mut I, sink: &mut O) -> Ended {
        match self.pump(source, sink).await {
            Ok(ended) | Err(ended) => {
                if let Some(reading) = self.reading.take() {
                    reading.abort();
                }
                if let Some(asking) = self.asking.take() {
                    asking.abort();
                }
                ended
            }
        }
    }

    async fn pump<I: FrameSource, O: FrameSink>(&mut self, source: &mut I, sink: &mut O) -> Result<Ended, Ended> {
        loop {
            match self.session.end() {
                Some(End::Error(error)) => return Ok(Ended::Refused(error.clone())),
                Some(End::GoAway(away)) => {
                    push(sink, &ServerFrame::GoAway(away.clone()))?;
                    return Ok(Ended::Away);
                }
                None => {}
            }
            self.fill(sink)?;
            let silence_ends = self.silence.due();
            let due = sink.due();
            tokio::select! {
                biased;
                frame = source.next() => {
                    self.take(frame)?;
                    // What has already arrived is taken together: one wake of the committer and one write serve it all.
                    for _ in 1..FRAMES_AT_ONCE {
                        match source.next().now_or_never() {
                            Some(frame) => self.take(frame)?,
                            None => break,
                        }
                    }
                    self.silence.on_heard(Instant::now());
                    // A peer that never pauses must not keep its own answers from going out.
                    if let Some(flushed) = sink.flush().now_or_never() {
                        flushed.map_err(|why| Ended::Broken(why.to_string()))?;
                    }
                }
                flushed = sink.flush(), if sink_has_work(sink) => {
                    flushed.map_err(|why| Ended::Broken(why.to_string()))?;
                }
                read = wait(&mut self.reading) => {
                    let read = read.map_err(|panic| Ended::Refused(error(ErrorCode::Internal, format!("a read failed: {panic}"))))?;
                    self.take_read(read, sink)?;
                }
                answers = wait(&mut self.asking) => {
                    self.asking = None;
                    let failed = |panic| Ended::Refused(error(ErrorCode::Internal, format!("a query failed: {panic}")));
                    self.answers = answers.map_err(failed)?.into_iter();
                }
                entered = Waiting::over(&mut self.waiting) => self.on_entered(entered),
                () = self.session.woken() => {}
                () = sleep_until(due.unwrap_or(silence_ends).min(silence_ends)) => {
                    match self.silence.check(Instant::now()) {
                        Silent::Ask if sink.probe() => {}
                        Silent::Wait => {}
                        Silent::Ask | Silent::AskAloud => push(sink, &ServerFrame::Ping(Ping { id: 0 }))?,
                        Silent::Dead => return Ok(Ended::Refused(error(ErrorCode::Idle, "nothing was heard for too long"))),
                    }
                }
            }
        }
    }

    /// Hands the sink what it has room for, what is short and urgent first.
    fn fill<O: FrameSink>(&mut self, sink: &mut O) -> Result<(), Ended> {
        // Even these wait for a peer that takes nothing: each stands for all before it, so none piles up.
        if sink.queued() < QUEUE_BYTES + URGENT_BYTES {
            let applied = self.session.applied();
            if applied > self.answered {
                self.answered = applied;
                push(sink, &ServerFrame::Applied(Applied { cseq: applied }))?;
            }
            if let Some(busy) = self.commands.take_busy() {
                push(sink, &ServerFrame::Busy(busy))?;
            }
            if let Some(pong) = self.pong.take() {
                push(sink, &ServerFrame::Pong(pong))?;
            }
        }
        while sink.queued() < QUEUE_BYTES {
            if let Some(signal) = self.session.take_signal() {
                push(sink, &ServerFrame::Signal(signal))?;
            } else if !self.read_on(sink)? {
                break;
            }
        }
        // What was asked for comes after what is new.
        while sink.answers_queued() < QUEUE_BYTES {
            let Some(body) = self.answers.next() else { break };
            let last = self.answers.len() == 0;
            push(sink, &ServerFrame::Answer(Answer { id: self.answering, last, body }))?;
        }
        self.ask_on();
        Ok(())
    }

    /// Begins with the next query, once the session is entered, the one before is answered, and the snapshot is told.
    fn ask_on(&mut self) {
        if self.waiting.is_some() || self.snapshot.is_some() || self.asking.is_some() || self.answers.len() > 0 {
            return;
        }
        let Some(Query { id, body }) = self.queries.pop_front() else { return };
        self.answering = id;
        let (engine, session) = (self.engine.clone(), self.session.clone());
        self.asking = Some(tokio::spawn(async move { engine.query(&session, body).await }));
    }

    /// Gets what comes next, at once if memory has it. Returns whether something was handed to the sink.
    fn read_on<O: FrameSink>(&mut self, sink: &mut O) -> Result<bool, Ended> {
        if self.reading.is_some() {
            return Ok(false);
        }
        let engine = self.engine.clone();
        if let Some(cursor) = self.snapshot {
            let user = self.viewer.device.user;
            self.reading = Some(tokio::spawn(async move { Read::Snapshot(engine.snapshot(user, cursor).await) }));
        } else if self.sent < self.session.head() {
            match engine.recent_events(&self.viewer, self.sent) {
                Some(events) if !events.is_empty() => return self.send_events(events, sink).map(|()| true),
                _ => {
                    let (viewer, after) = (self.viewer.clone(), self.sent);
                    self.reading = Some(tokio::spawn(async move { Read::Events(engine.events(viewer, after).await) }));
                }
            }
        }
        Ok(false)
    }

    fn take_read<O: FrameSink>(&mut self, read: Read, sink: &mut O) -> Result<(), Ended> {
        self.reading = None;
        match read {
            Read::Events(events) => self.send_events(events.map_err(Ended::Refused)?, sink),
            Read::Snapshot(page) => {
                let SnapshotPage { page, next, holds } = page.map_err(Ended::Refused)?;
                self.snapshot = next;
                self.holds.extend(holds);
                push(sink, &ServerFrame::Snapshot(page))
            }
        }
    }

    fn send_events<O: FrameSink>(&mut self, events: Vec<Event>, sink: &mut O) -> Result<(), Ended> {
        metrics::counter!("whimbrel_events_total").increment(events.len() as u64);
        if events.is_empty() && self.sent < self.session.head() {
            return Err(trimmed());
        }
        for event in events {
            if event.seq != self.sent.next() {
                return Err(trimmed());
            }
            self.sent = event.through();
            push(sink, &ServerFrame::Event(event))?;
        }
        Ok(())
    }

    fn take(&mut self, received: Result<Option<Received>, LinkError>) -> Result<(), Ended> {
        let Received { frame, hint } = match received {
            Ok(Some(received)) => received,
            Ok(None) => return Err(Ended::Closed),
            Err(LinkError::Gone(why)) => return Err(Ended::Broken(why)),
            Err(LinkError::Codec(why)) => return Err(Ended::Refused(codec_error(&why))),
        };
        match frame {
            ClientFrame::Command(command) => self.take_command(command, hint),
            ClientFrame::Ack(ack) => {
                match &mut self.waiting {
                    Some(waiting) => waiting.acked = waiting.acked.max(Some(ack.seq)),
                    None => self.take_ack(ack.seq),
                }
                Ok(())
            }
            ClientFrame::Query(query) if self.queries.len() >= QUERIES_MAX => {
                let message = format!("more than {QUERIES_MAX} queries wait (the last is {}): wait for answers", query.id);
                Err(Ended::Refused(error(ErrorCode::WindowExceeded, message)))
            }
            ClientFrame::Query(query) => {
                self.queries.push_back(query);
                Ok(())
            }
            ClientFrame::Signal(signal) => {
                if let Signal::State(state) = &signal {
                    self.silence.set(*state);
                }
                match (&mut self.waiting, signal) {
                    (None, signal) => self.engine.signal(&self.session, signal),
                    (Some(waiting), Signal::Watch(watch)) => waiting.watch = Some(watch),
                    // Who types will say so again, and the state is told when the session is entered.
                    (Some(_), Signal::Typing(_) | Signal::State(_)) => {}
                }
                Ok(())
            }
            ClientFrame::Ping(ping) => {
                self.pong = Some(ping);
                Ok(())
            }
            ClientFrame::Pong(_) => Ok(()),
            ClientFrame::Hello(_) => Err(Ended::Refused(error(ErrorCode::Malformed, "a second Hello"))),
        }
    }

    /// The handshake is over, and the session entered; or it is to end.
    fn on_entered(&mut self, entered: Result<(), End>) {
        let waiting = self.waiting.take();
        match entered {
            Ok(()) => {
                let Some(waiting) = waiting else { return };
                waiting.acked.into_iter().for_each(|seq| self.take_ack(seq));
                self.engine.signal(&self.session, Signal::State(self.silence.state()));
                waiting.watch.into_iter().for_each(|watch| self.engine.signal(&self.session, Signal::Watch(watch)));
            }
            Err(end) => self.session.finish(end),
        }
    }

    fn take_ack(&mut self, seq: MailboxSeq) {
        // Nobody has taken what was not sent.
        self.engine.ack(&self.session, seq.min(self.sent));
        if self.snapshot.is_none() && seq >= self.begin && !self.holds.is_empty() {
            self.engine.took_snapshot(&self.session, std::mem::take(&mut self.holds));
        }
    }

    fn take_command(&mut self, command: Command, hint: bool) -> Result<(), Ended> {
        let (engine, session) = (&self.engine, &self.session);
        let mut submit = |command| engine.submit(session, command);
        let take = if hint { Commands::take_copy } else { Commands::take };
        take(&mut self.commands, command, session.applied(), &mut submit).map_err(Ended::Refused)
    }
}

/// The log was trimmed under a session that was too slow: what that means for its device it is told when it comes back.
fn trimmed() -> Ended {
    Ended::Refused(error(ErrorCode::Idle, "the mailbox was trimmed before it was read; connect again"))
}

fn sink_has_work<O: FrameSink>(sink: &O) -> bool {
    sink.queued() > 0 || sink.due().is_some_and(|due| due <= Instant::now())
}

fn push<O: FrameSink>(sink: &mut O, frame: &ServerFrame) -> Result<(), Ended> {
    sink.push(frame).map_err(|why| {
        tracing::error!(%why, "a frame could not be written");
        Ended::Refused(error(ErrorCode::Internal, "the server made a frame that cannot be sent"))
    })
}

/// Waits for what runs in the background; for ever if nothing does.
async fn wait<T>(running: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match running {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}
