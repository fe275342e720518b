//! What is known of the way to a client: how long it takes, and what share of our packets it loses.

use super::carrier::Carrier;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::Loss;

/// How often the path is asked for its losses, at most.
const LOOK: Duration = Duration::from_millis(20);

/// The path that a session is on. Another one begins where the client moves.
#[derive(Debug)]
pub(super) struct Path {
    remote: SocketAddr,
    loss: Loss,
    /// The zero of its time.
    epoch: Instant,
    looked: Instant,
    /// The connection's counts when the path began …
    begun: Counts,
    /// … and when it was looked at last.
    last: Counts,
    round_trip: Duration,
}

/// Packets on a connection, whatever path they took.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: u64,
    lost: u64,
}

impl Path {
    pub fn new(carrier: &Carrier, now: Instant) -> Self {
        let (remote, round_trip) = (carrier.remote_addr(), carrier.quic().rtt());
        let (begun, last) = (Counts::default(), Counts::default());
        Self { remote, loss: Loss::default(), epoch: now, looked: now, begun, last, round_trip }
    }

    /// How many copies its losses ask for, as of a moment ago.
    pub fn copies(&mut self, now: Instant, carrier: &Carrier) -> usize {
        if now.duration_since(self.looked) >= LOOK {
            self.look(now, carrier);
        }
        self.loss.copies()
    }

    fn look(&mut self, now: Instant, carrier: &Carrier) {
        let (stats, remote) = (carrier.quic().stats().path, carrier.remote_addr());
        self.looked = now;
        if remote != self.remote {
            self.count(carrier);
            self.remote = remote;
            self.loss.on_other_path(now - self.epoch, stats.rtt);
        }
        self.last = Counts { sent: stats.sent_packets, lost: stats.lost_packets };
        self.round_trip = stats.rtt;
        if !self.loss.on_counts(now - self.epoch, stats.sent_packets, stats.lost_packets) {
            self.begun = self.last;
        }
    }

    /// The session is over.
    pub fn end(&mut self, carrier: &Carrier) {
        self.look(Instant::now(), carrier);
        self.count(carrier);
    }

    /// Counts what is known of it in the metrics.
    fn count(&self, carrier: &Carrier) {
        let labels = [("transport", carrier.kind().name())];
        metrics::histogram!("whimbrel_path_round_trip_seconds", &labels).record(self.round_trip.as_secs_f64());
        let (sent, lost) = (self.last.sent.saturating_sub(self.begun.sent), self.last.lost.saturating_sub(self.begun.lost));
        if sent > 0 {
            metrics::histogram!("whimbrel_path_loss_ratio", &labels).record(lost as f64 / sent as f64);
        }
    }
}
