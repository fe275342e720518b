//! `random`: a search for what no script has.

use super::{Common, pace, transports};
use clap::Args;
use whimbrel_client::Transport;
use whimbrel_lab::journey::Journey;
use whimbrel_lab::journeys::random;
use whimbrel_lab::measure::Quantiles;
use whimbrel_lab::report::{Report, Table, time, timeline};
use whimbrel_lab::run::{Run, Trip, transport_name};

const TRANSPORTS: [Transport; 5] =
    [Transport::Quic, Transport::WebTransport, Transport::WebSocket, Transport::WebSocketJson, Transport::Auto];
/// Pictures of the worst journeys.
const PICTURES: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Random {
    /// Only these transports, in turns; unless given, all.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// Journeys: with seeds that follow each other, from --seed on.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Milliseconds between two messages, each way.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pace: u64,
    #[command(flatten)]
    common: Common,
}

impl Random {
    pub fn run(self) -> Result<(), String> {
        let binary = self.common.binary()?;
        let transports = transports(&self.transport, &TRANSPORTS);
        let seeds = self.common.seed..self.common.seed + self.count;
        let journeys: Vec<Journey> = seeds.clone().map(random).collect();
        // The seed decides everything, so that it is all that one needs to see a journey again.
        let trip = |(journey, seed): (_, u64)| Trip {
            reported: seed / 8 % 2 == 0,
            durable: !self.common.memory,
            ..Trip::new(&binary, journey, transports[seed as usize % transports.len()], pace(self.pace), seed)
        };
        let trips: Vec<Trip<'_>> = journeys.iter().zip(seeds).map(trip).collect();
        let runs = self.common.travel(&trips)?;
        let mut report = Report::default();
        report.headline("Random journeys");
        let mut table =
            Table::new(&["transport", "journeys", "faults", "messages ↑ / ↓", "longest gap ↑ p50", "max", "longest gap ↓ p50", "max"]);
        for transport in &transports {
            let of: Vec<&Run> = runs.iter().filter(|run| run.transport == transport_name(*transport)).collect();
            let longest = |way: fn(&Run) -> f64| Quantiles::of(of.iter().map(|run| way(run)));
            let (up, down) = (longest(|run| run.up.longest_gap), longest(|run| run.down.longest_gap));
            table.row([
                transport_name(*transport).to_owned(),
                of.len().to_string(),
                of.iter().map(|run| run.faults.len()).sum::<usize>().to_string(),
                format!(
                    "{} / {}",
                    of.iter().map(|run| run.up.arrived).sum::<usize>(),
                    of.iter().map(|run| run.down.arrived).sum::<usize>()
                ),
                time(up.p50),
                time(up.max),
                time(down.p50),
                time(down.max),
            ]);
        }
        report.table(&table);
        report.words("Those that broke a promise, or else those with the longest gaps:");
        let mut worst: Vec<&Run> = runs.iter().collect();
        let longest = |run: &Run| run.up.longest_gap.max(run.down.longest_gap);
        worst.sort_by(|one, other| one.faults.is_empty().cmp(&other.faults.is_empty()).then(longest(other).total_cmp(&longest(one))));
        for run in worst.into_iter().take(PICTURES) {
            let again = format!("`random --seed {} --count 1 --transport {}`", run.seed, run.transport);
            report.words(&format!(
                "{} over {}: longest gap {}. {:?}. Again: {again}",
                run.journey,
                run.transport,
                time(longest(run)),
                run.faults
            ));
            report.picture(&run.journey, &run.journey, timeline(&random(run.seed), &[run]));
        }
        self.common.conclude("random", report, &runs)
    }
}
