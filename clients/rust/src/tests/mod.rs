//! The client against a server that a test plays.

mod basics;
mod crash;
mod keys;
mod limits;
mod liveness;
mod resets;
mod server;
mod sessions;
mod upgrade;
mod ways;
