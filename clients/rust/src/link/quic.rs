//! QUIC alone, ALPN `whimbrel/1`: one bidirectional stream that we open, on a socket that is ours.

use super::discover::QuicEndpoint;
use super::stream::{self, Carrier, Local, RecvHalf, SendHalf};
use super::{Address, Link, LinkError, STEP_TIMEOUT, Trust};
use crate::TransportKind;
use quinn::crypto::rustls::QuicClientConfig;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::time::timeout;
use whimbrel_protocol::ALPN;

/// Opens a connection and its stream.
pub(crate) async fn connect(endpoint: &QuicEndpoint, trust: &Trust) -> Result<Link, LinkError> {
    let failed = |why: String| LinkError::Unreachable(format!("QUIC at {}: {why}", endpoint.address.authority()));
    match timeout(STEP_TIMEOUT, open(endpoint, trust)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed("the server does not answer in time (is UDP let through?)".into())),
    }
}

async fn open(endpoint: &QuicEndpoint, trust: &Trust) -> Result<Link, String> {
    let peer = resolve(&endpoint.address).await?;
    let no_tls = |why: &dyn std::fmt::Display| format!("TLS cannot be set up: {why}");
    let tls = trust.quic(&endpoint.hashes, ALPN.as_bytes()).map_err(|why| no_tls(&why))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|why| no_tls(&why))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(stream::transport()));
    let local = quinn::Endpoint::client(any_address(peer)).map_err(|why| format!("cannot open a UDP socket: {why}"))?;
    let connecting = local.connect_with(config, peer, &endpoint.address.host).map_err(|why| why.to_string())?;
    let connection = connecting.await.map_err(|why| why.to_string())?;
    let (send, recv) = connection.open_bi().await.map_err(|why| why.to_string())?;
    let (source, sink) = stream::link(Carrier::new(connection, Local::Quic(local)), SendHalf::Quic(send), RecvHalf::Quic(recv));
    Ok(Link { source: super::Source::Quic(source), sink: super::Sink::Quic(sink), transport: TransportKind::Quic, peer })
}

/// Where to bind a socket for this peer: to no interface's address, so that the kernel picks the new one when the network changes.
pub(super) fn any_address(peer: SocketAddr) -> SocketAddr {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

/// One address to try. IPv4 first for this machine's own name: servers often listen on 127.0.0.1 alone.
pub(super) async fn resolve(address: &Address) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await.map_err(|why| format!("no address: {why}"))?;
    let mut found: Vec<SocketAddr> = found.collect();
    if address.is_loopback() {
        found.sort_by_key(|peer| !peer.is_ipv4());
    }
    found.first().copied().ok_or_else(|| "the name has no address".into())
}
