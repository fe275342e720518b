//! The task that owns a client: its outbox, its cursor and its connection.
//!
//! One loop takes what the application asks, what the link brings, what the store has finished and what time it is, and does one thing
//! at a time ([`Driver::drive`]). Everything the store does is handed over in order and awaited beside the rest, but for the moments
//! of a session's beginning where nothing may happen before it is stored.

mod background;
mod deliver;
mod directory;
mod liveness;
mod networks;
mod notices;
mod outbox;
mod phase;
mod queries;
mod quiet;
mod roaming;
mod scout;
mod session;
mod sleep;
mod upgrade;

pub(crate) use networks::{Networks, networks_key};
pub(crate) use queries::Reply;

use crate::client::Sent;
use crate::inbox::{Done, Inbox, Item};
use crate::link::{Address, Haste, Known, Trust};
use crate::state::{Keeper, Loaded};
use crate::{Connection, EndReason, Liveness, OutcomeError, QueryError, SendError, StateError, Transport};
use background::Suspending;
use directory::Directory;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use liveness::Watchfulness;
use notices::Notices;
use outbox::Outbox;
use phase::{Backoff, Phase, Retry};
use queries::Queries;
use quiet::Suspicion;
use scout::Scout;
use sleep::Sleep;
#[cfg(test)]
pub(crate) use sleep::tests::sleep as slept;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use upgrade::Upgrade;
use whimbrel_protocol::frame::{CommandBody, Event, HistoryPage, Origin, Position, QueryBody, Signal, Watch};
use whimbrel_protocol::{DeviceId, Downlink, DownlinkState, MailboxSeq, Nonce, UserId};

/// Commands in the outbox whose outcome was not taken, at most; beyond them `send` waits.
pub const OUTBOX_MAX: usize = 10_000;
/// Events that are stored in one transaction.
const TAKE_MAX: usize = 256;
/// Commands that are stored in one transaction, unless one call of the application has more.
const ENQUEUE_MAX: usize = 256;
/// That commands were applied is stored this much later, if the events that follow do not carry it along.
const SAVE_DELAY: Duration = Duration::from_millis(100);
/// How long closing may take before it is cut short.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a driver is to be.
pub(crate) struct Config {
    pub server: Address,
    pub trust: Trust,
    pub transport: Transport,
    pub user: UserId,
    pub device: DeviceId,
    pub token: String,
    pub agent: String,
    pub origin: Origin,
    pub liveness: Liveness,
}

/// What handles ask.
pub(crate) enum Request {
    Query {
        body: QueryBody,
        reply: Reply,
    },
    Signal(Signal),
    Watch(Watch),
    NetworkChanged,
    /// Whether the application is suspended, and whom to tell when the server knows.
    Background(bool, oneshot::Sender<()>),
    Transport(Transport),
    Close(oneshot::Sender<()>),
}

/// Commands to store and send.
pub(crate) struct SendRequest {
    pub commands: Vec<ToSend>,
    pub stored: oneshot::Sender<Result<(), SendError>>,
}

/// One of them.
pub(crate) struct ToSend {
    pub nonce: Nonce,
    pub body: CommandBody,
    pub ticket: Option<oneshot::Sender<Result<Sent, OutcomeError>>>,
}

/// The driver's ends of everything that ties it to handles.
pub(crate) struct Queues {
    pub inbox: Arc<Inbox>,
    pub requests: mpsc::Receiver<Request>,
    pub sends: mpsc::Receiver<SendRequest>,
    pub active: watch::Receiver<bool>,
    pub connection: watch::Sender<Connection>,
}

/// What the store has finished.
enum Completed {
    Enqueued {
        requests: Vec<Storing>,
        result: Result<(), StateError>,
    },
    Taken {
        position: Option<Position>,
        /// As [`Driver::beginnings`] when it was asked for.
        beginning: u64,
        result: Result<(), StateError>,
    },
    Saved(Result<(), StateError>),
    Noted,
    /// Messages of a conversation whose members were not known.
    Named(Result<HistoryPage, QueryError>),
}

/// Who waits for commands to be stored, and which.
type Storing = (oneshot::Sender<Result<(), SendError>>, Vec<Nonce>);
type Job = Pin<Box<dyn Future<Output = Completed> + Send>>;

/// The owner of a client.
pub(crate) struct Driver {
    config: Config,
    keeper: Keeper,
    inbox: Arc<Inbox>,
    requests: mpsc::Receiver<Request>,
    sends: mpsc::Receiver<SendRequest>,
    /// Whether somebody looks.
    active: watch::Receiver<bool>,
    /// A request that does not fit into the outbox yet.
    held: Option<SendRequest>,
    connection: watch::Sender<Connection>,

    outbox: Outbox,
    downlink: Downlink,
    /// Highest event that went into the inbox; those up to it that come again are known.
    queued: MailboxSeq,
    /// How often events began elsewhere than where the device was.
    beginnings: u64,
    directory: Directory,
    /// Events that wait until a name is known, the first of them for its own.
    parked: VecDeque<Event>,
    /// The event whose name could not be found out: it goes without.
    nameless: Option<MailboxSeq>,
    queries: Queries,
    watch: Option<Watch>,

    jobs: FuturesUnordered<Job>,
    /// An enqueue is being stored: nothing is sent until it is.
    storing: bool,
    taking: bool,
    saving: bool,
    /// Since when the outbox has a state that is not stored.
    unsaved: Option<Instant>,

    /// This run of the client, and how often it has said hello: so that a hello that comes late cannot replace a newer session.
    instance: Nonce,
    attempt: u32,
    phase: Phase,
    scout: Scout,
    backoff: Backoff,
    watchfulness: Watchfulness,
    suspending: Suspending,
    /// The last silence may have been too long.
    suspicion: Option<Suspicion>,
    sleep: Sleep,
    /// Where the server is, as it said.
    known: Option<Known>,
    /// Whether the attempt under way is to hurry.
    haste: Haste,
    /// Since when there is no connection.
    offline_since: Option<Instant>,
    /// How long the network took in the last session.
    round_trip: Option<Duration>,
    networks: Networks,
    notices: Notices,
    upgrade: Upgrade,
    /// The zero of the time that the machines are told.
    epoch: Instant,
    closing: Option<Instant>,
    closers: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub fn new(config: Config, loaded: Loaded, networks: Networks, keeper: Keeper, queues: Queues) -> Self {
        let Queues { inbox, requests, sends, active, connection } = queues;
        let now = Instant::now();
        if let Some(reason) = loaded.reset {
            // An earlier run ended before the application had taken note of it.
            inbox.push(Item::Reset(reason));
        }
        loaded.disagreements.into_iter().for_each(|why| inbox.push(Item::Disagreement(why)));
        loaded.untold.into_iter().for_each(|command| inbox.push(Item::Untold(outbox::untold(command))));
        Self {
            downlink: Downlink::restore(DownlinkState { position: loaded.position }),
            queued: loaded.position.map_or(MailboxSeq(0), |position| position.cursor),
            beginnings: 0,
            directory: Directory::new(config.user.clone(), loaded.directory),
            outbox: Outbox::restore(loaded.outbox, loaded.pending, loaded.awaiting),
            watchfulness: Watchfulness::new(config.liveness, now),
            config,
            keeper,
            inbox,
            requests,
            sends,
            active,
            held: None,
            connection,
            parked: VecDeque::new(),
            nameless: None,
            queries: Queries::default(),
            watch: None,
            jobs: FuturesUnordered::new(),
            storing: false,
            taking: false,
            saving: false,
            unsaved: None,
            instance: Nonce(rand::random()),
            attempt: 0,
            phase: Phase::Waiting(now),
            scout: Scout::default(),
            backoff: Backoff::default(),
            suspending: Suspending::default(),
            suspicion: None,
            sleep: Sleep::new(now, sleep::wall()),
            known: None,
            haste: Haste::default(),
            offline_since: None,
            round_trip: None,
            networks,
            notices: Notices::listen(),
            upgrade: Upgrade::new(now),
            epoch: now,
            closing: None,
            closers: Vec::new(),
        }
    }

    /// Runs until nobody wants it any more, or it cannot go on.
    pub async fn run(mut self) {
        let error = self.drive().await.err();
        self.finish(error).await;
    }

    async fn drive(&mut self) -> Result<(), EndReason> {
        loop {
            self.take_held();
            self.store_done();
            self.save_applied();
            if self.pump()? && self.closing.is_some() {
                return Ok(());
            }
            let read = self.may_read();
            let wake = self.wake();
            let open = self.closing.is_none();
            let room = open && !self.storing && self.held.is_none() && self.room() > 0;
            tokio::select! {
                request = self.requests.recv(), if open => match request {
                    Some(request) => self.on_request(request),
                    None => self.close(),
                },
                Some(request) = self.sends.recv(), if room => self.on_sends(request),
                // Fails once the last handle is gone, of which the requests tell.
                Ok(()) = self.active.changed(), if open => {
                    let active = *self.active.borrow_and_update();
                    self.watchfulness.on_active(active);
                    self.haste.set(self.watchfulness.is_active(Instant::now()));
                }
                () = self.inbox.finished() => {}
                Some(completed) = self.jobs.next(), if !self.jobs.is_empty() => self.on_completed(completed)?,
                () = sleep_until(wake) => {}
                progress = self.phase.progress(read) => self.on_progress(progress).await?,
                () = self.notices.next() => self.on_notice(),
                scouted = self.scout.progress() => self.on_scouted(scouted).await?,
            }
        }
    }

    /// The time as the machines are told it.
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The application asks for something.
    fn on_wish(&mut self) {
        self.watchfulness.on_wish(Instant::now());
        self.haste.set(true);
    }

    fn on_request(&mut self, request: Request) {
        if !matches!(request, Request::Background(..)) {
            self.on_wish();
        }
        match request {
            Request::Query { body, reply } => self.queries.open(body, reply),
            Request::Signal(signal) => {
                if let Phase::Session(session) = &mut self.phase {
                    session.signal(signal);
                }
            }
            Request::Watch(watch) => {
                if let Phase::Session(session) = &mut self.phase {
                    session.watched = false;
                }
                self.watch = Some(watch);
            }
            Request::NetworkChanged => self.on_network_changed(),
            Request::Background(background, known) => self.on_background(background, known),
            Request::Transport(transport) => self.on_transport(transport),
            Request::Close(closed) => {
                self.closers.push(closed);
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.closing.get_or_insert(Instant::now() + CLOSE_TIMEOUT);
    }

    /// How many commands more may wait: those whose outcome cannot be told are among them until the application has taken note.
    fn room(&self) -> usize {
        self.outbox.room().saturating_sub(self.inbox.untold())
    }

    fn take_held(&mut self) {
        let room = if self.storing { 0 } else { self.room() };
        if let Some(request) = self.held.take_if(|request| request.commands.len() <= room) {
            self.on_sends(request);
        }
    }

    /// Numbers what is to be sent, and whatever else waits to be, and has it stored together.
    fn on_sends(&mut self, first: SendRequest) {
        self.on_wish();
        let mut requests = Vec::new();
        let mut commands = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            if request.commands.len() > self.room() {
                self.held = Some(request);
                break;
            }
            let nonces = request.commands.iter().map(|command| command.nonce).collect();
            commands.extend(request.commands.into_iter().map(|command| self.outbox.enqueue(command)));
            requests.push((request.stored, nonces));
            next = if commands.len() < ENQUEUE_MAX { self.sends.try_recv().ok() } else { None };
        }
        if requests.is_empty() {
            return;
        }
        self.storing = true;
        let stored = self.keeper.call(move |store| store.enqueue(&commands));
        self.jobs.push(Box::pin(async move { Completed::Enqueued { requests, result: stored.await } }));
    }

    /// Has the store take what the application is done with.
    fn store_done(&mut self) {
        if self.taking {
            return;
        }
        let done = self.inbox.take_done(TAKE_MAX);
        if done.is_nothing() {
            return;
        }
        self.taking = true;
        let (position, beginning) = (done.position, self.beginnings);
        let taken = self.store(done);
        self.jobs.push(Box::pin(async move { Completed::Taken { position, beginning, result: taken.await } }));
    }

    /// Hands to the store what the application is done with.
    fn store(&mut self, done: Done) -> impl Future<Output = Result<(), StateError>> + Send + 'static {
        let (me, outbox) = (self.config.user.clone(), self.outbox.state());
        if done.position.is_some() {
            // The transaction carries the outbox's state along.
            self.unsaved = None;
        }
        self.keeper.call(move |store| {
            if let Some(position) = done.position {
                store.take(&me, &done.events, position, outbox)?;
            }
            if done.told.is_nothing() { Ok(()) } else { store.told(&done.told) }
        })
    }

    fn save_applied(&mut self) {
        let due = self.unsaved.is_some_and(|since| self.closing.is_some() || since.elapsed() >= SAVE_DELAY);
        if !due || self.saving {
            return;
        }
        self.saving = true;
        self.unsaved = None;
        let state = self.outbox.state();
        let saved = self.keeper.call(move |store| store.applied(state));
        self.jobs.push(Box::pin(async move { Completed::Saved(saved.await) }));
    }

    fn on_completed(&mut self, completed: Completed) -> Result<(), EndReason> {
        match completed {
            Completed::Enqueued { requests, result } => {
                self.storing = false;
                if result.is_err() {
                    let failed: Vec<Nonce> = requests.iter().flat_map(|(_, nonces)| nonces).copied().collect();
                    self.outbox.forget(&failed);
                    // The outbox was put together anew: a session would have to be told. It is simpler to begin another.
                    if matches!(self.phase, Phase::Session(_)) {
                        self.lost("a command could not be stored".into(), Retry::Backoff);
                    }
                }
                for (stored, _) in requests {
                    // Whoever asked may be gone; what was stored is sent all the same.
                    let _ = stored.send(result.clone().map_err(SendError::State));
                }
            }
            Completed::Taken { position, beginning, result } => {
                self.taking = false;
                result?;
                // A position from before is of what may be another log.
                if let Some(position) = position.filter(|_| beginning == self.beginnings) {
                    let now = self.now();
                    self.downlink.on_stored(position, now);
                }
            }
            Completed::Saved(result) => {
                self.saving = false;
                result?;
            }
            Completed::Noted => {}
            Completed::Named(page) => self.on_named(page.ok()),
        }
        Ok(())
    }

    /// Whether everything that is done is stored.
    fn is_settled(&self) -> bool {
        !self.storing && !self.taking && !self.saving && self.unsaved.is_none()
    }

    async fn finish(mut self, error: Option<EndReason>) {
        self.requests.close();
        self.sends.close();
        // What is done is stored even if the server will not hear of it any more.
        let done = self.inbox.take_done(usize::MAX);
        if !done.is_nothing() && self.store(done).await.is_err() {
            tracing::debug!("what was done could not be stored: it comes again");
        }
        if let Some(session) = self.take_session() {
            session.leave().await;
        }
        self.keeper.stop().await;
        self.inbox.end();
        if let Some(error) = &error {
            tracing::warn!(%error, "the client has ended");
        }
        let connection = self.connection.clone();
        let closers = std::mem::take(&mut self.closers);
        // Tickets and questions end with the driver: first they, then whoever waits for the end.
        drop(self);
        connection.send_replace(Connection::Ended { error });
        for closed in closers {
            let _ = closed.send(());
        }
    }
}

/// For those who ask when it is over.
pub(crate) fn refuse<T>(reply: oneshot::Sender<Result<T, QueryError>>, why: QueryError) {
    // Whoever asked may be gone.
    let _ = reply.send(Err(why));
}
