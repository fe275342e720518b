//! The assembly: the order in which parts start and stop.

use crate::config::{AuthMode, Config, ConfigError};
use crate::engine::{Engine, EngineConfig, Pushing};
use crate::gateway::Gateway;
use crate::http::{self, Http};
use crate::lobby::{Listener, Lobby};
use crate::push::{PushError, Webhook};
use crate::session::{self, Admission, Context};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Retention, Store, StoreError};
use crate::tls::{Keys, TlsError};
use crate::transport::quic::{BindError, QuicListener, QuicOptions};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use whimbrel_protocol::frame::{Endpoint, Hello};

/// How long sessions have to leave when the server drains. With what follows it stays below the promised 10 seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// In this part of it all are told, however slowly they leave …
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// … but no faster than they do while so many have been told and are still here: beyond that what they say to it waits in the socket for so long
/// that QUIC says everything again.
const TOLD_AT_ONCE: usize = 128;
/// How long connections have to close after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long QUIC connections have to be forgotten whose sessions have left before: until then they answer what is still under way, but who
/// is to come back should find the next server.
const CLOSED: Duration = Duration::from_millis(100);
/// How long those have who are told which devices to wake.
const HINTS_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets that wait for us, and for the network, in bytes; each counts for 1 to 2 KiB. Some 2,000 first packets, and more of those who are here.
const UDP_BUFFER: usize = 4 << 20;
/// How often a pair of free ports with one number is looked for, where the system picks.
const PORT_TRIES: usize = 50;

/// Why the server could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// Keys or certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be bound.
    #[error("cannot listen on {protocol} {address}: {why}: {}", advice(why, flag))]
    Bind {
        /// TCP or UDP.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system says.
        why: std::io::Error,
    },
    /// The QUIC endpoint cannot be bound.
    #[error(transparent)]
    Quic(#[from] BindError),
    /// Hints cannot be brought anywhere.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The system refused something else.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        why: std::io::Error,
    },
}

/// A running server.
pub struct Server {
    /// Where plain TCP is served.
    pub http: SocketAddr,
    /// Where TLS is served.
    pub secure: SocketAddr,
    /// Where QUIC is served.
    pub quic: SocketAddr,
    engine: Arc<Engine>,
    state: Arc<Http>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    listener: Arc<QuicListener>,
    tasks: JoinSet<()>,
    /// Who brings hints, if anybody does.
    hints: Option<(Arc<Webhook>, JoinHandle<()>)>,
}

impl Server {
    /// Starts everything. When this returns, clients can connect.
    ///
    /// # Errors
    /// If a part cannot start; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let (url, secret) = (config.push_url.clone(), config.push_secret.clone());
        let webhook = blocking(move || open_webhook(url.as_deref(), secret.as_deref())).await??;
        // First: a server that cannot listen leaves no folders behind.
        let plain = bind(config.http, "--http")?;
        let (tls, udp) = bind_secure(config.secure)?;

        let path = config.store_path()?;
        let store = blocking(move || open_store(&path)).await??;
        let names = certificate_names(&config);
        let certs = config.certs.clone();
        let keys = blocking(move || Keys::open(&certs, &names)).await??;

        let at = |listener: &TcpListener| listener.local_addr().map_err(|why| ServerError::System { what: "cannot read an address", why });
        let (http, secure) = (at(&plain)?, at(&tls)?);
        let pages = config.pages().with_own(http, secure);
        let listener = Arc::new(QuicListener::on(udp, &keys, QuicOptions { pages: pages.clone(), ..QuicOptions::default() })?);
        let quic = listener.local_addr();

        let engine_config = EngineConfig {
            presence_grace: Duration::from_secs(config.presence_grace),
            retention: Retention { entries: config.mailbox_entries, age: Duration::from_secs(config.mailbox_days.saturating_mul(86_400)) },
            push: webhook.clone().map(|webhook| Pushing { push: webhook, patience: Duration::from_secs(config.push_patience) }),
        };
        let engine =
            Engine::start(store, engine_config).map_err(|why| ServerError::System { what: "cannot start the engine's threads", why })?;
        let context = Arc::new(Context {
            engine: engine.clone(),
            endpoints: endpoints(keys.clone(), quic),
            auth: match config.auth {
                AuthMode::Open => Box::new(|hello: &Hello| Ok(hello.user.clone())),
            },
            admission: Admission::new(config.max_sessions, Engine::sessions_a_second()),
        });
        let lobby = Arc::new(Lobby::default());
        let state = Arc::new(Http {
            engine: engine.clone(),
            context: context.clone(),
            keys: keys.clone(),
            quic,
            pages,
            metrics: metrics_handle(),
            gateway: Gateway::new(context.clone(), lobby.clone()),
            lobby,
            draining: AtomicBool::new(false),
        });

        let mut tasks = JoinSet::new();
        tasks.spawn(engine.clone().tend_presence());
        tasks.spawn(engine.clone().tend_mailboxes());
        tasks.spawn(keys.clone().run_renewal());
        tasks.spawn(upkeep(state.metrics.clone()));
        tasks.spawn(accept_quic(listener.clone(), context));
        tasks.spawn(state.gateway.clone().tend());
        tasks.spawn(tell_lobby(state.lobby.listen(), engine.clone()));
        let hints = webhook.map(|webhook| (webhook.clone(), tokio::spawn(webhook.run())));
        let (stop, stopped) = watch::channel(false);
        let mut servers = JoinSet::new();
        servers.spawn(http::listener::serve(plain, http::router(state.clone(), false), None, stopped.clone()));
        let config = keys.tcp_config(&[b"http/1.1"]);
        servers.spawn(http::listener::serve(tls, http::router(state.clone(), true), Some(config), stopped));
        Ok(Self { http, secure, quic, engine, state, stop, servers, listener, tasks, hints })
    }

    /// Drains and stops: every session is told, what was taken in is committed, all that is kept is written.
    pub async fn shutdown(mut self) {
        self.state.draining.store(true, Ordering::Relaxed);
        let (admission, begun) = (&self.state.context.admission, Instant::now());
        admission.close();
        self.state.gateway.leave();
        let told = self.engine.drain();
        self.state.lobby.close();
        let sessions = admission.here();
        let left = async {
            for (number, (session, at)) in told.iter().enumerate() {
                let due = TOLD_WITHIN.mul_f64(number as f64 / told.len() as f64);
                while number.saturating_sub(sessions.saturating_sub(admission.here())) >= TOLD_AT_ONCE && begun.elapsed() < due {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let meanwhile = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
                session.leave(at.saturating_sub(meanwhile));
            }
            while admission.here() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, left).await.is_err() {
            tracing::warn!(sessions = admission.here(), "some sessions did not leave in time");
        }
        tracing::info!(sessions, took = ?begun.elapsed(), "sessions were told when to come back, and left");
        self.state.gateway.close();
        self.state.gateway.save().await;
        // It fails only if nobody listens any more, which is what it asks for.
        let _ = self.stop.send(true);
        let requests = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, requests).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
        self.listener.shutdown(CLOSED).await;
        self.tasks.shutdown().await;
        let (engine, keys) = (self.engine, self.state.keys.clone());
        let write = move || {
            engine.stop();
            keys.close();
        };
        if tokio::task::spawn_blocking(write).await.is_err() {
            tracing::error!("the engine did not stop cleanly");
        }
        if let Some((webhook, bringing)) = self.hints {
            webhook.close();
            let abort = bringing.abort_handle();
            if tokio::time::timeout(HINTS_TIMEOUT, bringing).await.is_err() {
                tracing::warn!("some hints were given up: the receiver did not take them in time");
                abort.abort();
            }
        }
    }
}

/// What is said in the lobby is told to the sessions that want to hear it.
async fn tell_lobby(mut lines: Listener, engine: Arc<Engine>) {
    while let Some(text) = lines.next().await {
        engine.hub().say_in_lobby(&text);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServerError> {
    let why = |why: tokio::task::JoinError| ServerError::System { what: "a start-up step failed", why: std::io::Error::other(why) };
    tokio::task::spawn_blocking(work).await.map_err(why)
}

/// Where hints go, if that is said. Empty is not said.
fn open_webhook(url: Option<&str>, secret: Option<&str>) -> Result<Option<Arc<Webhook>>, PushError> {
    match (url.filter(|url| !url.is_empty()), secret.filter(|secret| !secret.is_empty())) {
        (Some(url), secret) => {
            if secret.is_none() {
                tracing::warn!(
                    "hints are not signed: whoever knows where they go can send others; set WHIMBREL_PUSH_SECRET (docs/push.md)"
                );
            }
            Webhook::open(url, secret).map(Arc::new).map(Some)
        }
        (None, Some(_)) => Err(PushError::NoUrl),
        (None, None) => Ok(None),
    }
}

fn open_store(path: &std::path::Path) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let advice = "choose another place with --data, or make it one where this user may write";
        let folder_is_file = if folder.is_file() { " (it is a file)" } else { "" };
        let why = |why| StoreError::Unavailable(format!("cannot make the folder {}{folder_is_file}: {why}: {advice}", folder.display()));
        private_folder(folder).map_err(why)?;
    }
    Ok(Arc::new(SqliteStore::open(path, SqliteOptions::default())?))
}

/// Makes a folder, if it is not there, that nobody else on the machine can look into: what people say is in it.
fn private_folder(folder: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Names that certificates are made for: where the server is bound, beside those they always have.
fn certificate_names(config: &Config) -> Vec<String> {
    let bound = [config.http, config.secure].into_iter().map(|address| address.ip());
    bound.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()).collect()
}

fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServerError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|why| ServerError::Bind { protocol: "TCP", address, flag, why })
}

/// TCP and UDP with one number. Where the system picks it, the other may be taken: then another pair is tried.
fn bind_secure(address: SocketAddr) -> Result<(TcpListener, UdpSocket), ServerError> {
    let flag = "--secure";
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = bind(address, flag)?;
        let port = tcp.local_addr().map_err(|why| ServerError::Bind { protocol: "TCP", address, flag, why })?.port();
        match UdpSocket::bind(SocketAddr::new(address.ip(), port)) {
            Ok(udp) => {
                enlarge(&udp);
                return Ok((tcp, udp));
            }
            Err(why) if tries == 0 => return Err(ServerError::Bind { protocol: "UDP", address, flag, why }),
            Err(_) => {}
        }
    }
}

/// All clients of QUIC share one socket, whose buffers the system makes for one: when thousands come at once most of their first packets
/// would be lost, and come again after a second, two, four.
fn enlarge(udp: &UdpSocket) {
    let socket = socket2::SockRef::from(udp);
    let asked = socket.set_recv_buffer_size(UDP_BUFFER).and_then(|()| socket.set_send_buffer_size(UDP_BUFFER));
    match asked.and_then(|()| socket.recv_buffer_size()) {
        Ok(bytes) if bytes >= UDP_BUFFER => {}
        // Linux gives less without a word where net.core.rmem_max is lower.
        Ok(bytes) => tracing::debug!(bytes, wanted = UDP_BUFFER, "the system limits the UDP buffers: see docs/limits.md"),
        Err(why) => tracing::warn!(%why, "the UDP buffers stay as they are: see docs/limits.md"),
    }
}

/// What to do about an address that cannot be had.
fn advice(why: &std::io::Error, flag: &str) -> String {
    match why.kind() {
        ErrorKind::AddrInUse => format!("something else listens there, perhaps another Whimbrel: choose another address with {flag}"),
        ErrorKind::AddrNotAvailable => format!("this machine has no such address: choose one that it has, or 0.0.0.0 for all, with {flag}"),
        ErrorKind::PermissionDenied => format!("this user may not have that port: choose one above 1023 with {flag}"),
        _ => format!("choose another address with {flag}"),
    }
}

fn endpoints(keys: Keys, quic: SocketAddr) -> Box<session::Endpoints> {
    Box::new(move || {
        // Bound to every address we do not know which one the client sees: `/.well-known/whimbrel` does, from its own request.
        if quic.ip().is_unspecified() {
            return Vec::new();
        }
        vec![Endpoint::WebTransport { url: format!("https://{quic}/wt"), certificate_hashes: keys.hashes() }]
    })
}

/// One recorder a process, however many servers it runs.
fn metrics_handle() -> PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    let install = || {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder is installed: /metrics stays empty");
        }
        handle
    };
    HANDLE.get_or_init(install).clone()
}

/// Keeps histograms from growing while nobody asks for them.
async fn upkeep(metrics: PrometheusHandle) {
    let mut interval = tokio::time::interval(Duration::from_secs(5));
    loop {
        interval.tick().await;
        metrics.run_upkeep();
    }
}

async fn accept_quic(listener: Arc<QuicListener>, context: Arc<Context>) {
    let mut sessions = JoinSet::new();
    while let Some(mut session) = listener.accept().await {
        let peer = session.peer();
        let (source, sink) = session.split();
        sessions.spawn(session::serve(context.clone(), peer, source, sink));
        while sessions.try_join_next().is_some() {}
    }
    sessions.detach_all();
}
