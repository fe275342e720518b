//! What can be set: defaults, then a file, then the environment, then flags. Unknown keys are errors.

use crate::transport::Pages;
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file that is read where none is named, if it is there.
const DEFAULT_FILE: &str = "whimbrel.toml";

/// The longest grace, a day: it is added to instants, whose sums end somewhere.
const PRESENCE_GRACE_MAX: u64 = 86_400;

/// Where things lie: the flags of every command that looks after a server's files, so that it finds them where the server does.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct Places {
    /// Folder of the embedded store; made on first start. Unless said `data`.
    #[arg(long, env = "WHIMBREL_DATA", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Folder of keys and certificates; made on first start. Unless said `certs`.
    #[arg(long, env = "WHIMBREL_CERTS", value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs: Option<PathBuf>,
    /// Where messages are kept: `sqlite:PATH`. Unless said the file `whimbrel.db` in the folder of the store.
    #[arg(long, env = "WHIMBREL_STORE", value_name = "URL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// File with the flags of `whimbrel serve` as keys in TOML; `whimbrel.toml` if it is there.
    #[arg(long, env = "WHIMBREL_CONFIG", value_name = "FILE", global = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// Flags of `whimbrel serve`, each also in the environment and in the file.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct Flags {
    /// Address for plain TCP: pages, HTTP API, WebSocket. Unless said 127.0.0.1:8080.
    #[arg(long, env = "WHIMBREL_HTTP", value_name = "ADDR", value_parser = address)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Address for TLS (TCP) and for QUIC (UDP, the same number). Unless said 127.0.0.1:8443.
    #[arg(long, env = "WHIMBREL_SECURE", value_name = "ADDR", value_parser = address)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<SocketAddr>,
    /// Where things lie.
    #[command(flatten)]
    #[serde(flatten)]
    pub places: Places,
    /// Who may come in. There is only `open` so far: clients say who they are, from loopback only.
    #[arg(long, env = "WHIMBREL_AUTH", value_name = "MODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthMode>,
    /// Serve without authentication even beyond loopback.
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    pub open_anywhere: bool,
    /// Origins whose pages may connect and use the lobby, such as `https://shop.example.org`, with commas between them, beside the server's own
    /// at the address that it listens on (say those too if it listens on all, or has a name); `*` for all. Unless said all, or, with `--auth open` on loopback, the pages of this
    /// machine. Once said, only these may also read the status, which otherwise all may. Programs are not asked.
    #[arg(long, env = "WHIMBREL_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origins: Option<Vec<String>>,
    /// Seconds for which a user without a connection still counts as online. Unless said 15.
    #[arg(long, env = "WHIMBREL_PRESENCE_GRACE", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_grace: Option<u64>,
    /// Entries kept in each mailbox, at least 1; a device that was away longer gets a snapshot. Conversations keep their messages. Unless
    /// said 100000.
    #[arg(long, env = "WHIMBREL_MAILBOX_ENTRIES", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_entries: Option<u64>,
    /// Days for which entries are kept in each mailbox, at least 1. Unless said 365.
    #[arg(long, env = "WHIMBREL_MAILBOX_DAYS", value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_days: Option<u64>,
    /// Sessions at a time, at least 1; who comes beyond that is told to come later. One over WebTransport takes 70 KiB of memory, over
    /// WebSocket 10. Unless said 50000.
    #[arg(long, env = "WHIMBREL_MAX_SESSIONS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<usize>,
    /// Where to say, by a POST, that devices have a message which they may not get over a session: the way to APNs, FCM and Web Push. Unless
    /// said nobody is told.
    #[arg(long, env = "WHIMBREL_PUSH_URL", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_url: Option<String>,
    /// Seconds that a device which looks connected has to acknowledge a message, before that is said of it too, at least 1. Unless said 10.
    #[arg(long, env = "WHIMBREL_PUSH_PATIENCE", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_patience: Option<u64>,
    /// What these are signed with: `whsec_` and then 24 to 64 bytes in base64. Better in the environment or the file than on the command line,
    /// which others on the machine can read.
    #[arg(long, env = "WHIMBREL_PUSH_SECRET", hide_env_values = true, value_name = "SECRET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_secret: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Clients say who they are.
    Open,
}

/// What `whimbrel serve` runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Config {
    /// Address for plain TCP.
    #[serde(deserialize_with = "address_of_file")]
    pub http: SocketAddr,
    /// Address for TLS and QUIC.
    #[serde(deserialize_with = "address_of_file")]
    pub secure: SocketAddr,
    /// Folder of the embedded store.
    pub data: PathBuf,
    /// Folder of keys and certificates.
    pub certs: PathBuf,
    /// Where messages are kept; by default a file under `data`.
    pub store: Option<String>,
    /// Who may come in.
    pub auth: AuthMode,
    /// Whether `open` may be served beyond loopback.
    pub open_anywhere: bool,
    /// Origins whose pages may connect; all of them, or those of this machine, where none are said.
    pub origins: Option<Vec<String>>,
    /// Seconds for which a user without a connection still counts as online: a change of network takes a few, a lift half a minute.
    pub presence_grace: u64,
    /// Entries kept in each mailbox.
    pub mailbox_entries: u64,
    /// Days for which entries are kept in each mailbox.
    pub mailbox_days: u64,
    /// Sessions at a time.
    pub max_sessions: usize,
    /// Where hints go.
    pub push_url: Option<String>,
    /// Seconds that a device which looks connected has to acknowledge a message.
    pub push_patience: u64,
    /// What they are signed with.
    pub push_secret: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            secure: SocketAddr::from(([127, 0, 0, 1], 8443)),
            data: PathBuf::from("data"),
            certs: PathBuf::from("certs"),
            store: None,
            auth: AuthMode::Open,
            open_anywhere: false,
            origins: None,
            presence_grace: 15,
            mailbox_entries: 100_000,
            mailbox_days: 365,
            max_sessions: 50_000,
            push_url: None,
            push_patience: 10,
            push_secret: None,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is unknown, or a value is not what the key takes.
    #[error("configuration: {}", told(.0))]
    Invalid(#[from] Box<figment::Error>),
    /// The file that was named is not there.
    #[error("the configuration file {0} is not there")]
    NoFile(PathBuf),
    /// `open` would be served to everybody.
    #[error(
        "with --auth open anybody can be anybody, so it is served on loopback only, and {0} is not: bind to 127.0.0.1, or say --open-anywhere if the network is yours"
    )]
    OpenBeyondLoopback(SocketAddr),
    /// A store that this version does not have.
    #[error("the store {0:?} is not known: use sqlite:PATH")]
    UnknownStore(String),
    /// Users would hardly ever go offline.
    #[error("presence_grace (--presence-grace) is {0} seconds, and may be at most {PRESENCE_GRACE_MAX}, a day")]
    GraceTooLong(u64),
    /// Push would come for everything, or never.
    #[error("push_patience (--push-patience) is {0} seconds: give 1 to {PRESENCE_GRACE_MAX}, a day")]
    BadPatience(u64),
    /// A page's origin is not one.
    #[error(
        "origins (--origins) has {0:?}: give scheme and host, and the port if it is not the scheme's own, without a path, such as https://shop.example.org or http://localhost:3000; or * for all"
    )]
    BadOrigin(String),
    /// Plain and TLS at one port.
    #[error("plain TCP (--http) and TLS (--secure) cannot both be at {0}: give one of them another port")]
    OneAddress(SocketAddr),
    /// Nobody could come in.
    #[error("max_sessions (--max-sessions) is 0: nobody could come in; 1 is the least")]
    NoSessions,
    /// Nothing would be kept in mailboxes.
    #[error("{key} is 0, and must be at least 1: a device that was away for a moment would miss what came meanwhile")]
    NothingKept {
        /// Which key.
        key: &'static str,
    },
    /// `PORT` is not a port.
    #[error("PORT is {0:?}, which is not a port number")]
    BadPort(String),
}

/// Whether this is what a browser says where a page is from.
fn is_origin(text: &str) -> bool {
    let parsed = text.parse::<axum::http::Uri>().ok();
    // A URI has a path, if only `/`, which an origin has not.
    parsed.is_some_and(|uri| {
        uri.scheme_str().is_some_and(|scheme| text == format!("{scheme}://{}", uri.authority().map_or("", |host| host.as_str())))
    })
}

/// Reads where to listen.
fn address(text: &str) -> Result<SocketAddr, String> {
    let number = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    number.as_deref().unwrap_or(text).parse().map_err(|_| {
        "give an IP address and a port, such as 127.0.0.1:8080 (this machine only), 0.0.0.0:8080 (every network) or [::1]:8080".into()
    })
}

fn address_of_file<'de, D: Deserializer<'de>>(value: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(value)?;
    address(&text).map_err(|why| D::Error::custom(format!("{text:?}: {why}")))
}

/// What is wrong in a file, and where.
fn told(error: &figment::Error) -> String {
    let file = error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref()).map(|source| format!("{source}: "));
    let (file, key) = (file.unwrap_or_default(), error.path.join("."));
    match &error.kind {
        figment::error::Kind::UnknownField(field, known) => format!("{file}there is no key {field:?}: choose from {}", known.join(", ")),
        kind if key.is_empty() => format!("{file}{}", kind.to_string().trim_end()),
        kind => format!("{file}{key}: {kind}"),
    }
}

impl Config {
    /// Puts the configuration together, for serving. `port` is the environment's `PORT`, as hosting platforms set it: the port of `http`
    /// where nothing more specific is said; empty is not set.
    ///
    /// # Errors
    /// If a key is unknown, a value unusable, or the whole unsafe.
    pub fn load(flags: &Flags, port: Option<&str>) -> Result<Self, ConfigError> {
        let mut defaults = Self::default();
        if let Some(port) = port.filter(|port| !port.is_empty()) {
            let port: u16 = port.parse().map_err(|_| ConfigError::BadPort(port.into()))?;
            defaults.http.set_port(port);
        }
        let config = Self::read(defaults, flags)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as it is read for commands that do not serve, of which only the places are of use to them.
    ///
    /// # Errors
    /// If a key is unknown or a value not what the key takes.
    pub fn locate(places: Places) -> Result<Self, ConfigError> {
        Self::read(Self::default(), &Flags { places, ..Flags::default() })
    }

    fn read(defaults: Self, flags: &Flags) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(defaults));
        match &flags.places.config {
            Some(file) if !file.is_file() => return Err(ConfigError::NoFile(file.clone())),
            Some(file) => figment = figment.merge(Toml::file_exact(file)),
            None if Path::new(DEFAULT_FILE).is_file() => figment = figment.merge(Toml::file_exact(DEFAULT_FILE)),
            None => {}
        }
        Ok(figment.merge(Serialized::defaults(flags)).extract().map_err(Box::new)?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.presence_grace > PRESENCE_GRACE_MAX {
            return Err(ConfigError::GraceTooLong(self.presence_grace));
        }
        if let Some(bad) = self.origins.iter().flatten().find(|origin| *origin != "*" && !is_origin(origin)) {
            return Err(ConfigError::BadOrigin(bad.clone()));
        }
        if !(1..=PRESENCE_GRACE_MAX).contains(&self.push_patience) {
            return Err(ConfigError::BadPatience(self.push_patience));
        }
        if self.http == self.secure && self.http.port() != 0 {
            return Err(ConfigError::OneAddress(self.http));
        }
        let kept = [("mailbox_entries (--mailbox-entries)", self.mailbox_entries), ("mailbox_days (--mailbox-days)", self.mailbox_days)];
        if let Some((key, _)) = kept.into_iter().find(|(_, kept)| *kept == 0) {
            return Err(ConfigError::NothingKept { key });
        }
        if self.max_sessions == 0 {
            return Err(ConfigError::NoSessions);
        }
        let beyond = [self.http, self.secure].into_iter().find(|address| !address.ip().is_loopback());
        match beyond {
            Some(address) if self.auth == AuthMode::Open && !self.open_anywhere => Err(ConfigError::OpenBeyondLoopback(address)),
            _ => self.store_path().map(drop),
        }
    }

    /// Which pages may connect.
    #[must_use]
    pub fn pages(&self) -> Pages {
        match &self.origins {
            Some(origins) if origins.iter().any(|origin| origin == "*") => Pages::Any,
            Some(origins) => Pages::Of(origins.as_slice().into()),
            None if self.auth == AuthMode::Open && !self.open_anywhere => Pages::Loopback,
            None => Pages::Any,
        }
    }

    /// Where the embedded store lies.
    ///
    /// # Errors
    /// If the store is of a kind that is not known.
    pub fn store_path(&self) -> Result<PathBuf, ConfigError> {
        match &self.store {
            None => Ok(self.data.join("whimbrel.db")),
            Some(url) => match url.strip_prefix("sqlite:") {
                Some(path) if !path.is_empty() => Ok(Path::new(path).to_path_buf()),
                _ => Err(ConfigError::UnknownStore(url.clone())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, flags: Flags) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.toml");
        std::fs::write(&file, text).unwrap();
        let places = Places { config: Some(file), ..flags.places };
        Config::load(&Flags { places, ..flags }, None)
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_defaults() {
        let flags = Flags { http: Some("127.0.0.1:1".parse().unwrap()), ..Flags::default() };
        let config = with_file("http = '127.0.0.1:2'\nsecure = '127.0.0.1:3'", flags).unwrap();
        assert_eq!((config.http.port(), config.secure.port()), (1, 3));
        assert_eq!(config.data, Path::new("data"));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = with_file("htpp = '127.0.0.1:2'", Flags::default()).unwrap_err().to_string();
        assert!(error.contains("w.toml: there is no key \"htpp\": choose from http, secure,"), "{error}");
        let error = with_file("presence_grace = 'x'", Flags::default()).unwrap_err().to_string();
        assert!(error.ends_with("w.toml: presence_grace: invalid type: found string \"x\", expected u64"), "{error}");
        let error = with_file("nonsense", Flags::default()).unwrap_err().to_string();
        assert!(error.contains("w.toml: TOML parse error at line 1"), "{error}");
    }

    #[test]
    fn where_to_listen_is_said_in_numbers_or_as_this_machine() {
        assert_eq!(address("localhost:80"), Ok("127.0.0.1:80".parse().unwrap()));
        assert_eq!(with_file("http = 'localhost:80'", Flags::default()).unwrap().http, "127.0.0.1:80".parse().unwrap());
        for bad in [":8080", "8080", "example.org:80", "localhost:", "127.0.0.1"] {
            assert!(address(bad).unwrap_err().contains("0.0.0.0:8080"), "{bad}");
            let error = with_file(&format!("http = '{bad}'"), Flags::default()).unwrap_err().to_string();
            assert!(error.contains("http: ") && error.contains("0.0.0.0:8080"), "{error}");
        }
        assert!(matches!(with_file("http = '127.0.0.1:8443'", Flags::default()), Err(ConfigError::OneAddress(_))));
        assert!(with_file("http = '127.0.0.1:0'\nsecure = '127.0.0.1:0'", Flags::default()).is_ok());
    }

    #[test]
    fn help_says_what_holds_unless_something_is_said() {
        let config = Config::default();
        let mut help = <Flags as clap::Args>::augment_args(clap::Command::new("serve"));
        let help = help.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for default in [config.http.to_string(), config.secure.to_string()] {
            assert!(help.contains(&format!("Unless said {default} [env")), "{default}: {help}");
        }
        for default in
            [config.presence_grace, config.mailbox_entries, config.mailbox_days, config.max_sessions as u64, config.push_patience]
        {
            assert!(help.contains(&format!("Unless said {default} [env")), "{default}: {help}");
        }
        for default in [config.data, config.certs] {
            assert!(help.contains(&format!("Unless said `{}`", default.display())), "{default:?}: {help}");
        }
    }

    #[test]
    fn a_mailbox_keeps_something() {
        for file in ["mailbox_days = 0", "mailbox_entries = 0"] {
            assert!(matches!(with_file(file, Flags::default()), Err(ConfigError::NothingKept { .. })), "{file}");
        }
        assert!(matches!(with_file("max_sessions = 0", Flags::default()), Err(ConfigError::NoSessions)));
    }

    #[test]
    fn open_is_not_served_to_the_world_by_accident() {
        let flags = Flags { http: Some("0.0.0.0:8080".parse().unwrap()), ..Flags::default() };
        assert!(matches!(with_file("", flags.clone()), Err(ConfigError::OpenBeyondLoopback(_))));
        assert!(with_file("", Flags { open_anywhere: true, ..flags }).is_ok());
    }

    #[test]
    fn port_moves_the_default_only() {
        assert_eq!(Config::load(&Flags::default(), Some("9000")).unwrap().http.port(), 9000);
        let flags = Flags { http: Some("127.0.0.1:1".parse().unwrap()), ..Flags::default() };
        assert_eq!(Config::load(&flags, Some("9000")).unwrap().http.port(), 1);
        assert!(matches!(Config::load(&Flags::default(), Some("many")), Err(ConfigError::BadPort(_))));
    }

    #[test]
    fn a_store_that_is_not_known_is_refused() {
        let flags = Flags { places: Places { store: Some("mysql://x".into()), ..Places::default() }, ..Flags::default() };
        assert!(matches!(with_file("", flags), Err(ConfigError::UnknownStore(_))));
    }

    #[test]
    fn an_empty_port_is_none() {
        assert_eq!(Config::load(&Flags::default(), Some("")).unwrap().http.port(), 8080);
    }

    #[test]
    fn a_grace_that_no_clock_can_hold_is_refused() {
        for (seconds, taken) in [(PRESENCE_GRACE_MAX, true), (PRESENCE_GRACE_MAX + 1, false), (u64::MAX, false)] {
            let loaded = with_file("", Flags { presence_grace: Some(seconds), ..Flags::default() });
            assert_eq!(loaded.is_ok(), taken, "{seconds}");
            if let Err(error) = loaded {
                assert!(error.to_string().contains("presence_grace") && error.to_string().contains("at most 86400"), "{error}");
            }
        }
    }

    #[test]
    fn what_does_not_serve_finds_the_places_and_minds_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.toml");
        std::fs::write(&file, "data = 'dd'\ncerts = 'cc'\nhttp = '0.0.0.0:80'").unwrap();
        let places = Places { config: Some(file), certs: Some("mine".into()), ..Places::default() };
        let config = Config::locate(places).unwrap();
        assert_eq!((config.store_path().unwrap().as_path(), config.certs.as_path()), (Path::new("dd/whimbrel.db"), Path::new("mine")));
    }

    #[test]
    fn pages_may_connect_from_where_it_is_said() {
        let pages = |origins: &[&str], open_anywhere| {
            let origins = (!origins.is_empty()).then(|| origins.iter().map(|origin| (*origin).to_owned()).collect());
            with_file("", Flags { origins, open_anywhere, ..Flags::default() }).map(|config| config.pages())
        };
        assert_eq!(pages(&[], false).unwrap(), Pages::Loopback);
        assert_eq!(pages(&[], true).unwrap(), Pages::Any);
        assert_eq!(pages(&["https://a.example", "*"], false).unwrap(), Pages::Any);
        let both = ["https://a.example".to_owned(), "http://localhost:3000".to_owned()];
        assert_eq!(pages(&["https://a.example", "http://localhost:3000"], false).unwrap(), Pages::Of(both.into()));
        assert!(with_file("origins = ['https://a.example']", Flags::default()).is_ok());
        for bad in ["a.example", "https://a.example/", "https://a.example/chat", "", "https://"] {
            assert!(matches!(pages(&[bad], false), Err(ConfigError::BadOrigin(_))), "{bad}");
        }
    }
}
