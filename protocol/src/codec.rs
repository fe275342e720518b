//! Bytes to frames and back, and every limit that keeps a peer from making us large.
//!
//! On a stream each frame stands behind its length, a varint as in postcard (LEB128, at most three bytes for what is allowed). A
//! WebSocket message or a datagram holds exactly one frame, without a length.

use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{Serialize, de::DeserializeOwned};

/// The longest frame in postcard, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// The longest frame in JSON, in bytes: a byte of text may take six there, and names take room.
pub const MAX_JSON_FRAME: usize = 7 * MAX_FRAME;
/// The most bytes of postcard to put into a page of several things, so that it is a frame in JSON as well.
pub const MAX_PAGE: usize = 24 * 1024;
/// The longest text of a message, in bytes of UTF-8. What is longer is a file.
pub const MAX_TEXT: usize = 60 * 1024;
/// The most bytes in the values of a message's extensions, all together.
pub const MAX_EXTENSIONS: usize = 2 * 1024;
/// Bytes that most frames fit into: a message of a line or two.
const USUAL: usize = 128;
/// The most bytes that a length may take on a stream.
pub const MAX_PREFIX: usize = 3;
/// The longest reason that this crate gives for what it could not read, in bytes.
pub const MAX_REASON: usize = 256;

/// The most memory that decoding takes, in bytes for each byte of the frame: what lists that announce more than they hold cost.
pub const MEMORY_PER_BYTE: usize = 160;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame is longer than allowed; nothing was allocated for it.
    #[error("a frame of {len} bytes is longer than the {max} allowed")]
    TooLong {
        /// Bytes announced or given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The length before a frame takes more than [`MAX_PREFIX`] bytes.
    #[error("the length before a frame is not a varint of at most {MAX_PREFIX} bytes")]
    BadLength,
    /// The bytes are no frame of this protocol.
    #[error("these bytes are not a frame: {0}")]
    Malformed(String),
    /// A frame was followed by bytes that belong to nothing.
    #[error("{0} bytes after the end of the frame")]
    Trailing(usize),
}

/// The two forms that frames have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Compact binary.
    Postcard,
    /// Text, for people and for languages without a postcard.
    Json,
}

impl Form {
    /// The longest frame in this form, in bytes.
    #[must_use]
    pub const fn max_frame(self) -> usize {
        match self {
            Self::Postcard => MAX_FRAME,
            Self::Json => MAX_JSON_FRAME,
        }
    }

    /// Writes one frame, without a length before it.
    ///
    /// A page of many small things may grow fifteenfold from postcard to JSON, so what is served in both forms is filled by [`MAX_PAGE`].
    ///
    /// # Errors
    /// If the frame is longer than [`Form::max_frame`].
    pub fn encode<F: Serialize>(self, frame: &F) -> Result<Vec<u8>, CodecError> {
        let bytes = match self {
            Self::Postcard => to_postcard(frame).map_err(malformed)?,
            Self::Json => serde_json::to_vec(frame).map_err(malformed)?,
        };
        check_length(bytes.len(), self.max_frame())?;
        Ok(bytes)
    }

    /// Reads exactly one frame.
    ///
    /// # Errors
    /// If the bytes are too long, no frame, or more than a frame.
    pub fn decode<F: DeserializeOwned>(self, bytes: &[u8]) -> Result<F, CodecError> {
        check_length(bytes.len(), self.max_frame())?;
        match self {
            Self::Postcard => match postcard::take_from_bytes(bytes).map_err(malformed)? {
                (frame, []) => Ok(frame),
                (_, rest) => Err(CodecError::Trailing(rest.len())),
            },
            Self::Json => serde_json::from_slice(bytes).map_err(malformed),
        }
    }
}

/// Postcard, in a vector that most frames and bodies fit into without growing.
pub(crate) fn to_postcard<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut out = Vec::with_capacity(USUAL);
    postcard::serialize_with_flavor(value, Appending(&mut out))?;
    Ok(out)
}

/// Writes at the end of a vector.
struct Appending<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appending<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> Result<(), postcard::Error> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> Result<(), postcard::Error> {
        Ok(())
    }
}

fn malformed(why: impl fmt::Display) -> CodecError {
    CodecError::Malformed(reason(format_args!("{why}")))
}

/// Says why something could not be read, in at most [`MAX_REASON`] bytes: it may quote the peer, and goes into logs, frames and stores.
pub(crate) fn reason(why: fmt::Arguments<'_>) -> String {
    struct Clipped(String);
    impl fmt::Write for Clipped {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_REASON - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut clipped = Clipped(String::new());
    // The only error is the one above: there is no more room.
    let _ = fmt::write(&mut clipped, why);
    clipped.0
}

fn check_length(len: usize, max: usize) -> Result<(), CodecError> {
    if len > max { Err(CodecError::TooLong { len, max }) } else { Ok(()) }
}

/// Appends one postcard frame with its length, as it stands on a stream.
///
/// # Errors
/// If the frame is longer than [`MAX_FRAME`]; `out` is unchanged then.
pub fn write_frame<F: Serialize>(frame: &F, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let before = out.len();
    // Nearly every frame is short enough for one byte of length; what follows a longer one is moved, once.
    out.push(0);
    let written = postcard::serialize_with_flavor(frame, Appending(out)).map_err(malformed);
    let mut len = out.len() - before - 1;
    if let Err(why) = written.and_then(|()| check_length(len, MAX_FRAME)) {
        out.truncate(before);
        return Err(why);
    }
    let mut prefix = [0; MAX_PREFIX];
    let mut bytes = 0;
    for byte in &mut prefix {
        bytes += 1;
        if len < 0x80 {
            *byte = len as u8;
            break;
        }
        *byte = (len & 0x7f) as u8 | 0x80;
        len >>= 7;
    }
    out.splice(before..=before, prefix.into_iter().take(bytes));
    Ok(())
}

/// Finds the first frame in bytes that came over a stream: `Ok(Some((start, end)))` says that `bytes[start..end]` is one, whole;
/// `Ok(None)` that more bytes are needed.
///
/// # Errors
/// If the length is malformed or beyond [`MAX_FRAME`]; the stream is of no use then.
pub fn find_frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, CodecError> {
    let mut len = 0usize;
    for (at, byte) in bytes.iter().take(MAX_PREFIX).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            check_length(len, MAX_FRAME)?;
            let start = at + 1;
            return Ok((bytes.len() - start >= len).then_some((start, start + len)));
        }
    }
    if bytes.len() >= MAX_PREFIX { Err(CodecError::BadLength) } else { Ok(None) }
}

/// The frames in a datagram, each behind its length; it ends where bytes follow that are no whole frame of the kind.
pub fn frames_in<F: DeserializeOwned>(datagram: &[u8]) -> impl Iterator<Item = F> {
    let mut rest = datagram;
    core::iter::from_fn(move || {
        let (start, end) = find_frame(rest).ok()??;
        let frame = Form::Postcard.decode(rest.get(start..end)?).ok()?;
        rest = rest.get(end..)?;
        Some(frame)
    })
}
