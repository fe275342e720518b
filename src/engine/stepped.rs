//! An engine without threads, for simulations: each step happens when it is asked for.

use super::committer::Work;
use super::queue::{Bounds, Lane};
use super::{Engine, EngineConfig, Entered, Viewer, overloaded, store_error, view};
use crate::store::{Retention, Store};
use std::sync::Arc;
use std::time::Duration;
use whimbrel_protocol::frame::{Error, Event, Hello};
use whimbrel_protocol::{MailboxSeq, UserId};

impl Engine {
    pub(crate) fn stepped(store: Arc<dyn Store>) -> Arc<Self> {
        let retention = Retention { entries: u64::MAX, age: Duration::MAX };
        Arc::new(Self::new(store, EngineConfig { presence_grace: Duration::ZERO, retention }))
    }

    /// Commits up to `max` of what waits. Returns whether anything did.
    pub(crate) fn step_commit(&self, max: usize) -> bool {
        if self.queue.len() == 0 {
            return false;
        }
        let batch = self.queue.take(Bounds { pieces: max, bytes: usize::MAX }).unwrap_or_default();
        self.committer(Duration::ZERO).commit(batch);
        true
    }

    /// As [`hello`](Self::hello), with everything before it committed first.
    pub(crate) fn step_hello(&self, user: &UserId, hello: &Hello) -> Result<Entered, Error> {
        let (work, mut answered) = Work::hello(user, hello);
        assert!(self.queue.push(Lane::Hello(0), 0, work).is_ok(), "the queue is full");
        while self.step_commit(usize::MAX) {}
        let arrived = answered.try_recv().map_err(|_| overloaded())??;
        self.settle_in(arrived, hello.position, hello.origin).map_err(|error| store_error(&error))
    }

    /// Everything in a mailbox after `after`, as a device sees it.
    pub(crate) fn step_events(&self, viewer: &Viewer, after: MailboxSeq, limit: usize) -> Vec<Event> {
        let entries = self.store.mailbox_entries(viewer.device.user, after, limit, usize::MAX).unwrap_or_default();
        view::render(viewer, &entries, &mut |user| self.name(user).ok()).unwrap_or_default()
    }

    /// What waits is lost, as in a crash.
    pub(crate) fn step_crash(&self) {
        while self.queue.len() > 0 {
            drop(self.queue.take(Bounds { pieces: usize::MAX, bytes: usize::MAX }));
        }
    }
}
