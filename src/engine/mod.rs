//! The engine: what sessions ask for, decided and committed; what the store holds, as devices see it; who is here.
//!
//! It knows the traits of the store, and nothing of connections. Commands and hellos go through the committer (one thread), reads go
//! to the store on a bounded pool of blocking threads, hints go through the [`Hub`].

mod committer;
pub mod decide;
mod early;
pub mod hub;
mod lookup;
mod push;
mod queries;
mod queue;
mod receipts;
mod snapshot;
#[cfg(test)]
mod stepped;
#[cfg(test)]
mod tests;
mod view;

pub use early::Provisional;
pub use hub::{End, Hub, SessionHandle};
pub use push::{Hint, Push, Pushing, Standing};
pub use snapshot::{SnapshotCursor, SnapshotPage};
pub use view::Viewer;

use crate::store::{MailboxBounds, Retention, Store, StoreError, UserNo};
use committer::{Arrived, Committer, Health, Said, Work};
use push::Handover;
use queue::{Bounds, FairQueue, Full, Lane};
use receipts::Cursors;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, oneshot};
use whimbrel_protocol::frame::{
    Begin, Busy, Command, CommandBody, Error, Event, Hello, Origin, Position, ResetReason, ServerSignal, Signal, Target, TypingFrom,
};
use whimbrel_protocol::{ConversationId, ConversationSeq, ErrorCode, MailboxSeq, Time, UserId};

/// How many commands of a device may be on the way.
pub const WINDOW: u32 = 128;
/// Commands of all sessions that may wait for the committer, and their content.
const QUEUE: Bounds = Bounds { pieces: 65_536, bytes: 64 << 20 };
/// What a session whose command found the queue full is told to wait.
const BUSY_MS: u32 = 200;
/// Reads of the store under way at once; others wait for their turn.
const READS_MAX: usize = 16;
/// The most entries read for a session at a time, and the most bytes of content.
const READ_ENTRIES: usize = 256;
const READ_BYTES: usize = 32 * 1024;
/// Names kept at hand.
const NAMES_MAX: usize = 65_536;
/// Sessions that may begin in a second, for each core: what is let in costs about half a millisecond with TLS.
const SESSIONS_A_SECOND: u32 = 1_000;
/// Those that are asked to come back in a second after a restart, for each core: a third of it, for others come unasked, and those who are back
/// already want to be served nearly as on any other day: their slowest messages take 1.3 to 1.75 times as long, with half of it 1.9 to 2.7 times
/// (docs/benchmarks.md).
const RESUMES_A_SECOND: u32 = SESSIONS_A_SECOND / 3;
/// How often mailboxes are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(3600);

/// What a mailbox holds, and where a device's events begin in it.
type Place = (MailboxBounds, Begin);

/// Milliseconds since 1970, by the system's clock.
pub(crate) fn wall_clock() -> Time {
    // Before 1970 nothing here works anyway; 0 is as good as any.
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

/// What can be set.
#[derive(Clone)]
pub struct EngineConfig {
    /// How long a user without a session still counts as online.
    pub presence_grace: Duration,
    /// How much of each mailbox is kept.
    pub retention: Retention,
    /// Who brings hints to devices that are not there, if anybody does.
    pub push: Option<Pushing>,
}

/// The engine. Dropping it does not stop its threads: call [`Engine::stop`].
pub struct Engine {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    queue: Arc<FairQueue<Work>>,
    cursors: Arc<Cursors>,
    handover: Option<Arc<Handover>>,
    health: Arc<Health>,
    /// Hellos so far.
    hellos: AtomicU64,
    reads: Arc<Semaphore>,
    names: Mutex<HashMap<UserNo, UserId>>,
    retention: Retention,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a session begins with.
#[derive(Debug)]
pub struct Entered {
    /// The session.
    pub session: Arc<SessionHandle>,
    /// What the store says of the device's outbox.
    pub arrival: decide::Arrival,
    /// Highest entry of the mailbox.
    pub head: MailboxSeq,
    /// Where the events begin.
    pub begin: Begin,
    /// What the snapshot holds, if there is one.
    pub snapshot: Option<SnapshotCursor>,
}

impl Engine {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(store: Arc<dyn Store>, config: EngineConfig) -> std::io::Result<Arc<Self>> {
        let engine = Arc::new(Self::new(store, config));
        let committer = engine.committer(committer::UNKNOWN_PAUSE);
        let (store, cursors, queue) = (engine.store.clone(), engine.cursors.clone(), engine.queue.clone());
        let mut threads = vec![
            std::thread::Builder::new().name("committer".into()).spawn(move || committer.run())?,
            std::thread::Builder::new().name("receipts".into()).spawn(move || receipts::run(&*store, &cursors, &queue))?,
        ];
        if let Some(handover) = engine.handover.clone() {
            let engine = engine.clone();
            threads.push(std::thread::Builder::new().name("push".into()).spawn(move || push::run(&engine, &handover))?);
        }
        *engine.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(engine)
    }

    fn new(store: Arc<dyn Store>, config: EngineConfig) -> Self {
        Self {
            store,
            hub: Arc::new(Hub::new(config.presence_grace, config.push.as_ref().map_or(Duration::ZERO, |pushing| pushing.patience))),
            queue: Arc::new(FairQueue::new(QUEUE)),
            cursors: Arc::new(Cursors::new()),
            handover: config.push.map(|pushing| Arc::new(Handover::new(pushing))),
            health: Arc::default(),
            hellos: AtomicU64::new(0),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            names: Mutex::default(),
            retention: config.retention,
            threads: Mutex::default(),
        }
    }

    fn committer(&self, unknown_pause: Duration) -> Committer {
        Committer {
            store: self.store.clone(),
            health: self.health.clone(),
            hub: self.hub.clone(),
            queue: self.queue.clone(),
            cursors: self.cursors.clone(),
            handover: self.handover.clone(),
            unknown_pause,
        }
    }

    /// Who is here.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Tells who came and went, each second. Runs until dropped.
    pub async fn tend_presence(self: Arc<Self>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            self.hub.tell_presence();
        }
    }

    /// Trims mailboxes, each hour. Runs until dropped.
    pub async fn tend_mailboxes(self: Arc<Self>) {
        let mut hour = tokio::time::interval(TRIM_EVERY);
        loop {
            hour.tick().await;
            // Only what is written can be trimmed.
            let trim = |engine: &Self| engine.store.flush().and_then(|()| engine.store.trim(engine.retention, wall_clock()));
            match self.on_store(trim).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "trimmed mailboxes"),
                Err(error) => tracing::warn!(%error, "cannot trim mailboxes; trying again in an hour"),
            }
        }
    }

    /// From now on whoever comes is asked to leave. Returns the sessions that are here, which are to be asked ([`SessionHandle::leave`]), each with
    /// when it is to come back: in so many milliseconds from now.
    #[must_use]
    pub fn drain(&self) -> Vec<(Arc<SessionHandle>, u32)> {
        self.hub.drain(RESUMES_A_SECOND.saturating_mul(cores()))
    }

    /// How many sessions may begin in a second on this machine.
    #[must_use]
    pub fn sessions_a_second() -> u32 {
        SESSIONS_A_SECOND.saturating_mul(cores())
    }

    /// Commits what waits, writes what was put off, and ends the threads. Blocks until that is done.
    pub fn stop(&self) {
        // First who asks the committer and who makes receipts, then who commits them.
        if let Some(handover) = &self.handover {
            handover.stop();
        }
        self.cursors.stop();
        let mut threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(thread) = threads.pop() {
            if threads.is_empty() {
                // Only the committer is left.
                self.queue.close();
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
        if let Err(error) = self.store.flush() {
            tracing::warn!(%error, "the next start takes longer: what was put off could not be written");
        }
    }

    /// Uses the store where that may block: reads, and what is written without the committer.
    async fn on_store<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = |_| StoreError::Unavailable("the server is going down".into());
        let permit = self.reads.clone().acquire_owned().await.map_err(closed)?;
        let engine = self.clone();
        let result = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&engine)
        });
        result.await.unwrap_or_else(|panic| Err(StoreError::Damaged(format!("it could not be used: {panic}"))))
    }

    /// A device says hello. `user` is who it is, checked; the hello's own word for that does not count.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn hello(self: &Arc<Self>, user: &UserId, hello: &Hello) -> Result<Entered, Error> {
        let said = Said::new(user, hello);
        let arrived = self.commit_hello(self.own_turn(), |answer| Work::Hello { said, answer }).await??;
        let session = arrived.session.clone();
        let (position, origin) = (hello.position, hello.origin);
        self.on_store(move |engine| engine.settle_in(arrived, position, origin)).await.map_err(|error| {
            self.leave(&session);
            store_error(&error)
        })
    }

    /// A turn for one hello.
    fn own_turn(&self) -> Lane {
        Lane::Hello(self.hellos.fetch_add(1, Ordering::Relaxed))
    }

    /// Has the committer look at a hello.
    async fn commit_hello<T>(&self, lane: Lane, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        if self.queue.push(lane, 0, work(answer)).is_err() {
            return Err(overloaded());
        }
        answered.await.map_err(|_| overloaded())
    }

    /// Where an arrived device's session begins.
    fn settle_in(&self, arrived: Arrived, position: Option<Position>, origin: Origin) -> Result<Entered, StoreError> {
        let place = self.place(arrived.arrival.device.user, position, origin)?;
        let entered = Self::begin(arrived, place, origin);
        self.speak_for(&entered.session, &entered.arrival, entered.begin, position.is_some());
        Ok(entered)
    }

    fn begin(arrived: Arrived, (bounds, begin): Place, origin: Origin) -> Entered {
        let Arrived { session, arrival } = arrived;
        session.raise_head(bounds.head);
        let snapshot = begin.snapshot.then(|| SnapshotCursor::new(origin == Origin::Snapshot));
        Entered { session, arrival, head: bounds.head, begin, snapshot }
    }

    /// From now on the session says how far its device is.
    fn speak_for(&self, session: &SessionHandle, arrival: &decide::Arrival, begin: Begin, was_here: bool) {
        if was_here && begin.reset.is_none() {
            self.cursors.enter(arrival.device, session.epoch(), arrival.cursor, begin.cursor);
        } else {
            self.cursors.begin_at(arrival.device, session.epoch(), begin.cursor);
        }
        self.stands_otherwise(session.user);
    }

    /// Where a device's events begin.
    fn place(&self, user: UserNo, position: Option<Position>, origin: Origin) -> Result<Place, StoreError> {
        let bounds = self.store.mailbox(user)?;
        let mut reset = None;
        if let Some(position) = position {
            reset = self.why_not(user, bounds, position)?;
            if reset.is_none() {
                let Position { cursor, time, .. } = position;
                return Ok((bounds, Begin { cursor, time, snapshot: false, reset }));
            }
        }
        let cursor = match origin {
            Origin::Oldest => bounds.floor,
            Origin::Snapshot | Origin::Now => bounds.head,
        };
        let time = self.entry_time(user, bounds, cursor)?.unwrap_or_default();
        // Conversations that began at or before the cursor are told by the snapshot.
        Ok((bounds, Begin { cursor, time, snapshot: cursor > MailboxSeq(0), reset }))
    }

    /// The time of a mailbox entry; `None` if it is no longer held.
    fn entry_time(&self, user: UserNo, bounds: MailboxBounds, seq: MailboxSeq) -> Result<Option<Time>, StoreError> {
        if seq <= bounds.floor {
            return Ok(None);
        }
        let there = self.store.mailbox_entries(user, MailboxSeq(seq.0 - 1), 1, usize::MAX)?;
        Ok(there.first().map(|entry| entry.record.time))
    }

    fn why_not(&self, user: UserNo, bounds: MailboxBounds, position: Position) -> Result<Option<ResetReason>, StoreError> {
        if position.epoch != self.store.epoch() || position.cursor > bounds.head {
            return Ok(Some(ResetReason::OtherLog));
        }
        if position.cursor < bounds.floor {
            return Ok(Some(ResetReason::Trimmed));
        }
        let there = self.entry_time(user, bounds, position.cursor)?;
        let differs = position.time != Time(0) && there.is_some_and(|there| there != position.time);
        Ok(differs.then_some(ResetReason::OtherLog))
    }

    /// A session is over.
    pub fn leave(&self, session: &Arc<SessionHandle>) {
        self.hub.leave(session);
        self.cursors.leave(session.device, session.epoch());
        self.stands_otherwise(session.user);
    }

    /// A device of the user came or went, or is suspended, or no longer.
    fn stands_otherwise(&self, user: UserNo) {
        if let Some(handover) = &self.handover {
            handover.on_standing(user);
        }
    }

    /// Takes a command in. Its outcome shows in the session's [`applied`](SessionHandle::applied).
    ///
    /// # Errors
    /// If the server is full; the command was not taken.
    pub fn submit(&self, session: &Arc<SessionHandle>, command: Command) -> Result<(), Busy> {
        let cseq = command.cseq;
        let bytes = match &command.body {
            CommandBody::Send(send) => send.content.size(),
            _ => 0,
        };
        let work = Work::Command { session: session.clone(), command };
        self.queue.push(Lane::User(session.user), bytes, work).map_err(|Full(_)| {
            metrics::counter!("whimbrel_busy_total").increment(1);
            Busy { cseq, retry_after_ms: BUSY_MS }
        })
    }

    /// A device has durably taken its mailbox up to `seq`.
    pub fn ack(&self, session: &SessionHandle, seq: MailboxSeq) {
        if !session.is_replaced() {
            self.cursors.ack(session.device, session.epoch(), seq);
        }
    }

    /// A device has durably taken a snapshot that held conversations up to here.
    pub fn took_snapshot(&self, session: &SessionHandle, holds: Vec<(ConversationId, ConversationSeq)>) {
        if !session.is_replaced() {
            self.cursors.hand_in(session.user, holds);
        }
    }

    /// Events after `after`, from memory. `None` if that needs a disk: then [`events`](Self::events) gets them.
    #[must_use]
    pub fn recent_events(&self, viewer: &Viewer, after: MailboxSeq) -> Option<Vec<Event>> {
        let entries = self.store.recent_entries(viewer.device.user, after, READ_ENTRIES, READ_BYTES)?;
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        view::render(viewer, &entries, &mut |user| names.get(&user).cloned())
    }

    /// Events after `after`, wherever they are.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn events(self: &Arc<Self>, viewer: Viewer, after: MailboxSeq) -> Result<Vec<Event>, Error> {
        let events = self.on_store(move |engine| {
            let entries = engine.store.mailbox_entries(viewer.device.user, after, READ_ENTRIES, READ_BYTES)?;
            let mut failure = None;
            let rendered = view::render(&viewer, &entries, &mut |user| match engine.name(user) {
                Ok(name) => Some(name),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
            rendered.ok_or_else(|| failure.unwrap_or_else(|| StoreError::Damaged("a name is missing".into())))
        });
        events.await.map_err(|error| store_error(&error))
    }

    /// A user's name. May block.
    fn name(&self, user: UserNo) -> Result<UserId, StoreError> {
        let lock = || self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = lock().get(&user) {
            return Ok(name.clone());
        }
        let name = self.store.user_id(user)?;
        let mut names = lock();
        if names.len() >= NAMES_MAX {
            // Rare and cheap to fill again: simpler than keeping an order of use.
            names.clear();
        }
        names.insert(user, name.clone());
        Ok(name)
    }

    /// Passes a signal on. It is dropped if the server has no time for it.
    pub fn signal(self: &Arc<Self>, session: &Arc<SessionHandle>, signal: Signal) {
        match signal {
            Signal::Watch(watch) => self.hub.watch(session, watch),
            Signal::State(state) => {
                self.hub.set_background(session, state.background);
                self.stands_otherwise(session.user);
            }
            Signal::Typing(typing) => {
                let Ok(permit) = self.reads.clone().try_acquire_owned() else { return };
                let (engine, session) = (self.clone(), session.clone());
                tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    if let Err(error) = engine.pass_typing(&session, &typing.to, typing.active) {
                        tracing::debug!(%error, "a typing signal was dropped");
                    }
                });
            }
        }
    }

    fn pass_typing(&self, session: &SessionHandle, to: &Target, active: bool) -> Result<(), StoreError> {
        let Some(id) = self.find(session.user, to)? else { return Ok(()) };
        let Some(conversation) = self.store.conversation(id)? else { return Ok(()) };
        let signal = ServerSignal::Typing(TypingFrom { conversation: id, user: session.user_id.clone(), active });
        for member in conversation.members.iter().filter(|member| member.user != session.user) {
            self.hub.signal(member.user, &signal);
        }
        Ok(())
    }

    /// Whether the store can be read, and written: if the last commit failed, it is tried again here, since nobody else may come any more
    /// to a server that is not ready.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ready(self: &Arc<Self>) -> Result<(), StoreError> {
        self.on_store(Self::probe).await
    }

    fn probe(&self) -> Result<(), StoreError> {
        if let Some(bytes) = self.health.failing() {
            self.store.probe(bytes)?;
            self.health.passed(bytes);
        }
        self.store.mailbox(UserNo(0)).map(drop)
    }

    /// The epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> whimbrel_protocol::LogEpoch {
        self.store.epoch()
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

fn overloaded() -> Error {
    Error { code: ErrorCode::Overloaded, message: "the server is full at the moment".into(), retry_after_ms: 1000 }
}

fn store_error(error: &StoreError) -> Error {
    tracing::error!(%error, "a session cannot be served from the store");
    Error { code: ErrorCode::StoreUnavailable, message: "the server cannot read its store".into(), retry_after_ms: 1000 }
}
