//! Another connection, tried beside a session that is in doubt. It carries nothing until it is the one: the server would take its hello
//! for the end of the session.

use super::Driver;
use super::phase::{Linking, Phase, Progress, Retry, Stop};
use super::session::Session;
use crate::link::{Established, LinkError};
use crate::{Connection, EndReason, Transport};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A handshake that gets no answer is repeated after longer and longer times. So a second attempt begins this much later, between the
/// repetitions of the first: else a blackout would last up to twice as long as it does.
const SECOND_AFTER: Duration = Duration::from_secs(2);

/// The attempts, and why there are any.
#[derive(Default)]
pub(super) struct Scout {
    /// Two at the most.
    attempts: FuturesUnordered<Linking>,
    /// When the second begins.
    second: Option<Instant>,
    why: String,
    /// The session is as good as ever: nobody is told of the attempt before it has succeeded.
    ahead: bool,
}

/// What became of an attempt.
pub(super) enum Scouted {
    Connected(Box<Established>),
    Failed(LinkError),
    /// It takes long.
    Slow,
}

impl Scout {
    /// Waits for something to happen. Cancel-safe.
    pub async fn progress(&mut self) -> Scouted {
        let second = self.second;
        tokio::select! {
            Some(result) = self.attempts.next() => match result {
                Ok(established) => Scouted::Connected(Box::new(established)),
                Err(why) => Scouted::Failed(why),
            },
            () = sleep_until(second.unwrap_or_else(Instant::now)), if second.is_some() => {
                self.second = None;
                Scouted::Slow
            }
            else => pending().await,
        }
    }

    /// Whether nothing is tried.
    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty()
    }

    /// There is no need of it any more.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// The attempts as one, for somebody who needs them more.
    pub fn take(&mut self) -> Option<Linking> {
        if self.ahead {
            // It would be the only transport that is tried.
            self.stop();
        }
        let mut attempts = std::mem::take(self).attempts;
        if attempts.is_empty() {
            return None;
        }
        Some(Box::pin(async move {
            let mut last = Err(LinkError::Unreachable("nobody tries".into()));
            while let Some(result) = attempts.next().await {
                last = result;
                if last.is_ok() {
                    break;
                }
            }
            last
        }))
    }
}

impl Driver {
    /// Whether the session works is in doubt: another connection is tried, and the first of both that answers is the one.
    pub(super) fn doubt(&mut self, session: &mut Session, why: String) -> Result<(), Stop> {
        if self.closing.is_some() {
            // Not worth another one.
            return Err(Stop::lost(why, Retry::Now));
        }
        session.pulse.doubt(Instant::now());
        self.seek(why);
        Ok(())
    }

    /// Tries another connection, if none is tried.
    pub(super) fn seek(&mut self, why: String) {
        if self.scout.ahead {
            // What is tried there is one transport, which nobody needs now.
            self.scout.stop();
        }
        if self.scout.is_idle() {
            tracing::debug!(why, "another connection is tried");
            self.connection.send_replace(Connection::Connecting { attempt: self.backoff.attempt(), why: Some(why.clone()) });
            self.scout.attempts.push(self.attempt(Default::default(), Instant::now()));
            self.scout.second = Some(Instant::now() + SECOND_AFTER);
            self.scout.why = why;
        }
    }

    /// Tries a connection over this transport, for the session to move to.
    pub(super) fn scout_ahead(&mut self, transport: Transport) {
        let attempt = self.attempt_over(transport, Default::default(), Instant::now());
        self.scout.attempts.push(attempt);
        self.scout.ahead = true;
        self.scout.why = format!("it goes on over {transport:?}");
    }

    /// Forgets the other connection if the session has answered.
    pub(super) fn believe(&mut self, session: &Session) {
        // Also where the attempt was stopped for another reason: what everybody was told has to be taken back.
        if !session.pulse.is_doubted() && matches!(*self.connection.borrow(), Connection::Connecting { .. }) {
            self.scout.stop();
            tracing::debug!(transport = %session.transport, "the session goes on");
            self.connection.send_replace(Connection::Connected { transport: session.transport });
        }
    }

    /// Something happened to the other connection.
    pub(super) async fn on_scouted(&mut self, scouted: Scouted) -> Result<(), EndReason> {
        match scouted {
            Scouted::Connected(established) => {
                if matches!(&self.phase, Phase::Session(session) if session.pulse.is_doubted()) {
                    self.watchfulness.on_silence();
                }
                let why = std::mem::take(&mut self.scout).why;
                self.scout.ahead = false;
                self.lost(why, Retry::Now);
                self.on_progress(Progress::Connected(Ok(established))).await?;
            }
            Scouted::Slow => self.scout.attempts.push(self.attempt(Default::default(), Instant::now())),
            Scouted::Failed(failed) if self.scout.ahead => {
                tracing::debug!(%failed, "no better transport");
                self.scout.stop();
            }
            Scouted::Failed(failed) => {
                tracing::debug!(%failed, "no other connection");
                // What was known of the server may be out of date: ask it again.
                if let Some(known) = &mut self.known {
                    known.doubtful = true;
                }
                if self.scout.is_idle() {
                    let wait = self.backoff.wait(Retry::Backoff);
                    let attempt = self.attempt(Default::default(), Instant::now());
                    let later = async move {
                        sleep(wait).await;
                        attempt.await
                    };
                    self.scout.attempts.push(Box::pin(later));
                    self.scout.second = Some(Instant::now() + wait + SECOND_AFTER);
                }
            }
        }
        Ok(())
    }
}
