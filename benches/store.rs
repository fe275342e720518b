//! How fast the embedded store is, on the disk of the temporary folder (or of `WHIMBREL_BENCH_DIR`). About a minute.
//!
//! `cargo bench --bench store` prints, for direct messages of 100 bytes among 10,000 users in 20,000 conversations at random:
//! durable messages a second in batches of 512, 64 and 1; the same to groups of 500; how long a start takes with 1,000,000 messages,
//! after the writing process died without a word and after a flush; and reads a second. `cargo bench --bench store -- 200000` stores
//! so many messages instead.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, exit};
use std::time::{Duration, Instant};
use whimbrel::store::sqlite::{SqliteOptions, SqliteStore, check};
use whimbrel::store::{DeviceKey, Origin, RecordBody, Store, Transaction, UserNo};
use whimbrel_protocol::frame::{Content, ConversationKind, Direction};
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, Incarnation, MailboxSeq, Nonce, Time, UserId};

const USERS: u64 = 10_000;
const CONVERSATIONS: u64 = 20_000;

/// Nanoseconds that this thread has had a processor, where the system says: a busy machine makes the clock say little.
fn thread_cpu() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// How long this thread had a processor since `then`, for each of `count`.
fn busy(then: Option<u64>, count: u64, each: &str) -> String {
    let busy = thread_cpu().zip(then).map(|(now, then)| (now - then) as f64 / 1e3 / count as f64);
    busy.map_or(String::new(), |busy| format!(", {busy:.1} µs of a processor{each}"))
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Writer<'a> {
    store: &'a SqliteStore,
    random: Random,
    time: u64,
}

impl Writer<'_> {
    fn send(&mut self, transaction: &mut dyn Transaction, to: u64) {
        let conversation = transaction.conversation(ConversationId(to)).unwrap().expect("it was begun");
        let from = conversation.members[self.random.below(conversation.members.len() as u64) as usize].user;
        let device = transaction.device(DeviceKey { user: from, slot: 0 }).unwrap().expect("it joined");
        self.time += 1;
        let nonce = Nonce(self.time.to_be_bytes());
        let origin = Origin { device: device.key, incarnation: device.incarnation, cseq: device.applied.next(), nonce };
        let content = Content::text("m".repeat(100));
        let members: Vec<_> = conversation.members.iter().map(|member| member.user).collect();
        let body = RecordBody::Message { conversation: conversation.id, seq: conversation.head.next(), origin, content };
        transaction.append(Time(self.time), body, &members).unwrap();
    }

    /// Sends `messages` in batches, and prints how that went.
    fn measure(&mut self, what: &str, messages: u64, batch: u64, longest: Duration, conversations: std::ops::Range<u64>) {
        let (begin, cpu, mut sent, mut took) = (Instant::now(), thread_cpu(), 0, Vec::new());
        while sent < messages && begin.elapsed() < longest {
            let began = Instant::now();
            let store = self.store;
            store
                .transact(&mut |transaction| {
                    for _ in 0..batch.min(messages - sent) {
                        let to = conversations.start + self.random.below(conversations.end - conversations.start);
                        self.send(transaction, to);
                    }
                    Ok(())
                })
                .unwrap();
            sent += batch.min(messages - sent);
            took.push(began.elapsed());
        }
        let seconds = begin.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
        let rate = sent as f64 / seconds;
        let cpu = busy(cpu, sent, " each");
        println!("{what:<20}{rate:>9.0} messages/s   {sent} in batches of {batch}: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.1} ms{cpu}");
    }
}

/// Writes, and ends as a crash does.
fn write(path: &Path, messages: u64) -> ! {
    let store = SqliteStore::open(path, SqliteOptions::default()).unwrap();
    let mut writer = Writer { store: &store, random: Random(1), time: 1_000_000 };
    for some in (0..USERS).collect::<Vec<_>>().chunks(1000) {
        store
            .transact(&mut |transaction| {
                for name in some {
                    let user = transaction.user(&UserId::new(&format!("user-{name}")).unwrap())?;
                    let (device, name) = (DeviceKey { user, slot: 0 }, DeviceId::new("phone").unwrap());
                    transaction.append(Time(1), RecordBody::Outbox { device, name, incarnation: Incarnation(1) }, &[])?;
                }
                Ok(())
            })
            .unwrap();
    }
    let mut begun = 0;
    while begun < CONVERSATIONS {
        store
            .transact(&mut |transaction| {
                for _ in 0..1000 {
                    let mut user = || UserNo(writer.random.below(USERS) as u32 + 1);
                    let (one, other) = (user(), user());
                    if one != other && transaction.direct(one, other)?.is_none() && begun < CONVERSATIONS {
                        let conversation = transaction.next_conversation()?;
                        let body = RecordBody::Started { conversation, kind: ConversationKind::Direct, members: vec![one, other] };
                        transaction.append(Time(1), body, &[one, other])?;
                        begun += 1;
                    }
                }
                Ok(())
            })
            .unwrap();
    }
    let longest = Duration::from_secs(8);
    let direct = 1..CONVERSATIONS + 1;
    writer.measure("direct, new store", messages / 5, 512, longest, direct.clone());
    writer.measure("direct", messages / 20, 64, longest, direct.clone());
    writer.measure("direct", messages / 500, 1, Duration::from_secs(4), direct.clone());
    let sent = messages / 5 + messages / 20 + messages / 500;
    writer.measure("direct, on and on", messages - sent, 512, Duration::from_secs(40), direct);

    let groups = CONVERSATIONS + 1..CONVERSATIONS + 101;
    store
        .transact(&mut |transaction| {
            for group in groups.clone() {
                let members: Vec<_> = (0..500).map(|member| UserNo(((group * 97 + member * 19) % USERS) as u32 + 1)).collect();
                let conversation = transaction.next_conversation()?;
                assert_eq!(conversation.0, group);
                let body = RecordBody::Started { conversation, kind: ConversationKind::Other(2), members: members.clone() };
                transaction.append(Time(1), body, &members)?;
            }
            Ok(())
        })
        .unwrap();
    writer.measure("groups of 500", 20_000, 64, Duration::from_secs(4), groups);
    // Back to the usual tail, as a running server has it.
    writer.measure("direct, after that", 60_000, 512, longest, 1..CONVERSATIONS + 1);
    std::process::abort();
}

fn start(path: &Path, what: &str) -> SqliteStore {
    let (began, cpu) = (Instant::now(), thread_cpu());
    let store = SqliteStore::open(path, SqliteOptions::default()).unwrap();
    println!("{what:<20}{:>9.0} ms{}", began.elapsed().as_secs_f64() * 1e3, busy(cpu, 1, ""));
    store
}

fn reads(what: &str, longest: Duration, mut read: impl FnMut() -> usize) {
    let (began, cpu, mut count, mut rows) = (Instant::now(), thread_cpu(), 0_u32, 0);
    while began.elapsed() < longest {
        rows += read();
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    let rows = rows / count as usize;
    println!("{what:<20}{rate:>9.0} reads/s of {rows} rows{}", busy(cpu, count.into(), " each"));
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("--write") {
        let (path, messages) = (arguments.next().unwrap(), arguments.next().unwrap());
        write(Path::new(&path), messages.parse().unwrap());
    }
    let messages = match first.as_deref().unwrap_or("1000000").parse::<u64>() {
        Ok(messages) => messages.max(1000),
        Err(_) => {
            eprintln!("usage: store [messages]");
            exit(2);
        }
    };
    let folder = match std::env::var_os("WHIMBREL_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.unwrap();
    let path = folder.path().join("store.db");
    let written = Command::new(std::env::current_exe().unwrap()).arg("--write").arg(&path).arg(messages.to_string()).status().unwrap();
    assert!(written.code().is_none_or(|code| code != 2), "the writing process ended with {written}");

    let size = |suffix: &str| std::fs::metadata(folder.path().join(format!("store.db{suffix}"))).map_or(0, |file| file.len()) >> 20;
    println!("file {} MiB, write-ahead log {} MiB", size(""), size("-wal"));
    let store = start(&path, "start after a crash");
    drop(store);
    let store = start(&path, "start again");
    let mut random = Random(7);
    let second = Duration::from_secs(2);
    reads("resume, anywhere", second, || {
        let user = UserNo(random.below(USERS) as u32 + 1);
        let head = store.mailbox(user).unwrap().head.0;
        let after = MailboxSeq(random.below(head.saturating_sub(100).max(1)));
        store.mailbox_entries(user, after, 100, usize::MAX).unwrap().len()
    });
    reads("resume, the last 10", second, || {
        let user = UserNo(random.below(USERS) as u32 + 1);
        let head = store.mailbox(user).unwrap().head.0;
        store.mailbox_entries(user, MailboxSeq(head.saturating_sub(10)), 100, usize::MAX).unwrap().len()
    });
    reads("history, newest 50", second, || {
        let id = ConversationId(random.below(CONVERSATIONS) + 1);
        store.conversation_entries(id, ConversationSeq(0), Direction::Backwards, 50, usize::MAX).unwrap().len()
    });
    let began = Instant::now();
    store.flush().unwrap();
    println!("{:<20}{:>9.0} ms", "flush", began.elapsed().as_secs_f64() * 1e3);
    drop(store);
    drop(start(&path, "start after a flush"));
    let began = Instant::now();
    let report = check(&path).unwrap();
    let took = began.elapsed().as_secs_f64() * 1e3;
    println!("{:<20}{took:>9.0} ms, {} records, {} problems", "check", report.records, report.problems.len());
}
