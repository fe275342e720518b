//! Why can I not connect? Each step of connecting by itself, in the order in which they depend on each other, with what to do about it.
//!
//! Nothing is sent on what is opened, unless a user is named: then a session begins as the device `doctor`, and ends.

mod examination;
mod mends;

use crate::error::BadName;
use crate::link::{Address, parse_pin};
use crate::{StartError, TransportKind};
use examination::Examination;
use std::path::PathBuf;
use std::time::Duration;
use whimbrel_protocol::frame::{Hello, Origin};
use whimbrel_protocol::{DOCTOR, DeviceId, Incarnation, Nonce, UserId, VERSION_MAX, VERSION_MIN};

/// A step of connecting, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The name of the server has an address.
    Name,
    /// Something listens there.
    Tcp,
    /// It proves that it is the server.
    Tls,
    /// It says how to reach it.
    Discovery,
    /// Its clock and this machine's agree.
    Clock,
    /// UDP gets through, and QUIC answers.
    Quic,
    /// So does WebTransport.
    WebTransport,
    /// A WebSocket can be opened.
    WebSocket,
    /// The server lets the user in.
    Session,
}

impl Step {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Discovery => "discovery",
            Self::Clock => "clock",
            Self::Quic => "UDP, QUIC",
            Self::WebTransport => "WebTransport",
            Self::WebSocket => "WebSocket",
            Self::Session => "session",
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It works: what was seen.
    Works(String),
    /// It was not tried: why.
    Skipped(String),
    /// It does not work.
    Fails {
        /// What was seen.
        why: String,
        /// What to do.
        mend: String,
    },
}

/// A step, what came of it, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub step: Step,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What it all means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnosis {
    /// What a session can be had over, the best first.
    pub usable: Vec<TransportKind>,
    /// The server refused the user that was named, or something that is not about the way to it.
    pub refused: bool,
}

/// Looks at the way to one server.
#[derive(Debug, Clone)]
pub struct Doctor {
    url: String,
    ca: Option<PathBuf>,
    pins: Vec<String>,
    session: Option<(String, String)>,
}

impl Doctor {
    /// Of the server at `url`, as clients are given it.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca: None, pins: Vec::new(), session: None }
    }

    /// As [`Builder::ca`](crate::Builder::ca).
    #[must_use]
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// As [`Builder::pin`](crate::Builder::pin).
    #[must_use]
    pub fn pin(mut self, hash: impl Into<String>) -> Self {
        self.pins.push(hash.into());
        self
    }

    /// Also tries whether this user is let in with this token (empty: none), as the device `doctor`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>, token: impl Into<String>) -> Self {
        self.session = Some((user.into(), token.into()));
        self
    }

    /// Takes each step, and tells of each: one that needs another that failed is skipped.
    ///
    /// # Errors
    /// If the URL, the user's name, the CA or a hash cannot be used.
    pub async fn examine(self, tell: impl FnMut(Finding)) -> Result<Diagnosis, StartError> {
        let address = Address::of_server(&self.url).map_err(|why| StartError::Url(why.to_string()))?;
        let pins = self.pins.iter().map(|pin| parse_pin(pin)).collect::<Result<Vec<_>, _>>()?;
        let trust = crate::builder::load_trust(self.ca, pins).await?;
        let hello = self.session.map(|(user, token)| hello(&user, token)).transpose()?;
        Ok(Examination::new(address, trust, hello, tell).run().await)
    }
}

fn hello(user: &str, token: String) -> Result<Hello, StartError> {
    let bad = |what, name: &str, reason| BadName { name: name.into(), what, reason };
    Ok(Hello {
        min_version: VERSION_MIN,
        max_version: VERSION_MAX,
        user: UserId::new(user).map_err(|reason| bad("user", user, reason))?,
        device: DeviceId::new(DOCTOR).map_err(|reason| bad("device", DOCTOR, reason))?,
        token,
        agent: concat!("whimbrel-doctor/", env!("CARGO_PKG_VERSION")).into(),
        instance: Nonce(rand::random()),
        attempt: 1,
        incarnation: Incarnation(0),
        position: None,
        origin: Origin::Now,
        extensions: Vec::new(),
    })
}
