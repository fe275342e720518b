//! What `chat`, `send` and `listen` have in common: who, where to, with which keys, and where the device's state lies.

use super::exit;
use clap::Args;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_client::protocol::frame::Origin;
use whimbrel_client::{Builder, Client, ConnectError, Events, StartError, State, StateError, Transport};

/// How many processes of one command may run at once for one user: each is a device of its own.
const SLOTS: u32 = 8;

/// The longest name made up for a device, in characters: addresses are ASCII, and a number may follow.
const DEVICE_CHARS: usize = 60;
/// A process that is just leaving lets go of its device within this time: better to wait for it than to be another device.
const LEAVING: Duration = Duration::from_millis(400);
/// How often to look whether it has.
const LEAVING_STEP: Duration = Duration::from_millis(50);

/// Who connects, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Connect {
    /// Who you are.
    #[arg(long = "as", value_name = "USER")]
    pub user: String,
    /// The server: `https://host:8443` or `http://host:8080`.
    #[arg(long, env = "WHIMBREL_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// `auto` (the best that works), `webtransport`, `websocket` or `websocket-json`.
    #[arg(long, value_name = "T", default_value = "auto")]
    pub transport: Transport,
    /// Where this device keeps its outbox and its cursor between runs. One process at a time holds it.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The token, where the server wants one.
    #[arg(long, env = "WHIMBREL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Believe certificates that this CA signed: a PEM file, or a server's certs directory.
    #[arg(long, value_name = "PATH")]
    pub ca: Option<PathBuf>,
    /// Believe the certificate with this SHA-256 hash, hexadecimal or base64.
    #[arg(long, value_name = "HASH")]
    pub pin: Vec<String>,
}

impl Connect {
    /// Connects as a device of this name.
    pub async fn open(&self, device: &str, origin: Origin) -> Result<(Client, Events), ConnectError> {
        self.builder(device, origin).connect().await
    }

    /// The name of a command's device where none was given. Below the default folder there is one state a server's address, so there is
    /// one device an address too: the same server under two addresses is not two outboxes that claim to be one device.
    pub fn device(&self, command: &str) -> String {
        match &self.state {
            Some(_) => command.to_owned(),
            None => format!("{command}@{}", self.host()).chars().take(DEVICE_CHARS).collect(),
        }
    }

    /// Connects as the first of several devices that no other process holds, so that a command can run several times at once.
    pub async fn open_any(&self, command: &str, origin: Origin) -> Result<(Client, Events), ConnectError> {
        let device = self.device(command);
        let mut slot = 1;
        loop {
            match self.open(&slot_name(&device, slot), origin).await {
                Err(ConnectError::Start(StartError::State(StateError::Locked { .. }))) if slot < SLOTS => slot += 1,
                opened => return opened,
            }
        }
    }

    /// As [`open_any`](Self::open_any), without waiting for a connection: what this device knows is there at once.
    pub async fn start_any(&self, device: &str, origin: Origin) -> Result<(Client, Events), StartError> {
        let (mut slot, mut patience) = (1, LEAVING);
        loop {
            match self.builder(&slot_name(device, slot), origin).start().await {
                Err(StartError::State(StateError::Locked { .. })) if !patience.is_zero() => {
                    patience = patience.saturating_sub(LEAVING_STEP);
                    tokio::time::sleep(LEAVING_STEP).await;
                }
                Err(StartError::State(StateError::Locked { .. })) if slot < SLOTS => slot += 1,
                started => return started,
            }
        }
    }

    /// Waits for a connection that is being opened, until a deadline.
    pub async fn by<T>(deadline: Option<Instant>, opening: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        match deadline {
            None => opening.await,
            Some(deadline) => tokio::time::timeout_at(deadline, opening)
                .await
                .unwrap_or_else(|_| Err(ConnectError::Unreachable("there was no connection before the time was up (--timeout)".into()))),
        }
    }

    /// Describes a client for a device of this name.
    pub fn builder(&self, device: &str, origin: Origin) -> Builder {
        let mut builder = Client::builder(&self.url, &self.user)
            .device(device)
            .origin(origin)
            .transport(self.transport)
            .agent(concat!("whimbrel/", env!("CARGO_PKG_VERSION")))
            .state(State::Folder(self.folder(device)));
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        if let Some(ca) = &self.ca {
            builder = builder.ca(ca);
        } else if self.pin.is_empty() && self.is_loopback() && Path::new("certs/ca.pem").is_file() {
            builder = builder.ca("certs");
        }
        self.pin.iter().fold(builder, |builder, pin| builder.pin(pin))
    }

    fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    fn is_loopback(&self) -> bool {
        let host = self.host();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name == "localhost" || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// One folder a user and device. Below the default folder also one a server, so that what waits for one is never sent to another; a
    /// folder that was named is meant, wherever the server moves.
    fn folder(&self, device: &str) -> PathBuf {
        let base = match &self.state {
            Some(folder) => folder.clone(),
            None => data_home().join("whimbrel").join(file_name(self.host())),
        };
        base.join(file_name(&self.user)).join(file_name(device))
    }
}

/// The name of the device that is the so-manieth of its name at once.
fn slot_name(device: &str, slot: u32) -> String {
    if slot == 1 { device.to_owned() } else { format!("{device}-{slot}") }
}

fn data_home() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")))
        .unwrap_or_else(|| PathBuf::from(".whimbrel"))
}

/// A name as one part of a path, different for different names.
fn file_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => safe.push(byte as char),
            b'.' if !safe.is_empty() => safe.push('.'),
            other => safe.push_str(&format!("%{other:02x}")),
        }
    }
    safe
}

/// Says why there is no connection, and with which code to end.
pub(super) fn failed(error: &ConnectError) -> ExitCode {
    eprintln!("whimbrel: {error}");
    ExitCode::from(match error {
        ConnectError::Start(_) => exit::USAGE,
        ConnectError::Ended(_) => exit::REFUSED,
        _ => exit::NO_CONNECTION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Test {
        #[command(flatten)]
        connect: Connect,
    }

    fn connect(arguments: &[&str]) -> Connect {
        Test::parse_from(["test", "--as", "ann/../b"].iter().chain(arguments)).connect
    }

    #[test]
    fn names_stay_within_the_folder() {
        let folder = connect(&["--state", "/s"]).folder("..");
        assert_eq!(folder, Path::new("/s/ann%2f..%2fb/%2e."));
    }

    #[test]
    fn loopback_is_known_in_all_its_forms() {
        for (url, loopback) in [
            ("https://127.0.0.1:8443", true),
            ("https://localhost:8443/", true),
            ("https://[::1]:8443", true),
            ("http://localhost", true),
            ("https://192.0.2.1:8443", false),
            ("https://localhost.example.org", false),
        ] {
            assert_eq!(connect(&["--url", url]).is_loopback(), loopback, "{url}");
        }
    }
}
