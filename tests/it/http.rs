//! The HTTP side.

use crate::harness::{Frames, Link, ServerProcess, http_get, run};
use serde_json::Value;
use whimbrel_protocol::TransportKind;
use whimbrel_protocol::codec::Form;

async fn json(server: &ServerProcess, path: &str) -> Value {
    let response = http_get(server.http, path, &[]).await;
    assert_eq!(response.status(), 200, "{path}");
    serde_json::from_slice(response.body()).unwrap()
}

#[test]
fn the_faces_of_http() {
    run(async {
        let server = ServerProcess::start();
        let _ann = Frames::enter(server.http, Form::Json, "ann", "phone").await;

        let status = json(&server, "/").await;
        assert_eq!((&status["status"], &status["onlineUsers"]), (&"running".into(), &1.into()));
        assert!(status["timestamp"].as_str().unwrap().ends_with('Z') && status["version"].is_string());

        let users = json(&server, "/api/online-users").await;
        assert_eq!((&users["users"][0]["id"], &users["users"][0]["status"]), (&"ann".into(), &"online".into()));

        let connect = json(&server, "/.well-known/whimbrel").await;
        assert_eq!(connect["websocket"]["url"], format!("ws://{}/ws", server.http));
        assert_eq!((&connect["quic"]["address"], &connect["quic"]["alpn"]), (&server.secure.to_string().into(), &"whimbrel/1".into()));
        assert_eq!(connect["quic"]["certificateHashes"], connect["webtransport"]["certificateHashes"]);
        assert_eq!(connect["webtransport"]["url"], format!("https://{}/wt", server.secure));
        assert!(connect["webtransport"]["certificateHashes"].as_array().unwrap().len() >= 2, "this one's and the next one's: {connect}");
        assert_eq!(connect["versions"], serde_json::json!([1]));

        for path in ["/healthz", "/readyz"] {
            assert_eq!(http_get(server.http, path, &[]).await.status(), 200, "{path}");
        }
        let metrics = http_get(server.http, "/metrics", &[]).await;
        let metrics = String::from_utf8(metrics.body().to_vec()).unwrap();
        assert!(metrics.contains("whimbrel_sessions{transport=\"websocket-json\"} 1"), "{metrics}");
        assert_eq!(http_get(server.http, "/nothing", &[]).await.status(), 404);
    });
}

/// What a browser asks for when somebody goes to an address.
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

fn header<'a, B>(response: &'a hyper::Response<B>, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
}

#[test]
fn the_pages_are_served_from_the_binary_under_a_strict_policy() {
    run(async {
        let server = ServerProcess::start();
        assert_eq!(header(&http_get(server.http, "/", &[BROWSER]).await, "vary"), "Accept");
        for (path, script) in [("/", "page.js"), ("/doctor", "doctor.js")] {
            page_and_its_files(&server, path, script).await;
        }
    });
}

async fn page_and_its_files(server: &ServerProcess, path: &str, script: &str) {
    let page = http_get(server.http, path, &[BROWSER]).await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(header(&page, "cache-control"), "no-cache");
    let policy = format!(
        "default-src 'self'; connect-src 'self' ws://{} https://{}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
        server.http, server.secure
    );
    assert_eq!(header(&page, "content-security-policy"), policy);
    assert_eq!((header(&page, "x-content-type-options"), header(&page, "referrer-policy")), ("nosniff", "no-referrer"));

    // Everything that the page names is there, with its type, and from here.
    let html = String::from_utf8(page.body().to_vec()).unwrap();
    let named: Vec<&str> = html.split(['"', '\'']).filter(|part| part.contains("://") || part.starts_with('/')).collect();
    assert!(named.iter().any(|path| path.ends_with(script)) && named.iter().any(|path| path.ends_with(".css")), "{named:?}");
    for path in named {
        let file = http_get(server.http, path, &[]).await;
        let kind = match path.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "png" => "image/png",
            "webmanifest" => "application/manifest+json",
            other => panic!("{path}: the page names something of kind {other}"),
        };
        assert_eq!((file.status().as_u16(), header(&file, "content-type")), (200, kind), "{path}");
        assert_eq!((header(&file, "x-content-type-options"), header(&file, "cache-control")), ("nosniff", "no-cache"), "{path}");
    }
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains("onload"), "nothing inline");
}

#[test]
fn what_did_not_change_is_not_sent_again() {
    run(async {
        let server = ServerProcess::start();
        for (path, accept) in
            [("/", BROWSER), ("/doctor", BROWSER), ("/web/dist/page.js", ("accept", "*/*")), ("/web/chat/sw.js", ("accept", "*/*"))]
        {
            let first = http_get(server.http, path, &[accept]).await;
            let tag = header(&first, "etag").to_owned();
            assert!(tag.starts_with('"') && !first.body().is_empty(), "{path}");
            let again = http_get(server.http, path, &[accept, ("if-none-match", &tag)]).await;
            assert_eq!((again.status().as_u16(), header(&again, "etag"), again.body().len()), (304, &*tag, 0), "{path}");
            let other = http_get(server.http, path, &[accept, ("if-none-match", "\"other\"")]).await;
            assert_eq!((other.status().as_u16(), other.body()), (200, first.body()), "{path}");
        }
    });
}

#[test]
fn files_that_are_not_of_the_page_are_not_served() {
    run(async {
        let server = ServerProcess::start();
        for path in [
            "/web/",
            "/web/nothing.js",
            "/web/chat/main.js",
            "/web/chat/index.html",
            "/web/doctor/index.html",
            "/web/doctor/main.js",
            "/web/chat/tsconfig.json",
            "/web/../Cargo.toml",
            "/web/%2e%2e/Cargo.toml",
        ] {
            assert_eq!(http_get(server.http, path, &[]).await.status(), 404, "{path}");
        }
    });
}

#[test]
fn the_worker_keeps_everything_and_changes_with_the_policy() {
    run(async {
        let server = ServerProcess::start();
        let worker = http_get(server.http, "/web/chat/sw.js", &[]).await;
        assert_eq!(header(&worker, "service-worker-allowed"), "/");
        let script = String::from_utf8(worker.body().to_vec()).unwrap();
        let kept: Value =
            serde_json::from_str(script.lines().next().unwrap().trim_start_matches("self.kept = ").trim_end_matches(';')).unwrap();
        let files: Vec<&str> = kept["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        assert!(
            files.contains(&"/")
                && files.contains(&"/doctor")
                && files.contains(&"/web/dist/page.js")
                && !files.contains(&"/web/chat/sw.js"),
            "{files:?}"
        );
        assert_eq!(http_get(server.http, "/web/src/index.js", &[]).await.status(), 200, "the SDK is for other pages");
        assert!(!files.iter().any(|file| file.starts_with("/web/src/")), "{files:?}");
        for file in &files {
            assert_eq!(http_get(server.http, file, &[BROWSER]).await.status(), 200, "{file}");
        }
        // Reached by another name the page may connect elsewhere: what is kept is another page.
        let elsewhere = http_get(server.http, "/web/chat/sw.js", &[("host", "chat.example:8080")]).await;
        assert_ne!(header(&elsewhere, "etag"), header(&worker, "etag"));
    });
}

#[test]
fn a_strange_host_gets_into_no_policy() {
    run(async {
        let server = ServerProcess::start();
        let page = http_get(server.http, "/", &[BROWSER, ("host", "a;script-src*")]).await;
        assert!(header(&page, "content-security-policy").contains("connect-src 'self';"), "{:?}", page.headers());
        assert_eq!(http_get(server.http, "/.well-known/whimbrel", &[("host", "a;b")]).await.status(), 400);
    });
}

#[test]
fn the_server_may_open_as_many_files_as_the_system_allows() {
    let limits = |pid: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().to_owned();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    let (_, hard) = limits("self");
    let server = ServerProcess::start();
    assert_eq!(limits(&server.pid().to_string()), (hard.clone(), hard));
}

#[test]
fn a_term_signal_drains_and_ends_well() {
    run(async {
        use whimbrel_protocol::frame::ServerFrame;
        let mut server = ServerProcess::start();
        let address = server.http;
        // People who listen, over all transports; some who hold a connection and say nothing; one who never reads what she is sent.
        let mut listening = vec![Frames::enter(address, Form::Json, "ann", "json").await];
        for kind in [TransportKind::WebSocket, TransportKind::WebTransport, TransportKind::Quic] {
            listening.push(Frames::over(address, kind, "ann", kind.name()).await);
        }
        let silent = tokio::net::TcpStream::connect(address).await.unwrap();
        let _half = Link::over(address, TransportKind::WebTransport).await;
        let _deaf = Frames::over(address, TransportKind::WebSocket, "cat", "deaf").await;
        // And one who talks without a pause until she is told, and knows what was acknowledged.
        let (talks, talking) = tokio::sync::oneshot::channel();
        let talker = tokio::spawn(async move {
            let (mut bob, mut talks) = (Frames::over(address, TransportKind::WebSocket, "bob", "phone").await, Some(talks));
            let words = "x".repeat(4000);
            let (mut said, mut applied) = (0, 0);
            loop {
                if said < applied + 32 {
                    said = bob.say("cat", &words).await.0;
                } else {
                    let next = |frame: &ServerFrame| match frame {
                        ServerFrame::Applied(done) => Some(Some(done.cseq.0)),
                        ServerFrame::GoAway(_) => Some(None),
                        _ => None,
                    };
                    match bob.wait("an answer", next).await {
                        Some(cseq) => applied = cseq,
                        None => return applied,
                    }
                    if applied > 2000
                        && let Some(talks) = talks.take()
                    {
                        talks.send(()).unwrap();
                    }
                }
            }
        });
        talking.await.unwrap();
        let begun = std::time::Instant::now();
        let (mut server, status) = tokio::task::spawn_blocking(move || {
            let status = server.terminate();
            (server, status)
        })
        .await
        .unwrap();
        assert!(status.success(), "{status}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it took {:?}", begun.elapsed());
        for mut ann in listening {
            ann.wait("GoAway", |frame| matches!(frame, ServerFrame::GoAway(_)).then_some(())).await;
        }
        drop(silent);
        let acknowledged = talker.await.unwrap();
        server.restart();
        let mut cat = Frames::enter(server.http, Form::Postcard, "cat", "laptop").await;
        for _ in 0..acknowledged {
            assert_eq!(cat.message().await.len(), 4000);
        }
    });
}
