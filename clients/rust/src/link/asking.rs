//! Queries on streams of their own, over WebTransport or QUIC: a long answer is then never in the way of a message.

use super::LinkError;
use super::stream::{Carrier, RecvHalf};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use whimbrel_protocol::QueryId;
use whimbrel_protocol::codec::{CodecError, Form, find_frame, write_frame};
use whimbrel_protocol::frame::{ClientFrame, Query, ServerFrame};

/// Read from such a stream at once.
const READ_SIZE: usize = 16 * 1024;

/// A stream on which a query was asked.
pub(super) struct Asked {
    id: QueryId,
    recv: RecvHalf,
    read: Vec<u8>,
}

/// What came on such a stream.
pub(super) enum Answered {
    /// A part of the answer; more may follow.
    Part(ServerFrame, Option<Asked>),
    /// The server does not answer there.
    Not(QueryId),
}

impl Asked {
    /// The next part of the answer.
    pub(super) async fn next(mut self) -> Result<Answered, LinkError> {
        loop {
            if let Some((start, end)) = find_frame(&self.read)? {
                let frame = self.read.get(start..end).map(|bytes| Form::Postcard.decode(bytes)).transpose()?;
                self.read.drain(..end);
                return Ok(match frame {
                    Some(ServerFrame::Answer(answer)) if answer.id == self.id => {
                        let more = (!answer.last).then_some(self);
                        Answered::Part(ServerFrame::Answer(answer), more)
                    }
                    _ => Answered::Not(self.id),
                });
            }
            match self.recv.quic().read_chunk(READ_SIZE, true).await {
                Ok(Some(chunk)) => self.read.extend_from_slice(&chunk.bytes),
                // The connection's end is told by the session's own stream.
                Ok(None) | Err(_) => return Ok(Answered::Not(self.id)),
            }
        }
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Asked, String>> + Send>>;

/// Queries to be asked, each on a stream that is to be opened: the server allows so many at once.
pub(super) struct Asking {
    waiting: VecDeque<(QueryId, Vec<u8>)>,
    opening: Option<Opening>,
    /// To the source. As many as queries are open.
    asked: mpsc::UnboundedSender<Asked>,
}

impl Asking {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Asked>) {
        let (asked, receiver) = mpsc::unbounded_channel();
        (Self { waiting: VecDeque::new(), opening: None, asked }, receiver)
    }

    pub(super) fn ask(&mut self, query: Query) -> Result<(), CodecError> {
        let (id, mut bytes) = (query.id, Vec::new());
        write_frame(&ClientFrame::Query(query), &mut bytes)?;
        self.waiting.push_back((id, bytes));
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.opening.is_none()
    }

    /// Asks what can be asked; ready when nothing is left.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>, carrier: &Arc<Carrier>) -> Poll<Result<(), LinkError>> {
        loop {
            let Some(opening) = &mut self.opening else {
                let Some((id, bytes)) = self.waiting.pop_front() else { return Poll::Ready(Ok(())) };
                self.opening = Some(Box::pin(open(Arc::clone(carrier), id, bytes)));
                continue;
            };
            let Poll::Ready(opened) = opening.as_mut().poll(context) else { return Poll::Pending };
            self.opening = None;
            // Without a source nobody waits for the answer.
            let _ = self.asked.send(opened.map_err(LinkError::Gone)?);
        }
    }
}

async fn open(carrier: Arc<Carrier>, id: QueryId, bytes: Vec<u8>) -> Result<Asked, String> {
    let (mut send, recv) = carrier.open().await?;
    let asked = Asked { id, recv, read: Vec::new() };
    // A server that wants no such stream says so on it, and it is read there.
    if send.quic().write_all(&bytes).await.is_ok() {
        let _ = send.quic().finish();
    }
    Ok(asked)
}
