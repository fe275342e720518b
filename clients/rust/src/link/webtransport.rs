//! WebTransport: one bidirectional stream that we open, in a session of HTTP/3.

use super::discover::WebTransportEndpoint;
use super::quic::{any_address, resolve};
use super::stream::{self, Carrier, Local, RecvHalf, SendHalf};
use super::{Address, Link, LinkError, STEP_TIMEOUT, Trust};
use crate::TransportKind;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::time::timeout;
use wtransport::config::{DnsLookupFuture, DnsResolver};
use wtransport::{ClientConfig, Endpoint};

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
    let tls = trust.quic(&endpoint.hashes, wtransport::proto::WEBTRANSPORT_ALPN).map_err(|why| format!("TLS cannot be set up: {why}"))?;
    let config = ClientConfig::builder()
        .with_bind_address(any_address(peer))
        .with_custom_tls_and_transport(tls, stream::transport())
        .dns_resolver(Resolved(peer))
        .build();
    let local = Endpoint::client(config).map_err(|why| format!("cannot open a UDP socket: {why}"))?;
    let connection = local.connect(&endpoint.url).await.map_err(|why| why.to_string())?;
    let opening = connection.open_bi().await.map_err(|why| why.to_string())?;
    let (send, recv) = opening.await.map_err(|why| why.to_string())?;
    let carrier = Carrier::new(connection.quic_connection().clone(), Local::WebTransport { session: connection, _endpoint: local });
    let (source, sink) = stream::link(carrier, SendHalf::WebTransport(send), RecvHalf::WebTransport(recv));
    Ok(Link { source: super::Source::Quic(source), sink: super::Sink::Quic(sink), transport: TransportKind::WebTransport, peer })
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
