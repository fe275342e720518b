//! `loss`: a bad network that stays bad.

use super::{Common, pace, transports};
use clap::Args;
use whimbrel_client::Transport;
use whimbrel_lab::journeys::steady;
use whimbrel_lab::measure::Quantiles;
use whimbrel_lab::network::LOSSY;
use whimbrel_lab::report::{Report, Table, groups, time, traffic};
use whimbrel_lab::run::{Run, Trip};

const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
/// Messages a second: somebody who writes, and a conversation of many.
const PACES: [(u64, &str); 2] = [(1_000, "one message a second"), (20, "50 messages a second")];

#[derive(Debug, Args)]
pub(super) struct Loss {
    /// Only these transports; unless given `quic`, `webtransport` and `websocket`.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// How long each run lasts.
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// Runs of each.
    #[arg(long, value_name = "N", default_value_t = 4)]
    runs: u64,
    #[command(flatten)]
    common: Common,
}

impl Loss {
    pub fn run(self) -> Result<(), String> {
        let binary = self.common.binary()?;
        let journey = steady(LOSSY, self.seconds.max(1));
        let mut trips = Vec::new();
        // In turns, so that what else the machine does is the same for all.
        for run in 0..self.runs {
            for (ms, _) in PACES {
                trips.extend(transports(&self.transport, &TRANSPORTS).into_iter().map(|transport| Trip {
                    binary: &binary,
                    journey: &journey,
                    transport,
                    reported: false,
                    pace: pace(ms),
                    seed: self.common.seed + run,
                    durable: !self.common.memory,
                }));
            }
        }
        let runs = self.common.travel(&trips)?;
        let mut report = Report::default();
        report.headline("80 ms round trip, 10 % of packets lost each way");
        report.words(&format!(
            "Latency is one way, from the call of `send` to the recipient's application, the server and its disk in between; all messages of \
             {} runs of {} s. The desk is beside the server. A packet that arrives takes 40 ms.",
            self.runs, self.seconds
        ));
        for (ms, name) in PACES {
            let of: Vec<Run> = runs.iter().filter(|run| run.pace == ms as f64).cloned().collect();
            report.words(name);
            report.table(&table(&of));
        }
        self.common.conclude("loss", report, &runs)
    }
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "transport",
        "faults",
        "messages ↑ / ↓",
        "↑ p50",
        "p90",
        "p99",
        "max",
        "↓ p50",
        "p90",
        "p99",
        "max",
        "IP a message ↑ / ↓",
        "packets a message ↑ / ↓",
    ]);
    for (name, runs) in groups(runs) {
        let messages: usize = runs.iter().map(|run| run.up.arrived + run.down.arrived).sum();
        let cells = |times: Vec<f64>| {
            let of = Quantiles::of(times);
            [of.p50, of.p90, of.p99, of.max].map(time)
        };
        let a_message = |way: fn(&Run) -> u64| runs.iter().map(|run| way(run)).sum::<u64>() as f64 / (messages as f64 / 2.0).max(1.0);
        let mut row = vec![
            name,
            runs.iter().map(|run| run.faults.len()).sum::<usize>().to_string(),
            format!(
                "{} / {}",
                runs.iter().map(|run| run.up.arrived).sum::<usize>(),
                runs.iter().map(|run| run.down.arrived).sum::<usize>()
            ),
        ];
        row.extend(cells(runs.iter().flat_map(|run| run.up.latencies.clone()).collect()));
        row.extend(cells(runs.iter().flat_map(|run| run.down.latencies.clone()).collect()));
        let [up, down] = [a_message(|run| traffic(run).up.bytes_in), a_message(|run| traffic(run).down.bytes_in)];
        row.push(format!("{up:.0} / {down:.0} B"));
        row.push(format!("{:.1} / {:.1}", a_message(|run| traffic(run).up.packets_in), a_message(|run| traffic(run).down.packets_in)));
        table.row(row);
    }
    table
}
