//! WebTransport: one bidirectional stream that we open; each frame stands behind its length.

use super::discover::WebTransportEndpoint;
use super::{Address, Link, LinkError, STEP_TIMEOUT, Trust};
use crate::TransportKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use whimbrel_protocol::codec::{CodecError, Form, find_frame, write_frame};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};
use wtransport::config::{DnsLookupFuture, DnsResolver};
use wtransport::endpoint::endpoint_side;
use wtransport::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, VarInt};

/// QUIC gives up on a silent path after this; our own probe notices sooner.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// What the server may send on the stream before we have read it: a few of the longest frames.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How long the server may take for what is queued when the client leaves.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Read from the stream at once.
const READ_SIZE: usize = 16 * 1024;

/// Opens a session and its stream.
pub(crate) async fn connect(endpoint: &WebTransportEndpoint, trust: &Trust) -> Result<Link, LinkError> {
    let failed = |why: String| LinkError::Unreachable(format!("WebTransport at {}: {why}", endpoint.url));
    match timeout(STEP_TIMEOUT, open(endpoint, trust)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed("the server does not answer in time (is UDP let through?)".into())),
    }
}

async fn open(endpoint: &WebTransportEndpoint, trust: &Trust) -> Result<Link, String> {
    let address = Address::parse(&endpoint.url).map_err(|why| why.to_string())?;
    let peer = resolve(&address).await?;
    let tls = trust.quic(&endpoint.hashes).map_err(|why| format!("TLS cannot be set up: {why}"))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(quinn::VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .stream_receive_window(quinn::VarInt::from_u32(STREAM_WINDOW))
        .receive_window(quinn::VarInt::from_u32(4 * STREAM_WINDOW));
    // Unspecified, not an interface's address: then the kernel picks the new one when the network changes.
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let config = ClientConfig::builder()
        .with_bind_address(SocketAddr::new(any, 0))
        .with_custom_tls_and_transport(tls, transport)
        .dns_resolver(Resolved(peer))
        .build();
    let local = Endpoint::client(config).map_err(|why| format!("cannot open a UDP socket: {why}"))?;
    let connection = local.connect(&endpoint.url).await.map_err(|why| why.to_string())?;
    let opening = connection.open_bi().await.map_err(|why| why.to_string())?;
    let (send, recv) = opening.await.map_err(|why| why.to_string())?;
    let connection = Arc::new(Session { connection, _endpoint: local });
    let source = Source { recv, read: Vec::new(), session: Arc::clone(&connection) };
    let sink = Sink { send, waiting: Vec::new(), sent: 0, session: connection };
    Ok(Link { source: super::Source::WebTransport(source), sink: super::Sink::WebTransport(sink), transport: TransportKind::WebTransport })
}

/// One address to try. IPv4 first for this machine's own name: servers often listen on 127.0.0.1 alone.
async fn resolve(address: &Address) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await.map_err(|why| format!("no address: {why}"))?;
    let mut found: Vec<SocketAddr> = found.collect();
    if address.is_loopback() {
        found.sort_by_key(|peer| !peer.is_ipv4());
    }
    found.first().copied().ok_or_else(|| "the name has no address".into())
}

/// Answers with what was resolved before.
#[derive(Debug)]
struct Resolved(SocketAddr);

impl DnsResolver for Resolved {
    fn resolve(&self, _host: &str) -> Pin<Box<dyn DnsLookupFuture>> {
        let peer = self.0;
        Box::pin(async move { Ok(Some(peer)) })
    }
}

/// Keeps the connection, and the socket under it, for as long as either half is used.
struct Session {
    connection: Connection,
    _endpoint: Endpoint<endpoint_side::Client>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Says at once that nobody is here any more; without it the server would wait for its idle time-out.
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

pub(crate) struct Source {
    recv: RecvStream,
    read: Vec<u8>,
    session: Arc<Session>,
}

impl Source {
    pub async fn next(&mut self) -> Result<Option<ServerFrame>, LinkError> {
        loop {
            if let Some((start, end)) = find_frame(&self.read)? {
                let frame = self.read.get(start..end).map(|bytes| Form::Postcard.decode(bytes));
                self.read.drain(..end);
                return Ok(frame.transpose()?);
            }
            let mut chunk = [0; READ_SIZE];
            match self.recv.read(&mut chunk).await {
                Ok(Some(count)) => self.read.extend_from_slice(&chunk[..count]),
                Ok(None) => return Ok(None),
                Err(why) => {
                    let reason = self.session.connection.quic_connection().close_reason();
                    return Err(LinkError::Gone(reason.map_or_else(|| why.to_string(), |reason| reason.to_string())));
                }
            }
        }
    }
}

pub(crate) struct Sink {
    send: SendStream,
    waiting: Vec<u8>,
    /// How much of `waiting` the stream took.
    sent: usize,
    /// Named for its drop.
    session: Arc<Session>,
}

impl Sink {
    pub fn queued(&self) -> usize {
        self.waiting.len() - self.sent
    }

    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), CodecError> {
        write_frame(frame, &mut self.waiting)
    }

    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // What a dropped `write` had taken is told by its result only: it either takes something and ends, or took nothing.
            self.sent += self.send.write(rest).await.map_err(|why| LinkError::Gone(why.to_string()))?;
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    pub async fn close(mut self) {
        let leave = async {
            if self.flush().await.is_ok() {
                // Returns once the server has everything.
                let _ = self.send.finish().await;
            }
        };
        // Whoever does not take it in time is left alone: everything that matters comes again in the next session.
        let _ = timeout(CLOSE_TIMEOUT, leave).await;
        drop(self.session);
    }
}
