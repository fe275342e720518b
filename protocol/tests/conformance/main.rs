//! The two machines of a device against a model of the server, over a bad network, under a clock of their own: crashes between any two
//! steps, sessions that overlap, commits of unknown outcome, stores that are restored and cloned.
//!
//! What is checked once everything has come to rest ([`check`]): every command took effect once; every device saw every entry of its
//! mailbox once and in order, or was told that it was reset; nothing was lost without a name. That the checker would see a fault is
//! checked too, by planting each of [`fault::Fault`].
//!
//! `WHIMBREL_CASES` is the number of scripts for each property, `WHIMBREL_SEED` another beginning.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod check;
mod device;
mod fault;
mod script;
mod server;
mod store;
mod world;

use fault::Fault;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use script::{Step, World};
use server::Commit;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn run(kind: World, fault: Option<Fault>, cases: u64, shrink: u32) -> Result<(), TestError<Vec<Step>>> {
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: shrink,
        rng_seed: RngSeed::Fixed(from_environment("WHIMBREL_SEED", 1)),
        ..Config::default()
    };
    TestRunner::new(config).run(&script::scripts(kind), |script| world::World::run(&script, kind, fault).map_err(TestCaseError::fail))
}

fn holds(kind: World) {
    if let Err(why) = run(kind, None, from_environment("WHIMBREL_CASES", 2000), 20_000) {
        panic!("{why}");
    }
}

/// The checker must find the fault, and in the same world nothing without it.
fn is_caught(fault: Fault, kind: World) {
    let found = run(kind, Some(fault), 20_000, 0);
    assert!(matches!(found, Err(TestError::Fail(..))), "{fault:?} was not noticed: {found:?}");
}

#[test]
fn on_bad_days_nothing_is_lost_doubled_or_out_of_order() {
    holds(World::BadDays);
}

#[test]
fn devices_that_are_restored_or_cloned_lose_nothing() {
    holds(World::OddDevices);
}

#[test]
fn servers_that_are_restored_lose_nothing_in_silence() {
    holds(World::OddServers);
}

#[test]
fn nothing_is_lost_in_silence_whatever_is_restored() {
    holds(World::OddEverything);
}

#[test]
fn faults_of_a_server_are_noticed() {
    for fault in [Fault::AppliesBeforeCommit, Fault::CountsRepeats, Fault::LosesEvents] {
        is_caught(fault, World::BadDays);
    }
}

#[test]
fn faults_of_a_server_with_odd_devices_are_noticed() {
    for fault in [Fault::ForgetsNonces, Fault::DoesNotFence] {
        is_caught(fault, World::OddDevices);
    }
}

#[test]
fn faults_of_a_restored_server_are_noticed() {
    is_caught(Fault::ForgetsTime, World::OddServers);
}

/// Too rare for chance: a device that has only a snapshot, of a log that is rolled back and grows again to the same length.
#[test]
fn a_snapshot_of_a_log_that_was_rolled_back_is_noticed() {
    let (up, down) = (Step::Up { link: 0, count: 9 }, Step::Down { link: 0, count: 9 });
    let say = [Step::Enqueue { device: 2, kind: 0 }, up, Step::Commit(Commit::Good), down];
    let takes_a_snapshot = [Step::Up { link: 1, count: 9 }, down];
    let is_told_and_renumbers = [Step::Connect { device: 2, json: false }, up, down, up, down];
    let script = [
        &[up, down, Step::ServerBackup][..],
        &say,
        &takes_a_snapshot,
        &[Step::ServerRestore { raise: false }],
        &is_told_and_renumbers,
        &say,
    ]
    .concat();
    world::World::run(&script, World::OddServers, None).unwrap();
    let why = world::World::run(&script, World::OddServers, Some(Fault::BeginsWithoutTime)).unwrap_err();
    assert!(why.contains("the snapshot at 1 is of another log"), "{why}");
}

#[test]
fn faults_of_a_device_are_noticed() {
    for fault in [Fault::SendsBeforeStoring, Fault::AcksBeforeStoring, Fault::StoresPositionFirst, Fault::TakesDoubles, Fault::TakesEarly] {
        is_caught(fault, World::BadDays);
    }
    is_caught(Fault::ChangesNonces, World::OddDevices);
    is_caught(Fault::KeepsSilent, World::OddServers);
}
