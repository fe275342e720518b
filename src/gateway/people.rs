//! Who is here over Socket.IO: what they call themselves, and their sockets.

use super::contract::User;
use super::port::Port;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use whimbrel_protocol::UserId;

/// Everybody who is here.
#[derive(Debug, Default)]
pub(super) struct People {
    here: Mutex<HashMap<UserId, Here>>,
    ports: AtomicUsize,
    /// Users whose last socket has left: they are called what they called themselves as long as they look online.
    left: Mutex<HashSet<UserId>>,
}

#[derive(Debug)]
struct Here {
    user: User,
    ports: Vec<Arc<Port>>,
}

/// One socket's stay, until it is dropped.
pub(super) struct Presence<'a> {
    people: &'a People,
    user: UserId,
    port: Arc<Port>,
}

impl People {
    fn here(&self) -> MutexGuard<'_, HashMap<UserId, Here>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody comes. What they call themselves now holds for all their sockets; `true` if they were known otherwise.
    pub fn enter(&self, id: &UserId, user: User, port: Arc<Port>) -> (Presence<'_>, bool) {
        let mut here = self.here();
        let entry = here.entry(id.clone()).or_insert_with(|| Here { user: User::nameless(id), ports: Vec::new() });
        let renamed = entry.user != user;
        entry.user = user;
        entry.ports.push(port.clone());
        self.ports.fetch_add(1, Ordering::Relaxed);
        (Presence { people: self, user: id.clone(), port }, renamed)
    }

    /// Forgets those who have left, if `is_gone` says that they will not be back in a moment.
    pub fn forget(&self, is_gone: impl Fn(&UserId) -> bool) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        let (gone, stay): (HashSet<_>, HashSet<_>) = left.into_iter().partition(is_gone);
        let mut here = self.here();
        for user in gone {
            if here.get(&user).is_some_and(|entry| entry.ports.is_empty()) {
                here.remove(&user);
            }
        }
        // Who is back leaves again.
        let stay = stay.into_iter().filter(|user| here.get(user).is_some_and(|entry| entry.ports.is_empty()));
        self.left.lock().unwrap_or_else(PoisonError::into_inner).extend(stay);
    }

    /// How many sockets there are.
    pub fn ports(&self) -> usize {
        self.ports.load(Ordering::Relaxed)
    }

    /// The sockets of a user.
    pub fn of(&self, user: &UserId) -> Vec<Arc<Port>> {
        self.here().get(user).map(|here| here.ports.clone()).unwrap_or_default()
    }

    /// A user who is online.
    pub fn user(&self, id: &UserId) -> User {
        let known = self.here().get(id).map(|here| here.user.clone());
        known.unwrap_or_else(|| User::nameless(id))
    }

    /// What a user calls themself.
    pub fn name(&self, id: &UserId) -> String {
        self.here().get(id).map_or_else(|| id.to_string(), |here| here.user.name.clone())
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        let mut here = self.people.here();
        if let Some(entry) = here.get_mut(&self.user) {
            entry.ports.retain(|port| !Arc::ptr_eq(port, &self.port));
            if entry.ports.is_empty() {
                self.people.left.lock().unwrap_or_else(PoisonError::into_inner).insert(self.user.clone());
            }
        }
        self.people.ports.fetch_sub(1, Ordering::Relaxed);
    }
}
