//! What every test needs: a server process, and a client of bare frames.

mod client;
mod link;
mod server;
pub mod socketio;

pub use client::{Frames, hello, text};
pub use link::{Link, quic_config, quic_to, webtransport};
pub use server::{ServerProcess, binary, http_get};

use std::future::Future;
use std::time::Duration;

/// Runs a test on a runtime of its own.
pub fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// Long enough for a loaded machine; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must come.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}
