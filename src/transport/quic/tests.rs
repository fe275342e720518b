//! The endpoint against wtransport's own client.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::tls::plan::PERIOD;
use crate::transport::{FrameSink, FrameSource, LinkError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use time::OffsetDateTime;
use whimbrel_protocol::codec::{self, CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, GoAway, Ping, ServerFrame};
use wtransport::endpoint::ConnectOptions;
use wtransport::tls::Sha256Digest;
use wtransport::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};

struct Server {
    _dir: TempDir,
    keys: Keys,
    listener: QuicListener,
}

impl Server {
    fn start(options: QuicOptions) -> Self {
        Self::start_at(OffsetDateTime::now_utc(), options)
    }

    /// With keys that were made at this time.
    fn start_at(made: OffsetDateTime, options: QuicOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open_at(dir.path(), &[], made).unwrap();
        let listener = QuicListener::on(std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), &keys, options).unwrap();
        Self { _dir: dir, keys, listener }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.listener.local_addr())
    }

    async fn connect(&self) -> Connection {
        pinned(&self.keys.hashes()).connect(self.url("/wt")).await.unwrap()
    }

    /// A client with its stream, and the session on this side.
    async fn pair(&self) -> (Connection, SendStream, RecvStream, QuicSession) {
        let connection = self.connect().await;
        let (mut send, receive) = connection.open_bi().await.unwrap().await.unwrap();
        send.write_all(&encoded(0)).await.unwrap();
        let session = self.listener.accept().await.unwrap();
        (connection, send, receive, session)
    }
}

fn pinned(hashes: &[[u8; 32]]) -> Endpoint<wtransport::endpoint::endpoint_side::Client> {
    let hashes = hashes.iter().copied().map(Sha256Digest::new);
    Endpoint::client(ClientConfig::builder().with_bind_default().with_server_certificate_hashes(hashes).build()).unwrap()
}

fn ping(id: u32) -> ClientFrame {
    ClientFrame::Ping(Ping { id })
}

fn encoded(id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::write_frame(&ping(id), &mut bytes).unwrap();
    bytes
}

async fn read_frame(receive: &mut RecvStream) -> ServerFrame {
    let mut bytes = Vec::new();
    loop {
        if let Some((start, end)) = codec::find_frame(&bytes).unwrap() {
            assert_eq!(end, bytes.len());
            return Form::Postcard.decode(&bytes[start..end]).unwrap();
        }
        let mut more = [0; 1];
        assert_eq!(receive.read(&mut more).await.unwrap(), Some(1));
        bytes.push(more[0]);
    }
}

fn soon() -> QuicOptions {
    let short = Duration::from_millis(300);
    QuicOptions { handshake_timeout: short, request_timeout: short, stream_timeout: short, ..QuicOptions::default() }
}

#[tokio::test]
async fn frames_go_both_ways_under_a_pinned_hash() {
    let server = Server::start(QuicOptions::default());
    let (_connection, mut send, mut receive, session) = server.pair().await;
    assert!(session.remote_addr().ip().is_loopback());
    let (mut source, mut sink) = session.split();
    assert_eq!(source.next().await.unwrap(), Some(ping(0).into()));
    // In pieces, and several at once.
    for byte in encoded(70_000) {
        send.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    send.write_all(&[encoded(2), encoded(3)].concat()).await.unwrap();
    for id in [70_000, 2, 3] {
        assert_eq!(source.next().await.unwrap(), Some(ping(id).into()));
    }
    for id in 0..3 {
        sink.push(&ServerFrame::Pong(Ping { id })).unwrap();
    }
    assert_eq!(sink.queued(), 3 * 3);
    sink.flush().await.unwrap();
    assert_eq!(sink.queued(), 0);
    for id in 0..3 {
        assert_eq!(read_frame(&mut receive).await, ServerFrame::Pong(Ping { id }));
    }
}

#[tokio::test]
async fn the_ca_is_enough_and_other_keys_are_not() {
    let server = Server::start(QuicOptions::default());
    let ca = CertificateDer::from_pem_file(server.keys.ca_file().unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let client = Endpoint::client(ClientConfig::builder().with_bind_default().with_custom_tls(tls).build()).unwrap();
    client.connect(server.url("/wt")).await.unwrap();

    assert!(pinned(&[[7; 32]]).connect(server.url("/wt")).await.is_err());
    // The next certificate is listed, but not in use.
    assert!(pinned(&server.keys.hashes()[1..]).connect(server.url("/wt")).await.is_err());
}

#[tokio::test]
async fn only_our_path_and_welcome_origins() {
    let server = Server::start(QuicOptions { pages: crate::transport::Pages::Loopback, ..QuicOptions::default() });
    let client = pinned(&server.keys.hashes());
    let from = |origin: &str| ConnectOptions::builder(server.url("/wt?x=1")).add_header("origin", origin).build();
    assert!(client.connect(server.url("/other")).await.is_err());
    assert!(client.connect(from("https://evil.example")).await.is_err());
    client.connect(from("https://127.0.0.1:3000")).await.unwrap();
    client.connect(server.url("/wt?x=1")).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_frames_are_errors() {
    let server = Server::start(QuicOptions::default());
    for (bytes, expected) in [
        (vec![0x81, 0x80, 0x04], CodecError::TooLong { len: codec::MAX_FRAME + 1, max: codec::MAX_FRAME }),
        (vec![0xff, 0xff, 0xff], CodecError::BadLength),
        ([&[4][..], &[5, 1, 1, 1]].concat(), CodecError::Trailing(2)),
    ] {
        let (_connection, mut send, _receive, session) = server.pair().await;
        let (mut source, _sink) = session.split();
        assert_eq!(source.next().await.unwrap(), Some(ping(0).into()));
        send.write_all(&bytes).await.unwrap();
        let Err(LinkError::Codec(error)) = source.next().await else { panic!("{bytes:?} is taken for a frame") };
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn a_client_that_opens_no_stream_is_closed() {
    let server = Server::start(soon());
    let connection = server.connect().await;
    timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_asks_for_a_session_is_closed() {
    let server = Server::start(soon());
    let mut tls = wtransport::tls::client::build_default_tls_config(
        Arc::new(rustls::RootCertStore::empty()),
        Some(Arc::new(wtransport::tls::client::ServerHashVerification::new(server.keys.hashes().into_iter().map(Sha256Digest::new)))),
    );
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let raw = |tls: rustls::ClientConfig| {
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        endpoint
    };
    let endpoint = raw(tls.clone());
    let connection = endpoint.connect(server.listener.local_addr(), "localhost").unwrap().await.unwrap();
    timeout(Duration::from_secs(5), connection.closed()).await.unwrap();

    // Nor does a protocol get in that is not offered.
    tls.alpn_protocols = vec![b"something/1".to_vec()];
    assert!(raw(tls).connect(server.listener.local_addr(), "localhost").unwrap().await.is_err());
}

#[tokio::test]
async fn more_handshakes_than_allowed_are_refused() {
    let server = Server::start(QuicOptions { max_handshakes: 1, stream_timeout: Duration::from_secs(60), ..QuicOptions::default() });
    // This one proved its address, and is still without a stream.
    let first = server.connect().await;
    let client = pinned(&server.keys.hashes());
    assert!(client.connect(server.url("/wt")).await.is_err());
    drop(first);
    // The one that is gone makes room.
    for _ in 0..50 {
        if client.connect(server.url("/wt")).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still refused");
}

#[tokio::test]
async fn whatever_else_a_client_opens_or_sends_does_no_harm() {
    let server = Server::start(QuicOptions::default());
    let (connection, mut send, _receive, session) = server.pair().await;
    let (mut source, _sink) = session.split();
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        while let Some(frame) = source.next().await.unwrap() {
            got.push(frame.frame);
        }
        got
    });
    for id in 1..60 {
        // More than the streams allowed at once: each one refused makes room for another.
        let mut uni = timeout(Duration::from_secs(5), connection.open_uni()).await.unwrap().unwrap().await.unwrap();
        let _ = uni.write_all(b"nobody reads this").await;
        let (mut bi, _) = timeout(Duration::from_secs(5), connection.open_bi()).await.unwrap().unwrap().await.unwrap();
        let _ = bi.write_all(b"nor this").await;
        let _ = connection.send_datagram(b"nor that");
        send.write_all(&encoded(id)).await.unwrap();
    }
    send.finish().await.unwrap();
    assert_eq!(reader.await.unwrap(), (0..60).map(ping).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_close_brings_out_what_is_queued_and_lets_the_client_close() {
    let server = Server::start(QuicOptions::default());
    let (connection, _send, mut receive, session) = server.pair().await;
    let (_source, mut sink) = session.split();
    let bye = ServerFrame::GoAway(GoAway { retry_after_ms: 7, message: "later".into() });
    sink.push(&bye).unwrap();
    let closing = tokio::spawn(sink.close());
    assert_eq!(read_frame(&mut receive).await, bye);
    assert_eq!(receive.read(&mut [0; 1]).await.unwrap(), None);
    assert!(!closing.is_finished(), "the server closed first");
    connection.close(0u32.into(), b"");
    timeout(Duration::from_millis(700), closing).await.unwrap().unwrap();

    // One that does not close is closed.
    let (connection, _send, _receive, session) = server.pair().await;
    let (_source, sink) = session.split();
    sink.close().await;
    timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
}

#[tokio::test]
async fn an_orderly_end_is_none_and_a_torn_frame_is_not() {
    let server = Server::start(QuicOptions::default());
    let (connection, _send, _receive, session) = server.pair().await;
    let (mut source, _sink) = session.split();
    assert_eq!(source.next().await.unwrap(), Some(ping(0).into()));
    connection.close(0u32.into(), b"");
    assert_eq!(source.next().await.unwrap(), None);

    let (_connection, mut send, _receive, session) = server.pair().await;
    let (mut source, _sink) = session.split();
    assert_eq!(source.next().await.unwrap(), Some(ping(0).into()));
    send.write_all(&[9, 5]).await.unwrap();
    send.finish().await.unwrap();
    assert!(matches!(source.next().await, Err(LinkError::Gone(_))));
}

#[tokio::test]
async fn a_slow_client_holds_its_frames_here_and_a_dropped_flush_loses_none() {
    let server = Server::start(QuicOptions::default());
    let (_connection, _send, mut receive, session) = server.pair().await;
    let (_source, mut sink) = session.split();
    let big = ServerFrame::GoAway(GoAway { retry_after_ms: 0, message: "x".repeat(60_000) });
    for _ in 0..40 {
        sink.push(&big).unwrap();
    }
    assert!(timeout(Duration::from_millis(200), sink.flush()).await.is_err(), "more is under way than QUIC may hold");
    assert!(sink.queued() > 0);
    let reader = tokio::spawn(async move {
        let (mut total, mut buffer) = (0, vec![0; 65536]);
        while let Some(read) = receive.read(&mut buffer).await.unwrap() {
            total += read;
        }
        total
    });
    while timeout(Duration::from_millis(2), sink.flush()).await.is_err() {}
    sink.close().await;
    let mut one = Vec::new();
    codec::write_frame(&big, &mut one).unwrap();
    assert_eq!(reader.await.unwrap(), 40 * one.len());
}

#[tokio::test]
async fn a_rotation_drops_nobody_and_turns_nobody_away() {
    // An hour before the turn of the next one: the client's clock, which is the real one, takes both.
    let now = OffsetDateTime::now_utc();
    let server = Server::start_at(now - PERIOD + time::Duration::HOUR, QuicOptions::default());
    let before = server.keys.hashes();
    let (_connection, mut send, mut receive, session) = server.pair().await;
    let (mut source, mut sink) = session.split();
    assert_eq!(source.next().await.unwrap(), Some(ping(0).into()));

    assert!(!server.keys.refresh(now).unwrap());
    assert!(server.keys.refresh(now + time::Duration::hours(2)).unwrap());
    let after = server.keys.hashes();
    assert_eq!((after[0], after[2]), (before[1], before[0]));

    send.write_all(&encoded(5)).await.unwrap();
    assert_eq!(source.next().await.unwrap(), Some(ping(5).into()));
    sink.push(&ServerFrame::Pong(Ping { id: 5 })).unwrap();
    sink.flush().await.unwrap();
    assert_eq!(read_frame(&mut receive).await, ServerFrame::Pong(Ping { id: 5 }));

    // Old alone fails now, new alone works, and so does the list that was fetched before.
    assert!(pinned(&before[..1]).connect(server.url("/wt")).await.is_err());
    pinned(&after[..1]).connect(server.url("/wt")).await.unwrap();
    pinned(&before).connect(server.url("/wt")).await.unwrap();
}

#[test]
fn clients_of_the_run_before_learn_at_once_that_it_is_over() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (killed, here) = (runtime(), runtime());
    let server = killed.block_on(async { Server::start(QuicOptions::default()) });
    let addr = server.listener.local_addr();
    let (connection, mut send, _receive, session) = here.block_on(server.pair());
    // As if the process were killed: nobody is told anything.
    killed.shutdown_timeout(Duration::from_secs(5));
    let Server { _dir, keys, listener } = server;
    drop((listener, session));
    here.block_on(async {
        let _again = QuicListener::on(std::net::UdpSocket::bind(addr).unwrap(), &keys, QuicOptions::default()).unwrap();
        send.write_all(&[0; 100]).await.unwrap();
        let error = timeout(Duration::from_secs(5), connection.closed()).await.expect("the client waits for its idle timeout");
        assert!(error.to_string().contains("reset"), "{error}");
    });
}

#[tokio::test]
async fn a_shutdown_waits_for_sessions_and_takes_no_new_ones() {
    let server = Server::start(QuicOptions::default());
    let (connection, _send, _receive, session) = server.pair().await;
    let client = pinned(&server.keys.hashes());
    let url = server.url("/wt");
    let listener = Arc::new(server.listener);
    let stopping = tokio::spawn({
        let listener = Arc::clone(&listener);
        async move { listener.shutdown(Duration::from_secs(20)).await }
    });
    assert!(timeout(Duration::from_secs(5), listener.accept()).await.unwrap().is_none());
    assert!(client.connect(url).await.is_err());
    assert!(!stopping.is_finished());
    connection.close(0u32.into(), b"");
    drop(session);
    timeout(Duration::from_secs(10), stopping).await.unwrap().unwrap();
    assert!(listener.accept().await.is_none());
}
