//! WebSocket: one frame a message, binary for `whimbrel.v1.postcard`, text for `whimbrel.v1.json`.

use super::{FrameSink, FrameSource, LinkError, Received, TransportKind};
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use whimbrel_protocol::codec::{CodecError, Form};
use whimbrel_protocol::frame::{ClientFrame, Ping, ServerFrame};

/// The subprotocols that are spoken, best first.
pub fn subprotocols() -> impl Iterator<Item = &'static str> {
    TransportKind::ALL.into_iter().filter_map(TransportKind::subprotocol)
}

/// Buffers for chat, not for downloads: most of what an idle connection costs.
const BUFFER_BYTES: usize = 4 * 1024;
/// How long a peer has to take what is left when the server closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sets the limits of an upgrade.
pub fn limited(upgrade: WebSocketUpgrade, form: Form) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        // Room for the largest frame beyond what is buffered: the session keeps count itself and never comes near.
        .max_write_buffer_size(4 * form.max_frame())
        // One byte more than allowed is let through, so that it can be answered with an error that says so.
        .max_message_size(form.max_frame() + 1)
        .max_frame_size(form.max_frame() + 1)
}

/// Splits a socket.
#[must_use]
pub fn split(socket: WebSocket, form: Form) -> (WebSocketSource, WebSocketSink) {
    let (sink, stream) = socket.split();
    (WebSocketSource { stream, form }, WebSocketSink { sink, form, queue: VecDeque::new(), queued: 0, unflushed: 0 })
}

/// Client frames from a WebSocket.
pub struct WebSocketSource {
    stream: SplitStream<WebSocket>,
    form: Form,
}

impl FrameSource for WebSocketSource {
    async fn next(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            return match self.stream.next().await {
                None | Some(Ok(Message::Close(_))) => Ok(None),
                Some(Ok(Message::Ping(_))) => continue,
                Some(Ok(Message::Pong(_))) => Ok(Some(ClientFrame::Pong(Ping { id: 0 }).into())),
                Some(Ok(Message::Binary(bytes))) if self.form == Form::Postcard => {
                    Ok(Some(self.form.decode::<ClientFrame>(&bytes)?.into()))
                }
                Some(Ok(Message::Text(text))) if self.form == Form::Json => {
                    Ok(Some(self.form.decode::<ClientFrame>(text.as_bytes())?.into()))
                }
                Some(Ok(Message::Binary(_))) => Err(CodecError::Malformed("a binary message; this subprotocol takes text".into()).into()),
                Some(Ok(Message::Text(_))) => Err(CodecError::Malformed("a text message; this subprotocol takes binary".into()).into()),
                Some(Err(why)) => Err(self.broken(&why)),
            };
        }
    }
}

impl WebSocketSource {
    fn broken(&self, why: &axum::Error) -> LinkError {
        let text = why.to_string();
        // axum hides the error's type. Only this one is the client's doing and worth an answer.
        if text.contains("too long") || text.contains("too big") {
            LinkError::Codec(CodecError::TooLong { len: self.form.max_frame() + 1, max: self.form.max_frame() })
        } else {
            LinkError::Gone(text)
        }
    }
}

/// Server frames to a WebSocket.
pub struct WebSocketSink {
    sink: SplitSink<WebSocket, Message>,
    form: Form,
    queue: VecDeque<Message>,
    /// Bytes in `queue`.
    queued: usize,
    /// Bytes handed to the socket's own buffer and not flushed.
    unflushed: usize,
}

impl FrameSink for WebSocketSink {
    fn queued(&self) -> usize {
        self.queued + self.unflushed
    }

    fn push(&mut self, frame: &ServerFrame) -> Result<(), CodecError> {
        let bytes = self.form.encode(frame)?;
        self.queued += bytes.len();
        let message = match self.form {
            Form::Postcard => Message::Binary(Bytes::from(bytes)),
            Form::Json => {
                let text = Utf8Bytes::try_from(bytes).map_err(|why| CodecError::Malformed(why.to_string()))?;
                Message::Text(text)
            }
        };
        self.queue.push_back(message);
        Ok(())
    }

    fn probe(&mut self) -> bool {
        // Every WebSocket library answers this by itself, so that even a client of ten lines stays connected.
        self.queue.push_back(Message::Ping(Bytes::new()));
        self.queued += payload_len(&Message::Ping(Bytes::new()));
        true
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        let gone = |why: axum::Error| LinkError::Gone(why.to_string());
        std::future::poll_fn(|context| {
            // Each message moves from our queue to the socket's in one step, so a dropped future leaves none behind.
            while !self.queue.is_empty() {
                match Pin::new(&mut self.sink).poll_ready(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                    Poll::Pending => return Poll::Pending,
                }
                let Some(message) = self.queue.pop_front() else { break };
                let bytes = payload_len(&message);
                self.queued -= bytes;
                self.unflushed += bytes;
                if let Err(why) = Pin::new(&mut self.sink).start_send(message) {
                    return Poll::Ready(Err(why));
                }
            }
            Pin::new(&mut self.sink).poll_flush(context)
        })
        .await
        .map_err(gone)?;
        self.unflushed = 0;
        if self.queue.capacity() > 64 {
            // A burst is over; an idle session keeps nothing of it.
            self.queue.shrink_to(0);
        }
        Ok(())
    }

    async fn close(mut self) {
        let farewell = async {
            self.flush().await?;
            self.sink.close().await.map_err(|why| LinkError::Gone(why.to_string()))
        };
        // Whether the peer takes it or not, the connection ends here.
        match tokio::time::timeout(CLOSE_TIMEOUT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(%why, "a peer was gone before the farewell"),
            Err(_) => tracing::debug!("a peer did not take the farewell"),
        }
    }
}

fn payload_len(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        // An empty probe still is something to send.
        _ => 1,
    }
}
