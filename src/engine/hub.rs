//! Who is here: sessions by user and device, and the hints that wake them. Nothing in here is the truth: a lost hint costs time, a
//! doubled one nothing.

mod claims;

use crate::store::{DEVICES_MAX, DeviceKey, Store, UserNo};
use claims::Claims;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use whimbrel_protocol::frame::{Error, GoAway, Presence, PresenceState, ServerFrame, ServerSignal, Watch};
use whimbrel_protocol::{CommandSeq, ErrorCode, Incarnation, MailboxSeq, Nonce, SessionEpoch, UserId};

/// Signals that wait for a session beyond this are dropped, the oldest first.
const SIGNALS_MAX: usize = 64;
/// The most users a session watches by name.
const WATCHED_MAX: usize = 256;
/// The most changes of presence told in one signal.
const CHANGES_MAX: usize = 256;
/// A server that is started anew is not there sooner than this.
const AWAY_MS: u32 = 500;
/// What it takes to tell a session to leave, and to see it leave, as a part of its slot: the server is not there sooner than that either.
const TELLING: f64 = 0.125;
/// Clients are not asked to stay away longer than this: it is what they obey at most.
const SLOTS_MS: u32 = 300_000;
/// How many such signals at most say who is here when a session begins to watch everyone. More are what the query `online` is for.
const PRESENT_SIGNALS_MAX: usize = SIGNALS_MAX / 2;

/// One device's stay, as the rest of the server sees it.
#[derive(Debug)]
pub struct SessionHandle {
    /// Whose.
    pub user: UserNo,
    /// Whose, by name.
    pub user_id: UserId,
    /// Which device.
    pub device: DeviceKey,
    /// The device's outbox.
    pub incarnation: Incarnation,
    /// Which run of the client, and which of its attempts to connect.
    pub attempt: Attempt,
    /// 0 until the session is entered.
    epoch: AtomicU64,
    head: AtomicU64,
    applied: AtomicU64,
    replaced: AtomicBool,
    end: OnceLock<End>,
    signals: Mutex<VecDeque<ServerSignal>>,
    wake: Notify,
}

/// Why the server ends a session.
#[derive(Debug, Clone)]
pub enum End {
    /// Something was wrong.
    Error(Error),
    /// The server leaves.
    GoAway(GoAway),
}

impl End {
    /// The server leaves, and the client is to come back after so many milliseconds.
    pub(crate) fn going_away(retry_after_ms: u32) -> Self {
        Self::GoAway(GoAway { retry_after_ms, message: "the server is going down; it will be back".into() })
    }
}

impl From<End> for ServerFrame {
    fn from(end: End) -> Self {
        match end {
            End::Error(error) => Self::Error(error),
            End::GoAway(away) => Self::GoAway(away),
        }
    }
}

impl SessionHandle {
    /// Rises with every session of the device; 0 while it is provisional.
    pub fn epoch(&self) -> SessionEpoch {
        SessionEpoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether it is not entered: nobody is told of it, it takes nothing over, and nothing wakes it.
    pub fn is_provisional(&self) -> bool {
        self.epoch() == SessionEpoch(0)
    }

    /// Highest entry of the mailbox, as far as was heard.
    pub fn head(&self) -> MailboxSeq {
        MailboxSeq(self.head.load(Ordering::Acquire))
    }

    /// Highest applied command.
    pub fn applied(&self) -> CommandSeq {
        CommandSeq(self.applied.load(Ordering::Acquire))
    }

    /// Whether a newer session of the device took over: this one may no longer write.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Why the session is to end, if it is.
    pub fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Whether it ends because its outbox contradicts the device's.
    pub(super) fn is_contradicted(&self) -> bool {
        matches!(self.end(), Some(End::Error(error)) if error.code == ErrorCode::OutboxConflict)
    }

    /// Asks the session to end. The first reason counts.
    pub fn finish(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.wake.notify_one();
        }
    }

    /// A signal to pass on.
    pub fn take_signal(&self) -> Option<ServerSignal> {
        lock(&self.signals).pop_front()
    }

    /// Waits until something of the above may have changed.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn raise_head(&self, head: MailboxSeq) {
        if self.head.fetch_max(head.0, Ordering::AcqRel) < head.0 {
            self.wake.notify_one();
        }
    }

    pub(super) fn raise_applied(&self, applied: CommandSeq) {
        if self.applied.fetch_max(applied.0, Ordering::AcqRel) < applied.0 {
            self.wake.notify_one();
        }
    }

    pub(super) fn signal(&self, signal: ServerSignal) {
        let mut signals = lock(&self.signals);
        if signals.len() >= SIGNALS_MAX {
            signals.pop_front();
        }
        signals.push_back(signal);
        drop(signals);
        self.wake.notify_one();
    }
}

/// Which run of a client says hello, and for which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Random for each run.
    pub instance: Nonce,
    /// Rises with each hello of a run.
    pub number: u32,
}

impl Attempt {
    /// Whether this hello was said before that one: it comes late, over a connection that the client gave up on.
    fn is_before(self, other: Self) -> bool {
        self.instance == other.instance && self.number < other.number
    }
}

/// What a new session begins with.
#[derive(Debug)]
pub(super) struct NewSession {
    pub attempt: Attempt,
    pub user: UserNo,
    pub user_id: UserId,
    pub device: DeviceKey,
    pub incarnation: Incarnation,
    pub applied: CommandSeq,
}

impl NewSession {
    /// A session that is provisional until it is [entered](Hub::enter).
    pub fn begin(self) -> Arc<SessionHandle> {
        Arc::new(SessionHandle {
            user: self.user,
            user_id: self.user_id,
            device: self.device,
            incarnation: self.incarnation,
            attempt: self.attempt,
            epoch: AtomicU64::new(0),
            head: AtomicU64::new(0),
            applied: AtomicU64::new(self.applied.0),
            replaced: AtomicBool::new(false),
            end: OnceLock::new(),
            signals: Mutex::default(),
            wake: Notify::new(),
        })
    }
}

/// Everybody who is here.
pub struct Hub {
    state: Mutex<State>,
    /// How long a user without a session still counts as online.
    grace: Duration,
}

#[derive(Default)]
struct State {
    users: HashMap<UserNo, Here>,
    /// Online users by name, for lists.
    online: BTreeMap<UserId, UserNo>,
    /// Users without a session, and until when they still count as online.
    leaving: VecDeque<(Instant, UserNo)>,
    watchers: HashMap<DeviceKey, (Arc<SessionHandle>, Watching)>,
    /// Who watches a user by name.
    watched: HashMap<UserId, HashSet<DeviceKey>>,
    /// Changes of presence since they were last told.
    changed: HashMap<UserId, PresenceState>,
    /// Those that wait for their turn to be told to who watches everyone.
    untold: HashMap<UserId, PresenceState>,
    epochs: HashMap<DeviceKey, SessionEpoch>,
    claims: Claims,
    draining: bool,
}

struct Here {
    id: UserId,
    sessions: Vec<Arc<SessionHandle>>,
    left: Option<Instant>,
}

enum Watching {
    Everyone,
    Users(HashSet<UserId>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics between two consistent states, so a poisoned lock holds good data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// A device's session watches nobody any more.
    fn unwatch(&mut self, device: DeviceKey) {
        let Some((_, Watching::Users(users))) = self.watchers.remove(&device) else { return };
        for user in users {
            if let Some(devices) = self.watched.get_mut(&user) {
                devices.remove(&device);
                if devices.is_empty() {
                    self.watched.remove(&user);
                }
            }
        }
    }
}

impl Hub {
    pub(super) fn new(grace: Duration) -> Self {
        Self { state: Mutex::default(), grace }
    }

    /// Whether a hello comes late: a later one of the same run has a session.
    pub(super) fn is_late(&self, device: DeviceKey, attempt: Attempt) -> bool {
        let state = lock(&self.state);
        let sessions = state.users.get(&device.user).map_or(&[][..], |here| &here.sessions);
        sessions.iter().any(|session| session.device == device && attempt.is_before(session.attempt))
    }

    /// Whether what comes early, before the end of its handshake, may count for this device: not if a session of another run is there, or of
    /// a later attempt, or if one of another run was there a moment ago. The first to come claims the device.
    pub(super) fn claim(&self, device: DeviceKey, attempt: Attempt) -> bool {
        let mut state = lock(&self.state);
        let sessions = state.users.get(&device.user).map_or(&[][..], |here| &here.sessions);
        let other = |there: Attempt| there.instance != attempt.instance || attempt.is_before(there);
        if sessions.iter().any(|session| session.device == device && other(session.attempt)) {
            return false;
        }
        state.claims.claim(device, attempt.instance)
    }

    #[cfg(test)]
    pub(super) fn forget_claims(&self) {
        lock(&self.state).claims = Claims::default();
    }

    /// Whether a device has a session.
    pub(super) fn is_here(&self, device: DeviceKey) -> bool {
        let state = lock(&self.state);
        state.users.get(&device.user).is_some_and(|here| here.sessions.iter().any(|session| session.device == device))
    }

    /// Enters a session; an older one of the same device is told that it was replaced, and may no longer write.
    pub(super) fn enter(&self, session: &Arc<SessionHandle>, now_ms: u64) {
        let mut state = lock(&self.state);
        // Beginning at the wall clock, so that it rises over restarts too.
        let epoch = state.epochs.get(&session.device).map_or(SessionEpoch(0), |epoch| epoch.next()).max(SessionEpoch(now_ms));
        state.claims.set(session.device, session.attempt.instance);
        state.epochs.insert(session.device, epoch);
        session.epoch.store(epoch.0, Ordering::Release);
        let here = || Here { id: session.user_id.clone(), sessions: Vec::new(), left: None };
        let here = state.users.entry(session.user).or_insert_with(here);
        let first = here.sessions.is_empty() && here.left.is_none();
        here.left = None;
        here.sessions.retain(|older| {
            if older.device != session.device {
                return true;
            }
            older.replaced.store(true, Ordering::Release);
            older.finish(End::Error(Error {
                code: ErrorCode::Replaced,
                message: "a newer session of this device took over".into(),
                retry_after_ms: 0,
            }));
            false
        });
        here.sessions.push(session.clone());
        if first {
            state.online.insert(session.user_id.clone(), session.user);
            state.changed.insert(session.user_id.clone(), PresenceState::Online);
        }
        if state.draining {
            session.finish(End::going_away(rand::random_range(AWAY_MS..2 * AWAY_MS)));
        }
    }

    /// A session is over. The user counts as online for the grace time.
    pub(super) fn leave(&self, session: &Arc<SessionHandle>) {
        let mut state = lock(&self.state);
        if state.watchers.get(&session.device).is_some_and(|(watcher, _)| Arc::ptr_eq(watcher, session)) {
            state.unwatch(session.device);
        }
        let until = Instant::now() + self.grace;
        let Some(here) = state.users.get_mut(&session.user) else { return };
        here.sessions.retain(|other| !Arc::ptr_eq(other, session));
        if here.sessions.is_empty() && here.left.is_none() {
            here.left = Some(until);
            state.leaving.push_back((until, session.user));
        }
    }

    /// A mailbox has a new head.
    pub(super) fn wake(&self, user: UserNo, head: MailboxSeq) {
        if let Some(here) = lock(&self.state).users.get(&user) {
            for session in &here.sessions {
                session.raise_head(head);
            }
        }
    }

    /// Wakes everybody who is here at the heads that the store has. Blocks.
    pub(super) fn wake_all(&self, store: &dyn Store) {
        let users: Vec<UserNo> = lock(&self.state).users.keys().copied().collect();
        for user in users {
            match store.mailbox(user) {
                Ok(bounds) => self.wake(user, bounds.head),
                // Whoever is not woken now is woken by the next entry.
                Err(error) => tracing::warn!(%error, "a mailbox cannot be read"),
            }
        }
    }

    /// Passes a signal to every session of a user.
    pub(super) fn signal(&self, user: UserNo, signal: &ServerSignal) {
        if let Some(here) = lock(&self.state).users.get(&user) {
            for session in &here.sessions {
                session.signal(signal.clone());
            }
        }
    }

    /// A session says whose presence it wants to hear of; the present state is told at once.
    pub(super) fn watch(&self, session: &Arc<SessionHandle>, watch: Watch) {
        let mut state = lock(&self.state);
        let watching =
            if watch.everyone { Watching::Everyone } else { Watching::Users(watch.users.into_iter().take(WATCHED_MAX).collect()) };
        state.unwatch(session.device);
        let present: Vec<Vec<Presence>> = match &watching {
            Watching::Everyone => {
                let online: Vec<&UserId> = state.online.keys().take(CHANGES_MAX * PRESENT_SIGNALS_MAX).collect();
                let of = |user: &&UserId| Presence { user: (*user).clone(), state: PresenceState::Online };
                online.chunks(CHANGES_MAX).map(|users| users.iter().map(of).collect()).collect()
            }
            Watching::Users(users) => {
                let of = |user: &UserId| if state.online.contains_key(user) { PresenceState::Online } else { PresenceState::Offline };
                vec![users.iter().map(|user| Presence { user: user.clone(), state: of(user) }).collect()]
            }
        };
        if let Watching::Users(users) = &watching {
            for user in users {
                state.watched.entry(user.clone()).or_default().insert(session.device);
            }
        }
        state.watchers.insert(session.device, (session.clone(), watching));
        drop(state);
        for presence in present {
            session.signal(ServerSignal::Presence(presence));
        }
    }

    /// Once a second: users whose grace is over go offline, and what changed is told to those who watch.
    pub(super) fn tell_presence(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.claims.forget_old(now);
        while let Some(&(until, user)) = state.leaving.front() {
            if until > now {
                break;
            }
            state.leaving.pop_front();
            // They may have come back, and left again, since.
            if state.users.get(&user).is_some_and(|here| here.sessions.is_empty() && here.left == Some(until)) {
                if let Some(here) = state.users.remove(&user) {
                    state.online.remove(&here.id);
                    state.changed.insert(here.id, PresenceState::Offline);
                }
                for slot in 0..DEVICES_MAX as u8 {
                    state.epochs.remove(&DeviceKey { user, slot });
                }
            }
        }
        let state = &mut *state;
        // Who watches by name hears of all of them …
        let mut told: HashMap<DeviceKey, Vec<Presence>> = HashMap::new();
        for (user, presence) in state.changed.drain() {
            for device in state.watched.get(&user).into_iter().flatten() {
                told.entry(*device).or_default().push(Presence { user: user.clone(), state: presence });
            }
            state.untold.insert(user, presence);
        }
        for (device, presence) in told {
            if let Some((session, _)) = state.watchers.get(&device) {
                session.signal(ServerSignal::Presence(presence));
            }
        }
        // … who watches everyone of so many a second: the newest state of each, so that none is lost.
        let turn: Vec<UserId> = state.untold.keys().take(CHANGES_MAX).cloned().collect();
        let changes = turn.into_iter().filter_map(|user| state.untold.remove(&user).map(|state| Presence { user, state }));
        let changes: Vec<Presence> = changes.collect();
        if changes.is_empty() {
            return;
        }
        for (session, watching) in state.watchers.values() {
            if matches!(watching, Watching::Everyone) {
                session.signal(ServerSignal::Presence(changes.clone()));
            }
        }
    }

    /// Online users with names after `after`, by name, up to `limit`; and whether there are more.
    pub fn online(&self, after: &str, limit: usize) -> (Vec<UserId>, bool) {
        let state = lock(&self.state);
        let mut names = state.online.keys().filter(|name| name.as_str() > after);
        let page: Vec<UserId> = names.by_ref().take(limit).cloned().collect();
        let more = names.next().is_some();
        (page, more)
    }

    /// How many users are online.
    pub fn online_count(&self) -> usize {
        lock(&self.state).online.len()
    }

    /// Asks every session to leave, and every later one at once. Each is told when to come back: in a slot of its own, so that `a_second`
    /// come in a second, whatever their number.
    pub(super) fn drain(&self, a_second: u32) {
        let mut state = lock(&self.state);
        state.draining = true;
        let sessions = || state.users.values().flat_map(|here| &here.sessions);
        for (session, at) in sessions().zip(slots(sessions().count(), a_second)) {
            session.finish(End::going_away(at));
        }
    }
}

/// When sessions are to come back that a restart ended, in milliseconds from then on: one after the other, each at any time of its slot, and
/// from the beginning again once clients would not wait for the next. The first when all `count` have been told.
fn slots(count: usize, a_second: u32) -> impl Iterator<Item = u32> {
    let slot = 1_000.0 / f64::from(a_second.max(1));
    let away = (f64::from(AWAY_MS) + TELLING * slot * count as f64).min(f64::from(SLOTS_MS / 2));
    let last = f64::from(SLOTS_MS) - away;
    // Neither negative nor above `SLOTS_MS`.
    (0..).map(move |number: u32| (away + (slot * (f64::from(number) + rand::random::<f64>())) % last) as u32)
}

#[cfg(test)]
mod tests;
