//! Clients that come back after a restart, on bare frames: what each does as the SDKs do, and what all of them find.

use super::BenchError;
use super::pace::Times;
use super::peer::hello;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_client::frames::{Returning, Sink, Source};
use whimbrel_protocol::frame::{
    Ack, ClientFrame, ClientState, Command, Content, EventBody, Hello, Position, Send, ServerFrame, Target, Welcome,
};
use whimbrel_protocol::{CommandSeq, Incarnation, Nonce, UserId};

/// Between two messages of somebody who talks.
const PACE: Duration = Duration::from_millis(50);
/// As the SDKs: how long a client waits at most after its first failure, and at most at all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Silence after which the server asks them, in seconds: what clients say that have found out that their network bears it.
const ASK_AFTER_S: u16 = 300;

/// What all clients share.
pub(super) struct Crowd {
    started: Instant,
    /// Since when the server is there again.
    pub restarted: OnceLock<Instant>,
    /// How many have come back.
    pub back: AtomicUsize,
    /// Attempts that the server asked to come later.
    pub put_off: AtomicUsize,
    /// Attempts that failed.
    pub failures: AtomicUsize,
    found: Mutex<Found>,
}

/// What they found.
pub(super) struct Found {
    /// How long messages took before the restart, and after it.
    pub quiet: Times,
    pub storm: Times,
    /// How long after its slot each was back.
    pub after_slot: Times,
    pub first_back: Option<Instant>,
    pub last_back: Option<Instant>,
    pub last_slot: Option<Instant>,
}

impl Found {
    fn new() -> Self {
        let new = Times::default;
        Self { quiet: new(), storm: new(), after_slot: new(), first_back: None, last_back: None, last_slot: None }
    }
}

impl Crowd {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            restarted: OnceLock::new(),
            back: AtomicUsize::new(0),
            put_off: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            found: Mutex::new(Found::new()),
        }
    }

    /// Forgets what was found so far.
    pub fn begin(&self) {
        *self.found() = Found::new();
    }

    pub fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_back(&self, slot: Instant) {
        let now = Instant::now();
        let mut found = self.found();
        found.first_back.get_or_insert(now);
        found.last_back = Some(now);
        found.last_slot = found.last_slot.max(Some(slot));
        found.after_slot.record(slot.into_std(), now.saturating_duration_since(slot));
        self.back.fetch_add(1, Ordering::Relaxed);
    }

    fn on_message(&self, text: &str) {
        // What an earlier session sent may come again.
        let Some(sent) = text.parse().ok().map(|micros| self.started + Duration::from_micros(micros)) else { return };
        let took = sent.elapsed();
        let mut found = self.found();
        match self.restarted.get() {
            None => found.quiet.record(sent.into_std(), took),
            Some(restarted) if sent >= *restarted => found.storm.record(sent.into_std(), took),
            // It was under way when the server ended.
            Some(_) => {}
        }
    }
}

/// Half of a pair that talks.
pub(super) struct Talk {
    pub to: UserId,
    /// Whether the other has a session.
    pub other: Arc<AtomicBool>,
    /// Whether this one has.
    pub this: Arc<AtomicBool>,
}

/// What came of an attempt.
pub(super) enum Entry {
    Welcomed(Box<(Source, Sink)>),
    /// The server asks to come then.
    Later(Instant),
}

fn after(retry_after_ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(retry_after_ms.into())
}

/// A client that comes back.
pub(super) struct Phone {
    crowd: Arc<Crowd>,
    dialer: Returning,
    user: UserId,
    talk: Option<Talk>,
    instance: Nonce,
    attempt: u32,
    incarnation: Incarnation,
    position: Option<Position>,
    applied: CommandSeq,
    /// What was sent and not applied: sent again, as it was.
    pending: Option<Command>,
    /// Whether it is counted among those who are back.
    returned: bool,
}

impl Phone {
    pub fn new(crowd: Arc<Crowd>, dialer: Returning, user: UserId, talk: Option<Talk>) -> Self {
        Self {
            crowd,
            dialer,
            user,
            talk,
            instance: Nonce(rand::random()),
            attempt: 0,
            incarnation: Incarnation(0),
            position: None,
            applied: CommandSeq(0),
            pending: None,
            returned: false,
        }
    }

    fn hello(&mut self) -> Result<Hello, BenchError> {
        self.attempt += 1;
        let Self { instance, attempt, incarnation, position, .. } = *self;
        let state = ClientState { background: false, ask_after_s: ASK_AFTER_S };
        Ok(Hello { instance, attempt, incarnation, position, extensions: vec![state.to_extension()], ..hello(&self.user)? })
    }

    /// Connects, and is welcomed, or told when to come.
    pub async fn enter(&mut self) -> Result<Entry, BenchError> {
        let hello = self.hello()?;
        let (mut source, sink) = self.dialer.dial(hello).await?;
        match source.next().await? {
            Some(ServerFrame::Welcome(welcome)) => {
                self.on_welcome(&welcome);
                Ok(Entry::Welcomed(Box::new((source, sink))))
            }
            Some(ServerFrame::GoAway(away)) => Ok(Entry::Later(after(away.retry_after_ms))),
            Some(ServerFrame::Error(error)) if error.retry_after_ms > 0 => Ok(Entry::Later(after(error.retry_after_ms))),
            other => Err(BenchError::Failed(format!("instead of Welcome came {other:?}"))),
        }
    }

    fn on_welcome(&mut self, welcome: &Welcome) {
        self.incarnation = welcome.incarnation;
        self.applied = welcome.applied;
        self.pending.take_if(|command| command.cseq <= welcome.applied);
        let Welcome { epoch, begin, .. } = welcome;
        self.position = Some(Position { epoch: *epoch, cursor: begin.cursor, time: begin.time });
    }

    /// Stays until the server goes away, comes back in its slot, and stays until it is stopped.
    pub async fn live(mut self, mut source: Source, mut sink: Sink) -> Result<(), BenchError> {
        loop {
            let mut slot = self.stay(&mut source, &mut sink).await?;
            sink.close().await;
            drop(source);
            sleep_until(slot).await;
            let mut wait = BACKOFF.0;
            (source, sink) = loop {
                match self.enter().await {
                    Ok(Entry::Welcomed(both)) => break *both,
                    Ok(Entry::Later(at)) => {
                        slot = at;
                        self.crowd.put_off.fetch_add(1, Ordering::Relaxed);
                        sleep_until(slot).await;
                    }
                    Err(why) => {
                        tracing::debug!(%why, "not back yet");
                        self.crowd.failures.fetch_add(1, Ordering::Relaxed);
                        sleep(wait.mul_f64(rand::random())).await;
                        wait = (wait * 2).min(BACKOFF.1);
                    }
                }
            };
            if !std::mem::replace(&mut self.returned, true) {
                self.crowd.on_back(slot);
            }
        }
    }

    /// Until the server goes away; returns when to come back.
    async fn stay(&mut self, source: &mut Source, sink: &mut Sink) -> Result<Instant, BenchError> {
        if let Some(talk) = &self.talk {
            talk.this.store(true, Ordering::Relaxed);
        }
        if let Some(command) = &self.pending {
            sink.push(&ClientFrame::Command(command.clone()))?;
        }
        // Not all at once.
        let mut talk_at = Instant::now() + PACE.mul_f64(rand::random());
        let slot = loop {
            tokio::select! {
                flushed = sink.flush(), if sink.queued() > 0 => if flushed.is_err() {
                    break Instant::now();
                },
                frame = source.next() => match frame {
                    Ok(Some(ServerFrame::GoAway(away))) => break after(away.retry_after_ms),
                    Ok(Some(frame)) => self.take(frame, sink)?,
                    // It ended without a word: as after a crash.
                    Ok(None) | Err(_) => break Instant::now(),
                },
                () = sleep_until(talk_at), if self.talk.is_some() => {
                    self.say(sink)?;
                    talk_at = Instant::now() + PACE;
                }
            }
        };
        if let Some(talk) = &self.talk {
            talk.this.store(false, Ordering::Relaxed);
        }
        Ok(slot)
    }

    /// Says something, if what was said before is durable and the other is there to hear it.
    fn say(&mut self, sink: &mut Sink) -> Result<(), BenchError> {
        let Some(talk) = self.talk.as_ref().filter(|talk| talk.other.load(Ordering::Relaxed) && self.pending.is_none()) else {
            return Ok(());
        };
        let content = Content::text(self.crowd.started.elapsed().as_micros().to_string());
        let body = Send { to: Target::User(talk.to.clone()), content }.into();
        let command = Command { incarnation: self.incarnation, cseq: self.applied.next(), nonce: Nonce(rand::random()), body };
        sink.push(&ClientFrame::Command(command.clone()))?;
        self.pending = Some(command);
        Ok(())
    }

    fn take(&mut self, frame: ServerFrame, sink: &mut Sink) -> Result<(), BenchError> {
        match frame {
            ServerFrame::Event(event) => {
                let Some(position) = &mut self.position else { return Ok(()) };
                if event.seq != position.cursor.next() {
                    let why = format!("the mailbox has a gap or a double: entry {} came after {}", event.seq, position.cursor);
                    return Err(BenchError::Failed(why));
                }
                (position.cursor, position.time) = (event.through(), event.time);
                sink.push(&ClientFrame::Ack(Ack { seq: position.cursor }))?;
                if let EventBody::Message(message) = &event.body {
                    self.crowd.on_message(&message.content.text);
                }
            }
            ServerFrame::Applied(applied) => {
                self.applied = applied.cseq;
                self.pending.take_if(|command| command.cseq <= applied.cseq);
            }
            ServerFrame::Ping(ping) => sink.push(&ClientFrame::Pong(ping))?,
            _ => {}
        }
        Ok(())
    }
}
