//! What a client is to be, and how it begins.

use crate::client::Handles;
use crate::driver::{Config, Driver, Networks, Queues, networks_key};
use crate::error::BadName;
use crate::inbox::Inbox;
use crate::link::{Address, Trust, parse_pin};
use crate::state::{Keeper, MemoryStore, SqliteStore};
use crate::{Client, ConnectError, Connection, Events, StartError, StateError, Transport, Waiting};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use whimbrel_protocol::frame::Origin;
use whimbrel_protocol::{DeviceId, UserId};

/// Requests that wait for the driver; a full queue makes the caller wait.
const REQUESTS_MAX: usize = 64;
/// Calls of `send` that wait for the driver; a full queue makes the caller wait.
const SENDS_MAX: usize = 256;

/// Where a device keeps its outbox, its cursor and its messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// In memory: gone with the process. For tests, and for devices that live for a moment.
    #[default]
    Memory,
    /// In a folder, made if need be. One process at a time holds it, and it belongs to one device of one user.
    Folder(PathBuf),
}

/// How a dead connection is noticed: one whose server, or whose network, is gone without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// When nothing was heard for this long, the server is asked whether it is there: while somebody looks
    /// ([`Client::active`](crate::Client::active)), and for a minute after the application last asked for something. What is sent and
    /// stays unanswered for a few round trips is a reason to ask at once.
    pub active: Duration,
    /// The longest silence while the application is idle, from 10 s on: each packet costs a phone some battery. How long each network bears
    /// silence is found out, from 15 s to this and no more than 5 minutes; then the server asks whether the client is there. A question that
    /// does not come is missed after 10 s.
    pub idle: Duration,
    /// When the server does not answer for this long, another connection is tried beside the first, and the first that answers is used. On
    /// networks that prove to need longer, longer.
    pub give_up_after: Duration,
}

impl Default for Liveness {
    /// A dead connection is noticed within 4 + 1.5 seconds while the application is active, within 2 to 5.5 after something was sent, and
    /// otherwise within what the network bears, at most 300 + 10 + 1.5 seconds. So an idle connection costs a few small packets in 5 minutes
    /// on a network that lets it, and in 30 seconds on one of which nothing is known.
    fn default() -> Self {
        Self { active: Duration::from_secs(4), idle: Duration::from_secs(300), give_up_after: Duration::from_millis(1_500) }
    }
}

/// Describes a client. Begin with [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    url: String,
    user: String,
    device: Option<String>,
    new_device: Option<String>,
    state: State,
    token: String,
    agent: String,
    transport: Transport,
    ca: Option<PathBuf>,
    pins: Vec<String>,
    origin: Origin,
    liveness: Liveness,
    #[cfg(test)]
    pub(crate) death: Option<crate::state::Death>,
}

impl Builder {
    pub(crate) fn new(url: String, user: String) -> Self {
        Self {
            url,
            user,
            device: None,
            new_device: None,
            state: State::default(),
            token: String::new(),
            agent: concat!("whimbrel-client-rust/", env!("CARGO_PKG_VERSION")).into(),
            transport: Transport::default(),
            ca: None,
            pins: Vec::new(),
            origin: Origin::default(),
            liveness: Liveness::default(),
            #[cfg(test)]
            death: None,
        }
    }

    /// The device's name. Without one: the name that the state folder remembers, or else [`new_device`](Self::new_device), or a random one.
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into());
        self
    }

    /// The name of a device that is new: where the state folder remembers one, that one counts. For names that are made up, with a random
    /// part so that no two devices of a user have the same.
    pub fn new_device(mut self, name: impl Into<String>) -> Self {
        self.new_device = Some(name.into());
        self
    }

    /// Where the device keeps what it must not lose. [`State::Memory`] unless said.
    pub fn state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// The proof that the server wants, where it wants one.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Name and version of the application, for the server's logs.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = agent.into();
        self
    }

    /// Which transport to use. [`Transport::Auto`] unless said.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Believe certificates that this CA signed: a PEM file, or a server's certs directory with a `ca.pem`.
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Believe the certificate with this SHA-256 (hexadecimal or base64). May be called several times. Over QUIC such a certificate
    /// must keep the rules that browsers have for hashes: ECDSA P-256, valid for at most 14 days.
    pub fn pin(mut self, hash: impl Into<String>) -> Self {
        self.pins.push(hash.into());
        self
    }

    /// Where a device begins that was never here. A snapshot of the conversations unless said.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// How a dead connection is noticed.
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Starts the client and returns at once: it keeps trying to connect until it is told to stop, or the server refuses it for good.
    ///
    /// # Errors
    /// If what was described cannot be, or the state cannot be opened.
    pub async fn start(self) -> Result<(Client, Events), StartError> {
        let server = Address::of_server(&self.url).map_err(|why| StartError::Url(why.to_string()))?;
        let opening = self.opening()?;
        let user = opening.user.clone();
        let pins = self.pins.iter().map(|pin| parse_pin(pin)).collect::<Result<Vec<_>, _>>()?;
        let trust = load_trust(self.ca, pins).await?;
        if server.secure && !trust.is_configured() {
            return Err(StartError::NothingToTrust { url: self.url });
        }
        let (keeper, device) = opening.open(self.state).await?;
        let key = networks_key(&server);
        let loaded = keeper.read(move |store| Ok((store.load()?, store.note(&key)?))).await;
        let (loaded, note) = match loaded {
            Ok(loaded) => loaded,
            Err(why) => {
                // The folder is free again when this returns.
                keeper.stop().await;
                return Err(why.into());
            }
        };
        let networks = Networks::load(&server, note.as_deref());
        let config = Config {
            server,
            trust,
            transport: self.transport,
            user: user.clone(),
            device: device.clone(),
            token: self.token,
            agent: self.agent,
            origin: self.origin,
            liveness: self.liveness,
        };
        let inbox = Arc::new(Inbox::default());
        let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
        let (sends, send_queue) = mpsc::channel(SENDS_MAX);
        let (state, connection) = watch::channel(Connection::Connecting { attempt: 1, why: None });
        let (looking, active) = watch::channel(false);
        let queues = Queues { inbox: Arc::clone(&inbox), requests: request_queue, sends: send_queue, active, connection: state };
        let driver = Driver::new(config, loaded, networks, keeper.clone(), queues);
        tokio::spawn(driver.run());
        Ok((Client::new(user, device, Handles { requests, sends, active: looking, connection, keeper }), Events::new(inbox)))
    }

    /// What is in the outbox of this device, without starting it: no server is asked. As [`Client::outbox`].
    ///
    /// # Errors
    /// If what was described cannot be, or the state cannot be opened, as while a client holds it.
    pub async fn outbox(self) -> Result<Vec<Waiting>, StartError> {
        let (keeper, _) = self.opening()?.open(self.state).await?;
        let waiting = keeper.read(|store| store.waiting()).await;
        // The folder is free again when this returns.
        keeper.stop().await;
        Ok(waiting?)
    }

    fn opening(&self) -> Result<Opening, StartError> {
        let name = |what, name: &str, reason| BadName { name: name.into(), what, reason };
        let device_id = |device: &str| DeviceId::new(device).map_err(|reason| name("device", device, reason));
        let made_up = || format!("rust-{:016x}", rand::random::<u64>());
        Ok(Opening {
            user: UserId::new(&self.user).map_err(|reason| name("user", &self.user, reason))?,
            wanted: self.device.as_deref().map(device_id).transpose()?,
            fresh: device_id(&self.new_device.clone().unwrap_or_else(made_up))?,
            #[cfg(test)]
            death: self.death.clone(),
        })
    }

    /// Starts the client and waits for the first session.
    ///
    /// # Errors
    /// As [`start`](Self::start), or if the first attempt fails: the client has ended then.
    pub async fn connect(self) -> Result<(Client, Events), ConnectError> {
        let (client, events) = self.start().await?;
        let mut connection = client.connection();
        // Cloned: what is borrowed from the channel must not be held across an await.
        let settled = connection.wait_for(|state| !matches!(state, Connection::Connecting { .. })).await.map(|state| state.clone());
        let failure = match settled {
            Ok(Connection::Connected { .. } | Connection::Connecting { .. }) => None,
            Ok(Connection::Offline { why, mismatch: true, .. }) => Some(ConnectError::Mismatch(why)),
            Ok(Connection::Offline { why, .. }) => Some(ConnectError::Unreachable(why)),
            Ok(Connection::Ended { error: Some(error) }) => Some(ConnectError::Ended(error)),
            Ok(Connection::Ended { error: None }) | Err(_) => Some(ConnectError::Unreachable("the client has ended".into())),
        };
        match failure {
            None => Ok((client, events)),
            Some(failure) => {
                client.close().await;
                Err(failure)
            }
        }
    }
}

/// Reads whom to believe.
pub(crate) async fn load_trust(ca: Option<PathBuf>, pins: Vec<[u8; 32]>) -> Result<Trust, StartError> {
    // A file is read: not on an async thread.
    let loaded = tokio::task::spawn_blocking(move || Trust::load(ca.as_deref(), pins)).await;
    loaded.map_err(|why| StartError::Ca(why.to_string()))?.map_err(StartError::from)
}

/// Whose state is to be opened.
struct Opening {
    user: UserId,
    wanted: Option<DeviceId>,
    /// Its name if nobody has said another.
    fresh: DeviceId,
    #[cfg(test)]
    death: Option<crate::state::Death>,
}

impl Opening {
    async fn open(self, state: State) -> Result<(Keeper, DeviceId), StateError> {
        let folder = match state {
            State::Memory => return Ok((Keeper::in_place(MemoryStore::default()), self.wanted.unwrap_or(self.fresh))),
            State::Folder(folder) => folder,
        };
        let (told, device) = tokio::sync::oneshot::channel();
        let keeper = Keeper::on_thread(move || {
            #[cfg_attr(not(test), expect(unused_mut, reason = "tests decide when it dies"))]
            let (mut store, device) = SqliteStore::open(&folder, &self.user, self.wanted.as_ref(), &self.fresh)?;
            #[cfg(test)]
            {
                store.death = self.death;
            }
            // The receiver waits below, unless the whole attempt was given up.
            let _ = told.send(device.device);
            Ok(store)
        })
        .await?;
        Ok((keeper, device.await.map_err(|_| StateError::Closed)?))
    }
}
