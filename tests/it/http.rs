//! The HTTP side.

use crate::harness::{Frames, ServerProcess, http_get, run};
use serde_json::Value;
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
        let page = http_get(server.http, "/", &[("accept", "text/html")]).await;
        assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));

        let users = json(&server, "/api/online-users").await;
        assert_eq!((&users["users"][0]["id"], &users["users"][0]["status"]), (&"ann".into(), &"online".into()));

        let connect = json(&server, "/.well-known/whimbrel").await;
        assert_eq!(connect["websocket"]["url"], format!("ws://{}/ws", server.http));
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
        let mut server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Json, "ann", "phone").await;
        let begun = std::time::Instant::now();
        let status = server.terminate();
        assert!(status.success(), "{status}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
        let away = ann.wait("GoAway", |frame| matches!(frame, whimbrel_protocol::frame::ServerFrame::GoAway(_)).then_some(()));
        away.await;
    });
}
