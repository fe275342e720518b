//! The client against a server that a test plays.

mod basics;
mod keys;
mod server;
mod ways;
