//! `loss`: a bad network that stays bad.

use super::{Common, pace, transports};
use clap::Args;
use whimbrel_client::Transport;
use whimbrel_lab::journeys::steady;
use whimbrel_lab::measure::{Quantiles, Stream};
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
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
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
                    durable: !self.common.memory,
                    ..Trip::new(&binary, &journey, transport, pace(ms), self.common.seed + run)
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

/// All messages of some runs, one way.
fn all(runs: &[&Run], way: impl Fn(&Run) -> &Stream) -> Quantiles {
    Quantiles::of(runs.iter().flat_map(|run| way(run).latencies.iter().copied()))
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
        "p99 to WebSocket's ↑ / ↓",
        "IP a message ↑ / ↓",
        "packets a message ↑ / ↓",
    ]);
    let p99s = |runs: &[&Run]| [all(runs, |run| &run.up), all(runs, |run| &run.down)].map(|of| of.p99);
    let groups = groups(runs);
    let websocket = groups.iter().find(|(name, _)| name == "websocket").map(|(_, runs)| p99s(runs));
    for (name, runs) in groups {
        let messages: usize = runs.iter().map(|run| run.up.arrived + run.down.arrived).sum();
        let cells = |of: Quantiles| [of.p50, of.p90, of.p99, of.max].map(time);
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
        row.extend(cells(all(&runs, |run| &run.up)));
        row.extend(cells(all(&runs, |run| &run.down)));
        let to = |at: usize| websocket.map_or_else(|| "–".into(), |websocket| format!("{:.2}", p99s(&runs)[at] / websocket[at].max(0.001)));
        row.push(format!("{} / {}", to(0), to(1)));
        let [up, down] = [a_message(|run| traffic(run).up.bytes_in), a_message(|run| traffic(run).down.bytes_in)];
        row.push(format!("{up:.0} / {down:.0} B"));
        row.push(format!("{:.1} / {:.1}", a_message(|run| traffic(run).up.packets_in), a_message(|run| traffic(run).down.packets_in)));
        table.row(row);
    }
    table
}
