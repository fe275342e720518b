//! Crashes between any two steps: of the process, at each commit of its store; and of the connection, at each frame.
//!
//! The server here keeps the rules for commands, and checks that the client does. At the end every message is at the server once, and
//! in the device's store once, in order.

use super::server::*;
use crate::state::Death;
use crate::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use whimbrel_protocol::frame::{Ack, ClientFrame, Command, CommandBody, EventBody, Hello, Sent, ServerFrame, Welcome};
use whimbrel_protocol::*;

/// What the application wants to send, over all its lives.
const MINE: usize = 6;
/// What the other side has to say in each of them.
const THEIRS: usize = 5;

#[derive(Debug, Default)]
struct Model {
    incarnation: u64,
    applied: u64,
    applied_nonce: Nonce,
    /// Where each command's message is.
    known: HashMap<Nonce, u64>,
    /// Who and what, in order.
    conversation: Vec<(&'static str, String)>,
    mailbox: Vec<EventBody>,
    acked: u64,
    /// What the other side has to say.
    theirs: usize,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { theirs: THEIRS, mailbox: vec![started(7, &["alice", "bob"]).into()], ..Self::default() };
        (0..2).for_each(|_| model.say());
        model
    }

    /// The other side says its next.
    fn say(&mut self) {
        let said = self.conversation.iter().filter(|(who, _)| *who == "bob").count();
        if said < self.theirs {
            self.conversation.push(("bob", format!("theirs {said}")));
            let seq = u64::try_from(self.conversation.len()).unwrap();
            self.mailbox.push(unnamed(7, seq, &format!("theirs {said}")).into());
        }
    }

    fn welcome(&mut self, hello: &Hello) -> Welcome {
        let mut welcome = welcome(hello);
        if hello.incarnation.0 != self.incarnation || self.incarnation == 0 {
            self.incarnation += 1;
            (self.applied, self.applied_nonce) = (0, Nonce::default());
        }
        welcome.incarnation = Incarnation(self.incarnation);
        (welcome.applied, welcome.applied_nonce) = (CommandSeq(self.applied), self.applied_nonce);
        let cursor = welcome.begin.cursor.0;
        assert!(cursor >= self.acked, "the device forgot what it had acknowledged");
        assert!(cursor <= self.head(), "the device made something up");
        welcome.head = MailboxSeq(self.head());
        welcome
    }

    fn head(&self) -> u64 {
        u64::try_from(self.mailbox.len()).unwrap()
    }

    /// Returns whether it is new.
    fn apply(&mut self, command: &Command) -> bool {
        assert_eq!(command.incarnation.0, self.incarnation);
        if command.cseq.0 <= self.applied {
            return false;
        }
        assert_eq!(command.cseq.0, self.applied + 1, "a number was left out");
        (self.applied, self.applied_nonce) = (command.cseq.0, command.nonce);
        let CommandBody::Send(send) = &command.body else { panic!() };
        let seq = self.known.get(&command.nonce).copied().unwrap_or_else(|| {
            self.conversation.push(("alice", send.content.text.clone()));
            u64::try_from(self.conversation.len()).unwrap()
        });
        self.known.insert(command.nonce, seq);
        let Command { incarnation, cseq, .. } = *command;
        self.mailbox.push(Sent { incarnation, cseq, conversation: ConversationId(7), seq: ConversationSeq(seq) }.into());
        self.say();
        true
    }
}

/// Serves one connection; breaks it off after so many frames, if that is wanted.
async fn serve(mut peer: Peer, model: Arc<Mutex<Model>>, mut frames: usize) -> Option<()> {
    let Some(ClientFrame::Hello(hello)) = peer.recv().await else { return None };
    let greeting = model.lock().unwrap().welcome(&hello);
    let mut next = greeting.begin.cursor.0 + 1;
    let mut out = vec![ServerFrame::Welcome(greeting)];
    loop {
        let head = model.lock().unwrap().head();
        while next <= head {
            let body = model.lock().unwrap().mailbox[usize::try_from(next - 1).unwrap()].clone();
            out.push(event(next, body));
            next += 1;
        }
        for frame in out.drain(..) {
            frames = frames.checked_sub(1)?;
            peer.send(frame).await.then_some(())?;
        }
        match peer.recv().await? {
            ClientFrame::Command(command) => {
                frames = frames.checked_sub(1)?;
                let mut model = model.lock().unwrap();
                if model.apply(&command) && model.applied.is_multiple_of(2) {
                    // Each other time only the outcome tells it.
                    out.push(applied(model.applied));
                }
            }
            ClientFrame::Ack(Ack { seq }) => {
                let mut model = model.lock().unwrap();
                assert!(seq.0 < next, "acknowledged before it was sent");
                assert!(seq.0 >= model.acked);
                model.acked = seq.0;
            }
            _ => {}
        }
    }
}

/// What the application remembers over its lives, as if by heart.
#[derive(Default)]
struct Application {
    /// How many messages it has tried to send.
    tried: usize,
    /// Which it was told are stored.
    stored: Vec<String>,
    /// The entries it was handed, in order, those it was done with.
    done: Vec<u64>,
}

impl Application {
    /// One life. Ends when there is nothing left to do, or in death.
    async fn live(&mut self, client: &Client, events: &mut Events, model: &Arc<Mutex<Model>>) {
        let mut last = None;
        loop {
            if self.tried < MINE {
                let content = format!("mine {}", self.tried);
                self.tried += 1;
                if client.send(bob(), text(&content)).await.is_err() {
                    return;
                }
                self.stored.push(content);
            }
            let next = timeout(PATIENCE, events.next()).await.expect("nothing comes any more");
            self.done.extend(last.take());
            last = match next {
                None => return,
                Some(Incoming::Event { event, .. }) => Some(event.seq.0),
                Some(Incoming::Outcome(outcome)) => outcome.entry.map(|entry| entry.0),
                Some(other) => panic!("{other:?}"),
            };
            if self.tried == MINE && self.is_all(client, last, model).await {
                events.done();
                client.close().await;
                self.done.extend(last);
                return;
            }
        }
    }

    /// Whether the entry in hand is the last there will ever be.
    async fn is_all(&self, client: &Client, last: Option<u64>, model: &Arc<Mutex<Model>>) -> bool {
        loop {
            if last != Some(model.lock().unwrap().head()) {
                return false;
            }
            // One may wait: the one whose outcome is in hand. Those before it are being stored.
            match client.outbox().await {
                Ok(waiting) if waiting.len() > 1 => tokio::time::sleep(Duration::from_millis(1)).await,
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Lives until everything is done; the first life ends at `death`. Returns whether it came to that.
async fn lives(death: Option<Death>, frames: usize) -> bool {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let model = Arc::new(Mutex::new(Model::new()));
    let mut application = Application::default();
    let client = |server: &Server| server.client("alice").state(State::Folder(folder.path().into()));
    let builders = [client(&server), client(&server)];
    let serving = {
        let model = Arc::clone(&model);
        tokio::spawn(async move {
            let mut frames = frames;
            loop {
                let peer = server.peer().await;
                serve(peer, Arc::clone(&model), frames).await;
                // One break is enough: later sessions last.
                frames = usize::MAX;
            }
        })
    };
    let mut died = false;
    for (life, mut builder) in builders.into_iter().enumerate() {
        builder.death = if life == 0 { death.clone() } else { None };
        if life > 0 {
            // So that there is something to wait for, whatever the first life came to.
            let mut model = model.lock().unwrap();
            model.theirs += THEIRS;
            model.say();
        }
        // It may die as it is born.
        let Ok((client, mut events)) = builder.start().await else { continue };
        application.live(&client, &mut events, &model).await;
        client.close().await;
        died |= death.as_ref().is_some_and(Death::is_past);
        if !died {
            break;
        }
    }
    serving.abort();
    check(&model.lock().unwrap(), &application);
    let (mut store, _) = crate::state::SqliteStore::open(folder.path(), &"alice".parse().unwrap(), None, &"x".parse().unwrap()).unwrap();
    use crate::state::Store;
    let local = store.messages(ConversationId(7), None, 100).unwrap();
    let local: Vec<_> = local.into_iter().map(|message| (message.from.unwrap().to_string(), message.content.text)).collect();
    let at_server: Vec<_> = model.lock().unwrap().conversation.iter().map(|(who, text)| ((*who).to_owned(), text.clone())).collect();
    assert_eq!(local, at_server, "the device's store and the server's");
    let loaded = store.load().unwrap();
    assert!(loaded.pending.is_empty() && loaded.awaiting.is_empty(), "{loaded:?}");
    assert_eq!(loaded.position.unwrap().cursor.0, model.lock().unwrap().head());
    died
}

fn check(model: &Model, application: &Application) {
    let mine: Vec<_> = model.conversation.iter().filter(|(who, _)| *who == "alice").map(|(_, text)| text.clone()).collect();
    for text in &application.stored {
        assert_eq!(mine.iter().filter(|other| *other == text).count(), 1, "{text} was stored: {mine:?}");
    }
    // What was not told to be stored may have been stored all the same, once.
    for at in 0..application.tried {
        assert!(mine.iter().filter(|text| **text == format!("mine {at}")).count() <= 1, "{mine:?}");
    }
    for seq in 1..=model.head() {
        assert!(application.done.contains(&seq), "{seq} was not handed out: {:?}", application.done);
    }
}

#[tokio::test]
async fn the_process_dies_around_any_commit() {
    for after in [false, true] {
        let mut commits = 0;
        while lives(Some(Death::new(commits, after)), usize::MAX).await {
            commits += 1;
        }
        assert!(commits > 10, "only {commits} commits were tried");
    }
}

#[tokio::test]
async fn the_connection_breaks_at_any_frame() {
    for frames in 0..40 {
        assert!(!lives(None, frames).await);
    }
}

#[tokio::test]
async fn both_at_once() {
    for frames in (1..30).step_by(4) {
        for commits in (1..14).step_by(3) {
            lives(Some(Death::new(commits, frames % 2 == 0)), frames).await;
        }
    }
}
