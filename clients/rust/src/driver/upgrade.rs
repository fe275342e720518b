//! A better transport than the one in use: tried beside the session, which goes on meanwhile and moves when the other is there. So a session
//! that had to begin over a WebSocket comes to QUIC once the network lets it through, and an application can choose another transport at
//! any time.

use super::Driver;
use super::session::Session;
use crate::{Transport, TransportKind};
use std::time::Duration;
use tokio::time::Instant;

/// A better transport is tried this long after a session began …
const FIRST: Duration = Duration::from_secs(2);
/// … and then so many times later each time …
const GROWTH: u32 = 4;
/// … but no later than this: where something keeps it from getting through, each attempt costs a few packets.
const LATEST: Duration = Duration::from_secs(3_600);
/// A session over the better transport that lasted this long shows that it is better. One that did not may be followed by the next like it,
/// and each costs the time that it takes to be found dead.
const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// When to try.
#[derive(Debug)]
pub(super) struct Upgrade {
    at: Instant,
    wait: Duration,
}

impl Upgrade {
    pub fn new(now: Instant) -> Self {
        Self { at: now + FIRST, wait: FIRST }
    }

    /// What did not get through before may do now.
    pub fn reset(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The application wants another transport.
    pub fn hurry(&mut self, now: Instant) {
        *self = Self { at: now, wait: FIRST };
    }

    /// A session begins.
    pub fn on_session(&mut self, now: Instant) {
        self.at = self.at.max(now + self.wait);
    }

    /// A session over QUIC ended that lasted so long.
    pub fn on_end(&mut self, lasted: Duration, now: Instant) {
        if lasted >= PROVEN_AFTER {
            self.reset(now);
        }
    }

    fn on_try(&mut self, now: Instant) {
        self.wait = (self.wait * GROWTH).min(LATEST);
        self.at = now + self.wait;
    }
}

impl Driver {
    /// What would be better than what carries this session.
    fn better(&self, session: &Session) -> Option<Transport> {
        let now = Transport::from(session.transport);
        match self.config.transport {
            Transport::Auto if matches!(session.transport, TransportKind::WebSocket | TransportKind::WebSocketJson) => {
                let endpoints = &self.known.as_ref()?.endpoints;
                let webtransport = endpoints.webtransport.as_ref().map(|_| Transport::WebTransport);
                endpoints.quic.as_ref().map(|_| Transport::Quic).or(webtransport)
            }
            Transport::Auto => None,
            wanted => (wanted != now).then_some(wanted),
        }
    }

    /// When a better transport is to be tried: not before what the session begins with is over, nor while it is in doubt, which is a reason
    /// to try everything, nor while nobody would notice.
    pub(super) fn upgrade_due(&self, session: &Session) -> Option<Instant> {
        let ready = self.closing.is_none()
            && !self.watchfulness.is_background()
            && session.is_settled()
            && !session.pulse.is_doubted()
            && self.scout.is_idle();
        (ready && self.better(session).is_some()).then_some(self.upgrade.at)
    }

    /// Tries a better transport, if it is time to.
    pub(super) fn try_upgrade(&mut self, session: &Session) {
        let now = Instant::now();
        if self.upgrade_due(session).is_some_and(|due| now >= due)
            && let Some(better) = self.better(session)
        {
            tracing::debug!(?better, "a better transport is tried");
            self.upgrade.on_try(now);
            self.scout_ahead(better);
        }
    }

    /// The application wants this transport from now on.
    pub(super) fn on_transport(&mut self, transport: Transport) {
        self.config.transport = transport;
        self.upgrade.hurry(Instant::now());
        self.scout.stop();
        self.retry_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_get_through_is_tried_less_and_less_often() {
        let begun = Instant::now();
        let mut upgrade = Upgrade::new(begun);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = upgrade.at;
            upgrade.on_try(now);
            waits.push((upgrade.at - now).as_secs());
        }
        assert_eq!(waits, [8, 32, 128, 512, 2048, 3600, 3600, 3600, 3600]);
        // A session that does not last changes nothing.
        let now = upgrade.at;
        upgrade.on_end(PROVEN_AFTER / 2, now);
        upgrade.on_session(now);
        assert_eq!(upgrade.at, now + LATEST);
        upgrade.on_end(PROVEN_AFTER, now);
        assert_eq!(upgrade.at, now + FIRST);
        upgrade.hurry(now);
        assert_eq!(upgrade.at, now);
    }
}
