//! WebTransport: one bidirectional stream that we open, in a session of HTTP/3.

use super::discover::WebTransportEndpoint;
use super::quic::{STUCK, any_address, resolve};
use super::stream::{self, Carrier, Local, RecvHalf, SendHalf};
use super::{Address, Link, LinkError, STEP_TIMEOUT, Trust};
use crate::TransportKind;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use tokio::time::timeout;
use wtransport::config::{DnsLookupFuture, DnsResolver};
use wtransport::error::{ConnectingError, ConnectionError};
use wtransport::{ClientConfig, Endpoint};

/// The errors of HTTP/3 (RFC 9114, 8.1).
const H3_ERRORS: RangeInclusive<u64> = 0x100..=0x110;

/// Why there is no session.
enum Failure {
    /// One of both ends found that the other does not keep to HTTP/3.
    Garbled(String),
    Other(String),
}

impl<T: Display> From<T> for Failure {
    fn from(why: T) -> Self {
        Self::Other(why.to_string())
    }
}

/// Opens a session and its stream. The WebTransport library, on either end, loses what it has read of a frame of HTTP/3 when something else
/// comes before the rest, and takes the rest for a frame (its reading is not cancel-safe, as of 0.7.2). That is a matter of how the first
/// packets were cut, so it is tried twice. And as over raw QUIC, one that is stuck is begun again: its first packets, lost while a server
/// restarted, are sent again after 1, 3 and 7 s only.
pub(crate) async fn connect(endpoint: &WebTransportEndpoint, trust: &Trust) -> Result<Link, LinkError> {
    let failed = |why: String| LinkError::Unreachable(format!("WebTransport at {}: {why}", endpoint.url));
    let open = || async {
        match open(endpoint, trust).await {
            Err(Failure::Garbled(why)) => {
                tracing::debug!(why, "tried once more");
                open(endpoint, trust).await
            }
            opened => opened,
        }
    };
    let opened = match timeout(STUCK, open()).await {
        Ok(result) => Ok(result),
        Err(_) => timeout(STEP_TIMEOUT - STUCK, open()).await,
    };
    match opened {
        Ok(result) => result.map_err(|(Failure::Garbled(why) | Failure::Other(why))| failed(why)),
        Err(_) => Err(failed("the server does not answer in time (is UDP let through?)".into())),
    }
}

async fn open(endpoint: &WebTransportEndpoint, trust: &Trust) -> Result<Link, Failure> {
    let address = Address::parse(&endpoint.url)?;
    let peer = resolve(&address).await?;
    let tls = trust.quic(&endpoint.hashes, wtransport::proto::WEBTRANSPORT_ALPN).map_err(|why| format!("TLS cannot be set up: {why}"))?;
    let config = ClientConfig::builder()
        .with_bind_address(any_address(peer))
        .with_custom_tls_and_transport(tls, stream::transport())
        .dns_resolver(Resolved(peer))
        .build();
    let local = Endpoint::client(config).map_err(|why| format!("cannot open a UDP socket: {why}"))?;
    let connection = local.connect(&endpoint.url).await.map_err(connecting)?;
    let opening = connection.open_bi().await?;
    let (send, recv) = opening.await?;
    let carrier = Carrier::new(connection.quic_connection().clone(), Local::WebTransport { session: connection, _endpoint: local });
    let (source, sink) = stream::link(carrier, SendHalf::WebTransport(send), RecvHalf::WebTransport(recv));
    let (source, sink) = (super::Source::Quic(source), super::Sink::Quic(sink));
    Ok(Link { source, sink, transport: TransportKind::WebTransport, peer, opened: None })
}

fn connecting(why: ConnectingError) -> Failure {
    let garbled = match &why {
        ConnectingError::ConnectionError(ConnectionError::LocalH3Error(_)) => true,
        ConnectingError::ConnectionError(ConnectionError::ApplicationClosed(close)) => H3_ERRORS.contains(&close.code().into_inner()),
        _ => false,
    };
    if garbled { Failure::Garbled(why.to_string()) } else { why.into() }
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
