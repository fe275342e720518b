//! Clients that say how they are: suspended, and when they want to be asked.

use crate::harness::{Frames, Link, ServerProcess, hello, http_get, run, within};
use std::time::{Duration, Instant};
use whimbrel_protocol::TransportKind;
use whimbrel_protocol::frame::{ClientFrame, ClientState, ServerFrame, Signal};

const ALL: [TransportKind; 4] = [TransportKind::Quic, TransportKind::WebTransport, TransportKind::WebSocket, TransportKind::WebSocketJson];

async fn enter(server: &ServerProcess, kind: TransportKind, user: &str, state: ClientState) -> Frames {
    let mut link = Link::over(server.http, kind).await;
    let mut hello = hello(user, "phone");
    hello.extensions.push(state.to_extension());
    link.send(&ClientFrame::Hello(hello)).await;
    Frames::welcomed(link).await
}

async fn say(frames: &mut Frames, state: ClientState) {
    frames.link.send(&ClientFrame::Signal(Signal::State(state))).await;
}

/// Waits until those are online.
async fn online(server: &ServerProcess, users: &[&str]) {
    let waiting = async {
        loop {
            let answer = http_get(server.http, "/api/online-users", &[]).await;
            let there: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            let names: Vec<&str> = there["users"].as_array().unwrap().iter().filter_map(|user| user["id"].as_str()).collect();
            if names == users {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("{users:?} online"), waiting).await;
}

#[test]
fn who_is_suspended_does_not_look_online_and_gets_everything_all_the_same() {
    let suspended = ClientState { background: true, ask_after_s: 0 };
    run(async {
        // A grace of a day: what is told is told without.
        let server = ServerProcess::start_with(&["--presence-grace", "86400"]);
        let mut ann = Frames::over(server.http, TransportKind::WebSocket, "ann", "phone").await;
        for kind in ALL {
            let mut bob = enter(&server, kind, kind.name(), suspended).await;
            ann.say(kind.name(), "hello").await;
            assert_eq!(bob.message().await, "hello");
            // That was answered after bob had come.
            online(&server, &["ann"]).await;
            say(&mut bob, ClientState::default()).await;
            online(&server, &["ann", kind.name()]).await;
            say(&mut bob, suspended).await;
            online(&server, &["ann"]).await;
        }
    });
}

#[test]
fn the_server_asks_when_the_client_wants_to_be_asked() {
    run(async {
        let server = ServerProcess::start();
        let mut asked = tokio::task::JoinSet::new();
        for kind in ALL {
            let begun = Instant::now();
            // Over UDP it would ask sooner by itself, over TCP with a ping of WebSocket's.
            let mut frames = enter(&server, kind, kind.name(), ClientState { background: false, ask_after_s: 18 }).await;
            asked.spawn(async move {
                loop {
                    match frames.link.next().await {
                        Some(ServerFrame::Ping(ping)) => {
                            let took = begun.elapsed();
                            frames.link.send(&ClientFrame::Pong(ping)).await;
                            return (kind, took);
                        }
                        Some(_) => {}
                        None => panic!("{kind}: the session ended after {:?}", begun.elapsed()),
                    }
                }
            });
        }
        while let Some(asked) = asked.join_next().await {
            let (kind, took) = asked.unwrap();
            assert!(took >= Duration::from_secs(18), "{kind}: asked after {took:?}");
        }
    });
}
