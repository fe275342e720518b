//! What passes over the WebSocket of a client of Socket.IO, looked at without changing it, but for pings that are put between the frames:
//! each asks whether what left before it has arrived.

use super::moving::PROBED;
use super::wire::Wire;
use axum::body::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// As much of a payload as tells what it is.
const HEAD: usize = 16;
/// Bytes of the head of a short frame that a server sends.
const FRAME_HEAD: usize = 2;
/// A ping of Engine.IO in a WebSocket frame: final, text, one byte, unmasked.
const PING: [u8; 3] = [0x81, 1, b'2'];

/// The sort of a WebSocket frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    Other,
}

/// Finds the frames of a WebSocket in its bytes, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Of the header that is being read.
    header: [u8; 14],
    got: usize,
    /// The payload that is being read, once its header is whole.
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    kind: Kind,
    mask: [u8; 4],
    /// Bytes that were seen, and that there are.
    seen: u64,
    len: u64,
    head: [u8; HEAD],
}

impl Frames {
    /// Whether nothing of a frame has passed that has not passed whole.
    fn between(&self) -> bool {
        self.got == 0
    }

    /// Takes bytes; tells each frame that ends with them: its sort, its length, and how its payload begins.
    pub fn take(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Kind, u64, &[u8])) {
        while let Some((&byte, rest)) = bytes.split_first() {
            let Some(payload) = &mut self.payload else {
                bytes = rest;
                if let Some(place) = self.header.get_mut(self.got) {
                    *place = byte;
                }
                self.got += 1;
                self.payload = self.begun();
                // There may be no payload at all.
                self.end_if_whole(&mut on_frame);
                continue;
            };
            let here = usize::try_from(payload.len - payload.seen).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(here);
            let at = usize::try_from(payload.seen).unwrap_or(HEAD).min(HEAD);
            for (place, (index, byte)) in payload.head[at..].iter_mut().zip((at..).zip(now)) {
                *place = byte ^ payload.mask[index % 4];
            }
            payload.seen += here as u64;
            bytes = later;
            self.end_if_whole(&mut on_frame);
        }
    }

    /// The payload that follows, if the header is whole.
    fn begun(&self) -> Option<Payload> {
        let [first, second, ..] = self.header;
        if self.got < 2 {
            return None;
        }
        let (long, masked) = (second & 0x7f, second & 0x80 != 0);
        let end = 2 + match long {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.got < end + if masked { 4 } else { 0 } {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let len = if long < 126 { long.into() } else { number(&self.header[2..end]) };
        let mut mask = [0; 4];
        if masked {
            mask.copy_from_slice(&self.header[end..end + 4]);
        }
        let kind = match first & 0x0f {
            1 => Kind::Text,
            2 => Kind::Binary,
            _ => Kind::Other,
        };
        Some(Payload { kind, mask, seen: 0, len, head: [0; HEAD] })
    }

    fn end_if_whole(&mut self, on_frame: &mut impl FnMut(Kind, u64, &[u8])) {
        if let Some(payload) = self.payload.take_if(|payload| payload.seen == payload.len) {
            let head = HEAD.min(usize::try_from(payload.len).unwrap_or(HEAD));
            on_frame(payload.kind, payload.len, &payload.head[..head]);
            self.got = 0;
        }
    }
}

/// A stream under a WebSocket of Engine.IO.
pub(super) struct Line<S> {
    stream: S,
    wire: Arc<Wire>,
    leaving: Frames,
    coming: Frames,
    /// How much of a ping has left, if one is leaving.
    ping: Option<usize>,
    /// What came before, to be read first; and how many of the bytes that are written first have left before.
    came: Bytes,
    gone: usize,
    /// Whoever waits for the end of this hears of it when it is dropped.
    _end: Option<oneshot::Sender<()>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Looks at what passes, and notes it.
    pub fn new(stream: S, wire: Arc<Wire>) -> Self {
        Self { stream, wire, leaving: Frames::default(), coming: Frames::default(), ping: None, came: Bytes::new(), gone: 0, _end: None }
    }

    /// As of a client that moves here from polling: what came of it so far is heard again, and it is not answered twice. The other end of `end` fails once
    /// this is over.
    pub fn moved(stream: S, wire: Arc<Wire>, came: Vec<u8>, end: oneshot::Sender<()>) -> Self {
        Self { came: came.into(), gone: FRAME_HEAD + PROBED.len(), _end: Some(end), ..Self::new(stream, wire) }
    }

    /// Puts a ping between the frames, if one would tell something. `true` if one has left.
    fn poll_ping(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ping.is_none() {
            if !self.leaving.between() || !self.wire.wants_ping() {
                return Poll::Ready(Ok(false));
            }
            self.ping = Some(0);
        }
        while let Some(left) = self.ping {
            let Some(rest) = PING.get(left..).filter(|rest| !rest.is_empty()) else {
                self.ping = None;
                self.wire.on_ping();
                return Poll::Ready(Ok(true));
            };
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.ping = Some(left + written),
            }
        }
        Poll::Ready(Ok(false))
    }

    fn on_written(&mut self, bytes: &[u8]) {
        let mut counted = self.wire.counted();
        let wire = &self.wire;
        self.leaving.take(bytes, |kind, len, head| match kind {
            Kind::Text if len == 1 && head == b"2" => {
                // The library's own.
                wire.on_left(counted);
                wire.on_ping();
            }
            Kind::Text => counted.on_text(head),
            Kind::Binary => counted.on_binary(),
            Kind::Other => {}
        });
        self.wire.on_left(counted);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Line<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.wire.may_read(context) {
            Some(false) if self.came.is_empty() => return Poll::Pending,
            Some(_) => {}
            None => return Poll::Ready(Ok(())),
        }
        let before = buffer.filled().len();
        if self.came.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else {
            let now = self.came.len().min(buffer.remaining());
            buffer.put_slice(&self.came.split_to(now));
        }
        let this = &mut *self;
        let came = buffer.filled().get(before..).unwrap_or_default();
        let mut heard = false;
        this.coming.take(came, |kind, len, head| {
            heard = true;
            match head {
                b"3" if kind == Kind::Text && len == 1 => this.wire.on_pong(),
                _ => {}
            }
        });
        if heard {
            this.wire.on_heard();
            // What left after the last ping is asked for now: nobody may write for a while.
            if this.poll_ping(context)?.is_ready() {
                let _ = Pin::new(&mut this.stream).poll_flush(context)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = self.gone.min(bytes.len());
        if gone > 0 {
            self.gone -= gone;
            return Poll::Ready(Ok(gone));
        }
        if self.wire.is_given_up(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // One that has begun has to be whole first; a new one waits for the flush, behind all that is there to be written.
        if self.ping.is_some() {
            ready!(self.poll_ping(context))?;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.on_written(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.is_given_up(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_ping(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// A frame as it stands on the wire.
    fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => bytes.push(bit | len as u8),
            len @ 126..65_536 => {
                bytes.push(bit | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(bit | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
        let mask = mask.unwrap_or_default();
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((0u8..11, prop_oneof![Just(0usize), 1usize..20, 120usize..130, 65_530usize..65_540], any::<Option<[u8; 4]>>()), 1..6),
            cuts in prop::collection::vec(1usize..40_000, 1..20),
        ) {
            let payload = |len: usize| (0..len).map(|at| at as u8).collect::<Vec<u8>>();
            let bytes: Vec<u8> = frames.iter().flat_map(|(opcode, len, mask)| frame(*opcode, &payload(*len), *mask)).collect();
            let expected: Vec<_> = frames.iter().map(|(opcode, len, _)| {
                let kind = match opcode { 1 => Kind::Text, 2 => Kind::Binary, _ => Kind::Other };
                (kind, *len as u64, payload((*len).min(HEAD)))
            }).collect();
            let (mut found, mut all, mut rest) = (Vec::new(), Frames::default(), &bytes[..]);
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                all.take(now, |kind, len, head| found.push((kind, len, head.to_vec())));
                rest = later;
            }
            prop_assert_eq!(found, expected);
            prop_assert!(all.between());
        }
    }

    #[tokio::test]
    async fn pings_stand_between_frames_behind_what_they_ask_for() {
        let wire = Arc::new(Wire::default());
        let (near, mut far) = duplex(1 << 16);
        let mut line = Line::new(near, wire.clone());
        let event = frame(1, b"42[\"a\"]", None);
        let announced = frame(1, b"451-[\"b\",{\"_placeholder\":true,\"num\":0}]", None);
        let attachment = frame(2, &[7; 300], None);
        let (begin, end) = event.split_at(4);
        let mut all = Vec::new();
        let mut read = async |far: &mut tokio::io::DuplexStream, bytes: usize| {
            let mut came = vec![0; bytes];
            far.read_exact(&mut came).await.unwrap_or_else(|why| panic!("{why}"));
            all = came.clone();
            came
        };
        line.write_all(begin).await.unwrap_or_else(|why| panic!("{why}"));
        line.flush().await.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(read(&mut far, 4).await, begin, "not within a frame");
        line.write_all(end).await.unwrap_or_else(|why| panic!("{why}"));
        line.flush().await.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(read(&mut far, end.len() + 3).await, [end, &PING].concat());
        line.write_all(&announced).await.unwrap_or_else(|why| panic!("{why}"));
        line.flush().await.unwrap_or_else(|why| panic!("{why}"));
        far.write_all(&frame(1, b"3", Some([1, 2, 3, 4]))).await.unwrap_or_else(|why| panic!("{why}"));
        let mut buffer = [0; 64];
        line.read(&mut buffer).await.map(drop).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(wire.progress().borrow().taken, 1);
        line.write_all(&attachment).await.unwrap_or_else(|why| panic!("{why}"));
        line.flush().await.unwrap_or_else(|why| panic!("{why}"));
        let expected = [&announced[..], &attachment, &PING].concat();
        assert_eq!(read(&mut far, expected.len()).await, expected, "nor between an event and its attachment");
        far.write_all(&frame(1, b"3", Some([9; 4]))).await.unwrap_or_else(|why| panic!("{why}"));
        line.read(&mut buffer).await.map(drop).unwrap_or_else(|why| panic!("{why}"));
        let progress = *wire.progress().borrow();
        assert_eq!((progress.written, progress.taken), (2, 2));
    }

    #[tokio::test]
    async fn who_is_given_up_keeps_nobody_writing() {
        let wire = Arc::new(Wire::default());
        let (near, _far) = duplex(8);
        let mut line = Line::new(near, wire.clone());
        let writing = tokio::spawn(async move { line.write_all(&frame(1, &[b'x'; 100], None)).await });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        wire.give_up();
        let written = writing.await.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(written.map_err(|why| why.kind()), Err(io::ErrorKind::BrokenPipe));
    }
}
