//! `blackout`: how soon messages flow again after a time in which nothing got through.

use super::{Common, Reporting, pace, transports};
use clap::Args;
use std::time::Duration;
use whimbrel_client::Transport;
use whimbrel_lab::journey::Journey;
use whimbrel_lab::journeys::blackout_of;
use whimbrel_lab::measure::{Quantiles, StepGap};
use whimbrel_lab::network::Dice;
use whimbrel_lab::report::{Report, Table, groups, time};
use whimbrel_lab::run::{Run, StepReport, Trip};

const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];

#[derive(Debug, Args)]
pub(super) struct Blackout {
    /// Only these transports; unless given `quic`, `webtransport` and `websocket`.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// How long nothing gets through, in seconds.
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_values_t = [2, 6, 15])]
    lengths: Vec<u64>,
    /// Blackouts of each.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Milliseconds between two messages, each way.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pace: u64,
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    common: Common,
}

impl Blackout {
    pub fn run(self) -> Result<(), String> {
        let binary = self.common.binary()?;
        // At any moment between two messages.
        let mut dice = Dice::new(self.common.seed).split(6);
        let mut journeys: Vec<(Journey, u64)> = Vec::new();
        for seed in self.common.seed..self.common.seed + self.runs {
            let at = dice.range(2_000, 2_000 + self.pace.max(1));
            journeys.extend(self.lengths.iter().map(|length| (blackout_of(Duration::from_secs(*length), at), seed)));
        }
        let mut trips = Vec::new();
        // In turns, so that what else the machine does is the same for all.
        for (journey, seed) in &journeys {
            for transport in transports(&self.transport, &TRANSPORTS) {
                trips.extend(self.reporting.all().into_iter().map(|reported| Trip {
                    reported,
                    durable: !self.common.memory,
                    ..Trip::new(&binary, journey, transport, pace(self.pace), *seed)
                }));
            }
        }
        let runs = self.common.travel(&trips)?;
        let mut report = Report::default();
        report.headline("From the end of a blackout to the first message, in round trips (40 ms, 1 % lost each way)");
        report.words(&format!(
            "Each way a message every {}, of 52 bytes. A message that is on its way at once takes half a round trip. \"reported\": the \
             application calls `network_changed()` when it is over, as phones' systems say so; else nobody says anything.",
            time(pace(self.pace).as_secs_f64() * 1_000.0)
        ));
        for length in &self.lengths {
            let name = blackout_of(Duration::from_secs(*length), 0).name;
            let of: Vec<Run> = runs.iter().filter(|run| run.journey == name).cloned().collect();
            report.words(&format!("After {length} s:"));
            report.table(&table(&of));
        }
        self.common.conclude("blackout", report, &runs)
    }
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "transport",
        "runs",
        "faults",
        "never",
        "↑ p50",
        "p90",
        "max",
        "↓ p50",
        "p90",
        "max",
        "↑ p50 in time",
        "↓ p50 in time",
    ]);
    for (name, runs) in groups(runs) {
        let light = || runs.iter().filter_map(|run| run.steps.last());
        let took =
            |way: fn(&StepReport) -> StepGap| light().filter_map(move |step| Some((way(step).first_after_blackout?, step.round_trip)));
        let trips = |way| Quantiles::of(took(way).map(|(ms, round_trip)| ms / round_trip.max(0.1)));
        let in_time = |way| time(Quantiles::of(took(way).map(|(ms, _)| ms)).p50);
        let (up, down) = (trips(|step| step.up), trips(|step| step.down));
        let mut row = vec![
            name,
            runs.len().to_string(),
            runs.iter().map(|run| run.faults.len()).sum::<usize>().to_string(),
            (2 * runs.len() - up.count - down.count).to_string(),
        ];
        row.extend([up, down].iter().flat_map(|of| [of.p50, of.p90, of.max].map(|trips| format!("{trips:.1}"))));
        row.extend([in_time(|step| step.up), in_time(|step| step.down)]);
        table.row(row);
    }
    table
}
