//! What carries packets from one end of a link to the other: late, limited, or not at all. One thread a link, no packet copied twice.

use super::nat::Mapping;
use super::packet::{clamp_segments, is_ipv4, is_udp};
use super::settings::{Settings, Way};
use super::{Counts, Dice, LinkCounts, Namespace, tun};
use crate::LabError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest packet that is taken.
const PACKET_MAX: usize = 65_536;
/// Packets that are read from one end before the other gets its turn.
const TURN: usize = 64;
/// A radio that has had nothing to do for this long is asleep.
const AWAKE: Duration = Duration::from_secs(1);
/// An end whose device is down reports an error all the time: how long it is left alone then.
const DOWN_PAUSE: Duration = Duration::from_millis(2);

/// A link between a phone and the server: the handle. Settings change at once, while packets are on their way; dropping it ends the link.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    /// Rises with each rebinding.
    rebindings: u64,
    counts: LinkCounts,
    /// When the phone sent or got a packet last.
    active: Option<Instant>,
    stop: bool,
}

impl State {
    /// The phone sends or gets a packet.
    fn on_phone_active(&mut self, now: Instant) {
        if self.active.replace(now).is_none_or(|before| now.duration_since(before) >= AWAKE) {
            self.counts.wakes += 1;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, right after each statement: also if somebody panicked while holding them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// A link between a device in the phone's namespace and one in the server's, both made here and named as given.
    pub(crate) fn open(
        (phone, phone_device): (&Namespace, &str),
        (server, server_device): (&Namespace, &str),
        settings: Settings,
        dice: &Dice,
    ) -> Result<Self, LabError> {
        let ends = [tun::open(phone, phone_device)?, tun::open(server, server_device)?];
        let failed = |why: &dyn std::fmt::Display| LabError::Command { command: "start a link".into(), why: why.to_string() };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|why| failed(&why))?;
        let state = State { settings, rebindings: 0, counts: LinkCounts::default(), active: None, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake });
        let emulator = Emulator {
            shared: Arc::clone(&shared),
            ends,
            ways: [Flight::new(dice.split(1)), Flight::new(dice.split(2))],
            mapping: Mapping::new(),
            rebindings: 0,
        };
        let thread = std::thread::Builder::new().name(format!("link {server_device}"));
        let thread = thread.spawn(move || emulator.run()).map_err(|why| failed(&why))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How it is set.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared.state().settings
    }

    /// Sets it anew, from the next packet on. Packets on their way arrive when they would have, unless there is a blackout now.
    pub fn set(&self, settings: Settings) {
        self.shared.state().settings = settings;
    }

    /// Changes some of how it is set.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.state().settings);
    }

    /// Forgets the translation of addresses, as a router does that was restarted: see [`Nat`](super::Nat).
    pub fn rebind(&self) {
        self.shared.state().rebindings += 1;
    }

    /// What went through so far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        self.shared.state().counts
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        // A counter that is full is as awake as it gets.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It has printed its panic, if it had one.
            let _ = thread.join();
        }
    }
}

/// Packets on their way in one direction.
#[derive(Debug)]
struct Flight {
    packets: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    /// Packets so far: those that are due at once keep their order.
    number: u64,
    /// When the last packet that was accepted has left, where there is a rate.
    busy_until: Option<Instant>,
    /// When the last packet that keeps the order arrives.
    last: Option<Instant>,
    dice: Dice,
}

impl Flight {
    fn new(dice: Dice) -> Self {
        Self { packets: BinaryHeap::new(), number: 0, busy_until: None, last: None, dice }
    }

    /// A packet enters.
    fn enter(&mut self, packet: &[u8], way: &Way, now: Instant, counts: &mut Counts) {
        counts.packets_in += 1;
        counts.bytes_in += packet.len() as u64;
        if way.blackout {
            counts.blacked_out += 1;
            return;
        }
        if self.dice.chance(way.loss) {
            counts.lost += 1;
            return;
        }
        let mut due = now;
        if way.rate > 0 {
            let begins = self.busy_until.map_or(now, |busy| busy.max(now));
            let waiting = (begins - now).as_nanos() * u128::from(way.rate) / 8_000_000_000;
            if waiting + packet.len() as u128 > way.queue as u128 {
                counts.queue_full += 1;
                return;
            }
            due = begins + Duration::from_nanos(packet.len() as u64 * 8_000_000_000 / way.rate);
            self.busy_until = Some(due);
        }
        due += way.delay + way.jitter.mul_f64(if way.jitter.is_zero() { 0.0 } else { self.dice.part() });
        if self.dice.chance(way.reorder) {
            counts.held_back += 1;
            due += way.reorder_by;
        } else {
            due = self.last.map_or(due, |last| last.max(due));
            self.last = Some(due);
        }
        self.number += 1;
        self.packets.push(Reverse((due, self.number, packet.to_vec())));
    }

    /// The next packet that is due.
    fn arrive(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        self.packets.pop().map(|Reverse((due, _, packet))| (due, packet))
    }

    fn next_due(&self) -> Option<Instant> {
        self.packets.peek().map(|Reverse((due, ..))| *due)
    }
}

/// Lets this thread run before all others that want to: packets are late when a busy machine lets it wait, and it needs little. A mere
/// priority is not enough, for it counts only among threads of one session. Where it is not allowed, the report shows how late it was.
fn go_first() {
    let mut chrt = Command::new("chrt");
    chrt.args(["--rr", "--pid", "10", &rustix::thread::gettid().to_string()]);
    let _ = chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

struct Emulator {
    shared: Arc<Shared>,
    /// The phone's, the server's.
    ends: [File; 2],
    /// Up, down: each from the end of its number to the other.
    ways: [Flight; 2],
    mapping: Mapping,
    rebindings: u64,
}

impl Emulator {
    fn run(mut self) {
        go_first();
        let mut buffer = vec![0; PACKET_MAX];
        let mut down_until = [None; 2];
        loop {
            for end in 0..2 {
                if !self.read(end, &mut buffer) {
                    return;
                }
            }
            self.deliver();
            self.wait(&mut down_until);
        }
    }

    /// Takes in what one end has sent. Returns whether to go on.
    fn read(&mut self, end: usize, buffer: &mut [u8]) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        if state.rebindings != self.rebindings {
            self.rebindings = state.rebindings;
            self.mapping.rebind();
        }
        let settings = state.settings;
        for _ in 0..TURN {
            // Nothing there, or a device that is down: either way the turn is over.
            let Ok(len) = self.ends[end].read(buffer) else { break };
            let packet = &mut buffer[..len];
            if !is_ipv4(packet) {
                continue;
            }
            let now = Instant::now();
            if end == 0 {
                state.on_phone_active(now);
            }
            let counts = state.counts.way_mut(end);
            if settings.mtu_silent > 0 {
                clamp_segments(packet, settings.mtu_silent);
            }
            if settings.udp_blocked && is_udp(packet) {
                counts.udp_blocked += 1;
            } else if settings.mtu_silent > 0 && len > settings.mtu_silent {
                counts.too_long += 1;
            } else {
                let (passes, way) = match end {
                    0 => (self.mapping.outgoing(packet, settings.nat, settings.forgets, now), &settings.up),
                    _ => (self.mapping.incoming(packet, settings.nat, settings.forgets, now), &settings.down),
                };
                if passes {
                    self.ways[end].enter(packet, way, now, counts);
                } else {
                    counts.nobodys += 1;
                }
            }
        }
        !state.stop
    }

    /// Hands over what is due.
    fn deliver(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        for end in 0..2 {
            let blackout = if end == 0 { state.settings.up.blackout } else { state.settings.down.blackout };
            let now = Instant::now();
            while let Some((due, packet)) = self.ways[end].arrive(now) {
                if end == 1 && !blackout {
                    state.on_phone_active(now);
                }
                let counts = state.counts.way_mut(end);
                if blackout {
                    counts.blacked_out += 1;
                } else if self.ends[1 - end].write_all(&packet).is_ok() {
                    counts.packets_out += 1;
                    counts.bytes_out += packet.len() as u64;
                    counts.late_us_max = counts.late_us_max.max((now - due).as_micros() as u64);
                } else {
                    // The device there is down: the phone has left this network.
                    counts.nobodys += 1;
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, down_until: &mut [Option<Instant>; 2]) {
        let now = Instant::now();
        for down in &mut *down_until {
            *down = down.filter(|until| *until > now);
        }
        let dues = self.ways.iter().filter_map(Flight::next_due).chain(down_until.iter().flatten().copied());
        let timeout = dues.min().map(|due| due.saturating_duration_since(now));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let watched: Vec<usize> = (0..2).filter(|end| down_until[*end].is_none()).collect();
        fds.extend(watched.iter().map(|end| PollFd::new(&self.ends[*end], PollFlags::IN)));
        // Woken by a signal: the loop looks again by itself.
        let _ = poll(&mut fds, timeout.as_ref());
        for (end, fd) in watched.iter().zip(&fds[1..]) {
            if fd.revents().contains(PollFlags::ERR) && !fd.revents().contains(PollFlags::IN) {
                down_until[*end] = Some(now + DOWN_PAUSE);
            }
        }
    }
}
