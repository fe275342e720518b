//! Bad input: each gets a clear error or works; the server and other users never notice.

use crate::harness::{Frames, Link, PATIENCE, ServerProcess, hello, run, webtransport, within};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use whimbrel_protocol::codec::{Form, MAX_FRAME, MAX_JSON_FRAME, MAX_TEXT};
use whimbrel_protocol::frame::{ClientFrame, EventBody, Hello};
use whimbrel_protocol::{ErrorCode, TransportKind};

/// Each case runs over every transport.
const ALL: [TransportKind; 4] = TransportKind::ALL;

/// Others talk on, whatever was done to the server.
async fn others_talk(server: &ServerProcess) {
    let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "witness").await;
    let mut bob = Frames::enter(server.http, Form::Json, "bob", "witness").await;
    let words = format!("still here {}", rand::random::<u32>());
    ann.say("bob", &words).await;
    while bob.message().await != words {}
}

#[test]
fn what_is_no_frame_is_told_and_ends_only_that_session() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let max = if kind.form() == Form::Json { MAX_JSON_FRAME } else { MAX_FRAME };
            let cases: [(&str, Vec<u8>, ErrorCode); 4] = [
                ("nothing", Vec::new(), ErrorCode::Malformed),
                ("garbage", vec![0x7f; 100], ErrorCode::Malformed),
                ("as long as allowed", vec![b' '; max], ErrorCode::Malformed),
                ("a byte too long", vec![b' '; max + 1], ErrorCode::FrameTooLong),
            ];
            for (what, bytes, code) in cases {
                let mut link = Link::over(server.http, kind).await;
                link.send_bytes(bytes.clone()).await;
                assert_eq!(link.error().await.code, code, "{kind}, first: {what}");
                let mut ann = Frames::over(server.http, kind, "mallory", "phone").await;
                ann.link.send_bytes(bytes).await;
                assert_eq!(ann.link.error().await.code, code, "{kind}, later: {what}");
            }
        }
        others_talk(&server).await;
    });
}

#[test]
fn a_frame_far_too_long_ends_the_connection() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let mut link = Link::over(server.http, kind).await;
            // The server stops reading and closes; how much of this gets out is the network's business.
            if within("the end of it", link.try_send_bytes(vec![b' '; 8 << 20])).await {
                while link.next().await.is_some() {}
            }
        }
        others_talk(&server).await;
    });
}

#[test]
fn the_wrong_sort_of_message_is_told() {
    run(async {
        let server = ServerProcess::start();
        let mut link = Link::open(server.http, Form::Postcard).await;
        link.send_message(Message::text("{}")).await;
        assert_eq!(link.error().await.code, ErrorCode::Malformed);
        let mut link = Link::open(server.http, Form::Json).await;
        link.send_message(Message::binary(vec![0])).await;
        assert_eq!(link.error().await.code, ErrorCode::Malformed);
    });
}

#[test]
fn the_first_frame_is_hello_and_there_is_only_one() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let mut link = Link::over(server.http, kind).await;
            link.send(&ClientFrame::Ping(whimbrel_protocol::frame::Ping { id: 1 })).await;
            assert_eq!(link.error().await.code, ErrorCode::Malformed);
            let mut ann = Frames::over(server.http, kind, "ann", "phone").await;
            ann.link.send(&ClientFrame::Hello(hello("bob", "phone"))).await;
            assert_eq!(ann.link.error().await.code, ErrorCode::Malformed);
        }
    });
}

#[test]
fn an_unknown_version_is_told_with_those_that_are_known() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let mut link = Link::over(server.http, kind).await;
            link.send(&ClientFrame::Hello(Hello { min_version: 7, max_version: 9, ..hello("ann", "phone") })).await;
            let error = link.error().await;
            assert_eq!(error.code, ErrorCode::UnsupportedVersion, "{kind}");
            assert!(error.message.contains("1 to 1") && error.message.contains("7 to 9"), "{}", error.message);
        }
    });
}

#[test]
fn an_unknown_kind_of_command_uses_its_number_and_is_rejected() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let mut ann = Frames::over(server.http, kind, "ann", kind.name()).await;
            let incarnation = ann.welcome.incarnation;
            let (command, name) = if kind.form() == Form::Json {
                let text = format!(
                    r#"{{"command":{{"incarnation":"{incarnation}","cseq":"1","nonce":"00000000000000ff","kind":"dance","body":{{"a":1}}}}}}"#
                );
                (text.into_bytes(), "dance")
            } else {
                // Tag, incarnation and number; the nonce; kind 99 with a body of one byte.
                let head = [1, u8::try_from(incarnation.0).unwrap(), 1];
                ([&head[..], &[0xff; 8], &[99, 1, 0]].concat(), "99")
            };
            ann.link.send_bytes(command).await;
            let rejected = ann.event_of(|body| if let EventBody::Rejected(rejected) = body { Some(rejected.clone()) } else { None }).await;
            assert_eq!((rejected.code, rejected.cseq.0), (ErrorCode::Unsupported, 1), "{kind}");
            assert!(rejected.message.contains(name), "{}", rejected.message);
            ann.cseq = rejected.cseq;
            let next = ann.say("bob", "and on").await;
            ann.applied(next).await;
        }
    });
}

#[test]
fn texts_of_every_sort_arrive_as_they_were() {
    run(async {
        let server = ServerProcess::start();
        let texts = [
            "\0 null \0".to_owned(),
            "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽".to_owned(),
            "\u{202e}right to left\u{202c} שלום مرحبا".to_owned(),
            "<script>alert(1)</script> & \"quotes\" \\ \n\r\t".to_owned(),
            "\u{feff}\u{200b}\u{ffff}\u{10ffff}".to_owned(),
            "x".repeat(MAX_TEXT),
            "\0".repeat(MAX_TEXT),
        ];
        for (at, kind) in ALL.into_iter().enumerate() {
            let other = ALL[(at + 1) % ALL.len()];
            let (from, to) = (format!("ann-{kind}"), format!("bob-{kind}"));
            let mut ann = Frames::over(server.http, kind, &from, "phone").await;
            let mut bob = Frames::over(server.http, other, &to, "phone").await;
            for text in &texts {
                ann.say(&to, text).await;
                let said = bob.message().await;
                assert!(said == *text, "{kind}: a text of {} bytes came as one of {}", text.len(), said.len());
            }
        }
    });
}

#[test]
fn a_text_one_byte_too_long_or_empty_is_rejected_and_the_session_goes_on() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let mut ann = Frames::over(server.http, kind, &format!("ann-{kind}"), "phone").await;
            for (text, code) in [("x".repeat(MAX_TEXT + 1), ErrorCode::TooLong), (String::new(), ErrorCode::Empty)] {
                ann.say("bob", &text).await;
                let rejected =
                    ann.event_of(|body| if let EventBody::Rejected(rejected) = body { Some(rejected.clone()) } else { None }).await;
                assert_eq!(rejected.code, code);
            }
            let next = ann.say("bob", "and on").await;
            ann.applied(next).await;
        }
    });
}

#[test]
fn gaps_and_conflicts_of_command_numbers_are_told() {
    run(async {
        let server = ServerProcess::start();
        for kind in ALL {
            let mut ann = Frames::over(server.http, kind, "ann", kind.name()).await;
            ann.cseq = whimbrel_protocol::CommandSeq(5);
            ann.say("bob", "six without one to five").await;
            assert_eq!(ann.link.error().await.code, ErrorCode::WindowExceeded, "{kind}");

            let mut ann = Frames::over(server.http, kind, "ann", kind.name()).await;
            let first = ann.say("bob", "one").await;
            ann.applied(first).await;
            ann.cseq = whimbrel_protocol::CommandSeq(0);
            ann.say("bob", "another one").await;
            assert_eq!(ann.link.error().await.code, ErrorCode::OutboxConflict, "{kind}");
        }
    });
}

#[test]
fn connections_that_say_nothing_do_not_stay_for_ever() {
    run(async {
        let server = ServerProcess::start();
        // A Hello is missing, over WebTransport even the stream for it.
        let mut silent = Vec::new();
        for kind in ALL {
            silent.push((kind, Link::over(server.http, kind).await));
        }
        let (without_stream, _endpoint) = webtransport(server.http).await;
        // A TCP connection without a request, and one with half of one.
        let nothing = tokio::net::TcpStream::connect(server.http).await.unwrap();
        let mut half = tokio::net::TcpStream::connect(server.http).await.unwrap();
        half.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        let tls = tokio::net::TcpStream::connect(server.secure).await.unwrap();
        for (kind, mut link) in silent {
            if kind == TransportKind::Quic {
                // Where nothing was said, there is no stream to answer on.
                assert!(link.next().await.is_none());
                continue;
            }
            assert_eq!(link.error().await.code, ErrorCode::HelloTimeout, "{kind}");
        }
        within("a session without a stream", without_stream.closed()).await;
        for (what, stream) in [("silent", nothing), ("half", half), ("TLS", tls)] {
            within(what, closed(stream)).await;
        }
    });
}

#[test]
fn a_client_that_is_gone_without_a_word_is_noticed() {
    run(async {
        use crate::harness::http_get;
        let server = ServerProcess::start_with(&["--presence-grace", "0"]);
        let gone = ALL.map(|kind| vanish(server.http, kind));
        let online = async || {
            let page = http_get(server.http, "/api/online-users", &[]).await;
            let page = String::from_utf8(page.body().to_vec()).unwrap();
            ALL.into_iter().filter(|kind| page.contains(&format!("\"gone over {kind}\""))).count()
        };
        assert_eq!(online().await, ALL.len());
        // Asked after 30 seconds of silence, given up 20 seconds later; QUIC gives up after 45.
        let noticed = async {
            while online().await > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(50) + PATIENCE, noticed).await.expect("one still counts as online");
        others_talk(&server).await;
        for (client, runtime) in gone {
            drop(client);
            runtime.shutdown_background();
        }
    });
}

/// A client that says hello and then neither reads nor answers, as a phone that lost its network: nobody drives its runtime any more, so
/// that not even QUIC acknowledges for it. The connection stays half open.
fn vanish(address: std::net::SocketAddr, kind: TransportKind) -> (Frames, tokio::runtime::Runtime) {
    let entering = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        (runtime.block_on(Frames::over(address, kind, &format!("gone over {kind}"), "phone")), runtime)
    });
    entering.join().unwrap()
}

async fn closed(mut stream: tokio::net::TcpStream) {
    use tokio::io::AsyncReadExt;
    let mut buffer = [0; 1024];
    while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
}

#[test]
fn clients_that_never_read_cost_a_bounded_amount_and_catch_up() {
    for kind in [TransportKind::WebSocket, TransportKind::WebTransport, TransportKind::Quic] {
        never_read(kind);
    }
}

fn never_read(kind: TransportKind) {
    run(async {
        const DEAF: u64 = 20;
        const MESSAGES: u64 = 400;
        let server = ServerProcess::start();
        let mut deaf = Vec::new();
        for number in 0..DEAF {
            deaf.push(Frames::over(server.http, kind, "bob", &format!("deaf {number}")).await);
        }
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let before = resident_bytes(&server);
        let words = "x".repeat(MAX_TEXT);
        for _ in 0..MESSAGES {
            let cseq = ann.say("bob", &words).await;
            ann.applied(cseq).await;
        }
        // What docs/limits.md sums up: recent records and the writer's pages for all of them together, and so much for each who does not
        // read. Queues without a bound would hold some 470 MiB.
        let bound = ((32 + 64) << 20) + DEAF * (400 << 10);
        let grown = resident_bytes(&server).saturating_sub(before);
        let unbounded = DEAF * MESSAGES * MAX_TEXT as u64;
        assert!(unbounded > 4 * bound, "this shows nothing");
        assert!(grown < bound, "{kind}: the server grew by {} MiB, at most {} are allowed", grown >> 20, bound >> 20);
        others_talk(&server).await;
        for mut bob in deaf {
            for _ in 0..MESSAGES {
                assert_eq!(bob.message().await.len(), MAX_TEXT);
            }
        }
    });
}

/// Memory of the server that is its own, not a file's, in bytes.
fn resident_bytes(server: &ServerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_page_from_elsewhere_cannot_be_somebody_here() {
    run(async {
        use crate::harness::http_get;
        let headers = |origin| {
            [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
                ("sec-websocket-protocol", "whimbrel.v1.json"),
                ("origin", origin),
            ]
        };
        for (flags, origin, status) in [
            (&[][..], "https://evil.example", 403),
            (&[], "null", 403),
            (&[], "http://localhost:3000", 101),
            (&["--open-anywhere"], "https://our.example", 101),
        ] {
            let server = ServerProcess::start_with(flags);
            assert_eq!(http_get(server.http, "/ws", &headers(origin)).await.status(), status, "{origin} {flags:?}");
        }
    });
}
