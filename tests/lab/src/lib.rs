//! A mobile-network lab: networks that lose, delay and change under a running server and its clients, scripted journeys through them,
//! and a checker of what became of the messages. Its README says how to use it and how to read what it reports.
//!
//! Everything is in one process but the server: links are threads, and so are the clients, each in the network of its device
//! ([`Namespace`]), so that all times are of one clock. Linux only, with the right to make network namespaces.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod checker;
#[cfg(target_os = "linux")]
mod error;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
pub mod idle;
#[cfg(target_os = "linux")]
pub mod journey;
#[cfg(target_os = "linux")]
pub mod journeys;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
pub mod measure;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(target_os = "linux")]
mod permit;
#[cfg(target_os = "linux")]
pub mod reading;
#[cfg(target_os = "linux")]
pub mod report;
#[cfg(target_os = "linux")]
pub mod run;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
pub mod traffic;

#[cfg(target_os = "linux")]
pub use self::{
    error::LabError,
    folder::remove_own,
    lab::{Lab, LinkName, Phone},
    network::Namespace,
    permit::{can_run, permitted},
    server::Server,
};
