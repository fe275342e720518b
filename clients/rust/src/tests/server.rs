//! A server on loopback. It knows the way in (discovery and WebSocket); what it says then is up to the test, frame by frame.

use crate::Client;
use crate::builder::Builder;
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{
    Ack, Applied, Begin, ClientFrame, Command, Content, Event, EventBody, Hello, Query, Sent, ServerFrame, Started, Welcome,
};
use whimbrel_protocol::*;

/// Longer than anything takes on a busy machine: who waits this long waits in vain.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Server {
    pub address: SocketAddr,
    peers: mpsc::Receiver<Peer>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// `webtransport` is what discovery says about it.
    pub async fn start_with(webtransport: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, peers) = mpsc::channel(16);
        let webtransport = webtransport.unwrap_or_else(|| "null".into());
        let known = format!(r#"{{"webtransport":{webtransport},"websocket":{{"url":"ws://{address}/ws"}},"versions":[1]}}"#);
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (arrived, known) = (arrived.clone(), known.clone());
                tokio::spawn(async move {
                    if let Some(peer) = welcome_in(tcp, &known).await {
                        let _ = arrived.send(peer).await;
                    }
                });
            }
        });
        Self { address, peers, accepting }
    }

    pub fn client(&self, user: &str) -> Builder {
        Client::builder(format!("http://{}", self.address), user).device("test")
    }

    /// The next connection.
    pub async fn peer(&mut self) -> Peer {
        timeout(PATIENCE, self.peers.recv()).await.expect("nobody connects").unwrap()
    }

    /// The next connection, greeted: the device continues where it says it is, or at the beginning.
    pub async fn greeted(&mut self) -> (Peer, Hello) {
        let mut peer = self.peer().await;
        let hello = peer.greet().await;
        (peer, hello)
    }
}

async fn welcome_in(mut tcp: TcpStream, known: &str) -> Option<Peer> {
    let mut head = [0; 24];
    let seen = tcp.peek(&mut head).await.ok()?;
    if head[..seen].starts_with(b"GET /.well-known/") {
        let mut request = [0; 4096];
        let _ = tcp.read(&mut request).await.ok()?;
        let len = known.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{known}");
        tcp.write_all(answer.as_bytes()).await.ok()?;
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
    let socket = accept_hdr_async(tcp, choose).await.ok()?;
    Some(Peer { socket, form })
}

/// A client that has connected.
pub struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub form: Form,
}

impl Peer {
    /// The next frame; `None` once the client is gone.
    pub async fn recv(&mut self) -> Option<ClientFrame> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("the client says nothing")?;
            let Ok(message) = message else { return None };
            match message {
                Message::Binary(bytes) => return Some(self.form.decode(&bytes).unwrap()),
                Message::Text(text) => return Some(self.form.decode(text.as_bytes()).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Sends a frame; false once the client is gone.
    pub async fn send(&mut self, frame: impl Into<ServerFrame>) -> bool {
        let bytes = self.form.encode(&frame.into()).unwrap();
        self.raw(bytes).await
    }

    pub async fn raw(&mut self, bytes: Vec<u8>) -> bool {
        let message = match self.form {
            Form::Postcard => Message::Binary(bytes.into()),
            Form::Json => Message::Text(Bytes::from(bytes).try_into().unwrap()),
        };
        self.socket.send(message).await.is_ok()
    }

    pub async fn hello(&mut self) -> Hello {
        match self.recv().await {
            Some(ClientFrame::Hello(hello)) => hello,
            other => panic!("not a Hello: {other:?}"),
        }
    }

    pub async fn greet(&mut self) -> Hello {
        let hello = self.hello().await;
        let welcome = welcome(&hello);
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

    pub async fn query(&mut self) -> Query {
        match self.recv().await {
            Some(ClientFrame::Query(query)) => query,
            other => panic!("not a Query: {other:?}"),
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

/// Welcomes a device where it says it is; a new one at the beginning, in outbox 1.
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
        begin: Begin { cursor, snapshot: false, reset: None },
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
    Started { conversation: ConversationId(conversation), kind: frame::ConversationKind::Direct, members }
}

pub fn message(conversation: u64, seq: u64, text: &str) -> frame::Message {
    frame::Message { conversation: ConversationId(conversation), seq: ConversationSeq(seq), from: None, content: content(text) }
}

pub fn sent(command: &Command, conversation: u64, seq: u64) -> Sent {
    let Command { incarnation, cseq, .. } = *command;
    Sent { incarnation, cseq, conversation: ConversationId(conversation), seq: ConversationSeq(seq) }
}

pub fn content(text: &str) -> Content {
    crate::text(text)
}
