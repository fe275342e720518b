//! Whether the server is still there: when to ask it, and when to stop believing.
//!
//! A connection that died without a word looks like one that has nothing to say. So silence is probed: soon while the application is
//! active, seldom while it is not (a phone pays for each packet with its battery), and at once when something that was sent stays
//! unanswered for a few round trips.

use crate::Liveness;
use std::time::Duration;
use tokio::time::Instant;

/// An application counts as active for this long after it last asked for something.
const ACTIVE_FOR: Duration = Duration::from_secs(60);
/// What was sent is probed when it stays unanswered for so many round trips …
const ROUND_TRIPS: u32 = 4;
/// … and for at least this long: a server that waits for its disk is not dead.
const ANSWER_MIN: Duration = Duration::from_millis(500);
/// Each connection in a row that is given up for its silence doubles the patience with the next one, so many times: a network that
/// needs longer than we wait would never get anything through.
const DOUBLINGS_MAX: u32 = 4;

/// How closely to watch: of the client, over all its sessions.
#[derive(Debug)]
pub(super) struct Watchfulness {
    liveness: Liveness,
    /// The application says that somebody looks.
    active: bool,
    /// When its last wish stops to count.
    active_until: Instant,
    /// Sessions in a row that were given up because nothing was heard.
    silences: u32,
}

impl Watchfulness {
    pub fn new(liveness: Liveness, now: Instant) -> Self {
        Self { liveness, active: false, active_until: now + ACTIVE_FOR, silences: 0 }
    }

    /// The application says whether somebody looks.
    pub fn on_active(&mut self, active: bool) {
        self.active = active;
    }

    /// The application asked for something.
    pub fn on_wish(&mut self, now: Instant) {
        self.active_until = now + ACTIVE_FOR;
    }

    /// Whether the application is active: somebody looks, or it asked for something a moment ago.
    pub fn is_active(&self, now: Instant) -> bool {
        self.active || now < self.active_until
    }

    /// How long silence may last while nobody is active.
    pub fn idle(&self) -> Duration {
        self.liveness.idle
    }

    /// How long an answer to a probe may take.
    fn patience(&self) -> Duration {
        self.liveness.give_up_after.saturating_mul(1 << self.silences.min(DOUBLINGS_MAX))
    }
}

/// What to do about the server's silence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Wait on.
    Fine,
    /// Ask whether it is there.
    Probe,
    /// Give the connection up; nothing was heard for this long.
    Dead(Duration),
}

/// What was heard of the server in one session.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When something came last, or was last expected to.
    heard: Instant,
    /// Since when it owes an answer, and has said nothing.
    owes: Option<Instant>,
    /// When it was asked whether it is there.
    probed: Option<Instant>,
    /// How long answers take, about.
    round_trip: Duration,
}

impl Pulse {
    /// A session that the server welcomed, so long after the hello.
    pub fn new(now: Instant, round_trip: Duration) -> Self {
        Self { heard: now, owes: None, probed: None, round_trip }
    }

    /// Something came.
    pub fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.owes = None;
        self.probed = None;
    }

    /// The answer to a probe came.
    pub fn on_pong(&mut self, now: Instant, watchfulness: &mut Watchfulness) {
        if let Some(probed) = self.probed {
            let took = now.duration_since(probed);
            self.round_trip = (self.round_trip * 7 + took) / 8;
            if took <= watchfulness.liveness.give_up_after {
                watchfulness.silences = 0;
            }
        }
        self.on_heard(now);
    }

    /// It owes an answer: something was sent, or came while an answer was awaited. A pong is no reason, as it says enough by itself.
    pub fn on_owing(&mut self, now: Instant) {
        self.owes.get_or_insert(now);
    }

    /// Nobody listens now, so nothing can be heard.
    pub fn on_deaf(&mut self, now: Instant) {
        self.on_heard(now);
    }

    /// How long answers take, about.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// When [`check`](Self::check) has something to say although nothing came.
    pub fn due(&self, watchfulness: &Watchfulness) -> Instant {
        if let Some(probed) = self.probed {
            return probed + watchfulness.patience();
        }
        let liveness = &watchfulness.liveness;
        let soon = self.heard + liveness.active;
        let silence = if watchfulness.active || soon < watchfulness.active_until { soon } else { self.heard + liveness.idle };
        let answer = (self.round_trip * ROUND_TRIPS).max(ANSWER_MIN).min(liveness.active);
        self.owes.map_or(silence, |since| silence.min(since + answer))
    }

    /// What to do now.
    pub fn check(&mut self, now: Instant, watchfulness: &mut Watchfulness) -> Verdict {
        if now < self.due(watchfulness) {
            return Verdict::Fine;
        }
        if self.probed.is_none() {
            self.probed = Some(now);
            return Verdict::Probe;
        }
        watchfulness.silences = watchfulness.silences.saturating_add(1);
        Verdict::Dead(now.duration_since(self.heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVENESS: Liveness =
        Liveness { active: Duration::from_secs(4), idle: Duration::from_secs(25), give_up_after: Duration::from_secs(3) };

    struct Test {
        now: Instant,
        watchfulness: Watchfulness,
        pulse: Pulse,
    }

    impl Test {
        fn new(round_trip_ms: u64) -> Self {
            let now = Instant::now();
            let pulse = Pulse::new(now, Duration::from_millis(round_trip_ms));
            Self { now, watchfulness: Watchfulness::new(LIVENESS, now), pulse }
        }

        /// Lets time pass up to the next thing to do; returns what it is, and how many milliseconds that took.
        fn next(&mut self) -> (Verdict, u128) {
            let due = self.pulse.due(&self.watchfulness);
            let before = self.now;
            self.now = due.max(before);
            if due > before {
                let just_before = due - Duration::from_millis(1);
                assert_eq!(self.pulse.check(just_before, &mut self.watchfulness), Verdict::Fine, "too early");
            }
            (self.pulse.check(self.now, &mut self.watchfulness), (self.now - before).as_millis())
        }

        fn later(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        /// The server answers a probe after so many milliseconds.
        fn pong(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
            self.pulse.on_pong(self.now, &mut self.watchfulness);
        }

        fn welcomed_again(&mut self) {
            self.pulse = Pulse::new(self.now, Duration::from_millis(20));
        }
    }

    #[test]
    fn a_dead_server_is_noticed_within_seconds_while_the_application_is_active() {
        let mut test = Test::new(20);
        assert_eq!(test.next(), (Verdict::Probe, 4_000));
        test.pong(20);
        assert_eq!(test.next(), (Verdict::Probe, 4_000));
        assert_eq!(test.next(), (Verdict::Dead(Duration::from_secs(7)), 3_000));
    }

    #[test]
    fn who_is_idle_is_woken_seldom_until_there_is_something_to_do() {
        let mut test = Test::new(20);
        let mut probes = 0;
        while test.now < test.watchfulness.active_until {
            assert_eq!(test.next().0, Verdict::Probe);
            test.pong(20);
            probes += 1;
        }
        assert!((13..=16).contains(&probes), "{probes} probes in the first minute");
        assert_eq!(test.next(), (Verdict::Probe, 25_000));
        test.pong(20);
        // Somebody comes back after a while: whether the server is there is asked at once.
        test.later(10);
        test.watchfulness.on_active(true);
        assert_eq!(test.next(), (Verdict::Probe, 0));
        test.pong(20);
        assert_eq!(test.next(), (Verdict::Probe, 4_000));
        test.pong(20);
        test.watchfulness.on_active(false);
        assert_eq!(test.next(), (Verdict::Probe, 25_000));
        test.pong(20);
        test.later(10);
        test.watchfulness.on_wish(test.now);
        assert_eq!(test.next(), (Verdict::Probe, 0));
    }

    #[test]
    fn what_stays_unanswered_for_a_few_round_trips_is_probed() {
        for (round_trip_ms, after_ms) in [(1, 500), (200, 800), (3_000, 4_000)] {
            let mut test = Test::new(round_trip_ms);
            test.pulse.on_owing(test.now);
            assert_eq!(test.next(), (Verdict::Probe, after_ms), "at a round trip of {round_trip_ms} ms");
        }
        // Also where the application was idle, and not for the second thing anew.
        let mut test = Test::new(20);
        test.later(100);
        test.pulse.on_heard(test.now);
        test.pulse.on_owing(test.now);
        test.now += Duration::from_millis(400);
        test.pulse.on_owing(test.now);
        assert_eq!(test.next(), (Verdict::Probe, 100));
        assert_eq!(test.next(), (Verdict::Dead(Duration::from_millis(3_500)), 3_000));
        // Anything that comes shows that the server is there.
        let mut test = Test::new(20);
        test.pulse.on_owing(test.now);
        test.pulse.on_heard(test.now);
        assert_eq!(test.next(), (Verdict::Probe, 4_000));
    }

    #[test]
    fn a_network_that_needs_longer_gets_more_time() {
        let mut test = Test::new(20);
        for patience in [3_000, 6_000, 12_000, 24_000, 48_000, 48_000] {
            assert_eq!(test.next().0, Verdict::Probe);
            assert_eq!(test.next().1, patience);
            test.welcomed_again();
            test.watchfulness.on_active(true);
        }
        // An answer that comes late is no reason to be impatient again, one in time is.
        for (takes_ms, patience) in [(40_000, 48_000), (100, 3_000)] {
            assert_eq!(test.next().0, Verdict::Probe);
            test.pong(takes_ms);
            assert_eq!(test.next().0, Verdict::Probe);
            let patient = test.pulse.due(&test.watchfulness) - test.now;
            assert_eq!(patient.as_millis(), patience);
            test.pong(takes_ms);
        }
    }

    #[test]
    fn nobody_is_given_up_while_nobody_listens() {
        let mut test = Test::new(20);
        test.pulse.on_owing(test.now);
        assert_eq!(test.next().0, Verdict::Probe);
        test.later(100);
        test.pulse.on_deaf(test.now);
        assert_eq!(test.pulse.check(test.now, &mut test.watchfulness), Verdict::Fine);
        test.watchfulness.on_active(true);
        assert_eq!(test.next(), (Verdict::Probe, 4_000));
    }
}
