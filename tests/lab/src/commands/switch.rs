//! `switch`: Wi-Fi to cellular, many times.

use super::{Common, Reporting, pace, transports};
use clap::Args;
use whimbrel_client::Transport;
use whimbrel_lab::journey::Journey;
use whimbrel_lab::journeys::switch;
use whimbrel_lab::measure::Quantiles;
use whimbrel_lab::network::Dice;
use whimbrel_lab::report::{Report, Table, distribution, groups, time, traffic};
use whimbrel_lab::run::{Run, Trip};

const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];

#[derive(Debug, Args)]
pub(super) struct Switch {
    /// Only these transports; unless given `quic`, `webtransport` and `websocket`.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// Switches of each.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Milliseconds between two messages, each way.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pace: u64,
    /// Also with a phone that says nothing by itself: only the desk talks.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    common: Common,
}

impl Switch {
    pub fn run(self) -> Result<(), String> {
        let binary = self.common.binary()?;
        // At any moment between two messages, and not too soon after the start.
        let mut dice = Dice::new(self.common.seed).split(5);
        let journeys: Vec<Journey> = (0..self.runs).map(|_| switch(dice.range(1_000, 1_100))).collect();
        let mut trips = Vec::new();
        // In turns, so that what else the machine does is the same for all.
        for (journey, seed) in journeys.iter().zip(self.common.seed..) {
            for transport in transports(&self.transport, &TRANSPORTS) {
                for quiet in [false, true].into_iter().take(if self.quiet { 2 } else { 1 }) {
                    trips.extend(self.reporting.all().into_iter().map(|reported| Trip {
                        reported,
                        quiet,
                        durable: !self.common.memory,
                        ..Trip::new(&binary, journey, transport, pace(self.pace), seed)
                    }));
                }
            }
        }
        let runs = self.common.travel(&trips)?;
        let mut report = Report::default();
        report.headline("From Wi-Fi (5 ms) to cellular (40 ms, 1 % lost each way)");
        report.words(&format!(
            "The gap is from the last message that arrived before the change to the first that was sent after it; each way a message every {}. \
             \"reported\": the application calls `network_changed()`; \"quiet\": the phone's user says nothing.",
            time(pace(self.pace).as_secs_f64() * 1_000.0)
        ));
        let mut table = Table::new(&[
            "transport",
            "runs",
            "faults",
            "never",
            "gap ↑ p50",
            "p90",
            "p99",
            "max",
            "gap ↓ p50",
            "p90",
            "p99",
            "max",
            "packets ↑ / ↓",
        ]);
        let mut rows = Vec::new();
        for (name, runs) in groups(&runs) {
            let gaps = |way: fn(&Run) -> Option<f64>| runs.iter().filter_map(|run| way(run)).collect::<Vec<f64>>();
            let up = gaps(|run| run.steps.first()?.up.gap);
            let down = gaps(|run| run.steps.first()?.down.gap);
            let cells = |gaps: &[f64]| match Quantiles::of(gaps.iter().copied()) {
                of if of.count == 0 => [(); 4].map(|()| "–".into()),
                of => [of.p50, of.p90, of.p99, of.max].map(time),
            };
            let packets = |way: fn(&Run) -> u64| runs.iter().map(|run| way(run)).sum::<u64>() / runs.len() as u64;
            let ways = if runs.iter().any(|run| run.quiet) { 1 } else { 2 };
            let mut row = vec![
                name.clone(),
                runs.len().to_string(),
                runs.iter().map(|run| run.faults.len()).sum::<usize>().to_string(),
                // Within the time that is waited for it.
                (ways * runs.len()).saturating_sub(up.len() + down.len()).to_string(),
            ];
            row.extend(cells(&up));
            row.extend(cells(&down));
            row.push(format!("{} / {}", packets(|run| traffic(run).up.packets_in), packets(|run| traffic(run).down.packets_in)));
            table.row(row);
            rows.push((name, up, down));
        }
        report.table(&table);
        report.picture(
            "switch",
            "Gaps at a change of network",
            distribution("switch", "Wi-Fi (5 ms) to cellular (40 ms, 1 % lost)", &rows),
        );
        self.common.conclude("switch", report, &runs)
    }
}
