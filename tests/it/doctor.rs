//! `whimbrel doctor`: what it says of servers that are well, ill, and not there.

use crate::harness::{ServerProcess, binary};
use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use whimbrel_protocol::ErrorCode;
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{ClientFrame, Error, ServerFrame};

/// The text of every step, in the order they are told.
const STEPS: [&str; 9] = ["name", "TCP", "TLS", "discovery", "clock", "UDP, QUIC", "WebTransport", "WebSocket", "session"];

/// How it ended, and what it said.
struct Said {
    code: i32,
    text: String,
}

impl Said {
    /// What was said of a step, in one line.
    fn of(&self, step: &str) -> String {
        let begins = |line: &&str| !line.starts_with(' ');
        let mut lines = self.text.lines().skip_while(|line| !line.starts_with(&format!("{step} ")));
        let first = lines.next().unwrap_or_else(|| panic!("no {step}: {}", self.text));
        let whole: Vec<&str> = std::iter::once(first).chain(lines.take_while(|line| !begins(line))).collect();
        whole.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn works(&self, step: &str) {
        assert!(self.of(step).starts_with(&format!("{step} works ")), "{step}: {}", self.text);
    }

    #[track_caller]
    fn skipped(&self, step: &str) {
        assert!(self.of(step).starts_with(&format!("{step} skipped ")), "{step}: {}", self.text);
    }

    /// It fails, and this is said of it; whatever fails has its mend.
    #[track_caller]
    fn fails(&self, step: &str, words: &[&str]) {
        let said = self.of(step);
        assert!(said.starts_with(&format!("{step} FAILS ")) && said.contains(" mend "), "{step}: {}", self.text);
        for words in words {
            assert!(said.contains(words), "{step} without {words:?}: {}", self.text);
        }
    }
}

/// Asked in the server's folder, where its CA is found by itself.
fn doctor(server: &ServerProcess, arguments: &[&str]) -> Said {
    doctor_in(server.folder(), arguments)
}

fn doctor_in(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(binary());
    let output = command.arg("doctor").args(arguments).current_dir(folder).env_remove("WHIMBREL_TOKEN").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let said = Said { code: output.status.code().unwrap(), text };
    if said.code != 2 {
        STEPS.iter().for_each(|step| drop(said.of(step)));
    }
    said
}

#[test]
fn a_server_that_is_well() {
    let server = ServerProcess::start();
    let said = doctor(&server, &["--url", &server.url(), "--as", "ann"]);
    assert_eq!(said.code, 0, "{}", said.text);
    said.skipped("TLS");
    STEPS.iter().filter(|step| **step != "TLS").for_each(|step| said.works(step));
    assert!(said.text.ends_with("Clients connect over quic, or else webtransport or websocket.\n"), "{}", said.text);
    let secure = format!("https://{}", server.secure);
    let said = doctor(&server, &["--url", &secure, "--ca", server.certs().to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.text);
    said.skipped("session");
    STEPS.iter().filter(|step| **step != "session").for_each(|step| said.works(step));
}

#[test]
fn what_does_not_fit_is_told_with_its_mend() {
    let server = ServerProcess::start();
    let secure = format!("https://{}", server.secure);
    let said = doctor(&server, &["--url", &secure, "--pin", &"ab".repeat(32), "--as", "ann"]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.fails("TLS", &["not the pinned one", "whimbrel certs show"]);
    said.fails("UDP, QUIC", &["UDP gets through"]);
    for step in ["discovery", "clock", "WebSocket", "session"] {
        said.skipped(step);
    }
    let said = doctor(&server, &["--url", &format!("https://{}", server.http), "--pin", &"ab".repeat(32)]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.fails("TLS", &["does not speak TLS", "with http://"]);
    let said = doctor(&server, &["--url", &format!("http://{}", server.secure)]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.fails("discovery", &[&secure]);
    said.fails("WebSocket", &[]);
    assert_eq!(doctor(&server, &["--url", "nonsense"]).code, 2);
    assert_eq!(doctor(&server, &["--url", &server.url(), "--as", ""]).code, 2);
    assert_eq!(doctor(&server, &["--url", &secure, "--ca", "not/there"]).code, 2);
}

#[test]
fn where_nothing_is() {
    let server = ServerProcess::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = doctor(&server, &["--url", &format!("http://{free}")]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.fails("TCP", &["start the server", "--http"]);
    STEPS.iter().filter(|step| !["name", "TCP"].contains(step)).for_each(|step| said.skipped(step));
    let said = doctor(&server, &["--url", "http://no-such-host.invalid"]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.fails("name", &["spelled right"]);
    STEPS.iter().filter(|step| **step != "name").for_each(|step| said.skipped(step));
    assert!(said.text.ends_with("Clients cannot connect: mend the first step that fails.\n"), "{}", said.text);
}

/// What an odd server says of itself.
struct Odd {
    date: &'static str,
    quic: SocketAddr,
    websocket: SocketAddr,
}

impl Odd {
    /// Answers every request with it. Hashes are none of any certificate.
    fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let Self { date, quic, websocket } = self;
        let hashes = format!(r#"["{}="]"#, "A".repeat(43));
        let body = format!(
            r#"{{"quic":{{"address":"{quic}","certificateHashes":{hashes}}},"webtransport":{{"url":"https://{quic}/wt","certificateHashes":{hashes}}},"websocket":{{"url":"ws://{websocket}/ws"}},"versions":[1]}}"#
        );
        let head = format!("HTTP/1.1 200 OK\r\n{date}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        std::thread::spawn(move || {
            let answer_to = |mut tcp: TcpStream| {
                // The doctor opens a connection to see whether it can, and says nothing on it.
                if tcp.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                    let _ = tcp.write_all(format!("{head}{body}").as_bytes());
                }
            };
            // Ends with the test's process.
            listener.incoming().map_while(Result::ok).for_each(answer_to);
        });
        url
    }
}

#[test]
fn udp_that_goes_nowhere_and_a_clock_that_is_wrong() {
    let server = ServerProcess::start();
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let quic = hole.local_addr().unwrap();
    let url = Odd { date: "date: Sat, 01 Jan 2000 00:00:00 GMT\r\n", quic, websocket: server.http }.start();
    let said = doctor(&server, &["--url", &url, "--as", "ann"]);
    assert_eq!(said.code, 0, "{}", said.text);
    said.fails("clock", &["ahead of the server's", "NTP"]);
    said.fails("UDP, QUIC", &[&format!("let UDP port {} through", quic.port())]);
    said.fails("WebTransport", &["the same"]);
    said.works("session");
    assert!(said.text.ends_with("Clients connect, over websocket alone.\n"), "{}", said.text);
}

#[test]
fn a_certificate_that_is_another_is_not_taken_for_udp_that_is_blocked() {
    let server = ServerProcess::start();
    // What is at the WebSocket's place answers each request with 200.
    let quic = server.secure;
    let websocket = Odd { date: "", quic, websocket: quic }.start().trim_start_matches("http://").parse().unwrap();
    let url = Odd { date: "", quic, websocket }.start();
    let said = doctor(&server, &["--url", &url]);
    assert_eq!(said.code, 0, "the CA makes up for it: {}", said.text);
    assert!(said.text.ends_with("Clients connect over quic, or else webtransport.\n"), "{}", said.text);
    let said = doctor_in(&server.data(), &["--url", &url]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.skipped("clock");
    said.fails("UDP, QUIC", &["UDP gets through", "--pin"]);
    said.fails("WebTransport", &["the same"]);
    said.fails("WebSocket", &["Upgrade"]);
}

/// A TLS server whose certificate is good from and until so many days from now, for this name; and the CA that signed it.
fn secured(name: &str, from: i64, until: i64) -> (String, String) {
    let now = OffsetDateTime::now_utc();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (authority.not_before, authority.not_after) = (now - Duration::days(100), now + Duration::days(100));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
    (leaf.not_before, leaf.not_after) = (now + Duration::days(from), now + Duration::days(until));
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().map_while(Result::ok) {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = tls.complete_io(&mut tcp);
        }
    });
    (url, authority.pem())
}

#[test]
fn certificates_that_are_over_not_yet_good_of_somebody_else_or_for_another_name() {
    let server = ServerProcess::start();
    let ca = server.folder().join("authority.pem");
    let ill = |(url, authority): (String, String), words: &[&str]| {
        std::fs::write(&ca, authority).unwrap();
        let said = doctor(&server, &["--url", &url, "--ca", ca.to_str().unwrap()]);
        assert_eq!(said.code, 3, "{}", said.text);
        said.works("TCP");
        said.fails("TLS", words);
        said.skipped("discovery");
    };
    ill(secured("127.0.0.1", -20, -10), &["has expired (good until ", "GMT; this machine's clock says ", "certs renew", "clock is wrong"]);
    ill(secured("127.0.0.1", 10, 20), &["not valid yet (good from ", "GMT; this machine's clock says ", "clock right"]);
    ill(secured("chat.example.org", -10, 10), &["for other names", "chat.example.org"]);
    ill((secured("127.0.0.1", -10, 10).0, secured("x", -10, 10).1), &["not signed by the CA", "ca.pem"]);
    let said = doctor(&server, &["--url", &secured("127.0.0.1", -10, 10).0]);
    assert_eq!(said.code, 3, "{}", said.text);
    said.fails("TLS", &["not signed by the CA"]);
}

/// A WebSocket at which nobody is let in.
fn choosy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        crate::harness::run(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                #[allow(clippy::result_large_err, reason = "the form that the library asks for")]
                let choose = |_: &Request, mut response: Response| {
                    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("whimbrel.v1.postcard"));
                    Ok(response)
                };
                let mut socket = tokio_tungstenite::accept_hdr_async(tcp, choose).await.unwrap();
                let Some(Ok(Message::Binary(bytes))) = socket.next().await else { continue };
                assert!(matches!(Form::Postcard.decode(&bytes), Ok(ClientFrame::Hello(_))));
                let error = Error { code: ErrorCode::Unauthorized, message: "who is that?".into(), retry_after_ms: 0 };
                let _ = socket.send(Message::Binary(Form::Postcard.encode(&ServerFrame::Error(error)).unwrap().into())).await;
            }
        })
    });
    address
}

#[test]
fn who_is_not_let_in_hears_why() {
    let server = ServerProcess::start();
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = Odd { date: "", quic: hole.local_addr().unwrap(), websocket: choosy() }.start();
    let said = doctor(&server, &["--url", &url, "--as", "ann"]);
    assert_eq!(said.code, 1, "{}", said.text);
    said.fails("session", &["who is that?", "--token"]);
    // {"alg":"HS256"}.{"sub":"bob"}
    let said = doctor(&server, &["--url", &url, "--as", "ann", "--token", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2ln"]);
    assert_eq!(said.code, 1, "{}", said.text);
    said.fails("session", &[r#"for "bob", not for "ann""#]);
    assert!(said.text.ends_with("it does not let this user in.\n") && !said.text.contains("eyJ"), "{}", said.text);
}
