//! WebSocket: each message is one frame.

use super::discover::{BoxedStream, dial};
use super::{Address, Link, LinkError, QUEUED_MAX, STEP_TIMEOUT, Trust};
use crate::TransportKind;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink as _, SinkExt, StreamExt};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use whimbrel_protocol::codec::{CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

type Socket = WebSocketStream<BoxedStream>;

/// How long the server may take for what is queued when the client leaves.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a WebSocket that speaks the form of `transport`.
pub(crate) async fn connect(address: &Address, trust: &Trust, transport: TransportKind) -> Result<Link, LinkError> {
    let (stream, peer) = dial(address, trust).await?;
    let failed = |why: &dyn std::fmt::Display| LinkError::Unreachable(format!("WebSocket with {}: {why}", address.authority()));
    let form = transport.form();
    let protocol = transport.subprotocol().ok_or_else(|| failed(&format_args!("{transport} is none")))?;
    let mut request = address.url("wss", "ws").into_client_request().map_err(|why| failed(&why))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    // Small buffers: this is a chat, not a download. The limits keep a faulty server from filling our memory.
    let config = WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(2 * form.max_frame() + QUEUED_MAX)
        .max_message_size(Some(form.max_frame()))
        .max_frame_size(Some(form.max_frame()));
    let (socket, response) = timeout(STEP_TIMEOUT, client_async_with_config(request, stream, Some(config)))
        .await
        .map_err(|_| failed(&"the server does not answer in time"))?
        .map_err(|why| failed(&why))?;
    if response.headers().get(SEC_WEBSOCKET_PROTOCOL).is_none_or(|chosen| chosen.as_bytes() != protocol.as_bytes()) {
        return Err(failed(&format_args!("the server does not speak {protocol}")));
    }
    let (sink, stream) = socket.split();
    Ok(Link {
        source: super::Source::WebSocket(Source { stream, form }),
        sink: super::Sink::WebSocket(Sink { sink, form, waiting: VecDeque::new(), queued: 0 }),
        transport,
        peer,
        opened: None,
    })
}

pub(crate) struct Source {
    stream: SplitStream<Socket>,
    form: Form,
}

impl Source {
    pub async fn next(&mut self) -> Result<Option<ServerFrame>, LinkError> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(why)) => return Err(LinkError::Gone(why.to_string())),
                None => return Ok(None),
            };
            return match message {
                Message::Binary(bytes) if self.form == Form::Postcard => Ok(Some(self.form.decode(&bytes)?)),
                Message::Text(text) if self.form == Form::Json => Ok(Some(self.form.decode(text.as_bytes())?)),
                Message::Binary(_) | Message::Text(_) => {
                    Err(CodecError::Malformed("a WebSocket message of the wrong type (text or binary)".into()).into())
                }
                Message::Close(_) => Ok(None),
                // Answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
        }
    }
}

pub(crate) struct Sink {
    sink: SplitSink<Socket, Message>,
    form: Form,
    waiting: VecDeque<Message>,
    /// Bytes in `waiting`, and in the socket until a flush was complete.
    queued: usize,
}

impl Sink {
    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), CodecError> {
        let bytes = self.form.encode(frame)?;
        self.queued += bytes.len();
        self.waiting.push_back(match self.form {
            Form::Postcard => Message::Binary(bytes.into()),
            Form::Json => Message::Text(Utf8Bytes::try_from(Bytes::from(bytes)).map_err(|why| CodecError::Malformed(why.to_string()))?),
        });
        Ok(())
    }

    pub async fn flush(&mut self) -> Result<(), LinkError> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let gone = |why: tokio_tungstenite::tungstenite::Error| LinkError::Gone(why.to_string());
        while !self.waiting.is_empty() {
            ready!(Pin::new(&mut self.sink).poll_ready(context)).map_err(gone)?;
            if let Some(message) = self.waiting.pop_front() {
                Pin::new(&mut self.sink).start_send(message).map_err(gone)?;
            }
        }
        ready!(Pin::new(&mut self.sink).poll_flush(context)).map_err(gone)?;
        self.queued = 0;
        Poll::Ready(Ok(()))
    }

    pub async fn close(mut self) {
        let leave = async {
            if self.flush().await.is_ok() {
                // The server may have closed first.
                let _ = self.sink.close().await;
            }
        };
        // Whoever does not take it in time is left alone: everything that matters comes again in the next session.
        let _ = timeout(CLOSE_TIMEOUT, leave).await;
    }
}
