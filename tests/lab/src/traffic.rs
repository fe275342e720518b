//! A user's device on a thread in a network: it sends numbered messages at a pace, and notes what comes, when, and from where.

use crate::checker::{Got, Sent};
use crate::reading::{self, Read};
use crate::{LabError, Namespace, Server};
use std::collections::HashMap;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use whimbrel_client::protocol::frame::{EventBody, Origin, Target};
use whimbrel_client::{Client, Connection, Events, Incoming, State, Transport, text};

/// How long connecting may take on a good network, on a busy machine.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long it may take, once the networks are well again, until every message has its outcome and has arrived.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a message's text, as in the other measurements.
pub const TEXT_BYTES: usize = 52;
/// Old messages that are sent at once: the server grants windows of some hundred commands, and the outbox has room for many.
const FILL_MAX: usize = 32;
/// Longer than any journey.
const NEVER: Duration = Duration::from_secs(86_400);
/// What a user says last, once every other message has its outcome.
const FAREWELL: &str = "farewell of";

/// A message as its sender knows it.
#[derive(Debug, Clone)]
pub struct SentAt {
    /// For the checker.
    pub message: Sent,
    /// When the application called `send`.
    pub at: Instant,
    /// When its outcome was there.
    pub applied: Option<Instant>,
}

/// A message as the recipient's application got it.
#[derive(Debug, Clone)]
pub struct GotAt {
    /// For the checker.
    pub message: Got,
    /// When.
    pub at: Instant,
    /// What it came over.
    pub transport: &'static str,
}

/// What one device knows at the end.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// What it sent, in order.
    pub sent: Vec<SentAt>,
    /// What it got, in order.
    pub got: Vec<GotAt>,
    /// What its connection was from when on: the transport, or why there was none.
    pub connections: Vec<(Instant, Result<&'static str, String>)>,
    /// What it read of old messages, if it was asked to.
    pub read: Option<Read>,
    /// What went wrong that no checker of messages sees.
    pub faults: Vec<String>,
}

/// Notes that the threads of a run look at while they grow.
#[derive(Debug, Default)]
struct Board {
    notes: Mutex<Notes>,
    grew: Condvar,
}

impl Board {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic leaves whole entries behind.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes());
        self.grew.notify_all();
    }
}

/// What a device is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its user.
    pub user: String,
    /// To whom it talks.
    pub peer: String,
    /// Over what.
    pub transport: Transport,
    /// Between two messages; `None`: it says nothing but farewell.
    pub pace: Option<Duration>,
    /// Bytes of a message's text.
    pub text_bytes: usize,
    /// Old messages, of so many bytes of text each, that it sends before it talks.
    pub fill: (usize, usize),
    /// Where it keeps its state.
    pub state: State,
}

/// What is asked of a device while it talks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wishes {
    talk: bool,
    finish: bool,
    /// Rises with each change of the network that is told to the client.
    changes: u64,
    /// Bytes of old messages that shall be read.
    read: usize,
    /// Whether old messages shall be sent.
    fill: bool,
}

/// A device on its thread.
#[derive(Debug)]
pub struct Device {
    board: Arc<Board>,
    wishes: watch::Sender<Wishes>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Device {
    /// Starts a device in a network and waits until it is connected. It sends nothing yet.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn start(space: &Namespace, server: &Server, plan: Plan) -> Result<Self, LabError> {
        let who = plan.user.clone();
        let failed = |why: String| LabError::Client { who: who.clone(), why };
        let board = Arc::new(Board::default());
        let (wishes, wished) = watch::channel(Wishes::default());
        let (ready, wait) = mpsc::channel();
        let builder = Client::builder(server.url(), &plan.user)
            .device("lab")
            .transport(plan.transport)
            .origin(Origin::Oldest)
            .ca(server.certs())
            .state(plan.state.clone());
        let there = Arc::clone(&board);
        let live = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(why) => return drop(ready.send(Err(format!("there is no runtime: {why}")))),
            };
            runtime.block_on(async {
                let connected = match tokio::time::timeout(CONNECT_MAX, builder.connect()).await {
                    Ok(connected) => connected.map_err(|why| why.to_string()),
                    Err(_) => Err(format!("there is no session within {} s", CONNECT_MAX.as_secs())),
                };
                match connected {
                    Ok((client, events)) => {
                        // Who started this is there: it waits for the answer.
                        let _ = ready.send(Ok(()));
                        live(client, events, plan, there, wished).await;
                    }
                    Err(why) => drop(ready.send(Err(why))),
                }
            });
        };
        let thread = space.spawn(&format!("device {who}"), live).map_err(|why| failed(why.to_string()))?;
        let device = Self { board, wishes, thread: Some(thread) };
        match wait.recv() {
            Ok(Ok(())) => Ok(device),
            Ok(Err(why)) => Err(failed(why)),
            Err(_) => Err(failed("its thread ended".into())),
        }
    }

    /// Begins to send.
    pub fn talk(&self) {
        self.wishes.send_modify(|wishes| wishes.talk = true);
    }

    /// Tells the client that the network is another one.
    pub fn network_changed(&self) {
        self.wishes.send_modify(|wishes| wishes.changes += 1);
    }

    /// Has it send old messages: see [`Plan::fill`]. They are there when the last of them is.
    pub fn fill(&self) {
        self.wishes.send_modify(|wishes| wishes.fill = true);
    }

    /// Has it read so many bytes of old messages: see [`Notes::read`].
    pub fn read(&self, bytes: usize) {
        self.wishes.send_modify(|wishes| wishes.read = bytes);
    }

    /// Says that it shall send nothing more, wait for all outcomes, say farewell, and wait for the other's.
    pub fn finish(&self) {
        self.wishes.send_modify(|wishes| wishes.finish = true);
    }

    /// Waits until a message is there that the device got and that this takes, but no longer than until a moment. Returns whether.
    #[must_use]
    pub fn wait_until_got(&self, deadline: Instant, wanted: impl Fn(&GotAt) -> bool) -> bool {
        let mut seen = 0;
        self.wait_until(deadline, |notes| {
            let found = notes.got.get(seen..).unwrap_or_default().iter().any(&wanted);
            seen = notes.got.len();
            found
        })
    }

    /// Waits until its notes are so, but no longer than until a moment. Returns whether.
    #[must_use]
    pub fn wait_until(&self, deadline: Instant, mut wanted: impl FnMut(&Notes) -> bool) -> bool {
        let mut notes = self.board.notes();
        loop {
            if wanted(&notes) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            notes = self.board.grew.wait_timeout(notes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When a message was sent, by its text.
    #[must_use]
    pub fn sent_at(&self, text: &str) -> Option<Instant> {
        self.board.notes().sent.iter().rev().find(|sent| sent.message.text == text).map(|sent| sent.at)
    }

    /// Waits until the device has finished, and returns what it knows.
    #[must_use]
    pub fn end(mut self) -> Notes {
        self.finish();
        self.join();
        std::mem::take(&mut self.board.notes())
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            self.board.write(|notes| notes.faults.push("the device's thread ended in a panic: see standard error".into()));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nobody wants to know any more: the thread sees that and ends.
        self.wishes = watch::channel(Wishes::default()).0;
        self.join();
    }
}

/// The text of a user's message: its number in it, and as long as the others.
fn words(user: &str, number: impl std::fmt::Display, bytes: usize) -> String {
    format!("{:<bytes$}", format!("{user} {number}"))
}

/// The number of an old message, which is none that is measured.
fn old(number: usize) -> String {
    format!("old-{number}")
}

/// Whether a text is the last of so many old messages.
#[must_use]
pub fn is_last_old(text: &str, count: usize) -> bool {
    text.split_whitespace().nth(1) == Some(&old(count - 1))
}

/// The number in the text of a message; `None` if it is a farewell, or an old one.
#[must_use]
pub fn number(text: &str) -> Option<usize> {
    text.split_whitespace().nth(1)?.parse().ok()
}

async fn live(client: Client, events: Events, plan: Plan, board: Arc<Board>, mut wished: watch::Receiver<Wishes>) {
    let watching = tokio::spawn(watch_connection(client.clone(), Arc::clone(&board)));
    let telling = tokio::spawn(tell_changes(client.clone(), wished.clone()));
    let reading = tokio::spawn(read_when_asked(client.clone(), plan.clone(), Arc::clone(&board), wished.clone()));
    let receiving = tokio::spawn(receive(events, plan.clone(), Arc::clone(&board), wished.clone()));
    let wished_here = wished.clone();
    let done = async {
        send(&client, &plan, &board, wished_here).await;
        // It has written its panic, if it had one, and the checker sees what is missing.
        let _ = receiving.await;
    };
    tokio::select! {
        () = done => {}
        () = abandoned(&mut wished) => {}
    }
    watching.abort();
    telling.abort();
    reading.abort();
    client.close().await;
}

/// Ends when nobody holds the device any more.
async fn abandoned(wished: &mut watch::Receiver<Wishes>) {
    while wished.changed().await.is_ok() {}
}

async fn tell_changes(client: Client, mut wished: watch::Receiver<Wishes>) {
    let mut told = 0;
    while wished.wait_for(|wishes| wishes.changes > told).await.is_ok() {
        told = wished.borrow().changes;
        client.network_changed();
    }
}

async fn read_when_asked(client: Client, plan: Plan, board: Arc<Board>, mut wished: watch::Receiver<Wishes>) {
    let Ok(bytes) = wished.wait_for(|wishes| wishes.read > 0).await.map(|wishes| wishes.read) else { return };
    let Ok(peer) = plan.peer.parse().map(Target::User) else { return };
    match reading::read(&client, &peer, bytes).await {
        Ok(read) => board.write(|notes| notes.read = Some(read)),
        Err(why) => board.write(|notes| notes.faults.push(format!("{}: cannot read old messages: {why}", plan.user))),
    }
}

async fn watch_connection(client: Client, board: Arc<Board>) {
    let mut connection = client.connection();
    loop {
        let state = match &*connection.borrow_and_update() {
            Connection::Connected { transport } => Ok(transport.name()),
            Connection::Connecting { why, .. } => Err(why.clone().unwrap_or_else(|| "connecting".into())),
            Connection::Offline { why, .. } => Err(why.clone()),
            Connection::Ended { error } => Err(format!("ended: {error:?}")),
            other => Err(format!("{other:?}")),
        };
        board.write(|notes| {
            if notes.connections.last().is_none_or(|(_, last)| *last != state) {
                notes.connections.push((Instant::now(), state));
            }
        });
        if connection.changed().await.is_err() {
            return;
        }
    }
}

/// Sends at the plan's pace until told to finish, waits for all outcomes, says farewell.
async fn send(client: &Client, plan: &Plan, board: &Arc<Board>, mut wished: watch::Receiver<Wishes>) {
    let Ok(peer) = plan.peer.parse().map(Target::User) else {
        return board.write(|notes| notes.faults.push(format!("{:?} is no user", plan.peer)));
    };
    let mut outcomes = JoinSet::new();
    if wished.wait_for(|wishes| wishes.fill || wishes.talk || wishes.finish).await.is_err() {
        return;
    }
    if wished.borrow().fill {
        let (count, bytes) = plan.fill;
        for number in 0..count {
            say(client, plan, &peer, words(&plan.user, old(number), bytes), board, &mut outcomes).await;
            while outcomes.len() >= FILL_MAX {
                outcomes.join_next().await;
            }
        }
    }
    if wished.wait_for(|wishes| wishes.talk || wishes.finish).await.is_err() {
        return;
    }
    // Who says nothing waits for the end.
    let mut pace = tokio::time::interval(plan.pace.unwrap_or(NEVER));
    if plan.pace.is_none() {
        pace.reset();
    }
    // A pace that was missed is gone: a burst afterwards would measure something else.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !wished.borrow().finish {
        tokio::select! {
            _ = pace.tick() => {}
            finish = wished.wait_for(|wishes| wishes.finish) => {
                if finish.is_err() { return }
                break;
            }
        }
        say(client, plan, &peer, words(&plan.user, number, plan.text_bytes), board, &mut outcomes).await;
        number += 1;
    }
    let all = async { while outcomes.join_next().await.is_some() {} };
    if tokio::time::timeout(SETTLE_MAX, all).await.is_err() {
        let waiting = board.notes().sent.iter().filter(|sent| sent.applied.is_none()).count();
        let fault = format!("{}: {waiting} messages have no outcome {} s after the journey", plan.user, SETTLE_MAX.as_secs());
        return board.write(|notes| notes.faults.push(fault));
    }
    say(client, plan, &peer, format!("{FAREWELL} {}", plan.user), board, &mut outcomes).await;
    if tokio::time::timeout(SETTLE_MAX, outcomes.join_next()).await.is_err() {
        board.write(|notes| notes.faults.push(format!("{}: its farewell has no outcome", plan.user)));
    }
}

async fn say(client: &Client, plan: &Plan, peer: &Target, words: String, board: &Arc<Board>, outcomes: &mut JoinSet<()>) {
    let message = Sent { from: plan.user.clone(), to: plan.peer.clone(), text: words.clone(), place: None };
    let index = {
        let mut notes = board.notes();
        notes.sent.push(SentAt { message, at: Instant::now(), applied: None });
        notes.sent.len() - 1
    };
    let ticket = match client.send(peer.clone(), text(words)).await {
        Ok(ticket) => ticket,
        Err(why) => return board.write(|notes| notes.faults.push(format!("{}: cannot send: {why}", plan.user))),
    };
    let (board, user) = (Arc::clone(board), plan.user.clone());
    outcomes.spawn(async move {
        let outcome = ticket.outcome().await;
        let now = Instant::now();
        board.write(|notes| match outcome {
            Ok(sent) => {
                notes.sent[index].message.place = Some((sent.conversation.0, sent.seq.0));
                notes.sent[index].applied = Some(now);
            }
            Err(why) => notes.faults.push(format!("{user}: message {index} has no good outcome: {why}")),
        });
    });
}

/// Notes what comes, until the other's farewell: whatever was doubled or late has come before it, in the same conversation.
async fn receive(mut events: Events, plan: Plan, board: Arc<Board>, mut wished: watch::Receiver<Wishes>) {
    let farewell = format!("{FAREWELL} {}", plan.peer);
    // The deadline counts from when the sender may have begun to wait for its outcomes, which may take as long as that.
    let deadline = async {
        let finished = wished.wait_for(|wishes| wishes.finish).await.is_ok();
        if finished {
            tokio::time::sleep(2 * SETTLE_MAX + Duration::from_secs(10)).await;
        }
    };
    tokio::pin!(deadline);
    let mut done = false;
    while !done {
        let incoming = tokio::select! {
            incoming = events.next() => incoming,
            () = &mut deadline => {
                return board.write(|notes| notes.faults.push(format!("{}: no farewell came from {}", plan.user, plan.peer)));
            }
        };
        let now = Instant::now();
        match incoming {
            None => return board.write(|notes| notes.faults.push(format!("{}: its client ended", plan.user))),
            Some(Incoming::Event { event, transport }) => {
                if let EventBody::Message(message) = event.body {
                    let from = message.from.map_or_else(|| "nobody".to_owned(), |user| user.to_string());
                    done = message.content.text == farewell;
                    let place = (message.conversation.0, message.seq.0);
                    let message = Got { mailbox: event.seq.0, place, from, text: message.content.text };
                    board.write(|notes| notes.got.push(GotAt { message, at: now, transport: transport.name() }));
                }
            }
            Some(Incoming::Reset { reason }) => board.write(|notes| notes.faults.push(format!("{}: reset: {reason:?}", plan.user))),
            Some(Incoming::Disagreement(what)) => {
                board.write(|notes| notes.faults.push(format!("{}: its outbox and the server disagree: {what:?}", plan.user)));
            }
            Some(_) => {}
        }
    }
    events.done();
}

/// When each message was sent, by its text.
#[must_use]
pub fn times(sent: &[SentAt]) -> HashMap<&str, Instant> {
    sent.iter().map(|sent| (sent.message.text.as_str(), sent.at)).collect()
}
