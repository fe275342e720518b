//! Sessions that go on over a better transport.

use super::keys::{Authority, Keys};
use super::server::*;
use crate::*;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use whimbrel_protocol::ConversationSeq;
use wtransport::endpoint::IncomingSessionFuture;

/// A network that swallows UDP, until it does not.
struct Udp {
    keys: Keys,
    hole: UdpSocket,
}

impl Udp {
    fn blocked() -> Self {
        Self { keys: Authority::new().keys(10), hole: UdpSocket::bind("127.0.0.1:0").unwrap() }
    }

    fn faces(&self) -> Faces {
        let (at, hash) = (self.hole.local_addr().unwrap(), self.keys.hash_base64());
        Faces { said_of_quic: Some(format!(r#"{{"url":"https://{at}/wt","certificateHashes":["{hash}"]}}"#)), ..Faces::default() }
    }

    /// From now on it gets through.
    fn open(self, server: &Server) {
        self.hole.set_nonblocking(true).unwrap();
        // What was sent before is lost.
        let mut packet = [0; 2048];
        while self.hole.recv_from(&mut packet).is_ok() {}
        let (quic, arrived) = (self.keys.bare_endpoint_on(self.hole), server.arrived());
        tokio::spawn(async move {
            while let Some(incoming) = quic.accept().await {
                let Ok(request) = IncomingSessionFuture::with_quic_incoming(incoming).await else { continue };
                tokio::spawn(serve_quic(request, arrived.clone()));
            }
        });
    }
}

/// Notes every state that the connection has from now on.
fn states(client: &Client) -> Arc<std::sync::Mutex<Vec<Connection>>> {
    let seen: Arc<std::sync::Mutex<Vec<Connection>>> = Arc::default();
    let (mut connection, noted): (watch::Receiver<Connection>, _) = (client.connection(), Arc::clone(&seen));
    connection.mark_unchanged();
    tokio::spawn(async move {
        while connection.changed().await.is_ok() {
            noted.lock().unwrap().push(connection.borrow_and_update().clone());
        }
    });
    seen
}

#[tokio::test]
async fn a_session_over_a_websocket_moves_up_once_udp_gets_through_and_loses_nothing() {
    let udp = Udp::blocked();
    let mut server = Server::with(udp.faces()).await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let (mut old, _) = server.greeted().await;
    assert!(!old.is_quic());
    let mut connection = client.connection();
    connection.wait_for(|state| matches!(state, Connection::Connected { transport: TransportKind::WebSocket })).await.unwrap();
    let seen = states(&client);
    udp.open(&server);
    // One is applied, one is not, and of the two events that came one was not taken.
    let tickets = client.send_all(["a", "b"].map(|name| (bob(), text(name)))).await.unwrap();
    let commands = [old.command().await, old.command().await];
    old.send(event(1, started(7, &["alice", "bob"]))).await;
    old.send(event(2, sent(&commands[0], 7, 1))).await;
    assert!(matches!(events.next().await, Some(Incoming::Event { event, .. }) if event.seq.0 == 1));
    let (mut new, hello) = server.greeted().await;
    assert!(new.is_quic());
    assert!(hello.position.is_some_and(|position| position.cursor.0 < 2), "what was not taken comes again: {hello:?}");
    assert_eq!(new.command().await, commands[1], "with its number and nonce");
    let begun = hello.position.map_or(0, |position| position.cursor.0);
    if begun == 0 {
        new.send(event(1, started(7, &["alice", "bob"]))).await;
    }
    new.send(event(2, sent(&commands[0], 7, 1))).await;
    new.send(event(3, sent(&commands[1], 7, 2))).await;
    for (ticket, seq) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.outcome().await.unwrap().seq, ConversationSeq(seq));
    }
    // The old connection is closed.
    while old.recv().await.is_some() {}
    connection.wait_for(|state| matches!(state, Connection::Connected { transport: TransportKind::WebTransport })).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.iter().all(|state| matches!(state, Connection::Connected { .. })),
        "nobody was told of a connection that is gone: {seen:?}"
    );
    client.close().await;
}

#[tokio::test]
async fn what_does_not_get_through_is_tried_again_and_the_session_knows_nothing_of_it() {
    let udp = Udp::blocked();
    let mut server = Server::with(udp.faces()).await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let mut connection = client.connection();
    connection.wait_for(|state| matches!(state, Connection::Connected { .. })).await.unwrap();
    let seen = states(&client);
    udp.hole.set_nonblocking(true).unwrap();
    let mut packet = [0; 2048];
    let packets = || std::iter::from_fn(|| udp.hole.recv_from(&mut packet).ok()).count();
    // Those of the race.
    let mut packets = packets;
    packets();
    let begun = Instant::now();
    while packets() == 0 {
        assert!(begun.elapsed() < PATIENCE, "it is not tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "not at once");
    client.send(bob(), text("meanwhile")).await.unwrap();
    peer.command().await;
    assert_eq!(*seen.lock().unwrap(), []);
    client.close().await;
}

#[tokio::test]
async fn an_application_may_choose_another_transport_at_any_time() {
    let quic = Some(Authority::new().keys(10));
    let mut server = Server::with(Faces { quic, ..Faces::default() }).await;
    let (client, _events) = server.client("alice").transport(Transport::WebSocket).start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let mut connection = client.connection();
    for (transport, kind) in [
        (Transport::WebTransport, TransportKind::WebTransport),
        (Transport::WebSocketJson, TransportKind::WebSocketJson),
        (Transport::Auto, TransportKind::WebTransport),
        (Transport::WebSocket, TransportKind::WebSocket),
    ] {
        client.set_transport(transport).await.unwrap();
        peer = server.greeted().await.0;
        assert_eq!(peer.is_quic(), kind == TransportKind::WebTransport);
        connection.wait_for(|state| *state == Connection::Connected { transport: kind }).await.unwrap();
        // The next session comes over the same.
        drop(peer);
        peer = server.greeted().await.0;
        connection.wait_for(|state| *state == Connection::Connected { transport: kind }).await.unwrap();
    }
    // What is not offered does not come, and the session goes on.
    client.set_transport(Transport::Quic).await.unwrap();
    client.send(bob(), text("still here")).await.unwrap();
    peer.command().await;
    client.close().await;
}
