//! Whether the machine keeps its pace while something is measured. A virtual machine may get a tenth of its CPU for some milliseconds,
//! and nothing in it says so; whoever queues for the CPU then waits for the machine, not for the server. A thread does the same little
//! piece of work again and again: where that takes twice as long as it mostly does, the machine is slow.

use super::BenchError;
use super::histogram::{Histogram, Quantiles};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(2);
/// Rounds of a piece of work: some ten microseconds.
const ROUNDS: u32 = 8_000;
/// Pieces a look, of which the shortest counts: another thread may come between one of them, not between all.
const PIECES: u32 = 3;
/// Looks that are kept: ten minutes.
const LOOKS_MAX: usize = 300_000;
/// So much longer than in the middle is slow.
const SLOW: u32 = 2;

/// When it looked, and what a piece took.
type Look = (Instant, Duration);

/// Looks at the pace until it is asked what it saw.
#[derive(Debug)]
pub(super) struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

impl Watch {
    /// Begins, on the CPUs of the load.
    pub fn start() -> Result<Self, BenchError> {
        let ended = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&ended);
        let look = move || {
            let mut looks = Vec::new();
            loop {
                let took = (0..PIECES).map(|_| piece()).min().unwrap_or_default();
                looks.push((Instant::now(), took));
                if watched.load(Ordering::Relaxed) || looks.len() >= LOOKS_MAX {
                    return looks;
                }
                std::thread::sleep(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("pace".into()).spawn(look).map_err(|why| BenchError::Failed(why.to_string()))?;
        Ok(Self { ended, thread })
    }

    /// What it saw.
    pub fn end(self) -> Result<Slow, BenchError> {
        Ok(Slow::of(&self.looks()?))
    }

    fn looks(self) -> Result<Vec<Look>, BenchError> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| BenchError::Failed("the thread that looks at the pace panicked".into()))
    }
}

fn piece() -> Duration {
    let begun = Instant::now();
    let mut number = black_box(1u32);
    for _ in 0..ROUNDS {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }
    black_box(number);
    begun.elapsed()
}

/// When the machine was slow, and as long again after each time, in which what had queued is done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Slow(Vec<(Instant, Instant)>);

impl Slow {
    fn of(looks: &[Look]) -> Self {
        let mut all: Vec<Duration> = looks.iter().map(|(_, took)| *took).collect();
        all.sort_unstable();
        let Some(middle) = all.get(all.len() / 2) else { return Self::default() };
        let mut spans: Vec<(Instant, Instant)> = Vec::new();
        let mut add = |begun: Instant, until: Instant| match spans.last_mut() {
            Some((_, last)) if *last >= begun => *last = until.max(*last),
            _ => spans.push((begun, until)),
        };
        let mut begun = None;
        for pair in looks.windows(2) {
            let [(before, _), (at, took)] = pair else { continue };
            if *took > *middle * SLOW {
                // Since the last look it may have been so.
                begun.get_or_insert(*before);
            } else if let Some(begun) = begun.take() {
                add(begun, *at + at.saturating_duration_since(begun));
            }
        }
        // What had not ended with the last look is over with the run.
        if let Some((begun, (at, _))) = begun.zip(looks.last()) {
            add(begun, *at);
        }
        Self(spans)
    }

    /// Whether any of this time was slow.
    fn meets(&self, from: Instant, until: Instant) -> bool {
        let after = self.0.partition_point(|(_, end)| *end < from);
        self.0.get(after).is_some_and(|(begun, _)| *begun <= until)
    }

    /// The part of this time that was slow.
    pub fn part(&self, from: Instant, until: Instant) -> f64 {
        let whole = until.saturating_duration_since(from).as_secs_f64();
        let inside = |(begun, end): &(Instant, Instant)| (*end).min(until).saturating_duration_since((*begun).max(from)).as_secs_f64();
        // A sum of nothing is -0.0, and is printed so.
        let slow = self.0.iter().map(inside).sum::<f64>() + 0.0;
        if whole > 0.0 { slow / whole } else { 0.0 }
    }
}

/// Times that are kept one by one, so that those of a slow machine can be set apart.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<(Instant, Duration)>);

impl Times {
    /// One that began then.
    pub fn record(&mut self, begun: Instant, took: Duration) {
        self.0.push((begun, took));
    }

    /// Of all of them, and of those in which the machine kept its pace.
    pub fn quantiles(&self, slow: &Slow) -> (Quantiles, Quantiles) {
        let (mut all, mut steady) = (Histogram::new(), Histogram::new());
        for (begun, took) in &self.0 {
            all.record(*took);
            if !slow.meets(*begun, *begun + *took) {
                steady.record(*took);
            }
        }
        (all.quantiles(), steady.quantiles())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn looks(begun: Instant, slow: impl Fn(u32) -> bool) -> Vec<Look> {
        (0..100).map(|number| (begun + MS * number, if slow(number) { MS / 10 } else { MS / 30 })).collect()
    }

    #[test]
    fn a_slow_moment_lasts_from_the_look_before_it_and_as_long_again() {
        let begun = Instant::now();
        let at = |ms: u32| begun + MS * ms;
        assert_eq!(Slow::of(&[]), Slow::default());
        assert_eq!(Slow::of(&looks(begun, |_| false)), Slow::default());
        let slow = Slow::of(&looks(begun, |number| (10..20).contains(&number) || (25..27).contains(&number) || number >= 90));
        // From 9 to 20 and 11 more, in which the second begins, which ends later by itself; the last lasts to the end.
        assert_eq!(slow, Slow(vec![(at(9), at(31)), (at(89), at(99))]));
        assert!((slow.part(at(0), at(100)) - 0.32).abs() < 1e-9 && slow.part(at(40), at(80)) == 0.0);
        assert!(slow.meets(at(0), at(9)) && slow.meets(at(31), at(40)) && slow.meets(at(12), at(13)) && slow.meets(at(0), at(100)));
        // One that lasts to the end is one with what it follows closely.
        let slow_to_the_end = Slow::of(&looks(begun, |number| (60..80).contains(&number) || number >= 85));
        assert_eq!(slow_to_the_end, Slow(vec![(at(59), at(101))]));
        assert!(!slow.meets(at(0), at(8)) && !slow.meets(at(32), at(88)) && !slow.meets(at(100), at(101)));
    }

    #[test]
    fn times_of_a_slow_machine_are_set_apart_and_not_left_out() {
        let begun = Instant::now();
        let slow = Slow(vec![(begun + MS * 10, begun + MS * 20)]);
        let mut times = Times::default();
        times.record(begun, MS);
        times.record(begun + MS * 5, MS * 10);
        let (all, steady) = times.quantiles(&slow);
        assert!(all.max_ms > 9.0 && steady.max_ms < 2.0, "{all:?} {steady:?}");
    }

    #[test]
    fn the_pace_is_looked_at() {
        let looks = Watch::start().and_then(Watch::looks).unwrap_or_else(|why| panic!("{why}"));
        assert!(looks.iter().any(|(_, took)| *took > Duration::ZERO), "{looks:?}");
    }
}
