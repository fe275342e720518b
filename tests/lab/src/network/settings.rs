//! How good a link is, each way.

use super::{Forgets, Nat};
use serde::Serialize;
use std::time::Duration;

/// One way of a link. Packets are counted in bytes of IP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Way {
    /// How long a packet takes, at least.
    pub delay: Duration,
    /// How much longer it may take: any time up to this is as likely. Order is kept, so a packet may wait for the one before it too.
    pub jitter: Duration,
    /// The part of packets that is lost, 0 to 1; each by itself.
    pub loss: f64,
    /// The part of packets that is held back, 0 to 1, so that those behind it overtake it.
    pub reorder: f64,
    /// For how long it is held back.
    pub reorder_by: Duration,
    /// Bits a second; 0: no limit.
    pub rate: u64,
    /// Bytes that may wait for their turn where there is a rate; what comes on top of them is dropped.
    pub queue: usize,
    /// Nothing gets through; what is on its way is lost too. Addresses and routes stay, nobody is told.
    pub blackout: bool,
}

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    /// From the phone to the server.
    pub up: Way,
    /// From the server to the phone.
    pub down: Way,
    /// UDP does not get through, as in some company networks.
    pub udp_blocked: bool,
    /// Whether the phone's UDP addresses are translated.
    pub nat: Nat,
    /// After how much silence it forgets connections.
    pub forgets: Forgets,
    /// Packets with more bytes than this vanish without a word, as where a network filters ICMP; 0: none do. Connections over TCP that begin
    /// there keep their segments short, as routers of such networks see to. An MTU that the devices know of is another thing:
    /// [`Phone::set_mtu`](crate::Phone::set_mtu).
    pub mtu_silent: usize,
}

impl Way {
    /// Without loss, jitter or limits.
    #[must_use]
    pub const fn of_delay(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            rate: 0,
            queue: 64 * 1024,
            blackout: false,
        }
    }
}

const NEVER: Forgets = Forgets { udp_s: 0, tcp_s: 0 };

impl Settings {
    /// The same both ways, with half of the round trip time each.
    #[must_use]
    pub const fn of_round_trip_ms(ms: u64) -> Self {
        let way = Way::of_delay(Duration::from_micros(ms * 500));
        Self { up: way, down: way, udp_blocked: false, nat: Nat::Off, forgets: NEVER, mtu_silent: 0 }
    }

    /// The same with this part of packets lost each way, 0 to 1.
    #[must_use]
    pub const fn loss(mut self, part: f64) -> Self {
        self.up.loss = part;
        self.down.loss = part;
        self
    }

    /// The same with jitter of up to so many milliseconds each way.
    #[must_use]
    pub const fn jitter_ms(mut self, ms: u64) -> Self {
        self.up.jitter = Duration::from_millis(ms);
        self.down.jitter = self.up.jitter;
        self
    }

    /// The same with this part of packets held back for so many milliseconds each way.
    #[must_use]
    pub const fn reorder(mut self, part: f64, by_ms: u64) -> Self {
        self.up.reorder = part;
        self.up.reorder_by = Duration::from_millis(by_ms);
        self.down.reorder = part;
        self.down.reorder_by = self.up.reorder_by;
        self
    }

    /// The same with a rate in bits a second and a queue in bytes, each way.
    #[must_use]
    pub const fn rate(mut self, bits_per_second: u64, queue: usize) -> Self {
        self.up.rate = bits_per_second;
        self.up.queue = queue;
        self.down.rate = bits_per_second;
        self.down.queue = queue;
        self
    }

    /// The same with a blackout, or without, both ways.
    #[must_use]
    pub const fn blackout(mut self, on: bool) -> Self {
        self.up.blackout = on;
        self.down.blackout = on;
        self
    }

    /// The same behind a translation of addresses.
    #[must_use]
    pub const fn nat(mut self, nat: Nat) -> Self {
        self.nat = nat;
        self
    }

    /// The same behind a translation of addresses that forgets after so many seconds of silence, 0 for never.
    #[must_use]
    pub const fn forgets(mut self, udp_s: u16, tcp_s: u16) -> Self {
        self.nat = Nat::Ports;
        self.forgets = Forgets { udp_s, tcp_s };
        self
    }

    /// How long a small packet and its answer take without loss, jitter and queues.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.up.delay + self.down.delay
    }
}

/// A good Wi-Fi at home: 5 ms.
pub const WIFI_GOOD: Settings = Settings::of_round_trip_ms(5);
/// A cellular network: 40 ms, 1 % lost each way.
pub const CELL: Settings = Settings::of_round_trip_ms(40).loss(0.01);
/// An old cellular network: 100 ms, 2 % lost each way, 2 Mbit/s.
pub const CELL_OLD: Settings = Settings::of_round_trip_ms(100).loss(0.02).rate(2_000_000, 64 * 1024);
/// A bad network: 80 ms, 10 % lost each way.
pub const LOSSY: Settings = Settings::of_round_trip_ms(80).loss(0.1);
