//! Devices that are handed over to push: a receiver of hints hears which devices have not taken a message.

use crate::harness::{Frames, Link, ServerProcess, hello, run, within};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use whimbrel_protocol::frame::{ClientFrame, ClientState, Signal};
use whimbrel_protocol::{DOCTOR, TransportKind};

const KEY: &[u8] = b"a key that is only for tests, 32";

/// A request that came.
struct Post {
    id: String,
    body: Value,
}

/// Somebody who receives hints.
struct Receiver {
    address: SocketAddr,
    posts: mpsc::UnboundedReceiver<Post>,
}

impl Receiver {
    /// Answers with these, one after the other, and then `204 No Content`.
    async fn start(answers: &'static [StatusCode]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (post, posts) = mpsc::unbounded_channel();
        let came = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (post, came) = (post.clone(), came.clone());
                let answer = hyper::service::service_fn(move |request| {
                    let (post, came) = (post.clone(), came.clone());
                    async move {
                        let taken = check(request).await;
                        let status = answers.get(came.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(StatusCode::NO_CONTENT);
                        drop(post.send(taken));
                        let answer = Response::builder().status(status).body(Empty::<Bytes>::new());
                        answer.map_err(std::io::Error::other)
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { address, posts }
    }

    /// A server that sends hints here. `patience` is an hour where a test is of what happens at once.
    fn server(&self, patience: &str) -> ServerProcess {
        let url = format!("http://{}/hints?for=tests", self.address);
        let secret = format!("whsec_{}", STANDARD.encode(KEY));
        ServerProcess::start_with(&["--push-url", &url, "--push-secret", &secret, "--push-patience", patience])
    }

    /// The next request.
    async fn post(&mut self) -> Post {
        within("a hint", self.posts.recv()).await.unwrap()
    }

    /// The next hint: to whom, about what, and for which devices.
    async fn hint(&mut self) -> (String, String, Value) {
        let data = self.post().await.body["data"].take();
        let word = |key: &str| data[key].as_str().unwrap().to_owned();
        (word("user"), word("text"), data["devices"].clone())
    }
}

/// What a receiver does that follows the specification.
async fn check(request: Request<Incoming>) -> Post {
    assert_eq!((request.method(), request.uri().path(), request.uri().query()), (&Method::POST, "/hints", Some("for=tests")));
    let header = |name: &str| request.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    let (id, timestamp, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
    let told = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &signed, &told).expect("the signature is wrong");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["type"], "message.waiting");
    Post { id, body }
}

const HOUR: &str = "3600";

const SUSPENDED: ClientState = ClientState { background: true, ask_after_s: 0 };

async fn suspended(server: &ServerProcess, user: &str, device: &str) -> Frames {
    let mut link = Link::over(server.http, TransportKind::Quic).await;
    let mut hello = hello(user, device);
    hello.extensions.push(SUSPENDED.to_extension());
    link.send(&ClientFrame::Hello(hello)).await;
    Frames::welcomed(link).await
}

async fn over(server: &ServerProcess, user: &str, device: &str) -> Frames {
    Frames::over(server.http, TransportKind::WebSocket, user, device).await
}

#[test]
fn a_suspended_device_is_handed_over_at_once_and_one_that_takes_the_message_is_not() {
    run(async {
        let mut receiver = Receiver::start(&[]).await;
        let server = receiver.server(HOUR);
        let mut ann = over(&server, "ann", "phone").await;
        let _other = suspended(&server, "ann", "tablet").await;
        let mut desk = over(&server, "bob", "desk").await;
        let mut phone = suspended(&server, "bob", "phone").await;
        // Whoever looked whether bob is let in does not take his messages, and is not woken for them.
        drop(suspended(&server, "bob", DOCTOR).await);
        ann.say("bob", "are you there?").await;
        let Post { body, .. } = receiver.post().await;
        let data = &body["data"];
        // Not ann's own, although one of them is suspended too.
        assert_eq!((&data["user"], &data["from"], &data["text"]), (&json!("bob"), &json!("ann"), &json!("are you there?")));
        assert_eq!(data["devices"], json!([{ "id": "phone", "state": "suspended" }]));
        assert_eq!((&data["conversation"], &data["message"]), (&json!(1), &json!(1)));
        // It gets it over its session all the same.
        assert_eq!(phone.message().await, "are you there?");
        assert_eq!(desk.message().await, "are you there?");
        phone.ack().await;
        desk.ack().await;
        // Back in the foreground it is not handed over, while another one that is away is, which was suspended when it left.
        phone.link.send(&ClientFrame::Signal(Signal::State(ClientState::default()))).await;
        drop(suspended(&server, "bob", "watch").await);
        ann.say("bob", "and now?").await;
        assert_eq!((phone.message().await, desk.message().await), ("and now?".into(), "and now?".into()));
        phone.ack().await;
        desk.ack().await;
        let (user, text, devices) = receiver.hint().await;
        assert_eq!((user.as_str(), text.as_str()), ("bob", "and now?"));
        assert!(
            [json!([{ "id": "watch", "state": "suspended" }]), json!([{ "id": "watch", "state": "away" }])].contains(&devices),
            "{devices}"
        );
    });
}

#[test]
fn who_comes_back_suspended_is_handed_over_at_once() {
    run(async {
        let mut receiver = Receiver::start(&[]).await;
        let server = receiver.server(HOUR);
        let mut ann = over(&server, "ann", "phone").await;
        // Gone without a word that it is suspended: for an hour it may be on its way to another network.
        drop(over(&server, "bob", "phone").await);
        let _desk = over(&server, "bob", "desk").await;
        let cseq = ann.say("bob", "are you there?").await;
        ann.applied(cseq).await;
        let _phone = suspended(&server, "bob", "phone").await;
        assert_eq!(receiver.hint().await, ("bob".into(), "are you there?".into(), json!([{ "id": "phone", "state": "suspended" }])));
    });
}

#[test]
fn a_connected_device_that_takes_nothing_is_handed_over_after_a_while() {
    run(async {
        let mut receiver = Receiver::start(&[]).await;
        let server = receiver.server("3");
        let mut ann = over(&server, "ann", "phone").await;
        // In a tunnel, with a connection that nobody knows to be dead.
        let _phone = over(&server, "bob", "phone").await;
        let mut desk = over(&server, "bob", "desk").await;
        ann.say("bob", "are you there?").await;
        desk.message().await;
        desk.ack().await;
        assert_eq!(receiver.hint().await, ("bob".into(), "are you there?".into(), json!([{ "id": "phone", "state": "silent" }])));
    });
}

#[test]
fn a_server_that_leaves_hands_over_who_has_not_taken_everything() {
    run(async {
        let mut receiver = Receiver::start(&[]).await;
        let mut server = receiver.server(HOUR);
        let mut ann = over(&server, "ann", "phone").await;
        let _phone = over(&server, "bob", "phone").await;
        let cseq = ann.say("bob", "are you there?").await;
        ann.applied(cseq).await;
        let ended = tokio::task::spawn_blocking(move || server.terminate());
        let (user, text, devices) = receiver.hint().await;
        assert_eq!((user.as_str(), text.as_str(), devices), ("bob", "are you there?", json!([{ "id": "phone", "state": "silent" }])));
        assert!(ended.await.unwrap().success());
    });
}

#[test]
fn a_hint_is_brought_again_where_that_may_help_and_given_up_where_it_does_not() {
    run(async {
        let answers = &[StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS, StatusCode::OK, StatusCode::GONE];
        let mut receiver = Receiver::start(answers).await;
        let server = receiver.server(HOUR);
        let mut ann = over(&server, "ann", "phone").await;
        for user in ["bob", "carol", "dave"] {
            drop(suspended(&server, user, "phone").await);
        }
        ann.say("bob", "first").await;
        let (first, second, third) = (receiver.post().await, receiver.post().await, receiver.post().await);
        assert!(first.id == second.id && second.id == third.id, "one hint has one id");
        assert_eq!(third.body["data"]["text"], "first");
        // This one is told that nobody wants it, so the next request is of another hint.
        ann.say("carol", "second").await;
        assert_eq!(receiver.hint().await.0, "carol");
        ann.say("dave", "third").await;
        assert_eq!(receiver.hint().await.0, "dave");
    });
}
