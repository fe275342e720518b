//! The lobby: a plain WebSocket at `/chat`, where each text goes to everybody else who is there, as it is. Live only: nobody says who they are,
//! nothing is stored or acknowledged, and who is too slow misses lines. It is here so that clients of old servers of that kind keep working.

use crate::session::Admission;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until, timeout};
use whimbrel_protocol::codec::MAX_TEXT;

/// Lines that are kept for who is slow: whoever is further behind misses the oldest.
const LINES_MAX: usize = 256;
/// Read and write buffers.
const BUFFER_BYTES: usize = 4 * 1024;
/// How long a peer may take for a line. Meanwhile nothing is read from it either.
const SEND_MAX: Duration = Duration::from_secs(20);
/// A peer that was silent for so long is asked whether it is there …
const ASK_AFTER: Duration = Duration::from_secs(30);
/// … and given up so long after that.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A line, and who said it.
#[derive(Debug, Clone)]
struct Line {
    /// `None`: somebody who hears it too.
    from: Option<u64>,
    text: Utf8Bytes,
}

/// Everybody who is there.
#[derive(Debug)]
pub struct Lobby {
    lines: broadcast::Sender<Line>,
    next: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Default for Lobby {
    fn default() -> Self {
        Self { lines: broadcast::channel(LINES_MAX).0, next: AtomicU64::new(0), closed: watch::channel(false).0 }
    }
}

/// Sets the limits of an upgrade.
pub fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    // A line as long as a message may be.
    upgrade.read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES).max_message_size(MAX_TEXT).max_frame_size(MAX_TEXT)
}

/// Somebody who hears what is said.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Line>);

impl Listener {
    /// The next line; `None` once there is no lobby any more. Who is too slow misses lines. Cancel-safe.
    pub async fn next(&mut self) -> Option<Utf8Bytes> {
        loop {
            match self.0.recv().await {
                Ok(line) => return Some(line.text),
                Err(RecvError::Lagged(missed)) => metrics::counter!("whimbrel_lobby_lines_missed_total").increment(missed),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Lobby {
    /// The server leaves: everybody is told, and later ones at once.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Says a line to everybody but who it is `from`.
    pub fn say(&self, from: Option<u64>, text: Utf8Bytes) {
        // Nobody may be there.
        let _ = self.lines.send(Line { from, text });
    }

    /// Hears what is said from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.lines.subscribe())
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, admission: &Admission, mut socket: WebSocket) {
        let word = match admission.ask(false, None) {
            Ok(_admitted) => self.stay(&mut socket).await,
            Err(_) => Some((close_code::AGAIN, "the server is full or going down: come again in a minute")),
        };
        let Some((code, reason)) = word else { return };
        // Whether the peer takes it or not, the connection ends here.
        let _ = timeout(SEND_MAX, socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() })))).await;
    }

    /// Until the peer leaves. Returns what to tell it, if it is the server that ends it.
    async fn stay(&self, socket: &mut WebSocket) -> Option<(u16, &'static str)> {
        let own = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut lines, mut closed) = (self.lines.subscribe(), self.closed.subscribe());
        let (mut heard, mut asked) = (Instant::now(), false);
        loop {
            let due = heard + ASK_AFTER + if asked { ANSWER_MAX } else { Duration::ZERO };
            let message = tokio::select! {
                // It fails only when the server is gone.
                _ = closed.wait_for(|closed| *closed) => return Some((close_code::AWAY, "the server is going down; it will be back")),
                received = socket.recv() => {
                    (heard, asked) = (Instant::now(), false);
                    match received {
                        Some(Ok(Message::Text(text))) => {
                            self.say(Some(own), text);
                            continue;
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Binary(_))) => return Some((close_code::UNSUPPORTED, "send text")),
                        Some(Err(why)) if why.to_string().contains("too long") || why.to_string().contains("too big") => {
                            return Some((close_code::SIZE, "a line may have 60 KiB"));
                        }
                        None | Some(Ok(Message::Close(_)) | Err(_)) => return None,
                    }
                }
                line = lines.recv() => match line {
                    Ok(Line { from, .. }) if from == Some(own) => continue,
                    Ok(Line { text, .. }) => Message::Text(text),
                    Err(RecvError::Lagged(missed)) => {
                        metrics::counter!("whimbrel_lobby_lines_missed_total").increment(missed);
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
                () = sleep_until(due) => {
                    if std::mem::replace(&mut asked, true) {
                        return None;
                    }
                    Message::Ping(Bytes::new())
                }
            };
            match timeout(SEND_MAX, socket.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}
