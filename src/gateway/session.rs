//! The session of a user of Socket.IO: between the events of the contract and the frames of our protocol, it is a client within the server.
//! What it has taken is what the client at the other end has taken.

use super::contract::{User, event};
use super::guest::Guest;
use super::outgoing::Outgoing;
use super::port::Port;
use super::queue::What;
use super::seat::Seat;
use super::wire::{Paused, Progress};
use super::wish::{Asked, Wish, nonce};
use super::{GOING_DOWN, Gateway};
use crate::session::{Admitted, serve_at};
use crate::transport::{FrameSource, LinkError, Peer, Received};
use socketioxide::extract::AckSender;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use whimbrel_protocol::frame::{
    Ack, ClientFrame, ClientState, CommandBody, Content, Direction, Extension, Hello, History, Origin, Ping, Position, Query, Send, Signal,
    Target, Typing, Watch,
};
use whimbrel_protocol::{MailboxSeq, Nonce, QUERIES_MAX, QueryId, TransportKind, Uplink, UserId, VERSION_MAX, VERSION_MIN};

/// Messages that an answer to a question for history holds at most.
pub(super) const HISTORY_MAX: u32 = 500;

/// How long a client has to say what it took, when the server ended its session.
const SETTLING: Duration = Duration::from_millis(500);

/// Messages on their way to the log, at most.
const UNDER_WAY: usize = 64;

/// A message that is on its way to the log.
pub(super) struct Sending {
    pub to: UserId,
    /// What its client calls it.
    pub id: Option<String>,
    /// If the client wants to be called back.
    pub answer: Option<AckSender>,
}

/// A message of an earlier session on this connection that was taken in, or may have been: what became of it was not told.
#[derive(Default)]
pub(super) struct Untold {
    /// To whom it was, if it is still to be found out whether they are away; or whether they were.
    pub to: Option<UserId>,
    pub is_away: bool,
    /// If the client wants to be called back.
    pub answer: Option<AckSender>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The server leaves.
    Away,
    /// Not now: again after so long.
    Later(Duration),
    /// It was refused, or ended, for a reason.
    Refused(String),
}

/// What both directions of a session know.
pub(super) struct Talk {
    pub user: UserId,
    pub profile: User,
    begun: Instant,
    uplink: Uplink,
    /// Messages that are not in the log yet, by their commands' numbers, oldest first.
    pub sending: std::collections::BTreeMap<u64, Sending>,
    /// What of earlier sessions was not told, by what its client calls it.
    pub untold: HashMap<String, Untold>,
    /// What such a session could not tell, and the log will not tell again.
    pub left: Vec<What>,
    /// Questions that are not answered.
    pub asked: std::collections::BTreeMap<QueryId, Asked>,
    next_query: u64,
    /// Entries of the mailbox that were told, and the number of the last event that told them.
    pub told: std::collections::VecDeque<(u64, MailboxSeq)>,
    /// How far this client has been told, and how far it has got, if anywhere yet.
    pub told_through: Option<MailboxSeq>,
    taken: Option<MailboxSeq>,
    /// The newest entry of the mailbox when this client came, once that is known.
    pub came_at: Option<MailboxSeq>,
    /// Everybody's presence is to be told from now on.
    pub watch: bool,
    /// The client wants to look offline.
    background: bool,
}

/// Shared by the two halves, which run in one task.
pub(super) type Shared = Arc<Mutex<Talk>>;

pub(super) fn lock(talk: &Mutex<Talk>) -> MutexGuard<'_, Talk> {
    talk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Talk {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// `true` if it is the first of this client.
    pub fn on_welcome(&mut self, welcome: &whimbrel_protocol::frame::Welcome) -> bool {
        // It asked for a new outbox: there is nothing to disagree about.
        let _ = self.uplink.on_welcome(welcome);
        self.watch = true;
        let is_first = self.came_at.is_none();
        self.came_at.get_or_insert(welcome.head);
        is_first
    }

    /// A message is in the log.
    pub fn on_sent(&mut self, cseq: u64) -> Option<Sending> {
        let sending = self.sending.remove(&cseq);
        if let Some(id) = sending.as_ref().and_then(|sending| sending.id.as_ref()) {
            self.untold.remove(id);
        }
        sending
    }

    pub fn on_applied(&mut self, cseq: whimbrel_protocol::CommandSeq) {
        self.uplink.on_applied(cseq);
    }

    pub fn on_busy(&mut self, busy: whimbrel_protocol::frame::Busy) {
        let now = self.now();
        self.uplink.on_busy(busy.cseq, Duration::from_millis(busy.retry_after_ms.into()), now);
    }

    /// What else the client has now.
    fn take_told(&mut self, progress: Progress) -> Option<MailboxSeq> {
        let mut taken = None;
        while let Some((_, seq)) = self.told.pop_front_if(|(number, _)| *number <= progress.taken) {
            taken = Some(seq);
        }
        self.taken = taken.or(self.taken);
        taken
    }

    /// The next frame for the server, of what the client has wished for or taken.
    fn next(&mut self, progress: Progress) -> Option<ClientFrame> {
        if let Some(seq) = self.take_told(progress) {
            return Some(ClientFrame::Ack(Ack { seq }));
        }
        let now = self.now();
        if let Some(command) = self.uplink.poll_transmit(now) {
            return Some(ClientFrame::Command(command.clone()));
        }
        if std::mem::take(&mut self.watch) {
            return Some(ClientFrame::Signal(Signal::Watch(Watch { users: Vec::new(), everyone: true, lobby: false })));
        }
        None
    }

    /// What came to nothing when a session ended before its time: to be wished for again, in its order.
    fn take_back(&mut self) -> VecDeque<Wish> {
        let mut again = VecDeque::new();
        if self.background {
            again.push_back(Wish::Status { background: true });
        }
        for command in self.uplink.pending() {
            let Some(Sending { to, id, answer }) = self.sending.remove(&command.cseq.0) else { continue };
            if let CommandBody::Send(send) = &command.body {
                let text = send.content.text.clone();
                let beside = send.content.extensions.first().map(|extension| extension.value.clone()).unwrap_or_default();
                again.push_back(Wish::Message { to, id, text, beside, answer });
            }
        }
        for (_, asked) in std::mem::take(&mut self.asked) {
            if let Ok(with) = UserId::new(&asked.friend_id) {
                again.push_back(Wish::History { with, asked });
            }
        }
        again
    }

    /// Whether another wish can be taken.
    fn has_room(&self) -> bool {
        self.uplink.waiting() < UNDER_WAY && self.asked.len() < QUERIES_MAX
    }

    /// Takes a wish; what it becomes, if it is not a command.
    fn wish(&mut self, wish: Wish) -> Option<ClientFrame> {
        match wish {
            Wish::Message { to, id, text, beside, answer } => {
                let nonce = nonce(&to, &beside, &text);
                let extensions = vec![Extension { key: Content::SOCKET_IO, value: beside }];
                let content = Content { extensions, ..Content::text(text) };
                let command = self.uplink.enqueue(nonce, Send { to: Target::User(to.clone()), content }.into());
                self.sending.insert(command.cseq.0, Sending { to, id, answer });
                None
            }
            Wish::Typing { to, active } => Some(ClientFrame::Signal(Signal::Typing(Typing { to: Target::User(to), active }))),
            Wish::Status { background } => {
                self.background = background;
                Some(ClientFrame::Signal(Signal::State(ClientState { background, ask_after_s: 0 })))
            }
            Wish::History { with, asked } => {
                self.next_query += 1;
                let id = QueryId(self.next_query);
                self.asked.insert(id, asked);
                let history =
                    History { of: Target::User(with), from: Default::default(), direction: Direction::Backwards, limit: HISTORY_MAX };
                Some(ClientFrame::Query(Query { id, body: history.into() }))
            }
        }
    }
}

/// What outlives a session that ended before its time: the client is still there.
#[derive(Default)]
struct Kept {
    /// What it wanted in vain.
    again: VecDeque<Wish>,
    /// As in [`Talk`].
    untold: HashMap<String, Untold>,
    left: Vec<What>,
    /// Where its first session began, once one did.
    begin: Option<Option<MailboxSeq>>,
    /// As in [`Talk`].
    told_through: Option<MailboxSeq>,
    taken: Option<MailboxSeq>,
    came_at: Option<MailboxSeq>,
}

/// Stays until the client goes, or the server.
pub(super) async fn run(
    gateway: Arc<Gateway>,
    port: Arc<Port>,
    place: Arc<Admitted>,
    user: UserId,
    profile: User,
    mut wishes: mpsc::Receiver<Wish>,
) {
    let (_here, renamed) = gateway.people.enter(&user, profile.clone(), port.clone());
    if renamed {
        gateway.context.engine.hub().announce(&user);
    }
    let mut kept = Kept::default();
    loop {
        match stay(&gateway, &port, &place, &user, &profile, &mut kept, &mut wishes).await {
            Some(Ended::Later(wait)) => {
                port.put_off.store(true, Ordering::Relaxed);
                port.wire.pause(Paused::Wishes, false);
                let (later, mut leaving) = (sleep(wait), gateway.leaving.subscribe());
                tokio::pin!(later);
                // Its wishes wait too, but for a client that leaves.
                tokio::select! {
                    () = &mut later => {}
                    () = port.gone() => return,
                    // It fails only when the server is gone.
                    _ = leaving.wait_for(|leaving| *leaving) => return port.say(event::SHUTDOWN, GOING_DOWN),
                }
                port.put_off.store(false, Ordering::Relaxed);
            }
            Some(Ended::Away) => return,
            // The connection may go on, with another socket.
            _ if port.is_gone() => return,
            // It has been told why. Most log in when they connect, and only then.
            Some(Ended::Refused(_)) | None => {
                if timeout(SETTLING, port.has_left()).await.is_err() {
                    tracing::debug!("a client did not take the reason");
                }
                return port.wire.cut();
            }
        }
    }
}

/// A session; how the server ended it, if it did.
async fn stay(
    gateway: &Arc<Gateway>,
    port: &Arc<Port>,
    place: &Arc<Admitted>,
    user: &UserId,
    profile: &User,
    kept: &mut Kept,
    wishes: &mut mpsc::Receiver<Wish>,
) -> Option<Ended> {
    let seat = match Seat::take(gateway, user).await {
        Ok(seat) => seat,
        Err(why) if why.retry_after_ms > 0 => return Some(Ended::Later(Duration::from_millis(why.retry_after_ms.into()))),
        Err(why) => {
            port.say(event::ERROR, format!("{}: {}", event::LOGIN, why.message));
            return Some(Ended::Refused(why.message));
        }
    };
    let begin = kept.begin.unwrap_or(seat.begin());
    let epoch = gateway.context.engine.epoch();
    let hello = Hello {
        min_version: VERSION_MIN,
        max_version: VERSION_MAX,
        user: user.clone(),
        device: seat.device().clone(),
        token: String::new(),
        agent: "socket.io".into(),
        instance: Nonce(rand::random()),
        attempt: 1,
        incarnation: Default::default(),
        position: kept.taken.or(begin).map(|cursor| Position { epoch, cursor, time: Default::default() }),
        origin: Origin::Oldest,
        extensions: Vec::new(),
    };
    let talk = Arc::new(Mutex::new(Talk {
        user: user.clone(),
        profile: profile.clone(),
        begun: Instant::now(),
        uplink: Uplink::default(),
        sending: Default::default(),
        untold: std::mem::take(&mut kept.untold),
        left: std::mem::take(&mut kept.left),
        asked: Default::default(),
        next_query: 0,
        told: Default::default(),
        told_through: kept.told_through,
        taken: kept.taken,
        came_at: kept.came_at,
        watch: false,
        background: false,
    }));
    let remote = port.remote();
    let (ending, ended) = watch::channel(None);
    let sink = Outgoing::new(gateway.clone(), port.clone(), talk.clone(), ending);
    let progress = port.wire.progress();
    let source = Incoming {
        hello: Some(hello),
        talk: talk.clone(),
        progress,
        heard: 0,
        again: &mut kept.again,
        wishes,
        port: port.clone(),
        seat: &seat,
        over: false,
        ended: ended.clone(),
    };
    let peer = Peer { kind: TransportKind::SocketIo, remote, early: None };
    serve_at(Some(place.clone()), gateway.context.clone(), peer, source, sink).await;
    let is_here = ended.borrow().is_some();
    settle(&talk, &mut port.wire.progress(), &seat, is_here).await;
    let mut talk = lock(&talk);
    let mut again = talk.take_back();
    again.append(&mut kept.again);
    let mut untold = std::mem::take(&mut talk.untold);
    let sending = std::mem::take(&mut talk.sending).into_values();
    untold.extend(sending.filter_map(|Sending { to, id, answer }| Some((id?, Untold { to: Some(to), is_away: false, answer }))));
    // These may be in the log too: then they come back before what is made of them when they are sent again.
    for wish in &again {
        if let Wish::Message { id: Some(id), .. } = wish {
            untold.entry(id.clone()).or_default();
        }
    }
    let left = std::mem::take(&mut talk.left);
    let begin = kept.begin.or(talk.came_at.map(|_| begin));
    *kept = Kept { again, untold, left, begin, told_through: talk.told_through, taken: talk.taken, came_at: talk.came_at };
    ended.borrow().clone()
}

/// Notes what the client has taken since its session ended: where that was the server's doing, it still answers.
async fn settle(talk: &Mutex<Talk>, progress: &mut watch::Receiver<Progress>, seat: &Seat, is_here: bool) {
    let taken = async {
        loop {
            let now = *progress.borrow_and_update();
            let (taken, rest) = {
                let mut talk = lock(talk);
                (talk.take_told(now), !talk.told.is_empty())
            };
            if let Some(seq) = taken {
                seat.on_ack(seq);
            }
            // The wire is the port's, and ends after it.
            if !(is_here && rest) || progress.changed().await.is_err() {
                return;
            }
        }
    };
    if timeout(SETTLING, taken).await.is_err() {
        tracing::debug!("a client did not say whether it took what it was told last: it is told again");
    }
}

/// What comes from the client.
struct Incoming<'a> {
    hello: Option<Hello>,
    talk: Shared,
    progress: watch::Receiver<Progress>,
    heard: u64,
    /// What a session before wanted in vain.
    again: &'a mut VecDeque<Wish>,
    wishes: &'a mut mpsc::Receiver<Wish>,
    port: Arc<Port>,
    seat: &'a Seat,
    /// The client wants nothing more.
    over: bool,
    /// The session has ended: what else the client wants is for the next.
    ended: watch::Receiver<Option<Ended>>,
}

impl FrameSource for Incoming<'_> {
    async fn next(&mut self) -> Result<Option<Received>, LinkError> {
        if let Some(hello) = self.hello.take() {
            return Ok(Some(ClientFrame::Hello(hello).into()));
        }
        loop {
            if self.ended.borrow().is_some() {
                return Ok(None);
            }
            let progress = *self.progress.borrow_and_update();
            Guest::tell_refused(&self.port);
            let (frame, room, due, waiting) = {
                let mut talk = lock(&self.talk);
                let due = talk.uplink.poll_timeout().map(|at| talk.begun + at);
                (talk.next(progress), talk.has_room(), due, talk.uplink.waiting())
            };
            if let Some(frame) = frame {
                if let ClientFrame::Ack(ack) = &frame {
                    self.seat.on_ack(ack.seq);
                }
                return Ok(Some(frame.into()));
            }
            if std::mem::replace(&mut self.heard, progress.heard) != progress.heard {
                return Ok(Some(ClientFrame::Pong(Ping { id: 0 }).into()));
            }
            if room && let Some(wish) = self.again.pop_front() {
                if let Some(frame) = lock(&self.talk).wish(wish) {
                    return Ok(Some(frame.into()));
                }
                continue;
            }
            if self.over && waiting == 0 {
                return Ok(None);
            }
            tokio::select! {
                wish = self.wishes.recv(), if room && !self.over => {
                    let Some(wish) = wish else {
                        // What it said last is taken, whether it is still there or not.
                        self.over = true;
                        continue;
                    };
                    Guest::worked_off(&self.port, &wish, self.wishes.len());
                    if let Some(frame) = lock(&self.talk).wish(wish) {
                        return Ok(Some(frame.into()));
                    }
                }
                // The wire is the port's, and ends after it.
                _ = self.progress.changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }
}
