//! Clients that change networks. What a machine with one network can show; the rest is the lab's.

use crate::harness::{ServerProcess, http_get, run, within};
use std::time::{Duration, Instant};
use whimbrel_client::protocol::frame::{EventBody, Target};
use whimbrel_client::{Client, Incoming, Transport, text};

/// The numbers of a counter, summed up over what its labels must contain.
async fn counted(server: &ServerProcess, name: &str, labels: &str) -> u64 {
    let page = http_get(server.http, "/metrics", &[]).await;
    let page = String::from_utf8(page.body().to_vec()).unwrap();
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_session_over_quic_goes_on_from_another_socket() {
    run(async {
        let server = ServerProcess::start();
        let (ann, _events) = Client::builder(server.url(), "ann").transport(Transport::Quic).connect().await.unwrap();
        let (bob, mut heard) = Client::builder(server.url(), "bob").transport(Transport::Quic).connect().await.unwrap();
        let sessions = counted(&server, "whimbrel_sessions_total", "quic").await;
        let before = counted(&server, "whimbrel_migrations_total", "quic").await;
        for number in 0..20_u32 {
            // One writes from a new socket, the other, who has nothing to say, is written to on one.
            ann.network_changed();
            bob.network_changed();
            ann.send(Target::User("bob".parse().unwrap()), text(format!("{number}"))).await.unwrap();
            let got = within("a message", async {
                loop {
                    if let Some(Incoming::Event { event, .. }) = heard.next().await
                        && let EventBody::Message(message) = event.body
                    {
                        break message.content.text;
                    }
                }
            });
            assert_eq!(got.await, number.to_string());
            // His move is seen with his answer to a probe; nothing else makes him speak.
            let moved = async {
                while counted(&server, "whimbrel_migrations_total", "quic").await < before + 2 * (u64::from(number) + 1) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            within("both moves", moved).await;
        }
        assert_eq!(counted(&server, "whimbrel_sessions_total", "quic").await, sessions, "they are the same sessions");
    });
}

#[test]
fn a_server_that_comes_back_somewhere_else_is_found_while_it_is_tried_where_it_was() {
    run(async {
        let mut server = ServerProcess::start();
        let (ann, _events) = Client::builder(server.url(), "ann").transport(Transport::Quic).connect().await.unwrap();
        let bob = || Target::User("bob".parse().unwrap());
        ann.send(bob(), text("before")).await.unwrap().outcome().await.unwrap();
        server.kill();
        let ticket = ann.send(bob(), text("while it is away")).await.unwrap();
        let old = server.secure;
        server.secure.set_port(0);
        server.restart();
        assert_ne!(server.secure, old);
        let back = Instant::now();
        within("an outcome", ticket.outcome()).await.unwrap();
        // An attempt where it was takes ten seconds.
        assert!(back.elapsed() < Duration::from_secs(9), "{:?}", back.elapsed());
        ann.close().await;
    });
}
