//! `history`: somebody scrolls far back while others write.

use super::{Common, pace, transports};
use clap::Args;
use whimbrel_client::Transport;
use whimbrel_lab::journeys::steady;
use whimbrel_lab::measure::Quantiles;
use whimbrel_lab::network::Settings;
use whimbrel_lab::reading::Reading;
use whimbrel_lab::report::{Report, Table, bytes, groups, time};
use whimbrel_lab::run::{Run, Trip};

const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
/// 2 Mbit/s, 40 ms, and a queue that holds a quarter of a second.
const NARROW: Settings = Settings::of_round_trip_ms(40).rate(2_000_000, 64 * 1024);

#[derive(Debug, Args)]
pub(super) struct History {
    /// Only these transports; unless given `quic`, `webtransport` and `websocket`.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// Megabytes of text that the phone reads.
    #[arg(long, value_name = "MB", default_value_t = 5)]
    megabytes: usize,
    /// Runs of each.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Milliseconds between two live messages, each way.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pace: u64,
    #[command(flatten)]
    common: Common,
}

impl History {
    pub fn run(self) -> Result<(), String> {
        let binary = self.common.binary()?;
        let journey = steady(NARROW, 1);
        let mut trips = Vec::new();
        // In turns, so that what else the machine does is the same for all.
        for seed in self.common.seed..self.common.seed + self.runs {
            for quiet in [true, false] {
                trips.extend(transports(&self.transport, &TRANSPORTS).into_iter().map(|transport| Trip {
                    quiet,
                    read: self.megabytes.max(1) * 1_000_000,
                    durable: !self.common.memory,
                    ..Trip::new(&binary, &journey, transport, pace(self.pace), seed)
                }));
            }
        }
        let runs = self.common.travel(&trips)?;
        let mut report = Report::default();
        report.headline("History while messages come: 2 Mbit/s, 40 ms, a queue of 64 KiB");
        report.words(&format!(
            "The phone reads {} MB of old messages, one question after the other; the desk sends a message every {}, and so does the phone \
             where it is not \"quiet\". How long those take one way, before the reading and during it. A packet that does not wait takes 20 ms.",
            self.megabytes,
            time(pace(self.pace).as_secs_f64() * 1_000.0)
        ));
        report.table(&table(&runs));
        self.common.conclude("history", report, &runs)
    }
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "transport",
        "runs",
        "faults",
        "it took",
        "read",
        "questions",
        "↓ before p50 / p99 / max",
        "↓ during p50 / p99 / max",
        "↑ before p50 / p99 / max",
        "↑ during p50 / p99 / max",
        "sessions",
    ]);
    for (name, runs) in groups(runs) {
        let readings: Vec<&Reading> = runs.iter().filter_map(|run| run.reading.as_ref()).collect();
        let cell = |times: fn(&Reading) -> &[f64]| match Quantiles::of(readings.iter().flat_map(|reading| times(reading).iter().copied())) {
            of if of.count == 0 => "–".into(),
            of => format!("{} / {} / {}", time(of.p50), time(of.p99), time(of.max)),
        };
        let middle = |of: fn(&Reading) -> f64| Quantiles::of(readings.iter().map(|reading| of(reading))).p50;
        let sessions = runs.iter().map(|run| run.connections.iter().filter(|(_, state)| !state.starts_with('-')).count());
        table.row([
            name,
            runs.len().to_string(),
            runs.iter().map(|run| run.faults.len()).sum::<usize>().to_string(),
            time(middle(|reading| reading.took)),
            bytes(middle(|reading| reading.bytes as f64) as u64),
            format!("{:.0}", middle(|reading| reading.queries as f64)),
            cell(|reading| &reading.down_before),
            cell(|reading| &reading.down_during),
            cell(|reading| &reading.up_before),
            cell(|reading| &reading.up_during),
            sessions.max().unwrap_or_default().to_string(),
        ]);
    }
    table
}
