//! Who looks online, and who is told of it; and who hears the lobby.

use super::session::{SIGNALS_MAX, SessionHandle};
use crate::store::DeviceKey;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use whimbrel_protocol::UserId;
use whimbrel_protocol::frame::{LobbyLine, Presence, PresenceState, ServerSignal, Watch};

/// The most users a session watches by name.
const WATCHED_MAX: usize = 256;
/// The most changes of presence told in one signal.
pub(super) const CHANGES_MAX: usize = 256;
/// How many such signals at most say who is here when a session begins to watch everyone. More are what the query `online` is for.
const PRESENT_SIGNALS_MAX: usize = SIGNALS_MAX / 2;

/// Everybody's presence.
#[derive(Default)]
pub(super) struct Presences {
    /// Online users, for lists.
    online: BTreeSet<UserId>,
    watchers: HashMap<DeviceKey, (Arc<SessionHandle>, Watching)>,
    /// Who watches a user by name.
    watched: HashMap<UserId, HashSet<DeviceKey>>,
    /// Who hears the lobby.
    listeners: HashMap<DeviceKey, Arc<SessionHandle>>,
    /// Changes since they were last told.
    changed: HashMap<UserId, PresenceState>,
    /// Those that wait for their turn to be told to who watches everyone.
    untold: HashMap<UserId, PresenceState>,
}

enum Watching {
    Everyone,
    Users(HashSet<UserId>),
}

impl Presences {
    /// A user came or went.
    pub fn set(&mut self, user: &UserId, state: PresenceState) {
        if state == PresenceState::Online {
            self.online.insert(user.clone());
        } else {
            self.online.remove(user);
        }
        self.changed.insert(user.clone(), state);
    }

    /// A session says whom it watches; the present state is told at once.
    pub fn watch(&mut self, session: &Arc<SessionHandle>, watch: Watch) {
        let users = watch.users.into_iter().take(WATCHED_MAX).collect();
        let watching = if watch.everyone { Watching::Everyone } else { Watching::Users(users) };
        self.forget(session.device);
        if watch.lobby {
            self.listeners.insert(session.device, session.clone());
        }
        let present: Vec<Vec<Presence>> = match &watching {
            Watching::Everyone => {
                let online: Vec<&UserId> = self.online.iter().take(CHANGES_MAX * PRESENT_SIGNALS_MAX).collect();
                let of = |user: &&UserId| Presence { user: (*user).clone(), state: PresenceState::Online };
                online.chunks(CHANGES_MAX).map(|users| users.iter().map(of).collect()).collect()
            }
            Watching::Users(users) => {
                let of = |user: &UserId| if self.online.contains(user) { PresenceState::Online } else { PresenceState::Offline };
                vec![users.iter().map(|user| Presence { user: user.clone(), state: of(user) }).collect()]
            }
        };
        if let Watching::Users(users) = &watching {
            for user in users {
                self.watched.entry(user.clone()).or_default().insert(session.device);
            }
        }
        self.watchers.insert(session.device, (session.clone(), watching));
        for presence in present {
            session.signal(ServerSignal::Presence(presence));
        }
    }

    /// A session watches nobody any more; a newer one of its device may.
    pub fn unwatch(&mut self, session: &Arc<SessionHandle>) {
        if self.watchers.get(&session.device).is_some_and(|(watcher, _)| Arc::ptr_eq(watcher, session)) {
            self.forget(session.device);
        }
    }

    fn forget(&mut self, device: DeviceKey) {
        self.listeners.remove(&device);
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

    /// Somebody says a line in the lobby.
    pub fn say(&self, text: &str) {
        for session in self.listeners.values() {
            session.signal(ServerSignal::Lobby(LobbyLine { text: text.to_owned() }));
        }
    }

    /// Tells what changed.
    pub fn tell(&mut self) {
        // Who watches by name hears of all of them …
        let mut told: HashMap<DeviceKey, Vec<Presence>> = HashMap::new();
        for (user, presence) in self.changed.drain() {
            for device in self.watched.get(&user).into_iter().flatten() {
                told.entry(*device).or_default().push(Presence { user: user.clone(), state: presence });
            }
            self.untold.insert(user, presence);
        }
        for (device, presence) in told {
            if let Some((session, _)) = self.watchers.get(&device) {
                session.signal(ServerSignal::Presence(presence));
            }
        }
        // … who watches everyone of so many a second: the newest state of each, so that none is lost.
        let turn: Vec<UserId> = self.untold.keys().take(CHANGES_MAX).cloned().collect();
        let changes = turn.into_iter().filter_map(|user| self.untold.remove(&user).map(|state| Presence { user, state }));
        let changes: Vec<Presence> = changes.collect();
        if changes.is_empty() {
            return;
        }
        for (session, watching) in self.watchers.values() {
            if matches!(watching, Watching::Everyone) {
                session.signal(ServerSignal::Presence(changes.clone()));
            }
        }
    }

    /// Online users with names after `after`, by name, up to `limit`; and whether there are more.
    pub fn online(&self, after: &str, limit: usize) -> (Vec<UserId>, bool) {
        let mut names = self.online.iter().filter(|name| name.as_str() > after);
        let page: Vec<UserId> = names.by_ref().take(limit).cloned().collect();
        let more = names.next().is_some();
        (page, more)
    }

    /// Whether a user looks online.
    pub fn is_online(&self, user: &UserId) -> bool {
        self.online.contains(user)
    }

    /// How many users are online.
    pub fn online_count(&self) -> usize {
        self.online.len()
    }

    #[cfg(test)]
    pub fn is_watched_by_nobody(&self) -> bool {
        self.watched.is_empty() && self.watchers.is_empty() && self.listeners.is_empty()
    }
}
