//! QUIC: the endpoint, and sessions with one bidirectional stream of postcard frames, in WebTransport or in QUIC alone.
//!
//! [`QuicListener`] owns the UDP socket. It takes each connection through TLS, looks at the ALPN, and hands `h3` to wtransport, which
//! does HTTP/3 and the CONNECT request; with `whimbrel/1` the connection is the session. Then the client opens its one stream, and the
//! session is ready. Everything on the way has a time-out and a bound; what does not get through is refused, never queued without limit.
//!
//! After that there is no task of ours a session: [`QuicSource::next`](crate::transport::FrameSource::next) also refuses
//! whatever else the client opens or sends, for wtransport's queues are short and a full one would hold up the rest.
//!
//! # For clients
//!
//! - QUIC alone: our frames on the first stream, which its first bytes announce. The rest is about WebTransport.
//! - A browser needs `serverCertificateHashes` from `/.well-known/whimbrel`, unless the certificate is publicly trusted. Ours is an
//!   ECDSA P-256 certificate of less than 14 days, as browsers demand.
//! - wtransport's client builds its own rustls configuration, with aws-lc-rs where `ring` is off, for
//!   `with_server_certificate_hashes` and `with_native_certs`; neither needs a process-wide provider. To trust a CA file, give
//!   `with_custom_tls` a `rustls::ClientConfig` of TLS 1.3 with the CA in its root store **and** `alpn_protocols = ["h3"]`: it sets no
//!   ALPN by itself there, and the handshake fails with `no_application_protocol`.
//! - Open the stream as soon as the session is there, and nothing before it: the first bidirectional stream is the one. wtransport
//!   and Chromium announce it when it is opened; in raw QUIC only its first bytes would.
//! - A rotation of certificates needs nothing here: TLS asks [`Keys`] at each handshake, and sessions that stand are not touched.
//! - After [`ServerFrame::Error`](whimbrel_protocol::frame::ServerFrame::Error) or `GoAway` the client closes; the server waits a
//!   second for it, because a close by the server reaches a browser only as "Connection lost.".

#[cfg(test)]
mod alone;
mod asked;
mod carrier;
mod config;
mod pace;
mod path;
mod session;
#[cfg(test)]
mod tests;
mod window;

pub use session::{QuicSession, QuicSink, QuicSource};

use crate::tls::{Keys, TlsError};
use crate::transport::{Early, Pages};
use carrier::{Carrier, ReceiveHalf, SendHalf};
use quinn::crypto::rustls::HandshakeData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use whimbrel_protocol::{ALPN, ErrorCode};
use wtransport::endpoint::{IncomingSessionFuture, SessionRequest};

/// The path of the session request.
pub const PATH: &str = "/wt";
/// HTTP/3, under which WebTransport runs.
const ALPN_H3: &[u8] = b"h3";
/// Our own protocol: the frames of a session on the first bidirectional stream, nothing else.
const ALPN_WHIMBREL: &[u8] = ALPN.as_bytes();
/// Sessions that are ready and wait to be accepted.
const READY: usize = 64;
/// How long a refusal may take to reach the client.
const REFUSAL: Duration = Duration::from_secs(1);
/// How long the last packets have to get out when the server ends.
const LAST_PACKETS: Duration = Duration::from_millis(100);

/// What may be set of the endpoint. The defaults are for phones and a chat.
#[derive(Debug, Clone)]
pub struct QuicOptions {
    /// For TLS, up to where the protocol is known.
    pub handshake_timeout: Duration,
    /// For the rest of the handshake and the CONNECT request.
    pub request_timeout: Duration,
    /// For the client to open its stream.
    pub stream_timeout: Duration,
    /// Connections that may be anywhere before a ready session. From half of it on clients must prove their address first; beyond
    /// it they are refused, and a browser falls back at once.
    pub max_handshakes: usize,
    /// A connection of which nothing was heard for this long is gone. Sessions find out sooner, and keep their connections alive.
    pub max_idle: Duration,
    /// Which pages may connect.
    pub pages: Pages,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            stream_timeout: Duration::from_secs(10),
            // About 100 KB each, so 50 MB in a storm; at a round trip of 100 ms it is still some thousand sessions a second.
            max_handshakes: 512,
            // Longer than the longest silence that a client may ask for.
            max_idle: Duration::from_secs(360),
            pages: Pages::Any,
        }
    }
}

/// Why there is no QUIC endpoint.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket.
    #[error("cannot use the UDP socket: {0}")]
    Socket(std::io::Error),
    /// The keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS library and QUIC do not fit together.
    #[error("this build's TLS has no cipher that QUIC begins with")]
    NoInitialCipher,
}

/// Why a connection did not become a session. For the log only: the client has been told in its own way.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake took too long")]
    HandshakeTimeout,
    #[error("no session request in time")]
    RequestTimeout,
    #[error("the client opened no stream in time")]
    StreamTimeout,
    #[error("{0}")]
    Quic(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Session(#[from] wtransport::error::ConnectionError),
    #[error("no protocol here has this ALPN")]
    Protocol,
    #[error("nothing at this path")]
    Path,
    #[error("pages from {0:?} may not connect")]
    Origin(String),
}

/// The QUIC endpoint. Handshakes run in the background, many at once; drop it to stop accepting.
#[derive(Debug)]
pub struct QuicListener {
    endpoint: quinn::Endpoint,
    local_addr: SocketAddr,
    ready: Mutex<mpsc::Receiver<QuicSession>>,
    draining: watch::Sender<bool>,
    accepting: AbortHandle,
}

impl QuicListener {
    /// Begins to accept on a socket. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// If the socket or the keys cannot be used.
    pub fn on(socket: std::net::UdpSocket, keys: &Keys, options: QuicOptions) -> Result<Self, BindError> {
        let socket_error = BindError::Socket;
        let endpoint = quinn::Endpoint::new(
            config::endpoint(&keys.reset_secret()?),
            Some(config::server(keys.quic_config(&[ALPN_H3, ALPN_WHIMBREL]), &options)?),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(socket_error)?;
        let local_addr = endpoint.local_addr().map_err(socket_error)?;
        let (sender, ready) = mpsc::channel(READY);
        let (draining, watched) = watch::channel(false);
        let accepting = tokio::spawn(accept_all(endpoint.clone(), Arc::new(options), watched, sender)).abort_handle();
        Ok(Self { endpoint, local_addr, ready: Mutex::new(ready), draining, accepting })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that are open, sessions or not yet.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// The next session that is ready; `None` once [`QuicListener::shutdown`] has begun. Cancel-safe.
    pub async fn accept(&self) -> Option<QuicSession> {
        let mut draining = self.draining.subscribe();
        let mut ready = self.ready.lock().await;
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => None,
            session = ready.recv() => session,
        }
    }

    /// Refuses new connections, waits up to `grace` for the sessions to close, and closes what is left.
    pub async fn shutdown(&self, grace: Duration) {
        self.draining.send_replace(true);
        // Nobody will accept these.
        {
            let mut ready = self.ready.lock().await;
            ready.close();
            while ready.try_recv().is_ok() {}
        }
        if timeout(grace, self.endpoint.wait_idle()).await.is_err() {
            tracing::info!(left = self.endpoint.open_connections(), "closing QUIC connections that did not close by themselves");
        }
        self.endpoint.close(quinn::VarInt::from_u32(0), b"");
        // So that the last packets get out. Connections that are closed are remembered for longer, in case of an answer: not here.
        let _ = timeout(LAST_PACKETS, self.endpoint.wait_idle()).await;
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(
    endpoint: quinn::Endpoint,
    options: Arc<QuicOptions>,
    draining: watch::Receiver<bool>,
    ready: mpsc::Sender<QuicSession>,
) {
    let handshakes = Arc::new(Semaphore::new(options.max_handshakes));
    // Unlike wtransport's, quinn's endpoint says `None` when it is closed.
    while let Some(incoming) = endpoint.accept().await {
        if *draining.borrow() {
            incoming.refuse();
            continue;
        }
        if handshakes.available_permits() <= options.max_handshakes / 2 && incoming.may_retry() && !incoming.remote_address_validated() {
            // Cannot fail, as it may retry; an error would hand the attempt back and drop it, which refuses it.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (options, ready) = (Arc::clone(&options), ready.clone());
        tokio::spawn(async move {
            let remote = incoming.remote_address();
            match establish(incoming, &options).await {
                // Waits while nobody accepts; the permit then holds back the next ones.
                Ok((session, None)) => drop(ready.send(session).await),
                // Until its handshake is over it is one of those that are bounded.
                Ok((session, Some(handshake))) => drop(tokio::join!(ready.send(session), handshake.watch(&options))),
                Err(reason) => tracing::debug!(%remote, %reason, "no session"),
            }
            drop(permit);
        });
    }
}

/// From the first packet to a session with its stream, and what is left of its handshake.
async fn establish(incoming: quinn::Incoming, options: &QuicOptions) -> Result<(QuicSession, Option<Handshake>), Refused> {
    let mut connecting = incoming.accept()?;
    let data = timeout(options.handshake_timeout, connecting.handshake_data()).await.map_err(|_| Refused::HandshakeTimeout)??;
    let alpn = data.downcast::<HandshakeData>().ok().and_then(|data| data.protocol);
    match alpn.as_deref() {
        Some(ALPN_H3) => Ok((webtransport(connecting, options).await?, None)),
        Some(ALPN_WHIMBREL) => raw(connecting, options).await,
        // TLS has refused what is not offered before it comes here.
        _ => Err(Refused::Protocol),
    }
}

async fn webtransport(connecting: quinn::Connecting, options: &QuicOptions) -> Result<QuicSession, Refused> {
    let request = IncomingSessionFuture::with_quic_connecting(connecting);
    let request = timeout(options.request_timeout, request).await.map_err(|_| Refused::RequestTimeout)??;
    let path = request.path();
    if path.split_once('?').map_or(path, |(path, _)| path) != PATH {
        let _ = timeout(REFUSAL, request.not_found()).await;
        return Err(Refused::Path);
    }
    if let Some(origin) = unwelcome(&request, options) {
        let _ = timeout(REFUSAL, request.forbidden()).await;
        return Err(Refused::Origin(origin));
    }
    let connection = timeout(options.request_timeout, request.accept()).await.map_err(|_| Refused::RequestTimeout)??;
    let (send, receive) = timeout(options.stream_timeout, connection.accept_bi()).await.map_err(|_| Refused::StreamTimeout)??;
    let halves = (SendHalf::WebTransport(send), ReceiveHalf::WebTransport(receive));
    Ok(QuicSession::new(Carrier::WebTransport(connection), halves.0, halves.1))
}

/// QUIC alone: the client's first bidirectional stream is the session. One that comes back may open it in its first packets (0-RTT):
/// then the session begins before the handshake is over, and knows it.
async fn raw(connecting: quinn::Connecting, options: &QuicOptions) -> Result<(QuicSession, Option<Handshake>), Refused> {
    let begun = Instant::now();
    let (connection, mut over) = match connecting.into_0rtt() {
        Ok(both) => both,
        // That is for clients: a server can always begin before the end.
        Err(_) => return Err(Refused::Protocol),
    };
    let opened = tokio::select! {
        biased;
        over = timeout(options.request_timeout, &mut over) => over.map(|_| None).map_err(|_| Refused::HandshakeTimeout)?,
        opened = connection.accept_bi() => Some(opened?),
    };
    let session = |(send, receive)| QuicSession::new(Carrier::Quic(connection.clone()), SendHalf::Quic(send), ReceiveHalf::Quic(receive));
    if let Some(opened) = opened {
        let (told, early) = Early::new();
        return Ok((session(opened).before(early), Some(Handshake { connection: connection.clone(), over, told, begun })));
    }
    // Its stream is announced by the first bytes on it, which are its hello.
    let Ok(opened) = timeout(options.stream_timeout, connection.accept_bi()).await else {
        close_late(&connection, b"no Hello came in time");
        return Err(Refused::StreamTimeout);
    };
    Ok((session(opened?), None))
}

fn close_late(connection: &quinn::Connection, why: &[u8]) {
    connection.close(quinn::VarInt::from_u32(u32::from(ErrorCode::HelloTimeout.to_number())), why);
}

/// What is left of a handshake when a session has begun.
struct Handshake {
    connection: quinn::Connection,
    over: quinn::ZeroRttAccepted,
    told: oneshot::Sender<()>,
    begun: Instant,
}

impl Handshake {
    /// Tells the session when it is over, and closes the connection if that takes too long.
    async fn watch(self, options: &QuicOptions) {
        let over = timeout_at(self.begun + options.request_timeout, self.over).await;
        if over.is_err() {
            close_late(&self.connection, b"the handshake took too long");
        } else if self.connection.close_reason().is_none() {
            // The session may have ended.
            let _ = self.told.send(());
        }
    }
}

/// The origin of the request, if pages from there may not connect.
fn unwelcome(request: &SessionRequest, options: &QuicOptions) -> Option<String> {
    let origin = request.origin()?;
    (!options.pages.may_connect(origin)).then(|| origin.to_owned())
}
