//! The client against a server that a test plays.

mod basics;
mod server;
