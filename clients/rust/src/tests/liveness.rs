//! Connections that die without a word. When to ask and when to give up is tested beside the code; here, that it happens.

use super::server::*;
use crate::*;
use std::time::Duration;
use whimbrel_protocol::MailboxSeq;
use whimbrel_protocol::frame::{self, ClientFrame, ClientState, Ping, ServerFrame, ServerSignal, Signal};

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

/// The server asks as it was told to; the client answers, and asks along: one exchange for both.
async fn asked(peer: &mut Peer, events: &mut Events) {
    peer.send(ServerFrame::Ping(Ping { id: 7 })).await;
    assert_eq!(peer.recv().await, Some(ClientFrame::Pong(Ping { id: 7 })));
    let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it did not ask") };
    peer.send(ServerFrame::Pong(ping)).await;
    has_heard(peer, events).await;
}

/// The client has heard everything so far, before time passes.
async fn has_heard(peer: &mut Peer, events: &mut Events) {
    peer.send(ServerFrame::Signal(ServerSignal::Presence(Vec::new()))).await;
    assert!(matches!(events.next().await.unwrap(), Incoming::Signal(_)));
}

async fn says(peer: &mut Peer, background: bool, ask_after_s: u16) {
    assert_eq!(peer.recv().await, Some(ClientFrame::Signal(Signal::State(ClientState { background, ask_after_s }))));
}

/// A client that has been left alone for a while, and its server.
async fn idle(server: &mut Server, builder: Builder) -> (Client, Events, Peer, std::sync::mpsc::Sender<()>) {
    let (client, events) = builder.start().await.unwrap();
    let (mut peer, hello) = server.greeted().await;
    assert_eq!(ClientState::in_hello(&hello), ClientState::default(), "who has just begun asks often");
    is_quiet(&mut peer, 1).await;
    let stopped = stop_the_clock();
    later(61).await;
    let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it did not ask") };
    peer.send(ServerFrame::Pong(ping)).await;
    says(&mut peer, false, 30).await;
    (client, events, peer, stopped)
}

#[tokio::test]
async fn an_idle_client_is_as_quiet_as_its_network_lets_it_until_somebody_looks() {
    let mut server = Server::start().await;
    let builder = server.client("alice");
    let (client, mut events, mut peer, _stopped) = idle(&mut server, builder).await;
    for (silence, next) in [(30, Some(60)), (60, Some(120)), (120, Some(240)), (240, Some(300)), (300, None), (300, None)] {
        later(silence).await;
        asked(&mut peer, &mut events).await;
        if let Some(next) = next {
            says(&mut peer, false, next).await;
        }
    }
    // It is not woken by what comes of itself, and what comes is no question.
    later(200).await;
    has_heard(&mut peer, &mut events).await;
    later(50).await;
    client.active(true);
    assert!(matches!(peer.recv().await, Some(ClientFrame::Signal(Signal::State(ClientState { ask_after_s: 0, .. })))));
    assert!(matches!(peer.recv().await, Some(ClientFrame::Ping(_))));
    later(4).await;
    tokio::time::resume();
    let mut connection = client.connection();
    let given_up = connection.wait_for(|state| !matches!(state, Connection::Connected { .. }));
    tokio::time::timeout(PATIENCE, given_up).await.expect("it still believes in the server").unwrap();
}

#[tokio::test]
async fn a_machine_that_slept_asks_at_once_and_takes_the_silence_for_none_of_the_networks() {
    let mut server = Server::start().await;
    let builder = server.client("alice");
    let (_client, mut events, mut peer, _stopped) = idle(&mut server, builder).await;
    later(30).await;
    asked(&mut peer, &mut events).await;
    says(&mut peer, false, 60).await;
    later(10).await;
    crate::driver::slept(Duration::from_secs(3_600));
    // Whatever wakes it: the system's notice of the network, as a rule.
    has_heard(&mut peer, &mut events).await;
    let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it did not ask") };
    peer.send(ServerFrame::Pong(ping)).await;
    has_heard(&mut peer, &mut events).await;
    later(60).await;
    asked(&mut peer, &mut events).await;
    says(&mut peer, false, 120).await;
}

#[tokio::test]
async fn a_way_that_was_forgotten_is_found_out_and_remembered_for_the_next_run() {
    let mut server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let builder = server.client("alice").device("phone").state(State::Folder(folder.path().into()));
    let (client, mut events, mut peer, stopped) = idle(&mut server, builder.clone()).await;
    later(30).await;
    asked(&mut peer, &mut events).await;
    says(&mut peer, false, 60).await;
    // The question that would come now does not: the client asks, gets no answer there, and at once over another connection.
    later(70).await;
    assert!(matches!(peer.recv().await, Some(ClientFrame::Ping(_))));
    later(2).await;
    drop(stopped);
    tokio::time::resume();
    let (mut peer, hello) = server.greeted().await;
    assert_eq!(ClientState::in_hello(&hello).ask_after_s, 60, "it is not known to be too long before the server answers");
    says(&mut peer, false, 30).await;
    client.close().await;

    let (client, _events) = builder.start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    client.background().await;
    says(&mut peer, true, 30).await;
    client.close().await;
}

#[tokio::test]
async fn an_application_that_is_suspended_says_so_at_once_and_in_each_session() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let suspending = tokio::spawn({
        let client = client.clone();
        async move { client.background().await }
    });
    says(&mut peer, true, 30).await;
    let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it does not want to know whether that was heard") };
    assert!(!suspending.is_finished());
    peer.send(ServerFrame::Pong(ping)).await;
    suspending.await.unwrap();
    drop(peer);
    let (mut peer, hello) = server.greeted().await;
    assert_eq!(ClientState::in_hello(&hello), ClientState { background: true, ask_after_s: 30 });
    let waking = tokio::spawn(async move { client.foreground().await });
    says(&mut peer, false, 0).await;
    let Some(ClientFrame::Ping(ping)) = peer.recv().await else { panic!("it does not want to know whether the connection lives") };
    peer.send(ServerFrame::Pong(ping)).await;
    waking.await.unwrap();
}

#[tokio::test]
async fn who_is_suspended_without_a_connection_does_not_wait_for_one() {
    let server = Server::start().await;
    let url = server.url.clone();
    drop(server);
    let (client, _events) = Client::builder(url, "alice").start().await.unwrap();
    let mut connection = client.connection();
    connection.wait_for(|state| matches!(state, Connection::Offline { .. })).await.unwrap();
    let begun = std::time::Instant::now();
    client.background().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for a server that is not there");
}
