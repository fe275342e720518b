//! A client that polls moves to a WebSocket: first it tries whether one gets through. To the library one that tries has as good as moved: whatever
//! comes of it, its polls tell it nothing more, and what the last of them had no room for never leaves. So it is answered here, where nothing is lost if
//! it comes to nothing; the library is given a WebSocket whose client has moved, and on which all is that waited for its polls.

use super::line::{Frames, Kind};
use super::wire::Wire;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// What a client asks first on its WebSocket, what it is answered, and what it says once it polls no more.
const PROBE: &[u8] = b"2probe";
pub(super) const PROBED: &str = "3probe";
const MOVED: &[u8] = b"5";
/// Bytes that are read at once, and more than such a client has to say.
const CHUNK: usize = 256;
const PROBE_BYTES: usize = 4 * 1024;
/// What stands between packets in the answer to a poll.
const SEPARATOR: u8 = 0x1e;
/// A packet of Engine.IO that means nothing.
pub(super) const NOOP: &str = "6";

/// How far a client is that tries a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Silent,
    Asked,
    Moved,
    Wrong,
}

/// A frame as a server sends it.
fn frame(kind: Data, payload: impl Into<axum::body::Bytes>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Frame::message(payload, OpCode::Data(kind), true).format(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Answers a client that tries a WebSocket, until it has moved there. Returns what it said on it, to be heard by the library.
///
/// # Errors
/// If it goes, or says something else.
pub(super) async fn try_out<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, wire: &Wire) -> io::Result<Vec<u8>> {
    let (mut came, mut frames, mut step, mut answered) = (Vec::new(), Frames::default(), Step::Silent, false);
    while step != Step::Moved {
        let mut chunk = [0; CHUNK];
        let read = stream.read(&mut chunk).await?;
        let chunk = chunk.get(..read).unwrap_or_default();
        came.extend_from_slice(chunk);
        if chunk.is_empty() || came.len() > PROBE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.take(chunk, |kind, len, head| {
            step = match step {
                Step::Silent if kind == Kind::Text && len == PROBE.len() as u64 && head == PROBE => Step::Asked,
                Step::Asked if kind == Kind::Text && len == MOVED.len() as u64 && head == MOVED => Step::Moved,
                // It may go on at once.
                Step::Moved => Step::Moved,
                _ => Step::Wrong,
            }
        });
        if step == Step::Wrong {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if step != Step::Silent && !std::mem::replace(&mut answered, true) {
            wire.on_probed();
            stream.write_all(&frame(Data::Text, PROBED)?).await?;
            stream.flush().await?;
        }
    }
    Ok(came)
}

/// The packets in the answer to a poll.
pub(super) fn packets(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == SEPARATOR)
}

/// Puts the answer to a poll onto the WebSocket of a client that polls no more.
///
/// # Errors
/// If the client is gone, or the answer is none.
pub(super) async fn put<S: AsyncWrite + Unpin>(stream: &mut S, wire: &Wire, body: &[u8]) -> io::Result<()> {
    let mut counted = wire.counted();
    for packet in packets(body) {
        match packet {
            // It was for the poll.
            packet if packet == NOOP.as_bytes() => {}
            [b'b', bytes @ ..] => {
                let bytes = STANDARD.decode(bytes).map_err(io::Error::other)?;
                stream.write_all(&frame(Data::Binary, bytes)?).await?;
                counted.on_binary();
            }
            packet => {
                stream.write_all(&frame(Data::Text, packet.to_vec())?).await?;
                counted.on_text(packet);
            }
        }
        wire.on_left(counted);
        if packet == b"2" {
            wire.on_ping();
        }
    }
    stream.flush().await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::line::Line;
    use super::super::wire::Paused;
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use std::sync::Arc;
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::oneshot;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    async fn pair() -> (DuplexStream, WebSocketStream<DuplexStream>) {
        let (near, far) = duplex(1 << 16);
        (near, WebSocketStream::from_raw_socket(far, Role::Client, None).await)
    }

    #[tokio::test]
    async fn the_library_hears_of_a_client_that_has_moved_and_is_not_heard_twice() {
        let (mut near, mut far) = pair().await;
        let wire = Arc::new(Wire::default());
        let trying = async {
            let came = try_out(&mut near, &wire).await.unwrap();
            put(&mut near, &wire, b"42[\"a\"]\x1e451-[\"b\",{}]\x1ebAQID\x1e6\x1e2").await.unwrap();
            (near, came)
        };
        let client = async {
            far.send(Message::text("2probe")).await.unwrap();
            assert_eq!(far.next().await.unwrap().unwrap(), Message::text("3probe"));
            for packet in ["5", "42[\"c\"]"] {
                far.send(Message::text(packet)).await.unwrap();
            }
            for packet in ["42[\"a\"]", "451-[\"b\",{}]"] {
                assert_eq!(far.next().await.unwrap().unwrap(), Message::text(packet));
            }
            assert_eq!(far.next().await.unwrap().unwrap(), Message::binary(vec![1, 2, 3]));
            assert_eq!(far.next().await.unwrap().unwrap(), Message::text("2"));
            far
        };
        let ((near, came), mut far) = tokio::join!(trying, client);
        assert_eq!(wire.progress().borrow().written, 2);
        let (end, ended) = oneshot::channel();
        wire.pause(Paused::Wishes, true);
        let mut library = WebSocketStream::from_raw_socket(Line::moved(near, wire.clone(), came, end), Role::Server, None).await;
        assert_eq!(library.next().await.unwrap().unwrap(), Message::text("2probe"));
        library.send(Message::text("3probe")).await.unwrap();
        for packet in ["5", "42[\"c\"]"] {
            assert_eq!(library.next().await.unwrap().unwrap(), Message::text(packet));
        }
        wire.pause(Paused::Wishes, false);
        library.send(Message::text("42[\"d\"]")).await.unwrap();
        assert_eq!(far.next().await.unwrap().unwrap(), Message::text("42[\"d\"]"));
        far.send(Message::text("3")).await.unwrap();
        assert_eq!(library.next().await.unwrap().unwrap(), Message::text("3"));
        assert_eq!(wire.progress().borrow().taken, 2, "what was put there has been asked for");
        drop(library);
        ended.await.unwrap_err();
    }

    #[tokio::test]
    async fn who_says_something_else_has_not_moved() {
        for said in [&["5"][..], &["2probe", "2probe"], &["2probe", "4"], &["3"], &["2probe", ""]] {
            let (mut near, mut far) = pair().await;
            for packet in said {
                far.send(Message::text(*packet)).await.unwrap();
            }
            assert!(try_out(&mut near, &Wire::default()).await.is_err(), "{said:?}");
        }
        let (mut near, far) = pair().await;
        drop(far);
        assert!(try_out(&mut near, &Wire::default()).await.is_err());
    }
}
