//! Whimbrel: a self-hosted messaging server for phones that change networks.
//!
//! A mailbox is a log, a session is a cursor, everything else is a hint. `ARCHITECTURE.md` says what lives where and what each part
//! never does; [`Server`] is where the parts are put together.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod cli;
pub mod config;
pub mod engine;
pub mod gateway;
pub mod http;
pub mod lobby;
pub mod push;
mod server;
pub mod session;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod tls;
pub mod transport;

pub use server::{Server, ServerError};
