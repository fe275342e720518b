//! A mailbox that cannot be continued: the application hears of it when its store is right, and whatever happens in between.

use super::server::*;
use crate::state::Death;
use crate::*;
use tokio::time::timeout;
use whimbrel_protocol::frame::{
    Answer, Begin, ClientFrame, Direction, EventBody, Hello, HistoryPage, Origin, ResetReason, ServerFrame, Welcome,
};
use whimbrel_protocol::*;

/// The log that the device reads in the end.
const NEW_LOG: LogEpoch = LogEpoch(9);

/// A welcome that begins elsewhere.
fn elsewhere(hello: &Hello, snapshot: bool) -> ServerFrame {
    let mut welcome = welcome(hello);
    welcome.incarnation = hello.incarnation.max(Incarnation(1));
    welcome.epoch = NEW_LOG;
    welcome.begin = Begin { cursor: MailboxSeq(50), time: Time(0), snapshot, reset: Some(ResetReason::OtherLog) };
    ServerFrame::Welcome(Welcome { head: MailboxSeq(50), ..welcome })
}

async fn texts(client: &Client) -> Result<Vec<String>, StateError> {
    let kept = client.messages(ConversationId(7), None, 10).await?;
    Ok(kept.into_iter().map(|message| message.content.text).collect())
}

/// Waits until the client has taken everything that was sent before: it asks, and gets its answer after that.
async fn in_step(client: &Client, peer: &mut Peer) {
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { client.history(bob(), ConversationSeq(0), Direction::Backwards, 1).await })
    };
    let query = peer.query().await;
    let page = HistoryPage { conversation: ConversationId(7), messages: Vec::new(), more: false };
    peer.send(ServerFrame::Answer(Answer { id: query.id, last: true, body: page.into() })).await;
    asking.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reset_is_told_once_the_store_is_right() {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    peer.send(event(1, message(7, 1, "old"))).await;
    events.next().await.unwrap();
    events.done();
    peer.acked(1).await;
    drop(peer);
    // Twice it does not come to the end of the snapshot: nothing has happened yet.
    for _ in 0..2 {
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        peer.send(elsewhere(&hello, true)).await;
        peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 5..=6, false))).await;
        in_step(&client, &mut peer).await;
        assert_eq!(events.try_next(), None);
        assert_eq!(texts(&client).await.unwrap(), ["old"]);
    }
    let mut peer = server.peer().await;
    let hello = peer.hello().await;
    peer.send(elsewhere(&hello, true)).await;
    peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 5..=6, true))).await;
    assert_eq!(events.next().await, Some(Incoming::Reset { reason: ResetReason::OtherLog }));
    assert_eq!(texts(&client).await.unwrap(), ["x", "x"]);
    assert_eq!(events.next().await, Some(Incoming::Snapshot { conversations: 1 }));
    assert_eq!(events.try_next(), None);
}

/// One life of a device at a server whose log is another one. Returns whether its application took note of the reset.
async fn live(server: &mut Server, builder: Builder, snapshot: bool) -> bool {
    let Ok((client, mut events)) = builder.start().await else { return false };
    let (mut told, mut noted) = (false, false);
    let application = async {
        loop {
            // Asking for the next says that this one is done.
            noted |= told;
            match events.next().await {
                Some(Incoming::Reset { reason }) => {
                    told = true;
                    assert_eq!(reason, ResetReason::OtherLog);
                    // A store that died in the meantime is not asked.
                    if let Ok(kept) = texts(&client).await {
                        assert_eq!(kept.len(), if snapshot { 2 } else { 0 }, "the store is not what the reset made of it: {kept:?}");
                    }
                }
                Some(Incoming::Event { event, .. }) if event.seq == MailboxSeq(51) => break,
                Some(_) => {}
                None => break,
            }
        }
    };
    let playing = async {
        loop {
            let mut peer = server.peer().await;
            let Some(ClientFrame::Hello(hello)) = peer.recv().await else { continue };
            if hello.position.is_some_and(|position| position.epoch == NEW_LOG) {
                peer.send(ServerFrame::Welcome(welcome(&hello))).await;
            } else {
                peer.send(elsewhere(&hello, snapshot)).await;
                if snapshot {
                    peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 5..=6, true))).await;
                }
            }
            peer.send(event(51, message(8, 1, "after it"))).await;
            while peer.recv().await.is_some() {}
        }
    };
    tokio::select! {
        ended = timeout(PATIENCE, application) => ended.expect("nothing comes any more"),
        () = playing => unreachable!("it plays for ever"),
    };
    // Closing stores what is done; the last event is not.
    client.close().await;
    noted
}

#[tokio::test]
async fn a_reset_is_told_however_the_process_dies_around_it() {
    for snapshot in [false, true] {
        for after in [false, true] {
            let mut commits = 0;
            loop {
                let folder = tempfile::tempdir().unwrap();
                let mut server = Server::start().await;
                let builders: [Builder; 4] = std::array::from_fn(|_| builder(&server, &folder));
                let [first, mut dying, heir, last] = builders;
                // A life before, in the old log.
                let (client, mut events) = first.start().await.unwrap();
                let (mut peer, _) = server.greeted().await;
                peer.send(event(1, message(7, 1, "old"))).await;
                events.next().await.unwrap();
                events.done();
                peer.acked(1).await;
                client.close().await;
                drop((client, events, peer));

                let death = Death::new(commits, after);
                dying.death = Some(death.clone());
                let done = live(&mut server, dying, snapshot).await;
                let died = death.is_past();
                let heard = live(&mut server, heir, snapshot).await;
                assert!(done || heard, "nobody was told; it died around commit {commits}");
                assert!(died || !heard, "it is told again, although it was done");
                assert!(!live(&mut server, last, snapshot).await, "it is told for ever");
                if !died {
                    break;
                }
                commits += 1;
            }
            assert!(commits >= 3, "only {commits} commits were tried");
        }
    }
}

fn builder(server: &Server, folder: &tempfile::TempDir) -> Builder {
    server.client("alice").state(State::Folder(folder.path().into())).origin(Origin::Oldest)
}

#[tokio::test]
async fn who_takes_nothing_has_taken_note() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let builders = [builder(&server, &folder), builder(&server, &folder)];
    for builder in builders {
        let (client, events) = builder.start().await.unwrap();
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        if hello.position.is_none() {
            events.store_only();
            peer.send(elsewhere(&hello, false)).await;
            peer.send(event(51, message(7, 1, "stored"))).await;
            peer.acked(51).await;
        } else {
            peer.send(ServerFrame::Welcome(welcome(&hello))).await;
            peer.send(event(52, message(7, 2, "handed out"))).await;
            let mut events = events;
            let Some(Incoming::Event { event, .. }) = events.next().await else { panic!("not the event") };
            assert!(matches!(event.body, EventBody::Message(message) if message.content.text == "handed out"));
        }
        client.close().await;
    }
}

/// A device that was never here begins at the present, after a snapshot, and the connection breaks on the way. What the server carried out
/// in the meantime lies before the present of the next session.
#[tokio::test]
async fn an_outcome_is_told_although_the_first_snapshot_breaks_off() {
    for origin in [Origin::Now, Origin::Snapshot] {
        let mut server = Server::start().await;
        let (client, _events) = server.client("alice").origin(origin).start().await.unwrap();
        let ticket = client.send(bob(), text("where is it?")).await.unwrap();
        let begin = |hello: &Hello, head: u64| {
            let begin = Begin { cursor: MailboxSeq(head), time: Time(0), snapshot: true, reset: None };
            Welcome { head: MailboxSeq(head), begin, ..welcome(hello) }
        };
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        peer.send(ServerFrame::Welcome(begin(&hello, 40))).await;
        peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 5..=6, false))).await;
        // Commands leave after questions: one that may leave is here before the second question.
        let asking = {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..2 {
                    client.history(bob(), ConversationSeq(0), Direction::Backwards, 1).await.unwrap();
                }
            })
        };
        let mut carried_out = Vec::new();
        for _ in 0..2 {
            let query = loop {
                match peer.recv().await.unwrap() {
                    ClientFrame::Command(command) => carried_out.push(command),
                    ClientFrame::Query(query) => break query,
                    other => panic!("neither a command nor a question: {other:?}"),
                }
            };
            let page = HistoryPage { conversation: ConversationId(7), messages: Vec::new(), more: false };
            peer.send(ServerFrame::Answer(Answer { id: query.id, last: true, body: page.into() })).await;
        }
        asking.await.unwrap();
        drop(peer);

        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        let again = begin(&hello, 40 + u64::try_from(carried_out.len()).unwrap());
        let (applied, nonce) = carried_out.last().map(|command| (command.cseq, command.nonce)).unwrap_or_default();
        peer.send(ServerFrame::Welcome(Welcome { applied, applied_nonce: nonce, ..again })).await;
        peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 5..=6, true))).await;
        if carried_out.is_empty() {
            let command = peer.command().await;
            peer.send(event(41, sent(&command, 7, 7))).await;
        }
        let outcome = ticket.outcome().await;
        assert_eq!(outcome.map(|sent| sent.seq), Ok(ConversationSeq(7)), "it was carried out, and nobody knows where");
    }
}

/// One life of a device whose server was restored to where only the first of its commands was applied. Returns of what its application
/// took note: of the contradiction, and of the outcome that nobody can tell.
async fn live_restored(server: &mut Server, builder: Builder, first: Nonce) -> [bool; 2] {
    let death = builder.death.clone();
    let mut noted = [false; 2];
    let Ok((client, mut events)) = builder.start().await else { return noted };
    let application = async {
        let mut in_hand = None;
        loop {
            // Who is dead takes note of nothing; for the others, asking for the next says that this one is done.
            if death.as_ref().is_some_and(Death::is_past) {
                break;
            }
            if let Some(at) = in_hand.take() {
                noted[at] = true;
            }
            match events.next().await {
                Some(Incoming::Disagreement(why)) => {
                    assert_eq!(why, Disagreement::ServerIsOlder { server: CommandSeq(1), ours: CommandSeq(2) });
                    in_hand = Some(0);
                }
                Some(Incoming::Outcome(outcome)) => {
                    assert_eq!((outcome.nonce, outcome.to, outcome.content), (Some(first), Some(bob()), Some(text("a"))));
                    assert_eq!(outcome.result, Err(OutcomeError::Untold));
                    in_hand = Some(1);
                }
                Some(Incoming::Event { .. }) | None => break,
                Some(other) => panic!("{other:?}"),
            }
        }
    };
    let playing = async {
        loop {
            let mut peer = server.peer().await;
            let Some(ClientFrame::Hello(hello)) = peer.recv().await else { continue };
            let (incarnation, applied, applied_nonce) = match hello.incarnation.0 {
                9 => (9, 1, first),
                _ => (10, 0, Nonce::default()),
            };
            let welcome = welcome(&hello);
            let next = welcome.begin.cursor.0 + 1;
            peer.send(ServerFrame::Welcome(Welcome {
                incarnation: Incarnation(incarnation),
                applied: CommandSeq(applied),
                applied_nonce,
                ..welcome
            }))
            .await;
            if incarnation == 10 {
                peer.send(event(next, message(8, next, "after it"))).await;
            }
            while peer.recv().await.is_some() {}
        }
    };
    tokio::select! {
        ended = timeout(PATIENCE, application) => ended.expect("nothing comes any more"),
        () = playing => unreachable!("it plays for ever"),
    };
    client.close().await;
    noted
}

#[tokio::test]
async fn a_contradiction_and_what_it_costs_are_told_however_the_process_dies_around_them() {
    for after in [false, true] {
        let mut commits = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let mut server = Server::start().await;
            let builders: [Builder; 4] = std::array::from_fn(|_| builder(&server, &folder));
            let [first, mut dying, heir, last] = builders;
            // A life before, whose first two commands are applied.
            let (client, mut events) = first.start().await.unwrap();
            let mut peer = server.peer().await;
            let hello = peer.hello().await;
            peer.send(ServerFrame::Welcome(Welcome { incarnation: Incarnation(9), ..welcome(&hello) })).await;
            let tickets = client.send_all(["a", "b"].map(|name| (bob(), text(name)))).await.unwrap();
            let nonce = tickets[0].nonce();
            peer.command().await;
            peer.command().await;
            peer.send(applied(2)).await;
            peer.send(event(1, message(7, 1, "by now the client knows"))).await;
            events.next().await.unwrap();
            events.done();
            peer.acked(1).await;
            client.close().await;
            drop((client, events, peer));

            let death = Death::new(commits, after);
            dying.death = Some(death.clone());
            let done = live_restored(&mut server, dying, nonce).await;
            let died = death.is_past();
            let heard = live_restored(&mut server, heir, nonce).await;
            for (done, heard) in done.into_iter().zip(heard) {
                assert!(done || heard, "nobody was told; it died around commit {commits}");
                assert!(died || !heard, "it is told again, although it was done");
            }
            assert_eq!(live_restored(&mut server, last, nonce).await, [false; 2], "it is told for ever");
            if !died {
                break;
            }
            commits += 1;
        }
        assert!(commits >= 3, "only {commits} commits were tried");
    }
}

/// However many they are, and although nothing is taken in the meantime.
#[tokio::test]
async fn every_outcome_that_cannot_be_told_is_told_to_be_so() {
    const MANY: usize = 500;
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let tickets = client.send_all((0..MANY).map(|at| (bob(), text(at.to_string())))).await.unwrap();
    for cseq in 1..=MANY as u64 {
        peer.command().await;
        peer.send(applied(cseq)).await;
    }
    in_step(&client, &mut peer).await;
    drop(peer);
    let mut peer = server.peer().await;
    let hello = peer.hello().await;
    let applied_nonce = tickets[MANY - 1].nonce();
    let ServerFrame::Welcome(elsewhere) = elsewhere(&hello, false) else { panic!("not a Welcome") };
    peer.send(ServerFrame::Welcome(Welcome { applied: CommandSeq(MANY as u64), applied_nonce, ..elsewhere })).await;
    in_step(&client, &mut peer).await;
    assert_eq!(events.next().await, Some(Incoming::Reset { reason: ResetReason::OtherLog }));
    for ticket in &tickets {
        let Some(Incoming::Outcome(outcome)) = events.next().await else { panic!("not an outcome") };
        assert_eq!((outcome.nonce, outcome.result), (Some(ticket.nonce()), Err(OutcomeError::Untold)));
    }
}

/// A device that reads on from the oldest entry that is kept: what was cut off before that may hold outcomes.
#[tokio::test]
async fn an_outcome_that_was_trimmed_is_told_to_be_lost_and_a_later_one_comes() {
    for snapshot in [false, true] {
        trimmed(snapshot).await;
    }
}

async fn trimmed(snapshot: bool) {
    let mut server = Server::start().await;
    let (client, mut events) = server.client("alice").origin(Origin::Oldest).start().await.unwrap();
    let (mut peer, _) = server.greeted().await;
    let [trimmed, kept] = [client.send(bob(), text("long ago")).await.unwrap(), client.send(bob(), text("lately")).await.unwrap()];
    let (first, second) = (peer.command().await, peer.command().await);
    peer.send(event(1, message(7, 1, "the last that it took"))).await;
    events.next().await.unwrap();
    events.done();
    peer.acked(1).await;
    drop(peer);
    for whole in [false, true] {
        let mut peer = server.peer().await;
        let hello = peer.hello().await;
        let begin = Begin { cursor: MailboxSeq(30), time: Time(0), snapshot, reset: Some(ResetReason::Trimmed) };
        let resumed = Welcome { applied: second.cseq, applied_nonce: second.nonce, head: MailboxSeq(32), ..welcome(&hello) };
        // The second time it goes on where it was reset to: that an outcome is missing is still found out.
        peer.send(ServerFrame::Welcome(if whole { resumed } else { Welcome { begin, ..resumed } })).await;
        if whole {
            // Sent in this session: not overdue at the head of its beginning.
            let later = client.send(bob(), text("now")).await.unwrap();
            let third = peer.command().await;
            peer.send(applied(third.cseq.0)).await;
            peer.send(event(31, sent(&second, 7, 5))).await;
            peer.send(event(32, message(7, 6, "the newest"))).await;
            peer.send(event(33, sent(&third, 7, 7))).await;
            assert_eq!(later.outcome().await.unwrap().seq, ConversationSeq(7));
        } else {
            if snapshot {
                peer.send(ServerFrame::Snapshot(snapshot_page(7, &["alice", "bob"], 3..=4, true))).await;
            }
            assert_eq!(events.next().await, Some(Incoming::Reset { reason: ResetReason::Trimmed }));
        }
    }
    assert_eq!(first.cseq.next(), second.cseq);
    assert_eq!(kept.outcome().await.unwrap().seq, ConversationSeq(5));
    assert_eq!(trimmed.outcome().await, Err(OutcomeError::Untold));
}
