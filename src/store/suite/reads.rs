//! Pages, what is no longer kept, and readers beside a writer.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

pub(in super::super) fn conversation_pages_are_cut_at_the_far_end<G: Ground>() {
    let (ground, mut store) = G::new(true);
    let (_, _, id) = chat(&store, 30);
    for round in 0..3 {
        let page =
            |from, direction, limit, bytes| seqs(&store.conversation_entries(id, ConversationSeq(from), direction, limit, bytes).unwrap());
        assert_eq!(page(0, Direction::Backwards, 3, usize::MAX), [28, 29, 30]);
        assert_eq!(page(28, Direction::Backwards, 3, usize::MAX), [25, 26, 27]);
        assert_eq!(page(3, Direction::Backwards, 3, usize::MAX), [1, 2]);
        assert_eq!(page(1, Direction::Backwards, 3, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(1000, Direction::Backwards, 2, usize::MAX), [29, 30]);
        assert_eq!(page(0, Direction::Forwards, 3, usize::MAX), [1, 2, 3]);
        assert_eq!(page(28, Direction::Forwards, 9, usize::MAX), [29, 30]);
        assert_eq!(page(30, Direction::Forwards, 9, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(u64::MAX, Direction::Forwards, 9, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(0, Direction::Backwards, usize::MAX, usize::MAX), (1..=30).collect::<Vec<_>>());
        assert_eq!(page(0, Direction::Forwards, usize::MAX, usize::MAX), (1..=30).collect::<Vec<_>>());
        assert_eq!(page(0, Direction::Backwards, 0, usize::MAX), [] as [u64; 0]);
        // "message 30" has 10 bytes.
        assert_eq!(page(0, Direction::Backwards, 9, 25), [29, 30]);
        assert_eq!(page(20, Direction::Forwards, 9, 20), [21, 22]);
        assert_eq!(page(0, Direction::Backwards, 9, 0), [30]);
        assert_eq!(page(0, Direction::Forwards, 9, 0), [1]);
        let none = store.conversation_entries(ConversationId(99), ConversationSeq(0), Direction::Backwards, 9, 99).unwrap();
        assert!(none.is_empty());
        if round == 0 {
            store = ground.reopen(store);
        } else {
            store.flush().unwrap();
        }
    }
}

pub(in super::super) fn mailbox_pages_have_limits<G: Ground>() {
    let (ground, mut store) = G::new(true);
    let (a, ..) = chat(&store, 30);
    for round in 0..3 {
        let page = |after, limit, bytes| -> Vec<u64> {
            let entries = store.mailbox_entries(a.user, MailboxSeq(after), limit, bytes).unwrap();
            entries.iter().map(|entry| entry.seq.0).collect()
        };
        assert_eq!(page(0, 3, usize::MAX), [1, 2, 3]);
        assert_eq!(page(29, 30, usize::MAX), [30, 31]);
        assert_eq!(page(31, 30, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(500, 30, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(u64::MAX, 30, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(0, 0, usize::MAX), [] as [u64; 0]);
        assert_eq!(page(0, usize::MAX, usize::MAX), (1..=31).collect::<Vec<_>>());
        assert_eq!(page(20, 9, 25), [21, 22]);
        assert_eq!(page(20, 9, 0), [21]);
        if let Some(entries) = store.recent_entries(a.user, MailboxSeq(20), 5, usize::MAX) {
            assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [21, 22, 23, 24, 25]);
        }
        if round == 0 {
            store = ground.reopen(store);
        } else {
            store.flush().unwrap();
        }
    }
    // What was just committed is in memory, and so is the news that there is nothing more.
    chat(&store, 1);
    let recent = store.recent_entries(a.user, MailboxSeq(31), 5, usize::MAX).expect("it was committed a moment ago");
    assert_eq!(recent.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [32]);
    assert!(store.recent_entries(a.user, MailboxSeq(32), 5, usize::MAX).unwrap().is_empty());
}

pub(in super::super) fn trimming_keeps_what_must_be_kept<G: Ground>() {
    let (ground, store) = G::new(true);
    let (a, b, id) = chat(&store, 60);
    let forever = Duration::from_secs(1_000_000);
    store.flush().unwrap();
    assert_eq!(store.trim(Retention { entries: 1000, age: forever }, Time(2000)).unwrap(), 0);
    let removed = store.trim(Retention { entries: 20, age: forever }, Time(2000)).unwrap();
    let check = |store: &G::Store, head: u64, keep: u64| {
        let mut gone = 0;
        for user in [a.user, b.user] {
            let bounds = store.mailbox(user).unwrap();
            assert_eq!(bounds.head.0, head);
            assert!(bounds.floor.0 > 0 && bounds.head.0 - bounds.floor.0 >= keep, "{bounds:?}");
            gone += bounds.floor.0;
            let entries = all(store, user);
            assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), (bounds.floor.0 + 1..=head).collect::<Vec<_>>());
            let from_below = store.mailbox_entries(user, MailboxSeq(bounds.floor.0 - 1), 2, usize::MAX).unwrap();
            assert_eq!(from_below.first().map(|entry| entry.seq), (bounds.floor < bounds.head).then(|| bounds.floor.next()));
            assert!(
                store
                    .recent_entries(user, MailboxSeq(0), 10, usize::MAX)
                    .is_none_or(|entries| { entries.iter().all(|entry| entry.seq > bounds.floor) })
            );
        }
        let conversation = store.conversation(id).unwrap().unwrap();
        let messages = store.conversation_entries(id, ConversationSeq(0), Direction::Forwards, usize::MAX, usize::MAX).unwrap();
        assert_eq!(messages.len() as u64, conversation.head.0);
        gone
    };
    assert_eq!(check(&store, 61, 20), removed);
    let store = ground.reopen(store);
    assert_eq!(check(&store, 61, 20), removed);
    // By age: what is older than the 50th message goes, at most.
    let by_age = Retention { entries: 1000, age: Duration::from_millis(10) };
    let removed = removed + store.trim(by_age, Time(1060)).unwrap();
    assert_eq!(check(&store, 61, 11), removed);
    commit(&store, |transaction| {
        send(transaction, a, id, 3000, 500, "more");
    });
    assert_eq!(check(&store, 62, 12), removed);
    // Nothing is young enough: all may go, and the numbers go on.
    store.flush().unwrap();
    store.trim(Retention { entries: 1000, age: Duration::ZERO }, Time(9000)).unwrap();
    let store = ground.reopen(store);
    check(&store, 62, 0);
    commit(&store, |transaction| {
        send(transaction, a, id, 9000, 501, "more");
    });
    check(&store, 63, 1);
    store.flush().unwrap();
    check(&ground.reopen(store), 63, 1);
}

/// Messages are written, flushed and trimmed while other threads read everything, and whatever they see must be without a gap.
pub(in super::super) fn readers_see_no_gaps<G: Ground>() {
    let (_ground, store) = G::new(true);
    let (a, b, id) = chat(&store, 0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for user in [a.user, b.user] {
            let (store, over) = (&store, &over);
            scope.spawn(move || {
                let mut head = 0;
                while !over.load(Ordering::Relaxed) {
                    let before = store.mailbox(user).unwrap();
                    assert!(before.head.0 >= head && before.floor <= before.head, "{before:?} after {head}");
                    let entries = store.mailbox_entries(user, MailboxSeq(0), usize::MAX, usize::MAX).unwrap();
                    assert!(entries.windows(2).all(|two| two[0].seq.next() == two[1].seq && two[0].record.pos < two[1].record.pos));
                    assert!(entries.first().is_none_or(|first| first.seq.0 <= store.mailbox(user).unwrap().floor.0 + 1));
                    let last = entries.last().map_or(0, |last| last.seq.0);
                    assert!(last >= before.head.0 || before.head <= store.mailbox(user).unwrap().floor, "{last} after {before:?}");
                    assert!(entries.iter().all(|entry| entry.record.recipients.contains(&(user, entry.seq))));
                    if let Some(recent) = store.recent_entries(user, MailboxSeq(last), 10, usize::MAX) {
                        // Unless a trim came in between: then it begins after the floor.
                        let floor = store.mailbox(user).unwrap().floor.0;
                        assert!(
                            recent.first().is_none_or(|first| first.seq.0 == last + 1 || first.seq.0 > last && first.seq.0 <= floor + 1)
                        );
                    }
                    // Each transaction writes two messages: nobody sees half of one.
                    let conversation = store.conversation(id).unwrap().unwrap();
                    assert_eq!(conversation.head.0 % 2, 0);
                    let messages = store.conversation_entries(id, ConversationSeq(0), Direction::Backwards, 50, usize::MAX).unwrap();
                    let numbers = seqs(&messages);
                    assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]));
                    assert!(numbers.last().copied().unwrap_or(0) >= conversation.head.0);
                    assert_eq!(numbers.last().copied().unwrap_or(0) % 2, 0);
                    head = last.max(before.head.0);
                }
            });
        }
        for round in 0..400_u64 {
            commit(&store, |transaction| {
                send(transaction, a, id, 1000 + round, round, "ping");
                send(transaction, b, id, 1000 + round, round, "pong");
            });
            if round % 37 == 0 {
                store.flush().unwrap();
            }
            if round % 50 == 49 {
                store.trim(Retention { entries: 100, age: Duration::from_secs(1_000_000) }, Time(5000)).unwrap();
            }
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

pub(in super::super) fn large_groups_are_whole<G: Ground>() {
    let (ground, store) = G::new(false);
    let mut group = None;
    commit(&store, |transaction| {
        let keys: Vec<_> = (0..500).map(|name| join(transaction, name)).collect();
        let conversation = transaction.next_conversation().unwrap();
        let members: Vec<_> = keys.iter().map(|key| key.user).collect();
        let body = RecordBody::Started { conversation, kind: ConversationKind::Other(77), members: members.clone() };
        transaction.append(Time(1), body, &members).unwrap();
        group = Some((conversation, keys));
    });
    let (id, keys) = group.unwrap();
    for round in 0..20 {
        commit(&store, |transaction| {
            send(transaction, keys[round * 20], id, 5, 1, "to all");
        });
    }
    let check = |store: &G::Store| {
        for key in [keys[0], keys[250], keys[499]] {
            assert_eq!(all(store, key.user).len(), 21);
            assert_eq!(store.conversations_of(key.user, ConversationId(0), 5).unwrap()[0].members.len(), 500);
        }
    };
    check(&store);
    let store = ground.reopen(store);
    check(&store);
    store.flush().unwrap();
    check(&ground.reopen(store));
}
