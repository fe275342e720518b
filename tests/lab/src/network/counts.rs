//! What went through a link.

use serde::Serialize;
use std::ops::{Add, Sub};

/// One way of a link, in packets and bytes of IP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets that entered.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets that arrived.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets dropped because the queue was full.
    pub queue_full: u64,
    /// Packets that a blackout swallowed.
    pub blacked_out: u64,
    /// Packets that were held back, and so perhaps overtaken.
    pub held_back: u64,
    /// Packets of UDP that were not let through; they count as entered neither in packets nor in bytes.
    pub udp_blocked: u64,
    /// Packets that were too long for the path; not counted as entered either.
    pub too_long: u64,
    /// Packets for a device that is down, or for a port whose translation is forgotten.
    pub nobodys: u64,
    /// By how much the emulator was late at most, in microseconds: how busy the machine was.
    pub late_us_max: u64,
}

/// Both ways of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LinkCounts {
    /// From the phone to the server.
    pub up: Counts,
    /// From the server to the phone.
    pub down: Counts,
    /// How often the phone's radio was woken: a packet of its own or for it, after a second or more without any.
    pub wakes: u64,
}

impl LinkCounts {
    /// The way that begins at the phone's end (0) or at the server's.
    pub(super) fn way_mut(&mut self, end: usize) -> &mut Counts {
        if end == 0 { &mut self.up } else { &mut self.down }
    }
}

impl Counts {
    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            packets_in: of(self.packets_in, other.packets_in),
            bytes_in: of(self.bytes_in, other.bytes_in),
            packets_out: of(self.packets_out, other.packets_out),
            bytes_out: of(self.bytes_out, other.bytes_out),
            lost: of(self.lost, other.lost),
            queue_full: of(self.queue_full, other.queue_full),
            blacked_out: of(self.blacked_out, other.blacked_out),
            held_back: of(self.held_back, other.held_back),
            udp_blocked: of(self.udp_blocked, other.udp_blocked),
            too_long: of(self.too_long, other.too_long),
            nobodys: of(self.nobodys, other.nobodys),
            late_us_max: self.late_us_max.max(other.late_us_max),
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }
}

/// What came since an earlier count.
impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }
}

impl Add for LinkCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { up: self.up + other.up, down: self.down + other.down, wakes: self.wakes + other.wakes }
    }
}

impl Sub for LinkCounts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let wakes = self.wakes.saturating_sub(earlier.wakes);
        Self { up: self.up - earlier.up, down: self.down - earlier.down, wakes }
    }
}
