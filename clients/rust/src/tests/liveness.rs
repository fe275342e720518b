//! Connections that die without a word. When to ask and when to give up is tested beside the code; here, that it happens.

use super::server::*;
use crate::*;
use std::time::Duration;
use whimbrel_protocol::MailboxSeq;
use whimbrel_protocol::frame::{self, ClientFrame, Ping, ServerFrame};

#[tokio::test]
async fn silence_is_probed_and_then_left() {
    let mut server = Server::start().await;
    let often = Duration::from_millis(100);
    let liveness = Liveness { active: often, idle: often, give_up_after: Duration::from_millis(400) };
    let (_client, _events) = server.client("alice").liveness(liveness).start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    for _ in 0..3 {
        let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!() };
        peer.send(ServerFrame::Pong(ping)).await;
    }
    peer.send(ServerFrame::Ping(Ping { id: 5 })).await;
    loop {
        match peer.recv().await {
            Some(ClientFrame::Pong(Ping { id })) => break assert_eq!(id, 5),
            Some(ClientFrame::Ping(ping)) => drop(peer.send(ServerFrame::Pong(ping)).await),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(peer.recv().await, Some(ClientFrame::Ping(_))));
    // No answer, though the connection stands: another session comes.
    server.greeted().await;
}

#[tokio::test]
async fn a_send_or_question_that_nobody_answers_is_probed_at_once_over_webtransport_and_websocket() {
    // Silence alone would be a reason in an hour.
    let hour = Duration::from_secs(3_600);
    let liveness = Liveness { active: hour, idle: hour, give_up_after: Duration::from_millis(200) };
    for transport in [Transport::WebTransport, Transport::WebSocket, Transport::WebSocketJson] {
        let quic = Some(super::keys::Authority::new().keys(10));
        let mut server = Server::with(Faces { quic, ..Faces::default() }).await;
        let (client, _events) = server.client("alice").transport(transport).liveness(liveness).start().await.unwrap();
        let (mut peer, _) = server.greeted().await;
        client.send(bob(), text("are you there?")).await.unwrap();
        peer.command().await;
        assert!(matches!(peer.recv().await, Some(ClientFrame::Ping(_))));
        // The old connection stands, and says nothing.
        let (mut second, _) = server.greeted().await;
        let command = second.command().await;
        second.send(event(1, sent(&command, 7, 1))).await;
        let asking = tokio::spawn(async move { client.online("", 1).await });
        second.query().await;
        assert!(matches!(second.recv().await, Some(ClientFrame::Ping(_))));
        server.greeted().await;
        asking.abort();
    }
}

#[tokio::test]
async fn a_server_that_talks_and_does_not_answer_is_left() {
    // As where the way up is dead and the way down is not. Silence there is none; what is owed is reason enough.
    let hour = Duration::from_secs(3_600);
    let liveness = Liveness { active: hour, idle: hour, give_up_after: Duration::from_millis(200) };
    for transport in [Transport::WebTransport, Transport::WebSocket] {
        let quic = Some(super::keys::Authority::new().keys(10));
        let mut server = Server::with(Faces { quic, ..Faces::default() }).await;
        let (client, _events) = server.client("alice").transport(transport).liveness(liveness).start().await.unwrap();
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        peer.send(ServerFrame::Welcome(frame::Welcome { head: MailboxSeq(0), ..welcome(&hello) })).await;
        client.send(bob(), text("are you there?")).await.unwrap();
        let command = peer.command().await;
        let talk = async {
            for seq in 1.. {
                peer.send(event(seq, started(seq, &["alice", "bob"]))).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut second = tokio::select! {
            second = server.peer() => second,
            () = talk => unreachable!("it talks for ever"),
        };
        second.greet().await;
        assert_eq!(second.command().await.nonce, command.nonce);
    }
}

#[tokio::test]
async fn who_answers_in_time_is_not_waited_for_longer_because_others_were_silent() {
    let hour = Duration::from_secs(3_600);
    let liveness = Liveness { active: hour, idle: hour, give_up_after: Duration::from_millis(200) };
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").liveness(liveness).start().await.unwrap();
    let mut silent = Vec::new();
    for seq in 1..=5 {
        let (mut peer, _) = server.greeted().await;
        // What is owed is answered, and then nothing more. No session is silent for so long that it would be asked.
        if seq > 1 {
            let command = peer.command().await;
            peer.send(applied(command.cseq.0)).await;
        }
        client.send(bob(), text("are you there?")).await.unwrap();
        peer.command().await;
        silent.push((peer, tokio::time::Instant::now()));
    }
    server.greeted().await;
    // Asked after half a second. Four doublings of the 200 ms would be 3.2 s.
    let took = silent.last().unwrap().1.elapsed();
    assert!(took < Duration::from_millis(500 + 1_600), "{took:?}");
}

/// From here on time passes only as the test says: tokio does not run ahead while a blocking task is under way.
fn stop_the_clock() -> std::sync::mpsc::Sender<()> {
    tokio::time::pause();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    // Ends when the sender is dropped, or the test waits in vain.
    tokio::task::spawn_blocking(move || wait.recv_timeout(PATIENCE).is_ok());
    release
}

async fn later(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// The client has nothing to say but what it is asked for.
async fn is_quiet(peer: &mut Peer, id: u32) {
    peer.send(ServerFrame::Ping(Ping { id })).await;
    assert_eq!(peer.recv().await, Some(ClientFrame::Pong(Ping { id })));
}

#[tokio::test]
async fn an_idle_client_is_quiet_until_somebody_looks() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    is_quiet(&mut peer, 1).await;
    let _stopped = stop_the_clock();
    for seconds in [5, 61] {
        later(seconds).await;
        let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it did not ask") };
        peer.send(ServerFrame::Pong(ping)).await;
        is_quiet(&mut peer, 2).await;
    }
    for id in 3..10 {
        later(20).await;
        is_quiet(&mut peer, id).await;
        // That it answered shows the server that it is there. Whether the server is, it asks every 25 seconds.
        later(6).await;
        let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it did not ask") };
        peer.send(ServerFrame::Pong(ping)).await;
        is_quiet(&mut peer, id).await;
    }
    later(20).await;
    client.active(true);
    assert!(matches!(peer.recv().await, Some(ClientFrame::Ping(_))));
    later(4).await;
    tokio::time::resume();
    let mut connection = client.connection();
    let given_up = connection.wait_for(|state| !matches!(state, Connection::Connected { .. }));
    tokio::time::timeout(PATIENCE, given_up).await.expect("it still believes in the server").unwrap();
}
