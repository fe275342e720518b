//! Clients that never read, while others talk as fast as they can: what they cost the server, what the others notice, and whether those who
//! were stuck find everything when they read again.

use super::child::{Folder, ServerChild};
use super::histogram::Quantiles;
use super::load::{self, Measured, Pair};
use super::peer::{Came, Peer};
use super::{BenchError, idle, machine, names, progress};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use whimbrel_client::Transport;
use whimbrel_client::frames::Dialer;
use whimbrel_protocol::UserId;
use whimbrel_protocol::frame::{ClientFrame, EventBody, Target};

/// Bytes of text in each message to who is stuck.
const TEXT_BYTES: usize = 32 * 1024;
/// Who write to them.
const WRITERS: usize = 8;
/// Commands that a writer has under way: with texts of this length more would only fill the queue.
const UNDER_WAY: usize = 16;
/// Pairs that talk as fast as they can.
const PAIRS: usize = 16;
/// How long they talk at a time while the others are written to.
const TURN_S: u64 = 2;
/// Clients that read again at the same time.
const AT_ONCE: usize = 64;
/// How long the server has to come to rest.
const REST: Duration = Duration::from_secs(2);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Has clients that never read.
#[derive(Debug, Clone, Args)]
pub(super) struct Stuck {
    /// Clients that read nothing.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    readers: u32,
    /// What each of them is sent meanwhile, in KiB: more than a connection holds.
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    kib: u32,
    /// What they come over: `quic`, `webtransport` or `websocket`.
    #[arg(long, value_name = "T", default_value = "quic")]
    transport: Transport,
    /// How long others talk alone before that.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// What it was like.
#[derive(Debug, Serialize)]
pub(super) struct StuckReport {
    command: String,
    transport: String,
    readers: usize,
    /// Sent to each of them, and how long it took to send all.
    kib_each: usize,
    sent_s: f64,
    /// Resident memory of the server with all of them idle and the pairs at rest, at most while all was sent, and at rest after it.
    idle_kib: u64,
    most_kib: u64,
    stuck_kib: u64,
    /// The growth from the first to the last of these, for each.
    kib_a_stuck: f64,
    /// The pairs alone, and while the others were sent to.
    quiet: Talk,
    meanwhile: Talk,
    /// How long it took until all had read everything, and how many had to connect again for it.
    caught_up_s: f64,
    came_back: usize,
    pinning: String,
}

/// How it was to talk.
#[derive(Debug, Serialize)]
struct Talk {
    messages_a_second: f64,
    delivered: Quantiles,
}

impl Talk {
    fn of(measured: &Measured) -> Self {
        Self { messages_a_second: measured.messages as f64 / measured.took.as_secs_f64(), delivered: measured.delivered.quantiles() }
    }
}

impl fmt::Display for StuckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} clients over {} that read nothing, {}", self.readers, self.transport, self.pinning)?;
        writeln!(f, "sent to each                 {:>8} KiB, to all in {:.1} s", self.kib_each, self.sent_s)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        let [idle, most, stuck] = [self.idle_kib, self.most_kib, self.stuck_kib].map(mib);
        writeln!(
            f,
            "memory of the server         {idle:>8.0} MiB before, {most:.0} at most, {stuck:.0} after: {:.0} KiB for each",
            self.kib_a_stuck
        )?;
        for (name, talk) in [("the others, alone", &self.quiet), ("the others, meanwhile", &self.meanwhile)] {
            let (rate, times) = (talk.messages_a_second, talk.delivered);
            writeln!(f, "{name:<28} {rate:>8.0} messages/s, p50 {:.1} ms, p99 {:.1} ms", times.p50_ms, times.p99_ms)?;
        }
        writeln!(
            f,
            "all had caught up after      {:>8.1} s ({} had to connect again), nothing lost, doubled or out of order",
            self.caught_up_s, self.came_back
        )
    }
}

impl Stuck {
    /// Does it with a server of its own.
    pub async fn run(&self) -> Result<StuckReport, BenchError> {
        let readers = (self.readers as usize).min(machine::connections_max());
        let each = (self.kib as usize * 1024).div_ceil(TEXT_BYTES);
        let folder = Folder::new()?;
        let (cpu, pinning) = machine::apart();
        let server = ServerChild::start(folder.path(), "stuck", cpu)?;
        let dialer = Dialer::new(&server.url, self.transport, None).await?;
        let tag = format!("{:08x}", rand::random::<u32>());
        progress(&format!("{readers} clients come"));
        let mut pairs = load::connect(&dialer, PAIRS, &tag).await?;
        let stuck = idle::open(&dialer, readers, &tag, "stuck").await?;
        progress(&format!("{PAIRS} pairs talk, for {} s", self.seconds));
        let quiet;
        (pairs, quiet) = load::run(pairs, self.seconds, None, load::Framing::Stream).await?;
        sleep(REST).await;
        let memory = || machine::resident_kib(server.id()).ok_or_else(|| BenchError::Failed("the server's memory cannot be read".into()));
        let idle_kib = memory()?;
        progress(&format!("each is sent {} KiB, and reads nothing", each * TEXT_BYTES / 1024));
        let most = Arc::new(AtomicU64::new(idle_kib));
        let watching = tokio::spawn(watch(server.id(), Arc::clone(&most)));
        let (begun, users) = (Instant::now(), stuck.iter().map(|peer| peer.welcome.user.clone()).collect());
        let mut writing = write(&dialer, users, each, &tag)?;
        let mut meanwhile: Option<Measured> = None;
        while !writing.is_empty() {
            let measured;
            (pairs, measured) = load::run(pairs, TURN_S, None, load::Framing::Stream).await?;
            match &mut meanwhile {
                None => meanwhile = Some(measured),
                Some(all) => all.add(&measured),
            }
            while let Some(done) = writing.try_join_next() {
                done.map_err(BenchError::from_panic)??;
            }
            overdue(begun)?;
        }
        let sent_s = begun.elapsed().as_secs_f64();
        sleep(REST).await;
        watching.abort();
        let stuck_kib = memory()?;
        progress("they read");
        let begun = Instant::now();
        let came_back = read(&dialer, stuck, each).await?;
        let caught_up_s = begun.elapsed().as_secs_f64();
        close(pairs).await;
        let meanwhile = meanwhile.ok_or_else(|| BenchError::Failed("nothing was sent to anybody".into()))?;
        Ok(StuckReport {
            command: super::command_line(),
            transport: format!("{:?}", self.transport).to_lowercase(),
            readers,
            kib_each: each * TEXT_BYTES / 1024,
            sent_s,
            idle_kib,
            most_kib: most.load(Ordering::Relaxed),
            stuck_kib,
            kib_a_stuck: stuck_kib.saturating_sub(idle_kib) as f64 / readers.max(1) as f64,
            quiet: Talk::of(&quiet),
            meanwhile: Talk::of(&meanwhile),
            caught_up_s,
            came_back,
            pinning,
        })
    }
}

fn overdue(begun: Instant) -> Result<(), BenchError> {
    if begun.elapsed() < PATIENCE { Ok(()) } else { Err(BenchError::Failed(format!("it was not over after {} s", PATIENCE.as_secs()))) }
}

async fn watch(process: u32, most: Arc<AtomicU64>) {
    loop {
        most.fetch_max(machine::resident_kib(process).unwrap_or(0), Ordering::Relaxed);
        sleep(LOOK).await;
    }
}

async fn close(pairs: Vec<Pair>) {
    let mut closing: JoinSet<()> = pairs.into_iter().map(Pair::close).collect();
    while closing.join_next().await.is_some() {}
}

type Writing = JoinSet<Result<(), BenchError>>;

/// Sends `each` messages to each of them, one to each in turn.
fn write(dialer: &Dialer, users: Vec<UserId>, each: usize, tag: &str) -> Result<Writing, BenchError> {
    let mut writing = Writing::new();
    for (number, users) in users.chunks(users.len().div_ceil(WRITERS).max(1)).enumerate() {
        let (dialer, name, users) = (dialer.clone(), names(tag, "writer", number)?, users.to_vec());
        writing.spawn(async move {
            let mut peer = Peer::enter(&dialer, &name).await?;
            let (mut sent, mut applied, begun) = (0_u64, 0, Instant::now());
            let mut todo = 0..each * users.len();
            loop {
                while sent < applied + UNDER_WAY as u64
                    && let Some(next) = todo.next()
                    && let (number, Some(user)) = (next / users.len(), users.get(next % users.len()))
                {
                    sent += 1;
                    peer.push(&ClientFrame::Command(load::command(&peer, sent, Target::User(user.clone()), text(number))))?;
                }
                if applied == sent {
                    break;
                }
                let take = |came| {
                    if let Came::Applied(cseq) = came {
                        applied = cseq;
                    }
                    Ok(())
                };
                peer.turn(Instant::now() + REST, take).await?;
                overdue(begun)?;
            }
            peer.close().await;
            Ok(())
        });
    }
    Ok(writing)
}

/// All of them read, until each has everything, in order and once. Returns how many had lost their connection meanwhile.
async fn read(dialer: &Dialer, stuck: Vec<Peer>, each: usize) -> Result<usize, BenchError> {
    let (mut reading, mut came_back) = (JoinSet::new(), 0);
    let shared = dialer.clone().with_one_socket()?;
    let mut waiting = stuck.into_iter();
    loop {
        while reading.len() < AT_ONCE
            && let Some(peer) = waiting.next()
        {
            reading.spawn(catch_up(shared.clone(), peer, each));
        }
        let Some(done) = reading.join_next().await else { return Ok(came_back) };
        came_back += usize::from(done.map_err(BenchError::from_panic)??);
    }
}

/// Reads `each` messages; returns whether a new connection was needed for it.
async fn catch_up(dialer: Dialer, mut peer: Peer, each: usize) -> Result<bool, BenchError> {
    let (mut next, mut came_back, begun) = (0, false, Instant::now());
    while next < each {
        let mut wrong = None;
        let mut take = |came| {
            let Came::Event(event) = came else { return Ok(()) };
            let EventBody::Message(message) = event.body else { return Ok(()) };
            if wrong.is_none() {
                wrong = fault(next, &message.content.text);
            }
            next += 1;
            Ok(())
        };
        let turned = peer.turn(Instant::now() + REST, &mut take).await;
        if let Some(wrong) = wrong {
            return Err(BenchError::Failed(wrong));
        }
        // The server gives up who does not answer it for long; what was on its way is lost with the connection, and comes again.
        if let Err(why) = turned {
            if came_back {
                return Err(why);
            }
            came_back = true;
            peer = peer.come_back(&dialer).await?;
        }
        overdue(begun)?;
    }
    peer.close().await;
    Ok(came_back)
}

/// The text of a reader's message with this number.
fn text(number: usize) -> String {
    format!("{:.<TEXT_BYTES$}", format_args!("{number} ").to_string())
}

/// What is wrong with a text that comes where the message with this number is due.
fn fault(due: usize, came: &str) -> Option<String> {
    (came != text(due))
        .then(|| format!("message {due} was due, and {:?} of {} bytes came", came.chars().take(20).collect::<String>(), came.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_doubled_or_changed_is_noticed() {
        assert_eq!(fault(7, &text(7)), None);
        for came in [text(8), text(6), text(7).replacen('.', ",", 1), text(7)[..TEXT_BYTES - 1].into(), String::new()] {
            assert!(fault(7, &came).is_some_and(|why| why.contains("message 7 was due")), "{}", came.len());
        }
    }
}
