//! What an application does every day.

use super::server::*;
use crate::*;
use whimbrel_protocol::frame::{Answer, Direction, EventBody, HistoryPage, QueryBody, ServerFrame, StoredMessage, Target};
use whimbrel_protocol::{ConversationId, ConversationSeq, MailboxSeq, Time};

#[tokio::test]
async fn a_message_goes_out_and_one_comes_in() {
    for transport in [Transport::WebSocket, Transport::WebSocketJson, Transport::Auto] {
        let mut server = Server::start().await;
        let client = tokio::spawn(server.client("alice").transport(transport).connect());
        let (mut peer, hello) = server.greeted().await;
        assert_eq!((hello.user.as_str(), hello.device.as_str()), ("alice", "test"));
        let (client, mut events) = client.await.unwrap().unwrap();

        let ticket = client.send(bob(), text("hello")).await.unwrap();
        let command = peer.command().await;
        peer.send(applied(1)).await;
        peer.send(event(1, started(7, &["alice", "bob"]))).await;
        peer.send(event(2, sent(&command, 7, 1))).await;
        peer.send(event(3, unnamed(7, 2, "hi"))).await;
        let sent = ticket.outcome().await.unwrap();
        assert_eq!((sent.conversation, sent.seq, sent.cseq.0), (ConversationId(7), ConversationSeq(1), 1));

        let Some(Incoming::Event { event, .. }) = events.next().await else { panic!() };
        assert!(matches!(event.body, EventBody::Started(_)));
        let Some(Incoming::Outcome(outcome)) = events.next().await else { panic!() };
        assert_eq!((outcome.to, outcome.content, outcome.result), (Some(bob()), Some(text("hello")), Ok(sent)));
        let Some(Incoming::Event { event, .. }) = events.next().await else { panic!() };
        let EventBody::Message(message) = event.body else { panic!() };
        assert_eq!(message.from.unwrap().as_str(), "bob");
        peer.acked(2).await;
        events.done();
        peer.acked(3).await;

        let texts: Vec<_> = client.messages(ConversationId(7), None, 10).await.unwrap();
        let texts: Vec<_> = texts.iter().map(|message| (message.from.as_ref().unwrap().as_str(), message.content.text.as_str())).collect();
        assert_eq!(texts, [("alice", "hello"), ("bob", "hi")]);
        assert_eq!(client.conversations().await.unwrap()[0].head, ConversationSeq(2));
        assert!(client.outbox().await.unwrap().is_empty());
        client.close().await;
        assert_eq!(events.next().await, None);
        assert_eq!(*client.connection().borrow(), Connection::Ended { error: None });
    }
}

#[tokio::test]
async fn an_answer_in_several_frames_is_asked_again_after_a_break() {
    let mut server = Server::start().await;
    let (client, _events) = server.client("alice").start().await.unwrap();
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { client.history(bob(), ConversationSeq(0), Direction::Backwards, 10).await })
    };
    let page = |seqs: &[u64], more| {
        let stored =
            |seq: &u64| StoredMessage { seq: ConversationSeq(*seq), time: Time(1), from: "bob".parse().unwrap(), content: text("x") };
        HistoryPage { conversation: ConversationId(7), messages: seqs.iter().map(stored).collect(), more }
    };
    let answer = |id, last, page: HistoryPage| ServerFrame::Answer(Answer { id, last, body: page.into() });
    let (mut peer, _) = server.greeted().await;
    let query = peer.query().await;
    peer.send(answer(query.id, false, page(&[1, 2], true))).await;
    drop(peer);
    let (mut peer, _) = server.greeted().await;
    let query = peer.query().await;
    peer.send(answer(query.id, false, page(&[4, 5], true))).await;
    peer.send(answer(query.id, true, page(&[6], true))).await;
    let answered = asking.await.unwrap().unwrap();
    assert_eq!(answered.messages.iter().map(|message| message.seq.0).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(answered.more);
}

#[tokio::test]
async fn what_was_not_done_comes_again_and_what_was_done_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let state = || State::Folder(folder.path().into());
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").state(state()).start().await.unwrap();
    let (mut peer, hello) = server.greeted().await;
    assert_eq!(hello.position, None);
    for seq in 1..=3 {
        peer.send(event(seq, message(7, seq, "hi"))).await;
    }
    events.next().await.unwrap();
    events.next().await.unwrap();
    // The second is in hand, and not done.
    client.close().await;
    drop((client, events));

    let (client, mut events) = server.client("alice").state(state()).start().await.unwrap();
    let (mut peer, hello) = server.greeted().await;
    assert_eq!(hello.position.unwrap().cursor, MailboxSeq(1));
    peer.send(event(2, message(7, 2, "hi"))).await;
    let Some(Incoming::Event { event, .. }) = events.next().await else { panic!() };
    assert_eq!(event.seq, MailboxSeq(2));
    events.done();
    peer.acked(2).await;
    client.close().await;
}

#[tokio::test]
async fn a_name_that_this_device_was_never_told_is_asked_for() {
    let mut server = Server::start().await;
    let (_client, mut events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let receipt = whimbrel_protocol::frame::Receipt {
        conversation: ConversationId(8),
        user: None,
        delivered: ConversationSeq(1),
        read: ConversationSeq(0),
    };
    peer.send(event(1, unnamed(7, 41, "who am I?"))).await;
    peer.send(event(2, unnamed(7, 42, "and now?"))).await;
    peer.send(event(3, receipt)).await;
    let query = peer.query().await;
    let QueryBody::History(history) = &query.body else { panic!() };
    assert_eq!((&history.of, history.from), (&Target::Conversation(ConversationId(7)), ConversationSeq(40)));
    let stored = StoredMessage { seq: ConversationSeq(41), time: Time(1), from: "bob".parse().unwrap(), content: text("who am I?") };
    let page = HistoryPage { conversation: ConversationId(7), messages: vec![stored], more: true };
    peer.send(ServerFrame::Answer(Answer { id: query.id, last: true, body: page.into() })).await;
    for _ in 0..2 {
        let Some(Incoming::Event { event, .. }) = events.next().await else { panic!() };
        let EventBody::Message(message) = event.body else { panic!() };
        assert_eq!(message.from.unwrap().as_str(), "bob");
    }
    // Of this one the server says nothing: it comes without.
    let query = peer.query().await;
    let page = HistoryPage { conversation: ConversationId(8), messages: Vec::new(), more: false };
    peer.send(ServerFrame::Answer(Answer { id: query.id, last: true, body: page.into() })).await;
    let Some(Incoming::Event { event, .. }) = events.next().await else { panic!() };
    assert!(matches!(event.body, EventBody::Receipt(receipt) if receipt.user.is_none()));
}

#[tokio::test]
async fn a_name_that_was_made_up_is_kept_by_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let named = async |name: &str| {
        let builder = Client::builder("http://127.0.0.1:1", "alice").state(State::Folder(folder.path().into()));
        let (client, _events) = builder.new_device(name).start().await.unwrap();
        client.close().await;
        client.device().to_string()
    };
    assert_eq!(named("made-up-1").await, "made-up-1");
    assert_eq!(named("made-up-2").await, "made-up-1", "the folder remembers it");
    let in_memory = Client::builder("http://127.0.0.1:1", "alice").new_device("made-up-3");
    assert_eq!(in_memory.start().await.unwrap().0.device().as_str(), "made-up-3");
}

#[tokio::test]
async fn an_outbox_can_be_looked_into_without_a_client() {
    let folder = tempfile::tempdir().unwrap();
    let device = || Client::builder("http://127.0.0.1:1", "alice").state(State::Folder(folder.path().into()));
    assert_eq!(device().outbox().await.unwrap(), []);
    let (client, _events) = device().start().await.unwrap();
    let nonce = client.send(bob(), text("hello")).await.unwrap().nonce();
    assert!(matches!(device().outbox().await, Err(StartError::State(StateError::Locked { .. }))));
    client.close().await;
    let nonces: Vec<_> = device().outbox().await.unwrap().iter().map(|waiting| waiting.nonce).collect();
    assert_eq!(nonces, [nonce]);
    assert_eq!(device().outbox().await.unwrap().len(), 1, "looking takes nothing");
}
