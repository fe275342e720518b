//! What may happen: scripts of steps, made so that they shrink well (indices are taken modulo what there is).

use crate::server::Commit;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The application wants something done.
    Enqueue {
        device: usize,
        kind: u8,
    },
    /// The device opens a session, whether or not it has one. Its older links keep what is under way to the server.
    Connect {
        device: usize,
        json: bool,
    },
    /// The device gives its link up; what is under way to the server may still arrive.
    Disconnect {
        device: usize,
        arrives: bool,
    },
    /// Frames arrive at the server, over some link that has any.
    Up {
        link: usize,
        count: usize,
    },
    /// Frames arrive at a device, over some link that has any.
    Down {
        link: usize,
        count: usize,
    },
    /// A datagram copy of a frame arrives at the server; it may arrive again.
    UpCopy {
        pick: usize,
        again: bool,
    },
    /// A datagram copy of an event arrives at a device; it may arrive again.
    DownCopy {
        pick: usize,
        again: bool,
    },
    Commit(Commit),
    Overload(bool),
    Wait {
        ms: u64,
    },
    /// The device's process dies after some more of the things it does.
    Crash {
        device: usize,
        after: u8,
    },
    ServerCrash,
    /// Only the latest entries of a mailbox are kept.
    Trim {
        user: usize,
        keep: u64,
    },
    /// The device's store is copied; later it is put back, over whatever is there.
    Backup {
        device: usize,
    },
    Restore {
        device: usize,
    },
    /// A second process runs as the same device, with a copy of its store.
    Clone {
        device: usize,
    },
    ServerBackup,
    /// The server's store is put back as it was copied, with or without a higher epoch.
    ServerRestore {
        raise: bool,
    },
}

fn index() -> impl Strategy<Value = usize> {
    0..6usize
}

fn commit() -> impl Strategy<Value = Commit> {
    prop_oneof![
        8 => Just(Commit::Good),
        1 => Just(Commit::UnknownKept),
        1 => Just(Commit::UnknownLost),
        1 => Just(Commit::CrashBefore),
        1 => Just(Commit::CrashAfter),
    ]
}

/// A bad network, processes that die, a store of unknown outcomes: nothing may be lost, doubled or out of order, and nobody told of
/// anything but a trim.
fn bad_day() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (index(), 0..4u8).prop_map(|(device, kind)| Step::Enqueue { device, kind }),
        5 => (index(), any::<bool>()).prop_map(|(device, json)| Step::Connect { device, json }),
        2 => (index(), any::<bool>()).prop_map(|(device, arrives)| Step::Disconnect { device, arrives }),
        12 => (index(), 1..6usize).prop_map(|(link, count)| Step::Up { link, count }),
        12 => (index(), 1..6usize).prop_map(|(link, count)| Step::Down { link, count }),
        4 => (0..64usize, any::<bool>()).prop_map(|(pick, again)| Step::UpCopy { pick, again }),
        4 => (0..64usize, any::<bool>()).prop_map(|(pick, again)| Step::DownCopy { pick, again }),
        9 => commit().prop_map(Step::Commit),
        2 => any::<bool>().prop_map(Step::Overload),
        3 => (0..60u64).prop_map(|ms| Step::Wait { ms }),
        3 => (index(), 0..8u8).prop_map(|(device, after)| Step::Crash { device, after }),
        1 => Just(Step::ServerCrash),
        1 => (0..2usize, 0..6u64).prop_map(|(user, keep)| Step::Trim { user, keep }),
    ]
}

/// Beside that, stores of devices that are put back or copied.
fn odd_device() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => index().prop_map(|device| Step::Backup { device }),
        1 => index().prop_map(|device| Step::Restore { device }),
        1 => index().prop_map(|device| Step::Clone { device }),
    ]
}

/// Beside that, the store of the server.
fn odd_server() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::ServerBackup),
        1 => any::<bool>().prop_map(|raise| Step::ServerRestore { raise }),
    ]
}

/// Which sorts of things may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    BadDays,
    OddDevices,
    OddServers,
    OddEverything,
}

/// Scripts for a world. Every device begins connected, so that short scripts do something.
pub fn scripts(world: World) -> BoxedStrategy<Vec<Step>> {
    let step = match world {
        World::BadDays => bad_day().boxed(),
        World::OddDevices => prop_oneof![9 => bad_day(), 1 => odd_device()].boxed(),
        World::OddServers => prop_oneof![12 => bad_day(), 1 => odd_server()].boxed(),
        World::OddEverything => prop_oneof![12 => bad_day(), 1 => odd_device(), 1 => odd_server()].boxed(),
    };
    vec(step, 1..120).boxed()
}
