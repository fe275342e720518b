//! The endpoint against quinn's own client: QUIC without HTTP around it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::transport::{FrameSink, FrameSource, Received};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ApplicationClose, Connection, ConnectionError, Endpoint};
use tempfile::TempDir;
use whimbrel_protocol::TransportKind;
use whimbrel_protocol::codec;
use whimbrel_protocol::frame::{
    Ack, Answer, ClientFrame, Online, OnlinePage, Ping, Query, ServerFrame, ServerSignal, Signal, Target, Typing, TypingFrom,
};
use whimbrel_protocol::{ConversationId, MailboxSeq, QueryId, UserId};
use wtransport::tls::Sha256Digest;
use wtransport::tls::client::ServerHashVerification;

struct Server {
    _dir: TempDir,
    keys: Keys,
    listener: QuicListener,
}

/// Both ends of a connection.
struct Joined {
    connection: Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    source: QuicSource,
    sink: QuicSink,
    endpoint: Endpoint,
}

fn server(options: QuicOptions) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::open_at(dir.path(), &[], time::OffsetDateTime::now_utc()).unwrap();
    let listener = QuicListener::on(std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), &keys, options).unwrap();
    Server { _dir: dir, keys, listener }
}

impl Server {
    async fn connect(&self, alpn: &[u8]) -> Result<(Connection, Endpoint), ConnectionError> {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(self.trusting(alpn), self.listener.local_addr(), "localhost").unwrap();
        Ok((connecting.await?, endpoint))
    }

    /// A client whose first frame has come.
    async fn join(&self) -> Joined {
        let (connection, endpoint) = self.connect(b"whimbrel/1").await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&encoded(0)).await.unwrap();
        let (mut source, sink) = self.listener.accept().await.unwrap().split();
        source.next().await.unwrap();
        Joined { connection, send, receive, source, sink, endpoint }
    }

    /// How a client connects that has the hashes. It resumes what it did before with the same.
    fn trusting(&self, alpn: &[u8]) -> quinn::ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let hashes = self.keys.hashes().into_iter().map(Sha256Digest::new);
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerHashVerification::new(hashes)))
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_early_data = true;
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }
}

fn encoded(id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::write_frame(&ClientFrame::Ping(Ping { id }), &mut bytes).unwrap();
    bytes
}

fn closed_with(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn frames_go_both_ways_and_both_can_close() {
    let server = server(QuicOptions::default());
    let (connection, _endpoint) = server.connect(b"whimbrel/1").await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[encoded(1), encoded(70_000)].concat()).await.unwrap();
    let session = server.listener.accept().await.unwrap();
    assert_eq!((session.kind(), session.remote_addr().ip().is_loopback()), (TransportKind::Quic, true));
    let (mut source, mut sink) = session.split();
    for id in [1, 70_000] {
        assert_eq!(source.next().await.unwrap(), Some(ClientFrame::Ping(Ping { id }).into()));
    }
    sink.push(&ServerFrame::Pong(Ping { id: 5 })).unwrap();
    sink.flush().await.unwrap();
    let mut bytes = [0; 3];
    receive.read_exact(&mut bytes).await.unwrap();
    assert_eq!(codec::find_frame(&bytes).unwrap(), Some((1, 3)));
    connection.close(quinn::VarInt::from_u32(0), b"");
    assert_eq!(source.next().await.unwrap(), None, "an orderly end");

    let (connection, _endpoint) = server.connect(b"whimbrel/1").await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&encoded(1)).await.unwrap();
    let (_source, mut sink) = server.listener.accept().await.unwrap().split();
    sink.push(&ServerFrame::Pong(Ping { id: 6 })).unwrap();
    let closing = tokio::spawn(sink.close());
    assert_eq!(receive.read_to_end(100).await.unwrap().len(), 3, "what was queued comes before the end");
    closing.await.unwrap();
    assert_eq!(closed_with(&connection.closed().await), 0);
}

#[tokio::test]
async fn what_nobody_asked_for_is_refused_and_disturbs_nobody() {
    let server = server(QuicOptions::default());
    let (connection, _endpoint) = server.connect(b"whimbrel/1").await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&encoded(0)).await.unwrap();
    let (mut source, _sink) = server.listener.accept().await.unwrap().split();
    assert!(source.next().await.unwrap().is_some());
    let reading = tokio::spawn(async move { source.next().await.unwrap() });
    for _ in 0..100 {
        let mut uni = connection.open_uni().await.unwrap();
        // It may be stopped before it is written.
        let _ = uni.write_all(b"?").await;
        assert_eq!(uni.stopped().await.unwrap(), Some(quinn::VarInt::from_u32(1)));
        let (mut out, mut back) = connection.open_bi().await.unwrap();
        let _ = out.write_all(b"?").await;
        let _ = out.finish();
        assert!(back.read(&mut [0; 1]).await.is_err());
        connection.send_datagram(vec![0; 1000].into()).unwrap();
    }
    send.write_all(&encoded(9)).await.unwrap();
    assert_eq!(reading.await.unwrap(), Some(ClientFrame::Ping(Ping { id: 9 }).into()));
}

#[tokio::test]
async fn who_says_nothing_is_told_why_it_ends() {
    let server = server(QuicOptions { stream_timeout: Duration::from_millis(200), ..QuicOptions::default() });
    let (connection, _endpoint) = server.connect(b"whimbrel/1").await.unwrap();
    assert_eq!(closed_with(&connection.closed().await), u64::from(ErrorCode::HelloTimeout.to_number()));
    assert!(server.connect(b"whimbrel/99").await.is_err(), "another protocol");
}

/// Connects in 0-RTT if the client has a ticket, sends a frame, and reads the answer of the server's session. Returns whether the server
/// took the early data; `None` without a ticket.
async fn come(server: &Server, config: &quinn::ClientConfig) -> Option<bool> {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config.clone(), server.listener.local_addr(), "localhost").unwrap();
    let (connection, accepted) = match connecting.into_0rtt() {
        Ok((connection, accepted)) => (connection, Some(accepted)),
        Err(connecting) => (connecting.await.unwrap(), None),
    };
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&encoded(7)).await.unwrap();
    let accepted = match accepted {
        Some(accepted) => Some(accepted.await),
        None => None,
    };
    if accepted == Some(false) {
        // As nothing of it was heard it is said again.
        (send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&encoded(7)).await.unwrap();
    }
    let (mut source, mut sink) = server.listener.accept().await.unwrap().split();
    assert_eq!(source.next().await.unwrap(), Some(ClientFrame::Ping(Ping { id: 7 }).into()), "once");
    sink.push(&ServerFrame::Pong(Ping { id: 7 })).unwrap();
    sink.flush().await.unwrap();
    receive.read_exact(&mut [0; 3]).await.unwrap();
    connection.close(quinn::VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    accepted
}

/// Another endpoint with the same keys, once the one before has closed its file; `between` is done to their folder.
async fn restart(server: Server, between: impl FnOnce(&std::path::Path)) -> Server {
    let Server { _dir: dir, keys, listener } = server;
    drop(listener);
    keys.close();
    // SQLite removes this with the last connection.
    let open = dir.path().join("tickets.db-wal");
    let closed = async {
        while open.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), closed).await.expect("the file stays open");
    between(dir.path());
    let listener = QuicListener::on(std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), &keys, QuicOptions::default()).unwrap();
    Server { _dir: dir, keys, listener }
}

#[tokio::test]
async fn who_comes_back_resumes_also_after_a_restart_of_the_server() {
    let server = server(QuicOptions::default());
    let config = server.trusting(b"whimbrel/1");
    assert_eq!(come(&server, &config).await, None, "the first time there is nothing to resume");
    assert_eq!(come(&server, &config).await, Some(true));
    let server = restart(server, |_| ()).await;
    assert_eq!(come(&server, &config).await, Some(true));
    // A server that lost its tickets takes none, and everybody gets in.
    let server = restart(server, |folder| std::fs::remove_file(folder.join("tickets.db")).unwrap()).await;
    assert_eq!(come(&server, &config).await, Some(false));
    assert_eq!(come(&server, &config).await, Some(true));
}

#[tokio::test]
async fn a_client_that_moves_keeps_its_session() {
    let server = server(QuicOptions::default());
    let (connection, endpoint) = server.connect(b"whimbrel/1").await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&encoded(0)).await.unwrap();
    let (mut source, _sink) = server.listener.accept().await.unwrap().split();
    source.next().await.unwrap();
    let before = source.remote_addr();
    endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    send.write_all(&encoded(1)).await.unwrap();
    assert_eq!(source.next().await.unwrap(), Some(ClientFrame::Ping(Ping { id: 1 }).into()));
    assert_ne!(source.remote_addr(), before);
    assert_eq!(source.remote_addr(), endpoint.local_addr().unwrap());
}

fn query(id: u64) -> Query {
    Query { id: QueryId(id), body: Online { after: String::new(), limit: 10 }.into() }
}

fn answer(id: u64, users: usize, last: bool) -> ServerFrame {
    let users = vec![UserId::new(&"a".repeat(60)).unwrap(); users];
    ServerFrame::Answer(Answer { id: QueryId(id), last, body: OnlinePage { users, more: false }.into() })
}

async fn ask(connection: &Connection, id: u64) -> quinn::RecvStream {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let mut bytes = Vec::new();
    codec::write_frame(&ClientFrame::Query(query(id)), &mut bytes).unwrap();
    send.write_all(&bytes).await.unwrap();
    send.finish().unwrap();
    receive
}

async fn answers(mut receive: quinn::RecvStream) -> Vec<ServerFrame> {
    let bytes = receive.read_to_end(10_000_000).await.unwrap();
    codec::frames_in(&bytes).collect()
}

/// Sends until nothing is left, as a session does.
async fn flush(sink: &mut QuicSink) {
    while sink.queued() > 0 || sink.due().is_some() {
        tokio::time::sleep_until(sink.due().unwrap_or(tokio::time::Instant::now())).await;
        sink.flush().await.unwrap();
    }
}

#[tokio::test]
async fn a_query_with_a_stream_of_its_own_is_answered_there_and_holds_nothing_up() {
    let server = server(QuicOptions::default());
    let Joined { connection, send: _send, mut receive, mut source, mut sink, endpoint: _endpoint } = server.join().await;
    let (first, second) = (ask(&connection, 7).await, ask(&connection, 8).await);
    let mut asked = [source.next().await.unwrap().unwrap(), source.next().await.unwrap().unwrap()].map(|received| received.frame);
    asked.sort_by_key(|frame| matches!(frame, ClientFrame::Query(query) if query.id == QueryId(8)));
    assert_eq!(asked, [7, 8].map(|id| ClientFrame::Query(query(id))));

    // More than the client's window of one stream, which nobody reads: what comes on the session's stream comes all the same.
    let many = vec![answer(7, 1_000, false); 40];
    for page in &many {
        sink.push(page).unwrap();
    }
    sink.push(&answer(7, 1, true)).unwrap();
    sink.push(&answer(8, 2, true)).unwrap();
    sink.push(&answer(9, 3, true)).unwrap();
    assert!(sink.answers_queued() > 2_000_000 && sink.queued() < 1_000, "only what was asked on the session's stream waits there");
    let flushing = flush(&mut sink);
    let reading = async {
        let mut expected = Vec::new();
        codec::write_frame(&answer(9, 3, true), &mut expected).unwrap();
        let mut bytes = vec![0; expected.len()];
        receive.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, expected);
        let all = answers(first).await;
        assert_eq!(all.len(), many.len() + 1);
        assert_eq!(all.last(), Some(&answer(7, 1, true)));
        assert_eq!(answers(second).await, [answer(8, 2, true)]);
    };
    let ((), read) = tokio::join!(flushing, timeout(Duration::from_secs(20), reading));
    read.unwrap();
}

#[tokio::test]
async fn an_answer_that_nobody_wants_any_more_makes_room_for_the_next() {
    let server = server(QuicOptions::default());
    let Joined { connection, send: _send, receive: _receive, mut source, mut sink, endpoint: _endpoint } = server.join().await;
    let mut first = ask(&connection, 7).await;
    source.next().await.unwrap();
    first.stop(quinn::VarInt::from_u32(0)).unwrap();
    let second = ask(&connection, 8).await;
    source.next().await.unwrap();
    for _ in 0..100 {
        sink.push(&answer(7, 1_000, false)).unwrap();
    }
    sink.push(&answer(7, 0, true)).unwrap();
    sink.push(&answer(8, 2, true)).unwrap();
    timeout(Duration::from_secs(20), flush(&mut sink)).await.unwrap();
    assert_eq!((sink.answers_queued(), answers(second).await), (0, vec![answer(8, 2, true)]));
}

#[tokio::test]
async fn typing_goes_in_datagrams_and_what_has_no_business_there_is_ignored() {
    let server = server(QuicOptions::default());
    let Joined { connection, mut send, receive: _receive, mut source, mut sink, endpoint: _endpoint } = server.join().await;
    let typing = ServerSignal::Typing(TypingFrom { conversation: ConversationId(4), user: UserId::new("ann").unwrap(), active: true });
    let typing = ServerFrame::Signal(typing);
    sink.push(&typing).unwrap();
    assert_eq!(sink.queued(), 0);
    let datagram = connection.read_datagram().await.unwrap();
    assert_eq!(codec::frames_in::<ServerFrame>(&datagram).collect::<Vec<_>>(), [typing]);

    let typing = ClientFrame::Signal(Signal::Typing(Typing { to: Target::Conversation(ConversationId(4)), active: true }));
    let mut bytes = encoded(1);
    for frame in [&typing, &ClientFrame::Query(query(1)), &ClientFrame::Ack(Ack { seq: MailboxSeq(9) }), &typing] {
        codec::write_frame(frame, &mut bytes).unwrap();
    }
    bytes.extend([60, 1, 2]);
    connection.send_datagram(vec![0xff; 20].into()).unwrap();
    connection.send_datagram(bytes.into()).unwrap();
    for _ in 0..2 {
        assert_eq!(source.next().await.unwrap(), Some(Received { frame: typing.clone(), hint: true }));
    }
    send.write_all(&encoded(2)).await.unwrap();
    assert_eq!(source.next().await.unwrap(), Some(ClientFrame::Ping(Ping { id: 2 }).into()), "nothing else came");
}
