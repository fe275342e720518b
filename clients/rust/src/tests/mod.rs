//! The client against a server that a test plays.

mod basics;
mod crash;
mod keys;
mod limits;
mod server;
mod sessions;
mod ways;
