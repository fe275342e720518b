//! The shared suite: what every store must do, checked against a model that is too simple to be wrong.
//!
//! A store takes part by implementing [`Ground`] and naming the suite: `store_suite!(SqliteGround);`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use whimbrel_protocol::ErrorCode;
use whimbrel_protocol::frame::{Content, ContentKind};

/// Where a store stands during a test.
pub(super) trait Ground: Sized {
    type Store: Store;
    /// A new, empty store. `small`: everything that is bounded has the smallest bound that works, so that a short test meets it.
    fn new(small: bool) -> (Self, Self::Store);
    /// Ends the store without a word and opens it again. A store that does not outlive the process comes back as it is.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

macro_rules! store_suite {
    ($ground:ty) => {
        store_suite!($ground: a_message_is_where_it_belongs, nothing_of_a_failed_transaction_is_seen, contradictions_are_refused,
            a_refusal_leaves_the_rest_of_the_transaction_alone, devices_remember_their_commands, users_are_numbered_once,
            conversation_pages_are_cut_at_the_far_end, mailbox_pages_have_limits, conversation_ids_are_never_given_twice,
            cursors_only_rise, trimming_keeps_what_must_be_kept, reads_within_a_transaction_see_it, a_panic_changes_nothing,
            readers_see_no_gaps, large_groups_are_whole, random_histories, epochs_last);
    };
    ($ground:ty: $($name:ident),+) => {
        $( #[test] fn $name() { $crate::store::suite::$name::<$ground>(); } )+
    };
}
pub(super) use store_suite;

// What tests say in a line.

pub(super) fn user_id(name: u32) -> UserId {
    UserId::new(&format!("user-{name}")).unwrap()
}

pub(super) fn text(text: &str) -> Content {
    Content { kind: ContentKind::Text, text: text.to_owned() }
}

pub(super) fn commit(store: &impl Store, mut work: impl FnMut(&mut dyn Transaction)) {
    store
        .transact(&mut |transaction| {
            work(transaction);
            Ok(())
        })
        .unwrap();
}

/// A user with a device in slot 0.
pub(super) fn join(transaction: &mut dyn Transaction, name: u32) -> DeviceKey {
    let key = DeviceKey { user: transaction.user(&user_id(name)).unwrap(), slot: 0 };
    if transaction.device(key).unwrap().is_none() {
        let name = DeviceId::new("phone").unwrap();
        transaction.append(Time(1), RecordBody::Outbox { device: key, name, incarnation: Incarnation(1) }, &[]).unwrap();
    }
    key
}

/// The next command of a device.
pub(super) fn origin(transaction: &mut dyn Transaction, key: DeviceKey, nonce: u64) -> Origin {
    let device = transaction.device(key).unwrap().unwrap();
    Origin { device: key, incarnation: device.incarnation, cseq: device.applied.next(), nonce: Nonce(nonce.to_be_bytes()) }
}

/// The direct conversation of two users, begun now if need be.
pub(super) fn direct(transaction: &mut dyn Transaction, one: UserNo, other: UserNo) -> ConversationId {
    if let Some(id) = transaction.direct(one, other).unwrap() {
        return id;
    }
    let members = if one == other { vec![one] } else { vec![one, other] };
    let conversation = transaction.next_conversation().unwrap();
    let body = RecordBody::Started { conversation, kind: ConversationKind::Direct, members: members.clone() };
    transaction.append(Time(1), body, &members).unwrap();
    conversation
}

/// A message to everybody in the conversation.
pub(super) fn send(
    transaction: &mut dyn Transaction,
    from: DeviceKey,
    to: ConversationId,
    time: u64,
    nonce: u64,
    what: &str,
) -> Arc<Record> {
    let conversation = transaction.conversation(to).unwrap().unwrap();
    let origin = origin(transaction, from, nonce);
    let members: Vec<_> = conversation.members.iter().map(|member| member.user).collect();
    let body = RecordBody::Message { conversation: to, seq: conversation.head.next(), origin, content: text(what) };
    transaction.append(Time(time), body, &members).unwrap()
}

/// Two users and what they wrote to each other: `messages` of them, by turns.
fn chat(store: &impl Store, messages: u64) -> (DeviceKey, DeviceKey, ConversationId) {
    let mut out = None;
    commit(store, |transaction| {
        let (a, b) = (join(transaction, 1), join(transaction, 2));
        out = Some((a, b, direct(transaction, a.user, b.user)));
    });
    let (a, b, id) = out.unwrap();
    for number in 1..=messages {
        commit(store, |transaction| {
            let from = if number % 2 == 0 { a } else { b };
            send(transaction, from, id, 1000 + number, number, &format!("message {number}"));
        });
    }
    (a, b, id)
}

fn all(store: &impl Store, user: UserNo) -> Vec<Entry> {
    store.mailbox_entries(user, MailboxSeq(0), usize::MAX, usize::MAX).unwrap()
}

fn seqs(records: &[Arc<Record>]) -> Vec<u64> {
    records.iter().map(|record| fold::numbered(&record.body).unwrap().1.0).collect()
}

// The suite.

pub(super) fn a_message_is_where_it_belongs<G: Ground>() {
    let (ground, store) = G::new(false);
    let (a, b, id) = chat(&store, 3);
    let check = |store: &G::Store| {
        for user in [a.user, b.user] {
            let entries = all(store, user);
            assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
            assert_eq!(store.mailbox(user).unwrap(), MailboxBounds { floor: MailboxSeq(0), head: MailboxSeq(4) });
            for entry in &entries {
                assert!(entry.record.recipients.contains(&(user, entry.seq)));
            }
            assert!(entries.windows(2).all(|two| two[0].record.pos < two[1].record.pos));
            assert_eq!(entries[3].record.content_bytes(), "message 3".len());
        }
        let conversation = store.conversation(id).unwrap().unwrap();
        assert_eq!((conversation.head.0, conversation.time), (3, Time(1003)));
        assert_eq!((conversation.member(a.user).unwrap().sent.0, conversation.member(b.user).unwrap().sent.0), (2, 3));
        assert_eq!(store.direct(b.user, a.user).unwrap(), Some(id));
        assert_eq!(store.direct(a.user, a.user).unwrap(), None);
        assert_eq!(store.conversation(ConversationId(99)).unwrap(), None);
        assert_eq!(store.conversations_of(a.user, ConversationId(0), 10).unwrap(), [conversation]);
        assert!(store.conversations_of(a.user, id, 10).unwrap().is_empty());
        assert!(store.conversations_of(a.user, ConversationId(u64::MAX), 10).unwrap().is_empty());
        assert_eq!(store.user(&user_id(2)).unwrap(), Some(b.user));
        assert_eq!(store.user_id(b.user).unwrap(), user_id(2));
        assert!(store.user_id(UserNo(77)).is_err());
        assert_eq!(store.user(&user_id(3)).unwrap(), None);
        assert_eq!(store.mailbox(UserNo(77)).unwrap(), MailboxBounds::default());
    };
    check(&store);
    let store = ground.reopen(store);
    check(&store);
    store.flush().unwrap();
    check(&store);
    check(&ground.reopen(store));
}

pub(super) fn nothing_of_a_failed_transaction_is_seen<G: Ground>() {
    let (ground, store) = G::new(false);
    let (a, b, id) = chat(&store, 1);
    let failed = store.transact(&mut |transaction| {
        let c = join(transaction, 3);
        direct(transaction, a.user, c.user);
        send(transaction, a, id, 2000, 9, "never");
        Err(StoreError::Refused("as the test asked".to_owned()))
    });
    assert!(matches!(failed, Err(StoreError::Refused(why)) if why == "as the test asked"));
    let check = |store: &G::Store| {
        assert_eq!(store.user(&user_id(3)).unwrap(), None);
        assert_eq!((all(store, a.user).len(), all(store, b.user).len()), (2, 2));
        assert_eq!(store.conversation(id).unwrap().unwrap().head, ConversationSeq(1));
        assert_eq!(store.conversations_of(a.user, ConversationId(0), 10).unwrap().len(), 1);
        commit(store, |transaction| assert_eq!(transaction.device(a).unwrap().unwrap().applied, CommandSeq(0)));
    };
    check(&store);
    let store = ground.reopen(store);
    check(&store);
    commit(&store, |transaction| {
        send(transaction, a, id, 2000, 9, "now");
    });
    assert_eq!(all(&store, b.user).len(), 3);
}

pub(super) fn contradictions_are_refused<G: Ground>() {
    let (_ground, store) = G::new(false);
    let (a, b, id) = chat(&store, 2);
    let c = DeviceKey { user: UserNo(50), slot: 0 };
    commit(&store, |transaction| {
        let good = origin(transaction, a, 5);
        let (name, kind) = (DeviceId::new("x").unwrap(), ConversationKind::Direct);
        let message = |seq, origin| RecordBody::Message { conversation: id, seq: ConversationSeq(seq), origin, content: text("no") };
        let zero = ConversationSeq(0);
        let other = join(transaction, 3);
        let outsider = origin(transaction, other, 1);
        let unused = transaction.next_conversation().unwrap();
        let bad: Vec<(RecordBody, Vec<UserNo>)> = vec![
            (message(4, good), vec![]),
            (message(2, good), vec![]),
            (message(3, outsider), vec![]),
            (message(3, Origin { cseq: good.cseq.next(), ..good }), vec![]),
            (message(3, Origin { cseq: CommandSeq(good.cseq.0 - 1), ..good }), vec![]),
            (message(3, Origin { incarnation: Incarnation(2), ..good }), vec![]),
            (message(3, Origin { device: DeviceKey { slot: 1, ..a }, ..good }), vec![]),
            (message(3, good), vec![a.user, b.user, a.user]),
            (message(3, good), vec![a.user, a.user]),
            (message(3, good), vec![UserNo(50)]),
            (message(3, good), vec![UserNo(0)]),
            (RecordBody::Outbox { device: a, name: name.clone(), incarnation: Incarnation(1) }, vec![]),
            (RecordBody::Outbox { device: DeviceKey { slot: 32, ..a }, name: name.clone(), incarnation: Incarnation(9) }, vec![]),
            (RecordBody::Outbox { device: c, name, incarnation: Incarnation(1) }, vec![]),
            (RecordBody::Started { conversation: id, kind, members: vec![a.user] }, vec![]),
            (RecordBody::Started { conversation: unused, kind, members: vec![b.user, a.user] }, vec![]),
            (RecordBody::Started { conversation: unused, kind, members: vec![b.user, b.user] }, vec![]),
            (RecordBody::Started { conversation: unused, kind, members: vec![] }, vec![]),
            (RecordBody::Started { conversation: unused, kind, members: vec![UserNo(50)] }, vec![]),
            (RecordBody::Started { conversation: ConversationId(1000), kind, members: vec![b.user] }, vec![]),
            (RecordBody::Receipt { conversation: id, user: other.user, delivered: zero, read: zero, origin: None }, vec![]),
            (RecordBody::Receipt { conversation: unused, user: a.user, delivered: zero, read: zero, origin: None }, vec![]),
            (RecordBody::Repeat { origin: Origin { device: c, ..good }, message: None }, vec![]),
        ];
        for (body, recipients) in bad {
            let refused = transaction.append(Time(5), body.clone(), &recipients);
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{body:?} for {recipients:?}: {refused:?}");
        }
        assert!(matches!(transaction.record(10_000), Err(StoreError::Refused(_))));
        assert!(matches!(transaction.record(0), Err(StoreError::Refused(_))));
        send(transaction, a, id, 1003, 7, "yes");
    });
    assert_eq!(all(&store, b.user).len(), 4);
}

pub(super) fn a_refusal_leaves_the_rest_of_the_transaction_alone<G: Ground>() {
    let (ground, store) = G::new(false);
    let (a, b, id) = chat(&store, 0);
    commit(&store, |transaction| {
        send(transaction, a, id, 1, 1, "one");
        let origin = origin(transaction, a, 2);
        // The device would take it, the conversation does not; then the other way round; then a recipient does not.
        let body = |seq, origin| RecordBody::Message { conversation: id, seq: ConversationSeq(seq), origin, content: text("no") };
        assert!(transaction.append(Time(1), body(7, origin), &[a.user]).is_err());
        assert!(transaction.append(Time(1), body(2, Origin { cseq: CommandSeq(9), ..origin }), &[a.user]).is_err());
        assert!(transaction.append(Time(1), body(2, origin), &[b.user, b.user]).is_err());
        send(transaction, a, id, 1, 2, "two");
    });
    let store = ground.reopen(store);
    assert_eq!(all(&store, b.user).iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    commit(&store, |transaction| assert_eq!(transaction.device(a).unwrap().unwrap().applied, CommandSeq(2)));
}

pub(super) fn devices_remember_their_commands<G: Ground>() {
    let (ground, mut store) = G::new(true);
    let (a, _, id) = chat(&store, 0);
    let mut sent = Vec::new();
    for round in 0..8_u64 {
        commit(&store, |transaction| {
            for number in 0..50 {
                let nonce = round * 50 + number;
                sent.push((nonce, send(transaction, a, id, 1, nonce, "hello").pos));
            }
        });
        if round == 4 {
            commit(&store, |transaction| {
                let (name, incarnation) = (DeviceId::new("new phone").unwrap(), Incarnation(7));
                transaction.append(Time(1), RecordBody::Outbox { device: a, name, incarnation }, &[]).unwrap();
                let device = transaction.device(a).unwrap().unwrap();
                assert_eq!((device.applied, device.applied_nonce(), device.recent.len()), (CommandSeq(0), Nonce::default(), 250));
            });
        }
        if round % 2 == 1 {
            store.flush().unwrap();
        }
        if round % 3 == 1 {
            store = ground.reopen(store);
        }
        commit(&store, |transaction| {
            let device = transaction.device(a).unwrap().unwrap();
            assert_eq!(device.applied.0, if round < 4 { round * 50 + 50 } else { (round - 4) * 50 });
            let recent: Vec<_> = device.recent.iter().map(|recent| (u64::from_be_bytes(recent.nonce.0), recent.pos)).collect();
            assert_eq!(recent, sent[sent.len().saturating_sub(NONCES_MAX)..]);
            assert!(matches!(transaction.record(recent[0].1).unwrap().body, RecordBody::Message { .. }));
        });
    }
    commit(&store, |transaction| {
        assert_eq!(transaction.device(a).unwrap().unwrap().name.as_str(), "new phone");
        for slot in [31, 5] {
            let (key, name) = (DeviceKey { slot, ..a }, DeviceId::new("more").unwrap());
            transaction.append(Time(1), RecordBody::Outbox { device: key, name, incarnation: Incarnation(1) }, &[]).unwrap();
        }
        let slots: Vec<_> = transaction.devices(a.user).unwrap().iter().map(|device| device.key.slot).collect();
        assert_eq!(slots, [0, 5, 31]);
    });
    let store = ground.reopen(store);
    commit(&store, |transaction| assert_eq!(transaction.devices(a.user).unwrap().len(), 3));
}

pub(super) fn users_are_numbered_once<G: Ground>() {
    let (ground, store) = G::new(false);
    let mut numbers = Vec::new();
    commit(&store, |transaction| {
        numbers = (0..100).map(|name| transaction.user(&user_id(name)).unwrap()).collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 100);
        assert_eq!(transaction.user(&user_id(7)).unwrap(), numbers[7]);
    });
    let store = ground.reopen(store);
    commit(&store, |transaction| {
        assert!((0..100).all(|name| transaction.user(&user_id(name)).unwrap() == numbers[name as usize]));
        assert!(!numbers.contains(&transaction.user(&user_id(100)).unwrap()));
    });
    assert_eq!(store.user(&user_id(99)).unwrap(), Some(numbers[99]));
    assert_eq!(store.user_id(numbers[99]).unwrap(), user_id(99));
}

pub(super) fn conversation_pages_are_cut_at_the_far_end<G: Ground>() {
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

pub(super) fn mailbox_pages_have_limits<G: Ground>() {
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

pub(super) fn conversation_ids_are_never_given_twice<G: Ground>() {
    let (ground, store) = G::new(false);
    let mut given = BTreeSet::new();
    for fails in [false, true, false, true] {
        let done = store.transact(&mut |transaction| {
            for name in 0..3 {
                let user = transaction.user(&user_id(name)).unwrap();
                assert!(given.insert(transaction.next_conversation().unwrap()));
                if transaction.direct(user, user).unwrap().is_none() {
                    let conversation = transaction.next_conversation().unwrap();
                    assert!(given.insert(conversation));
                    let body = RecordBody::Started { conversation, kind: ConversationKind::Direct, members: vec![user] };
                    transaction.append(Time(1), body, &[]).unwrap();
                }
            }
            if fails { Err(StoreError::Refused(String::new())) } else { Ok(()) }
        });
        assert_eq!(done.is_err(), fails);
    }
    let begun = store.conversations_of(UserNo(1), ConversationId(0), 9).unwrap();
    let store = ground.reopen(store);
    commit(&store, |transaction| assert!(transaction.next_conversation().unwrap() > begun[0].id));
}

pub(super) fn cursors_only_rise<G: Ground>() {
    let (ground, store) = G::new(true);
    let (a, b, id) = chat(&store, 5);
    let cursor = |store: &G::Store, key| {
        let mut found = MailboxSeq(0);
        commit(store, |transaction| found = transaction.device(key).unwrap().unwrap().cursor);
        found.0
    };
    store.save_cursors(&[(a, MailboxSeq(3)), (b, MailboxSeq(1)), (DeviceKey { slot: 9, ..a }, MailboxSeq(4))]).unwrap();
    assert_eq!((cursor(&store, a), cursor(&store, b)), (3, 1));
    store.save_cursors(&[(a, MailboxSeq(2)), (b, MailboxSeq(2)), (b, MailboxSeq(1))]).unwrap();
    assert_eq!((cursor(&store, a), cursor(&store, b)), (3, 2));
    store.flush().unwrap();
    let store = ground.reopen(store);
    assert_eq!((cursor(&store, a), cursor(&store, b)), (3, 2));
    store.save_cursors(&[(a, MailboxSeq(1))]).unwrap();
    store.save_cursors(&[(b, MailboxSeq(6))]).unwrap();
    commit(&store, |transaction| {
        send(transaction, a, id, 1, 77, "more");
    });
    assert_eq!((cursor(&store, a), cursor(&store, b)), (3, 6));
    commit(&store, |transaction| assert_eq!(transaction.device(DeviceKey { slot: 9, ..a }).unwrap(), None));
}

pub(super) fn trimming_keeps_what_must_be_kept<G: Ground>() {
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

pub(super) fn reads_within_a_transaction_see_it<G: Ground>() {
    let (_ground, store) = G::new(false);
    commit(&store, |transaction| {
        let (a, b) = (join(transaction, 1), join(transaction, 2));
        assert_eq!(transaction.direct(a.user, b.user).unwrap(), None);
        let id = direct(transaction, a.user, b.user);
        assert_eq!(transaction.direct(b.user, a.user).unwrap(), Some(id));
        let record = send(transaction, a, id, 50, 1, "hello");
        assert_eq!(transaction.record(record.pos).unwrap(), record);
        assert_eq!(record.recipients, [(a.user, MailboxSeq(2)), (b.user, MailboxSeq(2))]);
        let conversation = transaction.conversation(id).unwrap().unwrap();
        assert_eq!((conversation.head, conversation.time), (ConversationSeq(1), Time(50)));
        // Reads of the store do not see it yet, and do not wait.
        assert_eq!(store.user(&user_id(1)).unwrap(), None);
        assert_eq!(store.conversation(id).unwrap(), None);
        assert_eq!(store.direct(a.user, b.user).unwrap(), None);
        assert_eq!(store.mailbox(a.user).unwrap(), MailboxBounds::default());
        // An older time does not turn the conversation's back; watermarks rise only.
        send(transaction, b, id, 40, 1, "again");
        let receipt = |delivered, read| RecordBody::Receipt {
            conversation: id,
            user: a.user,
            delivered: ConversationSeq(delivered),
            read: ConversationSeq(read),
            origin: None,
        };
        transaction.append(Time(60), receipt(2, 1), &[b.user]).unwrap();
        transaction.append(Time(61), receipt(1, 2), &[]).unwrap();
        let conversation = transaction.conversation(id).unwrap().unwrap();
        assert_eq!(conversation.time, Time(50));
        let member = Member { user: a.user, sent: ConversationSeq(1), delivered: ConversationSeq(2), read: ConversationSeq(2) };
        assert_eq!(conversation.member(a.user), Some(&member));
    });
}

pub(super) fn a_panic_changes_nothing<G: Ground>() {
    let (_ground, store) = G::new(false);
    let (a, b, id) = chat(&store, 1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        commit(&store, |transaction| {
            send(transaction, a, id, 1, 1, "never");
            // Not `panic!`: nothing is to be printed.
            std::panic::resume_unwind(Box::new(()));
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(all(&store, b.user).len(), 2);
    commit(&store, |transaction| {
        send(transaction, a, id, 1, 1, "now");
    });
    assert_eq!(all(&store, b.user).len(), 3);
}

/// Messages are written, flushed and trimmed while other threads read everything, and whatever they see must be without a gap.
pub(super) fn readers_see_no_gaps<G: Ground>() {
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
                        assert!(recent.first().is_none_or(|first| first.seq.0 == last + 1));
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

pub(super) fn large_groups_are_whole<G: Ground>() {
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

pub(super) fn epochs_last<G: Ground>() {
    let (ground, store) = G::new(false);
    let epoch = store.epoch();
    assert!(epoch.0 > 1_600_000_000_000, "an epoch is at least the time in milliseconds");
    assert_eq!(ground.reopen(store).epoch(), epoch);
}

// Random histories against a model.

#[derive(Debug, Clone)]
enum Step {
    Transaction { ops: Vec<Op>, fails: bool },
    Cursor(u8, u8),
    Flush,
    Reopen,
    Trim(u8),
}

#[derive(Debug, Clone)]
enum Op {
    Outbox { user: u8, slot: u8 },
    Start { members: Vec<u8> },
    Send { conversation: u8, member: u8, slot: u8, length: u8, skip: u8 },
    Receipt { conversation: u8, member: u8, delivered: u8, read: u8, slot: Option<u8> },
    Reject { user: u8, slot: u8 },
    Repeat { user: u8, slot: u8 },
    Wrong { conversation: u8, member: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let (user, slot) = (0..8_u8, 0..3_u8);
    prop_oneof![
        2 => (user.clone(), slot.clone()).prop_map(|(user, slot)| Op::Outbox { user, slot }),
        2 => prop::collection::btree_set(user.clone(), 1..6).prop_map(|members| Op::Start { members: members.into_iter().collect() }),
        8 => (any::<u8>(), any::<u8>(), slot.clone(), any::<u8>(), 0..10_u8)
            .prop_map(|(conversation, member, slot, length, skip)| Op::Send { conversation, member, slot, length, skip }),
        2 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), prop::option::of(slot.clone()))
            .prop_map(|(conversation, member, delivered, read, slot)| Op::Receipt { conversation, member, delivered, read, slot }),
        1 => (user.clone(), slot.clone()).prop_map(|(user, slot)| Op::Reject { user, slot }),
        1 => (user, slot).prop_map(|(user, slot)| Op::Repeat { user, slot }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(conversation, member)| Op::Wrong { conversation, member }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop::collection::vec(op(), 1..12), prop::bool::weighted(0.1)).prop_map(|(ops, fails)| Step::Transaction { ops, fails }),
        1 => (0..8_u8, any::<u8>()).prop_map(|(user, cursor)| Step::Cursor(user, cursor)),
        1 => Just(Step::Flush),
        2 => Just(Step::Reopen),
        1 => any::<u8>().prop_map(Step::Trim),
    ]
}

/// The model: the records, and the answers worked out from all of them each time.
#[derive(Debug, Clone, Default)]
struct Model {
    users: Vec<UserId>,
    records: Vec<Arc<Record>>,
    floors: BTreeMap<UserNo, u64>,
    cursors: BTreeMap<DeviceKey, MailboxSeq>,
    nonce: u64,
}

impl Model {
    fn mailbox(&self, user: UserNo) -> Vec<Arc<Record>> {
        self.records.iter().filter(|record| record.recipients.iter().any(|(recipient, _)| *recipient == user)).cloned().collect()
    }

    fn messages(&self, id: ConversationId) -> Vec<Arc<Record>> {
        let is_in = |record: &&Arc<Record>| matches!(&record.body, RecordBody::Message { conversation, .. } if *conversation == id);
        self.records.iter().filter(is_in).cloned().collect()
    }

    fn conversations(&self) -> Vec<(ConversationId, ConversationKind, Vec<UserNo>)> {
        let begun = self.records.iter().filter_map(|record| match &record.body {
            RecordBody::Started { conversation, kind, members } => Some((*conversation, *kind, members.clone())),
            _ => None,
        });
        begun.collect()
    }

    fn conversation(&self, id: ConversationId) -> Option<Conversation> {
        let (_, kind, users) = self.conversations().into_iter().find(|(found, ..)| *found == id)?;
        let began =
            self.records.iter().find(|record| matches!(record.body, RecordBody::Started { conversation, .. } if conversation == id))?;
        let messages = self.messages(id);
        let members = users.into_iter().map(|user| {
            let own = messages.iter().filter(|record| record.body.origin().unwrap().device.user == user);
            let receipts = self.records.iter().filter_map(|record| match record.body {
                RecordBody::Receipt { conversation, user: whose, delivered, read, .. } if conversation == id && whose == user => {
                    Some((delivered, read))
                }
                _ => None,
            });
            let (delivered, read) = receipts
                .fold(Default::default(), |(d, r): (ConversationSeq, ConversationSeq), (delivered, read)| (d.max(delivered), r.max(read)));
            let sent = own.last().map_or(ConversationSeq(0), |record| fold::numbered(&record.body).unwrap().1);
            Member { user, sent, delivered, read }
        });
        Some(Conversation {
            id,
            kind,
            members: members.collect(),
            head: ConversationSeq(messages.len() as u64),
            time: messages.iter().map(|record| record.time).max().map_or(began.time, |time| time.max(began.time)),
        })
    }

    fn device(&self, key: DeviceKey) -> Option<Device> {
        let outbox = self.records.iter().rfind(|record| matches!(&record.body, RecordBody::Outbox { device, .. } if *device == key))?;
        let RecordBody::Outbox { name, incarnation, .. } = &outbox.body else { unreachable!() };
        let commands: Vec<_> =
            self.records.iter().filter(|record| record.body.origin().is_some_and(|origin| origin.device == key)).collect();
        let recent = commands[commands.len().saturating_sub(NONCES_MAX)..].iter();
        let last = commands.last().filter(|record| record.pos > outbox.pos);
        Some(Device {
            key,
            name: name.clone(),
            incarnation: *incarnation,
            applied: last.map_or(CommandSeq(0), |record| record.body.origin().unwrap().cseq),
            recent: recent.map(|record| RecentCommand { nonce: record.body.origin().unwrap().nonce, pos: record.pos }).collect(),
            cursor: self.cursors.get(&key).copied().unwrap_or_default(),
        })
    }

    /// Runs an operation on a transaction, and notes what it appended.
    fn run(&mut self, transaction: &mut dyn Transaction, op: &Op) {
        self.nonce += 1;
        let mut user = |model: &mut Self, name: u8| {
            let id = user_id(u32::from(name));
            let user = transaction.user(&id).unwrap();
            if user.0 as usize > model.users.len() {
                model.users.push(id);
            }
            user
        };
        let nonce = Nonce(self.nonce.to_be_bytes());
        let time = Time(1000 + (self.nonce * 7) % 50);
        let conversations = self.conversations();
        let pick = |conversation: u8, member: u8| {
            let (id, _, members) = conversations.get(usize::from(conversation) % conversations.len().max(1))?;
            Some((*id, members.clone(), members[usize::from(member) % members.len()]))
        };
        let command = |model: &Self, key: DeviceKey| {
            let device = model.device(key)?;
            Some(Origin { device: key, incarnation: device.incarnation, cseq: device.applied.next(), nonce })
        };
        let (body, recipients) = match op {
            Op::Outbox { user: name, slot } => {
                let device = DeviceKey { user: user(self, *name), slot: *slot };
                let incarnation = Incarnation(self.device(device).map_or(0, |device| device.incarnation.0) + 1 + u64::from(*name));
                (RecordBody::Outbox { device, name: DeviceId::new(&format!("d{}", self.nonce)).unwrap(), incarnation }, vec![])
            }
            Op::Start { members } => {
                let members: Vec<_> = members.iter().map(|name| user(self, *name)).collect();
                let is_direct = members.len() <= 2;
                if is_direct && transaction.direct(members[0], members[members.len() - 1]).unwrap().is_some() {
                    return;
                }
                let kind = if is_direct { ConversationKind::Direct } else { ConversationKind::Other(9) };
                (RecordBody::Started { conversation: transaction.next_conversation().unwrap(), kind, members: members.clone() }, members)
            }
            Op::Send { conversation, member, slot, length, skip } => {
                let Some((id, mut members, from)) = pick(*conversation, *member) else { return };
                let Some(origin) = command(self, DeviceKey { user: from, slot: *slot }) else { return };
                if usize::from(*skip) < members.len() {
                    members.remove(usize::from(*skip));
                }
                let seq = self.conversation(id).unwrap().head.next();
                (RecordBody::Message { conversation: id, seq, origin, content: text(&"x".repeat(usize::from(*length))) }, members)
            }
            Op::Receipt { conversation, member, delivered, read, slot } => {
                let Some((id, members, user)) = pick(*conversation, *member) else { return };
                let origin = slot.and_then(|slot| command(self, DeviceKey { user, slot }));
                let (delivered, read) = (ConversationSeq(u64::from(*delivered)), ConversationSeq(u64::from(*read)));
                (RecordBody::Receipt { conversation: id, user, delivered, read, origin }, members)
            }
            Op::Reject { user: name, slot } => {
                let user = user(self, *name);
                let Some(origin) = command(self, DeviceKey { user, slot: *slot }) else { return };
                (RecordBody::Rejected { origin, code: ErrorCode::NotFound, message: "no".to_owned() }, vec![user])
            }
            Op::Repeat { user: name, slot } => {
                let user = user(self, *name);
                let Some(origin) = command(self, DeviceKey { user, slot: *slot }) else { return };
                (RecordBody::Repeat { origin, message: None }, vec![user])
            }
            Op::Wrong { conversation, member } => {
                let Some((id, members, from)) = pick(*conversation, *member) else { return };
                let Some(origin) = command(self, DeviceKey { user: from, slot: 0 }) else { return };
                let seq = self.conversation(id).unwrap().head;
                let body = RecordBody::Message { conversation: id, seq, origin, content: text("wrong") };
                assert!(matches!(transaction.append(time, body, &members), Err(StoreError::Refused(_))));
                return;
            }
        };
        let record = transaction.append(time, body.clone(), &recipients).unwrap();
        let expected: Vec<_> = recipients.iter().map(|user| (*user, MailboxSeq(self.mailbox(*user).len() as u64 + 1))).collect();
        assert_eq!((&record.body, record.time, &record.recipients), (&body, time, &expected));
        assert!(self.records.last().is_none_or(|last| last.pos < record.pos));
        self.records.push(record.clone());
        assert_eq!(transaction.record(record.pos).unwrap(), record);
        if let Some(key) = fold::device_of(&record.body) {
            assert_eq!(transaction.device(key).unwrap().as_deref(), self.device(key).as_ref());
        }
        if let Some(id) = fold::conversation_of(&record.body) {
            assert_eq!(transaction.conversation(id).unwrap().as_deref(), self.conversation(id).as_ref());
        }
    }

    /// Compares everything that a store can be asked with the records.
    fn compare(&self, store: &impl Store) {
        let mut devices = Vec::new();
        for (number, id) in (1..).zip(&self.users) {
            let user = UserNo(number);
            assert_eq!(store.user(id).unwrap(), Some(user));
            assert_eq!(store.user_id(user).unwrap(), *id);
            let records = self.mailbox(user);
            let floor = self.floors.get(&user).copied().unwrap_or(0);
            assert_eq!(store.mailbox(user).unwrap(), MailboxBounds { floor: MailboxSeq(floor), head: MailboxSeq(records.len() as u64) });
            let expected: Vec<_> = (1..).zip(records).skip(floor as usize).collect();
            for (after, limit) in [(0, usize::MAX), (floor + 3, 4), (floor.saturating_sub(1), 2), (expected.len() as u64 / 2 + floor, 50)] {
                let page = store.mailbox_entries(user, MailboxSeq(after), limit, usize::MAX).unwrap();
                let page: Vec<_> = page.into_iter().map(|entry| (entry.seq.0, entry.record)).collect();
                let expected: Vec<_> = expected.iter().filter(|(seq, _)| *seq > after).take(limit).cloned().collect();
                assert_eq!(page, expected);
                if let Some(recent) = store.recent_entries(user, MailboxSeq(after), limit, usize::MAX) {
                    assert_eq!(recent.into_iter().map(|entry| (entry.seq.0, entry.record)).collect::<Vec<_>>(), expected);
                }
            }
            let of_user: Vec<_> =
                self.conversations().into_iter().filter(|(.., members)| members.contains(&user)).map(|(id, ..)| id).collect();
            let found: Vec<_> = store.conversations_of(user, ConversationId(0), 99).unwrap().into_iter().map(|found| found.id).collect();
            assert_eq!(found, of_user);
            devices.extend((0..3).map(|slot| self.device(DeviceKey { user, slot })));
        }
        let mut found = Vec::new();
        commit(store, |transaction| {
            for number in 1..=self.users.len() as u32 {
                found.extend(
                    (0..3).map(|slot| transaction.device(DeviceKey { user: UserNo(number), slot }).unwrap().map(Arc::unwrap_or_clone)),
                );
            }
        });
        assert_eq!(found, devices);
        for (id, kind, members) in self.conversations() {
            assert_eq!(store.conversation(id).unwrap(), self.conversation(id));
            let messages = self.messages(id);
            let page =
                |from: u64, direction, limit| store.conversation_entries(id, ConversationSeq(from), direction, limit, usize::MAX).unwrap();
            assert_eq!(page(0, Direction::Forwards, usize::MAX), messages);
            assert_eq!(page(0, Direction::Backwards, usize::MAX), messages);
            let half = messages.len() / 2;
            assert_eq!(page(half as u64, Direction::Forwards, usize::MAX), messages[half..]);
            assert_eq!(page(half as u64 + 1, Direction::Backwards, 3), messages[half.saturating_sub(3)..half]);
            if let Some((one, other)) = fold::direct_pair(kind, &members) {
                assert_eq!(store.direct(other, one).unwrap(), Some(id));
            }
        }
    }
}

/// Random transactions, flushes, trims and restarts: the store answers as the model does.
pub(super) fn random_histories<G: Ground>() {
    let config = ProptestConfig { cases: 48, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..40))| {
        let (ground, mut store) = G::new(true);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Transaction { ops, fails } => {
                    let mut after = model.clone();
                    let done = store.transact(&mut |transaction| {
                        for op in &ops {
                            after.run(transaction, op);
                        }
                        if fails { Err(StoreError::Refused(String::new())) } else { Ok(()) }
                    });
                    prop_assert_eq!(done.is_err(), fails);
                    if fails {
                        model.nonce = after.nonce;
                    } else {
                        model = after;
                    }
                }
                Step::Cursor(user, cursor) => {
                    let key = DeviceKey { user: UserNo(u32::from(user) + 1), slot: 0 };
                    let cursor = MailboxSeq(u64::from(cursor));
                    store.save_cursors(&[(key, cursor)]).unwrap();
                    if model.device(key).is_some() {
                        let noted = model.cursors.entry(key).or_default();
                        *noted = cursor.max(*noted);
                    }
                }
                Step::Flush => store.flush().unwrap(),
                Step::Reopen => {
                    // Cursors may become durable later: here they do now, so that the model need not guess.
                    if !model.cursors.is_empty() {
                        store.flush().unwrap();
                    }
                    store = ground.reopen(store);
                }
                Step::Trim(keep) => {
                    let keep = Retention { entries: u64::from(keep), age: Duration::from_secs(1_000_000) };
                    let removed = store.trim(keep, Time(2000)).unwrap();
                    let mut expected = 0;
                    for user in (1..=model.users.len() as u32).map(UserNo) {
                        let (bounds, was) = (store.mailbox(user).unwrap(), model.floors.get(&user).copied().unwrap_or(0));
                        prop_assert!(bounds.floor.0 >= was && bounds.floor.0 <= was.max(bounds.head.0.saturating_sub(keep.entries)));
                        expected += bounds.floor.0 - was;
                        model.floors.insert(user, bounds.floor.0);
                    }
                    prop_assert_eq!(removed, expected);
                }
            }
            model.compare(&store);
        }
    });
}

mod memory {
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
}
