//! Black-box tests: real processes, through the public faces only. One binary, a file a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bad_input;
mod bench;
mod commands;
mod crowds;
mod devices;
mod disk;
mod doctor;
mod early;
mod harness;
mod http;
mod kills;
#[cfg(target_os = "linux")]
mod lab;
mod lobby;
mod polling;
mod push;
mod roaming;
mod rules;
mod socketio;
mod states;
mod talk;
mod waiting;
