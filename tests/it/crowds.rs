//! More clients than the server lets in.

use crate::harness::{Frames, Link, ServerProcess, hello, run};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};
use whimbrel_protocol::{ErrorCode, TransportKind};

#[test]
fn who_finds_the_server_full_is_told_when_to_come_and_gets_in_once_somebody_left() {
    run(async {
        let server = ServerProcess::start_with(&["--max-sessions", "2"]);
        let address = server.http;
        let _ann = Frames::over(address, TransportKind::Quic, "ann", "phone").await;
        let bob = Frames::over(address, TransportKind::WebSocket, "bob", "phone").await;
        let ask = async |kind| {
            let mut link = Link::over(address, kind).await;
            link.send(&ClientFrame::Hello(hello("cat", "phone"))).await;
            link.next().await
        };
        for kind in [TransportKind::Quic, TransportKind::WebTransport, TransportKind::WebSocket] {
            let answered = ask(kind).await;
            let Some(ServerFrame::Error(error)) = answered else { panic!("{kind}: {answered:?}") };
            assert_eq!(error.code, ErrorCode::Overloaded, "{kind}: {error:?}");
            assert!((20_000..60_000).contains(&error.retry_after_ms), "{kind}: {error:?}");
            assert!(error.message.contains("max_sessions"), "{kind}: {error:?}");
        }
        // The server has to notice that bob left.
        drop(bob);
        loop {
            match ask(TransportKind::WebSocket).await {
                Some(ServerFrame::Error(error)) if error.code == ErrorCode::Overloaded => {}
                Some(ServerFrame::Welcome(_)) => break,
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn who_changes_networks_needs_no_other_place_in_a_full_server() {
    run(async {
        let server = ServerProcess::start_with(&["--max-sessions", "1"]);
        let mut before = Frames::over(server.http, TransportKind::WebSocket, "ann", "phone").await;
        for kind in [TransportKind::Quic, TransportKind::WebTransport, TransportKind::WebSocket] {
            // The server does not know yet that the former connection is dead, or is about to be left.
            let after = Frames::over(server.http, kind, "ann", "phone").await;
            before
                .wait("Replaced", |frame| matches!(frame, ServerFrame::Error(error) if error.code == ErrorCode::Replaced).then_some(()))
                .await;
            before = after;
        }
        // Another device does.
        let mut link = Link::over(server.http, TransportKind::WebSocket).await;
        link.send(&ClientFrame::Hello(hello("ann", "tablet"))).await;
        let answered = link.next().await;
        let Some(ServerFrame::Error(error)) = answered else { panic!("{answered:?}") };
        assert_eq!(error.code, ErrorCode::Overloaded);
    });
}
