//! A restart under thousands of clients: how they come back, what it costs the server, and what those notice who are back already.

use super::child::{Folder, ServerChild};
use super::histogram::Quantiles;
use super::pace::Watch;
use super::phone::{Crowd, Entry, Phone, Talk};
use super::{BenchError, machine, names, progress};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_client::Transport;
use whimbrel_client::frames::{Dialer, Sink, Source};

/// Clients that connect at the same time at first.
const CONNECTING: usize = 64;
/// Clients that share a UDP socket.
const SHARING: usize = 500;
/// How long the server has to come to rest.
const REST: Duration = Duration::from_secs(2);
/// How long the quiet is that the storm is compared with.
const QUIET: Duration = Duration::from_secs(10);
/// How long the storm may last.
const PATIENCE: Duration = Duration::from_secs(180);

/// Restarts a server under many clients.
#[derive(Debug, Clone, Args)]
pub(super) struct Storm {
    /// Clients.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    clients: u32,
    /// What they come over: `quic`, `webtransport` or `websocket`.
    #[arg(long, value_name = "T", default_value = "quic")]
    transport: Transport,
    /// Pairs of clients who talk all the time, a message from each side every 50 ms; 0 to see what the storm takes alone.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=50))]
    pairs: u32,
    /// Kill the server instead of asking it to end: nobody is told when to come back.
    #[arg(long)]
    kill: bool,
}

/// What a storm was like.
#[derive(Debug, Serialize)]
pub(super) struct StormReport {
    command: String,
    transport: String,
    clients: usize,
    pairs: u32,
    /// Whether the server was killed, rather than asked to end with `SIGTERM`.
    killed: bool,
    /// From that until the server was ready again.
    restart_s: f64,
    /// From then until a client was welcomed that comes at once, whatever its slot.
    first_resume_ms: f64,
    /// From then until the first was welcomed that keeps to its slot, and until all were.
    first_back_s: f64,
    all_back_s: f64,
    /// The last slot, from the end's beginning.
    last_slot_s: f64,
    /// How long after its slot each client was welcomed.
    after_slot: Quantiles,
    /// Attempts that the server asked to come later, and that failed.
    put_off: usize,
    failures: usize,
    /// From a message's sending to its arrival, before the restart and during the storm, between clients who are back.
    quiet: Quantiles,
    storm: Quantiles,
    /// The same, of those on whose way the machine kept its pace.
    after_slot_steady: Quantiles,
    quiet_steady: Quantiles,
    storm_steady: Quantiles,
    /// The part of the quiet and of the storm in which the machine was at half its pace or less, and as long again.
    quiet_slow: f64,
    storm_slow: f64,
    /// CPU time of the server in a second of the quiet before: that of the messages and of sessions that rest.
    quiet_cpu_s: Option<f64>,
    /// CPU time of the server from the end's beginning until all were back: of the one that ended and of the new one; of them the former; and of
    /// the load.
    server_cpu_s: Option<f64>,
    ending_cpu_s: Option<f64>,
    load_cpu_s: Option<f64>,
    pinning: String,
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} clients over {}, {} pairs talk, {}", self.clients, self.transport, self.pairs, self.pinning)?;
        let end = if self.killed { "SIGKILL" } else { "SIGTERM" };
        writeln!(f, "restart                      {:>8.2} s", self.restart_s)?;
        writeln!(f, "first resume, after ready    {:>8.1} ms (of a client that comes at once)", self.first_resume_ms)?;
        writeln!(f, "first back, after ready      {:>8.2} s", self.first_back_s)?;
        writeln!(f, "all back, after ready        {:>8.2} s (the last slot was {:.2} s after {})", self.all_back_s, self.last_slot_s, end)?;
        writeln!(f, "attempts put off, failed     {:>8}, {}", self.put_off, self.failures)?;
        let times = [
            ("back after the own slot", self.after_slot, self.after_slot_steady),
            ("message, quiet", self.quiet, self.quiet_steady),
            ("message, storm", self.storm, self.storm_steady),
        ];
        // With nobody who talks there are no messages.
        let told = if self.pairs == 0 { 1 } else { times.len() };
        for (name, all, steady) in times.into_iter().take(told) {
            for (name, times) in [(name, all), ("  at the machine's pace", steady)] {
                writeln!(f, "{name:<28} p50 {:>7.1} ms, p99 {:>7.1} ms, max {:>7.1} ms", times.p50_ms, times.p99_ms, times.max_ms)?;
            }
        }
        let (quiet, storm) = (100.0 * self.quiet_slow, 100.0 * self.storm_slow);
        writeln!(f, "the machine was slow for     {quiet:>8.1} % of the quiet, {storm:.1} % of the storm")?;
        let cpu = |time: Option<f64>| time.map_or_else(|| "unknown".into(), |time| format!("{time:.2} s"));
        let messages = self.quiet_cpu_s.map(|a_second| a_second * self.all_back_s);
        let storm = self.server_cpu_s.zip(messages).map(|(all, messages)| all - messages);
        let (all, ending) = (cpu(self.server_cpu_s), cpu(self.ending_cpu_s));
        writeln!(f, "CPU time, server             {all}, about {} of it as in quiet for as long", cpu(messages))?;
        writeln!(f, "  of the storm               {}, {ending} of it of the server that ended", cpu(storm))?;
        writeln!(f, "CPU time, load               {}", cpu(self.load_cpu_s))
    }
}

impl Storm {
    /// Does it with a server of its own.
    pub async fn run(&self) -> Result<StormReport, BenchError> {
        let clients = (self.clients as usize).min(machine::connections_max());
        let folder = Folder::new()?;
        let (cpu, pinning) = machine::apart();
        let server = ServerChild::start(folder.path(), "storm", cpu)?;
        let dialer = Dialer::new(&server.url, self.transport, None).await?;
        let crowd = Arc::new(Crowd::new());
        progress(&format!("{clients} clients come"));
        let mut living = gather(&dialer, &crowd, clients, self.pairs as usize).await?;
        // Somebody who was here too, and whom nobody told when to come back.
        let mut early = Phone::new(Arc::new(Crowd::new()), dialer.returning(), names("early", "phone", 0)?, None);
        drop(early.enter().await?);
        progress(&format!("quiet, for {} s", QUIET.as_secs()));
        // Nobody should end; who does has a reason.
        let ended = async |living: &mut Living| match living.join_next().await {
            Some(Ok(Err(why))) => why,
            Some(Err(why)) => BenchError::from_panic(why),
            _ => BenchError::Failed("a client left".into()),
        };
        sleep(REST).await;
        crowd.begin();
        let (watch, quiet_begun) = (Watch::start()?, Instant::now());
        let cpu_before = machine::cpu_time(server.id());
        tokio::select! {
            () = sleep(QUIET) => {}
            why = ended(&mut living) => return Err(why),
        }
        let since =
            |now: Option<Duration>, before: Option<Duration>| now.zip(before).map(|(now, before)| now.saturating_sub(before).as_secs_f64());
        let quiet_cpu_s = since(machine::cpu_time(server.id()), cpu_before).map(|seconds| seconds / QUIET.as_secs_f64());
        progress("the server is restarted");
        let load_before = machine::cpu_time(std::process::id());
        let (place, kill) = (folder.path().to_owned(), self.kill);
        let restarted = tokio::task::spawn_blocking(move || server.restart(kill, &place, "storm", cpu));
        let (server, ending) = restarted.await.map_err(BenchError::from_panic)??;
        let (ready, asked) = (Instant::now(), Instant::from_std(ending.asked));
        let _ = crowd.restarted.set(ready);
        let Entry::Welcomed(resumed) = early.enter().await? else {
            return Err(BenchError::Failed("the first client after the restart was put off".into()));
        };
        let first_resume_ms = ready.elapsed().as_secs_f64() * 1_000.0;
        drop(resumed);
        while crowd.back.load(Ordering::Relaxed) < clients {
            tokio::select! {
                () = sleep(Duration::from_millis(5)) => {}
                why = ended(&mut living) => return Err(why),
            }
            if ready.elapsed() > PATIENCE {
                let back = crowd.back.load(Ordering::Relaxed);
                return Err(BenchError::Failed(format!("after {} s {back} of {clients} clients are back", PATIENCE.as_secs())));
            }
        }
        let ending_cpu_s = ending.cpu_time.map(|time| time.as_secs_f64());
        let server_cpu_s = machine::cpu_time(server.id()).zip(ending_cpu_s).map(|(time, ending)| time.as_secs_f64() + ending);
        let load_cpu_s = since(machine::cpu_time(std::process::id()), load_before);
        living.abort_all();
        let slow = watch.end()?;
        let quiet_slow = slow.part(quiet_begun.into_std(), (quiet_begun + QUIET).into_std());
        let storm_slow = slow.part(ready.into_std(), Instant::now().into_std());
        let found = crowd.found();
        let (after_slot, after_slot_steady) = found.after_slot.quantiles(&slow);
        let (quiet, quiet_steady) = found.quiet.quantiles(&slow);
        let (storm, storm_steady) = found.storm.quantiles(&slow);
        let until = |from: Instant, at: Option<Instant>| at.map_or(0.0, |at| at.saturating_duration_since(from).as_secs_f64());
        Ok(StormReport {
            command: super::command_line(),
            transport: format!("{:?}", self.transport).to_lowercase(),
            clients,
            pairs: self.pairs,
            killed: self.kill,
            restart_s: ready.duration_since(asked).as_secs_f64(),
            first_resume_ms,
            first_back_s: until(ready, found.first_back),
            all_back_s: until(ready, found.last_back),
            last_slot_s: until(asked, found.last_slot),
            after_slot,
            after_slot_steady,
            put_off: crowd.put_off.load(Ordering::Relaxed),
            failures: crowd.failures.load(Ordering::Relaxed),
            quiet,
            storm,
            quiet_steady,
            storm_steady,
            quiet_slow,
            storm_slow,
            quiet_cpu_s,
            server_cpu_s,
            ending_cpu_s,
            load_cpu_s,
            pinning,
        })
    }
}

type Living = JoinSet<Result<(), BenchError>>;

/// Brings all clients; the first of them talk, in so many pairs.
async fn gather(dialer: &Dialer, crowd: &Arc<Crowd>, clients: usize, pairs: usize) -> Result<Living, BenchError> {
    let tag = format!("{:08x}", rand::random::<u32>());
    let here: Vec<Arc<AtomicBool>> = (0..2 * pairs).map(|_| Arc::default()).collect();
    let mut coming = JoinSet::new();
    let mut living = Living::new();
    let mut shared = dialer.clone();
    for number in 0..clients {
        if number % SHARING == 0 {
            shared = dialer.clone().with_one_socket()?;
        }
        if coming.len() >= CONNECTING
            && let Some(came) = coming.join_next().await
        {
            live(&mut living, came.map_err(BenchError::from_panic)??);
        }
        // The neighbour: of 0 it is 1, of 1 it is 0.
        let talk = match (here.get(number), here.get(number ^ 1)) {
            (Some(this), Some(other)) => {
                Some(Talk { to: names(&tag, "phone", number ^ 1)?, this: Arc::clone(this), other: Arc::clone(other) })
            }
            _ => None,
        };
        let mut phone = Phone::new(Arc::clone(crowd), shared.returning(), names(&tag, "phone", number)?, talk);
        coming.spawn(async move {
            loop {
                match phone.enter().await? {
                    Entry::Welcomed(both) => return Ok::<_, BenchError>((phone, both)),
                    Entry::Later(at) => sleep_until(at).await,
                }
            }
        });
    }
    while let Some(came) = coming.join_next().await {
        live(&mut living, came.map_err(BenchError::from_panic)??);
    }
    Ok(living)
}

fn live(living: &mut Living, (phone, both): (Phone, Box<(Source, Sink)>)) {
    let (source, sink) = *both;
    living.spawn(phone.live(source, sink));
}
