//! QUIC alone, ALPN `whimbrel/1`: one bidirectional stream that we open, on a socket that is ours.

use super::discover::QuicEndpoint;
use super::flight::FirstFlight;
use super::stream::{self, Carrier, Local, RecvHalf, SendHalf};
use super::tickets::Taking;
use super::{Address, Attempt, Link, LinkError, Opening, STEP_TIMEOUT};
use crate::TransportKind;
use quinn::{EndpointConfig, Runtime, TokioRuntime};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// The first packets are sent again this often while somebody waits …
const AGAIN: Duration = Duration::from_millis(250);
/// … and this often once nothing has got through for …
const AGAIN_LATER: Duration = Duration::from_secs(1);
/// … this long.
const LATER: Duration = Duration::from_secs(10);
/// A handshake that takes longer may be stuck: where a network comes and goes each end may wait for the other, longer each time. Then another
/// connection is begun in its place, with the rest of the time.
pub(super) const STUCK: Duration = Duration::from_secs(3);
/// What a network is believed to take at least and at most, as it was when it was measured last. The latter is what QUIC takes for granted.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(50);
const ROUND_TRIP_MAX: Duration = Duration::from_millis(333);

/// Opens a connection and its stream, and sends the opening: in the first packets (0-RTT), if there is a ticket. It returns when the handshake
/// is over.
pub(crate) async fn connect(endpoint: &QuicEndpoint, attempt: &Attempt) -> Result<Link, LinkError> {
    let failed = |why: String| LinkError::Unreachable(format!("QUIC at {}: {why}", endpoint.address.authority()));
    let [first, second] = &attempt.openings;
    let opened = match timeout(STUCK, open(endpoint, attempt, first, attempt.repeated)).await {
        Ok(result) => Ok(result),
        Err(_) => timeout(STEP_TIMEOUT - STUCK, open(endpoint, attempt, second, true)).await,
    };
    match opened {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed("the server does not answer in time (is UDP let through?)".into())),
    }
}

async fn open(endpoint: &QuicEndpoint, attempt: &Attempt, opening: &Opening, repeated: bool) -> Result<Link, String> {
    let peer = resolve(&endpoint.address).await?;
    let no_socket = |why: std::io::Error| format!("cannot open a UDP socket: {why}");
    let (local, flight) = match &attempt.shared {
        Some(shared) => (shared.clone(), None),
        None => {
            let socket = std::net::UdpSocket::bind(any_address(peer)).and_then(|socket| TokioRuntime.wrap_udp_socket(socket));
            let flight = FirstFlight::new(socket.map_err(no_socket)?);
            let runtime = Arc::new(TokioRuntime);
            let local = quinn::Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, flight.clone(), runtime);
            (local.map_err(no_socket)?, Some(flight))
        }
    };
    let flight = flight.as_deref();
    let taking = match repeated {
        // To save its server a signature is not worth a ticket.
        _ if opening.is_empty() => Taking::Nothing,
        true => Taking::BeyondReserve,
        false => Taking::Any,
    };
    let config = config(endpoint, attempt, taking)?;
    let connecting = local.connect_with(config, peer, &endpoint.address.host).map_err(|why| why.to_string())?;
    let (connection, stream) = match connecting.into_0rtt() {
        Ok((connection, over)) => {
            // If there is no room for a stream or its bytes the handshake brings it.
            let stream = open_stream(&connection, opening);
            let accepted = hasten(over, flight, attempt);
            let (stream, accepted) = tokio::join!(stream, accepted);
            // What was not accepted the server has not heard.
            (connection, if accepted { Some(stream?) } else { None })
        }
        Err(connecting) => (hasten(connecting, flight, attempt).await.map_err(|why| why.to_string())?, None),
    };
    let (send, recv) = match stream {
        Some(stream) => stream,
        None => open_stream(&connection, opening).await?,
    };
    let round_trip = connection.rtt();
    let (source, sink) = stream::link(Carrier::new(connection, Local::Quic(local)), SendHalf::Quic(send), RecvHalf::Quic(recv));
    let (source, sink) = (super::Source::Quic(source), super::Sink::Quic(sink));
    // An opening that says nothing has not said hello.
    let opened = (!opening.is_empty()).then_some(round_trip);
    Ok(Link { source, sink, transport: TransportKind::Quic, peer, opened })
}

fn config(endpoint: &QuicEndpoint, attempt: &Attempt, taking: Taking) -> Result<quinn::ClientConfig, String> {
    let crypto = attempt.trust.resuming(&endpoint.hashes, taking).map_err(|why| format!("TLS cannot be set up: {why}"))?;
    let mut transport = stream::transport();
    if let Some(round_trip) = attempt.round_trip {
        transport.initial_rtt(round_trip.clamp(ROUND_TRIP_MIN, ROUND_TRIP_MAX));
    }
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

async fn open_stream(connection: &quinn::Connection, opening: &Opening) -> Result<(quinn::SendStream, quinn::RecvStream), String> {
    let (mut send, recv) = connection.open_bi().await.map_err(|why| why.to_string())?;
    send.write_all(&opening.bytes).await.map_err(|why| why.to_string())?;
    Ok((send, recv))
}

/// Waits for the end of a handshake, and sends its first packets again as long as nothing comes back and somebody waits.
async fn hasten<T>(handshake: impl Future<Output = T>, flight: Option<&FirstFlight>, attempt: &Attempt) -> T {
    let mut handshake = pin!(handshake);
    let mut again = Instant::now();
    loop {
        again += if attempt.since.elapsed() < LATER { AGAIN } else { AGAIN_LATER };
        tokio::select! {
            biased;
            over = &mut handshake => return over,
            () = sleep_until(again) => if let Some(flight) = flight.filter(|_| attempt.haste.is_on()) {
                flight.send_again();
            },
        }
    }
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
