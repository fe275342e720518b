//! From cursors to receipts: what a device has acknowledged, its user's conversations have been delivered up to.
//!
//! There is one way to find out: read the mailbox between the cursor that was settled last and the newer one. It serves a live
//! acknowledgement (the entries are still in memory), a device that comes back with a cursor that the server had not heard of, and
//! a server that was killed in between, alike.

use super::committer::Work;
use super::queue::{FairQueue, Lane};
use crate::store::{DeviceKey, RecordBody, Store, StoreError, UserNo};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use whimbrel_protocol::{ConversationId, ConversationSeq, MailboxSeq, SessionEpoch};

/// How often cursors are looked at.
const TICK: Duration = Duration::from_millis(100);
/// At most one receipt a conversation and member in this time; the newest says it all.
const SPACING: Duration = Duration::from_secs(1);
/// How often cursors are handed to the store.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Entries read at a time.
const READ_ENTRIES: usize = 1024;
const READ_BYTES: usize = 1 << 20;

/// Marks of one user: conversations, and how far each was taken.
pub(super) type UserMarks = Vec<(ConversationId, ConversationSeq)>;

/// What devices have said of how far they are.
pub(super) struct Cursors {
    state: Mutex<HashMap<DeviceKey, Cursor>>,
    /// Marks that came from elsewhere than a mailbox, or came back because they could not be committed.
    handed_in: Mutex<Vec<(UserNo, UserMarks)>>,
    /// How many pieces of work are on their way to the store, by user.
    under_way: Mutex<HashMap<UserNo, u32>>,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct Cursor {
    /// The session that speaks for the device: an older one that is just leaving must not.
    session: SessionEpoch,
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
        Self { state: Mutex::default(), handed_in: Mutex::default(), under_way: Mutex::default(), stop: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceKey, Cursor>> {
        lock(&self.state)
    }

    /// A device is here: the server knew it at `known`, it says that it is at `said`.
    pub(super) fn enter(&self, device: DeviceKey, session: SessionEpoch, known: MailboxSeq, said: MailboxSeq) {
        let mut state = self.lock();
        let cursor = state.entry(device).or_insert(Cursor { session, settled: known, acked: known, saved: known, here: true });
        if session < cursor.session {
            return;
        }
        cursor.session = session;
        cursor.here = true;
        cursor.acked = cursor.acked.max(said);
    }

    /// A device begins elsewhere than where it was: what lies before was not delivered to it.
    pub(super) fn begin_at(&self, device: DeviceKey, session: SessionEpoch, at: MailboxSeq) {
        let mut state = self.lock();
        if state.get(&device).is_none_or(|cursor| cursor.session <= session) {
            state.insert(device, Cursor { session, settled: at, acked: at, saved: MailboxSeq(0), here: true });
        }
    }

    pub(super) fn ack(&self, device: DeviceKey, session: SessionEpoch, seq: MailboxSeq) {
        if let Some(cursor) = self.lock().get_mut(&device).filter(|cursor| cursor.session == session) {
            cursor.acked = cursor.acked.max(seq);
        }
    }

    /// How far a device has said that it is; 0 if it is not here.
    pub(super) fn acked(&self, device: DeviceKey) -> MailboxSeq {
        self.lock().get(&device).map_or(MailboxSeq(0), |cursor| cursor.acked)
    }

    pub(super) fn leave(&self, device: DeviceKey, session: SessionEpoch) {
        if let Some(cursor) = self.lock().get_mut(&device).filter(|cursor| cursor.session == session) {
            cursor.here = false;
        }
    }

    /// Marks that are due although no cursor says so: what a snapshot held, or what could not be committed.
    pub(super) fn hand_in(&self, user: UserNo, marks: UserMarks) {
        lock(&self.handed_in).push((user, marks));
    }

    /// Marks of a user are on their way to the store.
    fn sent(&self, user: UserNo) {
        *lock(&self.under_way).entry(user).or_default() += 1;
    }

    /// They have arrived there, or are given up.
    pub(super) fn settled(&self, user: UserNo) {
        let mut under_way = lock(&self.under_way);
        if let Some(count) = under_way.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&user);
            }
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
    ///
    /// A cursor in the store says that the receipts for everything before it are durable: only then does a server that was killed find
    /// the others again. So it waits while any mark of its user does.
    fn unsaved(&self, marks: &Marks) -> Vec<(DeviceKey, MailboxSeq)> {
        let mut open: HashSet<UserNo> = marks.waiting.keys().map(|(user, _)| *user).collect();
        open.extend(lock(&self.handed_in).iter().map(|(user, _)| *user));
        open.extend(lock(&self.under_way).keys());
        let mut state = self.lock();
        let mut unsaved = Vec::new();
        state.retain(|device, cursor| {
            if open.contains(&device.user) {
                return true;
            }
            if cursor.settled > cursor.saved {
                cursor.saved = cursor.settled;
                unsaved.push((*device, cursor.settled));
            }
            cursor.here || cursor.acked > cursor.settled
        });
        unsaved
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics between two consistent states.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What may be told now, by user; at the end, all of it.
    fn due(&mut self, now: Instant, all: bool) -> HashMap<UserNo, UserMarks> {
        self.told.retain(|_, told| !all && now.duration_since(*told) < SPACING);
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
        for (user, list) in std::mem::take(&mut *lock(&cursors.handed_in)) {
            list.into_iter().for_each(|(conversation, seq)| marks.raise(user, conversation, seq));
        }
        for (user, list) in marks.due(Instant::now(), stopping) {
            let retry = list.clone();
            cursors.sent(user);
            if queue.push(Lane::User(user), 0, Work::Delivered { user, marks: list }).is_err() {
                cursors.settled(user);
                // Full: the marks only rise, so they simply wait for the next round.
                retry.into_iter().for_each(|(conversation, seq)| marks.raise(user, conversation, seq));
            }
        }
        if stopping || Instant::now() >= save_at {
            save_at = Instant::now() + SAVE_EVERY;
            if let Err(error) = store.save_cursors(&cursors.unsaved(&marks)) {
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
