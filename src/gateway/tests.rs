//! The gateway within a process, where its store and who may begin are in the test's hands.

use super::*;
use crate::engine::{Engine, EngineConfig};
use crate::session::Admission;
use crate::store::{MemoryStore, Retention};
use crate::transport::Pages;
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use whimbrel_protocol::frame::Hello;

const PATIENCE: Duration = Duration::from_secs(20);

struct Here {
    address: SocketAddr,
    context: Arc<Context>,
    gateway: Arc<Gateway>,
    store: Arc<MemoryStore>,
}

impl Here {
    /// A gateway to which `most` may come, `a_second` in a second.
    async fn start(most: usize, a_second: u32) -> Self {
        let store = Arc::new(MemoryStore::new());
        let config = EngineConfig {
            presence_grace: Duration::ZERO,
            retention: Retention { entries: 10_000, age: Duration::from_secs(3_600) },
            push: None,
        };
        let engine = Engine::start(store.clone(), config).unwrap();
        let context = Arc::new(Context {
            engine,
            endpoints: Box::new(Vec::new),
            auth: Box::new(|hello: &Hello| Ok(hello.user.clone())),
            admission: Admission::new(most, a_second),
        });
        let gateway = Gateway::new(context.clone(), Arc::default());
        tokio::spawn(gateway.clone().tend());
        tokio::spawn(context.engine.clone().tend_presence());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = gateway.clone();
        let answer =
            async move |ConnectInfo(remote): ConnectInfo<SocketAddr>, request: Request| serve(&serving, &Pages::Any, remote, request).await;
        let router = Router::new().fallback(answer).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, context, gateway, store }
    }

    async fn open(&self) -> Result<Socket, Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", self.address);
        let mut socket = Socket { stream: client_async(url, stream).await?.0, answers: true, told: Vec::new() };
        socket.say("40").await;
        socket.until(|packet| packet.starts_with("40{")).await;
        Ok(socket)
    }

    /// The body of an answer.
    async fn http(&self, method: &str, query: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head =
            format!("{method} /socket.io/?EIO=4&{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("no answer").unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    async fn user(&self, id: &str) -> Socket {
        let mut socket = self.open().await.unwrap();
        socket.emit("user:login", json!({ "id": id })).await;
        socket.event("user:login:success", |_| true).await;
        socket
    }
}

impl Here {
    /// Waits until nobody has a place.
    async fn no_places(&self) {
        self.until("places", || self.context.admission.here()).await;
    }

    /// Waits until nobody has a place, and nothing is left of anybody's connection.
    async fn empty(&self) {
        self.no_places().await;
        self.until("connections", || self.gateway.wires.count()).await;
    }

    async fn until(&self, what: &str, left: impl Fn() -> usize) {
        let begun = Instant::now();
        while left() > 0 {
            assert!(begun.elapsed() < PATIENCE, "who is gone has {} {what}", left());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A client, and what it was told.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Whether it answers pings.
    answers: bool,
    told: Vec<(String, Value)>,
}

impl Socket {
    async fn say(&mut self, packet: &str) {
        self.stream.send(Message::text(packet)).await.unwrap();
    }

    async fn emit(&mut self, event: &str, data: Value) {
        self.say(&format!("42{}", json!([event, data]))).await;
    }

    /// The next packet; `None` at the end. Pings are among them.
    async fn packet(&mut self) -> Option<String> {
        let message = timeout(PATIENCE, self.stream.next()).await.expect("nothing comes");
        let Some(Ok(Message::Text(text))) = message else { return None };
        let packet = text.as_str().to_owned();
        if packet == "2" && self.answers {
            let _ = self.stream.send(Message::text("3")).await;
        }
        if let Some(event) = packet.strip_prefix("42") {
            self.told.push(serde_json::from_str(event).unwrap());
        }
        Some(packet)
    }

    async fn until(&mut self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let packet = self.packet().await.expect("it was closed");
            if fits(&packet) {
                return packet;
            }
        }
    }

    /// Waits until an event was told, or finds that it was.
    async fn event(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some((_, data)) = self.told.iter().find(|(event, data)| event == name && fits(data)) {
                return data.clone();
            }
            self.packet().await.unwrap_or_else(|| panic!("it was closed before {name}; told was {:?}", self.told));
        }
    }

    /// Takes what comes while something else goes on.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return done,
                packet = self.packet() => assert!(packet.is_some(), "it was closed"),
            }
        }
    }

    fn messages(&self) -> Vec<&str> {
        self.told.iter().filter(|(event, _)| event == "message").map(|(_, data)| data["id"].as_str().unwrap()).collect()
    }
}

fn message(id: &str, to: &str, content: &str) -> Value {
    json!({ "id": id, "toId": to, "content": content })
}

fn is(id: &str, status: &str) -> impl Fn(&Value) -> bool {
    move |sent| sent["messageId"] == id && sent["status"] == status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_put_off_logs_in_later_counts_meanwhile_and_loses_nothing() {
    let here = Here::start(4, 1).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(here.open().await.unwrap());
    }
    let begun = Instant::now();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.emit("user:login", json!({ "id": format!("user-{number}") })).await;
        socket.emit("message", message(&format!("m{number}"), "friend", "hello")).await;
    }
    // One is let in at once, and no more than one in each second.
    while here.context.engine.hub().online_count() < 2 {
        assert!(begun.elapsed() < PATIENCE, "nobody is let in later");
        assert_eq!(here.context.admission.here(), 4, "who waits does not count");
        assert!(matches!(here.open().await, Err(Error::Http(refused)) if refused.status() == 503));
    }
    assert!(here.context.engine.hub().online_count() < 4, "nobody waits");
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.event("message:sent", is(&format!("m{number}"), "sent")).await;
    }
    drop(sockets);
    here.empty().await;
    let mut friend = here.user("friend").await;
    for number in 0..4 {
        friend.event("message", |message| message["id"] == format!("m{number}")).await;
    }
    assert_eq!(friend.messages().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_told_once_it_can_be() {
    let here = Here::start(100, 1_000).await;
    let (mut ann, mut other, mut bob) = (here.user("ann").await, here.user("ann").await, here.user("bob").await);
    ann.emit("message", message("m1", "bob", "one")).await;
    for socket in [&mut other, &mut bob] {
        socket.event("message", |message| message["id"] == "m1").await;
    }
    bob.meanwhile(ann.event("message:sent", is("m1", "delivered"))).await;
    here.store.fail_conversations(true);
    ann.emit("message", message("m2", "bob", "two")).await;
    bob.event("message", |message| message["id"] == "m2").await;
    // Long enough for one attempt that fails again.
    let failing = Instant::now() + Duration::from_millis(1_500);
    while let Ok(Some(_)) = tokio::time::timeout_at(failing, other.packet()).await {}
    assert_eq!(other.messages(), ["m1"]);
    here.store.fail_conversations(false);
    ann.emit("message", message("m3", "bob", "three")).await;
    for id in ["m2", "m3"] {
        bob.meanwhile(ann.event("message:sent", is(id, "delivered"))).await;
    }
    for socket in [&mut other, &mut bob] {
        socket.event("message", |message| message["id"] == "m3").await;
        assert_eq!(socket.messages(), ["m1", "m2", "m3"]);
    }
    assert!(ann.messages().is_empty(), "{:?}", ann.messages());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_told_a_receipt_of_what_it_sent_and_not_its_own_words() {
    let here = Here::start(100, 1_000).await;
    let (mut ann, mut bob) = (here.user("ann").await, here.user("bob").await);
    // The network takes what ann sends, and nothing to her.
    ann.answers = false;
    ann.emit("message", message("m1", "bob", "one")).await;
    bob.event("message", |message| message["id"] == "m1").await;
    drop(ann);
    let mut ann = here.user("ann").await;
    ann.event("message:sent", is("m1", "sent")).await;
    bob.emit("message", message("m2", "ann", "two")).await;
    ann.event("message", |message| message["id"] == "m2").await;
    assert_eq!(ann.messages(), ["m2"]);
    // Another device that is here is told the words.
    let mut other = here.user("ann").await;
    other.emit("message", message("m3", "bob", "three")).await;
    ann.event("message", |message| message["id"] == "m3").await;
    other.event("message:sent", is("m3", "sent")).await;
    // What ann had not taken when it came, it is told too.
    assert!(!other.messages().contains(&"m3"), "{:?}", other.messages());
    assert_eq!(ann.messages(), ["m2", "m3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_left_its_socket_does_not_stay() {
    let here = Here::start(100, 1_000).await;
    let (mut left, mut back) = (here.user("ann").await, here.user("bob").await);
    for socket in [&mut left, &mut back] {
        socket.say("41").await;
    }
    back.say("40").await;
    back.until(|packet| packet.starts_with("40{")).await;
    let begun = Instant::now();
    while left.packet().await.is_some() {}
    assert!(begun.elapsed() < EMPTY_TIME + PATIENCE);
    assert_eq!(here.context.admission.here(), 1);
    back.emit("user:login", json!({ "id": "cat" })).await;
    back.event("user:login:success", |user| user["id"] == "cat").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_the_server_full_is_told_so_and_may_come_again() {
    let here = Here::start(1, 1_000).await;
    let ann = here.user("ann").await;
    match here.open().await {
        Err(Error::Http(refused)) => {
            assert_eq!(refused.status(), 503);
            assert_eq!(refused.body().as_deref(), Some(FULL.as_bytes()));
        }
        Err(why) => panic!("{why}"),
        Ok(_) => panic!("two are in"),
    }
    drop(ann);
    here.empty().await;
    here.user("bob").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_before_it_was_quite_there_does_not_stay() {
    let here = Here::start(1_000, 1_000).await;
    for number in 0..100 {
        let stream = TcpStream::connect(here.address).await.unwrap();
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", here.address);
        let mut stream = client_async(url, stream).await.unwrap().0;
        stream.send(Message::text("40")).await.unwrap();
        // In order, or not.
        if number % 2 == 0 {
            let _ = stream.send(Message::text("1")).await;
        }
    }
    // The library keeps some of the connections until it would have expected a socket.
    here.no_places().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_socket_of_a_user_has_got_is_in_the_store_soon() {
    let here = Here::start(100, 1_000).await;
    let (mut ann, mut bob) = (here.user("ann").await, here.user("bob").await);
    ann.emit("message", message("m1", "bob", "one")).await;
    bob.event("message", |message| message["id"] == "m1").await;
    let begun = Instant::now();
    let taken = async {
        let user = "bob".parse().unwrap();
        while here.context.engine.position_of(&user).await.unwrap().is_none_or(|seq| seq.0 < 2) {
            assert!(begun.elapsed() < PATIENCE, "it is not saved");
            sleep(Duration::from_millis(20)).await;
        }
    };
    bob.meanwhile(taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_while_nothing_can_be_read_is_taken_once_it_can() {
    let here = Here::start(100, 1_000).await;
    let (mut ann, mut other) = (here.user("ann").await, here.user("ann").await);
    here.store.fail_conversations(true);
    // What the other says stands in ann's way: to whom it was cannot be read.
    other.emit("message", message("o1", "bob", "one")).await;
    other.event("message:sent", is("o1", "sent")).await;
    ann.say(&format!("427{}", json!(["message", message("a1", "bob", "two")]))).await;
    let failing = Instant::now() + Duration::from_millis(500);
    while let Ok(Some(_)) = tokio::time::timeout_at(failing, ann.packet()).await {}
    assert!(!ann.told.iter().any(|(event, _)| event == "message:sent"), "{:?}", ann.told);
    here.store.fail_conversations(false);
    let called = ann.until(|packet| packet.starts_with("437[")).await;
    assert!(called.contains("\"a1\"") && called.contains("\"sent\""), "{called}");
    ann.event("message:sent", is("a1", "sent")).await;
    ann.event("message:sent", is("a1", "offline")).await;
    assert_eq!(ann.messages(), ["o1"]);
    let logins = ann.told.iter().filter(|(event, _)| event == "user:login:success").count();
    assert_eq!(logins, 1, "nothing has changed for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_come_and_go_on_one_connection_leave_nothing() {
    let here = Here::start(1_000, 1_000).await;
    for _ in 0..1_000 {
        let mut socket = here.open().await.unwrap();
        for packet in ["41", "40", "41", "40", "41", "40"] {
            socket.stream.feed(Message::text(packet)).await.unwrap();
        }
        socket.stream.flush().await.unwrap();
        // The library may have ended it meanwhile.
        let _ = socket.packet().await;
    }
    here.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_until_one_is_told_that_the_server_leaves_is_taken() {
    let here = Here::start(100, 1_000).await;
    let (mut ann, mut bob) = (here.user("ann").await, here.user("bob").await);
    here.context.admission.close();
    here.gateway.leave();
    let sessions = here.context.engine.drain();
    assert_eq!(sessions.len(), 2);
    ann.emit("message", message("m1", "bob", "one")).await;
    ann.event("message:sent", is("m1", "sent")).await;
    bob.event("message", |message| message["id"] == "m1").await;
    for (session, at) in sessions {
        session.leave(at);
    }
    for socket in [&mut ann, &mut bob] {
        socket.event("server:shutdown", |_| true).await;
    }
    here.no_places().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_last_is_taken_however_soon_its_client_leaves() {
    const MESSAGES: usize = 400;
    let here = Here::start(100, 1_000).await;
    let (mut ann, mut bob) = (here.user("ann").await, here.user("bob").await);
    for number in 0..MESSAGES {
        let event = json!(["message", message(&number.to_string(), "bob", "x")]);
        ann.stream.feed(Message::text(format!("42{event}"))).await.unwrap();
    }
    ann.say("41").await;
    let last = (MESSAGES - 1).to_string();
    bob.event("message", |message| message["id"] == last.as_str()).await;
    assert_eq!(bob.messages(), (0..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_with_who_is_put_off_has_a_bound() {
    const MESSAGES: usize = 300;
    let here = Here::start(10, 1).await;
    let (_first, mut crowd) = (here.user("first").await, Vec::new());
    // She waits behind them, so that all of hers is there before she is let in.
    for number in 0..3 {
        let mut socket = here.open().await.unwrap();
        socket.emit("user:login", json!({ "id": format!("user-{number}") })).await;
        crowd.push(socket);
    }
    let mut socket = here.open().await.unwrap();
    socket.emit("user:login", json!({ "id": "ann" })).await;
    let long = "x".repeat(60_000);
    for number in 0..MESSAGES {
        let event = json!(["message", message(&number.to_string(), "bob", &long)]);
        socket.stream.feed(Message::text(format!("42{event}"))).await.unwrap();
    }
    socket.stream.flush().await.unwrap();
    let refused = |socket: &Socket| {
        let errors = socket.told.iter().filter(|(event, _)| event == "error");
        errors
            .map(|(_, data)| data["message"].as_str().unwrap().split_once(" events were not taken").unwrap().0.parse::<usize>().unwrap())
            .sum::<usize>()
    };
    let sent = |socket: &Socket| {
        let sent = socket.told.iter().filter(|(event, data)| event == "message:sent" && data["status"] == "sent");
        sent.map(|(_, data)| data["messageId"].as_str().unwrap().parse::<usize>().unwrap()).collect::<Vec<_>>()
    };
    while sent(&socket).len() + refused(&socket) < MESSAGES {
        assert!(socket.packet().await.is_some(), "it was closed");
    }
    assert!(refused(&socket) > 0, "all of them waited");
    assert!(sent(&socket).is_sorted(), "{:?}", sent(&socket));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_themself_otherwise_is_told_of() {
    let here = Here::start(100, 1_000).await;
    let (mut bob, _nameless) = (here.user("bob").await, here.user("ann").await);
    bob.event("online_users", |users| users.as_array().unwrap().len() == 2).await;
    let mut ann = here.open().await.unwrap();
    ann.emit("user:login", json!({ "id": "ann", "name": "Ann" })).await;
    bob.event("online_users", |users| users.as_array().unwrap().iter().any(|user| user["name"] == "Ann")).await;
    let came = bob.told.iter().filter(|(event, data)| event == "status_change" && data["userId"] == "ann").count();
    assert!(came <= 1, "{:?}", bob.told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_the_library_refuses_leaves_nothing() {
    let here = Here::start(100, 1_000).await;
    let opened = here.http("GET", "transport=polling", "").await;
    let sid = opened.split('"').nth(3).unwrap();
    let polling = format!("transport=polling&sid={sid}");
    assert_eq!(here.http("POST", &polling, "40").await, "ok");
    while !here.http("GET", &polling, "").await.contains("40{") {}
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket&sid={sid}", here.address);
    let stream = client_async(url, TcpStream::connect(here.address).await.unwrap()).await.unwrap().0;
    let mut socket = Socket { stream, answers: true, told: Vec::new() };
    socket.say("2probe").await;
    socket.until(|packet| packet == "3probe").await;
    // As no client may say it: without a mask.
    socket.stream.get_mut().write_all(&[0x81, 1, b'5']).await.unwrap();
    here.empty().await;
    assert!(here.http("GET", &polling, "").await.contains("Session ID unknown"));
}
