//! When which certificate is used on QUIC: a pure function of the clock and of what is there.
//!
//! A browser takes a pinned certificate only if it is good for at most 14 days. So that nobody who knows our hashes is ever turned
//! away, the next certificate is made a whole period before its turn, and its validity begins only shortly before:
//!
//! ```text
//!          EARLY            PERIOD (in use)             LATE
//! current  |-----|==============================|------|
//! next                                    |-----|==============================|------|
//!                 ^ made and listed here         ^ takes over
//! ```
//!
//! Whoever fetched the list at any time in the current period has the hash of the next one too, and can connect for [`PERIOD`] at
//! least and two at most. [`EARLY`] and [`LATE`] forgive clocks of phones that are off by most of a day.

use time::{Duration, OffsetDateTime};

/// How long each certificate is in use. Hashes fetched within this time connect.
pub const PERIOD: Duration = Duration::days(12);
/// How long before its turn a certificate becomes valid.
pub const EARLY: Duration = Duration::days(1);
/// How long after its turn it stays valid. Together it is an hour less than 14 days: a browser counts whole seconds, some of them
/// inclusively.
pub const LATE: Duration = Duration::hours(23);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Valid from here.
    pub not_before: OffsetDateTime,
    /// Valid to here.
    pub not_after: OffsetDateTime,
}

impl Life {
    /// The life of a certificate that is to be used from `start` on.
    #[must_use]
    pub fn used_from(start: OffsetDateTime) -> Self {
        // A certificate counts in whole seconds.
        let start = start.replace_nanosecond(0).unwrap_or(start);
        Self { not_before: start - EARLY, not_after: start + PERIOD + LATE }
    }

    /// When the next one takes over.
    #[must_use]
    pub fn used_until(self) -> OffsetDateTime {
        self.not_after - LATE
    }

    /// Whether it may be given to clients now.
    #[must_use]
    pub fn serves(self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now < self.used_until()
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing before the time given: the turn of the next one.
    Wait(OffsetDateTime),
    /// Make the next certificate, to be used from the time given.
    MakeNext(OffsetDateTime),
    /// The next one becomes the current one.
    Rotate,
    /// Nothing there can be used: make a current one that is used from now on.
    StartAnew,
}

/// The one step to take now. The caller takes it and asks again until it says [`Action::Wait`]; that is at most three times.
#[must_use]
pub fn plan(now: OffsetDateTime, current: Option<Life>, next: Option<Life>) -> Action {
    match (current, next) {
        (Some(current), next) if current.serves(now) => {
            let turn = current.used_until();
            match next {
                Some(next) if next.not_before <= turn && next.used_until() > turn => Action::Wait(turn),
                _ => Action::MakeNext(turn),
            }
        }
        (_, Some(next)) if next.serves(now) => Action::Rotate,
        _ => Action::StartAnew,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn at(hours: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap() + Duration::hours(hours)
    }

    /// Current, next.
    type Pair = (Option<Life>, Option<Life>);

    fn settle(now: OffsetDateTime, (mut current, mut next): Pair) -> Pair {
        for _ in 0..4 {
            match plan(now, current, next) {
                Action::Wait(_) => return (current, next),
                Action::MakeNext(turn) => next = Some(Life::used_from(turn)),
                Action::Rotate => current = next.take(),
                Action::StartAnew => (current, next) = (Some(Life::used_from(now)), None),
            }
        }
        panic!("never settles at {now}");
    }

    #[test]
    fn a_life_fits_what_browsers_allow() {
        let life = Life::used_from(at(0));
        assert!(life.not_after - life.not_before < Duration::days(14));
        assert!(life.not_after - life.not_before > Duration::days(13));
    }

    #[test]
    fn the_current_one_is_always_valid_and_a_list_is_good_for_a_period() {
        let mut pair = (None, None);
        let mut lists = Vec::new();
        for hour in 0..24 * 200 {
            pair = settle(at(hour), pair);
            let (current, next) = (pair.0.unwrap(), pair.1.unwrap());
            assert!(current.not_before <= at(hour) && at(hour) < current.not_after);
            lists.push((at(hour), [current, next]));
            for (fetched, list) in &lists {
                assert!(at(hour) - *fetched >= PERIOD || list.contains(&current), "a list of {fetched} is useless at {}", at(hour));
            }
            lists.retain(|(fetched, _)| at(hour) - *fetched < PERIOD);
        }
    }

    #[test]
    fn phones_with_clocks_off_by_most_of_a_day_still_agree() {
        let mut pair = (None, None);
        for hour in 0..24 * 60 {
            pair = settle(at(hour), pair);
            let life = pair.0.unwrap();
            for skew in [-22, 22] {
                assert!(life.not_before <= at(hour + skew) && at(hour + skew) <= life.not_after);
            }
        }
    }

    #[test]
    fn sleeping_through_one_turn_uses_the_next_and_through_two_starts_anew() {
        let pair = settle(at(0), (None, None));
        let asleep = settle(at(20 * 24), pair);
        assert_eq!(asleep.0, pair.1);
        assert!(settle(at(40 * 24), pair).0.unwrap().serves(at(40 * 24)));
        assert_eq!(plan(at(40 * 24), pair.0, pair.1), Action::StartAnew);
    }

    #[test]
    fn a_clock_that_went_back_starts_anew() {
        let pair = settle(at(24 * 100), (None, None));
        assert_eq!(plan(at(0), pair.0, pair.1), Action::StartAnew);
    }
}
