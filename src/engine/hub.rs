//! Who is here: sessions by user and device, and the hints that wake them. Nothing in here is the truth: a lost hint costs time, a
//! doubled one nothing.

mod claims;
mod presence;
mod session;

pub(super) use session::NewSession;
pub use session::{Attempt, End, SessionHandle};

use super::push::Standing;
use crate::store::{DEVICES_MAX, DeviceKey, Store, UserNo};
use claims::Claims;
use presence::Presences;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use whimbrel_protocol::frame::{Error, PresenceState, ServerSignal, Watch};
use whimbrel_protocol::{DeviceId, ErrorCode, MailboxSeq, SessionEpoch, UserId};

/// A server that is started anew is not there sooner than this.
const AWAY_MS: u32 = 500;
/// What it takes to tell a session to leave, and to see it leave, as a part of its slot: the server is not there sooner than that either.
const TELLING: f64 = 0.125;
/// Clients are not asked to stay away longer than this: it is what they obey at most.
const SLOTS_MS: u32 = 300_000;
/// After a start those who were here before come back within this time, in their slots (some 17,000 for each core): until then who is not here
/// may be on the way.
const RETURN: Duration = Duration::from_secs(60);

/// Everybody who is here.
pub struct Hub {
    state: Mutex<State>,
    /// How long a user without a session still counts as online.
    grace: Duration,
    /// How long a device whose session ended may be on its way to another network.
    patience: Duration,
}

#[derive(Default)]
struct State {
    users: HashMap<UserNo, Here>,
    /// The same by name.
    names: HashMap<UserId, UserNo>,
    /// When to look at users again of whose devices one left a moment ago.
    agenda: BTreeSet<(Instant, UserNo)>,
    /// The devices that have come since the start, for as long as others are expected.
    returning: Option<(Instant, HashSet<DeviceKey>)>,
    presences: Presences,
    epochs: HashMap<DeviceKey, SessionEpoch>,
    claims: Claims,
    draining: bool,
}

struct Here {
    id: UserId,
    sessions: Vec<Arc<SessionHandle>>,
    /// Devices that have no session, and had one in the foreground a moment ago; and until when.
    left: Vec<(DeviceKey, Instant)>,
    /// Whether the user looks online.
    online: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics between two consistent states, so a poisoned lock holds good data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// `grace` is how long a user without a session in the foreground still counts as online, `patience` how long a device without a session
    /// may be on its way to another network.
    pub(super) fn new(grace: Duration, patience: Duration) -> Self {
        let returning = (!patience.is_zero()).then(|| (Instant::now() + RETURN, HashSet::new()));
        Self { state: Mutex::new(State { returning, ..State::default() }), grace, patience }
    }

    /// Looks again whether a user looks online, and whether anything is to be known of them.
    fn settle(&self, state: &mut State, user: UserNo) {
        let Some(here) = state.users.get_mut(&user) else { return };
        let now = Instant::now();
        here.left.retain(|(_, at)| now < *at + self.grace.max(self.patience));
        let foreground = here.sessions.iter().any(|session| !session.is_background());
        let online = foreground || here.left.iter().any(|(_, at)| now < *at + self.grace);
        if std::mem::replace(&mut here.online, online) != online {
            state.presences.set(&here.id, if online { PresenceState::Online } else { PresenceState::Offline });
        }
        if here.sessions.is_empty() && here.left.is_empty() {
            if let Some(here) = state.users.remove(&user) {
                state.names.remove(&here.id);
            }
            for slot in 0..DEVICES_MAX as u8 {
                state.epochs.remove(&DeviceKey { user, slot });
            }
        }
    }

    /// Tells again that a user is online, if they are: what is known of them besides has changed.
    pub fn announce(&self, user: &UserId) {
        let mut state = lock(&self.state);
        let online = state.names.get(user).and_then(|user| state.users.get(user)).is_some_and(|here| here.online);
        if online {
            state.presences.set(user, PresenceState::Online);
        }
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

    /// Whether a device of this name has a session, which a hello of it would take the place of.
    pub fn has(&self, user: &UserId, device: &DeviceId) -> bool {
        let state = lock(&self.state);
        let here = state.names.get(user).and_then(|user| state.users.get(user));
        here.is_some_and(|here| here.sessions.iter().any(|session| session.device_id == *device))
    }

    /// How a device stands. One that changes its network is away for a moment, and not gone.
    pub(super) fn standing(&self, device: DeviceKey) -> Standing {
        let state = lock(&self.state);
        let here = state.users.get(&device.user);
        let session = here.and_then(|here| here.sessions.iter().find(|session| session.device == device));
        let left = here.and_then(|here| here.left.iter().find(|(left, _)| *left == device));
        let moving = left.is_some_and(|(_, at)| at.elapsed() < self.patience);
        let returning = state.returning.as_ref().is_some_and(|(_, came)| !came.contains(&device));
        match session {
            Some(session) if session.is_background() => Standing::Suspended,
            None if !moving && !returning => Standing::Away,
            _ => Standing::Here,
        }
    }

    /// Enters a session; an older one of the same device is told that it was replaced, and may no longer write.
    pub(super) fn enter(&self, session: &Arc<SessionHandle>, now_ms: u64) {
        let mut state = lock(&self.state);
        // Beginning at the wall clock, so that it rises over restarts too.
        let epoch = state.epochs.get(&session.device).map_or(SessionEpoch(0), |epoch| epoch.next()).max(SessionEpoch(now_ms));
        state.claims.set(session.device, session.attempt.instance);
        state.epochs.insert(session.device, epoch);
        session.epoch.store(epoch.0, Ordering::Release);
        if let Some((_, came)) = &mut state.returning {
            came.insert(session.device);
        }
        state.names.entry(session.user_id.clone()).or_insert(session.user);
        let here = || Here { id: session.user_id.clone(), sessions: Vec::new(), left: Vec::new(), online: false };
        let here = state.users.entry(session.user).or_insert_with(here);
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
        here.left.retain(|(device, _)| *device != session.device);
        self.settle(&mut state, session.user);
        if state.draining {
            session.finish(End::going_away(rand::random_range(AWAY_MS..2 * AWAY_MS)));
        }
    }

    /// A session is over. The user counts as online for the grace time, if it was in the foreground.
    pub(super) fn leave(&self, session: &Arc<SessionHandle>) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.presences.unwatch(session);
        let Some(here) = state.users.get_mut(&session.user) else { return };
        let before = here.sessions.len();
        here.sessions.retain(|other| !Arc::ptr_eq(other, session));
        if here.sessions.len() < before && !session.is_background() {
            let now = Instant::now();
            here.left.push((session.device, now));
            state.agenda.extend([(now + self.grace, session.user), (now + self.patience, session.user)]);
            // The grace is over when presence is told next, at the earliest.
            return;
        }
        self.settle(state, session.user);
    }

    /// A session's application is suspended, or no longer.
    pub(super) fn set_background(&self, session: &Arc<SessionHandle>, background: bool) {
        let mut state = lock(&self.state);
        if session.is_replaced() || session.background.swap(background, Ordering::AcqRel) == background {
            return;
        }
        self.settle(&mut state, session.user);
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

    /// A session says whom it wants to hear of; the present state is told at once.
    pub(super) fn watch(&self, session: &Arc<SessionHandle>, watch: Watch) {
        lock(&self.state).presences.watch(session, watch);
    }

    /// Somebody says a line in the lobby, which is beside the engine: it is told to the sessions that want to hear it.
    pub fn say_in_lobby(&self, text: &str) {
        lock(&self.state).presences.say(text);
    }

    /// Once a second: users whose grace is over go offline, and what changed is told to those who watch.
    pub(super) fn tell_presence(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.claims.forget_old(now);
        state.returning.take_if(|(until, _)| *until <= now);
        while state.agenda.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, user)) = state.agenda.pop_first() else { break };
            self.settle(&mut state, user);
        }
        state.presences.tell();
    }

    /// Online users with names after `after`, by name, up to `limit`; and whether there are more.
    pub fn online(&self, after: &str, limit: usize) -> (Vec<UserId>, bool) {
        lock(&self.state).presences.online(after, limit)
    }

    /// Whether a user looks online.
    pub fn is_online(&self, user: &UserId) -> bool {
        lock(&self.state).presences.is_online(user)
    }

    /// How many users are online.
    pub fn online_count(&self) -> usize {
        lock(&self.state).presences.online_count()
    }

    /// Asks every session that comes from now on to leave at once. Returns those that are here, and when each is to come back, in milliseconds from
    /// now: in a slot of its own, so that `a_second` come in a second, whatever their number.
    pub(super) fn drain(&self, a_second: u32) -> Vec<(Arc<SessionHandle>, u32)> {
        let mut state = lock(&self.state);
        state.draining = true;
        let sessions = || state.users.values().flat_map(|here| &here.sessions);
        sessions().cloned().zip(slots(sessions().count(), a_second)).collect()
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
