//! The plain HTTP side: the pages, status, how to connect, health, metrics, and the way up to a WebSocket.

pub mod listener;
mod pages;

use crate::engine::Engine;
use crate::gateway::{self, Gateway};
use crate::lobby::{self, Lobby};
use crate::session::{self, Context};
use crate::tls::Keys;
use crate::transport::websocket;
use crate::transport::{Pages, Peer, TransportKind};
use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use whimbrel_protocol::{ALPN, VERSION_MAX, VERSION_MIN};

/// What the handlers know.
pub struct Http {
    /// The engine.
    pub engine: Arc<Engine>,
    /// What a session needs.
    pub context: Arc<Context>,
    /// Whose hashes are told.
    pub keys: Keys,
    /// Where QUIC listens.
    pub quic: SocketAddr,
    /// Which pages may open a WebSocket.
    pub pages: Pages,
    /// Who is at `/chat`.
    pub lobby: Arc<Lobby>,
    /// The clients of Socket.IO.
    pub gateway: Arc<Gateway>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Set once the server no longer wants new clients.
    pub draining: AtomicBool,
}

/// The routes; `secure` says whether they are reached over TLS.
pub fn router(http: Arc<Http>, secure: bool) -> Router {
    Router::new()
        .route("/", get(move |state, uri, headers| index(state, uri, headers, secure)))
        .route("/doctor", get(move |state, uri, headers| page(state, uri, headers, secure)))
        .route("/web/{*path}", get(move |state, uri, headers| asset(state, uri, headers, secure)))
        .route("/api/online-users", get(online_users))
        .route("/.well-known/whimbrel", get(move |state, uri, headers| well_known(state, uri, headers, secure)))
        .route("/ws", any(web_socket))
        .route("/chat", any(chat))
        .route("/socket.io", any(socket_io))
        .route("/socket.io/", any(socket_io))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "There is nothing here. See / for what there is.\n"))
        .with_state(http)
}

/// What pages of other origins may read: every page, where it is not said which, for what is told here is told to any program that asks.
fn shared(http: &Http, headers: &HeaderMap, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let Pages::Of(_) = http.pages else {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return response;
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = headers.get(header::ORIGIN).filter(|origin| origin.to_str().is_ok_and(|origin| http.pages.may_connect(origin))) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}

/// How the client reached us. Hosts that we tell are this one: the client can reach it, which we cannot know of any other.
struct Reached {
    /// Host and port of the request.
    authority: Authority,
    websocket_scheme: &'static str,
    /// Where QUIC is, and in it WebTransport: host and port.
    quic: String,
}

impl Reached {
    /// Nothing if the `Host` header is missing or malformed.
    fn of(http: &Http, uri: &Uri, headers: &HeaderMap, secure: bool) -> Option<Self> {
        let told = headers.get(header::HOST).and_then(|value| value.to_str().ok()).or(uri.authority().map(Authority::as_str))?;
        let authority: Authority = told.parse().ok()?;
        // What is told goes into a policy, where other characters would mean something.
        if !told.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) {
            return None;
        }
        // Browsers look `localhost` up, and try ::1 first and only, where QUIC does not listen.
        let host = if authority.host() == "localhost" { "127.0.0.1" } else { authority.host() };
        let quic = format!("{host}:{}", http.quic.port());
        Some(Self { authority, websocket_scheme: if secure { "wss" } else { "ws" }, quic })
    }
}

async fn index(State(http): State<Arc<Http>>, uri: Uri, headers: HeaderMap, secure: bool) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if accept.contains("text/html") {
        pages::page("/", &headers, Reached::of(&http, &uri, &headers, secure).as_ref())
    } else {
        shared(&http, &headers, Json(status(&http)))
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

async fn page(State(http): State<Arc<Http>>, uri: Uri, headers: HeaderMap, secure: bool) -> Response {
    pages::page(uri.path(), &headers, Reached::of(&http, &uri, &headers, secure).as_ref())
}

async fn asset(State(http): State<Arc<Http>>, uri: Uri, headers: HeaderMap, secure: bool) -> Response {
    pages::asset(uri.path(), &headers, Reached::of(&http, &uri, &headers, secure).as_ref())
}

fn status(http: &Http) -> Value {
    json!({
        "status": "running",
        "message": "Whimbrel is running",
        "version": env!("CARGO_PKG_VERSION"),
        "onlineUsers": http.engine.hub().online_count(),
        "timestamp": OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
    })
}

async fn online_users(State(http): State<Arc<Http>>, headers: HeaderMap) -> Response {
    /// Who is interested in more pages through the protocol's query.
    const USERS_MAX: usize = 10_000;
    let (users, _more) = http.engine.hub().online("", USERS_MAX);
    shared(&http, &headers, Json(json!({ "users": http.gateway.users(&users) })))
}

/// How to connect.
async fn well_known(State(http): State<Arc<Http>>, uri: Uri, headers: HeaderMap, secure: bool) -> Response {
    let Some(Reached { authority, websocket_scheme, quic }) = Reached::of(&http, &uri, &headers, secure) else {
        return (StatusCode::BAD_REQUEST, "the Host header is missing or malformed\n").into_response();
    };
    let hashes: Vec<String> = http.keys.hashes().iter().map(|hash| STANDARD.encode(hash)).collect();
    let mut response = shared(
        &http,
        &headers,
        Json(json!({
            "webtransport": { "url": format!("https://{quic}/wt"), "certificateHashes": hashes },
            "quic": { "address": quic, "alpn": ALPN, "certificateHashes": hashes },
            "websocket": { "url": format!("{websocket_scheme}://{authority}/ws") },
            "versions": (VERSION_MIN..=VERSION_MAX).collect::<Vec<u8>>(),
        })),
    );
    // Hashes change with the certificates.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why nobody, or not this page, may open a WebSocket; `None` if it may.
fn refusal(http: &Http, headers: &HeaderMap) -> Option<Response> {
    if let Some(origin) = headers.get(header::ORIGIN)
        && !http.pages.may_connect(origin.to_str().unwrap_or_default())
    {
        let words = match http.pages {
            Pages::Of(_) => "pages of this origin may not connect: the server's operator can let them (--origins)\n",
            _ => "pages from elsewhere may not connect to a server without authentication, unless its operator lets them (--origins)\n",
        };
        return Some((StatusCode::FORBIDDEN, words).into_response());
    }
    let draining = || (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "the server is going down\n").into_response();
    http.draining.load(Ordering::Relaxed).then(draining)
}

/// The lobby.
async fn chat(State(http): State<Arc<Http>>, headers: HeaderMap, upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(why) => return (StatusCode::UPGRADE_REQUIRED, format!("/chat is a WebSocket: {why}\n")).into_response(),
    };
    if let Some(refusal) = refusal(&http, &headers) {
        return refusal;
    }
    lobby::limited(upgrade).on_upgrade(async move |socket| http.lobby.serve(&http.context.admission, socket).await)
}

async fn socket_io(
    State(http): State<Arc<Http>>,
    Extension(ConnectInfo(remote)): Extension<ConnectInfo<SocketAddr>>,
    request: axum::extract::Request,
) -> Response {
    gateway::serve(&http.gateway, &http.pages, remote, request).await
}

async fn web_socket(
    State(http): State<Arc<Http>>,
    Extension(ConnectInfo(remote)): Extension<ConnectInfo<SocketAddr>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(why) => return (StatusCode::UPGRADE_REQUIRED, format!("/ws is a WebSocket: {why}\n")).into_response(),
    };
    if let Some(refusal) = refusal(&http, &headers) {
        return refusal;
    }
    let upgrade = upgrade.protocols(websocket::subprotocols());
    let chosen = upgrade.selected_protocol().and_then(|value| value.to_str().ok()).map(str::to_owned);
    let kind = TransportKind::ALL.into_iter().find(|kind| chosen.is_some() && kind.subprotocol() == chosen.as_deref());
    let Some(kind) = kind else {
        let names = websocket::subprotocols().collect::<Vec<_>>().join(" or ");
        return (StatusCode::BAD_REQUEST, format!("/ws speaks the subprotocols {names}: ask for one of them\n")).into_response();
    };
    serve(upgrade, http.context.clone(), kind, remote)
}

fn serve(upgrade: WebSocketUpgrade, context: Arc<Context>, kind: TransportKind, remote: SocketAddr) -> Response {
    websocket::limited(upgrade, kind.form()).on_upgrade(move |socket| {
        let (source, sink) = websocket::split(socket, kind.form());
        session::serve(context, Peer { kind, remote, early: None }, source, sink)
    })
}

async fn ready(State(http): State<Arc<Http>>) -> Response {
    if http.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "going down\n").into_response();
    }
    match http.engine.ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("the store cannot be used: {why}\n")).into_response(),
    }
}

async fn metrics(State(http): State<Arc<Http>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], http.metrics.render()).into_response()
}
