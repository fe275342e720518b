//! Requests of Engine.IO: each is passed to the library, and what passes is looked at on the way.

use super::line::Line;
use super::moving::NOOP;
use super::wire::{Moving, Wire};
use super::{FULL, Gateway, moving};
use crate::transport::Pages;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower_service::Service;

/// How long a request waits while its client's earlier events are worked off.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client that polls may try a WebSocket (before it moves it waits for what it posts), and how long it may take until all is on it that waited for
/// its polls.
const TRIAL: Duration = Duration::from_secs(30);
const MOVE: Duration = Duration::from_secs(30);
/// Entries of connections that may have ended are looked for from so many on.
const SWEEP_MIN: usize = 1_024;

/// A packet of Engine.IO that ends the connection.
const CLOSE: &str = "1";
/// Engine.IO's own words, in JSON, which clients know.
const UNKNOWN_SESSION: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const UNKNOWN_TRANSPORT: &str = r#"{"code":0,"message":"Transport unknown"}"#;
const MOVED: &str = r#"{"code":3,"message":"Bad request"}"#;

/// The connections, by the names that the library gives those that poll; one that begins as a WebSocket needs none but a number.
#[derive(Debug, Default)]
pub(super) struct Wires(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    wires: HashMap<Name, Weak<Wire>>,
    numbered: u64,
    sweep_at: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Name {
    Sid(String),
    Number(u64),
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, sid: &str) -> Option<Arc<Wire>> {
        self.lock().wires.get(&Name::Sid(sid.to_owned()))?.upgrade()
    }

    fn add(&self, sid: Option<String>, wire: &Arc<Wire>) {
        let mut known = self.lock();
        if known.wires.len() >= known.sweep_at.max(SWEEP_MIN) {
            // The library holds each as long as its connection lives.
            known.wires.retain(|_, wire| wire.strong_count() > 0);
            known.sweep_at = 2 * known.wires.len();
        }
        known.numbered += 1;
        let name = sid.map_or(Name::Number(known.numbered), Name::Sid);
        known.wires.insert(name, Arc::downgrade(wire));
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().wires.values().filter(|wire| wire.strong_count() > 0).count()
    }

    /// Cuts all of them.
    pub fn cut(&self) {
        // They stay known, so that who asks for one is told that it is over.
        self.lock().wires.values().filter_map(Weak::upgrade).for_each(|wire| wire.cut());
    }
}

/// Where the library sends requests that are not its own, of which none comes here.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere;

impl Service<Request<Body>> for Elsewhere {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        std::future::ready(Ok(response))
    }
}

/// Serves a request to `/socket.io/`.
pub async fn serve(gateway: &Arc<Gateway>, pages: &Pages, remote: SocketAddr, request: Request<Body>) -> Response<Body> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let may = origin.as_ref().is_none_or(|origin| pages.may_connect(origin.to_str().unwrap_or_default()));
    let mut response = match *request.method() {
        _ if !may => {
            refuse(StatusCode::FORBIDDEN, "pages of this origin may not connect: the server's operator can let them (--origins)\n")
        }
        Method::OPTIONS => preflight(request.headers()),
        _ => answer(gateway, remote, request).await,
    };
    if let Some(origin) = origin.filter(|_| may) {
        // By name and not all at once: pages that send their cookies along, as some of these clients do, may read nothing otherwise.
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    response
}

/// Refuses in the words of Engine.IO.
fn refuse_json(words: &'static str) -> Response<Body> {
    let mut response = refuse(StatusCode::BAD_REQUEST, words);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refuse(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(words));
    *response.status_mut() = status;
    response
}

/// What pages are told that ask before they ask.
fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = refuse(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// A value of the query, which needs no decoding here.
fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

async fn answer(gateway: &Arc<Gateway>, remote: SocketAddr, mut request: Request<Body>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let known = match value(&query, "sid") {
        None => None,
        Some(sid) => match gateway.wires.of(sid).filter(|wire| !wire.is_cut()) {
            Some(wire) => Some(wire),
            // It connects anew.
            None => return refuse_json(UNKNOWN_SESSION),
        },
    };
    let is_new = known.is_none();
    let wire = known.unwrap_or_default();
    if is_new && gateway.is_leaving() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is going down\n");
    }
    // It takes its place only with a socket, which may still be refused. But libraries come again by themselves only after this.
    if is_new && !gateway.context.admission.has_place() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, FULL);
    }
    request.extensions_mut().insert(wire.clone());
    request.extensions_mut().insert(remote);
    match (value(&query, "transport"), request.method().clone()) {
        (Some("websocket"), Method::GET) => upgrade(gateway, wire, request, is_new),
        (Some("polling"), Method::GET) if is_new => {
            let (response, body) = pass(gateway, request).await;
            if let Some(sid) = opened(&body) {
                gateway.wires.add(Some(sid), &wire);
            }
            response
        }
        (Some("polling"), Method::GET) => poll(gateway, &wire, request).await,
        (Some("polling"), Method::POST) => {
            wire.on_post();
            // The library takes all of it at once.
            if timeout(PATIENCE, wire.reading()).await.is_err() {
                return refuse(StatusCode::SERVICE_UNAVAILABLE, "what came before is not worked off: come again later\n");
            }
            pass(gateway, request).await.0
        }
        (Some("polling" | "websocket"), _) => pass(gateway, request).await.0,
        // The library would take some that it is not to see.
        _ => refuse_json(UNKNOWN_TRANSPORT),
    }
}

/// Answers a poll once there is something to be told, or it has to end.
async fn poll(gateway: &Arc<Gateway>, wire: &Arc<Wire>, request: Request<Body>) -> Response<Body> {
    let mut closed = gateway.closed.subscribe();
    let answered = async {
        let _polling = wire.polls.read().await;
        if wire.has_moved() {
            return refuse_json(MOVED);
        }
        wire.on_poll();
        // One that is given up while it waits has taken nothing out of what is to be told.
        tokio::select! {
            biased;
            (response, body) = pass(gateway, request) => {
                count(wire, &body);
                response
            }
            () = wire.poll_ends() => Response::new(Body::from(NOOP)),
        }
    };
    tokio::select! {
        biased;
        response = answered => response,
        // It polls again, and finds nobody.
        _ = closed.wait_for(|closed| *closed) => Response::new(Body::from(NOOP)),
    }
}

/// Passes a request on, and takes the body of the answer out for a look.
async fn pass(gateway: &Arc<Gateway>, request: Request<Body>) -> (Response<Body>, Bytes) {
    let mut service = gateway.service.clone();
    let Ok(response) = Service::<Request<Body>>::call(&mut service, request).await;
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            let bytes = body.to_bytes();
            (Response::from_parts(parts, Body::new(Full::new(bytes.clone()))), bytes)
        }
        Err(why) => {
            tracing::error!(%why, "an answer to a poll could not be read");
            (refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made\n"), Bytes::new())
        }
    }
}

/// The name in the packet that opens a connection.
fn opened(body: &[u8]) -> Option<String> {
    let packet: serde_json::Value = serde_json::from_slice(body.strip_prefix(b"0")?).ok()?;
    Some(packet.get("sid")?.as_str()?.to_owned())
}

/// Counts the events in the answer to a poll.
fn count(wire: &Wire, body: &[u8]) {
    let mut counted = wire.counted();
    for packet in moving::packets(body) {
        match packet {
            [b'b', ..] => counted.on_binary(),
            b"2" => wire.on_polled_ping(),
            packet => counted.on_text(packet),
        }
    }
    wire.on_left(counted);
}

/// Opens a WebSocket, and has the library speak over a line that is looked at, once a client that polls has moved there.
fn upgrade(gateway: &Arc<Gateway>, wire: Arc<Wire>, mut request: Request<Body>, is_new: bool) -> Response<Body> {
    let headers = request.headers();
    let says = |name, word: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let is_upgrade = says(header::CONNECTION, "upgrade") && says(header::UPGRADE, "websocket") && says(header::SEC_WEBSOCKET_VERSION, "13");
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_upgrade) else {
        return refuse(StatusCode::BAD_REQUEST, "transport=websocket is for a WebSocket\n");
    };
    if !is_new && !wire.open() {
        return refuse(StatusCode::BAD_REQUEST, "there is a WebSocket already\n");
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let upgrading = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let gateway = gateway.clone();
    tokio::spawn(async move {
        let upgraded = upgrading.await.map(TokioIo::new).map_err(io::Error::other);
        let request = Request::from_parts(parts, ());
        let spoken = match upgraded {
            Ok(stream) if is_new => {
                gateway.wires.add(None, &wire);
                speak(&gateway, Line::new(stream, wire), request)
            }
            Ok(stream) => move_to(&gateway, wire, stream, request).await,
            Err(why) => {
                wire.set_moving(Moving::No);
                Err(why)
            }
        };
        if let Err(why) = spoken {
            tracing::debug!(%why, "nobody speaks over a WebSocket");
        }
    });
    let mut response = refuse(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = accept {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Has the library speak over a line.
fn speak(gateway: &Gateway, line: Line<TokioIo<Upgraded>>, request: Request<()>) -> io::Result<()> {
    let mut service = gateway.service.clone();
    Service::<(Line<_>, Request<()>)>::call(&mut service, (line, request)).into_inner().map_err(io::Error::other)
}

/// Moves a client that polls to a WebSocket, if it gets through. If not, it polls on. Stays until it has left there.
async fn move_to(gateway: &Arc<Gateway>, wire: Arc<Wire>, mut stream: TokioIo<Upgraded>, request: Request<()>) -> io::Result<()> {
    // Where it polls.
    let query = request.uri().query().unwrap_or_default().replace("transport=websocket", "transport=polling");
    let uri: Uri = format!("{}?{query}", request.uri().path()).parse().map_err(io::Error::other)?;
    let said = timeout(TRIAL, moving::try_out(&mut stream, &wire)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let came = match said {
        Ok(came) => came,
        Err(why) => {
            wire.set_moving(Moving::No);
            return Err(why);
        }
    };
    wire.on_moves();
    // Polls that wait end by themselves.
    let instead = wire.polls.write().await;
    let taking = async {
        while let Some(body) = waiting(gateway, &uri)? {
            moving::put(&mut stream, &wire, &body).await?;
        }
        if wire.is_cut() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    };
    let taken = timeout(MOVE, taking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (end, ended) = oneshot::channel();
    let spoken = match taken {
        Ok(()) => speak(gateway, Line::moved(stream, wire.clone(), came, end), request),
        Err(why) => {
            // What was taken is nowhere else. The client begins anew, and is told it again.
            wire.cut();
            drop((stream, end));
            Err(why)
        }
    };
    wire.set_moving(Moving::Moved);
    drop(instead);
    drop(wire);
    // It is never told anything.
    let _ = ended.await;
    // The library does not forget one that it could not move. All others it has forgotten, and says so.
    let mut close = Request::new(Body::from(CLOSE));
    *close.method_mut() = Method::POST;
    *close.uri_mut() = uri;
    pass(gateway, close).await;
    spoken
}

/// The answer to a poll, if anything waits for one.
fn waiting(gateway: &Arc<Gateway>, uri: &Uri) -> io::Result<Option<Bytes>> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.clone();
    // That nothing is there, and not that this task has done much already.
    match tokio::task::unconstrained(pass(gateway, request)).now_or_never() {
        None => Ok(None),
        Some((response, body)) if response.status() == StatusCode::OK && !body.is_empty() => Ok(Some(body)),
        Some((response, _)) => Err(io::Error::other(format!("the connection is over: {}", response.status()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_counted_and_names_found() {
        let wire = Wire::default();
        count(&wire, b"2\x1e42[\"a\"]\x1e451-[\"b\",{}]");
        assert_eq!((wire.counted().events, wire.counted().attachments), (1, 1));
        count(&wire, b"bAAAA\x1e6");
        assert_eq!((wire.counted().events, wire.counted().attachments), (2, 0));
        assert_eq!(opened(br#"0{"sid":"x","upgrades":[]}"#).as_deref(), Some("x"));
        assert_eq!(opened(b"1"), None);
        assert_eq!(value("EIO=4&transport=polling&sid=a", "sid"), Some("a"));
        assert_eq!(value("EIO=4&lastsid=a", "sid"), None);
    }
}
