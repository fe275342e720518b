//! `fallback`: what a network without UDP costs a client that begins there, and when it moves up once UDP gets through.

use super::machine::{self, Machine};
use super::{Common, ENOUGH};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use whimbrel_client::{Client, Connection, State, Transport, TransportKind};
use whimbrel_lab::measure::{Quantiles, ms};
use whimbrel_lab::network::{Settings, WIFI_GOOD};
use whimbrel_lab::report::{Report, Table, time};
use whimbrel_lab::{Lab, LabError, LinkName, Phone, Server};

/// Longer than anything here takes; who gets here has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// A cellular network without chance losses, which would be what is measured.
const CELL_GOOD: Settings = Settings::of_round_trip_ms(40);

#[derive(Debug, Args)]
pub(super) struct Fallback {
    /// Beginnings of each kind, on each network.
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    #[command(flatten)]
    common: Common,
}

/// How a client begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Begins {
    /// Asked for a WebSocket, so that nothing is raced.
    WebSocket,
    /// UDP does not get through, and it knows nothing.
    Blocked,
    /// The same, where it was before.
    Remembered,
    /// UDP gets through.
    Open,
}

impl Begins {
    const ALL: [(Self, &'static str); 4] = [
        (Self::WebSocket, "WebSocket asked for"),
        (Self::Blocked, "UDP blocked, nothing known"),
        (Self::Remembered, "UDP blocked, was there before"),
        (Self::Open, "UDP open"),
    ];

    /// What it should be connected over.
    fn transport(self) -> TransportKind {
        if self == Self::Open { TransportKind::Quic } else { TransportKind::WebSocket }
    }
}

/// One beginning.
#[derive(Debug, Serialize)]
struct Beginning {
    network: &'static str,
    begins: Begins,
    /// From the start of the client to its session, in milliseconds.
    connected: f64,
    /// From there to its session over QUIC, with UDP open from then on, in milliseconds.
    moved_up: Option<f64>,
}

impl Fallback {
    pub fn run(self) -> Result<(), String> {
        #[derive(Serialize)]
        struct Data<'a> {
            command: String,
            machine: Machine,
            beginnings: &'a [Beginning],
        }
        let networks = [("Wi-Fi, 5 ms", WIFI_GOOD), ("cellular, 40 ms", CELL_GOOD)];
        let binary = self.common.binary()?;
        let beginnings = self.begin(&binary, &networks).map_err(|why| why.to_string())?;
        let mut report = Report::default();
        report.headline("From the start of a client to its session, where UDP is dropped without a word and where it is not");
        report.words(&format!(
            "{} of each, in turns; p50 / max. \"Over plain\" is how much longer the middle one took than where a WebSocket was asked for. \
             \"Moved up\": from the session over a WebSocket to the one over QUIC, where UDP gets through from then on.",
            self.runs
        ));
        let mut table = Table::new(&["network", "begins", "connected in", "over plain", "moved up"]);
        for (network, _) in networks {
            let of = |begins| beginnings.iter().filter(move |one: &&Beginning| one.network == network && one.begins == begins);
            let plain = Quantiles::of(of(Begins::WebSocket).map(|one| one.connected)).p50;
            for (begins, name) in Begins::ALL {
                let connected = Quantiles::of(of(begins).map(|one| one.connected));
                let up = Quantiles::of(of(begins).filter_map(|one| one.moved_up));
                let both = |of: Quantiles| if of.count == 0 { "-".into() } else { format!("{} / {}", time(of.p50), time(of.max)) };
                let over = if begins == Begins::WebSocket { "-".into() } else { format!("{:+.0} ms", connected.p50 - plain) };
                table.row([network.into(), name.into(), both(connected), over, both(up)]);
            }
        }
        report.table(&table);
        let data = Data { command: machine::command_line(), machine: Machine::look(&[]), beginnings: &beginnings };
        let folder = self.common.folder("fallback");
        report.write(&folder, &data).map_err(|why| format!("the report cannot be written to {}: {why}", folder.display()))?;
        println!("{}", report.text());
        eprintln!("whimbrel-lab: the report is in {}", folder.display());
        Ok(())
    }

    fn begin(&self, binary: &std::path::Path, networks: &[(&'static str, Settings)]) -> Result<Vec<Beginning>, LabError> {
        let mut lab = Lab::new("fallback", self.common.seed)?;
        let server = Server::start(&lab, binary)?;
        let phone = lab.phone()?;
        let mut beginnings = Vec::new();
        for run in 0..self.runs {
            for (number, (network, settings)) in networks.iter().enumerate() {
                // Those that know nothing and those that know share a folder, one after the other.
                let known = lab.folder().join(format!("device-{run}-{number}"));
                for (begins, _) in Begins::ALL {
                    if ENOUGH.load(Ordering::Relaxed) {
                        return Ok(beginnings);
                    }
                    let folder = match begins {
                        Begins::Blocked | Begins::Remembered => known.clone(),
                        Begins::WebSocket | Begins::Open => known.with_extension(format!("{begins:?}")),
                    };
                    let user = format!("user-{run}-{number}-{}", if folder == known { "known".into() } else { format!("{begins:?}") });
                    phone.link(LinkName::Wifi).set(Settings { udp_blocked: begins != Begins::Open, ..*settings });
                    let (connected, moved_up) = begin(&phone, &server, &user, folder, begins)?;
                    let moved_up = moved_up.map(ms);
                    beginnings.push(Beginning { network, begins, connected: ms(connected), moved_up });
                }
            }
            eprintln!("{:>4}/{}", run + 1, self.runs);
        }
        Ok(beginnings)
    }
}

/// Begins once. Returns how long that took, and how long it took to move up, which only the second on a network without UDP is let.
fn begin(phone: &Phone, server: &Server, user: &str, folder: PathBuf, begins: Begins) -> Result<(Duration, Option<Duration>), LabError> {
    let failed = |why: String| LabError::Client { who: user.into(), why };
    let transport = if begins == Begins::WebSocket { Transport::WebSocket } else { Transport::Auto };
    let builder = Client::builder(server.url(), user).device("lab").state(State::Folder(folder)).transport(transport).ca(server.certs());
    let (tell, told) = mpsc::channel();
    let (open, opened) = tokio::sync::oneshot::channel();
    let live = move || -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| why.to_string())?;
        runtime.block_on(async {
            let begun = Instant::now();
            let (client, events) = builder.start().await.map_err(|why| why.to_string())?;
            events.store_only();
            let connected = session(&client, begins.transport()).await?;
            // Who started this waits for it.
            let _ = tell.send(connected - begun);
            if begins == Begins::Remembered && opened.await.is_ok() {
                let _ = tell.send(session(&client, TransportKind::Quic).await? - connected);
            }
            client.close().await;
            Ok(())
        })
    };
    let thread = phone.space().spawn("begins", live).map_err(|why| failed(why.to_string()))?;
    let connected = told.recv();
    let mut moved_up = None;
    if begins == Begins::Remembered && connected.is_ok() {
        phone.link(LinkName::Wifi).change(|settings| settings.udp_blocked = false);
        // If it is not there any more it says why below.
        let _ = open.send(());
        moved_up = told.recv().ok();
    }
    match thread.join() {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(why))) => return Err(failed(why)),
        Ok(Err(why)) => return Err(failed(why.to_string())),
        Err(_) => return Err(failed("its thread panicked".into())),
    }
    let connected = connected.map_err(|_| failed("it said nothing".into()))?;
    Ok((connected, moved_up))
}

/// When there is a session over this; not over another.
async fn session(client: &Client, wanted: TransportKind) -> Result<Instant, String> {
    let mut connection = client.connection();
    let found = connection.wait_for(|now| match now {
        Connection::Connected { transport } => *transport == wanted,
        Connection::Ended { .. } => true,
        _ => false,
    });
    let found = tokio::time::timeout(PATIENCE, found).await.map_err(|_| format!("no session over {wanted} within {PATIENCE:?}"))?;
    match found.as_deref() {
        Ok(Connection::Connected { .. }) => Ok(Instant::now()),
        other => Err(format!("no session over {wanted}: {other:?}")),
    }
}
