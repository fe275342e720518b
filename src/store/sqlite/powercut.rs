//! Power cuts, kills and failing disks.
//!
//! A history runs once on a file system that writes down everything ([`vfs`]). From that the files are built as they may be after a
//! power cut at any operation: of each file all that was written before its last sync, and of each later write all, nothing or some
//! sectors. The store must open there, sound, with every transaction that had been promised and none in part.
//! `WHIMBREL_POWERCUTS=5000 cargo test --lib powercut` tries more of them than the usual 240.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod vfs;

use super::super::suite::{commit, direct, join, send};
use super::tests::small;
use super::*;
use std::collections::BTreeMap;
use tempfile::TempDir;
use vfs::{Fault, Op, Recording, Vfs};

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A file, as far as it is durable, and what may or may not come on top.
#[derive(Debug, Clone, Default)]
struct File {
    durable: Option<Vec<u8>>,
    pending: Vec<Op>,
}

fn apply(content: &mut Option<Vec<u8>>, op: &Op, mut keep_sector: impl FnMut() -> bool) {
    match op {
        Op::Write { offset, data, .. } => {
            let content = content.get_or_insert_default();
            for (index, byte_range) in (0..data.len()).step_by(512).map(|at| at..data.len().min(at + 512)).enumerate() {
                let at = *offset as usize + index * 512;
                if keep_sector() {
                    if content.len() < at + byte_range.len() {
                        content.resize(at + byte_range.len(), 0);
                    }
                    content[at..at + byte_range.len()].copy_from_slice(&data[byte_range]);
                }
            }
        }
        Op::Truncate { size, .. } => content.get_or_insert_default().resize(*size as usize, 0),
        Op::Delete { .. } => *content = None,
        Op::Sync { .. } | Op::SyncDirectory | Op::Promise { .. } => {}
    }
}

/// The disk during a history.
#[derive(Debug, Clone, Default)]
struct Disk {
    files: BTreeMap<String, File>,
    /// Records before this position were promised.
    promised: u64,
}

impl Disk {
    fn step(&mut self, op: &Op) {
        match op {
            Op::Write { file, .. } | Op::Truncate { file, .. } | Op::Delete { file } => {
                self.files.entry(file.clone()).or_default().pending.push(op.clone())
            }
            Op::Sync { file } => {
                let file = self.files.entry(file.clone()).or_default();
                for op in std::mem::take(&mut file.pending) {
                    apply(&mut file.durable, &op, || true);
                }
            }
            Op::SyncDirectory => {
                for file in self.files.values_mut() {
                    if let Some(deleted) = file.pending.iter().rposition(|op| matches!(op, Op::Delete { .. })) {
                        file.pending.drain(..=deleted);
                        file.durable = None;
                    }
                }
            }
            Op::Promise { end } => self.promised = *end,
        }
    }

    /// Writes the files to `folder` as they may be if the power goes now.
    fn cut(&self, folder: &Path, random: &mut Random) {
        for (suffix, file) in &self.files {
            let mut content = file.durable.clone();
            // Some cuts keep nearly everything, some nearly nothing.
            let keep = [5, 50, 95][random.below(3) as usize];
            for op in &file.pending {
                match random.below(100) {
                    torn if torn < 20 => apply(&mut content, op, || random.below(2) == 0),
                    _ if random.below(100) < keep => apply(&mut content, op, || true),
                    _ => {}
                }
            }
            if let Some(content) = content {
                std::fs::write(folder.join(format!("store.db{suffix}")), content).unwrap();
            }
        }
    }
}

/// A history on a recording disk.
struct History {
    ops: Vec<Op>,
    /// The log as it came to be.
    records: Vec<Arc<Record>>,
    /// Positions between transactions.
    boundaries: Vec<u64>,
    /// Transactions whose sync failed, and which were not there when the store had read again. Until the next one has taken their
    /// place on the disk a power cut may bring them back: nobody was told anything about them.
    abandoned: Vec<Vec<Arc<Record>>>,
}

impl History {
    /// Whether a log is one that may be found: whole transactions, and at most one abandoned at the end.
    fn allows(&self, log: &[Arc<Record>]) -> bool {
        let begins =
            |with: u64| self.boundaries.binary_search(&with).is_ok() && log[..with as usize - 1] == self.records[..with as usize - 1];
        let end = log.len() as u64 + 1;
        let last = |abandoned: &Vec<Arc<Record>>| log.ends_with(abandoned) && begins(end - abandoned.len() as u64);
        begins(end) || self.abandoned.iter().any(last)
    }
}

/// How a history is to go wrong while it runs.
#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    transactions: u64,
    /// One in so many transactions is cut short by the death of the process.
    kills: u64,
    /// One in so many finds the disk full, or a sync that fails.
    faults: u64,
    /// The disk does not sync.
    lies: bool,
    /// SQLite is told not to sync.
    synchronous_off: bool,
}

fn options(vfs: &Vfs, plan: Plan) -> SqliteOptions {
    let mut options = small();
    options.hooks.vfs = Some(vfs.name);
    options.hooks.synchronous_off = plan.synchronous_off;
    options
}

fn end(store: &SqliteStore) -> u64 {
    store.shared.index().unwrap().next.pos
}

/// Random transactions; also flushes, trims, restarts and what `plan` says.
fn history(seed: u64, plan: Plan) -> History {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let vfs = Vfs::new();
    vfs.with(|recording| recording.lies = plan.lies);
    let open = || SqliteStore::open(&path, options(&vfs, plan));
    let promise = |store: &SqliteStore| {
        let end = end(store);
        vfs.with(|recording| recording.ops.push(Op::Promise { end }));
    };
    let mut random = Random(seed);
    let mut store = open().unwrap();
    let (mut records, mut boundaries): (Vec<Arc<Record>>, Vec<u64>) = (Vec::new(), vec![1]);
    let mut abandoned = Vec::new();
    for number in 0..plan.transactions {
        let mut fault = Fault::None;
        if plan.kills > 0 && random.below(plan.kills) == 0 {
            fault = Fault::DiesAfter(random.below(12));
        } else if plan.faults > 0 && random.below(plan.faults) == 0 {
            fault = if random.below(2) == 0 { Fault::Full } else { Fault::SyncFails };
        }
        vfs.with(|recording| recording.fault = fault);
        let mut written = Vec::new();
        let done = store.transact(&mut |transaction| {
            written.clear();
            let before = transaction_end(transaction, &records);
            for _ in 0..=random.below(4) {
                let (a, b) = (join(transaction, random.below(6) as u32), join(transaction, random.below(6) as u32));
                let id = direct(transaction, a.user, b.user);
                let length = random.below(900) as usize;
                send(transaction, a, id, 1000 + number, random.next(), &"x".repeat(length));
            }
            written.extend((before..).map_while(|pos| transaction.record(pos).ok()));
            Ok(())
        });
        match &done {
            Ok(()) => {
                records.append(&mut written);
                boundaries.push(records.len() as u64 + 1);
                promise(&store);
            }
            Err(StoreError::Unavailable(_)) if fault == Fault::Full => {}
            Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => assert_ne!(fault, Fault::None, "{done:?}"),
            Err(other) => panic!("{other}"),
        }
        match random.below(30) {
            0 => drop(store.flush()),
            1 => drop(store.trim(Retention { entries: 10, age: std::time::Duration::from_secs(1_000_000) }, Time(1000 + number))),
            2 => {
                drop(store);
                vfs.with(|recording| recording.fault = Fault::None);
                store = open().unwrap();
            }
            _ => {}
        }
        if matches!(fault, Fault::DiesAfter(_)) {
            vfs.with(|recording| recording.fault = Fault::Dead);
            drop(store);
            vfs.with(|recording| recording.fault = Fault::None);
            store = open().unwrap();
        }
        vfs.with(|recording| recording.fault = Fault::None);
        if done.is_err() {
            // It may have been committed after all: then whole. In the same process, what is unknown is settled by reading again.
            store.transact(&mut |_| Ok(())).unwrap();
            let now = end(&store);
            if now != records.len() as u64 + 1 {
                assert_eq!(now, (records.len() + written.len()) as u64 + 1, "a part of a transaction is there");
                records.append(&mut written);
                boundaries.push(now);
            } else if !written.is_empty() {
                abandoned.push(written);
            }
            promise(&store);
        }
        if random.below(10) == 0 {
            same(&store, &records);
        }
    }
    drop(store);
    History { ops: vfs.with(|recording| std::mem::take(&mut recording.ops)), records, boundaries, abandoned }
}

/// Position of the next record as a transaction sees it.
fn transaction_end(transaction: &mut dyn Transaction, records: &[Arc<Record>]) -> u64 {
    let next = records.len() as u64 + 1;
    assert!(transaction.record(next).is_err());
    next
}

/// Compares the log and the mailboxes with `records`.
fn same(store: &SqliteStore, records: &[Arc<Record>]) {
    assert_eq!(end(store), records.len() as u64 + 1);
    let mut mailboxes: BTreeMap<UserNo, Vec<(MailboxSeq, Arc<Record>)>> = BTreeMap::new();
    commit(store, |transaction| {
        for record in records {
            assert_eq!(transaction.record(record.pos).unwrap(), *record);
        }
    });
    for record in records {
        for (user, seq) in &record.recipients {
            mailboxes.entry(*user).or_default().push((*seq, record.clone()));
        }
    }
    for (user, expected) in mailboxes {
        let bounds = store.mailbox(user).unwrap();
        assert_eq!(bounds.head.0, expected.len() as u64);
        let found = store.mailbox_entries(user, MailboxSeq(0), usize::MAX, usize::MAX).unwrap();
        let found: Vec<_> = found.into_iter().map(|entry| (entry.seq, entry.record)).collect();
        assert_eq!(found, expected[bounds.floor.0 as usize..]);
    }
}

/// Opens what a power cut left, and says what is wrong with it.
fn examine(folder: &Path, disk: &Disk, history: &History) -> Result<(), String> {
    let path = folder.join("store.db");
    let options = small();
    let store = SqliteStore::open(&path, options).map_err(|error| format!("it does not open: {error}"))?;
    let end = end(&store);
    if end < disk.promised {
        return Err(format!("records {end} to {} were promised, and are gone", disk.promised - 1));
    }
    let mut log = Vec::new();
    commit(&store, |transaction| log = (1..end).map(|pos| transaction.record(pos).unwrap()).collect());
    if !history.allows(&log) {
        return Err(format!("the log, up to {end}, holds a part of a transaction, or something else than was written"));
    }
    let report = check(&path).map_err(|error| error.to_string())?;
    if !report.is_sound() {
        return Err(report.problems.join("; "));
    }
    same(&store, &log);
    // And it goes on.
    commit(&store, |transaction| {
        let a = join(transaction, 3);
        let id = direct(transaction, a.user, a.user);
        send(transaction, a, id, 9999, 1, "after the power cut");
    });
    store.flush().map_err(|error| error.to_string())?;
    let report = check(&path).map_err(|error| error.to_string())?;
    if report.is_sound() { Ok(()) } else { Err(report.problems.join("; ")) }
}

/// Cuts the power `cuts` times during a history. Returns what went wrong.
fn cuts(seed: u64, cuts: u64, plan: Plan) -> Vec<String> {
    let history = history(seed, plan);
    let mut random = Random(seed ^ 0xc0ffee);
    let mut places: Vec<u64> = (0..cuts).map(|_| random.below(history.ops.len() as u64 + 1)).collect();
    places.sort_unstable();
    let mut places = places.into_iter().peekable();
    let (mut disk, mut failures) = (Disk::default(), Vec::new());
    for place in 0..=history.ops.len() {
        while places.next_if_eq(&(place as u64)).is_some() {
            let folder = TempDir::new().unwrap();
            disk.cut(folder.path(), &mut random);
            let examined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| examine(folder.path(), &disk, &history)));
            let what = match examined {
                Ok(Ok(())) => continue,
                Ok(Err(what)) => what,
                Err(_) => "a comparison failed".to_owned(),
            };
            failures.push(format!("seed {seed}, cut before operation {place} of {}: {what}", history.ops.len()));
        }
        if let Some(op) = history.ops.get(place) {
            disk.step(op);
        }
    }
    failures
}

/// How many cuts in all.
fn wanted() -> u64 {
    std::env::var("WHIMBREL_POWERCUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(240)
}

fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures, of which: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}

#[test]
fn a_power_cut_takes_nothing_that_was_promised() {
    for seed in 0..(wanted() / 80).max(1) {
        none(&cuts(seed, 40, Plan { transactions: 60, ..Plan::default() }));
    }
}

#[test]
fn a_power_cut_after_kills_takes_nothing_that_was_served() {
    for seed in 1000..1000 + (wanted() / 80).max(1) {
        none(&cuts(seed, 40, Plan { transactions: 60, kills: 4, faults: 10, ..Plan::default() }));
    }
}

#[test]
fn the_cuts_notice_a_disk_that_does_not_sync() {
    let plan = Plan { transactions: 60, lies: true, ..Plan::default() };
    assert!(!cuts(1, 30, plan).is_empty());
    let plan = Plan { transactions: 60, synchronous_off: true, ..Plan::default() };
    assert!(!cuts(2, 30, plan).is_empty());
}

/// The process dies, again and again, at any operation; nothing that returned is missing, and the tail is made again.
#[test]
fn kills_at_any_moment_lose_nothing() {
    for seed in 0..6 {
        history(seed, Plan { transactions: 60, kills: 2, ..Plan::default() });
    }
}

#[test]
fn a_full_disk_or_a_failing_sync_is_survived() {
    for seed in 0..6 {
        history(seed, Plan { transactions: 60, faults: 3, ..Plan::default() });
    }
}

#[test]
fn a_full_disk_says_what_to_do_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let vfs = Vfs::new();
    let store = SqliteStore::open(&folder.path().join("store.db"), options(&vfs, Plan::default())).unwrap();
    let write = |name| {
        store.transact(&mut |transaction| {
            join(transaction, name);
            Ok(())
        })
    };
    write(1).unwrap();
    vfs.with(|recording: &mut Recording| recording.fault = Fault::Full);
    let Err(StoreError::Unavailable(why)) = write(2) else { panic!("there was room") };
    assert!(why.contains("disk is full") && why.contains("free some space"), "{why}");
    assert_eq!(store.user(&super::super::suite::user_id(2)).unwrap(), None);
    vfs.with(|recording| recording.fault = Fault::None);
    write(2).unwrap();
    vfs.with(|recording| recording.fault = Fault::SyncFails);
    assert!(matches!(write(3), Err(StoreError::Unknown(_))));
    write(3).unwrap();
    assert_eq!(end(&store), 4);
}
