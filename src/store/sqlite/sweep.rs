//! Writing the indexes late: a bit of what is dirty with every commit, in the order of its keys.
//!
//! A sweep takes the keys that are dirty as it begins, and has written every one of them once as many index entries were committed as
//! [`SqliteOptions::sweep_entries`](super::SqliteOptions::sweep_entries). Then all that was committed before it began is in the rows,
//! which is what `meta.tail` says; so a start has at most about two sweeps of the log to read. Entries are counted, not records: a
//! message to a group of 500 makes 500 of them.
//!
//! What is written is what was *published* before the commit that carries it: so rows never hold what is not committed, and a commit
//! that fails leaves nothing to be taken back in memory.

use super::super::{Pos, StoreError};
use super::index::{Devices, Index, Key, State};
use super::rows;
use super::schema::{damaged, set_meta};
use super::writer::Published;

/// Where the sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// What was dirty when it began, in order.
    queue: Vec<Key>,
    /// How much of `queue` is written.
    at: usize,
    /// Index entries committed since it began.
    entries: u64,
    /// Position of the next record when it began.
    began: Pos,
    /// Everything before this position is in the rows.
    pub(super) tail: Pos,
}

/// What one commit writes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    to: usize,
    entries: u64,
    /// Whether it ends the sweep.
    ends: bool,
}

impl Sweep {
    /// A sweep over what a start left dirty.
    pub(super) fn new(tail: Pos, index: &mut Index) -> Self {
        let mut sweep = Self { tail, ..Self::default() };
        sweep.begin(index);
        sweep
    }

    /// Begins anew, with all that is dirty.
    fn begin(&mut self, index: &mut Index) {
        let mut queue = self.queue.split_off(self.at);
        queue.append(&mut index.take_dirty());
        queue.sort_unstable();
        *self = Self { queue, began: index.next.pos, tail: self.tail, ..Self::default() };
    }

    /// What is to be written with a commit of so many index entries.
    pub(super) fn step(&self, entries: u64, sweep_entries: u64) -> Step {
        let entries = self.entries + entries;
        if entries >= sweep_entries {
            return Step { to: self.queue.len(), entries, ends: true };
        }
        // Rounded up, so that the last commits have no more to do than the others.
        let to = (self.queue.len() as u128 * u128::from(entries)).div_ceil(u128::from(sweep_entries.max(1)));
        Step { to: usize::try_from(to).unwrap_or(usize::MAX).clamp(self.at, self.queue.len()), entries, ends: false }
    }

    /// As much as `keys` more.
    pub(super) fn slice(&self, keys: usize) -> Step {
        let to = self.queue.len().min(self.at + keys);
        Step { to, entries: self.entries, ends: to == self.queue.len() }
    }

    /// Writes the step's rows, in the transaction that is under way. Returns how many keys were written.
    pub(super) fn write(&self, step: Step, published: &Published<'_>) -> Result<usize, StoreError> {
        let mut written = 0;
        for key in &self.queue[self.at..step.to] {
            if published.index()?.is_dirty(*key) {
                write_key(*key, published)?;
                written += 1;
            }
        }
        if step.ends && self.began != self.tail {
            set_meta(published.connection, "tail", self.began)?;
        }
        Ok(written)
    }

    /// The step was committed. Comes before the records of the same commit are applied.
    pub(super) fn committed(&mut self, step: Step, index: &mut Index) {
        for key in &self.queue[self.at..step.to] {
            if index.is_dirty(*key) {
                index.flushed(*key);
            }
        }
        self.at = step.to;
        self.entries = step.entries;
        if step.ends {
            self.tail = self.began;
            self.begin(index);
        }
    }

    /// Begins anew with all that is dirty, in order to write all of it. Returns the position up to which the rows will be complete.
    pub(super) fn restart(&mut self, index: &mut Index) -> Pos {
        self.begin(index);
        self.began
    }

    /// Whether there is nothing left to write.
    pub(super) fn is_clean(&self, index: &Index) -> bool {
        self.tail == index.next.pos && index.dirty_count() == 0 && !self.queue[self.at..].iter().any(|key| index.is_dirty(*key))
    }
}

fn write_key(key: Key, published: &Published<'_>) -> Result<(), StoreError> {
    let connection = published.connection;
    let chunk_bytes = published.shared.options.hooks.chunk_bytes;
    match key {
        Key::User(user) => {
            let behind = matches!(published.index()?.user(user).map(|slot| &slot.devices), Some(Devices::Behind { .. }));
            if behind {
                published.load_devices(user)?;
            }
            let index = published.index()?;
            let Some(slot) = index.user(user) else { return Ok(()) };
            if let Some(tail) = slot.mailbox.as_ref().filter(|tail| tail.is_unflushed()) {
                let key = u64::from(user.0);
                let mut open = rows::MAILBOX.open(connection, key)?.unwrap_or_default();
                let entries = tail.range(open.head() + 1, u64::MAX);
                rows::MAILBOX.append(connection, key, &mut open, entries, chunk_bytes)?;
                rows::write_mailbox(connection, user, &open)?;
            }
            if let Devices::Here(devices) = &slot.devices {
                for device in devices.iter().filter(|device| device.dirty) {
                    rows::write_device(connection, device, index.next.pos)?;
                }
            }
            Ok(())
        }
        Key::Conversation(id) => {
            published.load_conversation(id)?;
            let index = published.index()?;
            let Some(slot) = index.conversation(id) else { return Ok(()) };
            let mut open = rows::CONVERSATION.open(connection, id.0)?.ok_or_else(|| damaged(format!("conversation {id} has no row")))?;
            if let Some(tail) = &slot.tail {
                let entries = tail.range(open.head() + 1, u64::MAX);
                rows::CONVERSATION.append(connection, id.0, &mut open, entries, chunk_bytes)?;
            }
            match &slot.state {
                State::Here(conversation) => rows::write_conversation(connection, conversation, index.next.pos, &open),
                State::Behind(_) => Ok(()),
            }
        }
    }
}
