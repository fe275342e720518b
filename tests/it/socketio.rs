//! The gateway for clients of Socket.IO, by its bytes: who may come, what is refused, and what it costs to tell everybody who is online. What
//! the libraries of the field make of it is in `clients/web/test/legacy`.

use crate::harness::socketio::{POLLING, Socket, poll_in, request};
use crate::harness::{PATIENCE, ServerProcess, http_get, run, within};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::{Method, Response};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn pages_come_from_where_they_may() {
    run(async {
        const SHOP: &str = "https://shop.example.org";
        let server = ServerProcess::start_with(&["--origins", SHOP]);
        let own = format!("http://{}", server.http);
        for (origin, allowed) in [(SHOP, true), (own.as_str(), true), ("https://evil.example.org", false), ("null", false)] {
            let polled = http_get(server.http, POLLING, &[("origin", origin)]).await;
            let wanted = allowed.then_some(origin);
            assert_eq!((polled.status() == 200, header(&polled, "access-control-allow-origin")), (allowed, wanted), "{origin}");
            assert_eq!(header(&polled, "access-control-allow-credentials"), allowed.then_some("true"), "{origin}");
            assert_eq!(Socket::open(&server, Some(origin)).await.is_ok(), allowed, "{origin} over a WebSocket");
            let asked = [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", "content-type")];
            let preflight = request(server.http, Method::OPTIONS, POLLING, &asked, Vec::new()).await.unwrap();
            assert_eq!((preflight.status() == 204, header(&preflight, "access-control-allow-origin")), (allowed, wanted), "{origin}");
            assert_eq!(header(&preflight, "access-control-allow-headers"), allowed.then_some("content-type"), "{origin}");
            assert!(header(&polled, "vary").is_some_and(|vary| vary.contains("Origin")), "caches keep them apart");
        }
        // No page at all: a program.
        let polled = http_get(server.http, POLLING, &[]).await;
        assert_eq!((polled.status().as_u16(), header(&polled, "access-control-allow-origin")), (200, None));
    });
}

#[test]
fn who_speaks_something_else_is_told_so() {
    run(async {
        let server = ServerProcess::start();
        for (path, status) in [
            ("/socket.io/?EIO=3&transport=polling", 400),
            ("/socket.io/?EIO=4&transport=pigeon", 400),
            ("/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAA", 400),
            ("/socket.io/?EIO=4&transport=websocket", 400),
            ("/socket.io/", 400),
        ] {
            let answer = http_get(server.http, path, &[]).await;
            assert_eq!(answer.status().as_u16(), status, "{path}: {:?}", answer.body());
        }
        // Another namespace.
        let mut socket = Socket::open(&server, None).await.unwrap();
        socket.say("40/admin,").await;
        assert!(socket.until("44/admin,").await.contains("message"));
    });
}

#[test]
fn what_is_too_long_ends_its_own_connection_at_most() {
    run(async {
        let server = ServerProcess::start();
        let mut bystander = Socket::user(&server, "bystander").await;
        let long = "x".repeat(1_100_000);
        let event = |content: &str| format!("42{}", json!(["message", { "id": "1", "toId": "bystander", "content": content }]));
        let path = poll_in(&server, "ann").await;
        // The answer may be lost: the server reads no more, and this one is still writing.
        if let Ok(refused) = request(server.http, Method::POST, &path, &[], event(&long).into()).await {
            assert_eq!(refused.status(), 413);
        }
        let mut socket = Socket::user(&server, "bob").await;
        // It may be closed before all of it is there.
        let _ = socket.0.send(Message::text(event(&long))).await;
        while socket.packet().await.is_some() {}
        // As long as may be, it is refused with words.
        let mut socket = Socket::user(&server, "cat").await;
        socket.say(&event(&"x".repeat(900_000))).await;
        let words = socket.error().await;
        assert!(words.starts_with("message: 1: "), "{words}");
        socket.say(&event("short")).await;
        let packet = bystander.until("42[\"message\"").await;
        assert!(packet.contains("short"), "{packet}");
    });
}

#[test]
fn one_request_with_thousands_of_events_is_taken_as_far_as_it_goes() {
    run(async {
        const EVENTS: usize = 6_000;
        let server = ServerProcess::start();
        let path = poll_in(&server, "ann").await;
        let events: Vec<String> = (0..EVENTS)
            .map(|number| format!("42{}", json!(["message", { "id": number.to_string(), "toId": "bob", "content": "x" }])))
            .collect();
        assert_eq!(request(server.http, Method::POST, &path, &[], events.join("\u{1e}").into()).await.unwrap().status(), 200);
        // Each has a receipt, or a word on what became of it.
        let (mut sent, mut refused) = (0, 0);
        let begun = Instant::now();
        while sent + refused < EVENTS {
            assert!(begun.elapsed() < PATIENCE, "{sent} sent, {refused} refused");
            let polled = http_get(server.http, &path, &[]).await;
            for packet in std::str::from_utf8(polled.body()).unwrap().split('\u{1e}') {
                match packet {
                    // Beside the polls, as clients do: what is posted waits for what was before.
                    "2" => {
                        let (address, path) = (server.http, path.clone());
                        tokio::spawn(async move { request(address, Method::POST, &path, &[], b"3".into()).await });
                    }
                    _ => {
                        sent += usize::from(packet.contains("\"status\":\"sent\""));
                        let words =
                            packet.strip_prefix(r#"42["error",{"message":""#).and_then(|words| words.split_once(" events were not taken"));
                        refused += words.map_or(0, |(number, _)| number.parse().unwrap());
                    }
                }
            }
        }
        assert!(sent >= 4_000, "{sent} sent, {refused} refused");
    });
}

#[test]
fn each_of_hundreds_of_wrong_events_in_one_request_is_answered() {
    run(async {
        const EVENTS: usize = 600;
        let server = ServerProcess::start();
        let path = poll_in(&server, "ann").await;
        let events: Vec<String> =
            (0..EVENTS).map(|number| format!("42{number}{}", json!(["message", { "id": number.to_string() }]))).collect();
        assert_eq!(request(server.http, Method::POST, &path, &[], events.join("\u{1e}").into()).await.unwrap().status(), 200);
        let (mut called, mut told) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while called.len() < EVENTS || told.len() < EVENTS {
            assert!(begun.elapsed() < PATIENCE, "{} were called back, {} told", called.len(), told.len());
            let polled = http_get(server.http, &path, &[]).await;
            for packet in std::str::from_utf8(polled.body()).unwrap().split('\u{1e}') {
                if let Some(words) = packet.strip_prefix(r#"42["error",{"message":"message: "#) {
                    told.push(words.split_once(": toId is missing").unwrap().0.parse().unwrap());
                } else if let Some((number, answer)) = packet.strip_prefix("43").and_then(|answer| answer.split_once('[')) {
                    assert_eq!(answer, format!("{{\"error\":\"{number}: toId is missing\"}}]"));
                    called.push(number.parse().unwrap());
                }
            }
        }
        let all: Vec<usize> = (0..EVENTS).collect();
        assert_eq!((called, told), (all.clone(), all));
    });
}

#[test]
fn who_polls_late_is_called_back_all_the_same() {
    run(async {
        const CALLS: usize = 60;
        const MESSAGES: usize = 110;
        let server = ServerProcess::start();
        let path = poll_in(&server, "ann").await;
        let mut bob = Socket::user(&server, "bob").await;
        // Nothing leaves before ann polls: what is said to her meanwhile takes the room that is for events, and more waits.
        bob.write("ann", MESSAGES, "x").await;
        let events: Vec<String> =
            (0..CALLS).map(|number| format!("42{number}{}", json!(["get_history", { "friendId": "nobody" }]))).collect();
        assert_eq!(request(server.http, Method::POST, &path, &[], events.join("\u{1e}").into()).await.unwrap().status(), 200);
        // This takes its turn behind them: when bob hears it, most are answered.
        let typing = format!("42{}", json!(["typing", { "toId": "bob", "isTyping": true }]));
        assert_eq!(request(server.http, Method::POST, &path, &[], typing.into()).await.unwrap().status(), 200);
        bob.until("42[\"typing\"").await;
        let (mut called, mut told) = (Vec::new(), 0);
        let begun = Instant::now();
        while called.len() < CALLS || told < MESSAGES {
            assert!(begun.elapsed() < PATIENCE, "{} were called back, {told} told", called.len());
            let polled = http_get(server.http, &path, &[]).await;
            for packet in std::str::from_utf8(polled.body()).unwrap().split('\u{1e}') {
                told += usize::from(packet.starts_with("42[\"message\""));
                if let Some((number, answer)) = packet.strip_prefix("43").and_then(|answer| answer.split_once('[')) {
                    assert_eq!(answer, "[]]");
                    called.push(number.parse::<usize>().unwrap());
                }
            }
        }
        assert_eq!((called, told), ((0..CALLS).collect(), MESSAGES));
    });
}

#[test]
fn a_socket_that_leaves_with_words_untold_does_not_silence_the_next() {
    run(async {
        let server = ServerProcess::start();
        let path = poll_in(&server, "ann").await;
        // More answers than there is room for; then its connection has another socket.
        let mut packets: Vec<String> = (0..400).map(|number| format!("42{number}[\"x\"]")).collect();
        packets.push("41".into());
        assert_eq!(request(server.http, Method::POST, &path, &[], packets.join("\u{1e}").into()).await.unwrap().status(), 200);
        let polled =
            async |wanted: &str| while !String::from_utf8_lossy(http_get(server.http, &path, &[]).await.body()).contains(wanted) {};
        // What the first was told, as far as there was room.
        within("a word", polled("42[\"error\"")).await;
        assert_eq!(request(server.http, Method::POST, &path, &[], b"40".into()).await.unwrap().status(), 200);
        within("the next socket", polled("40{")).await;
        let login = format!("42{}", json!(["user:login", { "id": "bob" }]));
        assert_eq!(request(server.http, Method::POST, &path, &[], login.into()).await.unwrap().status(), 200);
        within("the login", polled(r#"["user:login:success",{"id":"bob""#)).await;
    });
}

#[test]
fn attachments_are_not_multiplied() {
    run(async {
        let server = ServerProcess::start();
        let mut socket = Socket::user(&server, "ann").await;
        let once = json!({ "_placeholder": true, "num": 0 });
        // Told to the same user: a gigabyte, if each place held a copy.
        let event = json!(["file_transfer", { "toId": "ann", "parts": vec![once.clone(); 10_000] }]);
        socket.say(&format!("451-{event}")).await;
        socket.0.send(Message::binary(vec![7; 100_000])).await.unwrap();
        assert!(socket.error().await.contains("more than once"));
        let event = json!(["file_transfer", { "toId": "ann", "fine": once }]);
        socket.say(&format!("451-{event}")).await;
        socket.0.send(Message::binary(vec![7; 100_000])).await.unwrap();
        assert!(socket.until("451-[\"file_transfer\"").await.contains("\"fromId\":\"ann\""));
    });
}

#[test]
fn an_event_has_as_many_attachments_as_clients_take() {
    run(async {
        let server = ServerProcess::start();
        let mut bystander = Socket::user(&server, "bystander").await;
        let event = |count: usize| {
            let parts: Vec<Value> = (0..count).map(|number| json!({ "_placeholder": true, "num": number })).collect();
            format!("45{count}-{}", json!(["file_transfer", { "toId": "bystander", "parts": parts }]))
        };
        let mut socket = Socket::user(&server, "ann").await;
        socket.say(&event(10)).await;
        for _ in 0..10 {
            socket.0.send(Message::binary("x")).await.unwrap();
        }
        bystander.until("4510-[\"file_transfer\"").await;
        // One more would end the connection of whoever is told it: it ends the one of who says it.
        socket.say(&event(11)).await;
        for _ in 0..11 {
            // It may be closed before all of them are there.
            let _ = socket.0.send(Message::binary("x")).await;
        }
        while socket.packet().await.is_some() {}
        let mut socket = Socket::user(&server, "bob").await;
        socket.emit("message", json!({ "id": "1", "toId": "bystander", "content": "and nothing else" })).await;
        loop {
            let packet = bystander.packet().await.expect("it was closed");
            assert!(!packet.contains("file_transfer"), "{packet}");
            if packet.contains("and nothing else") {
                return;
            }
        }
    });
}

#[test]
fn history_is_the_newest_that_fits() {
    run(async {
        const LONG: usize = 50_000;
        const MESSAGES: usize = 30;
        let server = ServerProcess::start();
        let mut ann = Socket::user(&server, "ann").await;
        ann.write("bob", MESSAGES, &"x".repeat(LONG)).await;
        ann.say(&format!("427{}", json!(["get_history", { "friendId": "bob" }]))).await;
        let answer: Value = serde_json::from_str(&ann.until("437[").await[3..]).unwrap();
        let told: Vec<&str> = answer[0].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap()).collect();
        // As many as have 1 MiB together, and no fewer.
        let first = MESSAGES - (1 << 20) / LONG;
        assert_eq!(told, (first..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    });
}

/// Events that make no sense, or nearly do, behind one of these heads.
fn events(heads: Vec<&'static str>) -> impl Strategy<Value = Message> {
    let names = prop::sample::select(vec![
        "user:login",
        "message",
        "typing",
        "status_change",
        "get_history",
        "file_transfer",
        "error",
        "connect",
        "",
    ]);
    let fields =
        prop::sample::select(vec!["id", "toId", "fromId", "content", "isTyping", "status", "friendId", "topic", "type", "timestamp"]);
    let values = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
        Just(json!("mallory")),
        Just(json!("bystander")),
        Just(json!({ "_placeholder": true, "num": 7 })),
        Just(json!([[[]]])),
    ];
    let objects = prop::collection::hash_map(fields, values, 0..6).prop_map(|fields| json!(fields));
    (names, objects, prop::sample::select(heads)).prop_map(|(name, data, head)| Message::text(format!("{head}{}", json!([name, data]))))
}

/// Packets that make no sense, or nearly do.
fn packets() -> impl Strategy<Value = Vec<Message>> {
    let event = events(vec!["42", "420", "451-", "459999999999-", "42/other,", "45-", "421"]);
    let packet = prop_oneof![
        4 => event,
        1 => prop::sample::select(vec!["", "0", "1", "2", "2probe", "3", "4", "40", "41", "43", "430", "44", "5", "6", "40{}", "42[", "42{}", "42[1]", "4\u{0}"]).prop_map(Message::text),
        1 => ".{0,40}".prop_map(Message::text),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Message::binary),
    ];
    prop::collection::vec(packet, 1..40)
}

#[test]
fn no_event_ends_its_own_connection() {
    run(async {
        let server = ServerProcess::start();
        let mut runner = TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        let events = prop::collection::vec(events(vec!["42", "420", "421"]), 1..40);
        let mut answers = [0; 2];
        for number in 0..cases() {
            let mut socket = Socket::connect(&server).await;
            if number % 2 == 0 {
                socket.emit("user:login", json!({ "id": "mallory" })).await;
            }
            let events = events.new_tree(&mut runner).unwrap().current();
            for event in &events {
                socket.0.feed(event.clone()).await.unwrap();
            }
            socket.0.flush().await.unwrap();
            // A line for the lobby; from who is logged in, a message without a recipient.
            socket.say(&format!("4277{}", json!(["message", { "content": "still here" }]))).await;
            let packet = socket.until("4377[").await;
            let answer = packet.contains("toId is missing");
            assert!(answer || packet.contains("\"ok\""), "{packet} after {events:?}");
            answers[usize::from(answer)] += 1;
        }
        assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
    });
}

fn cases() -> u32 {
    std::env::var("WHIMBREL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60)
}

#[test]
fn no_packets_disturb_anybody_else() {
    run(async {
        let server = ServerProcess::start();
        let mut bystander = Socket::user(&server, "bystander").await;
        let mut friend = Socket::user(&server, "friend").await;
        let mut runner = TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        for number in 0..cases() {
            let packets = packets().new_tree(&mut runner).unwrap().current();
            let mut socket = Socket::connect(&server).await;
            if number % 2 == 0 {
                socket.emit("user:login", json!({ "id": "mallory" })).await;
            }
            for packet in &packets {
                // It may have been shown the door.
                if socket.0.feed(packet.clone()).await.is_err() {
                    break;
                }
            }
            let _ = socket.0.flush().await;
            drop(socket);
            if number % 10 == 9 {
                let id = number.to_string();
                friend.emit("message", json!({ "id": id, "toId": "bystander", "content": "are you there?" })).await;
                // What mallory writes comes too; nothing else does, and nobody else's words come in mallory's name.
                loop {
                    let packet = bystander.until("42[\"message\"").await;
                    let message: Value = serde_json::from_str(&packet[2..]).unwrap();
                    let from = message[1]["fromId"].as_str().unwrap();
                    assert!(["mallory", "friend"].contains(&from), "{message}");
                    if from == "friend" {
                        assert_eq!(message[1]["id"], id, "after {packets:?}");
                        break;
                    }
                }
            }
        }
        assert_eq!(http_get(server.http, "/healthz", &[]).await.status(), 200);
    });
}

#[test]
fn lists_of_who_is_online_do_not_grow_with_the_square_of_the_users() {
    run(async {
        const USERS: usize = 150;
        let server = ServerProcess::start();
        let begun = Instant::now();
        let mut sockets = Vec::new();
        for number in 0..USERS {
            sockets.push(Socket::user(&server, &format!("user-{number}")).await);
        }
        // The last to come is in everybody's list in the end; until then nobody was told more often than once a second.
        let last = format!("\"user-{}\"", USERS - 1);
        let mut lists = Vec::new();
        for socket in &mut sockets {
            let mut told = 0;
            loop {
                let packet = socket.until("42[\"online_users\"").await;
                told += 1;
                if packet.contains(&last) {
                    break;
                }
            }
            lists.push(told);
        }
        let most = begun.elapsed().as_secs() + 2;
        let worst = lists.iter().max().unwrap();
        assert!(*worst <= most, "{worst} lists in {:?}", begun.elapsed());
        // Who goes is told too.
        drop(sockets.pop());
        let gone = format!("\"user-{}\"", USERS - 1);
        let first = sockets.first_mut().unwrap();
        let left = Duration::from_secs(60);
        let told = async {
            loop {
                let packet = first.packet().await.unwrap();
                if packet.starts_with("42[\"status_change\"") && packet.contains(&gone) && packet.contains("\"offline\"") {
                    return;
                }
            }
        };
        tokio::time::timeout(left, told).await.expect("nobody said that they are gone");
    });
}

#[test]
fn who_does_not_answer_is_gone_after_a_while() {
    run(async {
        let server = ServerProcess::start_with(&["--presence-grace", "1"]);
        let mut friend = Socket::user(&server, "friend").await;
        let mut silent = Socket::connect(&server).await;
        silent.emit("user:login", json!({ "id": "silent" })).await;
        let begun = Instant::now();
        let asked_and_left_alone = async {
            let mut asked = 0;
            // As a phone in a tunnel: it takes nothing and says nothing.
            while let Some(Ok(Message::Text(text))) = silent.0.next().await {
                asked += usize::from(text.as_str() == "2");
            }
            asked
        };
        let told = async {
            loop {
                let Some(Ok(Message::Text(packet))) = friend.0.next().await else { panic!("the friend's connection ended") };
                if packet.as_str() == "2" {
                    friend.say("3").await;
                }
                if packet.starts_with("42[\"status_change\"") && packet.contains("\"silent\"") && packet.contains("\"offline\"") {
                    return;
                }
            }
        };
        // 25 s until it is asked, 20 s until it is given up, and a while for a machine that is busy.
        let both = tokio::time::timeout(Duration::from_secs(90), async { tokio::join!(asked_and_left_alone, told) }).await;
        let (asked, ()) = both.expect("it is still there");
        assert!(asked > 0 && begun.elapsed() >= Duration::from_secs(20), "{asked} pings, {:?}", begun.elapsed());
    });
}
