//! Another network under the same connection: noticing that the system's address is another one, and finding out whether a QUIC connection
//! that was moved to a new socket works there.

use super::networks::local_address;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::frame::Ping;

/// How often the address is looked at while the application is active, where the system gives no notice. It costs three system calls and no
/// packet.
const LOOK: Duration = Duration::from_millis(500);
/// The same while it is not.
const LOOK_IDLE: Duration = Duration::from_secs(25);

/// When a connection that was moved is probed. Several times and soon: a server may send to an address that has not proved itself only
/// three times what came from there, so a single packet that is lost, or whose answer is, would leave it mute until a time-out of seconds.
const PROBES: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(40),
    Duration::from_millis(90),
    Duration::from_millis(150),
    Duration::from_millis(220),
    Duration::from_millis(300),
    Duration::from_millis(500),
];
/// Answers may take so many round trips of the network before …
const ROUND_TRIPS: u32 = 4;
/// … but no other connection is tried sooner than this …
const PATIENCE_MIN: Duration = Duration::from_millis(600);
/// … and no later: there is a WebSocket to be had within the next second.
const PATIENCE_MAX: Duration = Duration::from_millis(1000);

/// A connection on its way to another network.
#[derive(Debug)]
pub(super) struct Move {
    begun: Instant,
    patience: Duration,
    /// Probes that were sent.
    sent: usize,
    /// The first of their ids, which follow each other.
    first: u32,
}

/// What to do about a move.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    Probe(Ping),
    /// The connection does not work there, as far as one can see.
    Failed,
}

impl Move {
    /// The socket is another one as of now. `round_trip` is what answers took before, `first` anything random.
    pub fn begin(now: Instant, round_trip: Duration, first: u32) -> Self {
        let patience = (round_trip * ROUND_TRIPS).clamp(PATIENCE_MIN, PATIENCE_MAX);
        Self { begun: now, patience, sent: 0, first }
    }

    fn id(&self, probe: usize) -> u32 {
        // There are seven.
        self.first.wrapping_add(u32::try_from(probe).unwrap_or(u32::MAX))
    }

    /// When [`step`](Self::step) has something to say.
    pub fn due(&self) -> Instant {
        self.begun + PROBES.get(self.sent).copied().unwrap_or(self.patience).min(self.patience)
    }

    pub fn step(&mut self, now: Instant) -> Step {
        if now >= self.begun + self.patience {
            return Step::Failed;
        }
        if now < self.due() {
            return Step::Wait;
        }
        self.sent += 1;
        Step::Probe(Ping { id: self.id(self.sent - 1) })
    }

    /// Whether this answers a probe: then the connection has arrived. Whatever else comes may have been on its way before.
    pub fn is_answer(&self, pong: &Ping) -> bool {
        (0..self.sent).any(|probe| self.id(probe) == pong.id)
    }
}

/// The address that this machine has towards the server.
#[derive(Debug)]
pub(super) struct Whereabouts {
    peer: SocketAddr,
    local: Option<IpAddr>,
    looked: Instant,
    /// The system says that it may be another one.
    noticed: bool,
}

impl Whereabouts {
    pub fn new(peer: SocketAddr, now: Instant) -> Self {
        Self { peer, local: local_address(peer), looked: now, noticed: false }
    }

    /// The system gives notice.
    pub fn on_notice(&mut self) {
        self.noticed = true;
    }

    /// When to look again, if `notices` of the system are not enough.
    pub fn due(&self, active: bool, notices: bool) -> Option<Instant> {
        match (self.noticed, notices) {
            (true, _) => Some(self.looked),
            (false, true) => None,
            (false, false) => Some(self.looked + if active { LOOK } else { LOOK_IDLE }),
        }
    }

    /// Looks, and says whether the address is another one than before. No address at all is none: there is nowhere to go yet.
    pub fn look(&mut self, now: Instant) -> bool {
        self.looked = now;
        self.noticed = false;
        self.is_another(local_address(self.peer))
    }

    fn is_another(&mut self, local: Option<IpAddr>) -> bool {
        let Some(local) = local else { return false };
        self.local.replace(local).is_some_and(|before| before != local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_move_is_probed_soon_and_often_and_ends_with_an_answer_or_in_time() {
        let begun = Instant::now();
        let mut moving = Move::begin(begun, 5 * MS, u32::MAX - 2);
        let mut probes = Vec::new();
        let mut now = begun;
        let failed = loop {
            match moving.step(now) {
                Step::Probe(ping) => probes.push((now.duration_since(begun), ping)),
                Step::Wait => now = moving.due(),
                Step::Failed => break now.duration_since(begun),
            }
        };
        assert_eq!(probes.iter().map(|(at, _)| *at).collect::<Vec<_>>(), PROBES);
        assert_eq!(failed, PATIENCE_MIN);
        assert!(probes.iter().all(|(_, ping)| moving.is_answer(ping)));
        assert!(!moving.is_answer(&Ping { id: (u32::MAX - 2).wrapping_add(7) }) && !moving.is_answer(&Ping { id: u32::MAX - 3 }));
        let mut first = Move::begin(begun, 5 * MS, 7);
        assert!(!first.is_answer(&Ping { id: 7 }), "what was not asked is not answered");
        assert_eq!(first.step(begun), Step::Probe(Ping { id: 7 }));
        assert!(first.is_answer(&Ping { id: 7 }));
    }

    #[test]
    fn slow_networks_get_more_time_but_not_too_much() {
        let now = Instant::now();
        for (round_trip, patience) in [(1, 600), (200, 800), (2000, 1000)] {
            let mut moving = Move::begin(now, round_trip * MS, 0);
            assert_ne!(moving.step(now + (patience - 1) * MS), Step::Failed);
            assert_eq!(moving.step(now + patience * MS), Step::Failed);
        }
    }

    #[test]
    fn another_address_is_a_change_and_none_is_not() {
        let mut here = Whereabouts::new("127.0.0.1:9".parse().unwrap(), Instant::now());
        assert_eq!(here.local, Some(Ipv4Addr::LOCALHOST.into()));
        assert!(!here.look(Instant::now()));
        let [wifi, cell]: [Option<IpAddr>; 2] = [Some([10, 0, 0, 2].into()), Some([100, 64, 0, 2].into())];
        let seen: Vec<bool> = [wifi, wifi, None, wifi, None, cell, cell].into_iter().map(|local| here.is_another(local)).collect();
        assert_eq!(seen, [true, false, false, false, false, true, false]);
    }
}
