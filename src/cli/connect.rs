//! What `chat`, `send` and `listen` have in common: who, where to, with which keys, and where the device's state lies.

use super::exit;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use whimbrel_client::protocol::ErrorCode;
use whimbrel_client::protocol::frame::{CommandBody, Origin};
use whimbrel_client::{
    Builder, Client, ConnectError, Connection, EndReason, Events, Liveness, StartError, State, StateError, Transport, Waiting,
};

/// How many processes of one command may run at once for one user: each is a device of its own.
pub(super) const SLOTS: u32 = 8;

/// The longest part of a made-up device name that says what it is, in characters: a server's address is ASCII, and a random part follows.
const DEVICE_CHARS: usize = 52;
/// A process that is just leaving lets go of its device within this time: better to wait for it than to be another device.
pub(super) const LEAVING: Duration = Duration::from_millis(400);
/// How often to look whether it has.
const LEAVING_STEP: Duration = Duration::from_millis(50);

/// A terminal saves no battery: that is how long it lets the server be silent, as somebody who waits at `listen` is better told soon.
const IDLE: Duration = Duration::from_secs(30);

/// What the folder of a command's own device begins with, and that of a device that was named: signs that [`file_name`] does not leave.
const OWN: char = '+';
const NAMED: char = '=';

/// Who connects, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Connect {
    /// Who you are.
    #[arg(long = "as", value_name = "USER")]
    pub user: String,
    /// The server: `https://host:8443` or `http://host:8080`.
    #[arg(long, env = "WHIMBREL_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// `auto` (the best that works), `quic`, `webtransport`, `websocket` or `websocket-json`.
    #[arg(long, value_name = "T", default_value = "auto")]
    pub transport: Transport,
    /// Which of the user's devices to be, by exactly this name. Unless said, one of this machine's own, whose name is made up once.
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
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
    /// Starts as the device that was named, or else as the first of this machine's own for a command that no other process holds, of so
    /// many: what this device knows is there at once. One in which messages wait comes before the others: those of a process that ran
    /// beside another must not wait until two run at once again. `patience` is how long to wait for a process that is just leaving.
    pub async fn start(&self, command: &str, origin: Origin, slots: u32, mut patience: Duration) -> Result<(Client, Events), StartError> {
        let slots = if self.device.is_some() { 1 } else { slots };
        if slots > 1 {
            for (slot, _) in self.left(command, slots).await {
                match self.builder(command, slot, origin).start().await {
                    // Another process was faster.
                    Err(StartError::State(StateError::Locked { .. })) => {}
                    started => return started,
                }
            }
        }
        let mut slot = 1;
        loop {
            match self.builder(command, slot, origin).start().await {
                Err(StartError::State(StateError::Locked { .. })) if !patience.is_zero() => {
                    patience = patience.saturating_sub(LEAVING_STEP);
                    tokio::time::sleep(LEAVING_STEP).await;
                }
                Err(StartError::State(StateError::Locked { .. })) if slot < slots => slot += 1,
                started => return started,
            }
        }
    }

    /// Of this machine's own devices for a command, of so many, those that no process holds and in whose outbox messages wait; and how
    /// many do. None where a device was named: that one is meant, and no other.
    pub async fn left(&self, command: &str, slots: u32) -> Vec<(u32, usize)> {
        let mut left = Vec::new();
        if self.device.is_some() {
            return left;
        }
        for slot in 1..=slots {
            if !own_folder(&self.folder(), &slot_name(&self.own_device(command), slot)).is_dir() {
                continue;
            }
            // One that cannot be opened is either in use, or its next user says what is wrong with it.
            let Ok(outbox) = self.builder(command, slot, Origin::default()).outbox().await else { continue };
            match messages(&outbox).count() {
                0 => {}
                waiting => left.push((slot, waiting)),
            }
        }
        left
    }

    /// Waits for a client's first connection. Without a deadline the first attempt counts: the address may be wrong. With one it is tried
    /// again until then, unless it is plain that the command line has to be changed.
    pub async fn connected(client: &Client, deadline: Option<Instant>) -> Result<(), ConnectError> {
        let mut connection = client.connection();
        let mut last = None;
        loop {
            let state = connection.borrow_and_update().clone();
            match state {
                Connection::Connected { .. } => return Ok(()),
                Connection::Ended { error: Some(error) } => return Err(error.into()),
                Connection::Ended { error: None } => return Err(ConnectError::Unreachable("the client has ended".into())),
                Connection::Offline { why, mismatch: true, .. } => return Err(ConnectError::Mismatch(why)),
                Connection::Offline { why, .. } if deadline.is_none() => return Err(ConnectError::Unreachable(why)),
                Connection::Offline { why, .. } => last = Some(why),
                Connection::Connecting { why, .. } => last = why.or(last),
                _ => {}
            }
            tokio::select! {
                changed = connection.changed() => if changed.is_err() {
                    return Err(ConnectError::Unreachable("the client has ended".into()));
                },
                () = at(deadline) => {
                    let last = last.map(|why| format!("; the last attempt: {why}")).unwrap_or_default();
                    return Err(ConnectError::Unreachable(format!("there was no connection before the time was up (--timeout){last}")));
                }
            }
        }
    }

    /// Describes a client: the device that was named, or this machine's so-manieth own for a command.
    pub fn builder(&self, command: &str, slot: u32, origin: Origin) -> Builder {
        let builder = Client::builder(&self.url, &self.user)
            .origin(origin)
            .transport(self.transport)
            .liveness(Liveness { idle: IDLE, ..Liveness::default() })
            .agent(concat!("whimbrel/", env!("CARGO_PKG_VERSION")));
        let base = self.folder();
        let mut builder = match &self.device {
            Some(device) => builder.device(device).state(State::Folder(folder_of(&base, NAMED, device))),
            None => {
                let name = slot_name(&self.own_device(command), slot);
                // The same user may run the same command on another machine, which is another device. The folder remembers the name.
                let made_up = format!("{name}-{:08x}", rand::random::<u32>());
                builder.new_device(made_up).state(State::Folder(own_folder(&base, &name)))
            }
        };
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

    /// What the name of a command's own device begins with. Below the default folder there is one state a server's address, so there is
    /// one device an address too: the same server under two addresses is not two outboxes that claim to be one device.
    fn own_device(&self, command: &str) -> String {
        match &self.state {
            Some(_) => command.to_owned(),
            None => format!("{command}@{}", self.host()).chars().take(DEVICE_CHARS).collect(),
        }
    }

    /// Where the folders of a user's devices lie. Below the default folder one a server, so that what waits for one is never sent to
    /// another; a folder that was named is meant, wherever the server moves.
    fn folder(&self) -> PathBuf {
        let base = match &self.state {
            Some(folder) => folder.clone(),
            None => data_home().join("whimbrel").join(file_name(self.host())),
        };
        base.join(file_name(&self.user))
    }
}

/// The folder of a command's own device.
fn own_folder(base: &Path, name: &str) -> PathBuf {
    folder_of(base, OWN, name)
}

/// The folder of a device. A sign sets those of commands apart from those that were named: no name has both.
fn folder_of(base: &Path, sign: char, name: &str) -> PathBuf {
    let name = file_name(name);
    let folder = base.join(format!("{sign}{name}"));
    // From before there were signs. No such folder is made any more, so it is not of another device with this name.
    let before = base.join(name);
    if !folder.is_dir() && before.is_dir() { before } else { folder }
}

/// Of what is in an outbox, the messages.
pub(super) fn messages(outbox: &[Waiting]) -> impl Iterator<Item = &Waiting> {
    outbox.iter().filter(|waiting| matches!(waiting.body, CommandBody::Send(_)))
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

/// Why a client ended although nobody closed it: for people, with what to do.
pub(super) fn reason(client: &Client, why: &EndReason) -> String {
    match why {
        EndReason::Refused { code: ErrorCode::Replaced, .. } => format!(
            "another client is device {:?} of {} now, here or on another machine, and a device has one session at a time: give each a name \
             of its own (--device NAME)",
            client.device().as_str(),
            client.user(),
        ),
        why => why.to_string(),
    }
}

/// Says why there is no connection, and with which code to end.
pub(super) fn failed(error: &ConnectError) -> ExitCode {
    eprintln!("whimbrel: {error}");
    match error {
        ConnectError::Start(_) | ConnectError::Mismatch(_) => ExitCode::from(exit::USAGE),
        ConnectError::Ended(why) => code(why),
        _ => ExitCode::from(exit::NO_CONNECTION),
    }
}

/// The code to end with when a client ended by itself.
pub(super) fn code(why: &EndReason) -> ExitCode {
    ExitCode::from(if matches!(why, EndReason::State(_)) { exit::USAGE } else { exit::REFUSED })
}

/// Waits for a moment; for ever if there is none.
pub(super) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use whimbrel_client::protocol::DeviceId;

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
        let base = connect(&["--state", "/s"]).folder();
        assert_eq!(base, Path::new("/s/ann%2f..%2fb"));
        assert_eq!(base.join(file_name("..")), Path::new("/s/ann%2f..%2fb/%2e."));
        assert!(!file_name("+=").contains([OWN, NAMED]), "no name has a sign, so none has the folder of one with a sign");
    }

    #[test]
    fn a_device_from_before_there_were_signs_keeps_its_folder() {
        for sign in [OWN, NAMED] {
            let base = tempfile::tempdir().unwrap();
            let (now, before) = (base.path().join(format!("{sign}send")), base.path().join("send"));
            assert_eq!(folder_of(base.path(), sign, "send"), now);
            std::fs::create_dir(&before).unwrap();
            assert_eq!(folder_of(base.path(), sign, "send"), before);
            std::fs::create_dir(&now).unwrap();
            assert_eq!(folder_of(base.path(), sign, "send"), now, "it was there first");
        }
    }

    #[test]
    fn a_name_that_is_made_up_fits() {
        let long = "x".repeat(300);
        let name = slot_name(&connect(&["--url", &format!("https://{long}:8443")]).own_device("listen"), SLOTS);
        assert!(name.len() + "-01234567".len() <= DeviceId::MAX_BYTES, "{name}");
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
