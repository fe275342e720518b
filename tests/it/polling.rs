//! Clients of Socket.IO that poll, and that move to a WebSocket, or fail to: by their packets.

use crate::harness::socketio::{POLLING, SOCKET, Socket, poll, poll_in, request};
use crate::harness::{PATIENCE, ServerProcess, http_get, run, within};
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Opens a WebSocket to where somebody polls.
async fn open_beside(server: &ServerProcess, path: &str) -> Result<Socket, Error> {
    let url = format!("ws://{}{}", server.http, path.replace("polling", "websocket"));
    Ok(Socket(client_async(url, TcpStream::connect(server.http).await.unwrap()).await?.0))
}

/// The names of the messages among packets.
fn messages(packets: &[String]) -> Vec<usize> {
    let id = |packet: &String| {
        let event = packet.strip_prefix("42[\"message\",")?.strip_suffix(']')?;
        serde_json::from_str::<Value>(event).unwrap()["id"].as_str().unwrap().parse().ok()
    };
    packets.iter().filter_map(id).collect()
}

#[test]
fn a_websocket_that_comes_to_nothing_changes_nothing_and_leaves_nothing() {
    run(async {
        let server = ServerProcess::start_with(&["--max-sessions", "2"]);
        let mut bob = Socket::user(&server, "bob").await;
        for said in [&[][..], &["2probe"], &["5"], &["2probe", "42[\"x\"]"]] {
            let path = poll_in(&server, "ann").await;
            let mut beside = open_beside(&server, &path).await.unwrap();
            assert!(matches!(open_beside(&server, &path).await, Err(Error::Http(refused)) if refused.status() == 400), "one at a time");
            for packet in said {
                beside.say(packet).await;
            }
            if said.first() == Some(&"2probe") {
                beside.until("3probe").await;
            }
            drop(beside);
            bob.emit("message", json!({ "id": "7", "toId": "ann", "content": format!("after {said:?}") })).await;
            let told = async { while messages(&poll(&server, &path).await).is_empty() {} };
            within("what is said to her", told).await;
            assert_eq!(request(server.http, Method::POST, &path, &[], b"1".into()).await.unwrap().status(), 200);
            // She has left her place.
            let begun = Instant::now();
            while http_get(server.http, POLLING, &[]).await.status() != 200 {
                assert!(begun.elapsed() < PATIENCE, "nobody else can come after {said:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}

#[test]
fn what_a_poll_had_no_room_for_comes_once_its_client_has_moved() {
    run(async {
        const LONG: usize = 50_000;
        const MESSAGES: usize = 60;
        let server = ServerProcess::start();
        let mut bob = Socket::user(&server, "bob").await;
        bob.write("ann", MESSAGES, &"x".repeat(LONG)).await;
        let path = poll_in(&server, "ann").await;
        let mut told = Vec::new();
        let begun = Instant::now();
        while told.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "nothing is told");
            told.extend(messages(&poll(&server, &path).await));
        }
        let first = told.len();
        assert!(first < MESSAGES, "one poll had room for all");
        let mut ann = open_beside(&server, &path).await.unwrap();
        ann.say("2probe").await;
        ann.until("3probe").await;
        ann.say("5").await;
        while told.len() < MESSAGES {
            let packet = ann.packet().await.expect("it was closed");
            told.extend(messages(&[packet]));
        }
        assert_eq!(told, (0..MESSAGES).collect::<Vec<_>>());
        // What she has taken there she is not told again.
        let last = format!("\"messageId\":\"{}\",\"status\":\"delivered\"", MESSAGES - 1);
        tokio::select! {
            () = async { while !bob.until("42[\"message:sent\"").await.contains(&last) {} } => {}
            () = async { while ann.packet().await.is_some() {} } => panic!("it was closed"),
        }
        // It goes on there, both ways.
        ann.emit("message", json!({ "id": "a", "toId": "bob", "content": "here I am" })).await;
        while !bob.until("42[\"message\"").await.contains("here I am") {}
        ann.until("42[\"message:sent\"").await;
        drop(ann);
        let mut ann = Socket::user(&server, "ann").await;
        bob.emit("message", json!({ "id": "99", "toId": "ann", "content": "again" })).await;
        assert_eq!(messages(&[ann.until("42[\"message\"").await]), [99]);
    });
}

#[test]
fn who_has_moved_polls_no_more() {
    run(async {
        let server = ServerProcess::start();
        let path = poll_in(&server, "ann").await;
        let mut ann = open_beside(&server, &path).await.unwrap();
        ann.say("2probe").await;
        ann.until("3probe").await;
        ann.say("5").await;
        let refused = async { while http_get(server.http, &path, &[]).await.status() != 400 {} };
        within("it polls no more", refused).await;
        ann.emit("typing", json!({ "toId": "ann" })).await;
        assert!(ann.error().await.contains("isTyping"));
    });
}

#[test]
fn who_would_pass_the_door_by_another_name_is_refused() {
    run(async {
        let server = ServerProcess::start();
        for transport in ["websocket=x", "polling=x", "", "Polling"] {
            let path = SOCKET.replace("websocket", transport);
            let url = format!("ws://{}{path}", server.http);
            let refused = client_async(url, TcpStream::connect(server.http).await.unwrap()).await;
            assert!(matches!(refused, Err(Error::Http(refused)) if refused.status() == 400), "{transport}");
            assert_eq!(http_get(server.http, &path, &[]).await.status(), 400, "{transport}");
        }
    });
}

#[test]
fn words_do_not_say_back_all_that_was_wrong() {
    run(async {
        let server = ServerProcess::start();
        let long = "é".repeat(200_000);
        let mut socket = Socket::connect(&server).await;
        let events = [
            json!([long, {}]),
            json!(["user:login", { "id": 7, "name": [long] }]),
            json!(["user:login", { "id": "x", "name": { "long": long } }]),
            json!(["user:login", { "id": long }]),
        ];
        for event in &events {
            socket.say(&format!("427{event}")).await;
            let answer = socket.until("437[").await;
            assert!(answer.len() < 4_000 && answer.contains("error"), "{} bytes", answer.len());
        }
        socket.emit("user:login", json!({ "id": "ann" })).await;
        socket.until("42[\"user:login:success\"").await;
        let events = [
            json!(["message", { "id": long, "toId": "bob" }]),
            json!(["message", { "id": "1", "toId": "bob", "content": "x", "type": long }]),
            json!(["status_change", { "status": long }]),
            json!(["get_history", { "friendId": "bob", "topic": long }]),
        ];
        for event in &events {
            socket.say(&format!("427{event}")).await;
            let answer = socket.until("437[").await;
            assert!(answer.len() < 4_000 && answer.contains("error"), "{} bytes", answer.len());
        }
    });
}

#[test]
fn who_reads_nothing_and_says_nothing_does_not_stay() {
    run(async {
        let server = ServerProcess::start_with(&["--max-sessions", "1"]);
        let mut stuck = Socket::connect(&server).await;
        // Each is answered, and no answer is read: until nothing more is taken.
        let flood = format!("42{}", json!(["x".repeat(100), {}]));
        let full = async {
            loop {
                let sent = stuck.0.send(Message::text(flood.as_str()));
                if tokio::time::timeout(Duration::from_secs(2), sent).await.is_err() {
                    return;
                }
            }
        };
        within("it is stuck", full).await;
        assert_eq!(http_get(server.http, POLLING, &[]).await.status(), 503);
        let begun = Instant::now();
        while http_get(server.http, POLLING, &[]).await.status() != 200 {
            assert!(begun.elapsed() < Duration::from_secs(120), "it has its place still");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Its connection is over too.
        let over = async {
            while stuck.0.get_mut().write_all(&[0; 1]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within("it is over", over).await;
        while let Some(Ok(_)) = stuck.0.next().await {}
    });
}
