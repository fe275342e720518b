//! `idle`: what it costs a phone to be connected for an hour with nothing to do.

use super::machine::{self, Machine};
use super::{Common, ENOUGH, transports};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use whimbrel_client::Transport;
use whimbrel_lab::idle::{Cost, Desk, Idle, POCKETS, node};
use whimbrel_lab::report::{Report, Table, bytes, time};
use whimbrel_lab::{Lab, LabError, Server};

const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
/// Others to compare with: what they are called, their scripts, the port, and how a client is told where the server is.
const PEERS: [(&str, &str, u16, &str); 2] =
    [("WebSocket, pings each 25 s", "ws", 3_001, "ws"), ("Socket.IO 4.8", "socketio", 3_002, "http")];

#[derive(Debug, Args)]
pub(super) struct IdleHour {
    /// Only these transports; unless given `quic`, `webtransport` and `websocket`.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    transport: Vec<Transport>,
    /// For how long.
    #[arg(long, value_name = "M", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// The folder of the others to compare with, after `npm ci` there. Unless given, the lab's own if that was done; else nothing is compared.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl IdleHour {
    pub fn run(self) -> Result<(), String> {
        #[derive(Serialize)]
        struct Data<'a> {
            command: String,
            minutes: u64,
            machine: Machine,
            costs: &'a [Cost],
        }
        let binary = self.common.binary()?;
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let peers = self.peers.clone().or_else(|| own.join("node_modules").is_dir().then_some(own));
        let costs = self.lie(&binary, peers.as_deref()).map_err(|why| why.to_string())?;
        let mut report = Report::default();
        report.headline(&format!("{} minutes in a pocket", self.minutes));
        report.words(
            "Cellular networks: 40 ms, 1 % lost each way. A wake-up of the radio is a packet of the phone's, or for it, after a second or more \
             without one. Ours are suspended (`background()`) and know nothing of their network when it begins; at the end somebody writes to \
             them. A wake-up of the processor is one of the thread that the client runs on.",
        );
        let mut table = Table::new(&["client", "network", "radio", "processor", "IP ↑", "IP ↓", "packets", "sessions", "reached in"]);
        for cost in &costs {
            let (up, down) = (cost.counts.up, cost.counts.down);
            table.row([
                cost.client.clone(),
                cost.network.into(),
                cost.counts.wakes.to_string(),
                cost.processor.to_string(),
                bytes(up.bytes_in),
                bytes(down.bytes_in),
                (up.packets_in + down.packets_in).to_string(),
                cost.sessions.to_string(),
                cost.reached_ms.map_or_else(|| "-".into(), time),
            ]);
        }
        report.table(&table);
        if peers.is_none() {
            report.words("Nothing to compare with: `npm ci` in tests/lab/peers gets it.");
        }
        let machine = Machine::look(&[]);
        let folder = self.common.folder("idle");
        let data = Data { command: machine::command_line(), minutes: self.minutes, machine, costs: &costs };
        report.write(&folder, &data).map_err(|why| format!("the report cannot be written to {}: {why}", folder.display()))?;
        println!("{}", report.text());
        eprintln!("whimbrel-lab: the report is in {}", folder.display());
        let lost = costs.iter().filter(|cost| cost.reached_ms.is_none() && !PEERS.iter().any(|peer| peer.0 == cost.client));
        match lost.count() {
            0 => Ok(()),
            lost => Err(format!("{lost} phones were not reached within a minute")),
        }
    }

    fn lie(&self, binary: &Path, peers: Option<&Path>) -> Result<Vec<Cost>, LabError> {
        let mut lab = Lab::new("idle", self.common.seed)?;
        let server = Server::start(&lab, binary)?;
        let desk = Desk::start(&lab, &server)?;
        let mut phones = Vec::new();
        for (number, pocket) in POCKETS.iter().enumerate() {
            for transport in transports(&self.transport, &TRANSPORTS) {
                phones.push((number, Idle::whimbrel(&mut lab, &server, transport, number, pocket)?));
            }
        }
        let mut servers = Vec::new();
        if let Some(folder) = peers {
            for (name, script, port, scheme) in PEERS {
                let log = lab.folder().join(format!("{script}.log"));
                servers.push(node(lab.server(), &folder.join(format!("{script}-server.js")), &port.to_string(), &log)?);
                let url = format!("{scheme}://{}:{port}", Lab::SERVER);
                let client = folder.join(format!("{script}-client.js"));
                phones.push((0, Idle::peer(&mut lab, name, &client, &url, 0, &POCKETS[0])?));
            }
        }
        phones.iter_mut().for_each(|(_, phone)| phone.reset());
        let end = Instant::now() + Duration::from_secs(60 * self.minutes);
        eprintln!("whimbrel-lab: {} phones lie in pockets for {} minutes", phones.len(), self.minutes);
        while Instant::now() < end && !ENOUGH.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut costs: Vec<Cost> = phones.iter().map(|(_, phone)| phone.cost()).collect();
        for (cost, (number, phone)) in costs.iter_mut().zip(&phones) {
            cost.reached_ms = phone.reach(&desk, *number);
        }
        phones.into_iter().for_each(|(_, phone)| phone.end());
        Ok(costs)
    }
}
