//! `whimbrel bench`: load, with a report.

mod child;
mod histogram;
mod idle;
mod load;
mod machine;
mod moves;
mod pace;
mod peer;
mod phone;
mod report;
mod socketio;
mod storm;
mod stuck;

use super::exit;
use child::{Folder, ServerChild};
use clap::Args;
use load::{Framing, Measured};
use report::{LoadReport, Machine, Report, TransportReport};
use serde::Serialize;
use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use whimbrel_client::Transport;
use whimbrel_client::frames::{Dialer, FramesError};
use whimbrel_protocol::UserId;

/// The transports that are measured, and how they frame.
const TRANSPORTS: [(Transport, &str, Framing); 3] = [
    (Transport::WebSocket, "websocket", Framing::WebSocket),
    (Transport::WebTransport, "webtransport", Framing::Stream),
    (Transport::Quic, "quic", Framing::Stream),
];

/// How fast the server is on this machine, and how much it takes.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    /// A server on this machine; without it the bench starts one of its own, with an empty store, and stops it.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How long each load lasts.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Pairs of users: one writes, one reads.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pairs: u16,
    /// Idle sessions to measure memory with.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    idle: u32,
    /// Messages a second of the modest load, over all pairs.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// Load a server that is not on this machine: its users will notice.
    #[arg(long)]
    yes_load_this_server: bool,
}

/// Other things to measure, each on a server that the bench starts, with an empty store, and stops.
#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// A session that moves between WebSocket and QUIC again and again while two people talk.
    Moves(moves::Moves),
    /// Clients of Socket.IO that talk in pairs, beside another server if you say one.
    #[command(name = "socketio")]
    SocketIo(socketio::SocketIo),
    /// Thousands of clients who come back after a restart, while some of them talk.
    Storm(storm::Storm),
    /// Clients that never read, while others talk as fast as they can.
    Stuck(stuck::Stuck),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// The command line asks for something that is not done.
    #[error("{0}")]
    Usage(String),
    /// There is no connection, or no longer one.
    #[error(transparent)]
    Link(#[from] FramesError),
    /// The server broke a promise, or the system refused something.
    #[error("{0}")]
    Failed(String),
    /// It was interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    fn from_panic(why: tokio::task::JoinError) -> Self {
        Self::Failed(format!("a part of the load failed: {why}"))
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Link(_) => exit::NO_CONNECTION,
            Self::Failed(_) | Self::Interrupted => exit::REFUSED,
        }
    }
}

/// The name of a user of this run.
fn names(tag: &str, role: &str, number: usize) -> Result<UserId, BenchError> {
    UserId::new(&format!("bench-{tag}-{role}-{number}")).map_err(|why| BenchError::Failed(why.to_string()))
}

/// Runs the load and prints the report.
pub(super) async fn run(bench: Bench) -> ExitCode {
    match &bench.what {
        None => print(run_or_stop(bench.report()).await, bench.json),
        Some(What::Moves(moves)) => print(run_or_stop(moves.run()).await, bench.json),
        Some(What::SocketIo(socketio)) => print(run_or_stop(socketio.run()).await, bench.json),
        Some(What::Storm(storm)) => print(run_or_stop(storm.run()).await, bench.json),
        Some(What::Stuck(stuck)) => print(run_or_stop(stuck.run()).await, bench.json),
    }
}

fn print(report: Result<impl Serialize + Display, BenchError>, json: bool) -> ExitCode {
    match report {
        Ok(report) if json => match serde_json::to_string_pretty(&report) {
            Ok(json) => super::say(&(json + "\n"), 0),
            Err(why) => {
                eprintln!("whimbrel: the report cannot be written: {why}");
                ExitCode::from(exit::REFUSED)
            }
        },
        Ok(report) => super::say(&report.to_string(), 0),
        Err(error) => {
            eprintln!("whimbrel: {error}");
            ExitCode::from(error.code())
        }
    }
}

/// A signal ends the run by dropping it: that also ends the server that it had started.
async fn run_or_stop<T>(run: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    let system = |why: std::io::Error| BenchError::Failed(format!("cannot listen for signals: {why}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    tokio::select! {
        report = run => report,
        _ = terminate.recv() => Err(BenchError::Interrupted),
        _ = interrupt.recv() => Err(BenchError::Interrupted),
    }
}

/// Where the servers come from.
enum Servers {
    /// Somebody's.
    Theirs(String),
    /// A new one for each measurement, so that none sees what another left in memory.
    Ours { folder: Folder, cpu: Option<usize> },
}

/// A server for one measurement.
struct Target {
    dialer: Dialer,
    child: Option<ServerChild>,
}

impl Servers {
    async fn target(&self, transport: Transport, name: &str) -> Result<Target, BenchError> {
        match self {
            Self::Theirs(url) => Ok(Target { dialer: Dialer::new(url, transport, None).await?, child: None }),
            Self::Ours { folder, cpu } => {
                let child = ServerChild::start(folder.path(), name, *cpu)?;
                Ok(Target { dialer: Dialer::new(&child.url, transport, None).await?, child: Some(child) })
            }
        }
    }
}

impl Bench {
    async fn report(&self) -> Result<Report, BenchError> {
        if let Some(url) = &self.url
            && !Dialer::is_loopback(url)
            && !self.yes_load_this_server
        {
            let why = format!(
                "{url} is not on this machine: this puts as much load on it as it takes (--yes-load-this-server does it all the same)"
            );
            return Err(BenchError::Usage(why));
        }
        let mut notes = Vec::new();
        let load_before = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_before = load_before.split(' ').take(3).collect::<Vec<_>>().join(" ");
        if cfg!(debug_assertions) {
            notes.push("a debug build: use --release for figures that mean something".to_owned());
        }
        let connections = machine::connections_max();
        let idle = connections.min(self.idle as usize);
        if idle < self.idle as usize {
            notes.push(format!("{idle} idle sessions instead of {}: the limit on open files allows no more", self.idle));
        }
        let pairs = usize::from(self.pairs).min(connections / 2);
        if pairs < usize::from(self.pairs) {
            notes.push(format!("{pairs} pairs instead of {}: the limit on open files allows no more", self.pairs));
        }
        let cpus = machine::cpus();
        let (servers, pinning, store) = self.servers()?;
        let mut transports = Vec::new();
        for (transport, name, framing) in TRANSPORTS {
            transports.push(self.transport(&servers, transport, name, framing, pairs, idle).await?);
        }
        let machine = Machine {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            cpus: cpus.len(),
            pinning,
            store,
            load_before,
            notes,
        };
        Ok(Report { command: command_line(), machine, pairs, seconds: self.seconds, transports })
    }

    /// The servers, how they and the load are pinned, and where they keep messages.
    fn servers(&self) -> Result<(Servers, String, String), BenchError> {
        if let Some(url) = &self.url {
            return Ok((Servers::Theirs(url.clone()), "not pinned".into(), format!("whatever {url} has")));
        }
        let folder = Folder::new()?;
        let store = format!("embedded (SQLite), new, on {}", machine::file_system(folder.path()));
        let (cpu, pinning) = machine::apart();
        let pinning = format!("the bench's own server: {pinning}");
        Ok((Servers::Ours { folder, cpu }, pinning, store))
    }

    async fn transport(
        &self,
        servers: &Servers,
        transport: Transport,
        name: &'static str,
        framing: Framing,
        pairs: usize,
        idle: usize,
    ) -> Result<TransportReport, BenchError> {
        // Users that no run before has had.
        let tag = format!("{:08x}", rand::random::<u32>());
        let target = servers.target(transport, &format!("load-{name}")).await?;
        progress(&format!("{name}: {pairs} pairs, {} messages a second, {} s", self.rate, self.seconds));
        let pairs = load::connect(&target.dialer, pairs, &tag).await?;
        let (pairs, modest, _) = self.load(pairs, &target, Some(self.rate), framing).await?;
        progress(&format!("{name}: as many messages as it takes, {} s", self.seconds));
        let (pairs, saturated, measured) = self.load(pairs, &target, None, framing).await?;
        for pair in pairs {
            pair.close().await;
        }
        drop(target);
        let target = servers.target(transport, &format!("idle-{name}")).await?;
        let idle = match &target.child {
            Some(child) if idle > 0 => {
                progress(&format!("{name}: {idle} idle sessions"));
                Some(idle::measure(&target.dialer, child, idle, &tag).await?)
            }
            _ => None,
        };
        Ok(TransportReport { transport: name, modest, saturated, wire: measured.wire, idle })
    }

    async fn load(
        &self,
        pairs: Vec<load::Pair>,
        target: &Target,
        rate: Option<u32>,
        framing: Framing,
    ) -> Result<(Vec<load::Pair>, LoadReport, Measured), BenchError> {
        let cpu = || (target.child.as_ref().and_then(|child| machine::cpu_time(child.id())), machine::cpu_time(std::process::id()));
        let used = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
        let before = cpu();
        let (pairs, measured) = load::run(pairs, self.seconds, rate, framing).await?;
        let after = cpu();
        let report = LoadReport::new(rate, &measured, used(before.0, after.0), used(before.1, after.1));
        Ok((pairs, report, measured))
    }
}

/// What was asked for.
fn command_line() -> String {
    std::iter::once("whimbrel".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}

/// Says on standard error what is being done: a run takes a minute.
fn progress(what: &str) {
    eprintln!("whimbrel bench: {what}");
}
