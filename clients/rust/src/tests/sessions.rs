//! Sessions that go wrong, and what the client makes of it.

use super::server::*;
use crate::*;
use std::time::{Duration, Instant};
use whimbrel_protocol::frame::{
    Begin, Busy, ClientFrame, Error, Event, EventBody, GoAway, Hello, Position, ResetReason, ServerFrame, ServerSignal, Snapshot, Watch,
    Welcome,
};
use whimbrel_protocol::*;

/// A welcome that continues the outbox of the `Hello`.
fn same_outbox(hello: &Hello, applied: u64, applied_nonce: Nonce) -> ServerFrame {
    let mut welcome = welcome(hello);
    welcome.incarnation = hello.incarnation;
    welcome.applied = CommandSeq(applied);
    welcome.applied_nonce = applied_nonce;
    ServerFrame::Welcome(welcome)
}

async fn ended(client: &Client) -> Option<EndReason> {
    let mut connection = client.connection();
    let state = connection.wait_for(|state| matches!(state, Connection::Ended { .. })).await.unwrap().clone();
    let Connection::Ended { error } = state else { panic!() };
    error
}

#[tokio::test]
async fn what_was_not_applied_is_sent_again_with_its_number_and_nonce() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let tickets = client.send_all(["a", "b", "c"].map(|name| (bob(), text(name)))).await.unwrap();
    let first = [peer.command().await, peer.command().await, peer.command().await];
    assert_eq!(first.each_ref().map(|command| command.cseq.0), [1, 2, 3]);
    assert_eq!(first.each_ref().map(|command| command.nonce), [tickets[0].nonce(), tickets[1].nonce(), tickets[2].nonce()]);
    // The server has two, and dies before it can say so.
    drop(peer);
    let mut peer = server.peer().await;
    let hello = peer.hello().await;
    peer.send(same_outbox(&hello, 2, first[1].nonce)).await;
    assert_eq!(peer.command().await, first[2]);
}

#[tokio::test]
async fn a_busy_server_is_given_time() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    client.send_all(["a", "b", "c"].map(|name| (bob(), text(name)))).await.unwrap();
    let first = [peer.command().await, peer.command().await, peer.command().await];
    let begun = Instant::now();
    peer.send(applied(1)).await;
    peer.send(ServerFrame::Busy(Busy { cseq: CommandSeq(2), retry_after_ms: 200 })).await;
    assert_eq!([peer.command().await, peer.command().await], first[1..]);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_device_that_was_replaced_does_not_come_back() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let ticket = client.send(bob(), text("a")).await.unwrap();
    let error = Error { code: ErrorCode::Replaced, message: "another session took over".into(), retry_after_ms: 0 };
    peer.send(ServerFrame::Error(error)).await;
    assert!(matches!(ended(&client).await, Some(EndReason::Refused { code: ErrorCode::Replaced, .. })));
    assert_eq!(ticket.outcome().await, Err(OutcomeError::Ended));
    assert_eq!(events.next().await, None);
    assert!(matches!(client.send(bob(), text("b")).await, Err(SendError::Ended)));
    assert_eq!(client.online("", 10).await, Err(QueryError::Ended));
    assert!(server.peer_now().is_none());
}

#[tokio::test]
async fn a_server_that_goes_away_says_when_to_come_back() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    for goodbye in [
        ServerFrame::GoAway(GoAway { retry_after_ms: 300, message: "restarting".into() }),
        ServerFrame::Error(Error { code: ErrorCode::Overloaded, message: String::new(), retry_after_ms: 300 }),
    ] {
        let (mut peer, _) = server.greeted().await;
        let begun = Instant::now();
        peer.send(goodbye).await;
        let mut connection = client.connection();
        connection.wait_for(|state| matches!(state, Connection::Offline { .. })).await.unwrap();
        server.greeted().await;
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
}

#[tokio::test]
async fn nonsense_ends_the_session_and_nothing_else() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    for kind in 0..8 {
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        if kind > 1 {
            peer.send(ServerFrame::Welcome(welcome(&hello))).await;
        }
        match kind {
            0 => peer.raw(vec![0xff; 40]).await,
            1 => peer.send(event(1, message(7, 1, "too early"))).await,
            2 => peer.raw(Vec::new()).await,
            3 => peer.raw(vec![0; 70_000]).await,
            4 => peer.send(ServerFrame::Welcome(welcome(&hello))).await,
            5 => peer.send(event(9, message(7, 9, "after a gap"))).await,
            6 => peer.send(ServerFrame::Snapshot(Snapshot { conversations: Vec::new(), last: true })).await,
            _ => peer.raw(b"{}".to_vec()).await,
        };
        while peer.recv().await.is_some() {}
        // Not to wait for as long as a server deserves that does this eight times.
        client.network_changed();
    }
    let (mut peer, _) = server.greeted().await;
    peer.send(event(1, message(7, 1, "sense"))).await;
    assert!(matches!(events.next().await, Some(Incoming::Event { .. })));
    client.close().await;
}

#[tokio::test]
async fn a_version_or_user_that_is_not_ours_is_the_end() {
    for wrong_user in [true, false] {
        let mut server = Server::start().await;
        let connecting = tokio::spawn(server.client("alice").connect());
        let mut peer = server.peer().await;
        let mut welcome = welcome(&peer.hello().await);
        if wrong_user {
            welcome.user = "mallory".parse().unwrap();
        } else {
            welcome.version = 9;
        }
        peer.send(ServerFrame::Welcome(welcome)).await;
        let why = connecting.await.unwrap().map(drop).unwrap_err();
        assert!(matches!(why, ConnectError::Ended(EndReason::Incompatible(_))), "{why}");
    }
}

#[tokio::test]
async fn a_restored_outbox_gets_a_new_one_and_loses_nothing() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let (mut peer, hello) = server.greeted().await;
    assert_eq!(hello.incarnation, Incarnation(0));
    let ticket = client.send(bob(), text("a")).await.unwrap();
    let first = peer.command().await;
    drop(peer);
    let mut peer = server.peer().await;
    let hello = peer.hello().await;
    assert_eq!(hello.incarnation, Incarnation(1));
    // It has applied commands that this outbox never numbered.
    peer.send(same_outbox(&hello, 40, Nonce([1; 8]))).await;
    let disagreement = Disagreement::OutboxIsOlder { server: CommandSeq(40), numbered: CommandSeq(1) };
    assert_eq!(events.next().await, Some(Incoming::Disagreement(disagreement)));
    let mut peer = server.peer().await;
    let hello = peer.hello().await;
    assert_eq!(hello.incarnation, Incarnation(0));
    let mut fresh = welcome(&hello);
    fresh.incarnation = Incarnation(2);
    peer.send(ServerFrame::Welcome(fresh)).await;
    let again = peer.command().await;
    assert_eq!((again.incarnation.0, again.cseq.0, again.nonce), (2, 1, first.nonce));
    peer.send(event(1, sent(&again, 7, 1))).await;
    assert!(ticket.outcome().await.is_ok());
}

#[tokio::test]
async fn what_a_restored_server_forgot_is_sent_again() {
    // Restored to where only the first was applied; or to before it knew this outbox: 9 is the one it gave.
    for (incarnation, applied_there, lost) in [(9, 1, 1), (3, 0, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start().await;
        let client = server.client("alice").state(State::Folder(folder.path().into()));
        let (client, mut events) = client.start().await.unwrap();
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        peer.send(ServerFrame::Welcome(Welcome { incarnation: Incarnation(9), ..welcome(&hello) })).await;
        let tickets = client.send_all(["a", "b", "c"].map(|name| (bob(), text(name)))).await.unwrap();
        let nonces: Vec<_> = tickets.iter().map(Ticket::nonce).collect();
        let first = [peer.command().await, peer.command().await, peer.command().await];
        peer.send(applied(2)).await;
        peer.send(event(1, message(7, 1, "by now the client knows"))).await;
        events.next().await.unwrap();
        drop(peer);

        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        let restored = Welcome {
            incarnation: Incarnation(incarnation),
            applied: CommandSeq(applied_there),
            applied_nonce: if applied_there > 0 { first[0].nonce } else { Nonce::default() },
            ..welcome(&hello)
        };
        peer.send(ServerFrame::Welcome(restored)).await;
        let Some(Incoming::Disagreement(_)) = events.next().await else { panic!() };
        if applied_there > 0 {
            let Some(Incoming::Outcome(outcome)) = events.next().await else { panic!() };
            assert_eq!((outcome.nonce, outcome.result), (Some(nonces[0]), Err(OutcomeError::Untold)));
        }
        events.done();
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        assert_eq!(hello.incarnation, Incarnation(0));
        peer.send(ServerFrame::Welcome(Welcome { incarnation: Incarnation(10), ..welcome(&hello) })).await;
        for (cseq, nonce) in (1..).zip(&nonces[lost..]) {
            let again = peer.command().await;
            assert_eq!((again.cseq, again.nonce), (CommandSeq(cseq), *nonce));
        }
        let waiting = client.outbox().await.unwrap();
        assert_eq!(
            waiting.iter().map(|waiting| (waiting.nonce, waiting.applied)).collect::<Vec<_>>(),
            nonces[lost..].iter().map(|nonce| (*nonce, false)).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn another_network_means_another_connection_at_once() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (_peer, _) = server.greeted().await;
    client.network_changed();
    server.greeted().await;
}

#[tokio::test]
async fn a_reset_with_a_snapshot_replaces_what_was_known() {
    for reason in [ResetReason::OtherLog, ResetReason::Trimmed] {
        let mut server = Server::start().await;
        let (client, mut events) = server.client("alice").start().await.unwrap();
        let (mut peer, _) = server.greeted().await;
        let ticket = client.send(bob(), text("where is it?")).await.unwrap();
        peer.command().await;
        peer.send(event(1, started(7, &["alice", "bob"]))).await;
        peer.send(event(2, message(7, 1, "old"))).await;
        peer.send(event(3, message(7, 2, "never taken"))).await;
        events.next().await.unwrap();
        events.next().await.unwrap();
        // The third is in hand when the reset comes: it is none of the new log's.
        events.next().await.unwrap();
        peer.acked(2).await;
        peer.send(applied(1)).await;
        let nonce = ticket.nonce();
        drop(peer);
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        let mut elsewhere = welcome(&hello);
        elsewhere.incarnation = hello.incarnation;
        (elsewhere.applied, elsewhere.applied_nonce) = (CommandSeq(1), nonce);
        elsewhere.epoch = if reason == ResetReason::OtherLog { LogEpoch(9) } else { LogEpoch(1) };
        elsewhere.head = MailboxSeq(100);
        elsewhere.begin = Begin { cursor: MailboxSeq(100), time: Time(0), snapshot: true, reset: Some(reason) };
        peer.send(ServerFrame::Welcome(elsewhere)).await;
        for (conversation, last) in [(7, false), (8, true)] {
            let page = snapshot_page(conversation, &["alice", "bob"], 5..=6, last);
            peer.send(ServerFrame::Snapshot(page)).await;
        }
        peer.send(event(101, unnamed(8, 7, "after it"))).await;
        assert_eq!(events.next().await, Some(Incoming::Reset { reason }));
        assert_eq!(events.next().await, Some(Incoming::Snapshot { conversations: 2 }));
        let Some(Incoming::Outcome(outcome)) = events.next().await else { panic!() };
        assert_eq!((outcome.nonce, outcome.result), (Some(nonce), Err(OutcomeError::Untold)));
        assert_eq!(ticket.outcome().await, Err(OutcomeError::Untold));
        let Some(Incoming::Event { event: Event { body: EventBody::Message(message), .. }, .. }) = events.next().await else { panic!() };
        assert_eq!(message.from.unwrap().as_str(), "bob");
        events.done();
        peer.acked(101).await;
        let seqs = |messages: Vec<LocalMessage>| messages.into_iter().map(|message| message.seq.0).collect::<Vec<_>>();
        let mut kept = seqs(client.messages(ConversationId(7), None, 10).await.unwrap());
        // The third was done just before the reset, or just after: then it was no longer asked for.
        kept.retain(|seq| *seq != 2);
        assert_eq!(kept, if reason == ResetReason::OtherLog { vec![5, 6] } else { vec![1, 5, 6] });
        assert_eq!(seqs(client.messages(ConversationId(8), None, 10).await.unwrap()), [5, 6, 7]);
        assert!(client.outbox().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").state(State::Folder(folder.path().into())).start().await.unwrap();
    for whole in [false, true] {
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        assert_eq!(hello.position, None);
        let mut with_snapshot = welcome(&hello);
        with_snapshot.begin = Begin { cursor: MailboxSeq(100), time: Time(0), snapshot: true, reset: None };
        peer.send(ServerFrame::Welcome(with_snapshot)).await;
        // Events that come among the pages are not for now.
        peer.send(event(101, message(7, 9, "too early"))).await;
        peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 5..=6, false))).await;
        if whole {
            peer.send(ServerFrame::Snapshot(snapshot_page(8, &["alice", "bob"], 1..=1, true))).await;
            assert_eq!(events.next().await, Some(Incoming::Snapshot { conversations: 2 }));
        }
        drop(peer);
    }
    assert_eq!(client.conversations().await.unwrap().len(), 2);
    let hello = server.peer().await.hello().await;
    assert_eq!(hello.position, Some(Position { epoch: LogEpoch(1), cursor: MailboxSeq(100), time: Time(0) }));
}

#[tokio::test]
async fn whom_to_watch_is_said_in_each_session_and_signals_come() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let watch = Watch { users: vec!["bob".parse().unwrap()], everyone: false, lobby: false };
    client.watch(watch.clone()).await.unwrap();
    for _ in 0..2 {
        let (mut peer, _) = server.greeted().await;
        let expected = ClientFrame::Signal(frame::Signal::Watch(watch.clone()));
        assert_eq!(peer.recv().await, Some(expected));
        peer.send(ServerFrame::Signal(ServerSignal::Presence(Vec::new()))).await;
        assert_eq!(events.next().await, Some(Incoming::Signal(ServerSignal::Presence(Vec::new()))));
        client.typing(bob(), true);
        assert!(matches!(peer.recv().await, Some(ClientFrame::Signal(frame::Signal::Typing(_)))));
    }
}
