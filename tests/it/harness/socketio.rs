//! A client of Socket.IO, by its packets.

use super::{ServerProcess, http_get, within};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

pub const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
pub const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Packets over a WebSocket.
pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    pub async fn open(server: &ServerProcess, origin: Option<&str>) -> Result<Self, Error> {
        let mut request = format!("ws://{}{SOCKET}", server.http).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        Ok(Self(client_async(request, TcpStream::connect(server.http).await.unwrap()).await?.0))
    }

    pub async fn connect(server: &ServerProcess) -> Self {
        let mut socket = Self::open(server, None).await.unwrap();
        assert!(socket.packet().await.unwrap().starts_with("0{"));
        socket.say("40").await;
        socket.until("40").await;
        socket
    }

    pub async fn user(server: &ServerProcess, id: &str) -> Self {
        let mut socket = Self::connect(server).await;
        socket.emit("user:login", json!({ "id": id })).await;
        socket.until("42[\"user:login:success\"").await;
        socket
    }

    pub async fn say(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    pub async fn emit(&mut self, event: &str, data: Value) {
        self.say(&format!("42{}", json!([event, data]))).await;
    }

    /// Writes messages with the names 0, 1, … to somebody, and waits until the last is in the log.
    pub async fn write(&mut self, to: &str, count: usize, content: &str) {
        for number in 0..count {
            self.emit("message", json!({ "id": number.to_string(), "toId": to, "content": content })).await;
        }
        let last = format!("\"messageId\":\"{}\",\"status\":\"sent\"", count - 1);
        while !self.until("42[\"message:sent\"").await.contains(&last) {}
    }

    /// The next packet; `None` once the server has closed. Pings are answered.
    pub async fn packet(&mut self) -> Option<String> {
        loop {
            match within("a packet", self.0.next()).await {
                // The server may be about to close.
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => drop(self.0.send(Message::text("3")).await),
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The first packet that begins so.
    pub async fn until(&mut self, beginning: &str) -> String {
        loop {
            let packet = self.packet().await.unwrap_or_else(|| panic!("it was closed before {beginning}"));
            if packet.starts_with(beginning) {
                return packet;
            }
        }
    }

    pub async fn error(&mut self) -> String {
        let packet = self.until("42[\"error\"").await;
        serde_json::from_str::<Value>(&packet[2..]).unwrap()[1]["message"].as_str().unwrap().to_owned()
    }
}

pub async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> hyper::Result<Response<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, body) = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// The packets of a poll. Pings are answered.
pub async fn poll(server: &ServerProcess, path: &str) -> Vec<String> {
    let polled = http_get(server.http, path, &[]).await;
    assert_eq!(polled.status(), 200, "{:?}", polled.body());
    let packets: Vec<String> = std::str::from_utf8(polled.body()).unwrap().split('\u{1e}').map(str::to_owned).collect();
    if packets.iter().any(|packet| packet == "2") {
        assert_eq!(request(server.http, Method::POST, path, &[], b"3".into()).await.unwrap().status(), 200);
    }
    packets
}

/// Logs in by polling; the name of the connection.
pub async fn poll_in(server: &ServerProcess, id: &str) -> String {
    let opened = http_get(server.http, POLLING, &[]).await;
    let packet: Value = serde_json::from_slice(&opened.body()[1..]).unwrap();
    let path = format!("{POLLING}&sid={}", packet["sid"].as_str().unwrap());
    assert_eq!(request(server.http, Method::POST, &path, &[], b"40".into()).await.unwrap().status(), 200);
    while !poll(server, &path).await.iter().any(|packet| packet.starts_with("40{")) {}
    let body = format!("42{}", json!(["user:login", { "id": id }]));
    assert_eq!(request(server.http, Method::POST, &path, &[], body.into()).await.unwrap().status(), 200);
    path
}
