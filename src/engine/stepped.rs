//! An engine without threads, for simulations: each step happens when it is asked for.

use super::committer::Work;
use super::committer::{Arrived, Said};
use super::decide::Arrival;
use super::queue::{Bounds, Lane};
use super::{End, Engine, EngineConfig, Entered, Provisional, Viewer, overloaded, store_error, view};
use crate::store::{Retention, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use whimbrel_protocol::frame::{Error, Event, Hello};
use whimbrel_protocol::{MailboxSeq, UserId};

impl Engine {
    pub(crate) fn stepped(store: Arc<dyn Store>) -> Arc<Self> {
        let retention = Retention { entries: u64::MAX, age: Duration::MAX };
        Arc::new(Self::new(store, EngineConfig { presence_grace: Duration::ZERO, retention, push: None }))
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

    /// Has a hello wait for the committer.
    pub(super) fn push_hello(&self, user: &UserId, hello: &Hello) -> oneshot::Receiver<Result<Arrived, Error>> {
        let (answer, answered) = oneshot::channel();
        self.push(Work::Hello { said: Said::new(user, hello), answer });
        answered
    }

    fn push(&self, work: Work) {
        let lane = Lane::Hello(self.hellos.fetch_add(1, Ordering::Relaxed));
        assert!(self.queue.push(lane, 0, work).is_ok(), "the queue is full");
    }

    /// As [`hello`](Self::hello), with everything before it committed first.
    pub(crate) fn step_hello(&self, user: &UserId, hello: &Hello) -> Result<Entered, Error> {
        let mut answered = self.push_hello(user, hello);
        while self.step_commit(usize::MAX) {}
        let arrived = answered.try_recv().map_err(|_| overloaded())??;
        self.settle_in(arrived, hello.position, hello.origin).map_err(|error| store_error(&error))
    }

    /// As [`provisional`](Self::provisional), with everything before it committed first.
    pub(crate) fn step_provisional(&self, user: &UserId, hello: &Hello) -> Result<Option<Entered>, Error> {
        let found = self.place_early(user, hello.position, hello.origin).map_err(|error| store_error(&error))?;
        let Some((number, place)) = found else { return Ok(None) };
        let (answer, mut answered) = oneshot::channel();
        self.push(Work::Look { user: number, said: Said::new(user, hello), answer });
        while self.step_commit(usize::MAX) {}
        let looked = answered.try_recv().map_err(|_| overloaded())??;
        Ok(looked.map(|arrived| Self::begin(arrived, place, hello.origin)))
    }

    /// Has the end of a handshake wait for the committer.
    pub(super) fn push_confirm(&self, provisional: &Provisional) -> oneshot::Receiver<Result<Arrival, End>> {
        let (answer, answered) = oneshot::channel();
        let (said, session) = provisional.said();
        let lane = Lane::User(session.user);
        assert!(self.queue.push(lane, 0, Work::Confirm { said, session, answer }).is_ok(), "the queue is full");
        answered
    }

    /// As [`confirm`](Self::confirm), with everything before it committed first.
    pub(crate) fn step_confirm(&self, provisional: &Provisional) -> Result<(), End> {
        let mut answered = self.push_confirm(provisional);
        while self.step_commit(usize::MAX) {}
        let arrival = answered.try_recv().map_err(|_| End::Error(overloaded()))??;
        let bounds = self.store.mailbox(arrival.device.user).map_err(|error| End::Error(store_error(&error)))?;
        self.settle(provisional, &arrival, bounds.head);
        Ok(())
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
