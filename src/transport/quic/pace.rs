//! How much may be under way to a client while answers go there, so that they use the path and nothing stands in a queue behind them.
//!
//! A path carries what is under way up to its round trip times its rate; more than that only waits, at its narrowest place. So the answers'
//! window follows what acknowledgements tell: it grows while a round trip takes what it takes on an empty path, and a little more, and
//! shrinks to fit when it takes longer. (The idea is that of TCP Vegas and FAST.) A lost packet says nothing about queues, and changes
//! nothing here: that is for the congestion window, which holds as well.

use std::time::{Duration, Instant};

/// What answers may add to a round trip: what waits is no more than the path carries in this time.
const QUEUE: Duration = Duration::from_millis(8);
/// Two packets are the least: a single one's acknowledgement is kept back to see whether another one follows.
const WINDOW_MIN: u64 = 2 * 1_200;
const WINDOW_FIRST: u64 = 4 * 1_200;
/// As much as may wait unacknowledged at all.
const WINDOW_MAX: u64 = super::config::SEND_WINDOW;
/// So long at most, or for a quarter of a round trip, an acknowledgement waits for more packets, if there are less than ten: in Chromium.
const HELD: Duration = Duration::from_millis(25);
const HELD_BYTES: u64 = 10 * 1_200;
/// The most by which the window grows at once, as a share of itself.
const STEP_MAX: f64 = 0.5;
/// What was learned of a path is forgotten when the window was not used for so long: it may have become a narrow one.
const KEEP: Duration = Duration::from_secs(1);
/// Round trips that stay long for so many rounds, whatever little is sent, are so for another reason: the path has become another one, others
/// fill its queue, or the client takes its time with acknowledgements.
const ROUNDS_OTHER: u32 = 3;

/// What may go out as of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// When that was.
    pub as_of: Instant,
    /// How many bytes may go out until the next one comes, what went out since this one included.
    pub bytes: u64,
}

/// The window of one path.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    window: u64,
    /// No queue was seen yet: it grows with each acknowledgement, by half a round trip's worth in a round trip.
    beginning: bool,
    /// Later, by what share of itself it grows where there is next to no queue: as much as makes half the queue that is allowed, and twice as
    /// much each time that there is still none, up to a half.
    step: f64,
    /// When it was used last.
    used: Instant,
    /// The shortest round trip: what an empty path takes.
    shortest: Duration,
    round: Round,
    /// Rounds that were too long with the smallest window.
    long: u32,
    /// Under way after the last acknowledgement, and when that came.
    in_flight: u64,
    as_of: Instant,
    /// Of the acknowledgement that is being read: bytes, and the shortest round trip.
    batch: u64,
    took: Duration,
}

/// What was seen of a window since it is what it is.
#[derive(Debug, Clone)]
struct Round {
    begun: Instant,
    /// When the first packet that was sent under it was acknowledged.
    answered: Option<Instant>,
    shortest: Duration,
    /// The most that was under way.
    most: u64,
}

impl Round {
    fn new(begun: Instant) -> Self {
        Self { begun, answered: None, shortest: Duration::MAX, most: 0 }
    }
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self {
            window: WINDOW_FIRST,
            beginning: true,
            step: STEP_MAX,
            used: now,
            shortest: Duration::MAX,
            round: Round::new(now),
            long: 0,
            in_flight: 0,
            as_of: now,
            batch: 0,
            took: Duration::MAX,
        }
    }

    /// How much may go out, where no more than `most` may be under way at all.
    pub fn room(&self, now: Instant, most: u64) -> Room {
        let window = if self.is_stale(now) { WINDOW_FIRST } else { self.window };
        Room { as_of: self.as_of, bytes: window.min(most).saturating_sub(self.in_flight) }
    }

    fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) > KEEP
    }

    /// A packet was acknowledged.
    pub fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let took = now.saturating_duration_since(sent);
        self.shortest = self.shortest.min(took);
        self.took = self.took.min(took);
        self.batch += bytes;
        if sent >= self.round.begun {
            self.round.answered.get_or_insert(now);
            self.round.shortest = self.round.shortest.min(took);
        }
    }

    /// An acknowledgement was read to its end; so much is under way now.
    pub fn on_end_acks(&mut self, now: Instant, in_flight: u64) {
        (self.in_flight, self.as_of) = (in_flight, now);
        let (batch, took) = (std::mem::take(&mut self.batch), std::mem::replace(&mut self.took, Duration::MAX));
        if batch == 0 {
            // It was of the path before, and says nothing of this one.
            return;
        }
        let most = in_flight + batch;
        self.round.most = self.round.most.max(most);
        // What was not used shows nothing.
        let is_used = most >= self.window / 2;
        if is_used {
            self.used = now;
        } else if self.is_stale(now) {
            (self.window, self.beginning) = (WINDOW_FIRST, true);
        }
        if self.beginning {
            // Browsers keep acknowledgements of a few packets back for a while.
            let held = if self.window < HELD_BYTES { HELD.min(self.shortest / 4) } else { Duration::ZERO };
            if is_used && took <= self.shortest + held + QUEUE / 2 {
                self.window = (self.window + batch / 2).min(WINDOW_MAX);
            } else if is_used {
                self.beginning = false;
                self.round = Round::new(now);
            }
        } else if self.round.answered.is_some_and(|answered| now >= answered + self.round.shortest / 2) {
            // It was half a round trip: some acknowledgements are late by themselves.
            if self.round.most >= self.window / 2 {
                self.end_round();
            }
            // What is sent at once still finds the queue as it was.
            self.round = Round::new(now + self.shortest / 4);
        }
    }

    /// Packets were lost, and are under way no more.
    pub fn on_lost(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    fn end_round(&mut self) {
        let (took, shortest) = (self.round.shortest.as_secs_f64().max(1e-6), self.shortest.as_secs_f64().max(1e-6));
        let queue = QUEUE.as_secs_f64();
        let by = if took <= shortest + queue / 2.0 {
            let step = self.step;
            self.step = (2.0 * step).min(STEP_MAX);
            1.0 + step
        } else {
            self.step = (queue / 2.0 / shortest).min(STEP_MAX);
            ((shortest + queue) / took).clamp(0.5, 1.0 + self.step)
        };
        let window = (self.window as f64 * by) as u64;
        self.long = if window < WINDOW_MIN { self.long + 1 } else { 0 };
        // Where something else is narrower, more would never be used.
        let most = WINDOW_MAX.min(self.round.most * 9 / 5);
        self.window = window.min(most).max(WINDOW_MIN);
        if self.long == ROUNDS_OTHER {
            (self.shortest, self.long, self.beginning) = (self.round.shortest, 0, true);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: u64 = 1_200;

    /// A path with a narrow place, and somebody who sends all that he may every few milliseconds.
    struct Path {
        now: Instant,
        pace: Pace,
        /// Bits a second, and what an empty path takes.
        rate: f64,
        round_trip: Duration,
        /// Each acknowledgement takes up to this much longer.
        jitter: Duration,
        /// Acknowledgements of less than ten packets wait so long for more.
        held: Duration,
        /// The congestion window.
        most: u64,
        random: u64,
        /// When the narrow place is through with what it has.
        free: Instant,
        /// When acknowledgements come, and when what they are for was sent.
        acks: VecDeque<(Instant, Instant)>,
        /// What was handed over since this acknowledgement.
        handed: (Instant, u64),
        carried: u64,
        /// How long packets waited, at most.
        waited: Duration,
    }

    impl Path {
        fn new(rate: f64, round_trip: Duration) -> Self {
            let now = Instant::now();
            let (pace, acks) = (Pace::new(now), VecDeque::new());
            let (jitter, held, waited) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
            Self {
                now,
                pace,
                rate,
                round_trip,
                jitter,
                held,
                most: u64::MAX,
                random: 1,
                free: now,
                acks,
                handed: (now, 0),
                carried: 0,
                waited,
            }
        }

        fn go_on(&mut self, time: Duration) {
            let end = self.now + time;
            (self.carried, self.waited) = (0, Duration::ZERO);
            while self.now < end {
                let room = self.pace.room(self.now, self.most);
                if room.as_of != self.handed.0 {
                    self.handed = (room.as_of, 0);
                }
                while self.handed.1 < room.bytes {
                    self.handed.1 += PACKET;
                    self.waited = self.waited.max(self.free.saturating_duration_since(self.now));
                    self.free = self.free.max(self.now) + Duration::from_secs_f64(PACKET as f64 * 8.0 / self.rate);
                    self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let late = self.jitter.mul_f64((self.random >> 40) as f64 / f64::from(1 << 24));
                    // Acknowledgements do not overtake each other.
                    let back = (self.free + self.round_trip + late).max(self.acks.back().map_or(self.now, |(back, _)| *back));
                    self.acks.push_back((back, self.now));
                }
                let tick = self.now + 5 * MS;
                while self.acks.front().is_some_and(|(first, _)| *first + self.held <= tick || !self.held.is_zero() && self.tenth() <= tick)
                {
                    let back = if self.held.is_zero() { self.acks[0].0 } else { self.tenth().min(self.acks[0].0 + self.held) };
                    while let Some((_, sent)) = self.acks.pop_front_if(|(came, _)| *came <= back) {
                        self.pace.on_ack(back, sent, PACKET);
                        self.carried += PACKET;
                    }
                    self.pace.on_end_acks(back, self.acks.len() as u64 * PACKET);
                }
                self.now = tick;
            }
        }

        /// When the tenth packet that is not acknowledged has come.
        fn tenth(&self) -> Instant {
            self.acks.get(9).map_or(self.now + Duration::from_secs(3_600), |(came, _)| *came)
        }

        /// How long a packet may wait: the queue that is meant to be, what is sent at once, and a few packets more.
        fn waits(&self) -> Duration {
            QUEUE + 5 * MS + Duration::from_secs_f64(3.0 * PACKET as f64 * 8.0 / self.rate)
        }

        /// What was carried last, of what could have been.
        fn use_of(&self, time: Duration) -> f64 {
            self.carried as f64 * 8.0 / (self.rate * time.as_secs_f64())
        }
    }

    #[test]
    fn a_path_is_used_and_no_queue_stands_in_it() {
        for rate in [1e6, 2e6, 10e6] {
            for round_trip in [2, 20, 40, 100] {
                let mut path = Path::new(rate, round_trip * MS);
                path.go_on(5_000 * MS);
                path.go_on(10_000 * MS);
                let (used, waited) = (path.use_of(10_000 * MS), path.waited);
                assert!(used > 0.8, "{rate} {round_trip}: {used}");
                assert!(waited < path.waits(), "{rate} {round_trip}: {waited:?}");
            }
        }
    }

    #[test]
    fn the_beginning_makes_no_long_queue() {
        for round_trip in [5, 40, 200] {
            let mut path = Path::new(2e6, round_trip * MS);
            path.go_on(5_000 * MS);
            assert!(path.waited < round_trip * MS / 2 + 30 * MS, "{round_trip}: {:?}", path.waited);
        }
    }

    #[test]
    fn where_answers_come_unevenly_some_of_the_path_is_still_used() {
        let mut path = Path::new(2e6, 60 * MS);
        path.jitter = 20 * MS;
        path.go_on(5_000 * MS);
        path.go_on(20_000 * MS);
        let used = path.use_of(20_000 * MS);
        assert!(used > 0.4 && path.waited < 60 * MS, "{used}, {:?}", path.waited);
    }

    #[test]
    fn a_path_that_becomes_longer_is_used_again() {
        let mut path = Path::new(2e6, 20 * MS);
        path.go_on(5_000 * MS);
        path.round_trip = 120 * MS;
        path.go_on(10_000 * MS);
        path.go_on(5_000 * MS);
        assert!(path.use_of(5_000 * MS) > 0.8, "{}", path.use_of(5_000 * MS));
        path.round_trip = 20 * MS;
        path.go_on(5_000 * MS);
        path.go_on(5_000 * MS);
        assert!(path.use_of(5_000 * MS) > 0.8 && path.waited < path.waits(), "{:?}", path.waited);
    }

    #[test]
    fn a_path_that_became_narrow_while_nobody_asked_gets_no_flood() {
        let mut path = Path::new(100e6, 5 * MS);
        path.go_on(5_000 * MS);
        assert!(path.pace.window > 10 * WINDOW_FIRST);
        path.now += 2_000 * MS;
        (path.rate, path.round_trip) = (2e6, 40 * MS);
        path.go_on(1_000 * MS);
        // It grows by half of itself while nothing is seen yet, as at any beginning.
        assert!(path.waited < 70 * MS, "{:?}", path.waited);
    }

    #[test]
    fn a_path_longer_than_what_is_kept_is_used_too() {
        let mut path = Path::new(1e6, 1_500 * MS);
        path.go_on(60_000 * MS);
        path.go_on(30_000 * MS);
        assert!(path.use_of(30_000 * MS) > 0.8, "{}", path.use_of(30_000 * MS));
        // Also one that was short when it began.
        let mut path = Path::new(1e6, 40 * MS);
        path.go_on(5_000 * MS);
        path.round_trip = 1_500 * MS;
        path.go_on(90_000 * MS);
        path.go_on(30_000 * MS);
        assert!(path.use_of(30_000 * MS) > 0.8, "{}", path.use_of(30_000 * MS));
    }

    #[test]
    fn a_page_of_history_comes_soon_on_a_long_path() {
        let mut path = Path::new(50e6, 100 * MS);
        path.go_on(900 * MS);
        assert!(path.carried > 100_000, "{}", path.carried);
    }

    #[test]
    fn a_client_that_keeps_acknowledgements_back_is_served_all_the_same() {
        let mut path = Path::new(50e6, 100 * MS);
        path.pace.shortest = 100 * MS;
        // As Chromium does after a while: every ten packets, or after 25 ms.
        path.held = 25 * MS;
        path.go_on(2_000 * MS);
        assert!(path.carried > 100_000, "{}", path.carried);
    }

    #[test]
    fn where_the_congestion_window_is_smaller_it_is_used() {
        let mut path = Path::new(50e6, 100 * MS);
        path.most = 20_000;
        path.go_on(5_000 * MS);
        path.go_on(10_000 * MS);
        // So much a round trip, and what the looking every few milliseconds costs.
        let possible = 20_000.0 * 8.0 / 0.1 / 50e6;
        assert!(path.use_of(10_000 * MS) > 0.8 * possible, "{}", path.use_of(10_000 * MS) / possible);
    }

    #[test]
    fn what_is_acknowledged_of_the_path_before_says_nothing() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        pace.on_end_acks(begun, 100_000);
        pace.on_lost(100_000);
        assert_eq!(pace.room(begun, u64::MAX), Room { as_of: begun, bytes: WINDOW_FIRST });
    }

    #[test]
    fn whatever_is_acknowledged_or_lost_in_whatever_order_the_window_stays_within_its_bounds() {
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        // Up to so many bits, few as often as many.
        let mut any = |bits: u64| next() >> (31 - next() % bits);
        for _ in 0..200 {
            let mut now = Instant::now();
            let mut pace = Pace::new(now);
            for _ in 0..500 {
                now += Duration::from_micros(any(24));
                match any(3) {
                    0 => pace.on_ack(now, now.checked_sub(Duration::from_micros(any(24))).unwrap_or(now), any(15)),
                    1 => pace.on_lost(any(31)),
                    _ => pace.on_end_acks(now, any(31)),
                }
                assert!((WINDOW_MIN..=WINDOW_MAX).contains(&pace.window), "{pace:?}");
                assert!(pace.room(now, u64::MAX).bytes <= WINDOW_MAX);
            }
        }
    }

    #[test]
    fn what_was_lost_makes_room() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let now = begun + 40 * MS;
        pace.on_ack(now, begun, 1_200);
        pace.on_end_acks(now, 2_400);
        let full = pace.room(now, u64::MAX).bytes;
        pace.on_lost(2_400);
        assert_eq!(pace.room(now, u64::MAX).bytes, full + 2_400);
    }

    #[test]
    fn who_says_little_learns_nothing_of_the_path() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let mut now = begun;
        for second in 1..100 {
            let sent = begun + 1_000 * second * MS;
            now = sent + 40 * MS;
            pace.on_ack(now, sent, 100);
            pace.on_end_acks(now, 0);
        }
        assert_eq!(pace.room(now, u64::MAX), Room { as_of: now, bytes: WINDOW_FIRST });
    }
}
