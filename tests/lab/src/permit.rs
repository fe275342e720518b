//! Whether this machine lets us have networks of our own, and saying so where it does not.

use crate::network::{Dice, Link, Namespace, WIFI_GOOD};
use std::io::Write;
use std::sync::OnceLock;

/// Whether a lab can be made here. If not, why and what to do.
///
/// # Errors
/// What is missing.
pub fn permitted() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    let ask = || {
        let spaces = (Namespace::new()?, Namespace::new()?);
        Link::open((&spaces.0, "probe"), (&spaces.1, "probe"), WIFI_GOOD, &Dice::new(0)).map(drop)
    };
    ANSWER.get_or_init(|| ask().map_err(|why| why.to_string())).clone()
}

/// For tests: whether to go on. Where a lab cannot be made that is said on standard error itself, which no test harness swallows.
///
/// # Panics
/// If it cannot be made and the environment variable `CI` is set: there it must be possible.
#[must_use]
pub fn can_run(test: &str) -> bool {
    let Err(why) = permitted() else { return true };
    let notice = format!("\n*** NOT TESTED: {test}: no network lab here: {why}\n\n");
    // Straight to the descriptor: libtest takes what the printing macros print.
    let _ = std::io::stderr().write_all(notice.as_bytes());
    assert!(std::env::var_os("CI").is_none(), "continuous integration must be able to run the network lab: {why}");
    false
}
