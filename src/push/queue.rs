//! Hints that wait to be brought: one for each user, the newest, so that the queue is as short as the list of users who have one.

use crate::engine::{Hint, Standing};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;
use whimbrel_protocol::{DeviceId, UserId};

/// Users whose hints may wait.
const USERS_MAX: usize = 16_384;

/// A hint on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Errand {
    pub hint: Hint,
    /// What the receiver knows it by.
    pub id: u128,
    /// How often it was tried.
    pub tries: usize,
}

/// Hints that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    errands: HashMap<UserId, Errand>,
    /// Users whose hints may be brought, in their order.
    turns: VecDeque<UserId>,
    /// Those whose hints may not yet, and from when on.
    later: BTreeSet<(Instant, UserId)>,
    /// Those to whose devices a hint is being brought: the next one waits for it, so that they come in order.
    busy: HashSet<UserId>,
}

impl Queue {
    /// Adds a hint; one that waits for the same user becomes it, for the devices of both. Says whether there was room.
    pub fn push(&mut self, hint: Hint) -> bool {
        if let Some(waiting) = self.errands.get_mut(&hint.user) {
            let older = std::mem::replace(&mut waiting.hint, hint);
            add_devices(&mut waiting.hint, older);
            waiting.id = rand::random();
            return true;
        }
        if self.errands.len() >= USERS_MAX {
            return false;
        }
        self.turns.push_back(hint.user.clone());
        self.errands.insert(hint.user.clone(), Errand { hint, id: rand::random(), tries: 0 });
        true
    }

    /// The hint whose turn it is. [`done`](Self::done) or [`again`](Self::again) says what became of it.
    pub fn take(&mut self, now: Instant) -> Option<Errand> {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            self.turns.extend(self.later.pop_first().map(|(_, user)| user));
        }
        let at = self.turns.iter().position(|user| !self.busy.contains(user))?;
        let user = self.turns.remove(at)?;
        let errand = self.errands.remove(&user)?;
        self.busy.insert(user);
        Some(errand)
    }

    /// When something may be taken that may not be yet.
    pub fn next(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Whether nothing may be taken now, or is being brought.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.busy.is_empty()
    }

    /// It was brought, or given up: the user's next one may be taken.
    pub fn done(&mut self, user: &UserId) {
        self.busy.remove(user);
    }

    /// It is to be brought again, from then on; a newer one that waits goes instead, then too.
    pub fn again(&mut self, errand: Errand, at: Instant) {
        let user = errand.hint.user.clone();
        self.busy.remove(&user);
        match self.errands.get_mut(&user) {
            Some(newer) => {
                newer.tries = errand.tries;
                add_devices(&mut newer.hint, errand.hint);
                self.turns.retain(|other| *other != user);
            }
            None => drop(self.errands.insert(user.clone(), errand)),
        }
        self.later.insert((at, user));
    }
}

/// Adds the devices of an older hint that the newer one does not name.
fn add_devices(newer: &mut Hint, older: Hint) {
    let known: HashSet<&DeviceId> = newer.devices.iter().map(|(device, _)| device).collect();
    let more: Vec<(DeviceId, Standing)> = older.devices.into_iter().filter(|(device, _)| !known.contains(device)).collect();
    newer.devices.extend(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_protocol::{ConversationId, ConversationSeq, Time};

    fn hint(user: &str, devices: &[(&str, Standing)], message: u64) -> Hint {
        let devices = devices.iter().map(|(device, standing)| (DeviceId::new(device).unwrap(), *standing)).collect();
        Hint {
            user: UserId::new(user).unwrap(),
            devices,
            from: UserId::new("ann").unwrap(),
            conversation: ConversationId(1),
            message: ConversationSeq(message),
            time: Time(message),
            text: format!("message {message}"),
        }
    }

    fn taken(queue: &mut Queue, now: Instant) -> Option<Hint> {
        queue.take(now).map(|errand| errand.hint)
    }

    #[test]
    fn hints_of_a_user_come_one_after_the_other_and_those_that_wait_are_one() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(queue.push(hint("bob", &[("phone", Standing::Suspended)], 1)));
        assert!(queue.push(hint("carol", &[("phone", Standing::Away)], 2)));
        let first = taken(&mut queue, now).unwrap();
        assert_eq!(first, hint("bob", &[("phone", Standing::Suspended)], 1));
        assert!(queue.push(hint("bob", &[("phone", Standing::Suspended), ("tablet", Standing::Away)], 3)));
        assert!(queue.push(hint("bob", &[("desk", Standing::Here), ("phone", Standing::Away)], 4)));
        assert_eq!(taken(&mut queue, now), Some(hint("carol", &[("phone", Standing::Away)], 2)));
        assert_eq!(taken(&mut queue, now), None, "bob's last one is still under way");
        assert!(!queue.is_idle());
        queue.done(&first.user);
        let both = &[("desk", Standing::Here), ("phone", Standing::Away), ("tablet", Standing::Away)];
        assert_eq!(taken(&mut queue, now), Some(hint("bob", both, 4)));
        queue.done(&first.user);
        queue.done(&UserId::new("carol").unwrap());
        assert_eq!(taken(&mut queue, now), None);
        assert!(queue.is_idle());
    }

    #[test]
    fn what_is_brought_again_waits_and_holds_up_nobody_else() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let later = now + std::time::Duration::from_secs(1);
        queue.push(hint("bob", &[("phone", Standing::Suspended)], 1));
        let first = queue.take(now).unwrap();
        queue.again(Errand { tries: 1, ..first.clone() }, later);
        queue.push(hint("carol", &[("phone", Standing::Away)], 2));
        assert_eq!(taken(&mut queue, now), Some(hint("carol", &[("phone", Standing::Away)], 2)));
        assert_eq!((taken(&mut queue, now), queue.next()), (None, Some(later)));
        let again = queue.take(later).unwrap();
        assert_eq!((again.id, again.tries, again.hint), (first.id, 1, first.hint.clone()));
        // A newer one that came meanwhile is another hint, and waits as long.
        queue.push(hint("bob", &[("desk", Standing::Away)], 3));
        queue.again(Errand { tries: 2, ..first.clone() }, later);
        assert_eq!(queue.take(now), None);
        let newer = queue.take(later).unwrap();
        assert_eq!((newer.tries, newer.hint), (2, hint("bob", &[("desk", Standing::Away), ("phone", Standing::Suspended)], 3)));
        assert_ne!(newer.id, first.id);
        assert_eq!((queue.take(later), queue.next()), (None, None));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut queue = Queue::default();
        for user in 0..USERS_MAX {
            assert!(queue.push(hint(&format!("user-{user}"), &[("phone", Standing::Away)], 1)));
        }
        assert!(!queue.push(hint("one-more", &[("phone", Standing::Away)], 1)));
        assert!(queue.push(hint("user-7", &[("phone", Standing::Away)], 2)), "who has one may have a newer one");
    }
}
