//! Queries with streams of their own: the client opens one for each, and gets the answer there, so that a long history is never in the
//! way of a message.
//!
//! A stream of its own is not enough for that: an answer as fast as the path takes it fills the queue at its narrowest place, and a message
//! stands behind that whatever its stream. So no more of the answers goes out than the path carries ([`super::pace`]).

use super::carrier::{ReceiveHalf, SendHalf};
use super::session::give_back;
use super::window::Window;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::QueryId;
use whimbrel_protocol::codec::{self, CodecError, Form};
use whimbrel_protocol::frame::{Answer, ClientFrame, Query, ServerFrame};

/// The longest query that is read from a stream of its own, in bytes.
const QUERY_MAX: usize = 4 * 1024;
/// Behind the session's stream, which has 0.
const PRIORITY: i32 = -1;
/// How often it is looked whether more of the answers may go out.
const TICK: Duration = Duration::from_millis(5);
/// The same where the client seems to be out of reach.
const TICK_MAX: Duration = Duration::from_millis(100);

/// A stream that a client has opened beside the session's: its query, and where the answer goes.
pub(super) async fn read_query(send: SendHalf, mut receive: ReceiveHalf) -> Result<(Query, SendHalf), NoQuery> {
    let mut bytes = Vec::new();
    loop {
        match codec::find_frame(&bytes) {
            Ok(Some((start, end))) => {
                let frame = bytes.get(start..end).map(|frame| Form::Postcard.decode(frame));
                return match frame {
                    Some(Ok(ClientFrame::Query(query))) => Ok((query, send)),
                    _ => Err(NoQuery(send)),
                };
            }
            Ok(None) if bytes.len() < QUERY_MAX => {}
            _ => return Err(NoQuery(send)),
        }
        match receive.quic().read_chunk(QUERY_MAX, true).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
            _ => return Err(NoQuery(send)),
        }
    }
}

/// What came on such a stream is no query; the stream is to be reset.
pub(super) struct NoQuery(pub SendHalf);

/// Streams whose queries were read and wait for their answers: from the source of a session to its sink. There are as many as the client
/// may have open at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Vec<(QueryId, SendHalf)>>>);

impl Asked {
    pub(super) fn put(&self, id: QueryId, stream: SendHalf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, stream));
    }

    /// The stream on which this query came, unless it came on the session's.
    fn take(&self, id: QueryId) -> Option<SendHalf> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = asked.iter().position(|(asked, _)| *asked == id)?;
        Some(asked.swap_remove(at).1)
    }
}

/// An answer on its way.
#[derive(Debug)]
struct Answering {
    id: QueryId,
    stream: SendHalf,
    out: Vec<u8>,
    sent: usize,
    /// Everything is in `out`.
    whole: bool,
    /// The client does not want it any more.
    unwanted: bool,
}

/// The answers that go over streams of their own, one after the other.
#[derive(Debug)]
pub(super) struct Answers {
    asked: Asked,
    answering: VecDeque<Answering>,
    /// When more may go out.
    tick: Instant,
    /// What went out since the client acknowledged something last, and when that was.
    out: u64,
    as_of: Option<std::time::Instant>,
    /// What QUIC was handed, and has not sent yet, and all that it had sent by then.
    unsent: u64,
    sent: u64,
}

impl Answers {
    pub(super) fn new(asked: Asked, now: Instant) -> Self {
        Self { asked, answering: VecDeque::new(), tick: now, out: 0, as_of: None, unsent: 0, sent: 0 }
    }

    /// Bytes that wait.
    pub(super) fn queued(&self) -> usize {
        self.answering.iter().map(|answer| answer.out.len() - answer.sent).sum()
    }

    /// When [`write`](Self::write) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let waits = self.answering.front().is_some_and(|answer| answer.whole || answer.sent < answer.out.len());
        waits.then_some(self.tick)
    }

    /// Takes a part of an answer; `false` if it belongs on the session's stream.
    pub(super) fn push(&mut self, answer: &Answer, frame: &ServerFrame) -> Result<bool, CodecError> {
        let begun = self.answering.iter().rposition(|known| known.id == answer.id && !known.whole);
        let at = match (begun, self.asked.take(answer.id)) {
            (Some(at), None) => at,
            (None, None) => return Ok(false),
            (before, Some(mut stream)) => {
                // A second query with the same id is the client's fault: the first answer ends where it is.
                if let Some(before) = before.and_then(|at| self.answering.get_mut(at)) {
                    before.whole = true;
                }
                // Fails only for a stream that is closed already.
                let _ = stream.quic().set_priority(PRIORITY);
                let (id, out) = (answer.id, Vec::new());
                self.answering.push_back(Answering { id, stream, out, sent: 0, whole: false, unwanted: false });
                self.answering.len() - 1
            }
        };
        let Some(answering) = self.answering.get_mut(at) else { return Ok(false) };
        if !answering.unwanted {
            codec::write_frame(frame, &mut answering.out)?;
        }
        answering.whole = answer.last;
        Ok(true)
    }

    /// Hands QUIC as much as may be under way.
    pub(super) fn write(&mut self, context: &mut Context<'_>, now: Instant, connection: &quinn::Connection) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        self.tick = now + TICK;
        let (room, sent) = (Window::room_for_answers(connection), connection.stats().udp_tx.bytes);
        self.unsent = self.unsent.saturating_sub(sent - std::mem::replace(&mut self.sent, sent));
        if self.as_of.replace(room.as_of) != Some(room.as_of) {
            self.out = self.unsent;
        }
        while let Some(answer) = self.answering.front_mut() {
            let rest = answer.out.get(answer.sent..).unwrap_or_default();
            if rest.is_empty() {
                if answer.whole {
                    // Fails only for a stream that the client has stopped.
                    let _ = answer.stream.quic().finish();
                    self.answering.pop_front();
                    continue;
                }
                answer.out.clear();
                answer.sent = 0;
                return;
            }
            let share = usize::try_from(room.bytes.saturating_sub(self.out)).unwrap_or(usize::MAX);
            let piece = rest.get(..share).unwrap_or(rest);
            if piece.is_empty() {
                // The longer nothing was acknowledged, the less likely it is to be soon.
                let silence = now.into_std().saturating_duration_since(room.as_of);
                self.tick = now + (silence / 16).clamp(TICK, TICK_MAX);
                return;
            }
            match Pin::new(answer.stream.quic()).poll_write(context, piece) {
                Poll::Ready(Ok(written)) => {
                    answer.sent += written;
                    give_back(&mut answer.out, &mut answer.sent);
                    self.out += written as u64;
                    self.unsent += written as u64;
                }
                // The client does not want it any more. The connection's end is told by the session's own stream.
                Poll::Ready(Err(_)) => {
                    answer.unwanted = true;
                    answer.out.clear();
                    answer.sent = 0;
                }
                // The client's window is full, or ours. It is looked at again after a while.
                Poll::Pending => {
                    self.tick = now + 6 * TICK;
                    return;
                }
            }
        }
    }
}
