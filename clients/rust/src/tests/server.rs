//! A server on loopback. It knows the way in (discovery and WebSocket); what it says then is up to the test, frame by frame.

use super::keys::Keys;
use crate::link::BoxedStream;
use crate::{Builder, Client};
use futures_util::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use whimbrel_protocol::codec::{Form, find_frame};
use whimbrel_protocol::frame::{
    Ack, Applied, Begin, ClientFrame, Command, Content, ConversationKind, ConversationState, Event, EventBody, Hello, MemberState, Query,
    Sent, ServerFrame, Snapshot, Started, StoredMessage, Target, Welcome,
};
use whimbrel_protocol::*;
use wtransport::endpoint::{SessionRequest, endpoint_side};
use wtransport::{Connection, RecvStream, SendStream};

/// Longer than anything takes on a busy machine: who waits this long waits in vain.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Server {
    /// The URL of its HTTP face.
    pub url: String,
    peers: mpsc::Receiver<Peer>,
    arrived: mpsc::Sender<Peer>,
    known: Arc<Mutex<Known>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What faces a server has.
#[derive(Default)]
pub struct Faces {
    /// TLS with these keys.
    pub tls: Option<Keys>,
    /// WebTransport with these keys.
    pub quic: Option<Keys>,
    /// What discovery says of WebTransport instead of the truth.
    pub said_of_quic: Option<String>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Faces::default()).await
    }

    pub async fn with(faces: Faces) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, peers) = mpsc::channel(16);
        let mut tasks = Vec::new();
        let mut webtransport = faces.said_of_quic.unwrap_or_else(|| "null".into());
        if let Some(keys) = faces.quic {
            let endpoint = keys.quic_endpoint();
            let port = endpoint.local_addr().unwrap().port();
            if webtransport == "null" {
                webtransport = format!(r#"{{"url":"https://127.0.0.1:{port}/wt","certificateHashes":["{}"]}}"#, keys.hash_base64());
            }
            tasks.push(tokio::spawn(accept_quic(endpoint, arrived.clone())));
        }
        let (http, ws) = if faces.tls.is_some() { ("https", "wss") } else { ("http", "ws") };
        let known = format!(r#"{{"webtransport":{webtransport},"websocket":{{"url":"{ws}://{address}/ws"}},"versions":[1]}}"#);
        let acceptor = faces.tls.map(|keys| keys.acceptor());
        let also = arrived.clone();
        tasks.push(tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (arrived, known, acceptor) = (arrived.clone(), known.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let stream: BoxedStream = match acceptor {
                        None => Box::pin(tcp),
                        // A client that does not believe us leaves here.
                        Some(acceptor) => match acceptor.accept(tcp).await {
                            Ok(stream) => Box::pin(stream),
                            Err(_) => return,
                        },
                    };
                    if let Some(peer) = welcome_in(stream, &known).await {
                        let _ = arrived.send(peer).await;
                    }
                });
            }
        }));
        Self { url: format!("{http}://{address}"), peers, arrived: also, known: Arc::default(), tasks }
    }

    pub fn client(&self, user: &str) -> Builder {
        Client::builder(&self.url, user).device("test")
    }

    /// Where other faces of this server bring who comes over them.
    pub fn arrived(&self) -> mpsc::Sender<Peer> {
        self.arrived.clone()
    }

    /// The next connection.
    pub async fn peer(&mut self) -> Peer {
        let peer = timeout(PATIENCE, self.peers.recv()).await.expect("nobody connects").unwrap();
        Peer { known: Arc::clone(&self.known), ..peer }
    }

    /// A connection, if there is one already.
    pub fn peer_now(&mut self) -> Option<Peer> {
        self.peers.try_recv().ok()
    }

    /// The next connection, greeted: the device continues where it says it is, or at the beginning.
    pub async fn greeted(&mut self) -> (Peer, Hello) {
        let mut peer = self.peer().await;
        let hello = peer.greet().await;
        (peer, hello)
    }
}

async fn accept_quic(endpoint: wtransport::Endpoint<endpoint_side::Server>, arrived: mpsc::Sender<Peer>) {
    loop {
        let Ok(request) = endpoint.accept().await.await else { continue };
        tokio::spawn(serve_quic(request, arrived.clone()));
    }
}

/// Lets in who asks for a session.
pub async fn serve_quic(request: SessionRequest, arrived: mpsc::Sender<Peer>) {
    let Ok(connection) = request.accept().await else { return };
    let Ok((send, recv)) = connection.accept_bi().await else { return };
    // Queries are to be asked on the first stream, where tests see them: this server takes no other.
    let others = connection.clone();
    let refusing = Task(tokio::spawn(async move { while others.accept_bi().await.is_ok() {} }));
    let io = Io::Quic { send, recv, read: Vec::new(), _connection: connection, _refusing: refusing };
    let _ = arrived.send(Peer { io, form: Form::Postcard, known: Arc::default() }).await;
}

async fn welcome_in(stream: BoxedStream, known: &str) -> Option<Peer> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut head = vec![0; 4096];
    let count = reader.read(&mut head).await.ok()?;
    head.truncate(count);
    if head.starts_with(b"GET /.well-known/") {
        let len = known.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{known}");
        writer.write_all(answer.as_bytes()).await.ok()?;
        return None;
    }
    let mut form = Form::Postcard;
    #[expect(clippy::result_large_err, reason = "the library wants it so")]
    let choose = |request: &Request, mut response: Response| {
        let wanted = request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned().unwrap();
        form = if wanted == "whimbrel.v1.json" { Form::Json } else { Form::Postcard };
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, wanted);
        Ok(response)
    };
    let stream: BoxedStream = Box::pin(tokio::io::join(std::io::Cursor::new(head).chain(reader), writer));
    let socket = accept_hdr_async(stream, choose).await.ok()?;
    Some(Peer { io: Io::Tcp(Box::new(socket)), form, known: Arc::default() })
}

/// A client that has connected.
pub struct Peer {
    io: Io,
    pub form: Form,
    known: Arc<Mutex<Known>>,
}

/// What the server remembers of the one device that tests have: enough to greet it again.
#[derive(Default)]
struct Known {
    nonces: HashMap<u64, Nonce>,
    applied: u64,
}

/// A task that ends with whoever holds it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Io {
    Tcp(Box<WebSocketStream<BoxedStream>>),
    Quic {
        send: SendStream,
        recv: RecvStream,
        read: Vec<u8>,
        /// Closed when it is dropped.
        _connection: Connection,
        _refusing: Task,
    },
}

impl Peer {
    pub fn is_quic(&self) -> bool {
        matches!(&self.io, Io::Quic { .. })
    }

    /// The next frame; `None` once the client is gone.
    pub async fn recv(&mut self) -> Option<ClientFrame> {
        let bytes = timeout(PATIENCE, self.io.recv()).await.expect("the client says nothing")?;
        let frame = self.form.decode(&bytes).unwrap();
        if let ClientFrame::Command(command) = &frame {
            self.known.lock().unwrap().nonces.insert(command.cseq.0, command.nonce);
        }
        Some(frame)
    }

    /// Sends a frame; false once the client is gone.
    pub async fn send(&mut self, frame: impl Into<ServerFrame>) -> bool {
        let frame = frame.into();
        let applied = match &frame {
            ServerFrame::Applied(applied) => applied.cseq.0,
            ServerFrame::Event(Event { body: EventBody::Sent(sent), .. }) => sent.cseq.0,
            ServerFrame::Event(Event { body: EventBody::Rejected(rejected), .. }) => rejected.cseq.0,
            _ => 0,
        };
        {
            let mut known = self.known.lock().unwrap();
            known.applied = known.applied.max(applied);
        }
        let bytes = self.form.encode(&frame).unwrap();
        self.raw(bytes).await
    }

    /// Sends bytes as if they were a frame.
    pub async fn raw(&mut self, bytes: Vec<u8>) -> bool {
        match &mut self.io {
            Io::Tcp(socket) => {
                let message = match self.form {
                    Form::Postcard => Message::Binary(bytes.into()),
                    Form::Json => Message::Text(Bytes::from(bytes).try_into().unwrap()),
                };
                socket.send(message).await.is_ok()
            }
            Io::Quic { send, .. } => {
                let mut prefixed = Vec::new();
                let mut len = bytes.len();
                while len >= 0x80 {
                    prefixed.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
                    len >>= 7;
                }
                prefixed.push(u8::try_from(len).unwrap());
                prefixed.extend(bytes);
                send.write_all(&prefixed).await.is_ok()
            }
        }
    }

    pub async fn hello(&mut self) -> Hello {
        match self.recv().await {
            Some(ClientFrame::Hello(hello)) => hello,
            other => panic!("not a Hello: {other:?}"),
        }
    }

    pub async fn greet(&mut self) -> Hello {
        let hello = self.hello().await;
        let mut welcome = welcome(&hello);
        if hello.incarnation.0 != 0 {
            let known = self.known.lock().unwrap();
            (welcome.applied, welcome.applied_nonce) =
                (CommandSeq(known.applied), known.nonces.get(&known.applied).copied().unwrap_or_default());
        }
        self.send(ServerFrame::Welcome(welcome)).await;
        hello
    }

    /// The next command; other frames but acknowledgements are not expected.
    pub async fn command(&mut self) -> Command {
        loop {
            match self.recv().await {
                Some(ClientFrame::Command(command)) => return command,
                Some(ClientFrame::Ack(_)) => {}
                other => panic!("not a Command: {other:?}"),
            }
        }
    }

    /// The next question; other frames but acknowledgements are not expected.
    pub async fn query(&mut self) -> Query {
        loop {
            match self.recv().await {
                Some(ClientFrame::Query(query)) => return query,
                Some(ClientFrame::Ack(_)) => {}
                other => panic!("not a Query: {other:?}"),
            }
        }
    }

    /// Waits until the client has acknowledged `seq`.
    pub async fn acked(&mut self, seq: u64) {
        loop {
            match self.recv().await {
                Some(ClientFrame::Ack(Ack { seq: acked })) if acked.0 >= seq => return assert_eq!(acked.0, seq),
                Some(_) => {}
                None => panic!("the client left before it acknowledged {seq}"),
            }
        }
    }
}

impl Io {
    async fn recv(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Tcp(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Binary(bytes) => return Some(bytes.to_vec()),
                    Message::Text(text) => return Some(text.as_bytes().to_vec()),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Self::Quic { recv, read, .. } => loop {
                if let Some((start, end)) = find_frame(read).unwrap() {
                    let frame = read[start..end].to_vec();
                    read.drain(..end);
                    return Some(frame);
                }
                let mut chunk = [0; 4096];
                let count = recv.read(&mut chunk).await.ok()??;
                read.extend_from_slice(&chunk[..count]);
            },
        }
    }
}

/// Welcomes a device where it says it is, a new one at the beginning, in its outbox or the first; nothing is applied there.
pub fn welcome(hello: &Hello) -> Welcome {
    let cursor = hello.position.map_or(MailboxSeq(0), |position| position.cursor);
    Welcome {
        version: 1,
        user: hello.user.clone(),
        session_epoch: SessionEpoch(1),
        epoch: hello.position.map_or(LogEpoch(1), |position| position.epoch),
        incarnation: hello.incarnation.max(Incarnation(1)),
        applied: CommandSeq(0),
        applied_nonce: Nonce::default(),
        head: MailboxSeq(1_000_000),
        begin: Begin { cursor, time: hello.position.map_or(Time(0), |position| position.time), snapshot: false, reset: None },
        window: 64,
        max_text: 60_000,
        time: Time(1),
        endpoints: Vec::new(),
        extensions: Vec::new(),
    }
}

pub fn applied(cseq: u64) -> ServerFrame {
    ServerFrame::Applied(Applied { cseq: CommandSeq(cseq) })
}

pub fn event(seq: u64, body: impl Into<EventBody>) -> ServerFrame {
    ServerFrame::Event(Event { seq: MailboxSeq(seq), time: Time(1_000 + seq), body: body.into() })
}

pub fn started(conversation: u64, members: &[&str]) -> Started {
    let members = members.iter().map(|member| member.parse().unwrap()).collect();
    Started { conversation: ConversationId(conversation), kind: ConversationKind::Direct, members }
}

pub fn message(conversation: u64, seq: u64, text: &str) -> frame::Message {
    frame::Message {
        conversation: ConversationId(conversation),
        seq: ConversationSeq(seq),
        from: Some("bob".parse().unwrap()),
        content: content(text),
    }
}

/// As a postcard server says it of a direct conversation: without the name.
pub fn unnamed(conversation: u64, seq: u64, text: &str) -> frame::Message {
    frame::Message { from: None, ..message(conversation, seq, text) }
}

pub fn sent(command: &Command, conversation: u64, seq: u64) -> Sent {
    let Command { incarnation, cseq, .. } = *command;
    Sent { incarnation, cseq, conversation: ConversationId(conversation), seq: ConversationSeq(seq) }
}

pub fn bob() -> Target {
    Target::User("bob".parse().unwrap())
}

pub fn snapshot_page(conversation: u64, members: &[&str], seqs: std::ops::RangeInclusive<u64>, last: bool) -> Snapshot {
    let member = |name: &&str| MemberState { user: name.parse().unwrap(), delivered: ConversationSeq(0), read: ConversationSeq(0) };
    let stored = |seq| StoredMessage { seq: ConversationSeq(seq), time: Time(seq), from: "bob".parse().unwrap(), content: content("x") };
    let state = ConversationState {
        conversation: ConversationId(conversation),
        kind: ConversationKind::Direct,
        members: members.iter().map(member).collect(),
        head: ConversationSeq(*seqs.end()),
        messages: seqs.map(stored).collect(),
    };
    Snapshot { conversations: vec![state], last }
}

pub fn content(text: &str) -> Content {
    crate::text(text)
}
