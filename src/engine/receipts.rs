//! From cursors to receipts: what a device has acknowledged, its user's conversations have been delivered up to.
//!
//! There is one way to find out: read the mailbox between the cursor that was settled last and the newer one. It serves a live
//! acknowledgement (the entries are still in memory), a device that comes back with a cursor that the server had not heard of, and
//! a server that was killed in between, alike.

use super::committer::Work;
use super::queue::{FairQueue, Lane};
use crate::store::{DeviceKey, RecordBody, Store, StoreError, UserNo};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use whimbrel_protocol::{ConversationId, ConversationSeq, MailboxSeq};

/// How often cursors are looked at.
const TICK: Duration = Duration::from_millis(100);
/// At most one receipt a conversation and member in this time; the newest says it all.
const SPACING: Duration = Duration::from_secs(1);
/// How often cursors are handed to the store.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Entries read at a time.
const READ_ENTRIES: usize = 1024;
const READ_BYTES: usize = 1 << 20;

/// What devices have said of how far they are.
pub(super) struct Cursors {
    state: Mutex<HashMap<DeviceKey, Cursor>>,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct Cursor {
    /// Receipts were made for everything up to here.
    settled: MailboxSeq,
    /// The device has everything up to here.
    acked: MailboxSeq,
    saved: MailboxSeq,
    /// The device is connected; its entry stays.
    here: bool,
}

impl Cursors {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), stop: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceKey, Cursor>> {
        // Nothing under the lock panics between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device is here: the server knew it at `known`, it says that it is at `said`.
    pub(super) fn enter(&self, device: DeviceKey, known: MailboxSeq, said: MailboxSeq) {
        let mut state = self.lock();
        let cursor = state.entry(device).or_insert(Cursor { settled: known, acked: known, saved: known, here: true });
        cursor.here = true;
        cursor.acked = cursor.acked.max(said);
    }

    /// A device begins elsewhere than where it was: what lies before was not delivered to it.
    pub(super) fn begin_at(&self, device: DeviceKey, at: MailboxSeq) {
        let cursor = Cursor { settled: at, acked: at, saved: MailboxSeq(0), here: true };
        self.lock().insert(device, cursor);
    }

    pub(super) fn ack(&self, device: DeviceKey, seq: MailboxSeq) {
        if let Some(cursor) = self.lock().get_mut(&device) {
            cursor.acked = cursor.acked.max(seq);
        }
    }

    pub(super) fn leave(&self, device: DeviceKey) {
        if let Some(cursor) = self.lock().get_mut(&device) {
            cursor.here = false;
        }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn unsettled(&self) -> Vec<(DeviceKey, Cursor)> {
        let state = self.lock();
        state.iter().filter(|(_, cursor)| cursor.acked > cursor.settled).map(|(device, cursor)| (*device, *cursor)).collect()
    }

    fn settle(&self, device: DeviceKey, through: MailboxSeq) {
        if let Some(cursor) = self.lock().get_mut(&device) {
            cursor.settled = cursor.settled.max(through);
        }
    }

    /// Cursors to hand to the store; devices that left and have nothing open are forgotten.
    fn unsaved(&self) -> Vec<(DeviceKey, MailboxSeq)> {
        let mut state = self.lock();
        let mut unsaved = Vec::new();
        state.retain(|device, cursor| {
            // Only what is settled: after a crash the rest is found again from what the device says.
            if cursor.settled > cursor.saved {
                cursor.saved = cursor.settled;
                unsaved.push((*device, cursor.settled));
            }
            cursor.here || cursor.acked > cursor.settled
        });
        unsaved
    }
}

/// Marks that wait for their turn.
#[derive(Default)]
struct Marks {
    waiting: HashMap<(UserNo, ConversationId), ConversationSeq>,
    told: HashMap<(UserNo, ConversationId), Instant>,
}

impl Marks {
    fn raise(&mut self, user: UserNo, conversation: ConversationId, seq: ConversationSeq) {
        let mark = self.waiting.entry((user, conversation)).or_default();
        *mark = seq.max(*mark);
    }

    /// What may be told now, by user.
    fn due(&mut self, now: Instant) -> HashMap<UserNo, Vec<(ConversationId, ConversationSeq)>> {
        self.told.retain(|_, told| now.duration_since(*told) < SPACING);
        let told = &mut self.told;
        let mut due: HashMap<UserNo, Vec<_>> = HashMap::new();
        self.waiting.retain(|key, seq| {
            if told.contains_key(key) {
                return true;
            }
            told.insert(*key, now);
            due.entry(key.0).or_default().push((key.1, *seq));
            false
        });
        due
    }
}

/// The thread that makes receipts, until [`Cursors::stop`].
pub(super) fn run(store: &dyn Store, cursors: &Cursors, queue: &FairQueue<Work>) {
    let mut marks = Marks::default();
    let mut save_at = Instant::now() + SAVE_EVERY;
    loop {
        let stopping = cursors.stop.load(Ordering::Acquire);
        for (device, cursor) in cursors.unsettled() {
            match settle(store, device, cursor, &mut marks) {
                Ok(()) => cursors.settle(device, cursor.acked),
                Err(error) => tracing::warn!(%error, "cannot read what a device acknowledged; trying again"),
            }
        }
        for (user, list) in marks.due(Instant::now()) {
            let retry = list.clone();
            if queue.push(Lane::House, 0, Work::Delivered { user, marks: list }).is_err() {
                // Full: the marks only rise, so they simply wait for the next round.
                retry.into_iter().for_each(|(conversation, seq)| marks.raise(user, conversation, seq));
            }
        }
        if stopping || Instant::now() >= save_at {
            save_at = Instant::now() + SAVE_EVERY;
            let unsaved = cursors.unsaved();
            if let Err(error) = store.save_cursors(&unsaved).and_then(|()| store.flush()) {
                tracing::warn!(%error, "cannot save cursors; devices say theirs when they come back");
            }
        }
        if stopping {
            return;
        }
        std::thread::sleep(TICK);
    }
}

fn settle(store: &dyn Store, device: DeviceKey, cursor: Cursor, marks: &mut Marks) -> Result<(), StoreError> {
    let mut after = cursor.settled;
    while after < cursor.acked {
        let entries = match store.recent_entries(device.user, after, READ_ENTRIES, READ_BYTES) {
            Some(entries) => entries,
            None => store.mailbox_entries(device.user, after, READ_ENTRIES, READ_BYTES)?,
        };
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.seq;
        for entry in entries.iter().take_while(|entry| entry.seq <= cursor.acked) {
            match &entry.record.body {
                RecordBody::Message { conversation, seq, origin, .. } if origin.device.user != device.user => {
                    marks.raise(device.user, *conversation, *seq);
                }
                _ => {}
            }
        }
    }
    Ok(())
}
