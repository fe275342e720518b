//! The golden vectors in `vectors/`: what the files hold is what this crate writes and reads, and every kind is among it.

use crate::samples::{self, Frame};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use whimbrel_protocol::ErrorCode;
use whimbrel_protocol::codec::{CodecError, Form, find_frame, write_frame};
use whimbrel_protocol::frame::*;

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Client,
    Server,
}

/// A frame that is written as it is read.
#[derive(Deserialize)]
pub struct Vector {
    pub name: String,
    from: From,
    pub hex: String,
    pub json: Box<RawValue>,
}

impl Vector {
    /// The type of the frame.
    pub fn alphabet(&self) -> &'static str {
        match self.from {
            From::Client => "ClientFrame",
            From::Server => "ServerFrame",
        }
    }
}

/// A frame that nobody writes today and everybody reads: as the JSON says, or not at all.
#[derive(Deserialize)]
struct Reading {
    name: String,
    from: From,
    hex: Option<String>,
    text: Option<String>,
    reads: Option<Value>,
}

/// Bytes on a stream, the frames in them, and how many bytes are left that are not a frame yet; no frames: the length is refused.
#[derive(Deserialize)]
struct Stream {
    name: String,
    hex: String,
    frames: Option<Vec<String>>,
    left: usize,
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file)
}

fn load<T: for<'de> Deserialize<'de>>(file: &str) -> Vec<T> {
    let text = fs::read_to_string(path(file)).unwrap_or_else(|why| panic!("{file}: {why}; WHIMBREL_BLESS=1 writes the files of samples"));
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{file}: {why}"))
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

pub fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte: {hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

impl Frame {
    fn decode(form: Form, from: From, bytes: &[u8]) -> Result<Self, CodecError> {
        match from {
            From::Client => form.decode(bytes).map(Self::Client),
            From::Server => form.decode(bytes).map(Self::Server),
        }
    }

    fn encode(&self, form: Form) -> Vec<u8> {
        match self {
            Self::Client(frame) => form.encode(frame),
            Self::Server(frame) => form.encode(frame),
        }
        .unwrap()
    }

    fn from(&self) -> From {
        match self {
            Self::Client(_) => From::Client,
            Self::Server(_) => From::Server,
        }
    }
}

const FAMILIES: [&str; 8] = ["hello", "control", "error", "command", "event", "query", "snapshot", "signal"];

pub fn vectors() -> Vec<(&'static str, Vector)> {
    FAMILIES.iter().flat_map(|family| load::<Vector>(&format!("{family}.json")).into_iter().map(|vector| (*family, vector))).collect()
}

/// The file of a family as it should be: an array, a vector a line.
fn file(family: &str) -> String {
    let line = |sample: &samples::Sample| {
        let from = if sample.frame.from() == From::Client { "client" } else { "server" };
        let (hex, json) = (to_hex(&sample.frame.encode(Form::Postcard)), String::from_utf8(sample.frame.encode(Form::Json)).unwrap());
        format!("{{\"name\":{:?},\"from\":\"{from}\",\"hex\":\"{hex}\",\"json\":{json}}}", sample.name)
    };
    let lines: Vec<_> = samples::all().iter().filter(|sample| sample.family == family).map(line).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// Other people's clients have read these files: what was once in them must stay readable, so look at the difference before it is kept.
#[test]
fn the_files_hold_the_samples() {
    let bless = std::env::var_os("WHIMBREL_BLESS").is_some();
    assert!(!bless || std::env::var_os("CI").is_none(), "vectors are never written by a machine that also judges them");
    for family in FAMILIES {
        if bless {
            fs::write(path(&format!("{family}.json")), file(family)).unwrap();
        }
        let held = fs::read_to_string(path(&format!("{family}.json"))).unwrap_or_default();
        assert!(held == file(family), "{family}.json differs from what is written now; if it must, WHIMBREL_BLESS=1 writes it anew");
    }
}

#[test]
fn every_vector_is_read_and_written_in_both_forms() {
    let samples = samples::all();
    for (family, Vector { name, from, hex, json }) in vectors() {
        let bytes = from_hex(&hex);
        let frame = Frame::decode(Form::Postcard, from, &bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(Frame::decode(Form::Json, from, json.get().as_bytes()).as_ref(), Ok(&frame), "{name}");
        assert_eq!(to_hex(&frame.encode(Form::Postcard)), hex, "{name}");
        assert_eq!(String::from_utf8(frame.encode(Form::Json)).unwrap(), json.get(), "{name}");
        let sample = samples.iter().find(|sample| (sample.family, &sample.name) == (family, &name));
        assert_eq!(sample.map(|sample| &sample.frame), Some(&frame), "{name}");
    }
}

#[test]
fn what_only_readers_meet_is_read_or_refused_as_the_file_says() {
    for Reading { name, from, hex, text, reads } in load("reading.json") {
        let frame = match (hex, text) {
            (Some(hex), None) => Frame::decode(Form::Postcard, from, &from_hex(&hex)),
            (None, Some(text)) => Frame::decode(Form::Json, from, text.as_bytes()),
            _ => panic!("{name}: either hex or text"),
        };
        let read = frame.ok().map(|frame| serde_json::from_slice::<Value>(&frame.encode(Form::Json)).unwrap());
        assert_eq!(read, reads, "{name}");
        assert_eq!(name.starts_with("refused"), read.is_none(), "{name}");
    }
}

#[test]
fn streams_are_cut_as_the_file_says() {
    for Stream { name, hex, frames, left } in load("stream.json") {
        let (bytes, mut at, mut found) = (from_hex(&hex), 0, Vec::new());
        let cut = loop {
            match find_frame(&bytes[at..]) {
                Ok(Some((start, end))) => {
                    found.push(to_hex(&bytes[at + start..at + end]));
                    at += end;
                }
                Ok(None) => break Some(found),
                Err(_) => break None,
            }
        };
        assert_eq!((cut, bytes.len() - at), (frames, left), "{name}");
    }
    let mut stream = Vec::new();
    write_frame(&ClientFrame::Ping(Ping { id: 300 }), &mut stream).unwrap();
    assert!(load::<Stream>("stream.json").iter().any(|vector| vector.hex == to_hex(&stream)), "the plainest of all is there");
}

/// A table of the variants of an enum that does not compile when one is missing.
macro_rules! variants {
    ($type:ident: $($variant:ident),+) => {
        (
            stringify!($type),
            &[$(stringify!($variant)),+][..],
            (|value: &$type| match value { $($type::$variant { .. } => stringify!($variant)),+ }) as fn(&$type) -> &'static str,
        )
    };
}

/// Every variant of the alphabets, every kind of every table and every code stands in some vector, and so do unknown ones.
#[test]
fn every_kind_has_a_vector() {
    let (client, client_all, client_name) = variants!(ClientFrame: Hello, Command, Ack, Query, Signal, Ping, Pong);
    let (server, server_all, server_name) =
        variants!(ServerFrame: Welcome, Applied, Event, Snapshot, Answer, Signal, Ping, Pong, Busy, GoAway, Error);
    let mut seen = BTreeSet::new();
    let mut codes = BTreeSet::new();
    for (_, vector) in vectors() {
        match Frame::decode(Form::Postcard, vector.from, &from_hex(&vector.hex)).unwrap() {
            Frame::Client(frame) => {
                seen.insert(format!("{client} {}", client_name(&frame)));
                match frame {
                    ClientFrame::Command(command) => seen.insert(format!("command {}", command.body.kind_name())),
                    ClientFrame::Query(query) => seen.insert(format!("query {}", query.body.kind_name())),
                    _ => false,
                };
            }
            Frame::Server(frame) => {
                seen.insert(format!("{server} {}", server_name(&frame)));
                match frame {
                    ServerFrame::Event(event) => seen.insert(format!("event {}", event.body.kind_name())),
                    ServerFrame::Answer(answer) => seen.insert(format!("answer {}", answer.body.kind_name())),
                    ServerFrame::Error(error) => codes.insert(error.code.to_number()),
                    _ => false,
                };
            }
        }
    }
    let tables = [("command", CommandBody::KINDS), ("query", QueryBody::KINDS), ("event", EventBody::KINDS), ("answer", AnswerBody::KINDS)];
    let kinds = tables.iter().flat_map(|(table, kinds)| kinds.iter().map(move |(_, name)| format!("{table} {name}")));
    let frames = [(client, client_all), (server, server_all)];
    let frames = frames.iter().flat_map(|(alphabet, all)| all.iter().map(move |name| format!("{alphabet} {name}")));
    for wanted in kinds.chain(frames) {
        assert!(seen.contains(&wanted), "no vector holds a {wanted}");
    }
    for code in ErrorCode::ALL {
        assert!(codes.contains(&code.to_number()), "no vector holds {code}");
    }
    assert!(codes.iter().any(|code| matches!(ErrorCode::from_number(*code), ErrorCode::Other(_))), "no vector holds an unknown code");
    let read = load::<Reading>("reading.json");
    for table in ["command", "query", "event", "answer"] {
        let unknown = |reading: &Reading| reading.reads.as_ref().is_some_and(|frame| frame[table]["kind"] == "unknown");
        assert!(read.iter().any(unknown), "no vector holds an unknown kind of {table}");
    }
}
