//! Carries out what the application wants: at the client and its store, never in the way of the screen.

use super::app::{Action, Done, Input, Page, Stored, Told, Unsent};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use whimbrel_client::protocol::frame::{CommandBody, ConversationState, Direction, StoredMessage, Target, Watch};
use whimbrel_client::protocol::{ConversationId, ConversationSeq};
use whimbrel_client::{Client, Incoming, LocalMessage, Outcome, OutcomeError, StateError, text};

/// Commands that wait to be stored; when there are more, the newest is refused and can be tried again.
const COMMANDS_MAX: usize = 256;
/// Results that wait for the application.
const DONE_MAX: usize = 256;
/// Messages of each conversation that are loaded at the start …
const NEWEST: usize = 60;
/// … or as many as are new, up to this.
const UNREAD_MAX: usize = 500;
/// Conversations whose messages are loaded at the start; of the others, only the last message.
const ROOMS_MAX: usize = 200;
/// Messages that are loaded at a time.
const PAGE: u32 = 100;

/// How long leaving waits for what is being stored.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

enum Command {
    Send { local: u64, to: Target, text: String },
    MarkRead(ConversationId, ConversationSeq),
}

/// Does what is to be done, and tells what became of it.
pub struct Worker {
    client: Client,
    commands: mpsc::Sender<Command>,
    commanding: tokio::task::JoinHandle<()>,
    done: mpsc::Sender<Done>,
}

impl Worker {
    /// Works for a client; what is done comes out of the queue.
    pub fn start(client: &Client) -> (Self, mpsc::Receiver<Done>) {
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (done, results) = mpsc::channel(DONE_MAX);
        let commanding = tokio::spawn(command(client.clone(), queue, done.clone()));
        (Self { client: client.clone(), commands, commanding, done }, results)
    }

    /// Wants to hear who is here.
    pub fn watch(&self) {
        let client = self.client.clone();
        tokio::spawn(async move {
            // A client that has ended says so elsewhere.
            let _ = client.watch(Watch { users: Vec::new(), everyone: true, lobby: false }).await;
        });
    }

    /// Does it. What could not even be begun is returned.
    pub fn perform(&self, action: Action) -> Option<Done> {
        const FULL: &str = "too much waits to be stored";
        match action {
            Action::Send { local, to, text } => {
                let begun = self.commands.try_send(Command::Send { local, to, text });
                return begun.err().map(|_| Done::Stored(local, Err(FULL.into())));
            }
            Action::MarkRead(id, seq) => {
                let begun = self.commands.try_send(Command::MarkRead(id, seq));
                return begun.err().map(|_| Done::Unread(id, FULL.into()));
            }
            Action::Typing(to, active) => self.client.typing(to, active),
            Action::Load => {
                let (client, done) = (self.client.clone(), self.done.clone());
                tokio::spawn(async move {
                    let loaded = load(&client).await.map_err(|why| why.to_string());
                    // The application is gone: so is the wish.
                    let _ = done.send(Done::Loaded(loaded)).await;
                });
            }
            // One at a time and conversation: the application asks again only after an answer.
            Action::Older(id, before) => {
                let (client, done) = (self.client.clone(), self.done.clone());
                tokio::spawn(async move {
                    let page = older(&client, id, before).await;
                    let _ = done.send(Done::Older(id, page)).await;
                });
            }
        }
        None
    }

    /// Waits until every command that was begun is stored. Nobody listens to what became of it any more.
    pub async fn finish(self, results: mpsc::Receiver<Done>) {
        drop(results);
        drop(self.commands);
        // An outbox that is full may take long; a panic was told already.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.commanding).await;
    }
}

/// Stores commands, one after the other: messages keep their order.
async fn command(client: Client, mut queue: mpsc::Receiver<Command>, done: mpsc::Sender<Done>) {
    // One a conversation at most: the client makes one of several.
    let mut marks = JoinSet::new();
    while let Some(command) = queue.recv().await {
        match command {
            Command::Send { local, to, text: words } => {
                let stored = client.send(to, text(words)).await;
                let told = Done::Stored(local, stored.map(|ticket| ticket.nonce()).map_err(|why| why.to_string()));
                // What was begun is stored even if the application is gone.
                let _ = done.send(told).await;
            }
            Command::MarkRead(id, seq) => {
                while marks.try_join_next().is_some() {}
                let (client, done) = (client.clone(), done.clone());
                marks.spawn(async move {
                    if let Err(why) = client.mark_read(id, seq).await {
                        let _ = done.send(Done::Unread(id, why.to_string())).await;
                    }
                });
            }
        }
    }
    while marks.join_next().await.is_some() {}
}

/// `None` while this device has not been told who wrote it: the server knows, and is asked for it as for any gap.
fn stored(message: LocalMessage) -> Option<StoredMessage> {
    Some(StoredMessage { seq: message.seq, time: message.time, from: message.from?, content: message.content })
}

/// What follows the last gap: messages before it are looked for at the server.
fn gapless(messages: Vec<LocalMessage>) -> Vec<StoredMessage> {
    let messages: Vec<StoredMessage> = messages.into_iter().filter_map(stored).collect();
    let gap = messages.windows(2).rposition(|pair| pair[0].seq.next() != pair[1].seq);
    messages.into_iter().skip(gap.map_or(0, |gap| gap + 1)).collect()
}

async fn load(client: &Client) -> Result<Stored, StateError> {
    let mut all = Stored::default();
    for (index, local) in client.conversations().await?.into_iter().enumerate() {
        let read = local.members.iter().find(|member| member.user == *client.user()).map_or(0, |member| member.read.0);
        let unread = usize::try_from(local.head.0.saturating_sub(read)).unwrap_or(usize::MAX);
        let messages = if index < ROOMS_MAX {
            gapless(client.messages(local.id, None, unread.clamp(NEWEST, UNREAD_MAX)).await?)
        } else {
            local.last.into_iter().filter_map(stored).collect()
        };
        let (conversation, kind, members, head) = (local.id, local.kind, local.members, local.head);
        all.conversations.push(ConversationState { conversation, kind, members, head, messages });
    }
    for waiting in client.outbox().await? {
        match waiting.body {
            CommandBody::Send(send) => all.sending.push((waiting.nonce, send.to, send.content.text)),
            CommandBody::MarkRead(mark) => all.reading.push((mark.conversation, mark.seq)),
            CommandBody::Unknown(_) => {}
        }
    }
    Ok(all)
}

/// What comes before a message: from the store if it is there, else from the server.
async fn older(client: &Client, id: ConversationId, before: Option<ConversationSeq>) -> Result<Page, String> {
    let local = client.messages(id, before, PAGE as usize).await.map_err(|why| why.to_string())?;
    let local = gapless(local);
    let adjacent = match (local.last(), before) {
        (Some(last), Some(before)) => last.seq.next() == before,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if adjacent {
        let more = local.first().is_some_and(|first| first.seq.0 > 1);
        return Ok(Page { messages: local, more });
    }
    let from = before.unwrap_or(ConversationSeq(0));
    let page = client.history(Target::Conversation(id), from, Direction::Backwards, PAGE).await.map_err(|why| why.to_string())?;
    Ok(Page { messages: page.messages, more: page.more })
}

/// What came in, as the application takes it.
pub fn input(incoming: Incoming) -> Option<Input> {
    Some(match incoming {
        Incoming::Event { event, .. } => Input::Event(event),
        Incoming::Outcome(outcome) => Input::Told(told(outcome)),
        Incoming::Signal(signal) => Input::Signal(signal),
        Incoming::Reset { reason } => Input::Reset(reason),
        Incoming::Snapshot { .. } => Input::Snapshot,
        Incoming::Disagreement(why) => Input::Disagreement(why.to_string()),
        _ => return None,
    })
}

fn told(outcome: Outcome) -> Told {
    let result = match outcome.result {
        Ok(sent) => Ok((sent.conversation, sent.seq, sent.time)),
        Err(OutcomeError::Untold) => Err(Unsent::Untold),
        Err(OutcomeError::Rejected { message, .. }) => Err(Unsent::Refused(message)),
        Err(why) => Err(Unsent::Refused(why.to_string())),
    };
    Told { nonce: outcome.nonce, to: outcome.to, text: outcome.content.map(|content| content.text), result }
}
