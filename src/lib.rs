//! The server.
pub mod store;
pub mod tls;
pub mod transport;
