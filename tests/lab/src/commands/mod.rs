//! The commands: which trips to make, and what to say of them.

mod blackout;
mod fallback;
mod history;
mod idle;
mod journeys;
mod loss;
mod machine;
mod random;
mod switch;

use clap::{Args, Parser, Subcommand};
use machine::Machine;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use whimbrel_client::Transport;
use whimbrel_lab::report::{Report, time};
use whimbrel_lab::run::{Run, Trip, all};
use whimbrel_lab::{permitted, remove_own};

/// Mobile networks for a server and its clients: journeys through them, and what became of the messages.
#[derive(Debug, Parser)]
#[command(name = "whimbrel-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// The scripted journeys, over each transport.
    Journeys(journeys::Journeys),
    /// Wi-Fi (5 ms) to cellular (40 ms, 1 % lost each way), many times: how the gaps are distributed.
    Switch(switch::Switch),
    /// Blackouts of some lengths: how soon messages flow again.
    Blackout(blackout::Blackout),
    /// Networks without UDP: what a client that begins there loses over a plain WebSocket, and when it moves up.
    Fallback(fallback::Fallback),
    /// A narrow network on which much history is read while messages come: how long those take.
    History(history::History),
    /// A network of 80 ms that loses 10 % each way: latency and bytes of few and of many messages.
    Loss(loss::Loss),
    /// Phones that lie in pockets, suspended, with nothing to do: what an hour costs, beside other clients.
    Idle(idle::IdleHour),
    /// Journeys from seeds: a search for messages that are lost, doubled or out of order.
    Random(random::Random),
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The server's program. Unless given, the one beside this program, which is built first if this runs under cargo.
    #[arg(long, value_name = "PATH", env = "WHIMBREL_BIN")]
    server: Option<PathBuf>,
    /// Where the report goes. Unless given: `target/lab/COMMAND`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Of all chances; the same seed is the same journey, and the same chances for its packets.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Trips at once. They mostly wait; more than the machine carries makes the emulator late, which the report says.
    #[arg(long, value_name = "N", default_value_t = 4)]
    at_once: usize,
    /// Keep the devices' state in memory, not in folders as real devices do.
    #[arg(long)]
    memory: bool,
}

/// Whether the application tells the client of a change that its system noticed.
#[derive(Debug, Clone, Copy, Args)]
struct Reporting {
    /// Only with the application telling the client of changes of the network.
    #[arg(long, conflicts_with = "unreported")]
    reported: bool,
    /// Only without. Unless one of them is given: both.
    #[arg(long)]
    unreported: bool,
}

impl Reporting {
    fn all(self) -> Vec<bool> {
        match (self.reported, self.unreported) {
            (true, _) => vec![true],
            (_, true) => vec![false],
            _ => vec![true, false],
        }
    }
}

/// Somebody wants no more trips.
static ENOUGH: AtomicBool = AtomicBool::new(false);

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(why) = permitted() {
        eprintln!("whimbrel-lab: {why}");
        return ExitCode::FAILURE;
    }
    std::thread::spawn(watch_for_ctrl_c);
    let done = match cli.command {
        Commands::Journeys(command) => command.run(),
        Commands::Switch(command) => command.run(),
        Commands::Blackout(command) => command.run(),
        Commands::Fallback(command) => command.run(),
        Commands::History(command) => command.run(),
        Commands::Loss(command) => command.run(),
        Commands::Idle(command) => command.run(),
        Commands::Random(command) => command.run(),
    };
    remove_own();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("whimbrel-lab: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The first time no other trip begins, and what is there is reported; the second time everything ends at once. Networks and servers
/// end with this process by themselves.
fn watch_for_ctrl_c() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        for time in 0.. {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if time > 0 {
                remove_own();
                std::process::exit(130);
            }
            ENOUGH.store(true, Ordering::Relaxed);
            eprintln!("\nwhimbrel-lab: no other trip begins; the report follows when those under way have ended (Ctrl-C again: at once)");
        }
    });
}

/// Transports, as people name them.
fn transports(names: &[Transport], or: &[Transport]) -> Vec<Transport> {
    if names.is_empty() { or.to_vec() } else { names.to_vec() }
}

impl Common {
    /// The server's program.
    fn binary(&self) -> Result<PathBuf, String> {
        if let Some(path) = &self.server {
            return path.canonicalize().map_err(|why| format!("--server {}: {why}", path.display()));
        }
        if let Some(cargo) = std::env::var_os("CARGO") {
            eprintln!("whimbrel-lab: building the server");
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            let mut build = Command::new(cargo);
            build.args(["build", "--package", "whimbrel", "--bin", "whimbrel"]).current_dir(root);
            if !cfg!(debug_assertions) {
                build.arg("--release");
            }
            let built = build.status().map_err(|why| format!("cargo: {why}"))?;
            if !built.success() {
                return Err("the server cannot be built: see above".into());
            }
        }
        let beside = std::env::current_exe().map_err(|why| why.to_string())?.with_file_name("whimbrel");
        if beside.is_file() {
            Ok(beside)
        } else {
            Err(format!("there is no server at {}: build it (cargo build --release), or say where it is with --server", beside.display()))
        }
    }

    fn folder(&self, command: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("target/lab").join(command))
    }

    /// Makes all trips, tells how far it is, and returns the runs in the order of the trips.
    fn travel(&self, trips: &[Trip<'_>]) -> Result<Vec<Run>, String> {
        if trips.is_empty() {
            return Err("there is nothing to do: no run, no journey or no transport is left of what was asked for".into());
        }
        let (begun, count) = (Instant::now(), AtomicUsize::new(0));
        let mut runs: Vec<Option<Run>> = trips.iter().map(|_| None).collect();
        let mut failure = None;
        all(trips, self.at_once, &|| !ENOUGH.load(Ordering::Relaxed), |index, result| {
            let done = count.fetch_add(1, Ordering::Relaxed) + 1;
            match result {
                Ok(run) => {
                    eprintln!("{done:>4}/{} {}", trips.len(), progress(&run));
                    runs[index] = Some(run);
                }
                Err(why) => {
                    // The others would fail alike.
                    ENOUGH.store(true, Ordering::Relaxed);
                    failure = Some(format!("{}: {why}", trips[index].journey.name));
                }
            }
        });
        let count = count.into_inner();
        let trips = if count == 1 { "trip" } else { "trips" };
        eprintln!("whimbrel-lab: {count} {trips} in {}", time(begun.elapsed().as_secs_f64() * 1_000.0));
        failure.map_or_else(|| Ok(runs.into_iter().flatten().collect()), Err)
    }

    /// Writes the report and says where it is; an error if a promise was broken.
    fn conclude(&self, command: &str, mut report: Report, runs: &[Run]) -> Result<(), String> {
        #[derive(Serialize)]
        struct Data<'a> {
            command: String,
            machine: &'a Machine,
            runs: &'a [Run],
        }
        let machine = Machine::look(runs);
        report.headline("Machine");
        report.words(&machine.words());
        let folder = self.folder(command);
        let written = report.write(&folder, &Data { command: machine::command_line(), machine: &machine, runs });
        written.map_err(|why| format!("the report cannot be written to {}: {why}", folder.display()))?;
        println!("{}", report.text());
        eprintln!("whimbrel-lab: the report is in {}", folder.display());
        let broken: Vec<String> = runs
            .iter()
            .filter(|run| !run.faults.is_empty())
            .map(|run| format!("  {} over {}, seed {}, reported {}: {:?}", run.journey, run.transport, run.seed, run.reported, run.faults))
            .collect();
        if broken.is_empty() { Ok(()) } else { Err(format!("promises were broken on {} trips:\n{}", broken.len(), broken.join("\n"))) }
    }
}

fn progress(run: &Run) -> String {
    let told = if run.reported { " (reported)" } else { "" };
    let gaps = format!("longest gap {} / {}", time(run.up.longest_gap), time(run.down.longest_gap));
    let faults = if run.faults.is_empty() { String::new() } else { format!(", FAULTS: {:?}", run.faults) };
    format!(
        "{} over {}{told}, seed {}: {} + {} messages, {gaps}{faults}",
        run.journey, run.transport, run.seed, run.up.arrived, run.down.arrived
    )
}

/// A duration of so many milliseconds, that must not be 0.
fn pace(ms: u64) -> Duration {
    Duration::from_millis(ms.max(1))
}
