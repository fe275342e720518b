//! People on the way: a phone changes its networks under a conversation, and every message arrives once and in order, both ways. The
//! journeys are those of the lab, shortened; how long things take is measured by `cargo run --release -p whimbrel-lab`, never asserted here.

use crate::harness::binary;
use std::time::Duration;
use whimbrel_client::Transport;
use whimbrel_lab::can_run;
use whimbrel_lab::journey::{End, Journey};
use whimbrel_lab::journeys::{random, scripted};
use whimbrel_lab::run::{Run, Trip, all, faults};
use whimbrel_lab::traffic::Notes;

const TRANSPORTS: [Transport; 5] =
    [Transport::Quic, Transport::WebTransport, Transport::WebSocket, Transport::WebSocketJson, Transport::Auto];
/// Trips at once: they mostly wait.
const AT_ONCE: usize = 8;
/// Random journeys here; the lab's own command makes hundreds.
const RANDOM: u64 = 10;

fn trip(journey: &Journey, transport: Transport, reported: bool, seed: u64) -> Trip<'_> {
    Trip { binary: binary(), journey, transport, reported, pace: Duration::from_millis(40), seed, durable: true }
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
        assert!(run.up.sent > 0 && run.down.sent > 0, "{}: nobody said anything", run.journey);
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
