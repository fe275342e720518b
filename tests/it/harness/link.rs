//! A connection over any transport, on which frames go, or whatever a test sends instead.

use super::{http_get, within};
use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use whimbrel_protocol::TransportKind;
use whimbrel_protocol::codec::{Form, find_frame};
use whimbrel_protocol::frame::{ClientFrame, Error as ErrorFrame, ServerFrame};
use wtransport::endpoint::endpoint_side::Client;
use wtransport::tls::Sha256Digest;
use wtransport::tls::client::ServerHashVerification;
use wtransport::{ClientConfig, Connection, Endpoint};

/// A connection to a server.
pub struct Link {
    io: Io,
    form: Form,
}

enum Io {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// A stream of WebTransport, or of QUIC alone.
    Stream {
        send: Box<dyn AsyncWrite + Send + Unpin>,
        recv: Box<dyn AsyncRead + Send + Unpin>,
        read: Vec<u8>,
        /// Closed when it is dropped.
        _connection: Box<dyn Send>,
    },
}

/// The hashes in an answer of `/.well-known/whimbrel`.
fn hashes(known: &Value) -> Vec<Sha256Digest> {
    let digest = |hash: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(hash.as_str().unwrap()).unwrap();
        Sha256Digest::new(bytes.try_into().unwrap())
    };
    known["certificateHashes"].as_array().unwrap().iter().map(digest).collect()
}

async fn well_known(address: SocketAddr) -> Value {
    let known = http_get(address, "/.well-known/whimbrel", &[]).await;
    serde_json::from_slice(known.body()).unwrap()
}

/// How a client of QUIC alone connects to the server with this HTTP address. Who connects again with the same resumes.
pub async fn quic_config(address: SocketAddr) -> quinn::ClientConfig {
    let known = &well_known(address).await["quic"];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerHashVerification::new(hashes(known))))
        .with_no_client_auth();
    tls.alpn_protocols = vec![known["alpn"].as_str().unwrap().as_bytes().to_vec()];
    tls.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap()))
}

/// The beginning of a connection of QUIC alone.
pub fn quic_to(peer: SocketAddr, config: &quinn::ClientConfig) -> (quinn::Connecting, quinn::Endpoint) {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    (endpoint.connect_with(config.clone(), peer, "localhost").unwrap(), endpoint)
}

async fn quic(address: SocketAddr) -> (quinn::Connection, quinn::Endpoint) {
    let peer = well_known(address).await["quic"]["address"].as_str().unwrap().parse().unwrap();
    let (connecting, endpoint) = quic_to(peer, &quic_config(address).await);
    (connecting.await.unwrap(), endpoint)
}

/// A WebTransport session without a stream, as the server with this HTTP address announces it.
pub async fn webtransport(address: SocketAddr) -> (Connection, Endpoint<Client>) {
    let known = &well_known(address).await["webtransport"];
    let config = ClientConfig::builder().with_bind_default().with_server_certificate_hashes(hashes(known)).build();
    let endpoint = Endpoint::client(config).unwrap();
    let connection = endpoint.connect(known["url"].as_str().unwrap()).await.unwrap();
    (connection, endpoint)
}

impl Link {
    /// Over a WebSocket, in this form.
    pub async fn open(address: SocketAddr, form: Form) -> Self {
        Self::over(address, if form == Form::Json { TransportKind::WebSocketJson } else { TransportKind::WebSocket }).await
    }

    /// On a stream of a connection of QUIC alone, which closes with the link.
    pub fn on(send: quinn::SendStream, recv: quinn::RecvStream, connection: (quinn::Connection, quinn::Endpoint)) -> Self {
        Self { io: Io::stream(send, recv, connection), form: Form::Postcard }
    }

    /// Over any transport, to the server with this HTTP address.
    pub async fn over(address: SocketAddr, kind: TransportKind) -> Self {
        let Some(name) = kind.subprotocol() else {
            let io = if kind == TransportKind::Quic {
                let connection = quic(address).await;
                let (send, recv) = connection.0.open_bi().await.unwrap();
                Io::stream(send, recv, connection)
            } else {
                let session = webtransport(address).await;
                let (send, recv) = session.0.open_bi().await.unwrap().await.unwrap();
                Io::stream(send, recv, session)
            };
            return Self { io, form: kind.form() };
        };
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        Self { io: Io::WebSocket(Box::new(socket)), form: kind.form() }
    }

    pub async fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(self.form.encode(frame).unwrap()).await;
    }

    /// Sends bytes as if they were a frame.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        assert!(self.try_send_bytes(bytes).await, "the connection is gone");
    }

    /// The same, where the server may have had enough already. Returns whether they went out.
    pub async fn try_send_bytes(&mut self, bytes: Vec<u8>) -> bool {
        match (&mut self.io, self.form) {
            (Io::WebSocket(socket), Form::Postcard) => socket.send(Message::binary(bytes)).await.is_ok(),
            (Io::WebSocket(socket), Form::Json) => socket.send(Message::text(String::from_utf8(bytes).unwrap())).await.is_ok(),
            (Io::Stream { send, .. }, _) => {
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

    /// A message of the WebSocket, of whichever sort.
    pub async fn send_message(&mut self, message: Message) {
        let Io::WebSocket(socket) = &mut self.io else { panic!("no WebSocket") };
        socket.send(message).await.unwrap();
    }

    /// The next frame; `None` once the server closed or the connection broke.
    pub async fn next(&mut self) -> Option<ServerFrame> {
        let bytes = within("a frame", self.io.next()).await?;
        Some(self.form.decode(&bytes).expect("the server sent something else than a frame"))
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

impl Io {
    fn stream(
        send: impl AsyncWrite + Send + Unpin + 'static,
        recv: impl AsyncRead + Send + Unpin + 'static,
        connection: impl Send + 'static,
    ) -> Self {
        Self::Stream { send: Box::new(send), recv: Box::new(recv), read: Vec::new(), _connection: Box::new(connection) }
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::WebSocket(socket) => loop {
                return match socket.next().await? {
                    Ok(Message::Binary(bytes)) => Some(bytes.to_vec()),
                    Ok(Message::Text(text)) => Some(text.as_bytes().to_vec()),
                    Ok(Message::Close(_)) | Err(_) => None,
                    Ok(_) => continue,
                };
            },
            Self::Stream { recv, read, .. } => loop {
                if let Some((start, end)) = find_frame(read).expect("the server sent something else than frames") {
                    let frame = read[start..end].to_vec();
                    read.drain(..end);
                    return Some(frame);
                }
                let mut chunk = [0; 16 * 1024];
                let count = recv.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
                read.extend_from_slice(&chunk[..count]);
            },
        }
    }
}
