//! Checkpoints: moving what was committed from the write-ahead log into the file, beside the writer and not in its way.
//!
//! A thread of its own does the bulk with a connection of its own; the writer then does the little that came since, after which SQLite
//! begins the write-ahead log anew instead of letting it grow.

use super::super::StoreError;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// When to checkpoint, and the thread that does.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Pages written since the last one, roughly.
    pages: AtomicU64,
    /// After how many of them one is due.
    due: u64,
    /// The thread has just finished: the writer is to do the rest.
    done: Arc<AtomicBool>,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Checkpoints {
    /// Starts the thread. After `pages` pages, roughly, a checkpoint is due.
    pub(super) fn start(connection: Connection, pages: u64) -> Result<Self, StoreError> {
        let (due, wakes) = sync_channel::<()>(1);
        let done = Arc::new(AtomicBool::new(false));
        let finished = done.clone();
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || {
            while wakes.recv().is_ok() {
                match checkpoint(&connection) {
                    Ok(()) => finished.store(true, Ordering::Release),
                    // Nothing is lost: what was not moved stays in the write-ahead log, and the next one moves it.
                    Err(error) => tracing::warn!(%error, "a checkpoint of the store failed"),
                }
            }
        });
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { pages: AtomicU64::new(0), due: pages, done, thread: Some((due, thread)) })
    }

    /// None at all: for what does not write.
    pub(super) fn none() -> Self {
        Self { pages: AtomicU64::new(0), due: 0, done: Arc::default(), thread: None }
    }

    /// A commit of so many index entries and rows of the sweep went through.
    pub(super) fn committed(&self, entries: u64, keys: usize) {
        let pages = 4 + entries / 64 + keys as u64 / 4;
        if self.pages.fetch_add(pages, Ordering::Relaxed) + pages >= self.due
            && let Some((due, _)) = &self.thread
            && due.try_send(()).is_ok()
        {
            self.pages.store(0, Ordering::Relaxed);
        }
    }

    /// The writer's part, between two transactions.
    pub(super) fn follow(&self, connection: &Connection) {
        if self.done.swap(false, Ordering::Acquire)
            && let Err(error) = checkpoint(connection)
        {
            tracing::warn!(%error, "a checkpoint of the store failed");
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Some((due, thread)) = self.thread.take() {
            drop(due);
            // It panics nowhere; and if it did, there is nothing to do about it here.
            let _ = thread.join();
        }
    }
}

/// Moves what can be moved without waiting for anybody.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
}
