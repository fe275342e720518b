//! What only this store has to prove.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::suite::{Ground, commit, direct, join, send, store_suite};
use super::super::{DeviceKey, RecordBody};
use super::*;
use std::time::Duration;
use tempfile::TempDir;

/// Everything that is bounded as small as it can be. No waiting for the disk: what that is for, the power cuts show.
pub(super) fn small() -> SqliteOptions {
    SqliteOptions {
        ring_bytes: 2_000,
        cache_bytes: 4_000,
        mmap_bytes: 0,
        readers: 2,
        sweep_entries: 40,
        hooks: Hooks { chunk_bytes: 8, checkpoint_pages: 60, vfs: None, synchronous_off: true },
    }
}

struct SqliteGround {
    directory: TempDir,
    options: SqliteOptions,
}

impl Ground for SqliteGround {
    type Store = SqliteStore;
    fn new(small: bool) -> (Self, SqliteStore) {
        let options = if small { self::small() } else { SqliteOptions::default() };
        let ground = Self { directory: TempDir::new().unwrap(), options };
        let store = SqliteStore::open(&ground.directory.path().join("store.db"), ground.options.clone()).unwrap();
        (ground, store)
    }
    fn reopen(&self, store: SqliteStore) -> SqliteStore {
        drop(store);
        let path = self.directory.path().join("store.db");
        let report = check(&path).unwrap();
        assert!(report.is_sound(), "{report:?}");
        SqliteStore::open(&path, self.options.clone()).unwrap()
    }
}

store_suite!(SqliteGround);

fn path(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("store.db")
}

/// Users 1 to `users` and what they wrote to each other.
fn fill(store: &SqliteStore, users: u32, messages: u64) {
    for number in 0..messages {
        commit(store, |transaction| {
            let (a, b) = (join(transaction, number as u32 % users), join(transaction, (number * 7 + 1) as u32 % users));
            let id = direct(transaction, a.user, b.user);
            send(transaction, a, id, 1000 + number, number, &format!("message {number}"));
        });
    }
}

/// A store with some of everything, closed: some of it in chunks, some not.
fn filled() -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&path(&folder), small()).unwrap();
    fill(&store, 5, 150);
    store.flush().unwrap();
    store.trim(Retention { entries: 20, age: Duration::from_secs(1_000_000) }, Time(2000)).unwrap();
    fill(&store, 5, 5);
    folder
}

fn sql(folder: &TempDir, statement: &str) -> usize {
    rusqlite::Connection::open(path(folder)).unwrap().execute(statement, []).unwrap()
}

#[test]
fn a_check_finds_planted_damage() {
    let folder = filled();
    let sound = check(&path(&folder)).unwrap();
    assert!(sound.is_sound() && sound.records > 150 && sound.users == 5 && sound.conversations > 3, "{sound:?}");
    for (damage, expected) in [
        ("DELETE FROM log WHERE pos = 40", "comes where 40 should be"),
        ("DELETE FROM log WHERE pos >= (SELECT value FROM meta WHERE name = 'tail') - 1", "the log ends"),
        ("UPDATE log SET kind = 99 WHERE pos = 40", "newer version"),
        ("UPDATE log SET body = x'00' WHERE pos = 40", "cannot be read"),
        ("UPDATE log SET recipients = x'' WHERE pos = 40", "after"),
        ("UPDATE log SET recipients = x'6301' WHERE pos = 40", "whom there is not"),
        ("DELETE FROM mailbox WHERE user = 2", "mailbox 2"),
        ("UPDATE mailbox SET first = first + 1 WHERE user = 2", "mailbox 2"),
        ("UPDATE mailbox SET floor = floor + 1 WHERE user = 2", "mailbox 2"),
        ("UPDATE mailbox SET positions = x'' WHERE user = 2", "mailbox 2"),
        ("INSERT INTO mailbox VALUES (77, 0, 1, x'01')", "which the log does not know"),
        ("DELETE FROM mailbox_chunk WHERE user = 2 AND first = (SELECT max(first) FROM mailbox_chunk WHERE user = 2)", "mailbox 2"),
        (
            "UPDATE mailbox_chunk SET positions = x'0102' WHERE user = 2 AND first = (SELECT max(first) FROM mailbox_chunk WHERE user = 2)",
            "mailbox 2",
        ),
        ("DELETE FROM conversation_chunk WHERE conversation = 1 AND first = 1", "conversation 1"),
        ("UPDATE conversation SET head = head + 1 WHERE conversation = 1", "conversation 1"),
        ("UPDATE conversation SET members = x'' WHERE conversation = 1", "conversation 1"),
        ("UPDATE conversation SET time = time + 100000 WHERE conversation = 1", "conversation 1"),
        ("DELETE FROM conversation WHERE conversation = 1", "conversation 1"),
        ("UPDATE device SET applied = applied + 1 WHERE device = 2 * 32", "user 2"),
        ("UPDATE device SET since = since + 1 WHERE device = 2 * 32", "user 2"),
        ("UPDATE device SET commands = x'' WHERE device = 2 * 32", "user 2"),
        ("DELETE FROM device WHERE device = 2 * 32", "user 2"),
        ("DELETE FROM direct WHERE conversation = 1", "cannot be found by its members"),
        ("UPDATE direct SET conversation = 2 WHERE conversation = 1", "that the log does not know"),
        ("DELETE FROM member WHERE conversation = 1", "is not listed"),
        ("INSERT INTO member VALUES (77, 1)", "that the log does not know"),
        ("UPDATE user SET id = '' WHERE user = 2", "user 2"),
        ("UPDATE meta SET value = 100000 WHERE name = 'tail'", "the log ends"),
    ] {
        let copy = TempDir::new().unwrap();
        std::fs::copy(path(&folder), path(&copy)).unwrap();
        assert_eq!(sql(&copy, damage).min(1), 1, "{damage}");
        let before = std::fs::read(path(&copy)).unwrap();
        let report = check(&path(&copy)).unwrap();
        assert!(report.problems.iter().any(|problem| problem.contains(expected)), "{damage}: {report:?}");
        assert_eq!(std::fs::read(path(&copy)).unwrap(), before, "a check changes nothing");
    }
    assert!(matches!(check(&folder.path().join("nothing.db")), Err(StoreError::Unavailable(_))));
}

const PAGE: usize = 4096;

/// Overwrites the header of a page of a closed store.
fn damage_page(folder: &TempDir, page: usize) {
    let mut bytes = std::fs::read(path(folder)).unwrap();
    bytes[page * PAGE..page * PAGE + 8].fill(0xff);
    std::fs::write(path(folder), bytes).unwrap();
}

/// A closed store, and the page with the record of message 148: a leaf of the log, neither its first nor its root.
fn filled_with_page() -> (TempDir, usize) {
    const LEAF: u8 = 13;
    let folder = filled();
    let bytes = std::fs::read(path(&folder)).unwrap();
    let holds = |page: &[u8]| page[0] == LEAF && page.windows(11).any(|words| words == b"message 148");
    let page = bytes.chunks(PAGE).position(holds).unwrap();
    (folder, page)
}

#[test]
fn a_check_goes_on_after_damage_of_the_file_itself() {
    let (folder, page) = filled_with_page();
    damage_page(&folder, page);
    let report = check(&path(&folder)).unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("the log cannot be read to its end")), "{report:?}");
    assert!(report.records > 0 && report.users == 5 && report.conversations > 0, "{report:?}");
    assert!(report.problems.len() < 10, "what was not read is not called wrong: {report:?}");

    // Wherever it is: there is a report, and only of a page that nothing uses it may say that all is well.
    let folder = filled();
    let connection = rusqlite::Connection::open(path(&folder)).unwrap();
    let unused: u32 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap();
    drop(connection);
    let pages = std::fs::metadata(path(&folder)).unwrap().len() as usize / PAGE;
    let mut unnoticed = 0;
    for page in 0..pages {
        let copy = TempDir::new().unwrap();
        std::fs::copy(path(&folder), path(&copy)).unwrap();
        damage_page(&copy, page);
        unnoticed += u32::from(check(&path(&copy)).unwrap().is_sound());
    }
    assert!(pages > 10 && unnoticed <= unused, "{unnoticed} of {pages} pages, {unused} of them unused");
}

#[test]
fn a_damaged_store_is_not_compacted_and_its_copy_is_known_to_be_damaged() {
    let (folder, page) = filled_with_page();
    damage_page(&folder, page);
    let before = std::fs::read(path(&folder)).unwrap();
    let Err(StoreError::Damaged(why)) = compact(&path(&folder)) else { panic!("it was compacted") };
    assert!(why.contains("nothing was changed"), "{why}");
    assert_eq!(std::fs::read(path(&folder)).unwrap(), before);
    let to = folder.path().join("copy.db");
    let report = backup(&path(&folder), &to).unwrap();
    assert!(!report.is_sound());
    assert_eq!(check(&to).unwrap(), report, "the copy is kept");
    // What SQLite itself would copy without a word.
    let folder = filled();
    sql(&folder, "DELETE FROM log WHERE pos = 40");
    assert!(matches!(compact(&path(&folder)), Err(StoreError::Damaged(_))));
}

#[cfg(unix)]
#[test]
fn however_a_store_is_reached_it_has_one_writer() {
    use std::os::unix::fs::symlink;
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let links = [folder.path().join("link.db"), elsewhere.path().join("far.db"), elsewhere.path().join("folder/store.db")];
    symlink("store.db", &links[0]).unwrap();
    symlink(&links[0], &links[1]).unwrap();
    symlink(folder.path(), elsewhere.path().join("folder")).unwrap();
    // First through a link to a file that is not there yet, then by its name.
    let store = SqliteStore::open(&links[1], small()).unwrap();
    fill(&store, 2, 3);
    for way in links.iter().chain([&path(&folder)]) {
        let Err(StoreError::Unavailable(why)) = SqliteStore::open(way, small()) else { panic!("two writers: {}", way.display()) };
        assert!(why.contains("open in another process"), "{why}");
        let Err(StoreError::Unavailable(why)) = compact(way) else { panic!("it was compacted: {}", way.display()) };
        assert!(why.contains("open in another process"), "{why}");
        assert_eq!(check(way).unwrap(), check(&path(&folder)).unwrap());
    }
    drop(store);
    SqliteStore::open(&path(&folder), small()).unwrap();
    symlink("round.db", folder.path().join("round.db")).unwrap();
    let why = SqliteStore::open(&folder.path().join("round.db"), small()).unwrap_err().to_string();
    assert!(why.contains("too many symlinks"), "{why}");
}

#[test]
fn a_check_and_a_backup_work_while_the_server_writes() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&path(&folder), small()).unwrap();
    fill(&store, 5, 20);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                fill(&store, 7, 30);
            }
        });
        for number in 0..5 {
            let report = check(&path(&folder)).unwrap();
            assert!(report.is_sound(), "{report:?}");
            let to = folder.path().join(format!("backup-{number}.db"));
            backup(&path(&folder), &to).unwrap();
            let report = check(&to).unwrap();
            assert!(report.is_sound() && report.records > 20, "{report:?}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_backup_has_a_life_of_its_own_and_overwrites_nothing() {
    let folder = filled();
    let epoch = SqliteStore::open(&path(&folder), small()).unwrap().epoch();
    let to = folder.path().join("backup.db");
    assert!(backup(&path(&folder), &to).unwrap().is_sound());
    let Err(StoreError::Unavailable(why)) = backup(&path(&folder), &to) else { panic!("it was overwritten") };
    assert!(why.contains("is there already"), "{why}");
    let names = |folder: &TempDir| -> Vec<String> {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("backup")).collect()
    };
    assert_eq!(names(&folder), ["backup.db"]);
    // Restored in place: the same file, as far as anybody can tell.
    let bytes = std::fs::read(&to).unwrap();
    std::fs::write(path(&folder), bytes).unwrap();
    let restored = SqliteStore::open(&path(&folder), small()).unwrap();
    assert!(restored.epoch() > epoch);
    let raised = restored.epoch();
    drop(restored);
    assert_eq!(SqliteStore::open(&path(&folder), small()).unwrap().epoch(), raised, "once, not each time");
    assert!(matches!(backup(&folder.path().join("nothing.db"), &folder.path().join("x.db")), Err(StoreError::Unavailable(_))));
}

#[cfg(unix)]
#[test]
fn copies_and_files_put_back_raise_the_epoch() {
    let folder = filled();
    let epoch = SqliteStore::open(&path(&folder), small()).unwrap().epoch();
    // A plain copy elsewhere.
    let copy = TempDir::new().unwrap();
    std::fs::copy(path(&folder), path(&copy)).unwrap();
    assert!(SqliteStore::open(&path(&copy), small()).unwrap().epoch() > epoch);
    // An older copy, written over the file: the same inode. The file beside it knows that the log had got further.
    let old = std::fs::read(path(&folder)).unwrap();
    let store = SqliteStore::open(&path(&folder), small()).unwrap();
    assert_eq!(store.epoch(), epoch);
    fill(&store, 3, 3);
    store.flush().unwrap();
    drop(store);
    std::fs::write(path(&folder), old).unwrap();
    assert!(SqliteStore::open(&path(&folder), small()).unwrap().epoch() > epoch);
}

/// What is logged while `work` runs.
fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_log_that_became_shorter_is_told() {
    let folder = filled();
    let open = || drop(SqliteStore::open(&path(&folder), small()).unwrap());
    assert_eq!(logged(open), "");
    let records = check(&path(&folder)).unwrap().records;
    std::fs::write(path(&folder), b"").unwrap();
    let told = logged(open);
    for part in ["WARN", "ends before record 1,", &format!("got to {}", records + 1), "restored", "nobody restored anything"] {
        assert!(told.contains(part), "no `{part}` in: {told}");
    }
    assert_eq!(logged(open), "", "once");
}

#[test]
fn a_store_has_one_writer() {
    let folder = filled();
    let store = SqliteStore::open(&path(&folder), small()).unwrap();
    let Err(StoreError::Unavailable(why)) = SqliteStore::open(&path(&folder), small()) else { panic!("two writers") };
    assert!(why.contains("open in another process"), "{why}");
    assert!(compact(&path(&folder)).is_err());
    drop(store);
    SqliteStore::open(&path(&folder), small()).unwrap();
}

#[test]
fn what_is_not_ours_or_newer_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    sql(&folder, "CREATE TABLE other (x)");
    let why = SqliteStore::open(&path(&folder), small()).unwrap_err().to_string();
    assert!(why.contains("not a store of Whimbrel"), "{why}");
    sql(&folder, "DROP TABLE other");
    sql(&folder, "CREATE TABLE refinery_schema_history (version INT, name TEXT, applied_on TEXT, checksum TEXT)");
    sql(&folder, "INSERT INTO refinery_schema_history VALUES (1, 'theirs', '2040-01-01T00:00:00Z', '1')");
    let why = SqliteStore::open(&path(&folder), small()).unwrap_err().to_string();
    assert!(why.contains("not a store of Whimbrel"), "{why}");
    let folder = TempDir::new().unwrap();
    std::fs::write(path(&folder), vec![b'x'; 10_000]).unwrap();
    assert!(matches!(SqliteStore::open(&path(&folder), small()), Err(StoreError::Damaged(_))));
    let folder = filled();
    sql(&folder, "INSERT INTO refinery_schema_history VALUES (999, 'later', '2040-01-01T00:00:00Z', '1')");
    for why in [SqliteStore::open(&path(&folder), small()).unwrap_err().to_string(), check(&path(&folder)).unwrap_err().to_string()] {
        assert!(why.contains("newer version of Whimbrel (schema 999"), "{why}");
    }
    let folder = filled();
    sql(&folder, "UPDATE log SET kind = 99 WHERE pos = (SELECT max(pos) FROM log)");
    let why = SqliteStore::open(&path(&folder), small()).unwrap_err();
    assert!(matches!(&why, StoreError::Damaged(why) if why.contains("newer version")), "{why}");
}

#[test]
fn a_store_of_the_first_schema_is_read_and_brought_up_to_date() {
    let folder = filled();
    sql(&folder, "ALTER TABLE device DROP COLUMN since");
    sql(&folder, "DROP TABLE position");
    sql(&folder, "DELETE FROM refinery_schema_history WHERE version > 1");
    let before = std::fs::read(path(&folder)).unwrap();
    for report in [check(&path(&folder)), backup(&path(&folder), &folder.path().join("backup.db"))].map(Result::unwrap) {
        assert!(report.is_sound() && report.records > 150, "{report:?}");
    }
    assert_eq!(std::fs::read(path(&folder)).unwrap(), before, "neither changes it");
    for file in [path(&folder), folder.path().join("backup.db")] {
        let store = SqliteStore::open(&file, small()).unwrap();
        fill(&store, 5, 50);
        commit(&store, |transaction| {
            let (user, name) = (transaction.user(&"user-1".parse().unwrap()).unwrap(), "another".parse().unwrap());
            let device = DeviceKey { user, slot: 0 };
            let known = transaction.device(device).unwrap().unwrap();
            let outbox = RecordBody::Outbox { device, name, incarnation: known.incarnation.next() };
            transaction.append(Time(9000), outbox, &[]).unwrap();
            let now = transaction.device(device).unwrap().unwrap();
            assert_eq!((now.former.clone(), now.recent.len()), (known.recent.clone(), 0));
        });
        store.flush().unwrap();
        drop(store);
        let report = check(&file).unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
    assert_eq!(sql(&folder, "UPDATE device SET commands = x'' WHERE device = 2 * 32"), 1);
    assert!(!check(&path(&folder)).unwrap().is_sound());
}

#[test]
fn compacting_gives_room_back() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&path(&folder), small()).unwrap();
    fill(&store, 5, 2000);
    store.flush().unwrap();
    store.trim(Retention { entries: 1, age: Duration::from_secs(1_000_000) }, Time(2000)).unwrap();
    drop(store);
    let compacted = compact(&path(&folder)).unwrap();
    assert!(compacted.bytes_after < compacted.bytes_before, "{compacted:?}");
    let report = check(&path(&folder)).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// However it is used, memory and the tail stay within their bounds, and what is recent is found without the disk.
#[test]
fn everything_is_bounded() {
    let folder = TempDir::new().unwrap();
    let options = SqliteOptions { cache_bytes: 40_000, ..small() };
    let store = SqliteStore::open(&path(&folder), options).unwrap();
    for round in 0..1500_u32 {
        commit(&store, |transaction| {
            let (a, b) = (join(transaction, round), join(transaction, round / 2));
            let id = direct(transaction, a.user, b.user);
            send(transaction, a, id, 1, u64::from(round), "hello");
        });
        let user = store.user(&super::super::suite::user_id(round)).unwrap().unwrap();
        let head = store.mailbox(user).unwrap().head;
        let recent = store.recent_entries(user, MailboxSeq(head.0 - 1), 9, usize::MAX).expect("it was written a moment ago");
        assert_eq!(recent.len(), 1);
        if round % 100 == 0 {
            store.flush().unwrap();
            assert!(store.recent_entries(user, MailboxSeq(head.0 - 1), 9, usize::MAX).is_some(), "a flush does not hide it");
        }
        let writer = store.writer();
        let index = store.shared.index().unwrap();
        // About seven entries a round, at 40 a sweep.
        assert!(index.next.pos - writer.sweep.tail < 80, "{} of {}", writer.sweep.tail, index.next.pos);
        assert!(index.slots() < 1024 + 400, "{} slots", index.slots());
    }
}

/// A tail that became too long is shortened at start, and not only by traffic.
#[test]
fn a_long_tail_does_not_stay() {
    let folder = TempDir::new().unwrap();
    let lazy = SqliteOptions { sweep_entries: 1_000_000, ..small() };
    let store = SqliteStore::open(&path(&folder), lazy).unwrap();
    fill(&store, 5, 100);
    assert_eq!(store.writer().sweep.tail, 1);
    drop(store);
    let store = SqliteStore::open(&path(&folder), small()).unwrap();
    let end = store.shared.index().unwrap().next.pos;
    assert_eq!(store.writer().sweep.tail, end);
    drop(store);
    assert!(check(&path(&folder)).unwrap().is_sound());
}

/// Every commit writes all that is dirty and drops what was written before: whoever looked at the rows first and at memory second
/// would miss entries.
#[test]
fn readers_miss_nothing_while_it_moves_from_memory_to_the_rows() {
    let folder = TempDir::new().unwrap();
    let mut options = SqliteOptions { sweep_entries: 1, readers: 4, ..small() };
    options.hooks.chunk_bytes = 200;
    let store = SqliteStore::open(&path(&folder), options).unwrap();
    let mut user = UserNo(0);
    commit(&store, |transaction| user = join(transaction, 1).user);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut head = 0_u64;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let entries = store.mailbox_entries(user, MailboxSeq(head.saturating_sub(30)), 1000, usize::MAX).unwrap();
                    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq.0).collect();
                    let expected: Vec<u64> = (head.saturating_sub(30) + 1..).take(seqs.len()).collect();
                    assert_eq!(seqs, expected);
                    assert!(seqs.last().copied().unwrap_or(0) >= head);
                    head = store.mailbox(user).unwrap().head.0;
                }
            });
        }
        for number in 0..1500_u64 {
            commit(&store, |transaction| {
                let a = join(transaction, 1);
                let id = direct(transaction, a.user, a.user);
                send(transaction, a, id, 1, number, "note");
            });
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_statement_is_planned_once_whatever_it_is_given() {
    let folder = filled();
    for access in [schema::Access::Write, schema::Access::Read] {
        let connection = schema::connect(&path(&folder), access, &small()).unwrap();
        let mut some = connection.prepare("SELECT conversation FROM member WHERE user = ?1 ORDER BY conversation LIMIT ?2").unwrap();
        for limit in 1..4 {
            some.query_row((1, limit), |row| row.get::<_, i64>(0)).unwrap();
        }
        assert_eq!(some.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }
}
