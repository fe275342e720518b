//! The shared suite: what every store must do, checked against a model that is too simple to be wrong.
//!
//! A store takes part by implementing [`Ground`] and naming the suite: `store_suite!(SqliteGround);`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod history;
mod reads;

use super::*;
use std::collections::BTreeSet;
use whimbrel_protocol::ErrorCode;
use whimbrel_protocol::frame::Content;

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
            cursors_only_rise, positions_only_rise_and_last, trimming_keeps_what_must_be_kept, reads_within_a_transaction_see_it, a_panic_changes_nothing,
            readers_see_no_gaps, large_groups_are_whole, random_histories, epochs_last);
    };
    ($ground:ty: $($name:ident),+) => {
        $( #[test] fn $name() { $crate::store::suite::$name::<$ground>(); } )+
    };
}
pub(super) use history::random_histories;
pub(super) use reads::{
    conversation_pages_are_cut_at_the_far_end, large_groups_are_whole, mailbox_pages_have_limits, readers_see_no_gaps,
    trimming_keeps_what_must_be_kept,
};
pub(super) use store_suite;

// What tests say in a line.

pub(super) fn user_id(name: u32) -> UserId {
    UserId::new(&format!("user-{name}")).unwrap()
}

pub(super) fn text(text: &str) -> Content {
    Content::text(text)
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
    for round in 0..10_u64 {
        commit(&store, |transaction| {
            for number in 0..70 {
                let nonce = round * 70 + number;
                sent.push((nonce, send(transaction, a, id, 1, nonce, "hello").pos));
            }
        });
        if round == 4 {
            commit(&store, |transaction| {
                let (name, incarnation) = (DeviceId::new("new phone").unwrap(), Incarnation(7));
                transaction.append(Time(1), RecordBody::Outbox { device: a, name, incarnation }, &[]).unwrap();
                let device = transaction.device(a).unwrap().unwrap();
                assert_eq!((device.applied, device.applied_nonce(), device.recent.len()), (CommandSeq(0), Nonce::default(), 0));
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
            // From round 4 on the slot is another device's. What the first one sent is remembered however much this one sends.
            let (first, own) = sent.split_at(if round < 4 { 0 } else { 5 * 70 });
            assert_eq!(device.applied.0, own.len() as u64);
            for (known, sent) in [(&device.recent, own), (&device.former, first)] {
                let known: Vec<_> = known.iter().map(|command| (u64::from_be_bytes(command.nonce.0), command.pos)).collect();
                assert_eq!(known, sent[sent.len().saturating_sub(NONCES_MAX)..]);
            }
            assert!(matches!(transaction.record(sent[0].1).unwrap().body, RecordBody::Message { .. }));
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

pub(super) fn positions_only_rise_and_last<G: Ground>() {
    let (ground, store) = G::new(true);
    let (a, b, _) = chat(&store, 5);
    let positions = |store: &G::Store| [a, b].map(|key| store.position(key.user).unwrap().map(|seq| seq.0));
    assert_eq!(positions(&store), [None, None]);
    store.save_positions(&[(a.user, MailboxSeq(3))]).unwrap();
    assert_eq!(positions(&store), [Some(3), None]);
    // Nothing else is written, and nothing flushed.
    let store = ground.reopen(store);
    store.save_positions(&[(a.user, MailboxSeq(2)), (b.user, MailboxSeq(1)), (b.user, MailboxSeq(4))]).unwrap();
    assert_eq!(positions(&store), [Some(3), Some(4)]);
    let store = ground.reopen(store);
    assert_eq!(positions(&store), [Some(3), Some(4)]);
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

pub(super) fn epochs_last<G: Ground>() {
    let (ground, store) = G::new(false);
    let epoch = store.epoch();
    assert!(epoch.0 > 1_600_000_000_000, "an epoch is at least the time in milliseconds");
    assert_eq!(ground.reopen(store).epoch(), epoch);
}

mod memory;
