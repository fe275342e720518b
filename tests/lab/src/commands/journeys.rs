//! `journeys`: the scripted ones.

use super::{Common, Reporting, pace, transports};
use clap::Args;
use whimbrel_client::Transport;
use whimbrel_lab::journey::Journey;
use whimbrel_lab::journeys::scripted;
use whimbrel_lab::report::Report;
use whimbrel_lab::run::{Run, Trip};

const TRANSPORTS: [Transport; 5] =
    [Transport::Quic, Transport::WebTransport, Transport::WebSocket, Transport::WebSocketJson, Transport::Auto];

#[derive(Debug, Args)]
pub(super) struct Journeys {
    /// Only these transports: `quic`, `webtransport`, `websocket`, `websocket-json`, `auto`.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// Only these journeys.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    journey: Vec<String>,
    /// Runs of each, with seeds that follow each other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Milliseconds between two messages, each way.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pace: u64,
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    common: Common,
}

impl Journeys {
    pub fn run(self) -> Result<(), String> {
        let journeys = self.chosen()?;
        let binary = self.common.binary()?;
        let mut trips = Vec::new();
        // In turns, so that what else the machine does is the same for all.
        for run in 0..self.runs {
            for journey in &journeys {
                let noticed = journey.steps.iter().any(|step| step.is_noticed());
                for transport in transports(&self.transport, &TRANSPORTS) {
                    // Where a phone's system notices nothing, there is nothing to tell.
                    let reporting = if noticed { self.reporting.all() } else { vec![false] };
                    trips.extend(reporting.into_iter().map(|reported| Trip {
                        reported,
                        durable: !self.common.memory,
                        ..Trip::new(&binary, journey, transport, pace(self.pace), self.common.seed + run)
                    }));
                }
            }
        }
        let runs = self.common.travel(&trips)?;
        let mut report = Report::default();
        for journey in &journeys {
            let of: Vec<Run> = runs.iter().filter(|run| run.journey == journey.name).cloned().collect();
            if !of.is_empty() {
                report.journey(journey, &of);
            }
        }
        report.words(
            "Over several runs a cell has the median, and the worst in brackets. ↑ is from the phone, ↓ to it. The gap around a step is from \
             the last arrival before the step was done to the first arrival of a message that was sent afterwards.",
        );
        self.common.conclude("journeys", report, &runs)
    }

    fn chosen(&self) -> Result<Vec<Journey>, String> {
        let all = scripted();
        let known: Vec<String> = all.iter().map(|journey| journey.name.clone()).collect();
        if let Some(unknown) = self.journey.iter().find(|name| !known.contains(name)) {
            return Err(format!("there is no journey {unknown:?}: choose from {}", known.join(", ")));
        }
        Ok(all.into_iter().filter(|journey| self.journey.is_empty() || self.journey.contains(&journey.name)).collect())
    }
}
