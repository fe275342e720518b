//! The handle that applications hold.

use crate::builder::Builder;
use crate::driver::{Request, SendRequest, ToSend};
use crate::reading::Reading;
use crate::state::Keeper;
use crate::{
    Connection, LocalConversation, LocalMessage, OUTBOX_MAX, OutcomeError, QueryError, SendError, StateError, Transport, TransportKind,
    Waiting,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use whimbrel_protocol::codec::MAX_TEXT;
use whimbrel_protocol::frame::{
    CommandBody, Content, Direction, History, HistoryPage, MarkRead, Online, OnlinePage, QueryBody, Send, Signal, Target, Typing, Watch,
};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, DeviceId, Nonce, Time, UserId};

/// How long an application that is about to be suspended waits for the server.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// A device's client: a handle, cheap to clone. When the last one is dropped the client ends by itself, in order.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    user: UserId,
    device: DeviceId,
    handles: Handles,
    reading: Reading,
}

/// The ends of everything that ties a client to its driver and its store.
pub(crate) struct Handles {
    pub requests: mpsc::Sender<Request>,
    pub sends: mpsc::Sender<SendRequest>,
    pub active: watch::Sender<bool>,
    pub connection: watch::Receiver<Connection>,
    pub keeper: Keeper,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("user", &self.inner.user).field("device", &self.inner.device).finish_non_exhaustive()
    }
}

/// Plain text as content of a message.
#[must_use]
pub fn text(text: impl Into<String>) -> Content {
    Content::text(text)
}

impl Client {
    pub(crate) fn new(user: UserId, device: DeviceId, handles: Handles) -> Self {
        Self { inner: Arc::new(Inner { user, device, handles, reading: Reading::default() }) }
    }

    /// Begins to describe a client of `user` for the server at `url`, such as `https://chat.example.org:8443` or
    /// `http://127.0.0.1:8080` (`ws` and `wss` are taken as well).
    pub fn builder(url: impl Into<String>, user: impl Into<String>) -> Builder {
        Builder::new(url.into(), user.into())
    }

    /// Who this client is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.inner.user
    }

    /// Which of the user's devices it is.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.inner.device
    }

    /// The state of the connection, to look at or to wait for.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.handles.connection.clone()
    }

    /// Sends a message. Returns once it is stored on this device; waits while the outbox is full ([`OUTBOX_MAX`]).
    ///
    /// # Errors
    /// If it could not be stored; it will not be sent then.
    pub async fn send(&self, to: Target, content: Content) -> Result<Ticket, SendError> {
        let mut tickets = self.send_all([(to, content)]).await?;
        tickets.pop().ok_or(SendError::Ended)
    }

    /// Sends messages, in this order, stored as one. Returns a ticket for each, once all are stored.
    ///
    /// # Errors
    /// If they could not be stored; none will be sent then.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = (Target, Content)>) -> Result<Vec<Ticket>, SendError> {
        let mut commands = Vec::new();
        let mut tickets = Vec::new();
        for (to, content) in messages {
            if content.text.len() > MAX_TEXT {
                return Err(SendError::TooLong { len: content.text.len(), max: MAX_TEXT });
            }
            let nonce = Nonce(rand::random());
            let (sender, outcome) = oneshot::channel();
            commands.push(ToSend { nonce, body: CommandBody::Send(Send { to, content }), ticket: Some(sender) });
            tickets.push(Ticket { nonce, outcome });
        }
        self.enqueue(commands).await?;
        Ok(tickets)
    }

    /// Says that the user has read a conversation up to and including `seq`. Returns once that is stored on this device, or another call
    /// is about to store it: within a second of the last mark of a conversation calls wait, and are made one.
    ///
    /// # Errors
    /// If it could not be stored.
    pub async fn mark_read(&self, conversation: ConversationId, seq: ConversationSeq) -> Result<(), SendError> {
        let Some(seq) = self.inner.reading.turn(conversation, seq).await else { return Ok(()) };
        let body = CommandBody::MarkRead(MarkRead { conversation, seq });
        self.enqueue(vec![ToSend { nonce: Nonce(rand::random()), body, ticket: None }]).await
    }

    async fn enqueue(&self, commands: Vec<ToSend>) -> Result<(), SendError> {
        if commands.len() > OUTBOX_MAX {
            return Err(SendError::TooMany { count: commands.len(), max: OUTBOX_MAX });
        }
        let (stored, result) = oneshot::channel();
        self.inner.handles.sends.send(SendRequest { commands, stored }).await.map_err(|_| SendError::Ended)?;
        result.await.unwrap_or(Err(SendError::Ended))
    }

    /// Messages of a conversation from the server, next to `from` (not included; backwards from 0 means from the end), in rising order,
    /// at most 500. Waits for a connection; asked again if it breaks.
    ///
    /// # Errors
    /// If the server refuses, or the client ends first.
    pub async fn history(&self, of: Target, from: ConversationSeq, direction: Direction, limit: u32) -> Result<HistoryPage, QueryError> {
        let (reply, answer) = oneshot::channel();
        let body = QueryBody::History(History { of, from, direction, limit });
        self.request(Request::Query { body, reply: crate::driver::Reply::History(reply) }).await?;
        answer.await.unwrap_or(Err(QueryError::Ended))
    }

    /// Who is online: at most `limit` (up to 500) users with names after `after`. Waits for a connection; asked again if it breaks.
    ///
    /// # Errors
    /// If the server refuses, or the client ends first.
    pub async fn online(&self, after: &str, limit: u32) -> Result<OnlinePage, QueryError> {
        let (reply, answer) = oneshot::channel();
        let body = QueryBody::Online(Online { after: after.into(), limit });
        self.request(Request::Query { body, reply: crate::driver::Reply::Online(reply) }).await?;
        answer.await.unwrap_or(Err(QueryError::Ended))
    }

    async fn request(&self, request: Request) -> Result<(), QueryError> {
        self.inner.handles.requests.send(request).await.map_err(|_| QueryError::Ended)
    }

    /// Tells whoever is in the conversation that the user types, or has stopped. Fleeting: lost while there is no connection.
    pub fn typing(&self, to: Target, active: bool) {
        // Dropped when the queue is full: that is what a signal is.
        let _ = self.inner.handles.requests.try_send(Request::Signal(Signal::Typing(Typing { to, active })));
    }

    /// Says whose presence this device wants to hear of, instead of what was said before. Said again in each session.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn watch(&self, watch: Watch) -> Result<(), QueryError> {
        self.request(Request::Watch(watch)).await
    }

    /// The conversations this device knows, the one with the newest message first.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub async fn conversations(&self) -> Result<Vec<LocalConversation>, StateError> {
        self.inner.handles.keeper.read(|store| store.conversations()).await
    }

    /// The newest `limit` messages of a conversation before `before` that this device has, in rising order. Older ones than the newest
    /// thousand are at the server: [`history`](Self::history).
    ///
    /// # Errors
    /// If the state cannot be read.
    pub async fn messages(
        &self,
        conversation: ConversationId,
        before: Option<ConversationSeq>,
        limit: usize,
    ) -> Result<Vec<LocalMessage>, StateError> {
        self.inner.handles.keeper.read(move |store| store.messages(conversation, before, limit)).await
    }

    /// What is in the outbox: commands whose outcome was not taken yet, in order.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub async fn outbox(&self) -> Result<Vec<Waiting>, StateError> {
        self.inner.handles.keeper.read(|store| store.waiting()).await
    }

    /// Says whether somebody looks at what this client shows, such as its connection's state. While somebody does, a connection that died
    /// without a word is noticed within seconds ([`Liveness::active`](crate::Liveness::active)), else more cheaply. Nobody, unless said.
    pub fn active(&self, active: bool) {
        self.inner.handles.active.send_if_modified(|before| std::mem::replace(before, active) != active);
    }

    /// Says that the network is another one now. A connection over QUIC moves there and is the same session, if it works; else there is a
    /// new one at once, without waiting for the old one to be found dead. The client looks for another address by itself: on Linux when the
    /// system gives notice, elsewhere twice a second while it is [active](Self::active) and seldom otherwise; an application that is told by its
    /// system is quicker.
    pub fn network_changed(&self) {
        // If the queue is full the driver is busy with requests, and its own probes find a dead connection.
        let _ = self.inner.handles.requests.try_send(Request::NetworkChanged);
    }

    /// Says that the application is suspended, or about to be: the server hands what comes to push at once, and the user does not look online
    /// for this device. The session stays for as long as the system lets it, and says as little as it can. Returns when the server knows, or
    /// when there is no connection: it is told in the next one then. At most after 5 s: systems do not give more.
    pub async fn background(&self) {
        self.say_background(true).await;
    }

    /// The opposite of [`background`](Self::background): somebody is there. Whether the connection lives is found out at once, and a lost one is
    /// tried again without waiting, unless the server asked for patience.
    pub async fn foreground(&self) {
        self.say_background(false).await;
    }

    async fn say_background(&self, background: bool) {
        let (known, wait) = oneshot::channel();
        let say = async {
            if self.inner.handles.requests.send(Request::Background(background, known)).await.is_ok() {
                // Dropped without an answer: the client has ended.
                let _ = wait.await;
            }
        };
        // It goes on without us.
        let _ = tokio::time::timeout(BACKGROUND_TIMEOUT, say).await;
    }

    /// Says which transport to use from now on. A session over another one goes on until the new connection is there, and then over that,
    /// with nothing lost or told twice; as long as it is not, it is tried again, less and less often.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn set_transport(&self, transport: Transport) -> Result<(), QueryError> {
        self.request(Request::Transport(transport)).await
    }

    /// Ends the client: stores and acknowledges what is done, says goodbye to the server, and lets go of the state folder. Returns when
    /// that is so. What is in the outbox stays there.
    pub async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.inner.handles.requests.send(Request::Close(closed)).await.is_ok() {
            // Dropped without an answer says the same.
            let _ = wait.await;
        }
        // However it ended, the driver says so last.
        let mut connection = self.connection();
        let _ = connection.wait_for(|state| matches!(state, Connection::Ended { .. })).await;
    }
}

/// A command that is stored, and whose outcome can be waited for.
#[derive(Debug)]
pub struct Ticket {
    nonce: Nonce,
    outcome: oneshot::Receiver<Result<Sent, OutcomeError>>,
}

impl Ticket {
    /// The command's name for its life: also in [`Outcome::nonce`](crate::Outcome::nonce) and [`Waiting::nonce`].
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// Waits until the server has carried the command out, or refused it.
    ///
    /// # Errors
    /// If it was refused, or the client ended first.
    pub async fn outcome(self) -> Result<Sent, OutcomeError> {
        self.outcome.await.unwrap_or(Err(OutcomeError::Ended))
    }
}

/// A message of this device is durable at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// The command that made it.
    pub cseq: CommandSeq,
    /// Where it is.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: ConversationSeq,
    /// When it was committed.
    pub time: Time,
    /// What the news of it came over.
    pub transport: TransportKind,
}
