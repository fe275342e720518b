//! A client of bare frames over WebSocket: it does what a test says, right or wrong.

use super::within;
use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{
    Ack, ClientFrame, Command, CommandBody, Content, ContentKind, Error as ErrorFrame, Event, EventBody, Hello, Origin, Position, Send,
    ServerFrame, Target, Welcome,
};
use whimbrel_protocol::{CommandSeq, DeviceId, Incarnation, MailboxSeq, Nonce, UserId, VERSION_MAX, VERSION_MIN};

/// A WebSocket on which frames go.
pub struct Link {
    socket: WebSocketStream<TcpStream>,
    form: Form,
}

impl Link {
    pub async fn open(address: SocketAddr, form: Form) -> Self {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        let name = match form {
            Form::Postcard => "whimbrel.v1.postcard",
            Form::Json => "whimbrel.v1.json",
        };
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        Self { socket, form }
    }

    pub async fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(self.form.encode(frame).unwrap()).await;
    }

    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        let message = match self.form {
            Form::Postcard => Message::binary(bytes),
            Form::Json => Message::text(String::from_utf8(bytes).unwrap()),
        };
        self.send_message(message).await.unwrap();
    }

    pub async fn send_message(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    /// The next frame; `None` once the server closed or the connection broke.
    pub async fn next(&mut self) -> Option<ServerFrame> {
        loop {
            return match within("a frame", self.socket.next()).await? {
                Ok(Message::Binary(bytes)) => Some(self.form.decode(&bytes).expect("the server sent something else than a frame")),
                Ok(Message::Text(text)) => Some(self.form.decode(text.as_bytes()).expect("the server sent something else than a frame")),
                Ok(Message::Close(_)) | Err(_) => None,
                Ok(_) => continue,
            };
        }
    }

    /// The error that must come, and the end that must follow.
    pub async fn error(&mut self) -> ErrorFrame {
        loop {
            match self.next().await.expect("the server closed without an error") {
                ServerFrame::Error(error) => {
                    while self.next().await.is_some() {}
                    return error;
                }
                _ => continue,
            }
        }
    }
}

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
    Content { kind: ContentKind::Text, text: text.into() }
}

impl Frames {
    /// A session that begins at the oldest entry, with a new outbox.
    pub async fn enter(address: SocketAddr, form: Form, user: &str, device: &str) -> Self {
        Self::enter_with(address, form, hello(user, device)).await
    }

    pub async fn enter_with(address: SocketAddr, form: Form, hello: Hello) -> Self {
        let mut link = Link::open(address, form).await;
        link.send(&ClientFrame::Hello(hello)).await;
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
