//! The wire as others see it: frames, limits, golden vectors, and the document that describes them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod document;
mod frames;
mod limits;
mod samples;
mod strategy;
mod stream;
mod vectors;

use proptest::test_runner::{Config, RngSeed};

/// Properties run with the same seeds everywhere, and leave no files behind; `PROPTEST_CASES` makes them thorough.
fn config() -> Config {
    Config { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() }
}
