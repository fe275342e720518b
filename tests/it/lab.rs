//! People on the way: a phone changes its networks under a conversation, and every message arrives once and in order, both ways. The
//! journeys are those of the lab, shortened; how long things take is measured by `cargo run --release -p whimbrel-lab`, never asserted here.

use crate::harness::binary;
use std::time::Duration;
use whimbrel_client::Transport;
use whimbrel_lab::journey::{Act, End, Journey, Step};
use whimbrel_lab::journeys::{random, scripted, switch};
use whimbrel_lab::network::Settings;
use whimbrel_lab::run::{Run, Trip, all, faults};
use whimbrel_lab::traffic::Notes;
use whimbrel_lab::{LinkName, can_run};

const TRANSPORTS: [Transport; 5] =
    [Transport::Quic, Transport::WebTransport, Transport::WebSocket, Transport::WebSocketJson, Transport::Auto];
/// Trips at once: they mostly wait.
const AT_ONCE: usize = 8;
/// Random journeys here; the lab's own command makes hundreds.
const RANDOM: u64 = 10;

fn trip(journey: &Journey, transport: Transport, reported: bool, seed: u64) -> Trip<'_> {
    Trip { reported, ..Trip::new(binary(), journey, transport, Duration::from_millis(40), seed) }
}

/// Makes all trips, and fails with the faults of all.
fn travel(trips: &[Trip<'_>]) -> Vec<Run> {
    let (mut runs, mut wrong) = (Vec::new(), Vec::new());
    all(trips, AT_ONCE, &|| true, |index, result| {
        let run = result.unwrap();
        if !run.faults.is_empty() {
            let Trip { transport, reported, seed, .. } = trips[index];
            wrong.push(format!("{} over {transport:?}, reported {reported}, seed {seed}: {:?}", run.journey, run.faults));
        }
        assert!((run.up.sent > 0 || run.quiet) && run.down.sent > 0, "{}: nobody said anything", run.journey);
        runs.push(run);
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(runs.len(), trips.len());
    runs
}

#[test]
fn every_message_arrives_once_and_in_order_on_every_journey_over_every_transport() {
    if !can_run("journeys over every transport") {
        return;
    }
    let journeys: Vec<Journey> = scripted().into_iter().map(|journey| journey.faster(4)).collect();
    let pairs = journeys.iter().flat_map(|journey| TRANSPORTS.map(|transport| (journey, transport)));
    // Every other application tells the client of what its system noticed: as the transports are five, each does so on every other journey.
    let trips = pairs.zip(0..).map(|((journey, transport), seed)| trip(journey, transport, seed % 2 == 0, seed));
    let trips: Vec<Trip<'_>> = trips.collect();
    travel(&trips);
}

#[test]
fn the_best_that_works_is_found_where_udp_does_not_get_through() {
    if !can_run("a network without UDP") {
        return;
    }
    // Into the office, and no way out: over when messages flow there.
    let mut office = scripted().into_iter().find(|journey| journey.name == "office").unwrap();
    office.steps.truncate(1);
    office.end = End::Recovered { settle: Duration::ZERO, at_most: Duration::from_secs(60) };
    for run in travel(&[true, false].map(|reported| trip(&office, Transport::Auto, reported, 1))) {
        let states: Vec<&str> = run.connections.iter().map(|(_, state)| state.as_str()).collect();
        assert_eq!((states.first(), states.last()), (Some(&"quic"), Some(&"websocket")), "{states:?}");
        assert!(run.steps[0].up.gap.is_some() && run.steps[0].down.gap.is_some(), "nothing sent in there arrived in time");
    }
}

/// When the phone was connected over something like this for the first time after a step, in milliseconds after it; `-` is not at all.
fn connected_after(run: &Run, step: usize, how: &str) -> f64 {
    let done = run.steps[step].at;
    let found = run.connections.iter().find(|(at, state)| *at > done && state.starts_with(how));
    found.unwrap_or_else(|| panic!("never {how} after {done}: {:?}", run.connections)).0 - done
}

/// The first step of a journey, and no more: over when messages flow again.
fn into(name: &str) -> Journey {
    let mut journey = scripted().into_iter().find(|journey| journey.name == name).unwrap();
    journey.steps.truncate(1);
    journey.end = End::Recovered { settle: Duration::ZERO, at_most: Duration::from_secs(60) };
    journey.faster(2)
}

#[test]
fn a_path_that_does_not_carry_quic_is_left_within_three_seconds() {
    if !can_run("networks that swallow long packets") {
        return;
    }
    // Noticed within 0.5 s, doubted after 1 s at the most; the WebSocket begins 0.2 s later, and needs four round trips of 20 ms.
    let guesthouse = into("guesthouse");
    let mut trips: Vec<Trip<'_>> = [true, false].map(|reported| trip(&guesthouse, Transport::Auto, reported, 1)).into();
    // The same under a session that stays where it is: what it sends fits no more. Asked after 0.5 s, doubted 1.5 s later.
    let mut cellar = into("guesthouse");
    let narrow = Settings { mtu_silent: 1_000, ..Settings::of_round_trip_ms(20) };
    cellar.steps[0].acts = vec![Act::Set(LinkName::Cell, narrow)];
    trips.push(Trip { text_bytes: 3_000, pace: Duration::from_millis(100), ..trip(&cellar, Transport::Auto, false, 1) });
    for run in travel(&trips) {
        let took = connected_after(&run, 0, "websocket");
        assert!(took < 3_000.0, "reported {}: after {took} ms: {:?}", run.reported, run.connections);
        assert!(run.steps[0].up.gap.is_some() && run.steps[0].down.gap.is_some(), "nothing sent in there arrived in time");
    }
}

#[test]
fn a_phone_that_says_nothing_is_found_on_another_network() {
    if !can_run("a quiet phone that changes networks") {
        return;
    }
    let journey = switch(1_000);
    let transports = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
    let trips = transports.iter().flat_map(|transport| [true, false].map(|reported| (*transport, reported)));
    let trips = trips.map(|(transport, reported)| Trip { quiet: true, ..trip(&journey, transport, reported, 1) });
    for run in travel(&trips.collect::<Vec<_>>()) {
        // Noticed within 0.5 s, doubted after 1 s at the most, and another connection is there within the next.
        let gap = run.steps[0].down.gap.unwrap_or(f64::INFINITY);
        assert!(gap < 3_000.0, "{}, reported {}: {gap} ms: {:?}", run.transport, run.reported, run.connections);
    }
}

#[test]
fn a_path_that_is_dead_one_way_is_noticed_as_one_that_is_dead() {
    if !can_run("blackouts of one way") {
        return;
    }
    for (up, down) in [(true, false), (false, true), (true, true)] {
        let mut journey = switch(1_000);
        journey.begin = LinkName::Cell;
        let dark = |up, down| Act::Blackout { link: LinkName::Cell, up, down };
        journey.steps =
            vec![Step::new(1_000, "one way is gone", [dark(up, down)]), Step::new(5_000, "light", [dark(false, false), Act::Announced])];
        let transports = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
        let trips = transports.iter().flat_map(|transport| [true, false].map(|reported| trip(&journey, *transport, reported, 1)));
        for run in travel(&trips.collect::<Vec<_>>()) {
            // What is owed is asked for after 0.5 s and doubted 1.5 s later. Who is asked says so, once all of this is over.
            let noticed = connected_after(&run, 0, "-");
            assert!((1_500.0..3_000.0).contains(&noticed), "{}, {up} {down}: after {noticed} ms", run.transport);
            connected_after(&run, 1, &run.transport);
        }
    }
}

#[test]
fn every_message_arrives_once_and_in_order_on_random_journeys() {
    if !can_run("random journeys") {
        return;
    }
    let journeys: Vec<Journey> = (1..=RANDOM).map(random).collect();
    let trips = journeys.iter().zip(1..).map(|(journey, seed)| trip(journey, TRANSPORTS[seed as usize % 5], seed % 2 == 0, seed));
    travel(&trips.collect::<Vec<_>>());
}

#[test]
fn a_fault_planted_into_a_journey_is_found() {
    if !can_run("plants on a journey") {
        return;
    }
    let journey = scripted().remove(0).faster(8);
    let run = trip(&journey, Transport::Quic, true, 1).run().unwrap();
    assert_eq!(run.faults, Vec::<String>::new());
    let (phone, desk) = &run.notes;
    let middle = desk.got.len() / 2;
    assert!(middle > 5, "{middle}");
    type Plant = fn(&mut Notes, usize);
    let plants: [(&str, Plant); 5] = [
        ("Lost", |notes, at| drop(notes.got.remove(at))),
        ("Lost", |notes, _| notes.got.truncate(notes.got.len() - 2)),
        ("Doubled", |notes, at| notes.got.insert(at + 3, notes.got[at].clone())),
        ("Doubled", |notes, at| notes.got.push(notes.got[at].clone())),
        ("MailboxBackwards", |notes, at| notes.got.swap(at, at + 1)),
    ];
    for (fault, plant) in plants {
        for user in ["desk", "phone"] {
            let (mut phone, mut desk) = (phone.clone(), desk.clone());
            plant(if user == "desk" { &mut desk } else { &mut phone }, middle);
            let found = faults(&phone, &desk);
            assert!(found.len() == 1 && found[0].starts_with(&format!("what {user} got: {fault}")), "{fault} at {user}: {found:?}");
        }
    }
    // An order that the mailbox does not show, for its numbers were made up as well.
    let mut swapped = desk.clone();
    swapped.got.swap(middle, middle + 1);
    let numbers = (swapped.got[middle].message.mailbox, swapped.got[middle + 1].message.mailbox);
    (swapped.got[middle + 1].message.mailbox, swapped.got[middle].message.mailbox) = numbers;
    assert!(faults(phone, &swapped)[0].contains("OutOfOrder"), "{:?}", faults(phone, &swapped));
}
