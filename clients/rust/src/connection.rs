//! How the connection is doing, for people to see.

use crate::{EndReason, TransportKind};
use std::time::Duration;

/// The state of the connection. Watch it with [`Client::connection`](crate::Client::connection).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// Trying to connect.
    Connecting {
        /// How many attempts there were in a row, this one included.
        attempt: u32,
        /// Why the one before failed, or the session before ended.
        why: Option<String>,
    },
    /// A session is there.
    Connected {
        /// What carries it.
        transport: TransportKind,
    },
    /// Waiting before the next attempt.
    Offline {
        /// How long.
        retry_in: Duration,
        /// Why.
        why: String,
        /// Who answers does not fit what was configured: another certificate than the CA or the pin allow, or no TLS. The next attempt will
        /// fail alike until the URL, the CA or the pin is changed, or the server, or until a network that answers in its place lets through.
        mismatch: bool,
    },
    /// It is over; nothing will be tried any more.
    Ended {
        /// Why; `None` if the application closed the client.
        error: Option<EndReason>,
    },
}
