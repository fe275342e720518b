//! A client of bare frames: it does what a test says, right or wrong.

use super::Link;
use std::collections::VecDeque;
use std::net::SocketAddr;
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{
    Ack, ClientFrame, Command, CommandBody, Content, Event, EventBody, Hello, Origin, Position, Send, ServerFrame, Target, Welcome,
};
use whimbrel_protocol::{CommandSeq, DeviceId, Incarnation, MailboxSeq, Nonce, TransportKind, UserId, VERSION_MAX, VERSION_MIN};

/// A device with a session: numbers its commands, keeps its cursor.
pub struct Frames {
    pub link: Link,
    pub welcome: Welcome,
    pub cseq: CommandSeq,
    pub cursor: MailboxSeq,
    /// Frames that came while a test waited for others.
    pub aside: VecDeque<ServerFrame>,
}

pub fn hello(user: &str, device: &str) -> Hello {
    Hello {
        min_version: VERSION_MIN,
        max_version: VERSION_MAX,
        user: UserId::new(user).unwrap(),
        device: DeviceId::new(device).unwrap(),
        token: String::new(),
        agent: "tests".into(),
        instance: Nonce::default(),
        attempt: 0,
        incarnation: Incarnation(0),
        position: None,
        origin: Origin::Oldest,
        extensions: Vec::new(),
    }
}

pub fn text(text: &str) -> Content {
    Content::text(text)
}

impl Frames {
    /// A session that begins at the oldest entry, with a new outbox.
    pub async fn enter(address: SocketAddr, form: Form, user: &str, device: &str) -> Self {
        Self::enter_with(address, form, hello(user, device)).await
    }

    pub async fn enter_with(address: SocketAddr, form: Form, hello: Hello) -> Self {
        Self::begin(Link::open(address, form).await, hello).await
    }

    /// The same as [`enter`](Self::enter), over any transport.
    pub async fn over(address: SocketAddr, kind: TransportKind, user: &str, device: &str) -> Self {
        Self::begin(Link::over(address, kind).await, hello(user, device)).await
    }

    async fn begin(mut link: Link, hello: Hello) -> Self {
        link.send(&ClientFrame::Hello(hello)).await;
        Self::welcomed(link).await
    }

    /// A session whose hello was said.
    pub async fn welcomed(mut link: Link) -> Self {
        match link.next().await {
            Some(ServerFrame::Welcome(welcome)) => {
                let (cseq, cursor) = (welcome.applied, welcome.begin.cursor);
                Self { link, welcome, cseq, cursor, aside: VecDeque::new() }
            }
            other => panic!("instead of Welcome came {other:?}"),
        }
    }

    /// The position to come back with.
    pub fn position(&self, time: whimbrel_protocol::Time) -> Position {
        Position { epoch: self.welcome.epoch, cursor: self.cursor, time }
    }

    pub async fn command(&mut self, body: impl Into<CommandBody>) -> CommandSeq {
        self.cseq = self.cseq.next();
        let nonce = Nonce(rand::random());
        let command = Command { incarnation: self.welcome.incarnation, cseq: self.cseq, nonce, body: body.into() };
        self.link.send(&ClientFrame::Command(command)).await;
        self.cseq
    }

    pub async fn say(&mut self, to: &str, words: &str) -> CommandSeq {
        let to = Target::User(UserId::new(to).unwrap());
        self.command(Send { to, content: text(words) }).await
    }

    /// The next frame that `wanted` takes; others are put aside.
    pub async fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&ServerFrame) -> Option<T>) -> T {
        if let Some(at) = self.aside.iter().position(|frame| wanted(frame).is_some()) {
            let frame = self.aside.remove(at).unwrap();
            return wanted(&frame).unwrap();
        }
        loop {
            let frame = self.link.next().await.unwrap_or_else(|| panic!("the server closed while {what} was expected"));
            match wanted(&frame) {
                Some(found) => return found,
                None => self.aside.push_back(frame),
            }
        }
    }

    /// Waits until the command is durable.
    pub async fn applied(&mut self, cseq: CommandSeq) {
        self.wait("Applied", |frame| match frame {
            ServerFrame::Applied(applied) if applied.cseq >= cseq => Some(()),
            _ => None,
        })
        .await;
    }

    /// The next event, which must be the next in the mailbox.
    pub async fn event(&mut self) -> Event {
        let event = self
            .wait("an event", |frame| match frame {
                ServerFrame::Event(event) => Some(event.clone()),
                _ => None,
            })
            .await;
        assert_eq!(event.seq, self.cursor.next(), "the mailbox has a gap or a double: {event:?}");
        self.cursor = event.through();
        event
    }

    /// The next event of a kind, as `wanted` takes it; others are stepped over.
    pub async fn event_of<T>(&mut self, mut wanted: impl FnMut(&EventBody) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.event().await.body) {
                return found;
            }
        }
    }

    /// The text of the next message of somebody else.
    pub async fn message(&mut self) -> String {
        self.event_of(|body| match body {
            EventBody::Message(message) => Some(message.content.text.clone()),
            _ => None,
        })
        .await
    }

    pub async fn ack(&mut self) {
        self.link.send(&ClientFrame::Ack(Ack { seq: self.cursor })).await;
    }
}
