//! A disk that is full: nothing is called applied that is not durable, the server says that it is not ready, and goes on by itself
//! once there is room.

use crate::harness::{Frames, Link, ServerProcess, hello, http_get, run, within};
use std::collections::BTreeMap;
use std::time::Duration;
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{ClientFrame, Command, EventBody, Hello, Send, ServerFrame, Target};
use whimbrel_protocol::{CommandSeq, ErrorCode, Nonce, UserId};

/// Long enough to fill what room is left.
fn long(number: u64) -> String {
    format!("{number} {}", "x".repeat(8_000))
}

async fn readiness(server: &ServerProcess) -> (u16, String) {
    let response = http_get(server.http, "/readyz", &[]).await;
    (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
}

/// Waits until `/readyz` answers so; returns what it says.
async fn becomes(server: &ServerProcess, wanted: u16) -> String {
    let asking = async {
        loop {
            let (status, why) = readiness(server).await;
            if status == wanted {
                return why;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("{wanted} from /readyz"), asking).await
}

#[test]
fn a_full_disk_loses_nothing_and_shows() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let first = ann.say("bob", &long(1)).await;
        ann.applied(first).await;
        assert_eq!(readiness(&server).await.0, 200);

        let largest = std::fs::read_dir(server.data()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).max().unwrap();
        server.limit_files(Some(largest + 10_000));
        // They are more than fits.
        let nonces: BTreeMap<u64, Nonce> = (2..=100).map(|number| (number, Nonce(rand::random()))).collect();
        let say = |incarnation, number: u64, nonce| {
            let content = crate::harness::text(&long(number));
            let body = Send { to: Target::User(UserId::new("bob").unwrap()), content }.into();
            ClientFrame::Command(Command { incarnation, cseq: CommandSeq(number), nonce, body })
        };
        for (number, nonce) in &nonces {
            // The session may end before all of them are sent.
            let bytes = Form::Postcard.encode(&say(ann.welcome.incarnation, *number, *nonce)).unwrap();
            if !ann.link.try_send_bytes(bytes).await {
                break;
            }
        }
        let mut applied = CommandSeq(1);
        let error = loop {
            match ann.link.next().await.expect("the server closed without a word") {
                ServerFrame::Applied(frame) => applied = frame.cseq,
                ServerFrame::Error(error) => break error,
                _ => {}
            }
        };
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{}", error.message);
        assert!(applied < CommandSeq(100), "the disk was not full");
        let why = becomes(&server, 503).await;
        assert!(why.contains("store"), "{why}");
        // Whoever comes back meanwhile needs nothing written, and shows nothing.
        for _ in 0..5 {
            let back = Hello { incarnation: ann.welcome.incarnation, ..hello("ann", "phone") };
            let mut link = Link::open(server.http, Form::Postcard).await;
            link.send(&ClientFrame::Hello(back)).await;
            match link.next().await {
                Some(ServerFrame::Welcome(_)) => {}
                Some(ServerFrame::Error(error)) => assert_eq!(error.code, ErrorCode::StoreUnavailable, "{}", error.message),
                other => panic!("{other:?}"),
            }
            assert_eq!(readiness(&server).await.0, 503, "the disk is as full as before");
        }
        assert_eq!(http_get(server.http, "/healthz", &[]).await.status(), 200, "it lives");

        // Room again: ready without anybody's doing, and what was not applied is sent again.
        server.limit_files(None);
        becomes(&server, 200).await;
        let again = Hello { incarnation: ann.welcome.incarnation, ..hello("ann", "phone") };
        let mut ann = Frames::enter_with(server.http, Form::Postcard, again).await;
        // Commits under way may have gone through after the session ended.
        assert!(ann.welcome.applied >= applied, "what was called applied is");
        let left = ann.welcome.applied.0 + 1;
        for (number, nonce) in nonces.range(left..) {
            ann.link.send(&say(ann.welcome.incarnation, *number, *nonce)).await;
        }
        if left <= 100 {
            ann.applied(CommandSeq(100)).await;
        }
        let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
        for number in 1..=100 {
            let text = bob
                .event_of(|body| match body {
                    EventBody::Message(message) => Some(message.content.text.clone()),
                    _ => None,
                })
                .await;
            assert_eq!(text, long(number));
        }
    });
}
