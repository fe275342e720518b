//! Times, counted in buckets: bounded memory however long a run is, and quantiles that are at most 3 % too high.

use serde::Serialize;
use std::time::Duration;

/// Buckets between a power of two and the next.
const PARTS: u64 = 32;
/// Microseconds below this have a bucket each.
const EXACT: u64 = 2 * PARTS;
/// Enough for any number of microseconds that fits into 64 bits.
const BUCKETS: usize = (EXACT + 58 * PARTS) as usize;

/// How often each time was seen.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max: 0 }
    }

    /// Counts one.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Takes in what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// What people ask for.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles { p50_ms: self.quantile(0.5), p99_ms: self.quantile(0.99), max_ms: self.max as f64 / 1000.0 }
    }

    /// The time, in milliseconds, that this part of what was counted did not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let rank = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return last_of(index as u64).min(self.max) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

fn bucket(micros: u64) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    // The six highest bits, of which the first is set, and how far they were shifted.
    let shift = u64::from(58 - micros.leading_zeros());
    (EXACT + (shift - 1) * PARTS + ((micros >> shift) - PARTS)) as usize
}

/// The longest time in a bucket.
fn last_of(index: u64) -> u64 {
    if index < EXACT {
        return index;
    }
    let (shift, part) = ((index - EXACT) / PARTS + 1, (index - EXACT) % PARTS);
    // In 128 bits: the last bucket ends where 64 bits do.
    u64::try_from((u128::from(PARTS + part + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket_and_no_bucket_is_wider_than_a_thirtieth() {
        for micros in (0..70).flat_map(|shift| (0..40u64).map(move |add| 1u64.checked_shl(shift).unwrap_or(u64::MAX).saturating_add(add))) {
            let last = last_of(bucket(micros) as u64);
            assert!(bucket(micros) < BUCKETS && last >= micros, "{micros}: {last}");
            assert!((last - micros) as f64 <= micros as f64 / 32.0, "{micros}: {last}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut one = Histogram::new();
        assert_eq!(one.quantiles(), Quantiles { p50_ms: 0.0, p99_ms: 0.0, max_ms: 0.0 });
        let mut other = Histogram::new();
        for micros in 1..=500 {
            one.record(Duration::from_micros(micros));
            other.record(Duration::from_micros(500 + micros));
        }
        one.merge(&other);
        let Quantiles { p50_ms, p99_ms, max_ms } = one.quantiles();
        assert!((0.5..0.52).contains(&p50_ms), "{p50_ms}");
        assert!((0.99..=1.0).contains(&p99_ms), "{p99_ms}");
        assert!((max_ms - 1.0).abs() < 1e-9, "{max_ms}");
    }

    #[test]
    fn one_time_is_every_quantile() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_micros(1234));
        let quantiles = histogram.quantiles();
        assert_eq!((quantiles.p50_ms, quantiles.p99_ms, quantiles.max_ms), (1.234, 1.234, 1.234));
    }
}
