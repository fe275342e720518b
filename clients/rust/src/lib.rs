//! An async client for Whimbrel, on tokio: an outbox and a cursor that survive anything.
//!
//! [`Client::builder`] opens a device's state and connects it; one task owns the connection and connects again, over whichever
//! transport works, until the last [`Client`] is dropped. What is sent is stored on this device before it leaves and applied by the
//! server exactly once; what comes is stored together with the cursor, so each event is stored exactly once, in order.
//!
//! ```no_run
//! use whimbrel_client::{Client, Incoming, State, text};
//! use whimbrel_client::protocol::frame::{EventBody, Target};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::builder("http://127.0.0.1:8080", "alice")
//!     .device("laptop")
//!     .state(State::Folder("alice-state".into()))
//!     .connect()
//!     .await?;
//!
//! // Stored here when this returns; carried out by the server, once, when the outcome is there.
//! let ticket = client.send(Target::User("bob".parse()?), text("Hello!")).await?;
//! let sent = ticket.outcome().await?;
//! println!("message {} of conversation {}", sent.seq, sent.conversation);
//!
//! while let Some(incoming) = events.next().await {
//!     if let Incoming::Event { event, .. } = incoming {
//!         if let EventBody::Message(message) = event.body {
//!             println!("{:?}: {}", message.from, message.content.text);
//!         }
//!     }
//!     // Asking for the next one says that this one is done: only then is it acknowledged.
//! }
//! # Ok(()) }
//! ```
//!
//! # What an application can rely on
//!
//! - [`Client::send`] returns once the command is durable here ([`State::Folder`]). From then on it is carried out exactly once, also
//!   if the process dies before it was sent. Its outcome comes on its [`Ticket`], and always as an [`Incoming::Outcome`].
//! - An event that [`Events::next`] returned is stored and acknowledged when `next` is called again, or [`Events::done`]. A process that
//!   dies in between sees it again: at least once for the application, exactly once in the store.
//! - A reset ([`Incoming::Reset`]), a contradiction ([`Incoming::Disagreement`]) and an outcome that nobody can tell any more
//!   ([`OutcomeError::Untold`]) are told once the store has gone through with them, and told again until they are done.
//! - Events, once they fill the queue ([`EVENTS_MAX`]), are not read any further until the application takes some. An application that
//!   only sends calls [`Events::store_only`].
//! - Everything is bounded: the outbox by [`OUTBOX_MAX`] commands, the events by [`EVENTS_MAX`], signals are dropped when full.
//!
//! What this crate does not do: it shows no notifications, decides no policy, and keeps only the newest messages of each conversation
//! ([`Client::history`] asks the server for older ones).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod builder;
mod client;
mod connection;
pub mod doctor;
mod driver;
mod error;
mod events;
pub mod frames;
mod inbox;
mod link;
mod reading;
mod state;
#[cfg(test)]
mod tests;
mod transport;

/// The example in the README is one that compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use builder::{Builder, Liveness, State};
pub use client::{Client, Sent, Ticket, text};
pub use connection::Connection;
pub use driver::OUTBOX_MAX;
pub use error::{BadName, ConnectError, EndReason, OutcomeError, QueryError, SendError, StartError};
pub use events::{Events, Incoming, Outcome};
pub use inbox::EVENTS_MAX;
pub use state::{LocalConversation, LocalMessage, StateError, Waiting};
pub use transport::{Transport, UnknownTransport};
/// The wire's own types, as they appear in this crate's interface.
pub use whimbrel_protocol as protocol;
pub use whimbrel_protocol::TransportKind;
