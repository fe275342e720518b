//! The committer: one thread that takes all that waits, decides it in order, commits it as one transaction, and only then answers.

use super::decide::{self, Arrival, Outcome};
use super::hub::{Attempt, End, Hub, NewSession, SessionHandle};
use super::push::Handover;
use super::queue::{Bounds, FairQueue};
use super::receipts::Cursors;
use super::wall_clock;
use crate::store::{Device, DeviceKey, Record, Store, StoreError, Transaction, UserNo};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use whimbrel_protocol::frame::{ClientState, Command, Error, GoAway, Hello};
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, ErrorCode, Incarnation, MailboxSeq, UserId};

/// The most work in one transaction: enough to spread the cost of a disk flush thin, also of a slow disk; few enough for the rest of the
/// transaction to stay within milliseconds.
const BATCH: Bounds = Bounds { pieces: 2048, bytes: 4 << 20 };
/// How long to wait before a commit of unknown outcome is looked at again.
pub(super) const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);
/// How often a commit of unknown outcome is tried again before the sessions are ended.
const UNKNOWN_TRIES: u32 = 20;

/// What a record takes on disk beside its content, roughly.
const RECORD_BYTES: usize = 128;

/// What can wait to be committed.
pub(super) enum Work {
    /// A command of a session.
    Command { session: Arc<SessionHandle>, command: Command },
    /// A device says hello.
    Hello { said: Said, answer: oneshot::Sender<Result<Arrived, Error>> },
    /// A device says hello, or somebody plays what it said once: how it stands, if the store knows it just as it says.
    Look { user: UserNo, said: Said, answer: oneshot::Sender<Result<Option<Arrived>, Error>> },
    /// It was the device that said hello: its provisional session is entered.
    Confirm { said: Said, session: Arc<SessionHandle>, answer: oneshot::Sender<Result<Arrival, End>> },
    /// A user's devices have taken conversations up to here.
    Delivered { user: UserNo, marks: Vec<(ConversationId, ConversationSeq)> },
    /// Which devices does a user have?
    Devices { user: UserNo, answer: oneshot::Sender<Vec<Known>> },
}

/// A device that a user has.
pub(super) struct Known {
    pub key: DeviceKey,
    pub name: DeviceId,
    /// How far it was when its cursor was saved last.
    pub cursor: MailboxSeq,
}

/// What a hello says of a device. `user` is who it is, checked.
#[derive(Clone)]
pub(super) struct Said {
    pub user: UserId,
    pub device: DeviceId,
    pub incarnation: Incarnation,
    pub attempt: Attempt,
    pub background: bool,
}

impl Said {
    pub(super) fn new(user: &UserId, hello: &Hello) -> Self {
        let attempt = Attempt { instance: hello.instance, number: hello.attempt };
        let background = ClientState::in_hello(hello).background;
        Self { user: user.clone(), device: hello.device.clone(), incarnation: hello.incarnation, attempt, background }
    }

    /// The session that begins with it; provisional.
    fn session(self, arrival: &Arrival) -> Arc<SessionHandle> {
        let new = NewSession {
            user: arrival.device.user,
            user_id: self.user,
            device: arrival.device,
            device_id: self.device,
            incarnation: arrival.incarnation,
            applied: arrival.applied,
            attempt: self.attempt,
            background: self.background,
        };
        new.begin()
    }
}

/// A session, and how its device stands.
pub(super) struct Arrived {
    pub session: Arc<SessionHandle>,
    pub arrival: Arrival,
}

enum Decided {
    Command(Outcome),
    Hello(Option<Arrival>),
    /// Of [`Work::Look`] and [`Work::Confirm`]: `None` if the device does not stand as it was said.
    Known(Option<Arrival>),
    Late,
    Delivered,
    Devices(Vec<Known>),
}

/// Whether commits go through.
#[derive(Default)]
pub(super) struct Health {
    /// Bytes of the largest transaction that failed since one of that size went through; 0 while all do.
    failed: AtomicUsize,
}

impl Health {
    /// How large a transaction has to be that shows that commits go through again; `None` if they do.
    pub(super) fn failing(&self) -> Option<usize> {
        Some(self.failed.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    pub(super) fn failed(&self, bytes: usize) {
        self.failed.fetch_max(bytes.max(1), Ordering::Relaxed);
    }

    /// So many bytes were written. What wrote nothing, or less than what failed, shows nothing: the last room on a disk is for the short.
    pub(super) fn passed(&self, bytes: usize) {
        let clear = |failed| (failed > 0 && bytes >= failed).then_some(0);
        if self.failed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, clear).is_ok() {
            tracing::info!("commits go through again");
        }
    }
}

pub(super) struct Committer {
    pub store: Arc<dyn Store>,
    pub health: Arc<Health>,
    pub hub: Arc<Hub>,
    pub queue: Arc<FairQueue<Work>>,
    pub cursors: Arc<Cursors>,
    pub handover: Option<Arc<Handover>>,
    /// [`UNKNOWN_PAUSE`], but for simulations.
    pub unknown_pause: Duration,
}

impl Committer {
    /// Commits until the queue is closed and empty.
    pub fn run(self) {
        while let Some(batch) = self.queue.take(BATCH) {
            metrics::histogram!("whimbrel_commit_batch_commands").record(batch.len() as f64);
            let begun = Instant::now();
            self.commit(batch);
            metrics::histogram!("whimbrel_commit_seconds").record(begun.elapsed().as_secs_f64());
            metrics::gauge!("whimbrel_commit_queue").set(self.queue.len() as f64);
        }
    }

    pub fn commit(&self, batch: Vec<Work>) {
        let mut tries = 0;
        loop {
            let mut noted = Noted { keeps: self.handover.is_some(), ..Noted::default() };
            match self.try_commit(&batch, &mut noted) {
                Ok(decided) => {
                    self.health.passed(noted.written);
                    self.publish(batch, decided, noted);
                    if tries > 0 {
                        // What had been committed after all was not decided again, so nobody was woken for it.
                        self.hub.wake_all(&*self.store);
                    }
                    return;
                }
                // What was committed after all is found applied when it is decided again.
                Err(StoreError::Unknown(why)) if tries < UNKNOWN_TRIES => {
                    tracing::warn!(why, "the outcome of a commit is unknown; deciding again");
                    self.health.failed(noted.written);
                    tries += 1;
                    std::thread::sleep(self.unknown_pause);
                }
                Err(StoreError::Unavailable(why) | StoreError::Unknown(why)) => {
                    self.health.failed(noted.written);
                    return self.give_up(batch, &why);
                }
                Err(StoreError::Refused(why) | StoreError::Damaged(why)) => return self.bisect(batch, &why),
            }
        }
    }

    fn try_commit(&self, batch: &[Work], noted: &mut Noted) -> Result<Vec<Decided>, StoreError> {
        let now = wall_clock();
        let mut decided = Vec::with_capacity(batch.len());
        // Devices that come in this batch are here, too: their sessions are entered once it is committed.
        let mut coming: HashMap<DeviceKey, Option<Arc<SessionHandle>>> = HashMap::new();
        // Sessions whose outbox contradicts the device's: what they say after that would hide it.
        let mut contradicted: HashSet<*const SessionHandle> = HashSet::new();
        let mut work = |tx: &mut dyn Transaction| {
            decided.clear();
            coming.clear();
            contradicted.clear();
            let mut tx = Noting::new(tx, noted);
            for work in batch {
                decided.push(match work {
                    Work::Command { session, .. } if contradicted.contains(&Arc::as_ptr(session)) => Decided::Command(Outcome::Conflict),
                    Work::Command { session, .. } if self.is_over(session, coming.get(&session.device)) => Decided::Command(Outcome::Stale),
                    Work::Command { session, command } => {
                        let outcome = decide::command(&mut tx, now, session.device, command)?;
                        if outcome == Outcome::Conflict {
                            contradicted.insert(Arc::as_ptr(session));
                        }
                        Decided::Command(outcome)
                    }
                    Work::Hello { said, .. } if self.is_late(&mut tx, said)? => Decided::Late,
                    Work::Hello { said, .. } => {
                        let here = |key| coming.contains_key(&key) || self.hub.is_here(key);
                        let arrival = decide::arrive(&mut tx, now, &said.user, &said.device, said.incarnation, &here)?;
                        coming.extend(arrival.as_ref().map(|arrival| (arrival.device, None)));
                        Decided::Hello(arrival)
                    }
                    Work::Look { user, said, .. } => {
                        let known = decide::look(&mut tx, *user, &said.device, said.incarnation)?;
                        let fits = |known: &Arrival| !coming.contains_key(&known.device) && self.hub.claim(known.device, said.attempt);
                        Decided::Known(known.filter(fits))
                    }
                    Work::Confirm { session, .. } if self.hub.is_late(session.device, session.attempt) => Decided::Late,
                    Work::Confirm { said, session, .. } => {
                        let arrival = decide::look(&mut tx, session.user, &said.device, session.incarnation)?;
                        let arrival = arrival.filter(|arrival| arrival.device == session.device);
                        // Another run may have come and written since the device was told how it stands.
                        let alone = !coming.contains_key(&session.device) && self.hub.claim(session.device, session.attempt);
                        let arrival = arrival.filter(|_| alone && session.end().is_none());
                        coming.extend(arrival.as_ref().map(|arrival| (arrival.device, Some(session.clone()))));
                        Decided::Known(arrival)
                    }
                    Work::Delivered { user, marks } => {
                        for (conversation, seq) in marks {
                            decide::delivered(&mut tx, now, *user, *conversation, *seq)?;
                        }
                        Decided::Delivered
                    }
                    Work::Devices { user, .. } => {
                        let known = |device: Arc<Device>| Known { key: device.key, name: device.name.clone(), cursor: device.cursor };
                        Decided::Devices(tx.devices(*user)?.into_iter().map(known).collect())
                    }
                });
            }
            Ok(())
        };
        // A command that makes us panic is found like one that the store refuses: the others commit, and the thread lives on. A store
        // keeps nothing of a transaction that panicked.
        let committed = catch_unwind(AssertUnwindSafe(|| self.store.transact(&mut work)));
        committed.unwrap_or_else(|_| Err(StoreError::Refused("a panic while deciding".into())))?;
        Ok(decided)
    }

    fn publish(&self, batch: Vec<Work>, decided: Vec<Decided>, noted: Noted) {
        let applied = decided.iter().filter(|decided| matches!(decided, Decided::Command(Outcome::Applied(_)))).count();
        metrics::counter!("whimbrel_commands_applied_total").increment(applied as u64);
        for (work, decided) in batch.into_iter().zip(decided) {
            match (work, decided) {
                (Work::Command { session, .. }, Decided::Command(outcome)) => answer(&session, outcome),
                (Work::Hello { said, answer }, Decided::Hello(arrival)) => {
                    if let Err(Ok(arrived)) = answer.send(self.enter(said, arrival)) {
                        // Nobody waits for the session any more.
                        self.hub.leave(&arrived.session);
                    }
                }
                (Work::Look { said, answer, .. }, Decided::Known(arrival)) => {
                    drop(answer.send(Ok(arrival.map(|arrival| Arrived { session: said.session(&arrival), arrival }))));
                }
                (Work::Confirm { session, answer, .. }, Decided::Known(arrival)) => {
                    let confirmed = self.confirm(&session, arrival);
                    if answer.send(confirmed).is_err() {
                        // As above.
                        self.hub.leave(&session);
                    }
                }
                (Work::Delivered { user, .. }, Decided::Delivered) => self.cursors.settled(user),
                // Who asked may have stopped.
                (Work::Devices { answer, .. }, Decided::Devices(devices)) => drop(answer.send(devices)),
                (Work::Hello { answer, .. }, Decided::Late) => drop(answer.send(Err(late()))),
                (Work::Confirm { answer, .. }, Decided::Late) => drop(answer.send(Err(End::Error(late())))),
                _ => {}
            }
        }
        for (user, head) in noted.heads {
            self.hub.wake(user, head);
        }
        if let Some(handover) = &self.handover {
            handover.on_committed(&noted.records);
        }
    }

    /// Whether a session may not write any more: another one took over, or is entered by this very batch, which says what is applied so far.
    /// A provisional one, which was not there to be taken over, may not if the device is another run of the client: it may be a recording, of
    /// numbers that the device uses for other commands since it was restored from a backup.
    fn is_over(&self, session: &Arc<SessionHandle>, coming: Option<&Option<Arc<SessionHandle>>>) -> bool {
        let by_another = coming.is_some_and(|coming| coming.as_ref().is_none_or(|coming| !Arc::ptr_eq(coming, session)));
        let outrun = session.is_provisional() && !self.hub.claim(session.device, session.attempt);
        session.is_replaced() || session.is_contradicted() || by_another || outrun
    }

    fn is_late(&self, tx: &mut dyn Transaction, said: &Said) -> Result<bool, StoreError> {
        let user = tx.user(&said.user)?;
        let key = tx.devices(user)?.iter().find(|known| known.name == said.device).map(|known| known.key);
        Ok(key.is_some_and(|key| self.hub.is_late(key, said.attempt)))
    }

    fn enter(&self, said: Said, arrival: Option<Arrival>) -> Result<Arrived, Error> {
        let Some(arrival) = arrival else {
            let (user, most) = (said.user, crate::store::DEVICES_MAX);
            let message = format!("{user} has {most} devices connected, as many as are allowed: disconnect one first");
            return Err(Error { code: ErrorCode::TooManyDevices, message, retry_after_ms: 0 });
        };
        // Two hellos of one device in one batch: the later one counts, whichever comes first.
        if self.hub.is_late(arrival.device, said.attempt) {
            return Err(late());
        }
        let session = said.session(&arrival);
        self.hub.enter(&session, wall_clock().0);
        Ok(Arrived { session, arrival })
    }

    fn confirm(&self, session: &Arc<SessionHandle>, arrival: Option<Arrival>) -> Result<Arrival, End> {
        let Some(arrival) = arrival else {
            // Another took its place, or asked for a new outbox in its name. It hears what to do about that when it comes again.
            return Err(come_again());
        };
        if self.hub.is_late(session.device, session.attempt) {
            return Err(End::Error(late()));
        }
        if let Some(end) = session.end() {
            // One of its commands, which were decided before, contradicts the outbox.
            return Err(end.clone());
        }
        self.hub.enter(session, wall_clock().0);
        // The session before may have gone on since.
        session.raise_applied(arrival.applied);
        Ok(arrival)
    }

    /// Ends the sessions concerned: their clients keep what was not applied and send it again when they come back.
    fn give_up(&self, batch: Vec<Work>, why: &str) {
        tracing::error!(why, "the store failed; ending the sessions that wait for it");
        let error =
            Error { code: ErrorCode::StoreUnavailable, message: "the server cannot write to its store".into(), retry_after_ms: 1000 };
        for work in batch {
            match work {
                Work::Command { session, .. } => session.finish(End::Error(error.clone())),
                Work::Hello { answer, .. } => drop(answer.send(Err(error.clone()))),
                Work::Look { answer, .. } => drop(answer.send(Err(error.clone()))),
                Work::Confirm { answer, .. } => drop(answer.send(Err(End::Error(error.clone())))),
                Work::Delivered { user, marks } => {
                    self.cursors.hand_in(user, marks);
                    self.cursors.settled(user);
                }
                Work::Devices { answer, .. } => drop(answer),
            }
        }
    }

    /// Finds what makes a transaction fail by halving, so that the rest is committed.
    fn bisect(&self, mut batch: Vec<Work>, why: &str) {
        if batch.len() > 1 {
            let rest = batch.split_off(batch.len() / 2);
            self.commit(batch);
            return self.commit(rest);
        }
        let Some(work) = batch.pop() else { return };
        tracing::error!(why, "a command could not be carried out");
        metrics::counter!("whimbrel_commands_failed_total").increment(1);
        let Work::Command { session, command } = &work else { return self.give_up(vec![work], why) };
        let mut noted = Noted::default();
        let refused = self.store.transact(&mut |tx| {
            let mut tx = Noting::new(tx, &mut noted);
            decide::refuse(&mut tx, wall_clock(), session.device, command).map(drop)
        });
        match refused {
            Ok(()) => {
                let outcome = Outcome::Applied(command.cseq);
                self.publish(vec![work], vec![Decided::Command(outcome)], noted);
            }
            Err(error) => {
                self.health.failed(noted.written);
                self.give_up(vec![work], &error.to_string());
            }
        }
    }
}

fn come_again() -> End {
    let message = "the device's outbox or place has changed since its hello: connect again";
    End::GoAway(GoAway { retry_after_ms: 0, message: message.into() })
}

fn late() -> Error {
    let message = "a later session of this run of the client is there already";
    Error { code: ErrorCode::Replaced, message: message.into(), retry_after_ms: 0 }
}

fn answer(session: &SessionHandle, outcome: Outcome) {
    match outcome {
        Outcome::Applied(cseq) => session.raise_applied(cseq),
        Outcome::Conflict => session.finish(End::Error(Error {
            code: ErrorCode::OutboxConflict,
            message: "a command number was used again for another command: ask for a new outbox (incarnation 0)".into(),
            retry_after_ms: 0,
        })),
        Outcome::Gap => session.finish(End::Error(Error {
            code: ErrorCode::WindowExceeded,
            message: "a command number leaves a gap".into(),
            retry_after_ms: 0,
        })),
        // Its client says it again in the session that replaced this one.
        Outcome::Stale if session.is_replaced() => {}
        // Nothing replaced it, after all or not yet: who waits for the command must hear of that.
        Outcome::Stale => session.finish(come_again()),
    }
}

/// What a transaction did.
#[derive(Default)]
struct Noted {
    /// Mailboxes that grew, and to where.
    heads: HashMap<UserNo, MailboxSeq>,
    /// Whether to keep what they grew by.
    keeps: bool,
    records: Vec<Arc<Record>>,
    /// Bytes that it has to write, roughly.
    written: usize,
}

/// A transaction that notes what it does.
struct Noting<'a> {
    tx: &'a mut dyn Transaction,
    noted: &'a mut Noted,
}

impl<'a> Noting<'a> {
    /// What was noted of an earlier run of the same transaction is forgotten.
    fn new(tx: &'a mut dyn Transaction, noted: &'a mut Noted) -> Self {
        *noted = Noted { keeps: noted.keeps, ..Noted::default() };
        Self { tx, noted }
    }
}

impl Transaction for Noting<'_> {
    fn user(&mut self, id: &UserId) -> Result<UserNo, StoreError> {
        self.tx.user(id)
    }
    fn devices(&mut self, user: UserNo) -> Result<Vec<Arc<Device>>, StoreError> {
        self.tx.devices(user)
    }
    fn device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError> {
        self.tx.device(key)
    }
    fn conversation(&mut self, id: ConversationId) -> Result<Option<Arc<crate::store::Conversation>>, StoreError> {
        self.tx.conversation(id)
    }
    fn direct(&mut self, one: UserNo, other: UserNo) -> Result<Option<ConversationId>, StoreError> {
        self.tx.direct(one, other)
    }
    fn next_conversation(&mut self) -> Result<ConversationId, StoreError> {
        self.tx.next_conversation()
    }
    fn record(&mut self, pos: u64) -> Result<Arc<Record>, StoreError> {
        self.tx.record(pos)
    }
    fn append(
        &mut self,
        time: whimbrel_protocol::Time,
        body: crate::store::RecordBody,
        recipients: &[UserNo],
    ) -> Result<Arc<Record>, StoreError> {
        let record = self.tx.append(time, body, recipients)?;
        for (user, seq) in &record.recipients {
            self.noted.heads.insert(*user, *seq);
        }
        self.noted.written += RECORD_BYTES + record.content_bytes();
        if self.noted.keeps {
            self.noted.records.push(record.clone());
        }
        Ok(record)
    }
}
