//! What is counted while a connection is served, and given back however that ends.

use crate::engine::{Engine, SessionHandle};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use whimbrel_protocol::TransportKind;

/// A connection that is served, for as long as it is held.
pub(super) struct Serving<'a>(&'a AtomicUsize);

impl<'a> Serving<'a> {
    pub(super) fn begin(serving: &'a AtomicUsize) -> Self {
        serving.fetch_add(1, Ordering::Relaxed);
        Self(serving)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session that was entered leaves when this is dropped: also if something below panics.
pub(super) struct Stay {
    engine: Arc<Engine>,
    pub session: Arc<SessionHandle>,
    labels: [(&'static str, &'static str); 1],
}

impl Stay {
    pub(super) fn begin(engine: Arc<Engine>, session: Arc<SessionHandle>, kind: TransportKind) -> Self {
        let labels = [("transport", kind.name())];
        metrics::counter!("whimbrel_sessions_total", &labels).increment(1);
        metrics::gauge!("whimbrel_sessions", &labels).increment(1.0);
        Self { engine, session, labels }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        metrics::gauge!("whimbrel_sessions", &self.labels).decrement(1.0);
        self.engine.leave(&self.session);
    }
}
