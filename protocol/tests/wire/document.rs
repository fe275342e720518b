//! `docs/protocol.md` against the code. A decoder that knows nothing but the tables of the document reads every golden vector: what it
//! makes of the bytes must be what the vectors say. The examples are frames, and the limits are the code's.

use crate::vectors::{from_hex, to_hex, vectors};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use whimbrel_protocol::codec::{self, Form};
use whimbrel_protocol::frame::*;
use whimbrel_protocol::{ACK_DELAY, ACK_EVENTS, DeviceId, ErrorCode, QUERIES_MAX, UserId, VERSION_MAX, VERSION_MIN};

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap()
}

/// A table under a heading that names a type.
#[derive(Debug)]
enum Table {
    /// Field, type.
    Structure(Vec<(String, String)>),
    /// Name and type of what it holds, by tag.
    Choice(BTreeMap<u64, (String, String)>),
    /// Name by number.
    Open(BTreeMap<u64, String>),
    /// Name and type of the body, by kind.
    Bodies(BTreeMap<u64, (String, String)>),
}

fn cells(line: &str) -> Vec<String> {
    let cells = line.trim().trim_start_matches('|').trim_end_matches('|').split('|');
    cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
}

/// The lines of the first table whose header begins with these cells, in a part of the document.
fn rows(part: &str, header: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut lines =
        part.lines().skip_while(|line| !line.starts_with('|') || !cells(line).iter().zip(header).all(|(cell, wanted)| cell == wanted));
    lines.next()?;
    Some(lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect())
}

fn tables() -> BTreeMap<String, Table> {
    let document = document();
    let numbered = |rows: Vec<Vec<String>>| {
        let count = rows.len();
        let map: BTreeMap<u64, (String, String)> =
            rows.into_iter().map(|row| (row[0].parse().unwrap(), (row[1].clone(), row[2].clone()))).collect();
        assert_eq!(map.len(), count, "a number stands twice: {map:?}");
        map
    };
    let table = |part: &str| {
        if let Some(rows) = rows(part, &["field", "type"]) {
            return Some(Table::Structure(rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()));
        }
        if let Some(rows) = rows(part, &["tag", "name", "holds"]) {
            return Some(Table::Choice(numbered(rows)));
        }
        if let Some(rows) = rows(part, &["kind", "name", "holds"]) {
            return Some(Table::Bodies(numbered(rows)));
        }
        let open = numbered(rows(part, &["number", "name"])?);
        Some(Table::Open(open.into_iter().map(|(number, (name, _))| (number, name)).collect()))
    };
    let parts = document.split("\n### ").skip(1).map(|part| part.split("\n## ").next().unwrap());
    parts.filter_map(|part| Some((part.lines().next()?.trim().to_owned(), table(part)?))).collect()
}

/// Reads postcard by the tables.
struct Reader<'a> {
    tables: &'a BTreeMap<String, Table>,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count as usize);
        self.bytes = rest;
        taken
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
    }

    fn read(&mut self, of: &str) -> Value {
        if let Some(of) = of.strip_prefix("optional ") {
            return if self.take(1)[0] == 0 { Value::Null } else { self.read(of) };
        }
        if let Some(of) = of.strip_prefix("list of ") {
            return (0..self.varint()).map(|_| self.read(of)).collect();
        }
        match of {
            "u8" => self.take(1)[0].into(),
            "bool" => (self.take(1)[0] == 1).into(),
            "u16" | "u32" => self.varint().into(),
            "u64" => self.varint().to_string().into(),
            "nonce" => to_hex(self.take(8)).into(),
            "hash" => self.take(32).into(),
            "bytes" => {
                let count = self.varint();
                self.take(count).into()
            }
            "text" => {
                let count = self.varint();
                std::str::from_utf8(self.take(count)).unwrap().into()
            }
            named => self.named(named),
        }
    }

    fn named(&mut self, name: &str) -> Value {
        match self.tables.get(name).unwrap_or_else(|| panic!("the document has no table of {name:?}")) {
            Table::Structure(fields) => self.structure(fields),
            Table::Choice(choices) => {
                let (name, of) = &choices[&self.varint()];
                if of.is_empty() { json!(name) } else { json!({ name: self.read(of) }) }
            }
            Table::Open(names) => {
                let number = self.varint();
                names.get(&number).cloned().unwrap_or_else(|| number.to_string()).into()
            }
            Table::Bodies(_) => panic!("{name} is only read as the body of an envelope"),
        }
    }

    fn structure(&mut self, fields: &[(String, String)]) -> Value {
        let mut object = Map::new();
        let mut body_type = String::new();
        for (field, of) in fields {
            let value = match (of.strip_prefix("kind of ").unwrap_or(of), self.tables.get(of.trim_start_matches("kind of "))) {
                (_, Some(Table::Bodies(kinds))) if of.starts_with("kind of ") => {
                    let (name, of) = &kinds[&self.varint()];
                    body_type.clone_from(of);
                    json!(name)
                }
                (_, Some(Table::Bodies(_))) => {
                    let count = self.varint();
                    let mut body = Reader { tables: self.tables, bytes: self.take(count) };
                    let value = body.read(&body_type);
                    assert!(body.bytes.is_empty(), "the table of {body_type} is too short");
                    value
                }
                _ => self.read(of),
            };
            object.insert(field.clone(), value);
        }
        object.into()
    }
}

#[test]
fn the_tables_are_enough_to_read_every_vector() {
    let tables = tables();
    for (_, vector) in vectors() {
        let bytes = from_hex(&vector.hex);
        let mut reader = Reader { tables: &tables, bytes: &bytes };
        let read = reader.named(vector.alphabet());
        assert!(reader.bytes.is_empty(), "{}: bytes are left over", vector.name);
        let json: Value = serde_json::from_str(vector.json.get()).unwrap();
        assert_eq!(read, json, "{}", vector.name);
    }
}

/// The other way round: the tables have nothing that the code does not.
#[test]
fn tables_of_kinds_and_numbers_are_the_codes() {
    let tables = tables();
    for (name, kinds) in [
        ("CommandBody", CommandBody::KINDS),
        ("EventBody", EventBody::KINDS),
        ("QueryBody", QueryBody::KINDS),
        ("AnswerBody", AnswerBody::KINDS),
    ] {
        let Table::Bodies(table) = &tables[name] else { panic!("{name} is a table of kinds") };
        let table: Vec<_> = table.iter().map(|(kind, (name, _))| (*kind as u16, name.as_str())).collect();
        assert_eq!(table, kinds, "{name}");
    }
    let open = |name: &str| {
        let Table::Open(table) = &tables[name] else { panic!("{name} is a table of numbers") };
        table.iter().map(|(number, name)| (*number as u16, name.clone())).collect::<Vec<_>>()
    };
    macro_rules! compare {
        ($($type:ident),+) => { $(
            let all: Vec<_> = $type::ALL.iter().map(|value| (value.to_number(), value.to_string())).collect();
            assert_eq!(open(stringify!($type)), all, stringify!($type));
        )+ };
    }
    compare!(ErrorCode, ContentKind, ConversationKind, PresenceState);
    // Every frame has a vector, which another test sees to.
    for alphabet in ["ClientFrame", "ServerFrame"] {
        let Table::Choice(table) = &tables[alphabet] else { panic!("{alphabet} is a choice") };
        let frames = vectors().into_iter().filter(|(_, vector)| vector.alphabet() == alphabet);
        let names = frames.map(|(_, vector)| serde_json::from_str::<Map<String, Value>>(vector.json.get()).unwrap().keys().next().cloned());
        let names: BTreeSet<_> = names.map(Option::unwrap).collect();
        assert_eq!(table.values().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), names, "{alphabet}");
    }
}

#[test]
fn the_ranges_of_errors_are_the_codes() {
    use whimbrel_protocol::error::Advice;
    let document = document();
    let rows = rows(document.split("### ErrorCode").nth(1).unwrap(), &["range"]).unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let (from, to) = row[0].split_once('–').unwrap();
        let expected = if row[1].starts_with("connect again") {
            Advice::Reconnect
        } else if row[1].starts_with("give up") {
            Advice::GiveUp
        } else {
            Advice::GoOn
        };
        for number in from.parse::<u16>().unwrap()..=to.parse().unwrap() {
            assert_eq!(ErrorCode::from_number(number).advice(), expected, "{number}");
        }
    }
    assert_eq!(ErrorCode::Other(0).advice(), Advice::Reconnect);
}

#[test]
fn the_limits_are_the_codes() {
    let document = document();
    let rows = rows(&document, &["what", "limit"]).unwrap();
    let limit = |what: &str| rows.iter().find(|row| row[0] == what).unwrap_or_else(|| panic!("{what}"))[1].parse::<usize>().unwrap();
    assert_eq!(limit("a frame in postcard"), codec::MAX_FRAME);
    assert_eq!(limit("a frame in JSON"), codec::MAX_JSON_FRAME);
    assert_eq!(limit("the length before a frame"), codec::MAX_PREFIX);
    assert_eq!(limit("text of a message"), codec::MAX_TEXT);
    assert_eq!(limit("a user id or device name"), UserId::MAX_BYTES.max(DeviceId::MAX_BYTES));
    assert_eq!(limit("queries that wait for their answers"), QUERIES_MAX);
    assert_eq!(limit("events before an acknowledgement") as u64, ACK_EVENTS);
    assert_eq!(limit("time before an acknowledgement") as u128, ACK_DELAY.as_millis());
    assert!(document.starts_with(&format!("# The Whimbrel protocol, version {VERSION_MAX}\n")) && VERSION_MIN == VERSION_MAX);
}

/// Fenced blocks with what stands behind the fence.
fn blocks(document: &str) -> Vec<(&str, &str)> {
    let parts: Vec<_> = document.split("```").collect();
    assert!(parts.len() % 2 == 1, "a block is not closed");
    parts.chunks(2).filter_map(|pair| pair.get(1)?.split_once('\n')).collect()
}

#[test]
fn the_transcript_is_the_same_in_json_and_in_postcard() {
    let document = document();
    let mut blocks = blocks(&document).into_iter().filter(|(info, _)| info.contains(' '));
    let mut count = 0;
    while let (Some((json, texts)), Some((hex, lines))) = (blocks.next(), blocks.next()) {
        let from = json.strip_prefix("json ").unwrap();
        assert_eq!(hex, format!("hex {from}"), "each block of JSON is followed by one of the same side in postcard");
        let mut expected = String::new();
        for text in texts.lines() {
            let (bytes, again) = match from {
                "client" => again::<ClientFrame>(text),
                _ => again::<ServerFrame>(text),
            };
            assert_eq!(again, text);
            expected += &(to_hex(&bytes) + "\n");
            count += 1;
        }
        assert_eq!(lines, expected, "the bytes of\n{texts}");
    }
    assert!(count > 15, "the transcript is found: {count} frames");
}

fn again<F: serde::Serialize + serde::de::DeserializeOwned>(text: &str) -> (Vec<u8>, String) {
    let frame: F = Form::Json.decode(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}"));
    (Form::Postcard.encode(&frame).unwrap(), String::from_utf8(Form::Json.encode(&frame).unwrap()).unwrap())
}

#[test]
fn the_other_examples_are_well_formed() {
    let document = document();
    let blocks = blocks(&document);
    let plain: Vec<_> = blocks.iter().filter(|(info, _)| *info == "json").collect();
    assert_eq!(plain.len(), 1, "how to connect");
    let known: Value = serde_json::from_str(plain[0].1).unwrap();
    assert_eq!(known["versions"], json!([VERSION_MAX]));
    let (_, script) = blocks.iter().find(|(info, _)| *info == "python").unwrap();
    assert!(script.lines().count() <= 12, "a client in ten lines");
    let hello = script.split_once("json.dumps(").unwrap().1.split_once("))\n").unwrap().0;
    assert!(matches!(Form::Json.decode(hello.as_bytes()), Ok(ClientFrame::Hello(_))), "{hello}");
}
