//! The transport that goes first: what worked last, for a while, also in the next run.

use super::{Completed, Driver};
use crate::link::Address;
use crate::{Transport, TransportKind};
use std::time::Duration;
use tokio::time::Instant;

/// How long a WebSocket stays the favourite although QUIC is on offer: networks change.
pub(super) const FAVOURITE_FOR: Duration = Duration::from_secs(3_600);

/// Under which key the favourite transport of a server is remembered.
pub(crate) fn favourite_key(server: &Address) -> String {
    format!("transport {}", server.authority())
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

fn favourite_value(transport: TransportKind) -> String {
    format!("{} {}", unix_seconds(), transport.name())
}

/// The favourite that a note tells: what worked last, if that is not too long ago.
pub(crate) fn favourite(note: Option<&str>) -> TransportKind {
    let websocket = note.and_then(|note| note.split_once(' ')).is_some_and(|(time, name)| {
        let age = time.parse().map_or(u64::MAX, |time: u64| unix_seconds().saturating_sub(time));
        name == TransportKind::WebSocket.name() && age < FAVOURITE_FOR.as_secs()
    });
    if websocket { TransportKind::WebSocket } else { TransportKind::Quic }
}

impl Driver {
    /// Remembers what worked, for the next start.
    pub(super) fn remember(&mut self, transport: TransportKind) {
        if self.config.transport != Transport::Auto || self.favourite == transport {
            return;
        }
        self.prefer(transport);
        let (key, value) = (favourite_key(&self.config.server), favourite_value(transport));
        let noted = self.keeper.call(move |store| store.set_note(&key, &value));
        self.jobs.push(Box::pin(async move {
            // A hint: losing it costs 200 ms at the next start.
            let _ = noted.await;
            Completed::Noted
        }));
    }

    /// This transport goes first from now on, for a while.
    pub(super) fn prefer(&mut self, transport: TransportKind) {
        self.favourite = transport;
        self.favourite_since = Instant::now();
    }
}
