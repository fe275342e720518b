//! The suite on the store in memory, and what only that store does.

use super::*;

struct MemoryGround;

impl Ground for MemoryGround {
    type Store = MemoryStore;
    fn new(_small: bool) -> (Self, MemoryStore) {
        (Self, MemoryStore::new())
    }
    fn reopen(&self, store: MemoryStore) -> MemoryStore {
        store.snapshot()
    }
}

store_suite!(MemoryGround);

#[test]
fn it_fails_as_it_is_told_to() {
    let store = MemoryStore::new();
    let (a, b, id) = chat(&store, 0);
    let again = |nonce| {
        store.transact(&mut |transaction| {
            send(transaction, a, id, 1, nonce, "x");
            Ok(())
        })
    };
    store.fail_next(FailPoint::BeforeCommit);
    assert!(matches!(again(1), Err(StoreError::Unavailable(_))));
    assert_eq!(all(&store, b.user).len(), 1);
    store.fail_next(FailPoint::UnknownNotCommitted);
    store.fail_next(FailPoint::AfterCommit);
    assert!(matches!(again(2), Err(StoreError::Unknown(_))));
    assert_eq!(all(&store, b.user).len(), 1);
    assert!(matches!(again(3), Err(StoreError::Unknown(_))));
    assert_eq!(all(&store, b.user).len(), 2);
    assert!(again(4).is_ok());
    assert_eq!(all(&store, b.user).len(), 3);
}

#[test]
fn copies_are_deep() {
    let store = MemoryStore::new();
    let (a, b, id) = chat(&store, 2);
    let (copy, restored) = (store.snapshot(), MemoryStore::restored_from(&store));
    commit(&store, |transaction| {
        send(transaction, a, id, 1, 9, "x");
    });
    assert_eq!((all(&store, b.user).len(), all(&copy, b.user).len(), all(&restored, b.user).len()), (4, 3, 3));
    assert_eq!(copy.epoch(), store.epoch());
    assert!(restored.epoch() > store.epoch());
}
