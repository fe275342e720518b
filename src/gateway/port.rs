//! The way to one socket: events go out in one order, and are numbered in it.

use super::wire::Wire;
use serde::Serialize;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::{SendError, SocketError};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A socket, and how far its client has got.
#[derive(Debug)]
pub(super) struct Port {
    pub socket: SocketRef,
    pub wire: Arc<Wire>,
    /// Makes one of sending and counting.
    sending: Mutex<()>,
    left: watch::Sender<bool>,
    /// Events that did not fit, and of which the client has not been told yet.
    pub refused: AtomicU64,
}

/// Why an event did not go out.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    /// The client takes nothing for now.
    #[error("the client is behind")]
    Full,
    /// The client is gone.
    #[error("the client is gone: {0}")]
    Gone(String),
}

impl Port {
    pub fn new(socket: SocketRef, wire: Arc<Wire>) -> Self {
        Self { socket, wire, sending: Mutex::new(()), left: watch::Sender::new(false), refused: AtomicU64::new(0) }
    }

    /// Where the client is, as far as its first request told.
    pub fn remote(&self) -> SocketAddr {
        self.socket.req_parts().extensions.get::<SocketAddr>().copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
    }

    /// The client is gone.
    pub fn leave(&self) {
        self.left.send_replace(true);
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        // It fails only once the port is gone, which who waits holds.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    /// Sends an event. Returns its number: the client has it once it has taken so many.
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, data: &T) -> Result<u64, NotSent> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        match self.socket.emit(event, data) {
            Ok(()) => Ok(self.wire.on_emitted()),
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(NotSent::Full),
            Err(why) => Err(NotSent::Gone(why.to_string())),
        }
    }

    /// Calls a client back. Returns the number, if it could be.
    pub fn answer<T: Serialize>(&self, answer: AckSender, data: &T) -> Option<u64> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.send(&(data,)) {
            Ok(()) => Some(self.wire.on_emitted()),
            Err(why) => {
                tracing::debug!(%why, "an answer could not be given");
                None
            }
        }
    }

    /// Events that were handed over and have not left.
    pub fn waiting(&self) -> u64 {
        self.wire.emitted().saturating_sub(self.wire.counted().events)
    }

    /// Says a word to people, unless the client takes nothing: then it does not matter what it did wrong.
    pub fn say(&self, event: &str, message: impl Into<String>) {
        let words = super::contract::Words { message: message.into() };
        if let Err(why) = self.emit(event, &words) {
            tracing::debug!(%why, event, "not said");
        }
    }
}
