//! Hints by HTTP: a POST for each to a URL of the operator's, who knows which token of which push service belongs to which device. In the
//! form of Standard Webhooks, version 1 (docs/push.md).

use super::queue::{Errand, Queue};
use crate::engine::{Hint, Push, Standing};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Requests under way at once.
const REQUESTS_MAX: usize = 16;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// An answer is read up to here, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long to wait before each further try. After the last nobody would be glad to be woken.
const TRIES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];
/// What a secret begins with in writing.
const SECRET_PREFIX: &str = "whsec_";

/// Why hints cannot be brought anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The URL is none.
    #[error("push_url (--push-url) is {0:?}: give a URL that begins with https:// or http://, such as https://push.example.org/whimbrel")]
    BadUrl(String),
    /// The secret is none. It is not told.
    #[error(
        "push_secret (WHIMBREL_PUSH_SECRET) cannot be used: give {SECRET_PREFIX} and then 24 to 64 random bytes in base64 (`openssl rand -base64 32`)"
    )]
    BadSecret,
    /// A secret, and nothing to sign.
    #[error("push_secret is set and push_url is not: say where hints go with --push-url")]
    NoUrl,
    /// The system's certificate authorities cannot be read.
    #[error(
        "the system's certificate authorities, which push_url needs, cannot be read: {0}: install ca-certificates, or name a file in SSL_CERT_FILE"
    )]
    NoAuthorities(String),
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Where hints go. Nothing happens unless [`run`](Self::run) does.
pub struct Webhook {
    url: Uri,
    secret: Option<hmac::Key>,
    client: HttpClient,
    queue: Mutex<Queue>,
    changed: Notify,
    closed: AtomicBool,
}

/// Why a hint was not taken.
enum Failure {
    /// Another try may help.
    Passing(String),
    /// It would not.
    Lasting(String),
}

impl Push for Webhook {
    fn hint(&self, hint: Hint) {
        if !self.lock().push(hint) {
            count("dropped");
        }
        self.changed.notify_one();
    }
}

impl Webhook {
    /// Checks what is configured. Reads the system's certificate authorities where the URL needs them: blocks.
    ///
    /// # Errors
    /// If hints cannot be brought there.
    pub fn open(url: &str, secret: Option<&str>) -> Result<Self, PushError> {
        let uri = parse_url(url)?;
        let secret = secret.map(parse_secret).transpose()?;
        let builder = HttpsConnectorBuilder::new();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = if uri.scheme_str() == Some("https") {
            builder.with_provider_and_native_roots(provider).map_err(|why| PushError::NoAuthorities(why.to_string()))?
        } else {
            // None are needed.
            let none = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
            let none = none.map_err(|why| PushError::NoAuthorities(why.to_string()))?;
            builder.with_tls_config(none.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        };
        let client = Client::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().build());
        Ok(Self { url: uri, secret, client, queue: Mutex::default(), changed: Notify::new(), closed: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock panics between two consistent states.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings hints, until [`close`](Self::close) was called and those are brought that need not wait.
    pub async fn run(self: Arc<Self>) {
        let mut requests = JoinSet::new();
        loop {
            let mut next = None;
            while requests.len() < REQUESTS_MAX {
                let mut queue = self.lock();
                let Some(errand) = queue.take(Instant::now()) else {
                    next = queue.next();
                    break;
                };
                let webhook = self.clone();
                requests.spawn(async move { webhook.bring(errand).await });
            }
            if self.closed.load(Ordering::Acquire) && self.lock().is_idle() {
                return;
            }
            let later = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = self.changed.notified() => {}
                Some(_) = requests.join_next() => {}
                () = tokio::time::sleep_until(later.into()) => {}
            }
        }
    }

    /// No more hints come. Those that wait because they were refused are given up.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    async fn bring(&self, mut errand: Errand) {
        let (why, wait) = match self.post(errand.id, body(&errand.hint)).await {
            Ok(()) => {
                count("sent");
                return self.lock().done(&errand.hint.user);
            }
            Err(Failure::Passing(why)) => (why, TRIES.get(errand.tries)),
            Err(Failure::Lasting(why)) => (why, None),
        };
        let user = errand.hint.user.clone();
        let Some(wait) = wait else {
            count("failed");
            tracing::warn!(%user, why, "a hint was given up: the devices learn of the message when they come back");
            return self.lock().done(&user);
        };
        // Up to half as much more, so that many do not come at once.
        let wait = wait.mul_f64(1.0 + rand::random::<f64>() / 2.0);
        tracing::debug!(%user, why, ?wait, "a hint was not taken; trying again");
        errand.tries += 1;
        self.lock().again(errand, Instant::now() + wait);
    }

    async fn post(&self, id: u128, body: String) -> Result<(), Failure> {
        let id = format!("hint_{id:032x}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("whimbrel/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", now);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", signature(secret, &id, now, body.as_bytes()));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|why| Failure::Lasting(why.to_string()))?;
        let asked = async {
            let answer = self.client.request(request).await.map_err(|why| Failure::Passing(told(&why)))?;
            let status = answer.status();
            // One that is too long, or breaks off, costs its connection and nothing else.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            match status {
                status if status.is_success() => Ok(()),
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Passing(status.to_string())),
                status if status.is_server_error() => Err(Failure::Passing(status.to_string())),
                status => Err(Failure::Lasting(status.to_string())),
            }
        };
        let late = |_| Err(Failure::Passing(format!("no answer within {} s", ANSWER_MAX.as_secs())));
        tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or_else(late)
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("whimbrel_push_hints_total", "outcome" => outcome).increment(1);
}

/// An error with its reasons.
fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn parse_url(url: &str) -> Result<Uri, PushError> {
    let bad = || PushError::BadUrl(url.into());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let fits = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if fits { Ok(uri) } else { Err(bad()) }
}

fn parse_secret(secret: &str) -> Result<hmac::Key, PushError> {
    let bytes = secret.strip_prefix(SECRET_PREFIX).and_then(|secret| STANDARD.decode(secret).ok());
    let bytes = bytes.filter(|bytes| (24..=64).contains(&bytes.len())).ok_or(PushError::BadSecret)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(secret: &hmac::Key, id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    format!("v1,{}", STANDARD.encode(hmac::sign(secret, &signed)))
}

fn body(hint: &Hint) -> String {
    let Hint { user, devices, from, conversation, message, time, text } = hint;
    let standing = |standing: &Standing| match standing {
        Standing::Here => "silent",
        Standing::Suspended => "suspended",
        Standing::Away => "away",
    };
    let devices: Vec<_> = devices.iter().map(|(id, stands)| json!({ "id": id, "state": standing(stands) })).collect();
    let when = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0) * 1_000_000).ok().and_then(|when| when.format(&Rfc3339).ok());
    let data = json!({
        "user": user, "devices": devices, "from": from, "conversation": conversation.0, "message": message.0, "time": time.0, "text": text,
    });
    json!({ "type": "message.waiting", "timestamp": when, "data": data }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, Time, UserId};

    #[test]
    fn a_hint_in_writing() {
        let hint = Hint {
            user: UserId::new("bob").unwrap(),
            devices: vec![(DeviceId::new("phone").unwrap(), Standing::Suspended), (DeviceId::new("desk").unwrap(), Standing::Here)],
            from: UserId::new("ann").unwrap(),
            conversation: ConversationId(7),
            message: ConversationSeq(12),
            time: Time(1_795_354_469_217),
            text: "the train is \"late\"".into(),
        };
        let body: serde_json::Value = serde_json::from_str(&body(&hint)).unwrap();
        let expected = json!({
            "type": "message.waiting",
            "timestamp": "2026-11-22T13:34:29.217Z",
            "data": {
                "user": "bob",
                "devices": [{ "id": "phone", "state": "suspended" }, { "id": "desk", "state": "silent" }],
                "from": "ann",
                "conversation": 7,
                "message": 12,
                "time": 1_795_354_469_217_u64,
                "text": "the train is \"late\"",
            },
        });
        assert_eq!(body, expected);
    }

    /// The example of the specification (Standard Webhooks 1.0.0, "Signature scheme"), as its reference libraries test it.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_a_secret_is_not_repeated() {
        for bad in ["", "push.example.org", "ftp://push.example.org", "https://", "/hints", "http://exa mple.org"] {
            assert_eq!(parse_url(bad), Err(PushError::BadUrl(bad.into())));
        }
        assert!(parse_url("http://127.0.0.1:9000/hints?key=1").is_ok());
        for bad in ["", "secret", "whsec_", "whsec_short", "whsec_*****************************************"] {
            let error = parse_secret(bad).unwrap_err();
            assert!(bad.len() < 7 || !error.to_string().contains(bad), "{error}");
        }
    }
}
