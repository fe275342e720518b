//! The server.
pub mod cli;
pub mod store;
pub mod tls;
pub mod transport;
