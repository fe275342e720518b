//! Waiting, connecting, in session: and how long to wait before the next attempt.

use super::Driver;
use super::session::{NETWORK_CHANGED, Session};
use crate::link::{self, Attempt, Established, Known, Link, LinkError, Opening, Received};
use crate::{Connection, EndReason, Transport};
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use whimbrel_protocol::codec::CodecError;
use whimbrel_protocol::frame::{ClientFrame, ClientState};
use whimbrel_protocol::{CommandSeq, Incarnation};

/// The longest first wait …
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// … which doubles with each attempt, up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// … or this, where nobody waits.
const BACKOFF_PATIENT: Duration = Duration::from_secs(60);
/// A session that lasted this long makes the next wait a first one again.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Commands that are said before the server has said a word, at most: they fit into the first packets of a connection.
const OPENING_COMMANDS: usize = 16;
const OPENING_BYTES: usize = 8 * 1024;
/// Servers may ask for patience, but not for more than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A connection that may become one.
pub(super) type Linking = Pin<Box<dyn Future<Output = Result<Established, LinkError>> + Send>>;

pub(super) enum Phase {
    Waiting(Instant),
    Connecting(Connecting),
    Session(Box<Session>),
}

/// An attempt under way.
pub(super) struct Connecting {
    begun: Instant,
    link: Pin<Box<dyn Future<Output = Result<Established, LinkError>> + Send>>,
    said: Option<Said>,
}

/// What an opening says: how we are, the outbox, and the highest command of it.
type Said = (ClientState, Incarnation, CommandSeq);

/// What happened to the connection.
pub(super) enum Progress {
    Due,
    Connected(Result<Box<Established>, LinkError>),
    Frame(Result<Option<Received>, LinkError>),
    Flushed(Result<(), LinkError>),
}

impl Phase {
    /// Waits for something to happen. Cancel-safe. `read` says whether frames are wanted.
    pub async fn progress(&mut self, read: bool) -> Progress {
        match self {
            Self::Waiting(until) => {
                sleep_until(*until).await;
                Progress::Due
            }
            Self::Connecting(attempt) => Progress::Connected(attempt.link.as_mut().await.map(Box::new)),
            Self::Session(session) => {
                let queued = session.sink.has_work();
                tokio::select! {
                    frame = session.source.next(), if read => Progress::Frame(frame),
                    flushed = session.sink.flush(), if queued => Progress::Flushed(flushed),
                    () = pending(), if !read && !queued => Progress::Due,
                }
            }
        }
    }
}

/// Why a session does not go on.
pub(super) enum Stop {
    Lost { why: String, retry: Retry },
    End(EndReason),
}

impl Stop {
    pub fn lost(why: impl Into<String>, retry: Retry) -> Self {
        Self::Lost { why: why.into(), retry }
    }
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    Now,
    Backoff,
    /// As after any failure; it will fail again until something is changed.
    Mismatch,
    After(Duration),
}

/// Counts attempts, and says how long to wait: anything up to a limit that doubles, so that clients who lost the same server do not all
/// come back at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Attempts since the last stable session.
    failures: u32,
    /// An attempt has failed since the last session, or on this network.
    failed: bool,
    /// The application is suspended, so nobody waits.
    pub patient: bool,
    /// The server asked for the last wait.
    pub asked: bool,
    pub why: Option<String>,
}

impl Backoff {
    pub fn wait(&mut self, retry: Retry) -> Duration {
        let most = if self.patient { BACKOFF_PATIENT } else { BACKOFF_MAX };
        let limit = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(most);
        self.asked = matches!(retry, Retry::After(_));
        if retry != Retry::Now {
            self.failures = self.failures.saturating_add(1);
        }
        match retry {
            Retry::Now => Duration::ZERO,
            Retry::Backoff | Retry::Mismatch => limit.mul_f64(rand::random::<f64>()),
            Retry::After(time) => time.min(RETRY_AFTER_MAX),
        }
    }

    /// What failed did so on another network.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.failed = false;
    }

    pub fn attempt(&self) -> u32 {
        self.failures.saturating_add(1)
    }
}

impl Driver {
    /// Something happened to the connection.
    pub(super) async fn on_progress(&mut self, progress: Progress) -> Result<(), EndReason> {
        match progress {
            Progress::Due => {
                if matches!(self.phase, Phase::Waiting(_)) {
                    self.connect();
                }
                Ok(())
            }
            Progress::Connected(Ok(established)) => {
                let Established { link, endpoints } = *established;
                self.known = Some(Known { endpoints, doubtful: false });
                tracing::debug!(transport = %link.transport, early = link.opened.is_some(), "a link is there");
                self.begin(link);
                Ok(())
            }
            Progress::Connected(Err(why)) => {
                self.backoff.failed = true;
                // What was known of the server may be out of date: ask it again.
                if let Some(known) = &mut self.known {
                    known.doubtful = true;
                }
                let retry = if matches!(why, LinkError::Mismatch(_)) { Retry::Mismatch } else { Retry::Backoff };
                self.lost(why.to_string(), retry);
                Ok(())
            }
            Progress::Frame(Ok(Some(frame))) => self.in_session(frame).await,
            Progress::Frame(Ok(None)) => {
                self.on_closed();
                self.lost("the server closed the connection".into(), Retry::Backoff);
                Ok(())
            }
            Progress::Frame(Err(why)) | Progress::Flushed(Err(why)) => {
                self.on_closed();
                self.lost(why.to_string(), Retry::Backoff);
                Ok(())
            }
            Progress::Flushed(Ok(())) => Ok(()),
        }
    }

    /// The session, if there is one, taken out for a moment: it and the rest of the driver are then two things.
    pub(super) fn take_session(&mut self) -> Option<Box<Session>> {
        match std::mem::replace(&mut self.phase, Phase::Waiting(self.epoch)) {
            Phase::Session(session) => Some(session),
            other => {
                self.phase = other;
                None
            }
        }
    }

    async fn in_session(&mut self, received: Received) -> Result<(), EndReason> {
        let Some(mut session) = self.take_session() else { return Ok(()) };
        let result = match received {
            Received::Frame(frame) => self.on_frame(&mut session, frame).await,
            Received::Hint(frame) => {
                self.on_hint(&mut session, frame);
                Ok(())
            }
            Received::Unanswered(id) => {
                self.queries.ask_again(id);
                Ok(())
            }
        };
        self.phase = Phase::Session(session);
        match result {
            Ok(()) => Ok(()),
            Err(Stop::Lost { why, retry }) => {
                self.lost(why, retry);
                Ok(())
            }
            Err(Stop::End(reason)) => Err(reason),
        }
    }

    fn connect(&mut self) {
        self.networks.look();
        let why = self.backoff.why.clone();
        self.connection.send_replace(Connection::Connecting { attempt: self.backoff.attempt(), why });
        let (openings, said) = match self.openings() {
            Ok(both) => both,
            Err(why) => return self.lost(format!("the greeting does not fit a frame: {why}"), Retry::Backoff),
        };
        let now = Instant::now();
        let since = *self.offline_since.get_or_insert(now);
        let link = self.attempt(openings, since);
        self.phase = Phase::Connecting(Connecting { begun: now, link, said: Some(said) });
    }

    /// An attempt that says so much early.
    pub(super) fn attempt(&self, openings: [Opening; 2], since: Instant) -> Linking {
        self.attempt_over(self.config.transport, openings, since)
    }

    /// The same over a certain transport.
    pub(super) fn attempt_over(&self, transport: Transport, openings: [Opening; 2], since: Instant) -> Linking {
        self.haste.set(self.watchfulness.is_active(Instant::now()));
        let attempt = Attempt {
            server: self.config.server.clone(),
            trust: self.config.trust.clone(),
            transport,
            favourite: self.networks.favourite(),
            openings,
            repeated: self.backoff.failed,
            haste: self.haste.clone(),
            since,
            round_trip: self.round_trip,
            shared: None,
        };
        Box::pin(link::connect(attempt, self.known.clone()))
    }

    /// What is said before the server has said a word: the hello, and the first commands of an outbox that the server knows. As long as a
    /// command is being stored none, for the outbox does not say which of them are durable; nor where a snapshot must be expected, for none
    /// may be on its way then.
    fn openings(&mut self) -> Result<([Opening; 2], Said), CodecError> {
        let state = self.first_state();
        let hellos = [self.hello(state), self.hello(state)];
        let incarnation = self.outbox.incarnation();
        let no_commands = self.storing || self.closing.is_some() || self.downlink.position().is_none() || incarnation == Incarnation(0);
        let most = if no_commands { 0 } else { OPENING_COMMANDS };
        let mut through = [self.outbox.state().applied; 2];
        let mut openings = <[Opening; 2]>::default();
        for ((opening, hello), through) in openings.iter_mut().zip(hellos).zip(&mut through) {
            opening.push(&ClientFrame::Hello(hello), usize::MAX)?;
            for command in self.outbox.pending().take(most) {
                if !opening.push(&ClientFrame::Command(command.clone()), OPENING_BYTES)? {
                    break;
                }
                *through = command.cseq;
            }
        }
        // Of two hellos one may be a byte longer, and leave room for a command less: what both say is said.
        let [one, other] = through;
        Ok((openings, (state, incarnation, one.min(other))))
    }

    /// A link is there: the session says hello, unless the opening did.
    fn begin(&mut self, link: Link) {
        let said = match &self.phase {
            Phase::Connecting(attempt) => attempt.said.filter(|_| link.opened.is_some()),
            _ => None,
        };
        let session = match said {
            Some((state, incarnation, through)) => {
                self.outbox.on_opened(incarnation, through);
                Ok(Session::begin(link, state))
            }
            None => {
                let state = self.first_state();
                let hello = self.hello(state);
                let mut session = Session::begin(link, state);
                session.sink.push(&ClientFrame::Hello(hello)).map(|()| session)
            }
        };
        match session {
            Ok(session) => self.phase = Phase::Session(Box::new(session)),
            Err(why) => self.lost(format!("the greeting does not fit a frame: {why}"), Retry::Backoff),
        }
    }

    /// The connection, or the attempt at one, is over: wait, then try again.
    pub(super) fn lost(&mut self, why: String, retry: Retry) {
        self.suspending.is_over();
        self.outbox.on_disconnect();
        self.downlink.on_disconnect();
        self.queries.on_disconnect();
        // Not queued, so not known: they come again.
        self.parked.clear();
        let now = Instant::now();
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting(now));
        let mut waited = Duration::ZERO;
        if let Phase::Connecting(attempt) = &phase {
            // Who has waited for an answer has waited.
            waited = attempt.begun.elapsed();
        }
        if let Phase::Session(session) = phase {
            if session.greeted.is_some() {
                self.offline_since = None;
                self.backoff.failed = false;
                self.round_trip = Some(session.round_trip());
                if session.is_steady() {
                    self.upgrade.on_end(session.lasted(), now);
                }
            }
            match session.greeted {
                Some(since) if since.elapsed() >= STABLE_AFTER => self.backoff.failures = 0,
                // A path that lets handshakes through and then nothing: the other transport goes first next time.
                None if session.is_mute() => self.networks.prefer(session.other_transport()),
                _ => {}
            }
        }
        let wait = self.backoff.wait(retry).saturating_sub(waited);
        tracing::debug!(why, ?wait, "no connection");
        self.backoff.why = Some(why.clone());
        if let Some(link) = self.scout.take() {
            // Another one is tried already, and everybody knows.
            self.phase = Phase::Connecting(Connecting { begun: now, link, said: None });
            return;
        }
        self.phase = Phase::Waiting(now + wait);
        // What is mended at once is no news.
        if retry != Retry::Now {
            self.connection.send_replace(Connection::Offline { retry_in: wait, why, mismatch: retry == Retry::Mismatch });
        }
    }

    /// Whatever was found out of the network before counts no more.
    pub(super) fn on_other_network(&mut self) {
        self.backoff.reset();
        self.networks.look();
        self.suspicion = None;
        self.upgrade.reset(Instant::now());
        // It is tried over the network that was.
        self.scout.stop();
    }

    /// Without a session: tries at once, and anew.
    pub(super) fn retry_now(&mut self) {
        match &self.phase {
            Phase::Waiting(_) => self.phase = Phase::Waiting(Instant::now()),
            Phase::Connecting(_) => self.connect(),
            Phase::Session(_) => {}
        }
    }

    /// The system says that the network may be another one.
    pub(super) fn on_notice(&mut self) {
        match &mut self.phase {
            Phase::Session(session) => session.whereabouts.on_notice(),
            Phase::Waiting(_) | Phase::Connecting(_) => {
                if self.networks.look() {
                    self.on_network_changed();
                }
            }
        }
    }

    /// The network is another one. A connection that can moves there; whatever else there is of one is no good any more.
    pub(super) fn on_network_changed(&mut self) {
        self.on_other_network();
        match &mut self.phase {
            Phase::Waiting(_) | Phase::Connecting(_) => self.retry_now(),
            Phase::Session(session) => {
                let doubted = session.pulse.is_doubted();
                if !session.move_on() {
                    self.lost(NETWORK_CHANGED.into(), Retry::Now);
                } else if doubted {
                    // It has waited long enough for this one.
                    self.seek(NETWORK_CHANGED.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_servers_are_heard() {
        let mut backoff = Backoff::default();
        for attempt in 0..20 {
            let limit = Duration::from_millis(100 << attempt.min(10)).min(BACKOFF_MAX);
            assert!(backoff.wait(Retry::Backoff) <= limit);
        }
        assert_eq!(backoff.wait(Retry::Now), Duration::ZERO);
        assert_eq!(backoff.wait(Retry::After(Duration::from_secs(42))), Duration::from_secs(42));
        assert_eq!(backoff.wait(Retry::After(Duration::from_secs(1 << 30))), RETRY_AFTER_MAX);
    }
}
