//! What is counted while a connection is served, and given back however that ends.

use crate::engine::{Engine, SessionHandle};
use std::sync::Arc;
use whimbrel_protocol::TransportKind;

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
