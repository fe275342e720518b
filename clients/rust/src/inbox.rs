//! The queue between the driver and the application: what came, what is in the application's hand, what is done.

use crate::state::{Told, graver};
use crate::{Incoming, Outcome};
use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use whimbrel_protocol::Disagreement;
use whimbrel_protocol::frame::{Event, EventBody, Position, ResetReason, ServerSignal};

/// Events that wait for the application, at most.
pub const EVENTS_MAX: usize = 1_024;
/// Bytes of content in them, at most: the longest texts are not kept in such numbers.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Signals that wait; the oldest go.
const SIGNALS_MAX: usize = 64;
/// Other things that wait, such as that a snapshot is there: there is at most a few a session. Further ones are dropped, and logged.
const NOTICES_MAX: usize = 256;

/// Something on its way to the application.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event: stored with its position once it is done. Without anything to show it is done when its turn comes.
    Event { event: Event, position: Position, shown: Option<Incoming> },
    /// The mailbox could not be continued: remembered by the store until it is done. At most one waits.
    Reset(ResetReason),
    /// The outcome of a command that cannot be told: remembered alike.
    Untold(Outcome),
    /// The outbox and the server contradicted each other: remembered alike. Of each kind at most one waits, the newest.
    Disagreement(Disagreement),
    /// Anything else that has its place in the order.
    Notice(Incoming),
}

fn text_bytes(event: &Event) -> usize {
    match &event.body {
        EventBody::Message(message) => message.content.text.len(),
        EventBody::Rejected(rejected) => rejected.message.len(),
        _ => 0,
    }
}

/// What the application is done with, to be stored in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// In order.
    pub events: Vec<Event>,
    /// Of the last of them.
    pub position: Option<Position>,
    /// What else the application has taken note of.
    pub told: Told,
}

impl Done {
    pub fn is_nothing(&self) -> bool {
        self.position.is_none() && self.told.is_nothing()
    }
}

/// The queue. Locked for moments only, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    /// The application has something to take.
    arrived: Notify,
    /// The driver has something to store.
    finished: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Item>,
    in_hand: Option<Item>,
    done: Vec<Item>,
    signals: VecDeque<ServerSignal>,
    bytes: usize,
    events: usize,
    notices: usize,
    untold: usize,
    store_only: bool,
    ended: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The application's side.

    pub fn arrived(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// The next thing: `None` if there is none now, `Some(None)` if there will never be one.
    pub fn take(&self) -> Option<Option<Incoming>> {
        let mut inner = self.lock();
        while let Some(mut item) = inner.waiting.pop_front() {
            match &mut item {
                Item::Event { shown, .. } => {
                    let shown = shown.take();
                    if shown.is_some() {
                        inner.in_hand = Some(item);
                        return Some(shown);
                    }
                    inner.done.push(item);
                    self.finished.notify_one();
                }
                Item::Reset(reason) => {
                    let reason = *reason;
                    inner.in_hand = Some(item);
                    return Some(Some(Incoming::Reset { reason }));
                }
                Item::Untold(outcome) => {
                    let shown = Incoming::Outcome(outcome.clone());
                    inner.in_hand = Some(item);
                    return Some(Some(shown));
                }
                Item::Disagreement(why) => {
                    let shown = Incoming::Disagreement(*why);
                    inner.in_hand = Some(item);
                    return Some(Some(shown));
                }
                Item::Notice(_) => {
                    inner.notices = inner.notices.saturating_sub(1);
                    let Item::Notice(notice) = item else { continue };
                    return Some(Some(notice));
                }
            }
        }
        if let Some(signal) = inner.signals.pop_front() {
            return Some(Some(Incoming::Signal(signal)));
        }
        inner.ended.then_some(None)
    }

    pub fn done(&self) {
        let mut inner = self.lock();
        if let Some(item) = inner.in_hand.take() {
            inner.done.push(item);
            self.finished.notify_one();
        }
    }

    pub fn store_only(&self) {
        let mut inner = self.lock();
        inner.store_only = true;
        inner.signals.clear();
        inner.notices = 0;
        let (hand, waiting) = (inner.in_hand.take(), std::mem::take(&mut inner.waiting));
        inner.done.extend(hand.into_iter().chain(waiting).filter(|item| !matches!(item, Item::Notice(_))));
        self.finished.notify_one();
    }

    // The driver's side.

    pub fn finished(&self) -> Notified<'_> {
        self.finished.notified()
    }

    /// Whether there is room for another event.
    pub fn has_room(&self) -> bool {
        let inner = self.lock();
        inner.events < EVENTS_MAX && inner.bytes < BYTES_MAX
    }

    /// Whether so much was taken that more is worth fetching again.
    pub fn is_half_empty(&self) -> bool {
        let inner = self.lock();
        inner.events <= EVENTS_MAX / 2 && inner.bytes <= BYTES_MAX / 2
    }

    /// How many commands, whose outcome cannot be told, the application has not taken note of.
    pub fn untold(&self) -> usize {
        self.lock().untold
    }

    pub fn push(&self, mut item: Item) {
        let mut inner = self.lock();
        inner.untold += usize::from(matches!(item, Item::Untold(_)));
        match &mut item {
            Item::Event { event, .. } => {
                inner.events += 1;
                inner.bytes += text_bytes(event);
                if inner.store_only {
                    inner.done.push(item);
                    self.finished.notify_one();
                    return;
                }
            }
            Item::Reset(_) | Item::Untold(_) | Item::Disagreement(_) if inner.store_only => {
                inner.done.push(item);
                self.finished.notify_one();
                return;
            }
            Item::Reset(reason) => {
                // One that still waits is told together with this one.
                let waits = |item: &Item| if let Item::Reset(reason) = item { Some(*reason) } else { None };
                let before = inner.waiting.iter().find_map(waits);
                *reason = graver(before, Some(*reason)).unwrap_or(*reason);
                inner.waiting.retain(|item| waits(item).is_none());
            }
            Item::Untold(_) => {}
            Item::Disagreement(why) => {
                let same = |item: &Item| matches!(item, Item::Disagreement(before) if discriminant(before) == discriminant(why));
                inner.waiting.retain(|item| !same(item));
            }
            Item::Notice(notice) => {
                if inner.store_only {
                    return;
                }
                if inner.notices >= NOTICES_MAX {
                    tracing::warn!(?notice, "dropped: the application takes nothing");
                    return;
                }
                inner.notices += 1;
            }
        }
        inner.waiting.push_back(item);
        self.arrived.notify_one();
    }

    pub fn push_signal(&self, signal: ServerSignal) {
        let mut inner = self.lock();
        if inner.store_only {
            return;
        }
        if inner.signals.len() >= SIGNALS_MAX {
            inner.signals.pop_front();
        }
        inner.signals.push_back(signal);
        self.arrived.notify_one();
    }

    /// Takes what is done, up to the first `limit` things, in order.
    pub fn take_done(&self, limit: usize) -> Done {
        let mut inner = self.lock();
        let done = inner.take_done(limit);
        if !inner.done.is_empty() {
            self.finished.notify_one();
        }
        done
    }

    /// Forgets every event that is not done: the log they came from is no longer the one to continue. Takes those that are done: it is
    /// the last moment at which they can be stored. Notices and resets stay.
    pub fn reset(&self) -> Done {
        let mut inner = self.lock();
        let done = inner.take_done(usize::MAX);
        inner.waiting.retain(|item| !matches!(item, Item::Event { .. }));
        inner.in_hand.take_if(|item| matches!(item, Item::Event { .. }));
        (inner.events, inner.bytes) = (0, 0);
        done
    }

    /// Nothing comes any more; what waits is not handed out, as it could no longer be stored.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        inner.waiting.retain(|item| matches!(item, Item::Notice(_)));
        inner.signals.clear();
        self.arrived.notify_one();
    }
}

impl Inner {
    fn take_done(&mut self, limit: usize) -> Done {
        let count = self.done.len().min(limit);
        let mut done = Done::default();
        let items: Vec<Item> = self.done.drain(..count).collect();
        for item in items {
            match item {
                Item::Event { event, position, .. } => {
                    self.events = self.events.saturating_sub(1);
                    self.bytes = self.bytes.saturating_sub(text_bytes(&event));
                    done.events.push(event);
                    done.position = Some(position);
                }
                Item::Reset(_) => done.told.reset = true,
                Item::Untold(outcome) => {
                    self.untold = self.untold.saturating_sub(1);
                    done.told.untold.extend(outcome.nonce);
                }
                Item::Disagreement(why) => done.told.disagreements.push(why),
                Item::Notice(_) => {}
            }
        }
        // A later one is still to be told: then the store goes on remembering.
        let mut left = self.waiting.iter().chain(&self.in_hand).chain(&self.done);
        done.told.reset &= !left.any(|item| matches!(item, Item::Reset(_)));
        done
    }
}
