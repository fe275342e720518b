//! A bounded cache of facts that never change.

use std::collections::HashMap;
use std::hash::Hash;

/// The most recently used facts: at least `max / 2` and at most `max` of them.
///
/// Two generations: what is used moves into the young one; when that is full the old one is dropped, and the young one becomes the old.
#[derive(Debug)]
pub(super) struct Facts<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    max: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Facts<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), max }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_used_and_never_more_than_its_bound() {
        let mut facts = Facts::new(100);
        for number in 0..10_000 {
            facts.insert(number, number);
            assert_eq!(facts.get(&0), Some(0));
            assert!(facts.young.len() + facts.old.len() <= 100);
        }
        assert_eq!(facts.get(&5), None);
        assert_eq!(facts.get(&9_999), Some(9_999));
    }
}
