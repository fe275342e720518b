//! What happens when something is full, slow or left alone; and from one run of the process to the next.

use super::server::*;
use crate::*;
use std::time::Duration;
use tokio::time::timeout;
use whimbrel_protocol::frame::{Answer, ClientFrame, Direction, HistoryPage, Refused, Rejected, ServerFrame};
use whimbrel_protocol::*;

#[tokio::test]
async fn a_full_inbox_is_not_read_on_but_for_an_answer_and_nothing_is_lost() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let total = 3 * u64::try_from(EVENTS_MAX).unwrap();
    let (mut peer, _) = server.greeted().await;
    for seq in 1..=total {
        peer.send(event(seq, message(7, seq, "x"))).await;
    }
    // The answer stands behind three times what the inbox holds.
    let asking =
        tokio::spawn(async move { client.history(bob(), ConversationSeq(0), Direction::Backwards, 1).await.map(|page| (page, client)) });
    let query = peer.query().await;
    let page = HistoryPage { conversation: ConversationId(7), messages: Vec::new(), more: false };
    peer.send(ServerFrame::Answer(Answer { id: query.id, last: true, body: page.into() })).await;
    let (_, client) = asking.await.unwrap().unwrap();

    let playing = tokio::spawn(async move {
        while peer.recv().await.is_some() {}
        // What was thrown away is asked for again, and comes.
        loop {
            let (mut peer, hello) = server.greeted().await;
            let from = hello.position.unwrap().cursor.0 + 1;
            for seq in from..=total {
                peer.send(event(seq, message(7, seq, "x"))).await;
            }
            while let Some(frame) = peer.recv().await {
                if matches!(frame, ClientFrame::Ack(ack) if ack.seq.0 == total) {
                    return;
                }
            }
        }
    });
    for seq in 1..=total {
        let Some(Incoming::Event { event, .. }) = timeout(PATIENCE, events.next()).await.unwrap() else { panic!() };
        assert_eq!(event.seq.0, seq);
    }
    events.done();
    playing.await.unwrap();
    let kept = client.messages(ConversationId(7), None, 5_000).await.unwrap();
    assert_eq!((kept.len(), kept[999].seq.0), (1_000, total));
}

#[tokio::test]
async fn no_more_is_asked_at_once_than_servers_let_wait() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let asking: Vec<_> = (0..3 * QUERIES_MAX)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.history(bob(), ConversationSeq(0), Direction::Backwards, 1).await.map(drop) })
        })
        .collect();
    let mut asked: Vec<QueryId> = Vec::new();
    for _ in 0..QUERIES_MAX {
        asked.push(peer.query().await.id);
    }
    // Whatever else it says comes before the next query.
    assert!(client.send(bob(), text("x")).await.is_ok());
    assert!(matches!(peer.recv().await, Some(ClientFrame::Command(_))), "a 17th query");
    for _ in 0..asking.len() {
        let id = match asked.pop() {
            Some(id) => id,
            None => peer.query().await.id,
        };
        let page = HistoryPage { conversation: ConversationId(7), messages: Vec::new(), more: false };
        peer.send(ServerFrame::Answer(Answer { id, last: true, body: page.into() })).await;
    }
    for answer in asking {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn who_only_sends_has_the_rest_stored() {
    let mut server = Server::start().await;
    let (client, events) = server.client("alice").start().await.unwrap();
    let total = 2 * u64::try_from(EVENTS_MAX).unwrap();
    let (mut peer, _) = server.greeted().await;
    for seq in 1..=10 {
        peer.send(event(seq, message(7, seq, "x"))).await;
    }
    events.store_only();
    for seq in 11..=total {
        peer.send(event(seq, message(7, seq, "x"))).await;
    }
    peer.acked(total).await;
    assert_eq!(client.messages(ConversationId(7), None, 1).await.unwrap()[0].seq.0, total);
}

#[tokio::test]
async fn a_full_outbox_makes_send_wait() {
    let mut server = Server::start().await;
    let (client, events) = server.client("alice").start().await.unwrap();
    let full = client.send_all((0..OUTBOX_MAX).map(|at| (bob(), text(at.to_string())))).await.unwrap();
    let one_more = client.send(bob(), text("one more"));
    let mut one_more = std::pin::pin!(one_more);
    // Nothing can change while there is no session: that it still waits after a while is no luck.
    assert!(timeout(Duration::from_millis(200), &mut one_more).await.is_err());
    let too_many = client.send_all((0..=OUTBOX_MAX).map(|_| (bob(), text("")))).await.map(drop);
    assert_eq!(too_many, Err(SendError::TooMany { count: OUTBOX_MAX + 1, max: OUTBOX_MAX }));
    let too_long = client.send(bob(), text("x".repeat(70_000))).await.map(drop);
    assert!(matches!(too_long, Err(SendError::TooLong { .. })));
    assert_eq!(full.len(), OUTBOX_MAX);

    events.store_only();
    let (mut peer, _) = server.greeted().await;
    let command = peer.command().await;
    peer.send(event(1, sent(&command, 7, 1))).await;
    timeout(PATIENCE, one_more).await.unwrap().unwrap();
    assert_eq!(client.outbox().await.unwrap().len(), OUTBOX_MAX);
}

#[tokio::test]
async fn refusals_are_told() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let ticket = client.send(bob(), text("")).await.unwrap();
    let command = peer.command().await;
    let rejected =
        Rejected { incarnation: command.incarnation, cseq: command.cseq, code: ErrorCode::Empty, message: "write something".into() };
    peer.send(event(1, rejected)).await;
    let why = OutcomeError::Rejected { code: ErrorCode::Empty, message: "write something".into() };
    assert_eq!(ticket.outcome().await, Err(why.clone()));
    let Some(Incoming::Outcome(outcome)) = events.next().await else { panic!() };
    assert_eq!(outcome.result, Err(why));

    let asking = tokio::spawn(async move { client.history(bob(), ConversationSeq(0), Direction::Backwards, 1).await });
    let id = loop {
        match peer.recv().await {
            Some(ClientFrame::Query(query)) => break query.id,
            Some(ClientFrame::Ack(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    let refused = Refused { code: ErrorCode::NotFound, message: "no such conversation".into() };
    peer.send(ServerFrame::Answer(Answer { id, last: true, body: refused.into() })).await;
    assert!(matches!(asking.await.unwrap(), Err(QueryError::Refused { code: ErrorCode::NotFound, .. })));
}

#[tokio::test]
async fn a_read_mark_is_forgotten_once_it_is_applied() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    client.mark_read(ConversationId(7), ConversationSeq(3)).await.unwrap();
    assert_eq!(client.outbox().await.unwrap().len(), 1);
    let (mut peer, _) = server.greeted().await;
    peer.command().await;
    peer.send(applied(1)).await;
    let empty = async {
        while !client.outbox().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, empty).await.unwrap();
}

#[tokio::test]
async fn the_outcome_of_what_an_earlier_run_sent_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let client = |server: &Server| server.client("alice").state(State::Folder(folder.path().into()));
    // Stored, and never sent: there was no session.
    let (first, events) = client(&server).start().await.unwrap();
    let ticket = first.send(bob(), text("from before")).await.unwrap();
    let nonce = ticket.nonce();
    let again = client(&server).start().await.map(drop).unwrap_err();
    assert!(matches!(again, StartError::State(StateError::Locked { .. })), "{again}");
    first.close().await;
    assert_eq!(ticket.outcome().await, Err(OutcomeError::Ended));
    drop((first, events));
    // Connections of the first run may still stand in line.
    while server.peer_now().is_some() {}

    let (second, mut events) = client(&server).start().await.unwrap();
    assert_eq!(second.outbox().await.unwrap()[0].nonce, nonce);
    let mut peer = loop {
        let mut peer = server.peer().await;
        let Some(ClientFrame::Hello(hello)) = peer.recv().await else { continue };
        if peer.send(ServerFrame::Welcome(welcome(&hello))).await {
            break peer;
        }
    };
    let command = peer.command().await;
    assert_eq!(command.nonce, nonce);
    peer.send(applied(1)).await;
    peer.send(event(1, sent(&command, 7, 1))).await;
    let Some(Incoming::Outcome(outcome)) = events.next().await else { panic!() };
    assert_eq!((outcome.nonce, outcome.content), (Some(nonce), Some(text("from before"))));
    assert!(outcome.result.is_ok());
    second.close().await;
}

#[tokio::test]
async fn dropping_the_last_handle_says_goodbye_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let state = || State::Folder(folder.path().into());
    let (client, mut events) = server.client("alice").state(state()).start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    peer.send(event(1, message(7, 1, "x"))).await;
    events.next().await.unwrap();
    events.done();
    let mut connection = client.connection();
    drop(client.clone());
    drop(client);
    let Some(ClientFrame::Ack(ack)) = peer.recv().await else { panic!() };
    assert_eq!(ack.seq, MailboxSeq(1));
    assert_eq!(peer.recv().await, None);
    connection.wait_for(|state| matches!(state, Connection::Ended { error: None })).await.unwrap();
    assert_eq!(events.next().await, None);
    // The folder is free again.
    server.client("alice").state(state()).start().await.unwrap();
}
