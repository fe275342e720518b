//! A process that dies at a moment of the test's choice, as its store sees it.

use super::StateError;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Dies around the commit with this number (from 0): before it, so that it leaves no trace; or right after it, so that it is durable
/// and nobody hears of it. After that nothing is read or written any more.
#[derive(Debug, Clone)]
pub(crate) struct Death {
    left: Arc<AtomicI64>,
    after: bool,
}

impl Death {
    pub fn new(commits: i64, after: bool) -> Self {
        Self { left: Arc::new(AtomicI64::new(commits)), after }
    }

    /// Whether it has happened.
    pub fn is_past(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    pub fn check(death: Option<&Self>) -> Result<(), StateError> {
        if death.is_some_and(Self::is_past) { Err(StateError::Failed("died".into())) } else { Ok(()) }
    }

    pub fn before_commit(death: Option<&Self>) -> Result<(), StateError> {
        let Some(death) = death.filter(|death| !death.after) else { return Ok(()) };
        death.left.fetch_sub(1, Ordering::SeqCst);
        Self::check(Some(death))
    }

    pub fn after_commit(death: Option<&Self>) -> Result<(), StateError> {
        let Some(death) = death.filter(|death| death.after) else { return Ok(()) };
        death.left.fetch_sub(1, Ordering::SeqCst);
        Self::check(Some(death))
    }
}
