//! Hints that wait to be brought: one for each user, the newest, so that the queue is as short as the list of users who have one.

use crate::engine::{Hint, Standing};
use std::collections::{HashMap, HashSet, VecDeque};
use whimbrel_protocol::{DeviceId, UserId};

/// Users whose hints may wait.
const USERS_MAX: usize = 16_384;

/// Hints that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    hints: HashMap<UserId, Hint>,
    turns: VecDeque<UserId>,
    /// Users to whose devices a hint is being brought: the next one waits for it, so that they come in order.
    busy: HashSet<UserId>,
}

impl Queue {
    /// Adds a hint; one that waits for the same user becomes it, for the devices of both. Says whether there was room.
    pub fn push(&mut self, mut hint: Hint) -> bool {
        if let Some(waiting) = self.hints.get_mut(&hint.user) {
            let known: HashSet<&DeviceId> = hint.devices.iter().map(|(device, _)| device).collect();
            let before: Vec<(DeviceId, Standing)> = waiting.devices.iter().filter(|(device, _)| !known.contains(device)).cloned().collect();
            hint.devices.extend(before);
            *waiting = hint;
            return true;
        }
        if self.hints.len() >= USERS_MAX {
            return false;
        }
        self.turns.push_back(hint.user.clone());
        self.hints.insert(hint.user.clone(), hint);
        true
    }

    /// The hint whose turn it is. [`done`](Self::done) says that it was brought, or given up.
    pub fn take(&mut self) -> Option<Hint> {
        let at = self.turns.iter().position(|user| !self.busy.contains(user))?;
        let user = self.turns.remove(at)?;
        let hint = self.hints.remove(&user)?;
        self.busy.insert(user);
        Some(hint)
    }

    /// The user's next hint may be taken.
    pub fn done(&mut self, user: &UserId) {
        self.busy.remove(user);
    }
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

    #[test]
    fn hints_of_a_user_come_one_after_the_other_and_those_that_wait_are_one() {
        let mut queue = Queue::default();
        assert!(queue.push(hint("bob", &[("phone", Standing::Suspended)], 1)));
        assert!(queue.push(hint("carol", &[("phone", Standing::Away)], 2)));
        let first = queue.take().unwrap();
        assert_eq!(first, hint("bob", &[("phone", Standing::Suspended)], 1));
        assert!(queue.push(hint("bob", &[("phone", Standing::Suspended), ("tablet", Standing::Away)], 3)));
        assert!(queue.push(hint("bob", &[("desk", Standing::Here), ("phone", Standing::Away)], 4)));
        assert_eq!(queue.take(), Some(hint("carol", &[("phone", Standing::Away)], 2)));
        assert_eq!(queue.take(), None, "bob's last one is still under way");
        queue.done(&first.user);
        let both = &[("desk", Standing::Here), ("phone", Standing::Away), ("tablet", Standing::Away)];
        assert_eq!(queue.take(), Some(hint("bob", both, 4)));
        queue.done(&first.user);
        assert_eq!(queue.take(), None);
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
