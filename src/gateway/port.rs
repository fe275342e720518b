//! The way to one socket: events go out in one order, and are numbered in it.

use super::contract::{Done, Words};
use super::wire::{Paused, Wire};
use serde::Serialize;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::{SendError, SocketError};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Words that wait for room, at most …
const WORDS_MAX: usize = 8_192;
/// … and how much of the way is theirs too.
const WORDS_ROOM: u64 = super::PACKETS_MAX as u64 * 7 / 8;

/// A socket, and how far its client has got.
pub(super) struct Port {
    pub socket: SocketRef,
    pub wire: Arc<Wire>,
    /// Makes one of sending and counting.
    sending: Mutex<()>,
    left: watch::Sender<bool>,
    /// Answers and words that found no room.
    words: Mutex<VecDeque<Word>>,
    filled: Notify,
    /// Its session waits for its turn: who is not read cannot say that it is there.
    pub put_off: AtomicBool,
    /// Bytes of what it wishes and no session has taken.
    pub wished: AtomicUsize,
    /// Events that did not fit, and of which the client has not been told yet.
    pub refused: AtomicU64,
}

/// What a client is told of what it did itself.
enum Word {
    Say(&'static str, Words),
    Answer(AckSender, Done),
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("wire", &self.wire).finish_non_exhaustive()
    }
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
        Self {
            socket,
            wire,
            sending: Mutex::new(()),
            left: watch::Sender::new(false),
            words: Mutex::default(),
            filled: Notify::new(),
            put_off: AtomicBool::new(false),
            wished: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Where the client is, as far as its first request told.
    pub fn remote(&self) -> SocketAddr {
        self.socket.req_parts().extensions.get::<SocketAddr>().copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
    }

    /// The client is gone. `false` if it was already.
    pub fn leave(&self) -> bool {
        let mut words = self.words();
        let is_first = !self.left.send_replace(true);
        // Its connection may go on, with another socket.
        words.clear();
        self.wire.pause(Paused::Words, false);
        is_first
    }

    /// Whether it is.
    pub fn is_gone(&self) -> bool {
        *self.left.borrow()
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

    /// Waits until all that was handed over has left.
    pub async fn has_left(&self) {
        let mut progress = self.wire.progress();
        // The wire is this port's.
        let _ = progress.wait_for(|progress| progress.written >= self.wire.emitted()).await;
    }

    /// Events that were handed over and have not left.
    pub fn waiting(&self) -> u64 {
        self.wire.emitted().saturating_sub(self.wire.counted().events)
    }

    /// Whether anything may be handed over, while less than so much has not left.
    pub fn has_room(&self, most: u64) -> bool {
        !self.wire.moves() && self.waiting() < most
    }

    /// Says a word to people.
    pub fn say(&self, event: &'static str, message: impl Into<String>) {
        self.tell(Word::Say(event, Words { message: message.into() }));
    }

    /// Calls a client back with what became of what it asked for.
    pub fn done(&self, answer: AckSender, done: Done) {
        self.tell(Word::Answer(answer, done));
    }

    fn words(&self) -> MutexGuard<'_, VecDeque<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells something now, or once there is room: until then nothing more is read, which bounds what waits, but for what came in the same request.
    fn tell(&self, word: Word) {
        let mut words = self.words();
        if self.is_gone() {
            return;
        }
        if words.len() >= WORDS_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        words.push_back(word);
        if !self.tell_waiting(&mut words) {
            self.wire.pause(Paused::Words, true);
            self.filled.notify_one();
        }
    }

    /// Tells what there is room for. `true` if that is all.
    fn tell_waiting(&self, words: &mut VecDeque<Word>) -> bool {
        while self.has_room(WORDS_ROOM) {
            match words.pop_front() {
                None => return true,
                Some(Word::Answer(answer, done)) => drop(self.answer(answer, &done)),
                Some(Word::Say(event, said)) => match self.emit(event, &said) {
                    Ok(_) => {}
                    Err(NotSent::Full) => {
                        words.push_front(Word::Say(event, said));
                        return false;
                    }
                    Err(NotSent::Gone(why)) => tracing::debug!(why, event, "not said"),
                },
            }
        }
        words.is_empty()
    }

    /// Tells what found no room, as soon as there is some. Runs until dropped.
    pub async fn tell_later(&self) {
        let mut progress = self.wire.progress();
        loop {
            progress.borrow_and_update();
            let all = {
                let mut words = self.words();
                let all = self.tell_waiting(&mut words);
                if all {
                    self.wire.pause(Paused::Words, false);
                }
                all
            };
            if all {
                self.filled.notified().await;
            } else if progress.changed().await.is_err() {
                return;
            }
        }
    }
}
