//! The chat page at `/`, the one at `/doctor`, and their files under `/web/`, from the binary: nothing is read from disk, nothing comes from other hosts.

use super::Reached;
use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// Path and content of each file; made by `build.rs`.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/web.rs"));
/// The pages: where each is served, which is nowhere else, and its file.
const PAGES: [(&str, &str); 2] = [("/", "/web/chat/index.html"), ("/doctor", "/web/doctor/index.html")];
/// The service worker. It may look after `/`, though it stands further down.
const WORKER: &str = "/web/chat/sw.js";
/// The SDK's modules, for other pages: ours has them in its bundle.
const SDK: &str = "/web/src/";

static SITE: LazyLock<Site> = LazyLock::new(Site::new);

struct Site {
    files: HashMap<&'static str, (&'static [u8], String)>,
    /// Changes with any file.
    version: String,
}

impl Site {
    fn new() -> Self {
        let files: HashMap<_, _> = FILES.iter().map(|(path, body)| (*path, (*body, hash(&[*body])))).collect();
        let hashes: Vec<&[u8]> = FILES.iter().flat_map(|(path, _)| [path.as_bytes(), files[path].1.as_bytes()]).collect();
        let version = hash(&hashes);
        Self { files, version }
    }
}

/// Enough of SHA-256 to tell contents apart, in hexadecimal.
fn hash(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().iter().take(12).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The page at `path`, for a browser that reached the server like that.
pub fn page(path: &str, headers: &HeaderMap, reached: Option<&Reached>) -> Response {
    PAGES.iter().find(|(at, _)| *at == path).map_or_else(missing, |(_, page)| file(page, headers, reached))
}

fn is_page(path: &str) -> bool {
    PAGES.iter().any(|(_, page)| *page == path)
}

/// A file of the pages or the SDK; `path` begins with `/web/`.
pub fn asset(path: &str, headers: &HeaderMap, reached: Option<&Reached>) -> Response {
    if is_page(path) {
        return missing();
    }
    file(path, headers, reached)
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "There is no such file. The chat page is at /.\n").into_response()
}

fn file(path: &str, headers: &HeaderMap, reached: Option<&Reached>) -> Response {
    let Some((body, tag)) = SITE.files.get(path) else { return missing() };
    let policy = policy(reached);
    let (body, tag) = match path {
        WORKER => {
            let body = worker(body, &policy);
            let tag = hash(&[&body]);
            (Bytes::from(body), tag)
        }
        // The policy is part of what a cache keeps.
        page if is_page(page) => (Bytes::from_static(body), hash(&[body, policy.as_bytes()])),
        _ => (Bytes::from_static(body), tag.clone()),
    };
    let tag = format!("\"{tag}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known == "*" || known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
    {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type(path))], Body::from(body)).into_response()
    };
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::ETAG, &tag);
    // Asked again each time, and answered with 304: a new version of the server is a new page at once.
    put(header::CACHE_CONTROL, "no-cache");
    put(header::CONTENT_SECURITY_POLICY, &policy);
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::REFERRER_POLICY, "no-referrer");
    if path == WORKER {
        put(HeaderName::from_static("service-worker-allowed"), "/");
    }
    response
}

/// The worker, told what to keep. Its text changes with any file and with the policy: that is how browsers notice a new version.
fn worker(script: &[u8], policy: &str) -> Vec<u8> {
    let needed = |path: &&str| *path != WORKER && !path.starts_with(SDK);
    let served_at = |path: &'static str| PAGES.iter().find(|(_, page)| *page == path).map_or(path, |(at, _)| at);
    let files: Vec<&str> = FILES.iter().map(|(path, _)| served_at(path)).filter(needed).collect();
    let version = hash(&[SITE.version.as_bytes(), policy.as_bytes()]);
    let kept = serde_json::json!({ "version": version, "files": files });
    [format!("self.kept = {kept};\n").as_bytes(), script].concat()
}

/// Everything from here; connections also to the WebSocket and to WebTransport, at the addresses that `/.well-known/whimbrel` tells.
fn policy(reached: Option<&Reached>) -> String {
    let mut connect = "'self'".to_owned();
    if let Some(reached) = reached {
        // Writing to a string cannot fail.
        let _ = write!(connect, " {}://{} https://{}", reached.websocket_scheme, reached.authority, reached.quic);
    }
    format!("default-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'")
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}
