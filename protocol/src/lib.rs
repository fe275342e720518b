//! Both sides of the Whimbrel wire, without I/O and without a clock.
//!
//! This crate turns bytes into frames and frames into bytes ([`codec`]), names what travels ([`frame`], [`id`], [`error`]), and
//! holds the two machines that a device runs: [`Uplink`], the outbox whose commands are applied once, and [`Downlink`], the cursor
//! that takes every event of a mailbox once and in order. [`Copies`] and [`Loss`] are for both ends of a path that loses packets.
//!
//! # Calling contract
//!
//! - Nothing here reads a clock, a socket or a file. Where time matters the caller passes `now`, a monotonic duration since any fixed
//!   point of its choice; wall-clock time appears only as data ([`Time`]).
//! - The machines are driven by `on_*` (something arrived) and `poll_*` (is there something to send?). What must be durable before a
//!   frame may leave is said at each method; keeping that order is the caller's half of the promise.
//! - No input makes this crate panic, and none makes it allocate more than the limits in [`codec`].
//!
//! The wire itself is described for people in `docs/protocol.md`; `vectors/` holds golden bytes of every kind.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
mod copies;
mod downlink;
pub mod error;
pub mod frame;
pub mod id;
mod transport;
mod uplink;

pub use copies::{COPY_AFTER, COPY_MAX, Copies, Loss};
pub use downlink::{ACK_DELAY, ACK_EVENTS, Downlink, DownlinkState, EARLY_MAX, Resumed, Taken};
pub use error::ErrorCode;
pub use id::{
    CommandSeq, ConversationId, ConversationSeq, DeviceId, Incarnation, LogEpoch, MailboxSeq, Nonce, QueryId, SessionEpoch, Time, UserId,
};
pub use transport::{ALPN, TransportKind};
pub use uplink::{Agreement, Disagreement, OutboxState, Uplink};

/// Queries of one session that may wait for their answers; a client that asks more at once is in error.
pub const QUERIES_MAX: usize = 16;

/// The name of the device as which a doctor looks whether a user is let in. It takes no messages, and nobody wakes it.
pub const DOCTOR: &str = "doctor";

/// The most extensions of a message.
pub const EXTENSIONS_MAX: usize = 8;

/// The lowest version of the protocol that this crate speaks.
pub const VERSION_MIN: u8 = 1;
/// The highest version of the protocol that this crate speaks.
pub const VERSION_MAX: u8 = 1;
