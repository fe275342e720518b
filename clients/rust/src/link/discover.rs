//! What a server says about how to reach it: `GET /.well-known/whimbrel`.

use super::{Address, LinkError, STEP_TIMEOUT, Trust, parse_pin, tls};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use whimbrel_protocol::{VERSION_MAX, VERSION_MIN};

/// The most that the answer may hold.
const ANSWER_MAX: usize = 64 * 1024;

/// A connection, whatever it is made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
pub(crate) type BoxedStream = Pin<Box<dyn Stream>>;

/// Where the server can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub quic: Option<QuicEndpoint>,
    pub webtransport: Option<WebTransportEndpoint>,
    pub websocket: Address,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuicEndpoint {
    pub address: Address,
    /// As for WebTransport.
    pub hashes: Vec<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebTransportEndpoint {
    pub url: String,
    /// Believed: they came over loopback, or over a connection that was verified. Empty otherwise.
    pub hashes: Vec<[u8; 32]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WellKnown {
    #[serde(default)]
    quic: Option<Quic>,
    #[serde(default)]
    webtransport: Option<WebTransport>,
    #[serde(default)]
    websocket: Option<WebSocket>,
    #[serde(default)]
    versions: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quic {
    address: String,
    #[serde(default)]
    certificate_hashes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebTransport {
    url: String,
    #[serde(default)]
    certificate_hashes: Vec<String>,
}

#[derive(Deserialize)]
struct WebSocket {
    url: String,
}

/// A connection to a face of the server, with TLS where its URL says so.
pub(crate) async fn dial(address: &Address, trust: &Trust) -> Result<(BoxedStream, SocketAddr), LinkError> {
    let step = async {
        let place = (address.host.as_str(), address.port);
        let tcp = TcpStream::connect(place).await.map_err(|why| unreachable_at(address, &format!("it does not answer: {why}")))?;
        // Frames are small and each is awaited by somebody.
        tcp.set_nodelay(true).map_err(|why| unreachable_at(address, &why.to_string()))?;
        let peer = tcp.peer_addr().map_err(|why| unreachable_at(address, &why.to_string()))?;
        if address.secure {
            let stream: BoxedStream = Box::pin(tls::handshake(trust, address, tcp).await?);
            return Ok((stream, peer));
        }
        let stream: BoxedStream = Box::pin(tcp);
        Ok((stream, peer))
    };
    match timeout(STEP_TIMEOUT, step).await {
        Ok(result) => result,
        Err(_) => Err(unreachable_at(address, &format!("it does not answer within {} s", STEP_TIMEOUT.as_secs()))),
    }
}

/// What a server says of itself.
pub(crate) struct Told {
    pub endpoints: Endpoints,
    /// What time it is there.
    pub date: Option<SystemTime>,
}

/// Asks the server how to reach it.
pub(crate) async fn discover(address: &Address, trust: &Trust) -> Result<Endpoints, LinkError> {
    ask(address, trust).await.map(|told| told.endpoints)
}

/// Asks the server what it says of itself.
pub(crate) async fn ask(address: &Address, trust: &Trust) -> Result<Told, LinkError> {
    let (stream, _) = dial(address, trust).await?;
    let found = match timeout(STEP_TIMEOUT, fetch(address, stream)).await {
        Ok(result) => result?,
        Err(_) => return Err(unreachable_at(address, "it does not answer in time")),
    };
    let (date, body) = found;
    let Some(body) = body else {
        // A server that does not say: its WebSocket is at the usual place.
        let endpoints = Endpoints { quic: None, webtransport: None, websocket: address.with_path("/ws") };
        return Ok(Told { endpoints, date });
    };
    let known: WellKnown =
        serde_json::from_slice(&body).map_err(|why| unreachable_at(address, &format!("its answer is no JSON of ours: {why}")))?;
    Ok(Told { endpoints: resolve(address, trust, known)?, date })
}

fn resolve(address: &Address, trust: &Trust, known: WellKnown) -> Result<Endpoints, LinkError> {
    if !known.versions.is_empty() && !known.versions.iter().any(|version| (VERSION_MIN..=VERSION_MAX).contains(version)) {
        let reason = format!("it speaks versions {:?} of the protocol, this client {VERSION_MIN} to {VERSION_MAX}", known.versions);
        return Err(unreachable_at(address, &reason));
    }
    // Hashes from a stranger prove nothing. A secure connection was verified before this was read over it.
    let beyond_doubt = address.secure || address.is_loopback();
    let believed = |hashes: Vec<String>| -> Vec<[u8; 32]> {
        if beyond_doubt { hashes.iter().filter_map(|hash| parse_pin(hash).ok()).collect() } else { Vec::new() }
    };
    // Without hashes, CA or pin a certificate could not be verified: then it is not worth an attempt.
    let verifiable = |hashes: &Vec<[u8; 32]>| trust.is_configured() || !hashes.is_empty();
    let quic = known.quic.and_then(|endpoint| {
        let address = Address::parse(&format!("https://{}", endpoint.address)).ok()?;
        Some(QuicEndpoint { address, hashes: believed(endpoint.certificate_hashes) }).filter(|endpoint| verifiable(&endpoint.hashes))
    });
    let webtransport =
        known.webtransport.map(|endpoint| WebTransportEndpoint { url: endpoint.url, hashes: believed(endpoint.certificate_hashes) });
    let webtransport = webtransport.filter(|endpoint| verifiable(&endpoint.hashes));
    let announced = known.websocket.and_then(|endpoint| Address::parse(&endpoint.url).ok());
    // Who asked over TLS is not talked down to plain text by the answer.
    let announced = announced.filter(|announced| announced.secure || !address.secure || announced.is_loopback());
    let websocket = announced.unwrap_or_else(|| address.with_path("/ws"));
    Ok(Endpoints { quic, webtransport, websocket })
}

/// The answer's date and body; no body if there is no such page.
async fn fetch(address: &Address, stream: BoxedStream) -> Result<(Option<SystemTime>, Option<Vec<u8>>), LinkError> {
    let failed = |why: &dyn std::fmt::Display| unreachable_at(address, &why.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| failed(&why))?;
    let exchange = async {
        let request = Request::get("/.well-known/whimbrel")
            .header("host", address.authority())
            .header("accept", "application/json")
            .body(Empty::<hyper::body::Bytes>::new())
            .map_err(|why| failed(&why))?;
        let response = sender.send_request(request).await.map_err(|why| if why.is_parse() { not_http(address) } else { failed(&why) })?;
        let date = response.headers().get("date").and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        match response.status().as_u16() {
            200 => {}
            404 => return Ok((date, None)),
            other => return Err(failed(&format_args!("GET /.well-known/whimbrel is answered with {other}"))),
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|why| failed(&why))?;
        Ok((date, Some(body.to_bytes().to_vec())))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        // The connection may end before the exchange has read what it brought.
        _ = &mut connection => exchange.await,
    }
}

fn not_http(address: &Address) -> LinkError {
    let advice = if address.secure { "is that the port of a Whimbrel server?" } else { "if it speaks TLS, use https://" };
    LinkError::Mismatch(format!("{}: what answers there does not speak HTTP: {advice}", address.authority()))
}

fn unreachable_at(address: &Address, reason: &str) -> LinkError {
    LinkError::Unreachable(format!("{}: {reason}", address.authority()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = r#"{"webtransport":{"url":"https://127.0.0.1:8443/wt","certificateHashes":["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]},
        "websocket":{"url":"ws://chat.example.org:8080/ws"},"versions":[1],
        "quic":{"address":"127.0.0.1:8443","certificateHashes":["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]}}"#;

    fn resolved(url: &str, known: &str) -> Result<Endpoints, LinkError> {
        resolve(&Address::parse(url).unwrap(), &Trust::load(None, Vec::new()).unwrap(), serde_json::from_str(known).unwrap())
    }

    #[test]
    fn hashes_are_believed_over_loopback_and_tls_only() {
        assert_eq!(resolved("http://127.0.0.1:8080", KNOWN).unwrap().webtransport.unwrap().hashes, [[7; 32]]);
        let secure = resolved("https://chat.example.org", KNOWN).unwrap();
        assert_eq!(secure.webtransport.unwrap().hashes, [[7; 32]]);
        assert_eq!(
            secure.quic.unwrap(),
            QuicEndpoint { address: Address::parse("https://127.0.0.1:8443").unwrap(), hashes: vec![[7; 32]] }
        );
        let plain = resolved("http://chat.example.org", KNOWN).unwrap();
        assert_eq!((plain.quic, plain.webtransport), (None, None));
    }

    #[test]
    fn tls_is_not_talked_down() {
        assert_eq!(resolved("https://chat.example.org", KNOWN).unwrap().websocket.url("wss", "ws"), "wss://chat.example.org:443/ws");
        assert_eq!(resolved("http://chat.example.org", KNOWN).unwrap().websocket.url("wss", "ws"), "ws://chat.example.org:8080/ws");
    }

    #[test]
    fn what_is_absent_or_null_is_done_without() {
        let found = resolved("http://127.0.0.1:1", r#"{"webtransport":null,"quic":null}"#).unwrap();
        assert_eq!(found, Endpoints { quic: None, webtransport: None, websocket: Address::parse("ws://127.0.0.1:1/ws").unwrap() });
        assert!(resolved("http://127.0.0.1:1", r#"{"versions":[7]}"#).unwrap_err().to_string().contains("[7]"));
    }
}
