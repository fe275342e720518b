//! The engine's dealings with a store that fails, commands that fail, and devices that are too many; without threads.

use super::decide::Outcome;
use super::*;
use crate::store::{DEVICES_MAX, FailPoint, MemoryStore, NONCES_MAX};
use whimbrel_protocol::codec::MAX_EXTENSIONS;
use whimbrel_protocol::frame::{Content, EventBody, Extension, Send};
use whimbrel_protocol::{CommandSeq, DeviceId, EXTENSIONS_MAX, Incarnation, Nonce, SessionEpoch, VERSION_MAX, VERSION_MIN};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn hello(device: &str, incarnation: Incarnation) -> Hello {
    Hello {
        min_version: VERSION_MIN,
        max_version: VERSION_MAX,
        user: user("ann"),
        device: DeviceId::new(device).unwrap(),
        token: String::new(),
        agent: String::new(),
        instance: Nonce::default(),
        attempt: 0,
        incarnation,
        position: None,
        origin: Origin::Now,
        extensions: Vec::new(),
    }
}

fn enter(engine: &Arc<Engine>, device: &str, incarnation: Incarnation) -> Entered {
    engine.step_hello(&user("ann"), &hello(device, incarnation)).unwrap()
}

fn send(entered: &Entered, cseq: u64, nonce: u64, text: &str) -> Command {
    let content = Content::text(text);
    let body = Send { to: Target::User(user("bob")), content }.into();
    Command { incarnation: entered.arrival.incarnation, cseq: CommandSeq(cseq), nonce: Nonce(nonce.to_le_bytes()), body }
}

/// Submits and commits; returns what is applied then.
fn apply(engine: &Arc<Engine>, entered: &Entered, command: Command) -> u64 {
    engine.submit(&entered.session, command).unwrap();
    while engine.step_commit(usize::MAX) {}
    entered.session.applied().0
}

/// Texts in Bob's mailbox.
fn received(engine: &Arc<Engine>) -> Vec<String> {
    let Some(number) = engine.store.user(&user("bob")).unwrap() else { return Vec::new() };
    let device = crate::store::DeviceKey { user: number, slot: 99 };
    let viewer = Viewer { device, user: user("bob"), incarnation: Incarnation(0), full_names: true };
    let events = engine.step_events(&viewer, MailboxSeq(0), usize::MAX).into_iter();
    let texts = events.filter_map(|event| match event.body {
        EventBody::Message(message) => Some(message.content.text),
        _ => None,
    });
    texts.collect()
}

#[test]
fn a_server_whose_commits_fail_is_not_ready_until_one_goes_through() {
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::stepped(store.clone());
    let ann = enter(&engine, "phone", Incarnation(0));
    assert!(engine.probe().is_ok());
    store.fail_next(FailPoint::BeforeCommit);
    assert_eq!(apply(&engine, &ann, send(&ann, 1, 1, "lost on the way")), 0);
    assert!(matches!(ann.session.end(), Some(End::Error(error)) if error.code == ErrorCode::StoreUnavailable));
    store.fail_next(FailPoint::BeforeCommit);
    assert!(engine.probe().is_err(), "it was tried again, and failed again");
    assert!(engine.probe().is_ok(), "then it went through");
    let ann = enter(&engine, "phone", ann.arrival.incarnation);
    store.fail_next(FailPoint::BeforeCommit);
    apply(&engine, &ann, send(&ann, 1, 1, "lost again"));
    let ann = enter(&engine, "phone", ann.arrival.incarnation);
    assert_eq!(apply(&engine, &ann, send(&ann, 1, 1, "there")), 1);
    store.fail_next(FailPoint::BeforeCommit);
    assert!(engine.probe().is_err(), "a shorter one than failed says nothing: it may have fitted into the last room");
    store.fail_next(FailPoint::BeforeCommit);
    apply(&engine, &ann, send(&ann, 2, 2, "again"));
    let ann = enter(&engine, "phone", ann.arrival.incarnation);
    store.fail_next(FailPoint::BeforeCommit);
    assert!(engine.probe().is_err(), "nor does a hello that writes nothing");
    apply(&engine, &ann, send(&ann, 2, 2, &"long ".repeat(100)));
    store.fail_next(FailPoint::BeforeCommit);
    assert!(engine.probe().is_ok(), "a long one of anybody's says it: nothing has to be tried");
}

#[test]
fn a_panic_while_deciding_costs_the_culprit_and_nobody_else() {
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::stepped(store.clone());
    let ann = enter(&engine, "phone", Incarnation(0));
    engine.submit(&ann.session, send(&ann, 1, 1, "a fault")).unwrap();
    engine.submit(&ann.session, send(&ann, 2, 2, "fine")).unwrap();
    // The two together, then the first alone.
    store.fail_next(FailPoint::Panic);
    store.fail_next(FailPoint::Panic);
    while engine.step_commit(usize::MAX) {}
    assert_eq!((ann.session.applied(), ann.session.end().is_none()), (CommandSeq(2), true));
    assert_eq!(received(&engine), ["fine"]);
    let viewer = Viewer { device: ann.session.device, user: user("ann"), incarnation: ann.arrival.incarnation, full_names: true };
    let events = engine.step_events(&viewer, MailboxSeq(0), usize::MAX);
    let rejected = events.iter().filter_map(|event| match &event.body {
        EventBody::Rejected(rejected) => Some((rejected.cseq.0, rejected.code)),
        _ => None,
    });
    assert_eq!(rejected.collect::<Vec<_>>(), [(1, ErrorCode::Failed)], "its number is used up, and the device is told");
    assert!(engine.probe().is_ok());
}

#[test]
fn a_refusal_is_for_the_next_command_only() {
    let store = MemoryStore::new();
    let engine = Engine::stepped(Arc::new(store));
    let ann = enter(&engine, "phone", Incarnation(0));
    assert_eq!(apply(&engine, &ann, send(&ann, 1, 1, "one")), 1);
    let refuse = |command: Command| {
        let mut outcome = None;
        let mut work = |tx: &mut dyn crate::store::Transaction| {
            outcome = Some(decide::refuse(tx, Time(1), ann.session.device, &command)?);
            Ok(())
        };
        engine.store.transact(&mut work).unwrap();
        outcome.unwrap()
    };
    assert_eq!(refuse(send(&ann, 1, 1, "one")), Outcome::Applied(CommandSeq(1)), "it was carried out before");
    assert_eq!(refuse(send(&ann, 1, 9, "another")), Outcome::Conflict);
    assert_eq!(refuse(send(&ann, 3, 3, "three")), Outcome::Gap);
    assert_eq!(refuse(Command { incarnation: Incarnation(99), ..send(&ann, 2, 2, "two") }), Outcome::Stale);
    assert_eq!(refuse(send(&ann, 2, 2, "two")), Outcome::Applied(CommandSeq(2)));
}

#[test]
fn a_device_too_many_takes_the_place_of_the_one_away_longest() {
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::stepped(store.clone());
    let name = |number: usize| format!("device-{number}");
    let mut all: Vec<Entered> = (0..DEVICES_MAX).map(|number| enter(&engine, &name(number), Incarnation(0))).collect();
    let refused = engine.step_hello(&user("ann"), &hello("one more", Incarnation(0))).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooManyDevices, "all of them are here");

    // One sent something, and never heard that it got through; another has been away longer than it.
    let lost = all.remove(7);
    assert_eq!(apply(&engine, &lost, send(&lost, 1, 77, "said once")), 1);
    let away = all.remove(3);
    let head = store.mailbox(lost.session.user).unwrap().head;
    store.save_cursors(&[(lost.session.device, MailboxSeq(1))]).unwrap();
    assert!(head > MailboxSeq(1));
    engine.leave(&lost.session);
    engine.leave(&away.session);
    let first = enter(&engine, "one more", Incarnation(0));
    assert_eq!(first.session.device, away.session.device);
    let second = enter(&engine, "and another", Incarnation(0));
    assert_eq!(second.session.device, lost.session.device);
    assert!(second.arrival.incarnation > lost.arrival.incarnation, "outboxes of a slot are told apart");
    assert!(all.iter().chain([&first]).all(|entered| entered.session.end().is_none()), "nobody who is here was disturbed");

    // It comes back: it finds a new outbox, numbers anew what it has not heard of, and it is not said twice, however much the one that
    // has its place has said since.
    for number in 1..=NONCES_MAX as u64 + 1 {
        assert_eq!(apply(&engine, &second, send(&second, number, 1000 + number, "mine")), number);
    }
    engine.leave(&first.session);
    let back = enter(&engine, &name(7), lost.arrival.incarnation);
    assert_eq!(back.session.device, first.session.device);
    assert_ne!(back.arrival.incarnation, lost.arrival.incarnation);
    assert_eq!(apply(&engine, &back, send(&back, 1, 77, "said once")), 1);
    assert_eq!(apply(&engine, &back, send(&back, 2, 78, "said later")), 2);
    let received = received(&engine).into_iter().filter(|text| text != "mine").collect::<Vec<_>>();
    assert_eq!(received, ["said once", "said later"]);
}

#[test]
fn what_a_welcome_says_is_applied_is_all_that_the_session_before_did() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let old = enter(&engine, "phone", Incarnation(0));
    // In one batch: the device comes again, and what its old session had still sent.
    let mut answered = engine.push_hello(&user("ann"), &hello("phone", old.arrival.incarnation));
    engine.submit(&old.session, send(&old, 1, 1, "from the old session")).unwrap();
    while engine.step_commit(usize::MAX) {}
    let new = answered.try_recv().unwrap().ok().unwrap();
    assert_eq!((new.arrival.applied, received(&engine).len()), (CommandSeq(0), 0));
}

#[test]
fn devices_that_come_at_once_get_places_of_their_own() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    for number in 0..DEVICES_MAX {
        let entered = enter(&engine, &format!("device-{number}"), Incarnation(0));
        engine.leave(&entered.session);
    }
    let mut answers = Vec::new();
    for device in ["new-1", "new-2", "device-0"] {
        answers.push(engine.push_hello(&user("ann"), &hello(device, Incarnation(1))));
    }
    while engine.step_commit(usize::MAX) {}
    let places: std::collections::HashSet<_> =
        answers.iter_mut().map(|answered| answered.try_recv().unwrap().ok().unwrap().session.device).collect();
    assert_eq!(places.len(), 3);
}

/// As it comes before the end of a handshake; the `attempt`s of one run.
fn play(engine: &Arc<Engine>, device: &str, incarnation: Incarnation, attempt: u32) -> Option<(Entered, Provisional)> {
    let position = Position { epoch: engine.epoch(), cursor: MailboxSeq(0), time: Time(0) };
    let hello = Hello { attempt, position: Some(position), ..hello(device, incarnation) };
    let entered = engine.step_provisional(&user("ann"), &hello).unwrap()?;
    let provisional = Provisional::new(user("ann"), hello, &entered);
    Some((entered, provisional))
}

#[test]
fn a_provisional_session_writes_and_is_not_there_until_it_is_confirmed() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let old = enter(&engine, "phone", Incarnation(0));
    assert_eq!(apply(&engine, &old, send(&old, 1, 1, "one")), 1);
    let (new, provisional) = play(&engine, "phone", old.arrival.incarnation, 1).unwrap();
    assert_eq!((new.arrival.applied, new.session.epoch()), (CommandSeq(1), SessionEpoch(0)));
    assert_eq!(apply(&engine, &new, send(&new, 2, 2, "two")), 2);
    assert_eq!(apply(&engine, &new, send(&new, 1, 1, "one")), 2, "a repeat of a repeat");
    assert!(old.session.end().is_none() && !old.session.is_replaced(), "nothing is taken over");
    assert_eq!(apply(&engine, &old, send(&old, 3, 3, "three")), 3, "the session that is there goes on");
    assert_eq!(apply(&engine, &new, send(&new, 2, 9, "another two")), 2);
    assert!(matches!(new.session.end(), Some(End::Error(error)) if error.code == ErrorCode::OutboxConflict));

    let (new, provisional_again) = play(&engine, "phone", old.arrival.incarnation, 1).unwrap();
    drop(provisional);
    assert_eq!(apply(&engine, &old, send(&old, 4, 4, "four")), 4);
    engine.step_confirm(&provisional_again).unwrap();
    assert!(old.session.is_replaced() && new.session.epoch() > old.session.epoch());
    assert_eq!(new.session.applied(), CommandSeq(4), "what the one before did meanwhile is known");
    assert_eq!(new.session.head(), engine.store.mailbox(new.session.user).unwrap().head);
    assert_eq!(apply(&engine, &old, send(&old, 5, 5, "too late")), 4);
    assert_eq!(apply(&engine, &new, send(&new, 5, 6, "five")), 5);
    assert_eq!(received(&engine), ["one", "two", "three", "four", "five"]);
}

#[test]
fn who_is_not_known_just_as_they_say_is_not_served_before_the_end_of_the_handshake() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    assert!(play(&engine, "phone", Incarnation(1), 1).is_none());
    assert_eq!(engine.store.user(&user("ann")).unwrap(), None, "nobody is made up");
    let phone = enter(&engine, "phone", Incarnation(0));
    assert!(play(&engine, "phone", phone.arrival.incarnation.next(), 1).is_none());
    assert!(play(&engine, "phone", Incarnation(0), 1).is_none());
    assert!(play(&engine, "laptop", phone.arrival.incarnation, 1).is_none());
    engine.leave(&phone.session);
    let (new, provisional) = play(&engine, "phone", phone.arrival.incarnation, 1).unwrap();
    assert!(!engine.hub.is_here(new.session.device));
    engine.leave(&new.session);

    // Nobody waits for the end of the handshake any more.
    drop(engine.push_confirm(&provisional));
    while engine.step_commit(usize::MAX) {}
    assert!(!engine.hub.is_here(new.session.device));
}

#[test]
fn a_provisional_session_whose_outbox_or_place_has_changed_writes_nothing_and_ends() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let phone = enter(&engine, "phone", Incarnation(0));
    engine.leave(&phone.session);
    let (early, provisional) = play(&engine, "phone", phone.arrival.incarnation, 1).unwrap();
    let anew = enter(&engine, "phone", Incarnation(0));
    assert_eq!(apply(&engine, &early, send(&early, 1, 1, "of the outbox before")), 0);
    assert!(matches!(engine.step_confirm(&provisional), Err(End::GoAway(_))));
    assert!(anew.session.end().is_none());

    let (early, provisional) = play(&engine, "phone", anew.arrival.incarnation, 1).unwrap();
    engine.leave(&anew.session);
    let others: Vec<Entered> = (0..DEVICES_MAX).map(|number| enter(&engine, &format!("device-{number}"), Incarnation(0))).collect();
    assert!(others.iter().any(|other| other.session.device == early.session.device), "its place was taken");
    assert_eq!(apply(&engine, &early, send(&early, 1, 1, "of the device before")), 0);
    assert!(matches!(engine.step_confirm(&provisional), Err(End::GoAway(_))));
    assert!(others.iter().all(|other| other.session.end().is_none()));
    assert!(received(&engine).is_empty());
}

#[test]
fn a_provisional_session_that_comes_late_does_not_take_over() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let incarnation = enter(&engine, "phone", Incarnation(0)).arrival.incarnation;
    let (early, provisional) = play(&engine, "phone", incarnation, 1).unwrap();
    let newer = engine.step_hello(&user("ann"), &Hello { attempt: 2, ..hello("phone", incarnation) }).unwrap();
    assert_eq!(apply(&engine, &early, send(&early, 1, 1, "one")), 0, "who is there now says what is to be done");
    assert_eq!(apply(&engine, &newer, send(&newer, 1, 1, "one")), 1);
    assert!(matches!(engine.step_confirm(&provisional), Err(End::Error(error)) if error.code == ErrorCode::Replaced));
    assert!(newer.session.end().is_none());
    assert_eq!(apply(&engine, &newer, send(&newer, 2, 2, "two")), 2);
    assert_eq!(received(&engine), ["one", "two"]);
}

#[test]
fn what_another_life_of_the_device_said_counts_no_more_once_this_one_is_there() {
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::stepped(store.clone());
    let incarnation = enter(&engine, "phone", Incarnation(0)).arrival.incarnation;
    let restored = Hello { instance: Nonce([7; 8]), ..hello("phone", incarnation) };
    assert!(engine.step_provisional(&user("ann"), &restored).unwrap().is_none(), "the other is there");
    let live = engine.step_hello(&user("ann"), &restored).unwrap();
    assert!(play(&engine, "phone", incarnation, 9).is_none());
    engine.leave(&live.session);
    assert!(play(&engine, "phone", incarnation, 9).is_none(), "nor when it was there a moment ago");

    // A server that remembers nothing: who comes first counts, until the device has finished a handshake.
    let engine = Engine::stepped(store);
    let (recording, _) = play(&engine, "phone", incarnation, 1).unwrap();
    assert_eq!(apply(&engine, &recording, send(&recording, 1, 1, "of another life")), 1);
    assert!(engine.step_provisional(&user("ann"), &restored).unwrap().is_none());
    let live = engine.step_hello(&user("ann"), &restored).unwrap();
    assert_eq!(live.arrival.applied, CommandSeq(1), "the device hears of it before it says anything");
    assert_eq!(apply(&engine, &recording, send(&recording, 2, 2, "of another life, too")), 1);
    assert!(matches!(recording.session.end(), Some(End::GoAway(_))));
    assert_eq!(received(&engine), ["of another life"]);
}

#[test]
fn a_provisional_session_is_not_entered_where_another_run_has_come_since() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let phone = enter(&engine, "phone", Incarnation(0));
    engine.leave(&phone.session);
    let other = Hello { instance: Nonce([7; 8]), ..hello("phone", phone.arrival.incarnation) };
    for together in [false, true] {
        let (early, provisional) = play(&engine, "phone", phone.arrival.incarnation, 1).unwrap();
        // The other comes before, or in the same batch.
        let mut answered = engine.push_hello(&user("ann"), &other);
        if !together {
            while engine.step_commit(usize::MAX) {}
        }
        assert!(matches!(engine.step_confirm(&provisional), Err(End::GoAway(_))), "together: {together}");
        let there = answered.try_recv().unwrap().ok().unwrap();
        assert!(there.session.end().is_none() && !early.session.is_replaced());
        engine.leave(&there.session);
        engine.hub.forget_claims();
    }
}

#[test]
fn after_a_command_that_contradicts_the_outbox_none_of_the_session_is_carried_out() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let phone = enter(&engine, "phone", Incarnation(0));
    assert_eq!(apply(&engine, &phone, send(&phone, 1, 1, "one")), 1);
    engine.submit(&phone.session, send(&phone, 1, 9, "another one")).unwrap();
    engine.submit(&phone.session, send(&phone, 2, 2, "would hide it")).unwrap();
    while engine.step_commit(usize::MAX) {}
    assert_eq!(apply(&engine, &phone, send(&phone, 2, 2, "would hide it")), 1);
    assert_eq!(received(&engine), ["one"]);
}

#[test]
fn the_end_of_a_handshake_in_a_batch_with_commands_stops_those_of_the_session_before_only() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let old = enter(&engine, "phone", Incarnation(0));
    let (new, provisional) = play(&engine, "phone", old.arrival.incarnation, 1).unwrap();
    let mut entered = engine.push_confirm(&provisional);
    engine.submit(&new.session, send(&new, 1, 1, "one")).unwrap();
    engine.submit(&old.session, send(&old, 2, 2, "of the session before")).unwrap();
    while engine.step_commit(usize::MAX) {}
    assert!(entered.try_recv().unwrap().is_ok() && old.session.is_replaced());
    assert_eq!((new.session.applied(), received(&engine)), (CommandSeq(1), vec!["one".to_owned()]));
}

#[test]
fn what_a_message_carries_beside_its_text_is_kept_and_bounded() {
    let engine = Engine::stepped(Arc::new(MemoryStore::new()));
    let ann = enter(&engine, "phone", Incarnation(0));
    let with = |count: usize, bytes: usize, cseq: u64| {
        let mut command = send(&ann, cseq, cseq, &format!("{count} of {bytes}"));
        if let CommandBody::Send(send) = &mut command.body {
            send.content.extensions = vec![Extension { key: 900, value: vec![7; bytes] }; count];
        }
        command
    };
    let most = MAX_EXTENSIONS / EXTENSIONS_MAX;
    apply(&engine, &ann, with(EXTENSIONS_MAX, most, 1));
    apply(&engine, &ann, with(EXTENSIONS_MAX, most + 1, 2));
    assert_eq!(apply(&engine, &ann, with(EXTENSIONS_MAX + 1, 0, 3)), 3);
    let device = ann.session.device;
    let viewer = Viewer { device, user: user("bob"), incarnation: Incarnation(0), full_names: true };
    let bob = crate::store::DeviceKey { user: engine.store.user(&user("bob")).unwrap().unwrap(), slot: 99 };
    let events = engine.step_events(&Viewer { device: bob, ..viewer }, MailboxSeq(0), usize::MAX).into_iter();
    let arrived: Vec<_> =
        events.filter_map(|event| if let EventBody::Message(message) = event.body { Some(message.content) } else { None }).collect();
    assert_eq!(arrived.len(), 1, "the others are refused: {arrived:?}");
    assert_eq!(arrived[0].extensions, vec![Extension { key: 900, value: vec![7; most] }; EXTENSIONS_MAX]);
}
