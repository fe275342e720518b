//! Ways in: TLS, WebTransport, whom to believe, and which transport wins.

use super::keys::Authority;
use super::server::*;
use crate::*;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_protocol::ConversationSeq;
use wtransport::endpoint::IncomingSessionFuture;

/// Connects, sends a message, and says what carried it.
async fn carried_by(server: &mut Server, client: Builder) -> Result<TransportKind, ConnectError> {
    let connecting = tokio::spawn(client.connect());
    let mut peer = loop {
        if connecting.is_finished() {
            return match connecting.await.unwrap() {
                Err(why) => Err(why),
                Ok(_) => panic!("connected to nobody"),
            };
        }
        match tokio::time::timeout(std::time::Duration::from_millis(10), server.peer()).await {
            Ok(peer) => break peer,
            Err(_) => continue,
        }
    };
    peer.greet().await;
    let (client, events) = connecting.await.unwrap()?;
    let ticket = client.send(bob(), text("long ".repeat(10_000))).await.unwrap();
    let command = peer.command().await;
    peer.send(event(1, sent(&command, 7, 1))).await;
    let sent = ticket.outcome().await.unwrap();
    assert_eq!(sent.seq, ConversationSeq(1));
    assert_eq!(sent.transport == TransportKind::WebTransport, peer.is_quic());
    assert!(matches!(*client.connection().borrow(), Connection::Connected { transport } if transport == sent.transport));
    drop(events);
    client.close().await;
    assert_eq!(peer.recv().await, None, "the client says goodbye");
    Ok(sent.transport)
}

#[tokio::test]
async fn webtransport_by_a_hash_that_came_over_loopback() {
    let quic = Some(Authority::new().keys(10));
    let mut server = Server::with(Faces { quic, ..Faces::default() }).await;
    for transport in [Transport::Auto, Transport::WebTransport] {
        let client = server.client("alice").transport(transport);
        assert_eq!(carried_by(&mut server, client).await, Ok(TransportKind::WebTransport));
    }
    assert!(server.peer_now().is_none(), "the race sends one Hello only");
}

#[tokio::test]
async fn a_connection_that_was_garbled_at_its_beginning_is_begun_once_more() {
    for (garbled, tries) in [(1, 2), (u32::MAX, 2)] {
        let keys = Authority::new().keys(10);
        let (quic, count) = (keys.bare_endpoint(), Arc::new(AtomicU32::new(0)));
        let said = format!(r#"{{"url":"https://{}/wt","certificateHashes":["{}"]}}"#, quic.local_addr().unwrap(), keys.hash_base64());
        let mut server = Server::with(Faces { said_of_quic: Some(said), ..Faces::default() }).await;
        let (counted, arrived) = (Arc::clone(&count), server.arrived());
        tokio::spawn(async move {
            while let Some(incoming) = quic.accept().await {
                if counted.fetch_add(1, Ordering::Relaxed) < garbled {
                    // As a library does that lost a part of what came.
                    let connection = incoming.await.unwrap();
                    connection.close(quinn::VarInt::from_u32(0x105), b"");
                    connection.closed().await;
                } else {
                    let request = IncomingSessionFuture::with_quic_incoming(incoming).await.unwrap();
                    tokio::spawn(serve_quic(request, arrived.clone()));
                }
            }
        });
        let client = server.client("alice").transport(Transport::WebTransport);
        let carried = carried_by(&mut server, client).await;
        match garbled {
            1 => assert_eq!(carried, Ok(TransportKind::WebTransport)),
            _ => assert!(matches!(&carried, Err(ConnectError::Unreachable(why)) if why.contains("261")), "{carried:?}"),
        }
        assert_eq!(count.load(Ordering::Relaxed), tries);
    }
}

#[tokio::test]
async fn a_hash_is_good_for_certificates_that_browsers_would_take() {
    let quic = Some(Authority::new().keys(90));
    let mut server = Server::with(Faces { quic, ..Faces::default() }).await;
    let client = server.client("alice").transport(Transport::WebTransport);
    let Err(ConnectError::Unreachable(why)) = carried_by(&mut server, client).await else { panic!() };
    assert!(why.contains("WebTransport"), "{why}");
    let client = server.client("alice");
    assert_eq!(carried_by(&mut server, client).await, Ok(TransportKind::WebSocket), "the race goes on without it");
}

#[tokio::test]
async fn a_ca_is_good_for_tls_and_quic() {
    let authority = Authority::new();
    let certs = tempfile::tempdir().unwrap();
    std::fs::write(certs.path().join("ca.pem"), authority.pem()).unwrap();
    let faces = Faces { tls: Some(authority.keys(90)), quic: Some(authority.keys(90)), said_of_quic: None };
    let mut server = Server::with(faces).await;
    for (ca, transport, kind) in [
        (certs.path().to_owned(), Transport::Auto, TransportKind::WebTransport),
        (certs.path().join("ca.pem"), Transport::WebTransport, TransportKind::WebTransport),
        (certs.path().join("ca.pem"), Transport::WebSocket, TransportKind::WebSocket),
        (certs.path().to_owned(), Transport::WebSocketJson, TransportKind::WebSocketJson),
    ] {
        let client = server.client("alice").ca(ca).transport(transport);
        assert_eq!(carried_by(&mut server, client).await, Ok(kind));
    }
    // A CA that signed nothing here.
    let stranger = certs.path().join("stranger.pem");
    std::fs::write(&stranger, Authority::new().pem()).unwrap();
    let client = server.client("alice").ca(stranger);
    let Err(ConnectError::Mismatch(why)) = carried_by(&mut server, client).await else { panic!() };
    assert!(why.contains("not signed by the CA that was given"), "{why}");
    // Plain text where TLS is spoken, and TLS where it is not.
    let plain = server.url.replace("https:", "http:");
    let why = Client::builder(plain, "alice").connect().await.map(drop).unwrap_err();
    assert!(matches!(&why, ConnectError::Mismatch(why) if why.contains("use https://")), "{why}");
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", http.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut tcp, _) = http.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let why = Client::builder(url, "alice").ca(certs.path()).connect().await.map(drop).unwrap_err();
    assert!(matches!(&why, ConnectError::Mismatch(why) if why.contains("does not speak TLS")), "{why}");
}

#[tokio::test]
async fn a_pin_is_good_for_the_certificate_it_names() {
    let authority = Authority::new();
    let keys = authority.keys(10);
    let faces = Faces { tls: Some(keys.clone()), quic: Some(keys.clone()), said_of_quic: None };
    let mut server = Server::with(faces).await;
    for transport in [Transport::WebTransport, Transport::WebSocket] {
        let client = server.client("alice").pin(keys.hash_base64()).transport(transport);
        assert!(carried_by(&mut server, client).await.is_ok());
    }
    let client = server.client("alice").pin(authority.keys(10).hash_base64());
    let Err(ConnectError::Mismatch(why)) = carried_by(&mut server, client).await else { panic!() };
    assert!(why.contains("not the pinned one"), "{why}");
    // Whoever is not asked to give up at once goes on trying: the network may let through again, or the server change.
    let (client, _events) = server.client("alice").pin(authority.keys(10).hash_base64()).start().await.unwrap();
    let mut connection = client.connection();
    for attempt in 1..3 {
        connection.wait_for(|state| matches!(state, Connection::Offline { mismatch: true, .. })).await.unwrap();
        connection.wait_for(|state| matches!(state, Connection::Connecting { attempt: next, .. } if *next > attempt)).await.unwrap();
    }
    client.close().await;
    let nothing = server.client("alice").connect().await.map(drop);
    assert!(matches!(nothing, Err(ConnectError::Start(StartError::NothingToTrust { .. }))), "{nothing:?}");
}

#[tokio::test]
async fn where_udp_goes_nowhere_the_websocket_wins_and_is_remembered() {
    // Takes packets and never answers.
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let hash = Authority::new().keys(10).hash_base64();
    let said = format!(r#"{{"url":"https://{}/wt","certificateHashes":["{hash}"]}}"#, hole.local_addr().unwrap());
    let mut server = Server::with(Faces { said_of_quic: Some(said), ..Faces::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let client = || server.client("alice").state(State::Folder(folder.path().into()));
    let (first, second) = (client(), client());
    let begun = std::time::Instant::now();
    assert_eq!(carried_by(&mut server, first).await, Ok(TransportKind::WebSocket));
    assert!(begun.elapsed() >= std::time::Duration::from_millis(200), "WebTransport has a head start");
    hole.set_nonblocking(true).unwrap();
    let mut packet = [0; 2048];
    assert!(std::iter::from_fn(|| hole.recv_from(&mut packet).ok()).count() > 0);
    assert_eq!(carried_by(&mut server, second).await, Ok(TransportKind::WebSocket));
    assert_eq!(std::iter::from_fn(|| hole.recv_from(&mut packet).ok()).count(), 0, "WebTransport was tried again at once");
}

#[tokio::test]
async fn nobody_at_home() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = Client::builder(format!("http://{free}"), "alice").connect().await.map(drop).unwrap_err();
    assert!(why.to_string().starts_with("cannot connect: 127.0.0.1:"), "{why}");
    for (url, user) in [("nonsense", "alice"), ("http://127.0.0.1:1", ""), ("http://127.0.0.1:1", "a\nb")] {
        assert!(matches!(Client::builder(url, user).connect().await, Err(ConnectError::Start(_))));
    }
}
