//! The frames of our protocol, as the events that clients of Socket.IO know.

use super::contract::{Beside, Done, History, Message, Payload, Sent, Status, TypingFrom, Words, event};
use super::port::{NotSent, Port};
use super::queue::{Find, Queue, What};
use super::receipts::Receipts;
use super::session::{Ended, HISTORY_MAX, Sending, Shared, Untold, lock};
use super::wire::Progress;
use super::wish::Asked;
use super::{GOING_DOWN, Gateway, LISTED_MAX, REFUSED};
use crate::transport::{FrameSink, LinkError};
use socketioxide::extract::AckSender;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use whimbrel_protocol::codec::CodecError;
use whimbrel_protocol::frame::{AnswerBody, Event, EventBody, PresenceState, Receipt, Rejected, ServerFrame, ServerSignal, StoredMessage};
use whimbrel_protocol::{ConversationId, ConversationSeq, MailboxSeq, QueryId, Time, UserId};

/// Events that were handed over and have not left, at most.
const HANDED_OVER_MAX: u64 = super::PACKETS_MAX as u64 * 3 / 4;
/// What is said of a message that is in the log, and of one whose recipient is away.
const SENT: &str = "sent";
const OFFLINE: &str = "offline";
/// After so long what could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How long a client has to take what is left when its session ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Server frames to a client of Socket.IO.
pub(super) struct Outgoing {
    gateway: Arc<Gateway>,
    port: Arc<Port>,
    talk: Shared,
    progress: watch::Receiver<Progress>,
    queue: Queue,
    receipts: Receipts,
    pages: HashMap<QueryId, Vec<StoredMessage>>,
    /// Who was online when the client was told first, or came since, and is no news; and when it is told anew.
    online: BTreeSet<UserId>,
    list_at: Option<Instant>,
    listed: Instant,
    /// Bytes of the last list.
    list_bytes: usize,
    /// How the session ended, if it is the server that ended it.
    pub ended: watch::Sender<Option<Ended>>,
}

fn id_of(conversation: ConversationId, seq: ConversationSeq, beside: &Beside) -> String {
    beside.message_id.clone().unwrap_or_else(|| format!("{conversation}-{seq}"))
}

impl Outgoing {
    pub fn new(gateway: Arc<Gateway>, port: Arc<Port>, talk: Shared, ended: watch::Sender<Option<Ended>>) -> Self {
        let progress = port.wire.progress();
        let left = std::mem::take(&mut lock(&talk).left);
        let mut outgoing = Self {
            gateway,
            port,
            talk,
            progress,
            queue: Queue::default(),
            receipts: Receipts::default(),
            pages: HashMap::new(),
            online: BTreeSet::new(),
            list_at: None,
            listed: Instant::now(),
            list_bytes: 0,
            ended,
        };
        left.into_iter().for_each(|what| outgoing.add(None, 0, Some(what)));
        outgoing
    }

    fn add(&mut self, through: Option<MailboxSeq>, bytes: usize, what: Option<What>) {
        self.queue.add(through, bytes, what);
    }

    fn tell(&mut self, name: &'static str, payload: Payload) {
        self.add(None, 0, Some(What::Told(name, payload)));
    }

    fn message(&self, to: &str, conversation: ConversationId, stored: &StoredMessage) -> Message {
        let beside = Beside::of(&stored.content);
        let from_id = stored.from.to_string();
        Message {
            id: id_of(conversation, stored.seq, &beside),
            from_name: beside.from_name.unwrap_or_else(|| self.gateway.people.name(&stored.from)),
            from_id,
            to_id: to.to_owned(),
            topic: beside.topic.unwrap_or_default(),
            content: stored.content.text.clone(),
            r#type: beside.r#type.unwrap_or_default(),
            timestamp: beside.timestamp.unwrap_or_else(|| stored.time.0.into()),
            server_timestamp: stored.time.0,
            file_url: beside.file_url,
            file_name: beside.file_name,
        }
    }

    fn on_event(&mut self, event: Event) {
        let (through, time) = (Some(event.through()), event.time);
        let (me, told_through) = {
            let talk = lock(&self.talk);
            (talk.user.clone(), talk.told_through)
        };
        match event.body {
            // An earlier session has told it, on this connection.
            _ if through <= told_through => self.add(through, 0, None),
            EventBody::Message(message) => {
                let bytes = message.content.size();
                match message.from.clone() {
                    Some(from) if from != me => {
                        let stored = StoredMessage { seq: message.seq, time, from, content: message.content };
                        let told = self.message(me.as_str(), message.conversation, &stored);
                        self.add(through, bytes, Some(What::Told(event::MESSAGE, Payload::Message(Box::new(told)))));
                    }
                    _ => self.on_own(through, message, time),
                }
            }
            EventBody::Sent(sent) => {
                let known = lock(&self.talk).on_sent(sent.cseq.0);
                let (conversation, seq) = (sent.conversation, sent.seq);
                let Some(Sending { to, id: Some(id), answer }) = known else {
                    return self.add(through, 0, Some(What::Find(Find::Nameless { conversation, seq, time })));
                };
                self.receipts.on_sent(conversation, seq, id.clone());
                let is_away = self.is_away(&to);
                self.tell_sent(through, id, time, answer, is_away);
            }
            EventBody::Rejected(Rejected { cseq, message, .. }) => {
                let sending = lock(&self.talk).sending.remove(&cseq.0);
                let (id, answer) = sending.map_or_else(Default::default, |sending| (sending.id.unwrap_or_default(), sending.answer));
                metrics::counter!(REFUSED).increment(1);
                let message = format!("{id}: {message}");
                if let Some(answer) = answer {
                    self.call_back(answer, Payload::Done(Done::of(Err(message.clone()))), 0);
                }
                let message = format!("{}: {message}", event::MESSAGE);
                self.add(through, 0, Some(What::Told(event::ERROR, Payload::Words(Words { message }))));
            }
            EventBody::Receipt(receipt) if receipt.user.as_ref() != Some(&me) => {
                self.add(through, 0, Some(What::Find(Find::Receipt { receipt, time })));
            }
            EventBody::Receipt(_) | EventBody::Started(_) | EventBody::Skip(_) | EventBody::Unknown(_) => self.add(through, 0, None),
        }
    }

    /// A message of this user that no command of this session was.
    fn on_own(&mut self, through: Option<MailboxSeq>, message: whimbrel_protocol::frame::Message, time: Time) {
        let id = Beside::of(&message.content).message_id;
        let (is_earlier, untold) = {
            let mut talk = lock(&self.talk);
            // What a socket of this user sent before this one came: most likely it is that client that is here again, and it shows its message
            // already. What it may not have is the receipt.
            (through <= talk.came_at, id.as_ref().and_then(|id| talk.untold.remove(id)))
        };
        let Some(message_id) = id.filter(|_| is_earlier || untold.is_some()) else {
            let bytes = message.content.size();
            return self.add(through, bytes, Some(What::Find(Find::Own(Box::new(message), time))));
        };
        let Untold { to, is_away, answer } = untold.map_or_else(Untold::default, |untold| {
            self.receipts.on_sent(message.conversation, message.seq, message_id.clone());
            untold
        });
        let is_away = is_away || to.is_some_and(|to| self.is_away(&to));
        self.tell_sent(through, message_id, time, answer, is_away);
    }

    /// Whether somebody else is not here.
    fn is_away(&self, user: &UserId) -> bool {
        lock(&self.talk).user != *user && !self.gateway.context.engine.hub().is_online(user)
    }

    /// A message is in the log.
    fn tell_sent(&mut self, through: Option<MailboxSeq>, message_id: String, time: Time, answer: Option<AckSender>, is_away: bool) {
        let status = |status| Payload::Sent(Sent { message_id: message_id.clone(), status, timestamp: time.0 });
        if let Some(answer) = answer {
            self.call_back(answer, status(SENT), 0);
        }
        self.add(through, 0, Some(What::Told(event::SENT, status(SENT))));
        if is_away {
            self.tell(event::SENT, status(OFFLINE));
        }
    }

    fn on_signal(&mut self, signal: ServerSignal) {
        match signal {
            // It does not ask for it: who logs in has left the lobby.
            ServerSignal::Lobby(_) => {}
            ServerSignal::Typing(typing) => {
                let from_name = self.gateway.people.name(&typing.user);
                let typing = TypingFrom { from_id: typing.user.to_string(), from_name, is_typing: typing.active };
                self.tell(event::TYPING, Payload::Typing(typing));
            }
            ServerSignal::Presence(changes) => {
                // The list tells it to the many.
                let each = self.gateway.context.engine.hub().online_count() <= LISTED_MAX;
                if !each {
                    self.online.clear();
                }
                for change in changes.into_iter().filter(|_| each) {
                    let is_online = change.state == PresenceState::Online;
                    let was_known = if is_online { !self.online.insert(change.user.clone()) } else { self.online.remove(&change.user) };
                    // Who goes is news, known or not: with many nobody is kept in mind.
                    if !(is_online && was_known) && change.user != lock(&self.talk).user {
                        let (user_id, status) = (change.user.to_string(), if is_online { "online" } else { "offline" });
                        let timestamp = crate::engine::wall_clock().0;
                        self.tell(event::STATUS, Payload::Status(Status { user_id, status, timestamp }));
                    }
                }
                self.list_at.get_or_insert(self.listed + self.gateway.list_every(self.list_bytes));
            }
        }
    }

    fn on_answer(&mut self, answer: whimbrel_protocol::frame::Answer) {
        match answer.body {
            AnswerBody::History(page) => {
                self.pages.entry(answer.id).or_default().extend(page.messages);
                if !answer.last {
                    return;
                }
                let messages = self.pages.remove(&answer.id).unwrap_or_default();
                let Some(asked) = lock(&self.talk).asked.remove(&answer.id) else { return };
                self.answer(asked, page.conversation, &messages);
            }
            AnswerBody::Refused(refused) => {
                self.pages.remove(&answer.id);
                let Some(asked) = lock(&self.talk).asked.remove(&answer.id) else { return };
                match refused.code {
                    // Nothing was said yet.
                    whimbrel_protocol::ErrorCode::NotFound => self.answer(asked, ConversationId(0), &[]),
                    _ => {
                        let message = format!("{}: {}", event::GET_HISTORY, refused.message);
                        if let Some(answer) = asked.answer {
                            self.call_back(answer, Payload::Done(Done::of(Err(message.clone()))), 0);
                        }
                        self.tell(event::ERROR, Payload::Words(Words { message }));
                    }
                }
            }
            AnswerBody::Online(_) | AnswerBody::Unknown(_) => {}
        }
    }

    /// Calls back, behind what waits.
    fn call_back(&mut self, answer: AckSender, data: Payload, bytes: usize) {
        self.add(None, bytes, Some(What::Answer(answer, data)));
    }

    /// Answers a question for history: calls back, or tells it as an event.
    fn answer(&mut self, asked: Asked, conversation: ConversationId, messages: &[StoredMessage]) {
        let Asked { friend_id, topic, answer } = asked;
        let me = lock(&self.talk).user.to_string();
        let wanted = topic.as_deref().filter(|topic| !topic.is_empty());
        let all = messages.iter().map(|stored| {
            let to = if stored.from.as_str() == me { &friend_id } else { &me };
            self.message(to, conversation, stored)
        });
        let messages: Vec<Message> = all.filter(|message| wanted.is_none_or(|topic| message.topic == topic)).collect();
        debug_assert!(messages.len() <= HISTORY_MAX as usize);
        let bytes = messages.iter().map(|message| message.content.len() + 200).sum();
        if let Some(answer) = answer {
            self.call_back(answer, Payload::Messages(messages), bytes);
        } else {
            let history = History { friend_id, topic: topic.unwrap_or_default(), messages };
            self.add(None, bytes, Some(What::Told(event::HISTORY, Payload::History(history))));
        }
    }

    /// What is to be found out is; then what it comes to.
    async fn resolve(&mut self, find: &Find) -> Result<Vec<(&'static str, Payload)>, LinkError> {
        let engine = self.gateway.context.engine.clone();
        Ok(match find {
            Find::Own(message, time) => {
                let me = lock(&self.talk).user.clone();
                let members = engine.members_of(message.conversation).await.map_err(|why| unread(&why))?;
                let to = members.into_iter().find(|member| *member != me).unwrap_or_else(|| me.clone());
                let stored = StoredMessage { seq: message.seq, time: *time, from: me, content: message.content.clone() };
                let told = self.message(to.as_str(), message.conversation, &stored);
                vec![(event::MESSAGE, Payload::Message(Box::new(told)))]
            }
            Find::Nameless { conversation, seq, time } => {
                let found = engine.messages_until(*conversation, *seq, 1).await.map_err(|why| unread(&why))?;
                let message_id = found.first().map(|message| id_of(*conversation, *seq, &Beside::of(&message.content)));
                let sent = |message_id| Payload::Sent(Sent { message_id, status: SENT, timestamp: time.0 });
                message_id.map(|id| (event::SENT, sent(id))).into_iter().collect()
            }
            Find::Receipt { receipt, time } => self.receipts(receipt, *time).await?,
        })
    }

    /// What a receipt says of single messages.
    async fn receipts(&mut self, receipt: &Receipt, time: Time) -> Result<Vec<(&'static str, Payload)>, LinkError> {
        let (me, conversation, engine) = (lock(&self.talk).user.clone(), receipt.conversation, self.gateway.context.engine.clone());
        let look_up = |last, count| engine.messages_until(conversation, last, count);
        let name = |message: &StoredMessage| id_of(conversation, message.seq, &Beside::of(&message.content));
        let told = self.receipts.on_receipt(look_up, &me, receipt, name).await.map_err(|why| unread(&why))?;
        let sent = |(message_id, status)| (event::SENT, Payload::Sent(Sent { message_id, status, timestamp: time.0 }));
        Ok(told.into_iter().map(sent).collect())
    }

    /// Hands over what waits. `false` if the client takes nothing for now.
    async fn hand_over(&mut self) -> Result<bool, LinkError> {
        if self.port.is_gone() {
            self.forget();
            return Ok(true);
        }
        if self.list_at.is_some_and(|at| at <= Instant::now()) {
            self.list();
        }
        while let Some(item) = self.queue.front() {
            // The rest of the way's room is for answers, words and the heartbeat.
            if !self.port.has_room(HANDED_OVER_MAX) {
                return Ok(false);
            }
            let number = match &item.what {
                None | Some(What::Answer(..)) => self.port.wire.emitted(),
                Some(What::Told(name, payload)) => match self.port.emit(name, payload) {
                    Ok(number) => number,
                    Err(NotSent::Full) => return Ok(false),
                    Err(NotSent::Gone(why)) => {
                        tracing::debug!(why, "a client is told nothing more");
                        self.forget();
                        return Ok(true);
                    }
                },
                // It stays at the front until that is done: a future that is dropped meanwhile loses nothing.
                Some(What::Find(find)) => {
                    let find = find.clone();
                    let found = self.resolve(&find).await.inspect_err(|_| {
                        // Another session goes on behind what was told.
                        self.ended.send_replace(Some(Ended::Later(READ_AGAIN)));
                    })?;
                    self.queue.replace_front(found);
                    continue;
                }
            };
            let handed_over = self.queue.hand_over(|what| match what {
                Some(What::Answer(answer, data)) => self.port.answer(answer, &data).unwrap_or(number),
                _ => number,
            });
            let Some((number, through)) = handed_over else { break };
            if let Some(seq) = through {
                let mut talk = lock(&self.talk);
                talk.told.push_back((number, seq));
                talk.told_through = talk.told_through.max(Some(seq));
            }
        }
        Ok(true)
    }

    /// Tells who is online.
    fn list(&mut self) {
        let (users, bytes) = self.gateway.online();
        (self.list_at, self.listed, self.list_bytes) = (None, Instant::now(), bytes);
        self.add(None, bytes, Some(What::Told(event::ONLINE, Payload::Users(users))));
    }

    /// The client is gone. What it said last is still taken; it is told of it when it comes back.
    fn forget(&mut self) {
        self.list_at = None;
        self.queue.take();
    }
}

impl FrameSink for Outgoing {
    fn queued(&self) -> usize {
        self.queue.bytes()
    }

    fn due(&self) -> Option<Instant> {
        self.list_at
    }

    fn push(&mut self, frame: &ServerFrame) -> Result<(), CodecError> {
        match frame.clone() {
            ServerFrame::Welcome(welcome) => {
                let first = {
                    let mut talk = lock(&self.talk);
                    talk.on_welcome(&welcome).then(|| talk.profile.clone())
                };
                if let Some(profile) = first {
                    self.tell(event::LOGGED_IN, Payload::User(profile));
                }
                self.online = self.gateway.context.engine.hub().online("", LISTED_MAX).0.into_iter().collect();
                self.list();
            }
            ServerFrame::Event(event) => self.on_event(event),
            ServerFrame::Applied(applied) => lock(&self.talk).on_applied(applied.cseq),
            ServerFrame::Busy(busy) => lock(&self.talk).on_busy(busy),
            ServerFrame::Answer(answer) => self.on_answer(answer),
            ServerFrame::Signal(signal) => self.on_signal(signal),
            ServerFrame::Error(error) if error.retry_after_ms > 0 => {
                self.ended.send_replace(Some(Ended::Later(Duration::from_millis(error.retry_after_ms.into()))));
            }
            ServerFrame::Error(error) => {
                self.ended.send_replace(Some(Ended::Refused(error.message.clone())));
                self.tell(event::ERROR, Payload::Words(Words { message: error.message }));
            }
            ServerFrame::GoAway(away) if self.gateway.is_leaving() => {
                let _ = away;
                self.ended.send_replace(Some(Ended::Away));
                let message = GOING_DOWN.to_owned();
                self.tell(event::SHUTDOWN, Payload::Words(Words { message }));
            }
            ServerFrame::GoAway(away) => {
                self.ended.send_replace(Some(Ended::Later(Duration::from_millis(away.retry_after_ms.into()))));
            }
            // What a snapshot stands for is beyond what these clients can be told; its end is where their events begin.
            ServerFrame::Snapshot(_) | ServerFrame::Ping(_) | ServerFrame::Pong(_) => {}
        }
        Ok(())
    }

    fn probe(&mut self) -> bool {
        // The heartbeat of Engine.IO does.
        true
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        loop {
            let progress = *self.progress.borrow_and_update();
            self.queue.on_left(progress.written);
            if self.hand_over().await? && self.queue.has_left() {
                return Ok(());
            }
            if self.queue.last_leaving().is_some_and(|number| number <= self.progress.borrow().written) {
                continue;
            }
            tokio::select! {
                changed = self.progress.changed() => {
                    // The wire is the port's, and ends after it.
                    changed.map_err(|_| LinkError::Gone("the connection is gone".into()))?;
                }
                () = self.port.gone() => {}
            }
        }
    }

    async fn close(mut self) {
        // Whether the client takes it or not, the session ends here.
        if tokio::time::timeout(CLOSE_TIMEOUT, self.flush()).await.is_err() {
            tracing::debug!("a client did not take the farewell");
        }
        let mut talk = lock(&self.talk);
        for item in self.queue.take() {
            match item.what {
                Some(What::Told(_, Payload::Sent(sent))) if sent.status == SENT => _ = talk.untold.entry(sent.message_id).or_default(),
                Some(What::Told(name, Payload::Sent(sent))) if sent.status == OFFLINE => match talk.untold.get_mut(&sent.message_id) {
                    Some(untold) => untold.is_away = true,
                    None => talk.left.push(What::Told(name, Payload::Sent(sent))),
                },
                Some(what @ (What::Answer(..) | What::Told(event::LOGGED_IN | event::HISTORY | event::ERROR, _))) => talk.left.push(what),
                // The log tells it again, or it is over.
                _ => {}
            }
        }
    }
}

fn unread(why: &impl Display) -> LinkError {
    tracing::warn!(%why, "what a client of Socket.IO is to be told cannot be read: its session begins anew");
    LinkError::Gone(why.to_string())
}
