//! Another connection, tried beside a session that is in doubt. It carries nothing until it is the one: the server would take its hello
//! for the end of the session.

use super::Driver;
use super::phase::{Linking, Phase, Progress, Retry, Stop};
use super::session::Session;
use crate::link::{Established, LinkError};
use crate::{Connection, EndReason};
use std::future::pending;
use tokio::time::{Instant, sleep};

/// The attempt, if there is one, and why.
#[derive(Default)]
pub(super) struct Scout(Option<(Linking, String)>);

impl Scout {
    /// Ends when the attempt does. Cancel-safe.
    pub async fn progress(&mut self) -> (Result<Box<Established>, LinkError>, String) {
        let Some((attempt, _)) = &mut self.0 else { return pending().await };
        let result = attempt.await.map(Box::new);
        (result, self.0.take().map(|(_, why)| why).unwrap_or_default())
    }

    /// There is no need of it any more.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// The attempt, for somebody who needs it more.
    pub fn take(&mut self) -> Option<Linking> {
        self.0.take().map(|(attempt, _)| attempt)
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
        if self.scout.0.is_none() {
            tracing::debug!(why, "another connection is tried");
            self.connection.send_replace(Connection::Connecting { attempt: self.backoff.attempt(), why: Some(why.clone()) });
            self.scout.0 = Some((self.attempt(Default::default(), Instant::now()), why));
        }
        Ok(())
    }

    /// Forgets the other connection if the session has answered.
    pub(super) fn believe(&mut self, session: &Session) {
        if self.scout.0.is_some() && !session.pulse.is_doubted() {
            self.scout.stop();
            tracing::debug!(transport = %session.transport, "the session goes on");
            self.connection.send_replace(Connection::Connected { transport: session.transport });
        }
    }

    /// The other connection is there, or has failed.
    pub(super) async fn on_scouted(&mut self, result: Result<Box<Established>, LinkError>, why: String) -> Result<(), EndReason> {
        match result {
            Ok(established) => {
                if matches!(&self.phase, Phase::Session(session) if session.pulse.is_doubted()) {
                    self.watchfulness.on_silence();
                }
                self.lost(why, Retry::Now);
                self.on_progress(Progress::Connected(Ok(established))).await
            }
            Err(failed) => {
                tracing::debug!(%failed, "no other connection");
                // What was known of the server may be out of date: ask it again.
                if let Some(known) = &mut self.known {
                    known.doubtful = true;
                }
                let wait = self.backoff.wait(Retry::Backoff);
                let attempt = self.attempt(Default::default(), Instant::now());
                let later = async move {
                    sleep(wait).await;
                    attempt.await
                };
                self.scout.0 = Some((Box::pin(later), why));
                Ok(())
            }
        }
    }
}
