//! Sessions, presence, and who hears of it.

use super::presence::CHANGES_MAX;
use super::*;
use std::collections::HashSet;
use whimbrel_protocol::{CommandSeq, Incarnation, Nonce};

fn new(user: u32, name: &str, slot: u8) -> NewSession {
    let user = UserNo(user);
    NewSession {
        user,
        user_id: UserId::new(name).unwrap(),
        device: DeviceKey { user, slot },
        device_id: whimbrel_protocol::DeviceId::new(&format!("device {slot}")).unwrap(),
        incarnation: Incarnation(1),
        applied: CommandSeq(0),
        attempt: Attempt { instance: Nonce::default(), number: 0 },
        background: false,
    }
}

fn enter(hub: &Hub, new: NewSession, now_ms: u64) -> Arc<SessionHandle> {
    let session = new.begin();
    hub.enter(&session, now_ms);
    session
}

fn presence_of(session: &SessionHandle) -> Vec<(String, PresenceState)> {
    let mut all = Vec::new();
    while let Some(signal) = session.take_signal() {
        if let ServerSignal::Presence(list) = signal {
            all.extend(list.into_iter().map(|presence| (presence.user.to_string(), presence.state)));
        }
    }
    all
}

#[test]
fn a_newer_session_of_a_device_replaces_the_older_and_only_that() {
    let hub = Hub::new(Duration::ZERO, Duration::ZERO);
    let phone = enter(&hub, new(1, "ann", 0), 7);
    let laptop = enter(&hub, new(1, "ann", 1), 7);
    let phone_again = enter(&hub, new(1, "ann", 0), 7);
    assert!(phone.is_replaced() && !laptop.is_replaced() && !phone_again.is_replaced());
    assert!(phone_again.epoch() > phone.epoch());
    assert!(matches!(phone.end(), Some(End::Error(error)) if error.code == ErrorCode::Replaced));
}

#[test]
fn who_comes_back_within_the_grace_was_never_away() {
    let hub = Hub::new(Duration::from_secs(3600), Duration::ZERO);
    let watcher = enter(&hub, new(1, "ann", 0), 0);
    hub.watch(&watcher, Watch { users: vec![UserId::new("bob").unwrap()], everyone: false, lobby: false });
    assert_eq!(presence_of(&watcher), [("bob".into(), PresenceState::Offline)]);
    let bob = enter(&hub, new(2, "bob", 0), 0);
    hub.tell_presence();
    assert_eq!(presence_of(&watcher), [("bob".into(), PresenceState::Online)]);
    hub.leave(&bob);
    hub.tell_presence();
    let _bob = enter(&hub, new(2, "bob", 0), 0);
    hub.tell_presence();
    assert_eq!(presence_of(&watcher), []);
    assert_eq!(hub.online("", 10).0.len(), 2);
}

#[test]
fn who_stays_away_goes_offline() {
    let hub = Hub::new(Duration::ZERO, Duration::ZERO);
    let watcher = enter(&hub, new(1, "ann", 0), 0);
    hub.watch(&watcher, Watch { users: Vec::new(), everyone: true, lobby: false });
    let bob = enter(&hub, new(2, "bob", 0), 0);
    hub.tell_presence();
    hub.leave(&bob);
    hub.tell_presence();
    let seen = presence_of(&watcher);
    assert_eq!(seen.last(), Some(&("bob".into(), PresenceState::Offline)), "{seen:?}");
    assert_eq!(hub.online("", 10).0, [UserId::new("ann").unwrap()]);
}

#[test]
fn who_watches_by_name_hears_at_once_however_many_come() {
    let hub = Hub::new(Duration::ZERO, Duration::ZERO);
    let watcher = enter(&hub, new(1, "ann", 0), 0);
    hub.watch(&watcher, Watch { users: vec![UserId::new("user 2999").unwrap()], everyone: false, lobby: false });
    presence_of(&watcher);
    let came: Vec<_> = (2..3_000).map(|number| enter(&hub, new(number, &format!("user {number}"), 0), 0)).collect();
    hub.tell_presence();
    assert_eq!(presence_of(&watcher), [("user 2999".into(), PresenceState::Online)]);
    hub.watch(&watcher, Watch { users: vec![UserId::new("user 5").unwrap()], everyone: false, lobby: false });
    presence_of(&watcher);
    for session in &came {
        hub.leave(session);
    }
    hub.tell_presence();
    assert_eq!(presence_of(&watcher), [("user 5".into(), PresenceState::Offline)], "only of whom it watches now");
    hub.leave(&watcher);
    assert!(lock(&hub.state).presences.is_watched_by_nobody(), "nothing stays of who left");
}

#[test]
fn who_watches_everyone_is_told_of_everyone_in_turns() {
    const USERS: u32 = 1_000;
    let hub = Hub::new(Duration::ZERO, Duration::ZERO);
    let early = enter(&hub, new(1, "ann", 0), 0);
    hub.watch(&early, Watch { users: Vec::new(), everyone: true, lobby: false });
    presence_of(&early);
    let _came: Vec<_> = (2..USERS).map(|number| enter(&hub, new(number, &format!("user {number}"), 0), 0)).collect();
    let mut turns = 0;
    let mut told = HashSet::new();
    while told.len() < USERS as usize - 1 {
        hub.tell_presence();
        let now = presence_of(&early);
        assert!((1..=CHANGES_MAX).contains(&now.len()), "{} after {turns} turns", now.len());
        told.extend(now);
        turns += 1;
    }
    assert_eq!(turns, (USERS as usize).div_ceil(CHANGES_MAX));
    // Whoever begins later hears of all who are here, at once.
    let late = enter(&hub, new(USERS, "zoe", 0), 0);
    hub.watch(&late, Watch { users: Vec::new(), everyone: true, lobby: false });
    assert_eq!(presence_of(&late).len(), USERS as usize);
}

#[test]
fn after_a_restart_everybody_has_a_slot_and_none_is_later_than_clients_obey() {
    // The first comes back when all have been told.
    let first = AWAY_MS + 10_000 / 8;
    let slots: Vec<u32> = super::slots(10_000, 1_000).take(10_000).collect();
    for (number, at) in (0..).zip(&slots) {
        assert!((first + number..=first + number + 1).contains(at), "{number}: {at}");
    }
    let mut in_a_second = [0; 300];
    for at in super::slots(600_000, 1_000).take(600_000) {
        in_a_second[usize::try_from(at / 1_000).unwrap()] += 1;
    }
    assert_eq!(in_a_second[..75].iter().sum::<u32>(), 0);
    assert!(in_a_second[77..299].iter().all(|count| (1_900..3_100).contains(count)), "{in_a_second:?}");
    assert!(super::slots(2, 0).take(2).all(|at| at < SLOTS_MS));
    // Ten thousand on a core are back while the next server still waits for them.
    let last = super::slots(10_000, crate::engine::RESUMES_A_SECOND).take(10_000).max();
    assert!(last.is_some_and(|last| Duration::from_millis(last.into()) < super::RETURN), "{last:?}");
}

/// One whose application is suspended from the beginning.
fn suspended(user: u32, name: &str, slot: u8) -> NewSession {
    NewSession { background: true, ..new(user, name, slot) }
}

#[test]
fn who_is_suspended_never_looks_online() {
    let hub = Hub::new(Duration::from_secs(3600), Duration::ZERO);
    let watcher = enter(&hub, new(1, "ann", 0), 0);
    hub.watch(&watcher, Watch { users: vec![UserId::new("bob").unwrap()], everyone: false, lobby: false });
    presence_of(&watcher);
    let heard = || {
        hub.tell_presence();
        presence_of(&watcher).into_iter().map(|(_, state)| state == PresenceState::Online).collect::<Vec<_>>()
    };
    let phone = enter(&hub, suspended(2, "bob", 0), 0);
    assert!(heard().is_empty(), "a phone that looks for messages in a pocket");
    hub.set_background(&phone, false);
    assert_eq!(heard(), [true]);
    hub.set_background(&phone, true);
    assert_eq!(heard(), [false], "at once, without grace");
    // Another device counts for itself.
    let laptop = enter(&hub, new(2, "bob", 1), 0);
    assert_eq!(heard(), [true]);
    hub.set_background(&phone, false);
    hub.set_background(&phone, true);
    assert!(heard().is_empty());
    // It is only gone, and may come back.
    hub.leave(&laptop);
    assert_eq!((heard(), hub.online("", 9).0.len()), (vec![], 2));
    let _again = enter(&hub, suspended(2, "bob", 0), 0);
    assert_eq!((heard(), hub.online("", 9).0.len()), (vec![], 2), "the laptop's grace is the laptop's");
    // A phone that is suspended before it can say so says it when it looks for messages.
    let tablet = enter(&hub, new(3, "cat", 0), 0);
    let _again = enter(&hub, suspended(3, "cat", 0), 0);
    assert!(tablet.is_replaced() && !hub.online("", 9).0.contains(&UserId::new("cat").unwrap()));
    // What an old session says does not count.
    hub.set_background(&phone, false);
    assert!(phone.is_replaced());
    assert!(heard().is_empty());
}

#[test]
fn nothing_stays_of_who_left_whatever_they_were() {
    let hub = Hub::new(Duration::ZERO, Duration::ZERO);
    let laptop = enter(&hub, new(2, "bob", 1), 0);
    let phone = enter(&hub, suspended(2, "bob", 0), 0);
    hub.leave(&laptop);
    hub.tell_presence();
    assert_eq!(hub.online_count(), 0, "the phone does not count");
    hub.wake(UserNo(2), MailboxSeq(3));
    assert_eq!(phone.head(), MailboxSeq(3), "but it is there");
    hub.leave(&phone);
    hub.tell_presence();
    let state = lock(&hub.state);
    assert!(state.users.is_empty() && state.names.is_empty() && state.epochs.is_empty() && state.agenda.is_empty());
}

#[test]
fn a_device_that_is_suspended_takes_no_grace_from_another() {
    let hub = Hub::new(Duration::from_secs(3600), Duration::ZERO);
    let laptop = enter(&hub, new(2, "bob", 1), 0);
    let phone = enter(&hub, new(2, "bob", 0), 0);
    hub.leave(&laptop);
    hub.set_background(&phone, true);
    assert_eq!(hub.online_count(), 1, "the laptop may be on its way to another network");
    let _laptop = enter(&hub, suspended(2, "bob", 1), 0);
    assert_eq!(hub.online_count(), 0, "it was, and says that it is suspended too");
}

#[test]
fn who_changes_networks_is_not_away_and_who_was_suspended_is() {
    let hub = Hub::new(Duration::ZERO, Duration::from_secs(3600));
    let phone = enter(&hub, new(1, "ann", 0), 0);
    let tablet = enter(&hub, suspended(1, "ann", 1), 0);
    assert_eq!((hub.standing(phone.device), hub.standing(tablet.device)), (Standing::Here, Standing::Suspended));
    hub.leave(&phone);
    hub.leave(&tablet);
    hub.tell_presence();
    assert_eq!((hub.standing(phone.device), hub.standing(tablet.device)), (Standing::Here, Standing::Away));
    let phone = enter(&hub, new(1, "ann", 0), 0);
    hub.set_background(&phone, true);
    assert_eq!(hub.standing(phone.device), Standing::Suspended);
    hub.leave(&phone);
    assert_eq!(hub.standing(phone.device), Standing::Away);
}

#[test]
fn after_a_start_who_has_not_come_yet_may_be_on_the_way_back() {
    let hub = Hub::new(Duration::ZERO, Duration::from_secs(3600));
    let (phone, tablet) = (new(1, "ann", 0).device, new(1, "ann", 1).device);
    assert_eq!((hub.standing(phone), hub.standing(tablet)), (Standing::Here, Standing::Here));
    hub.leave(&enter(&hub, suspended(1, "ann", 0), 0));
    assert_eq!((hub.standing(phone), hub.standing(tablet)), (Standing::Away, Standing::Here), "it came, and left");
    lock(&hub.state).returning = Some((Instant::now(), HashSet::new()));
    hub.tell_presence();
    assert_eq!((hub.standing(phone), hub.standing(tablet)), (Standing::Away, Standing::Away), "those who were to come have come");
}
