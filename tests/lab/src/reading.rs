//! A phone that reads old messages while new ones come: what that does to the new ones.

use crate::LabError;
use crate::measure::{latencies, ms};
use crate::traffic::{Device, Notes};
use serde::Serialize;
use std::time::{Duration, Instant};
use whimbrel_client::Client;
use whimbrel_client::protocol::ConversationSeq;
use whimbrel_client::protocol::frame::{Direction, Target};

/// How long the conversation is left alone before the reading begins.
pub const BEFORE: Duration = Duration::from_secs(5);
/// Bytes of text of one old message: long ones, so that few are many bytes.
pub const TEXT_BYTES: usize = 40_000;
/// Messages that are asked for at once, which is the most: a server sends as many of them as fit into its limit of bytes.
const MESSAGES_MAX: u32 = 500;
/// How long all of it may take.
const READ_MAX: Duration = Duration::from_secs(300);

/// What was read, and when.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// When the first question was asked.
    pub begun: Instant,
    /// When the last answer was there.
    pub done: Instant,
    /// Bytes of text.
    pub bytes: usize,
    /// Questions that were asked, one after the other.
    pub queries: usize,
}

/// A reading in numbers. Times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    /// How long it took.
    pub took: f64,
    /// See [`Read::bytes`].
    pub bytes: usize,
    /// See [`Read::queries`].
    pub queries: usize,
    /// New messages that were sent by the phone before it …
    pub up_before: Vec<f64>,
    /// … and during it: how long each took.
    pub up_during: Vec<f64>,
    /// The same to the phone.
    pub down_before: Vec<f64>,
    /// The same to the phone.
    pub down_during: Vec<f64>,
}

impl Reading {
    /// What the notes of both devices say, if the phone has read.
    #[must_use]
    pub fn of(phone: &Notes, desk: &Notes, start: Instant) -> Option<Self> {
        let Read { begun, done, bytes, queries } = phone.read?;
        Some(Self {
            took: ms(done - begun),
            bytes,
            queries,
            up_before: latencies(phone, desk, start, begun),
            up_during: latencies(phone, desk, begun, done),
            down_before: latencies(desk, phone, start, begun),
            down_during: latencies(desk, phone, begun, done),
        })
    }
}

/// Reads the oldest messages of a conversation up to so many bytes of text.
///
/// # Errors
/// What the client says, for people.
pub(crate) async fn read(client: &Client, of: &Target, bytes_max: usize) -> Result<Read, String> {
    let begun = Instant::now();
    let (mut bytes, mut queries, mut from) = (0, 0, ConversationSeq(0));
    while bytes < bytes_max {
        let page = client.history(of.clone(), from, Direction::Forwards, MESSAGES_MAX).await.map_err(|why| why.to_string())?;
        queries += 1;
        bytes += page.messages.iter().map(|message| message.content.text.len()).sum::<usize>();
        let Some(last) = page.messages.last().filter(|_| page.more) else { break };
        from = last.seq;
    }
    if bytes < bytes_max {
        Err(format!("the history has {bytes} bytes only"))
    } else {
        Ok(Read { begun, done: Instant::now(), bytes, queries })
    }
}

/// Leaves the conversation alone for a while, has the phone read, and waits until it has.
pub(crate) fn read_and_wait(phone: &Device, bytes: usize) -> Result<(), LabError> {
    std::thread::sleep(BEFORE);
    phone.read(bytes);
    if phone.wait_until(Instant::now() + READ_MAX, |notes| notes.read.is_some() || !notes.faults.is_empty()) {
        Ok(())
    } else {
        Err(LabError::Client { who: "the phone".into(), why: format!("it has not read within {} s", READ_MAX.as_secs()) })
    }
}
