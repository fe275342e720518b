//! Who is here: sessions by user and device, and the hints that wake them. Nothing in here is the truth: a lost hint costs time, a
//! doubled one nothing.

use crate::store::{DeviceKey, Store, UserNo};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use whimbrel_protocol::frame::{Busy, Error, GoAway, Presence, PresenceState, ServerSignal, Watch};
use whimbrel_protocol::{CommandSeq, ErrorCode, Incarnation, MailboxSeq, Nonce, SessionEpoch, UserId};

/// Signals that wait for a session beyond this are dropped, the oldest first.
const SIGNALS_MAX: usize = 64;
/// The most users a session watches by name.
const WATCHED_MAX: usize = 256;
/// The most changes of presence told in one signal.
const CHANGES_MAX: usize = 256;

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
    /// Rises with every session of the device.
    pub epoch: SessionEpoch,
    /// Which run of the client, and which of its attempts to connect.
    pub attempt: Attempt,
    head: AtomicU64,
    applied: AtomicU64,
    replaced: AtomicBool,
    end: OnceLock<End>,
    busy: Mutex<Option<Busy>>,
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

impl SessionHandle {
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

    /// Asks the session to end. The first reason counts.
    pub fn finish(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.wake.notify_one();
        }
    }

    /// A `Busy` to pass on.
    pub fn take_busy(&self) -> Option<Busy> {
        lock(&self.busy).take()
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

/// Everybody who is here.
pub struct Hub {
    state: Mutex<State>,
    /// How long a user without a session still counts as online.
    grace: Duration,
    sessions: AtomicU64,
}

#[derive(Default)]
struct State {
    users: HashMap<UserNo, Here>,
    /// Online users by name, for lists.
    online: BTreeMap<UserId, UserNo>,
    /// Users without a session, and until when they still count as online.
    leaving: VecDeque<(Instant, UserNo)>,
    watchers: HashMap<DeviceKey, (Arc<SessionHandle>, Watching)>,
    /// Changes of presence since they were last told.
    changed: HashMap<UserId, PresenceState>,
    epochs: HashMap<DeviceKey, SessionEpoch>,
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

impl Hub {
    pub(super) fn new(grace: Duration) -> Self {
        Self { state: Mutex::default(), grace, sessions: AtomicU64::new(0) }
    }

    /// Whether a hello comes late: a later one of the same run has a session.
    pub(super) fn is_late(&self, device: DeviceKey, attempt: Attempt) -> bool {
        let state = lock(&self.state);
        let sessions = state.users.get(&device.user).map_or(&[][..], |here| &here.sessions);
        sessions.iter().any(|session| session.device == device && attempt.is_before(session.attempt))
    }

    /// Whether a device has a session.
    pub(super) fn is_here(&self, device: DeviceKey) -> bool {
        let state = lock(&self.state);
        state.users.get(&device.user).is_some_and(|here| here.sessions.iter().any(|session| session.device == device))
    }

    /// Enters a session; an older one of the same device is told that it was replaced, and may no longer write.
    pub(super) fn enter(&self, new: NewSession, now_ms: u64) -> Arc<SessionHandle> {
        let mut state = lock(&self.state);
        // Beginning at the wall clock, so that it rises over restarts too.
        let epoch = state.epochs.get(&new.device).map_or(SessionEpoch(0), |epoch| epoch.next()).max(SessionEpoch(now_ms));
        state.epochs.insert(new.device, epoch);
        let session = Arc::new(SessionHandle {
            user: new.user,
            user_id: new.user_id.clone(),
            device: new.device,
            incarnation: new.incarnation,
            attempt: new.attempt,
            epoch,
            head: AtomicU64::new(0),
            applied: AtomicU64::new(new.applied.0),
            replaced: AtomicBool::new(false),
            end: OnceLock::new(),
            busy: Mutex::new(None),
            signals: Mutex::default(),
            wake: Notify::new(),
        });
        let here = state.users.entry(new.user).or_insert_with(|| Here { id: new.user_id.clone(), sessions: Vec::new(), left: None });
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
            state.online.insert(new.user_id.clone(), new.user);
            state.changed.insert(new.user_id, PresenceState::Online);
        }
        if state.draining {
            session.finish(going_away(0));
        }
        self.sessions.fetch_add(1, Ordering::Relaxed);
        session
    }

    /// A session is over. The user counts as online for the grace time.
    pub(super) fn leave(&self, session: &Arc<SessionHandle>) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        let mut state = lock(&self.state);
        if state.watchers.get(&session.device).is_some_and(|(watcher, _)| Arc::ptr_eq(watcher, session)) {
            state.watchers.remove(&session.device);
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
        let present: Vec<Presence> = match &watching {
            Watching::Everyone => {
                let online = state.online.keys().take(CHANGES_MAX);
                online.map(|user| Presence { user: user.clone(), state: PresenceState::Online }).collect()
            }
            Watching::Users(users) => {
                let of = |user: &UserId| if state.online.contains_key(user) { PresenceState::Online } else { PresenceState::Offline };
                users.iter().map(|user| Presence { user: user.clone(), state: of(user) }).collect()
            }
        };
        state.watchers.insert(session.device, (session.clone(), watching));
        drop(state);
        session.signal(ServerSignal::Presence(present));
    }

    /// Once a second: users whose grace is over go offline, and what changed is told to those who watch.
    pub(super) fn tell_presence(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
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
                state.epochs.retain(|device, _| device.user != user);
            }
        }
        if state.changed.is_empty() {
            return;
        }
        let mut told: Vec<Presence> = Vec::new();
        let keys: Vec<UserId> = state.changed.keys().take(CHANGES_MAX).cloned().collect();
        for user in keys {
            if let Some(presence) = state.changed.remove(&user) {
                told.push(Presence { user, state: presence });
            }
        }
        for (session, watching) in state.watchers.values() {
            let theirs: Vec<Presence> = match watching {
                Watching::Everyone => told.clone(),
                Watching::Users(users) => told.iter().filter(|presence| users.contains(&presence.user)).cloned().collect(),
            };
            if !theirs.is_empty() {
                session.signal(ServerSignal::Presence(theirs));
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

    /// How many sessions there are.
    pub fn session_count(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Asks every session to leave, spread over `spread_ms`, and every later one at once.
    pub(super) fn drain(&self, spread_ms: u32) {
        let mut state = lock(&self.state);
        state.draining = true;
        for session in state.users.values().flat_map(|here| &here.sessions) {
            session.finish(going_away(rand::random_range(0..=spread_ms)));
        }
    }
}

fn going_away(retry_after_ms: u32) -> End {
    End::GoAway(GoAway { retry_after_ms, message: "the server is going down; it will be back".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(user: u32, name: &str, slot: u8) -> NewSession {
        let user = UserNo(user);
        NewSession {
            user,
            user_id: UserId::new(name).unwrap(),
            device: DeviceKey { user, slot },
            incarnation: Incarnation(1),
            applied: CommandSeq(0),
            attempt: Attempt { instance: Nonce::default(), number: 0 },
        }
    }

    fn presence_of(session: &SessionHandle) -> Vec<(String, PresenceState)> {
        let mut all = Vec::new();
        while let Some(signal) = session.take_signal() {
            if let ServerSignal::Presence(list) = signal {
                all.extend(list.into_iter().map(|presence| (presence.user.to_string(), presence.state)));
            }
        }
        all
    }

    #[test]
    fn a_newer_session_of_a_device_replaces_the_older_and_only_that() {
        let hub = Hub::new(Duration::ZERO);
        let phone = hub.enter(new(1, "ann", 0), 7);
        let laptop = hub.enter(new(1, "ann", 1), 7);
        let phone_again = hub.enter(new(1, "ann", 0), 7);
        assert!(phone.is_replaced() && !laptop.is_replaced() && !phone_again.is_replaced());
        assert!(phone_again.epoch > phone.epoch);
        assert!(matches!(phone.end(), Some(End::Error(error)) if error.code == ErrorCode::Replaced));
    }

    #[test]
    fn who_comes_back_within_the_grace_was_never_away() {
        let hub = Hub::new(Duration::from_secs(3600));
        let watcher = hub.enter(new(1, "ann", 0), 0);
        hub.watch(&watcher, Watch { users: vec![UserId::new("bob").unwrap()], everyone: false });
        assert_eq!(presence_of(&watcher), [("bob".into(), PresenceState::Offline)]);
        let bob = hub.enter(new(2, "bob", 0), 0);
        hub.tell_presence();
        assert_eq!(presence_of(&watcher), [("bob".into(), PresenceState::Online)]);
        hub.leave(&bob);
        hub.tell_presence();
        let _bob = hub.enter(new(2, "bob", 0), 0);
        hub.tell_presence();
        assert_eq!(presence_of(&watcher), []);
        assert_eq!(hub.online("", 10).0.len(), 2);
    }

    #[test]
    fn who_stays_away_goes_offline() {
        let hub = Hub::new(Duration::ZERO);
        let watcher = hub.enter(new(1, "ann", 0), 0);
        hub.watch(&watcher, Watch { users: Vec::new(), everyone: true });
        let bob = hub.enter(new(2, "bob", 0), 0);
        hub.tell_presence();
        hub.leave(&bob);
        hub.tell_presence();
        let seen = presence_of(&watcher);
        assert_eq!(seen.last(), Some(&("bob".into(), PresenceState::Offline)), "{seen:?}");
        assert_eq!(hub.online("", 10).0, [UserId::new("ann").unwrap()]);
    }
}
