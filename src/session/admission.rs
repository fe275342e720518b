//! Who may begin a session now, and when to come back who may not.
//!
//! Letting somebody in costs the server far more than an idle session does. If thousands come at once – a crash told nobody when to come back,
//! a mobile network returned – those who are here would wait for the handshakes of all others. So only so many sessions begin in a second,
//! and whoever comes beyond that is given a time of their own, as before a restart.

use crate::engine::End;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::ErrorCode;
use whimbrel_protocol::frame::Error;

/// What begins at once after a pause, as a part of what begins in a second: those who are here notice it as a delay.
const BURST: f64 = 0.25;
/// The part of the room that is kept for those who were told when to come. They are asked like everybody else when they come, so this is what
/// makes it likely that they need not be told again.
const KEPT: f64 = 0.5;
/// Nobody is asked to come sooner than this, in milliseconds: a new connection and its handshake should cost less than the waiting.
const SOONEST_MS: u32 = 500;
/// Clients wait no longer than this, whatever they are told.
const LATEST: Duration = Duration::from_secs(300);
/// When to come back to a server that is full: somebody has to leave first.
const FULL_MS: std::ops::Range<u32> = 20_000..60_000;

/// Lets sessions begin.
#[derive(Debug)]
pub struct Admission {
    most: usize,
    here: Arc<AtomicUsize>,
    closed: AtomicBool,
    gate: Mutex<Gate>,
}

impl Admission {
    /// Up to `most` sessions at a time, of which `a_second` begin in a second.
    #[must_use]
    pub fn new(most: usize, a_second: u32) -> Self {
        let gate = Mutex::new(Gate::new(a_second, Instant::now()));
        Self { most, here: Arc::default(), closed: AtomicBool::new(false), gate }
    }

    /// Sessions that are here, until their farewell is over: a little longer than the hub knows them.
    pub fn here(&self) -> usize {
        self.here.load(Ordering::Relaxed)
    }

    /// From now on nobody may begin: the server leaves.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A place for somebody who has no session yet, and may never have one. `None` if there is none, or the server leaves. It costs no turn: that
    /// is the session's.
    pub(crate) fn place(&self) -> Option<Arc<Admitted>> {
        let admitted = Admitted::new(&self.here);
        let may = !self.closed.load(Ordering::Relaxed) && self.here() <= self.most;
        may.then(|| Arc::new(admitted))
    }

    /// Whether there is one, as it looks now.
    pub(crate) fn has_place(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.here() < self.most
    }

    /// Lets a session begin, or says what to tell its client. One that takes the place of another of its device (a phone that changes its network,
    /// a session that moves to a better transport) needs no place, and was let in before. One that has a `place` waits for its turn only.
    pub(crate) fn ask(&self, takes_over: bool, place: Option<Arc<Admitted>>) -> Result<Arc<Admitted>, End> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(End::going_away(rand::random_range(SOONEST_MS..2 * SOONEST_MS)));
        }
        // Counted first: two who come at once must not both find the last place.
        let has_place = place.is_some();
        let admitted = place.unwrap_or_else(|| Arc::new(Admitted::new(&self.here)));
        if takes_over {
            return Ok(admitted);
        }
        let full = !has_place && self.here() > self.most;
        let overloaded =
            |retry_after_ms, message: &str| Err(End::Error(Error { code: ErrorCode::Overloaded, message: message.into(), retry_after_ms }));
        if full {
            return overloaded(rand::random_range(FULL_MS), "the server has as many sessions as it may (max_sessions)");
        }
        // Nothing panics under this lock.
        match self.gate.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now()) {
            None => Ok(admitted),
            Some(later) => overloaded(u32::try_from(later.as_millis()).unwrap_or(u32::MAX), "more clients come than can be let in at once"),
        }
    }
}

/// A session that may begin, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<AtomicUsize>);

impl Admitted {
    fn new(here: &Arc<AtomicUsize>) -> Self {
        here.fetch_add(1, Ordering::Relaxed);
        Self(here.clone())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A token bucket, and a queue of times for those who find it empty.
#[derive(Debug)]
struct Gate {
    /// In a second.
    rate: f64,
    tokens: f64,
    filled: Instant,
    /// When the next who is put off is to come.
    next: Instant,
}

impl Gate {
    fn new(a_second: u32, now: Instant) -> Self {
        let rate = f64::from(a_second.max(1));
        Self { rate, tokens: Self::burst(rate), filled: now, next: now }
    }

    /// At least one.
    fn burst(rate: f64) -> f64 {
        (rate * BURST).max(1.0)
    }

    /// `None` to come in, or how much later to come.
    fn pass(&mut self, now: Instant) -> Option<Duration> {
        self.tokens = (self.tokens + self.rate * now.saturating_duration_since(self.filled).as_secs_f64()).min(Self::burst(self.rate));
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        let soonest = now + Duration::from_millis(SOONEST_MS.into());
        // Whom the last of the times would be too late for begin with the first again.
        if self.next < soonest || self.next > now + LATEST {
            self.next = soonest;
        }
        let slot = Duration::from_secs_f64(1.0 / (self.rate * KEPT));
        let later = self.next + slot.mul_f64(rand::random()) - now;
        self.next += slot;
        Some(later)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_crowd_is_let_in_as_fast_as_was_said_and_nearly_all_wait_once() {
        const CROWD: u32 = 20_000;
        let begun = Instant::now();
        let mut gate = Gate::new(1_000, begun);
        // All at once; and beside them somebody each 10 ms who was not told anything.
        let mut coming: BinaryHeap<Reverse<(Instant, u32)>> = (0..CROWD).map(|_| Reverse((begun, 0))).collect();
        let mut others: Vec<Instant> = (0..5_000).map(|number| begun + 10 * MS * number).collect();
        coming.extend(others.drain(..).map(|at| Reverse((at, 0))));
        let (mut let_in, mut told) = (Vec::new(), Vec::new());
        while let Some(Reverse((at, times))) = coming.pop() {
            match gate.pass(at) {
                None => {
                    let_in.push(at);
                    told.push(times);
                }
                Some(later) => {
                    assert!(later >= Duration::from_millis(SOONEST_MS.into()) && later <= LATEST + MS * 2, "{later:?}");
                    coming.push(Reverse((at + later, times + 1)));
                }
            }
        }
        assert_eq!(let_in.len(), CROWD as usize + 5_000);
        for (number, at) in let_in.iter().enumerate() {
            // Never more than the burst and the rate.
            let most = 250.0 + 1_000.0 * at.duration_since(begun).as_secs_f64();
            assert!(number as f64 <= most + 1.0, "{number} after {:?}", at.duration_since(begun));
        }
        let all = let_in.last().unwrap().duration_since(begun);
        assert!(all < Duration::from_secs(50), "{all:?}");
        let more_than_once = told.iter().filter(|times| **times > 1).count();
        assert!(more_than_once < CROWD as usize / 100, "{more_than_once} were told more than once");
    }

    #[test]
    fn who_comes_alone_never_waits() {
        let begun = Instant::now();
        let mut gate = Gate::new(1, begun);
        for second in 0..100 {
            assert_eq!(gate.pass(begun + 1_000 * MS * second), None);
        }
        assert!(gate.pass(begun + 1_000 * MS * 99).is_some());
    }

    #[test]
    fn times_begin_again_before_they_are_later_than_clients_obey() {
        let begun = Instant::now();
        let mut gate = Gate::new(10, begun);
        let told: Vec<Duration> = (0..10_000).filter_map(|_| gate.pass(begun)).collect();
        assert!(told.iter().all(|later| *later <= LATEST + 200 * MS));
        assert!(told.iter().filter(|later| **later < 701 * MS).count() > 5, "from the beginning again");
    }

    #[test]
    fn a_full_server_and_one_that_leaves_say_when_to_come() {
        let admission = Admission::new(2, 1_000);
        let first = admission.ask(false, None).unwrap();
        let _second = admission.ask(false, None).unwrap();
        let refused = admission.ask(false, None);
        let Err(End::Error(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.code, ErrorCode::Overloaded);
        assert!(FULL_MS.contains(&error.retry_after_ms));
        assert_eq!(admission.here(), 2);
        drop(admission.ask(true, None).unwrap());
        drop(first);
        drop(admission.ask(false, None).unwrap());
        admission.close();
        let refused = admission.ask(true, None);
        let Err(End::GoAway(away)) = refused else { panic!("{refused:?}") };
        assert!(away.retry_after_ms >= SOONEST_MS);
        assert_eq!(admission.here(), 1);
    }
}
