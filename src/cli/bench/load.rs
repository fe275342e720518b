//! Pairs of users, one of whom writes to the other. While it measures, it checks: each message comes once and in order.

use super::histogram::Histogram;
use super::peer::{Came, Peer};
use super::{BenchError, names};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use whimbrel_client::frames::Dialer;
use whimbrel_protocol::codec::{Form, write_frame};
use whimbrel_protocol::frame::{ClientFrame, Command, Content, EventBody, Send, ServerFrame, Target};
use whimbrel_protocol::{CommandSeq, ConversationId, Nonce};

/// Bytes of text in each message.
pub(super) const TEXT_BYTES: usize = 52;
/// How long what was sent may take to arrive once nothing more is sent.
const DRAIN: Duration = Duration::from_secs(30);
/// Pairs that connect at the same time.
const CONNECTING: usize = 32;

/// Two users with a conversation.
pub(super) struct Pair {
    writer: Peer,
    reader: Peer,
    conversation: ConversationId,
    /// Commands of the writer that were sent; all are applied.
    sent: u64,
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Measured {
    /// Messages that were sent, became durable, and arrived.
    pub messages: u64,
    /// From the first command to the last event.
    pub took: Duration,
    /// From a command to its `Applied`.
    pub applied: Histogram,
    /// From a command to the event at the recipient.
    pub delivered: Histogram,
    /// The largest frames, with what stands around them.
    pub wire: Wire,
}

impl Measured {
    /// Adds what another run of the same pairs gave, after this one.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.took += other.took;
        self.applied.merge(&other.applied);
        self.delivered.merge(&other.delivered);
    }
}

/// Bytes of a message of [`TEXT_BYTES`] of text on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Wire {
    pub event_bytes: usize,
    pub command_bytes: usize,
}

/// How a transport frames: what stands around a postcard frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A header of 2 bytes (4 from 126 bytes on), and 4 bytes of mask from clients.
    WebSocket,
    /// A varint of the length.
    Stream,
}

impl Framing {
    fn event_bytes(self, frame: &ServerFrame) -> usize {
        match self {
            Self::WebSocket => web_socket_bytes(Form::Postcard.encode(frame).map_or(0, |bytes| bytes.len()), false),
            Self::Stream => stream_bytes(|out| write_frame(frame, out).is_ok()),
        }
    }

    fn command_bytes(self, frame: &ClientFrame) -> usize {
        match self {
            Self::WebSocket => web_socket_bytes(Form::Postcard.encode(frame).map_or(0, |bytes| bytes.len()), true),
            Self::Stream => stream_bytes(|out| write_frame(frame, out).is_ok()),
        }
    }
}

fn web_socket_bytes(payload: usize, masked: bool) -> usize {
    let header = match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    header + if masked { 4 } else { 0 } + payload
}

fn stream_bytes(write: impl FnOnce(&mut Vec<u8>) -> bool) -> usize {
    let mut out = Vec::new();
    if write(&mut out) { out.len() } else { 0 }
}

/// Connects pairs; in each, one message opens the conversation.
pub(super) async fn connect(dialer: &Dialer, count: usize, tag: &str) -> Result<Vec<Pair>, BenchError> {
    let mut pairs = Vec::with_capacity(count);
    let mut joining = JoinSet::new();
    for number in 0..count {
        if joining.len() >= CONNECTING
            && let Some(pair) = joining.join_next().await
        {
            pairs.push(pair.map_err(BenchError::from_panic)??);
        }
        let (dialer, tag) = (dialer.clone(), tag.to_owned());
        joining.spawn(async move { Pair::connect(&dialer, &tag, number).await });
    }
    while let Some(pair) = joining.join_next().await {
        pairs.push(pair.map_err(BenchError::from_panic)??);
    }
    Ok(pairs)
}

impl Pair {
    async fn connect(dialer: &Dialer, tag: &str, number: usize) -> Result<Self, BenchError> {
        let (from, to) = (names(tag, "from", number)?, names(tag, "to", number)?);
        let mut writer = Peer::enter(dialer, &from).await?;
        let reader = Peer::enter(dialer, &to).await?;
        let first = command(&writer, 1, Target::User(to), "hello".into());
        writer.push(&ClientFrame::Command(first))?;
        let until = Instant::now() + DRAIN;
        let (mut conversation, mut applied) = (None, false);
        while conversation.is_none() || !applied {
            writer
                .turn(until, |came| {
                    match came {
                        Came::Applied(_) => applied = true,
                        Came::Event(event) => {
                            if let EventBody::Sent(sent) = event.body {
                                conversation = Some(sent.conversation);
                            }
                        }
                    }
                    overdue(until)
                })
                .await?;
        }
        let mut pair = Self { writer, reader, conversation: conversation.unwrap_or_default(), sent: 1 };
        let mut arrived = false;
        while !arrived {
            pair.reader
                .turn(until, |came| {
                    arrived |= matches!(came, Came::Event(event) if matches!(event.body, EventBody::Message(_)));
                    overdue(until)
                })
                .await?;
        }
        Ok(pair)
    }

    /// Both leave.
    pub async fn close(self) {
        tokio::join!(self.writer.close(), self.reader.close());
    }
}

fn overdue(until: Instant) -> Result<(), BenchError> {
    if Instant::now() < until { Ok(()) } else { Err(BenchError::Failed(format!("not everything had arrived after {} s", DRAIN.as_secs()))) }
}

/// The command that sends a text.
pub(super) fn command(writer: &Peer, cseq: u64, to: Target, text: String) -> Command {
    let content = Content::text(text);
    Command {
        incarnation: writer.welcome.incarnation,
        cseq: CommandSeq(cseq),
        nonce: Nonce(rand::random()),
        body: Send { to, content }.into(),
    }
}

/// Lets all pairs write: as much as they may, or so many messages a second in all.
pub(super) async fn run(pairs: Vec<Pair>, seconds: u64, rate: Option<u32>, framing: Framing) -> Result<(Vec<Pair>, Measured), BenchError> {
    let begin = Instant::now();
    let plan = Plan { begin, end: begin + Duration::from_secs(seconds), pace: Duration::ZERO };
    let count = pairs.len() as u32;
    let mut running = JoinSet::new();
    for (number, pair) in (0..).zip(pairs) {
        // Each keeps its own pace, and begins a little after the one before.
        let pace = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(u64::from(count)) / rate.max(1));
        let plan = Plan { begin: begin + pace * number / count, pace, ..plan };
        running.spawn(measure(pair, plan, framing));
    }
    let mut pairs = Vec::new();
    let mut all =
        Measured { messages: 0, took: Duration::ZERO, applied: Histogram::new(), delivered: Histogram::new(), wire: Wire::default() };
    while let Some(done) = running.join_next().await {
        let (pair, written, read) = done.map_err(BenchError::from_panic)??;
        if written.messages != read.messages {
            return Err(BenchError::Failed(format!("{} messages were sent, {} came", written.messages, read.messages)));
        }
        pairs.push(pair);
        all.messages += read.messages;
        all.took = all.took.max(read.last - begin).max(written.last - begin);
        all.applied.merge(&written.times);
        all.delivered.merge(&read.times);
        all.wire.command_bytes = all.wire.command_bytes.max(written.bytes);
        all.wire.event_bytes = all.wire.event_bytes.max(read.bytes);
    }
    Ok((pairs, all))
}

#[derive(Clone, Copy)]
struct Plan {
    begin: Instant,
    end: Instant,
    /// Time between two messages; zero: none.
    pace: Duration,
}

/// What one side of a pair saw.
struct Side {
    messages: u64,
    last: Instant,
    times: Histogram,
    bytes: usize,
}

async fn measure(pair: Pair, plan: Plan, framing: Framing) -> Result<(Pair, Side, Side), BenchError> {
    let Pair { mut writer, mut reader, conversation, mut sent } = pair;
    let (written, read) = tokio::try_join!(write(&mut writer, conversation, &mut sent, plan, framing), read(&mut reader, plan, framing))?;
    Ok((Pair { writer, reader, conversation, sent }, written, read))
}

async fn write(writer: &mut Peer, conversation: ConversationId, sent: &mut u64, plan: Plan, framing: Framing) -> Result<Side, BenchError> {
    let window = writer.welcome.window as usize;
    let mut side = Side { messages: 0, last: plan.begin, times: Histogram::new(), bytes: 0 };
    let mut in_flight: VecDeque<Instant> = VecDeque::with_capacity(window);
    // Applied, and told as an event: both go up to `sent`.
    let (mut applied, mut told) = (*sent, *sent);
    let mut due = plan.begin;
    let mut ended = false;
    while !ended || applied < *sent || told < *sent {
        let mut now = Instant::now();
        let mut last = None;
        while !ended && in_flight.len() < window && due <= now {
            // When there is a pace, times count from when a message was due: one that had to wait is not counted as quick.
            let begun = if plan.pace.is_zero() { now } else { due };
            ended = begun >= plan.end;
            *sent += 1;
            side.messages += 1;
            in_flight.push_back(begun);
            let text = text(side.messages, begun - plan.begin, ended);
            let frame = ClientFrame::Command(command(writer, *sent, Target::Conversation(conversation), text));
            writer.push(&frame)?;
            due += plan.pace;
            now = Instant::now();
            last = Some(frame);
        }
        if let Some(frame) = last {
            side.bytes = framing.command_bytes(&frame);
        }
        let drained = plan.end + DRAIN;
        let until = if !ended && in_flight.len() < window { due } else { drained };
        writer
            .turn(until, |came| {
                match came {
                    Came::Applied(cseq) => {
                        side.last = Instant::now();
                        while applied < cseq {
                            applied += 1;
                            let begun = in_flight.pop_front().ok_or_else(|| BenchError::Failed(format!("{cseq} was never sent")))?;
                            side.times.record(side.last - begun);
                        }
                    }
                    Came::Event(event) => match event.body {
                        EventBody::Sent(outcome) if outcome.cseq.0 == told + 1 => told += 1,
                        EventBody::Sent(_) | EventBody::Rejected(_) => {
                            return Err(BenchError::Failed(format!("instead of the outcome of {} came {:?}", told + 1, event.body)));
                        }
                        _ => {}
                    },
                }
                Ok(())
            })
            .await?;
        overdue(drained)?;
    }
    Ok(side)
}

async fn read(reader: &mut Peer, plan: Plan, framing: Framing) -> Result<Side, BenchError> {
    let mut side = Side { messages: 0, last: plan.begin, times: Histogram::new(), bytes: 0 };
    let mut ended = false;
    let drained = plan.end + DRAIN;
    while !ended {
        let mut event = None;
        reader
            .turn(drained, |came| {
                let Came::Event(came) = came else { return Ok(()) };
                let EventBody::Message(message) = &came.body else { return Ok(()) };
                let (number, begun, last) =
                    parse(&message.content.text).ok_or_else(|| BenchError::Failed(format!("a text changed on its way: {message:?}")))?;
                if number != side.messages + 1 {
                    return Err(BenchError::Failed(format!("message {number} came after {}", side.messages)));
                }
                side.messages = number;
                side.last = Instant::now();
                side.times.record(side.last.saturating_duration_since(plan.begin + begun));
                ended = last;
                event = Some(came);
                Ok(())
            })
            .await?;
        if let Some(event) = event {
            side.bytes = framing.event_bytes(&ServerFrame::Event(event));
        }
        overdue(drained)?;
    }
    Ok(side)
}

/// A text of [`TEXT_BYTES`] that says which message it is, when it began, and whether it is the last.
fn text(number: u64, begun: Duration, last: bool) -> String {
    let mark = if last { "last" } else { "more" };
    format!("{:.<width$}", format_args!("{number} {} {mark} ", begun.as_nanos()).to_string(), width = TEXT_BYTES)
}

fn parse(text: &str) -> Option<(u64, Duration, bool)> {
    let mut words = text.split(' ');
    let number = words.next()?.parse().ok()?;
    let begun = Duration::from_nanos(words.next()?.parse().ok()?);
    let last = match words.next()? {
        "last" => true,
        "more" => false,
        _ => return None,
    };
    (text.len() == TEXT_BYTES && words.next()?.bytes().all(|byte| byte == b'.')).then_some((number, begun, last))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_size_and_are_read_again() {
        for (number, begun, last) in [(1, Duration::ZERO, false), (99_999_999, Duration::from_secs(600), true)] {
            let text = text(number, begun, last);
            assert_eq!(text.len(), TEXT_BYTES);
            assert_eq!(parse(&text), Some((number, begun, last)));
        }
        for bad in ["", "hello", "1 2 more .", "1 2 else ..........................................."] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn headers_of_web_sockets_are_counted() {
        assert_eq!(web_socket_bytes(70, false), 72);
        assert_eq!(web_socket_bytes(125, true), 131);
        assert_eq!(web_socket_bytes(126, false), 130);
        assert_eq!(web_socket_bytes(70_000, false), 70_010);
    }
}
