//! The rows of the log as they are written: a number for the kind, and a body in postcard.
//!
//! A kind's body never changes; something new is a kind of its own. So a kind that is not known here was written by a newer version,
//! and this one must not guess what it does to the indexes.

use super::super::{DeviceKey, Origin, RecordBody, StoreError, UserNo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use whimbrel_protocol::frame::{Content, ContentKind, ConversationKind, Extension};
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, ErrorCode, Incarnation};

const OUTBOX: u16 = 1;
const STARTED: u16 = 2;
const MESSAGE: u16 = 3;
const RECEIPT: u16 = 4;
const REJECTED: u16 = 5;
const REPEAT: u16 = 6;
const MESSAGE_EXTENDED: u16 = 7;

/// Writes a body to `out`, which it empties first, and returns its kind.
pub(super) fn encode(body: &RecordBody, out: &mut Vec<u8>) -> Result<u16, StoreError> {
    out.clear();
    match body {
        RecordBody::Outbox { device, name, incarnation } => put(out, OUTBOX, &(device, name, incarnation)),
        RecordBody::Started { conversation, kind, members } => put(out, STARTED, &(conversation, kind, members)),
        RecordBody::Message { conversation, seq, origin, content } if content.extensions.is_empty() => {
            put(out, MESSAGE, &(conversation, seq, origin, &content.kind, &content.text))
        }
        RecordBody::Message { conversation, seq, origin, content } => {
            put(out, MESSAGE_EXTENDED, &(conversation, seq, origin, &content.kind, &content.text, &content.extensions))
        }
        RecordBody::Receipt { conversation, user, delivered, read, origin } => {
            put(out, RECEIPT, &(conversation, user, delivered, read, origin))
        }
        RecordBody::Rejected { origin, code, message } => put(out, REJECTED, &(origin, code, message)),
        RecordBody::Repeat { origin, message } => put(out, REPEAT, &(origin, message)),
    }
}

/// Reads a body. `pos` is for the message of an error.
pub(super) fn decode(pos: u64, kind: u16, bytes: &[u8]) -> Result<RecordBody, StoreError> {
    let body = match kind {
        OUTBOX => take::<(DeviceKey, DeviceId, Incarnation)>(bytes).map(|(device, name, incarnation)| RecordBody::Outbox {
            device,
            name,
            incarnation,
        }),
        STARTED => take::<(ConversationId, ConversationKind, Vec<UserNo>)>(bytes)
            .map(|(conversation, kind, members)| RecordBody::Started { conversation, kind, members }),
        MESSAGE => {
            take::<(ConversationId, ConversationSeq, Origin, ContentKind, String)>(bytes).map(|(conversation, seq, origin, kind, text)| {
                let content = Content { kind, text, extensions: Vec::new() };
                RecordBody::Message { conversation, seq, origin, content }
            })
        }
        MESSAGE_EXTENDED => take::<(ConversationId, ConversationSeq, Origin, ContentKind, String, Vec<Extension>)>(bytes).map(
            |(conversation, seq, origin, kind, text, extensions)| {
                let content = Content { kind, text, extensions };
                RecordBody::Message { conversation, seq, origin, content }
            },
        ),
        RECEIPT => take::<(ConversationId, UserNo, ConversationSeq, ConversationSeq, Option<Origin>)>(bytes)
            .map(|(conversation, user, delivered, read, origin)| RecordBody::Receipt { conversation, user, delivered, read, origin }),
        REJECTED => {
            take::<(Origin, ErrorCode, String)>(bytes).map(|(origin, code, message)| RecordBody::Rejected { origin, code, message })
        }
        REPEAT => take::<(Origin, Option<(ConversationId, ConversationSeq)>)>(bytes)
            .map(|(origin, message)| RecordBody::Repeat { origin, message }),
        newer => {
            return Err(StoreError::Damaged(format!(
                "record {pos} is of kind {newer}, which this version does not know: a newer version of Whimbrel wrote it, and must read it"
            )));
        }
    };
    body.ok_or_else(|| StoreError::Damaged(format!("the body of record {pos} (kind {kind}) cannot be read")))
}

fn put(out: &mut Vec<u8>, kind: u16, body: &impl Serialize) -> Result<u16, StoreError> {
    // `to_extend` wants the vector itself, so that it is lent and comes back: its room is used again for the next record.
    let written = postcard::to_extend(body, std::mem::take(out));
    *out = written.map_err(|error| StoreError::Refused(format!("a record cannot be written: {error}")))?;
    Ok(kind)
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, [])) => Some(body),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use whimbrel_protocol::{CommandSeq, Nonce};

    fn bodies() -> Vec<RecordBody> {
        let device = DeviceKey { user: UserNo(7), slot: 3 };
        let origin = Origin { device, incarnation: Incarnation(2), cseq: CommandSeq(300), nonce: Nonce(*b"12345678") };
        let (conversation, seq) = (ConversationId(9), ConversationSeq(200));
        let content = Content::text("hello");
        let extended = Content { extensions: vec![Extension { key: 1, value: b"{}".to_vec() }], ..content.clone() };
        vec![
            RecordBody::Outbox { device, name: DeviceId::new("phone").unwrap(), incarnation: Incarnation(2) },
            RecordBody::Started { conversation, kind: ConversationKind::Direct, members: vec![UserNo(7), UserNo(8)] },
            RecordBody::Message { conversation, seq, origin, content },
            RecordBody::Receipt { conversation, user: UserNo(8), delivered: seq, read: ConversationSeq(1), origin: None },
            RecordBody::Receipt { conversation, user: UserNo(8), delivered: seq, read: seq, origin: Some(origin) },
            RecordBody::Rejected { origin, code: ErrorCode::NotFound, message: "no".to_owned() },
            RecordBody::Repeat { origin, message: Some((conversation, seq)) },
            RecordBody::Repeat { origin, message: None },
            RecordBody::Message { conversation, seq, origin, content: extended },
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn bodies_come_back() {
        let mut bytes = Vec::new();
        for body in bodies() {
            let kind = encode(&body, &mut bytes).unwrap();
            assert_eq!(decode(1, kind, &bytes).unwrap(), body);
        }
    }

    /// What is stored must be readable for ever: these bytes may only be added to.
    #[test]
    fn bodies_are_written_as_they_always_were() {
        let mut bytes = Vec::new();
        let written: Vec<String> = bodies()
            .iter()
            .map(|body| {
                let kind = encode(body, &mut bytes).unwrap();
                format!("{kind}:{}", hex(&bytes))
            })
            .collect();
        let expected = [
            "1:07030570686f6e6502",
            "2:0901020708",
            "3:09c801070302ac023132333435363738010568656c6c6f",
            "4:0908c8010100",
            "4:0908c801c80101070302ac023132333435363738",
            "5:070302ac023132333435363738ad02026e6f",
            "6:070302ac0231323334353637380109c801",
            "6:070302ac02313233343536373800",
            "7:09c801070302ac023132333435363738010568656c6c6f0101027b7d",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn a_newer_kind_is_named_and_trailing_bytes_are_damage() {
        let Err(StoreError::Damaged(why)) = decode(5, 99, &[]) else { panic!("it was read") };
        assert!(why.contains("newer version"), "{why}");
        let mut bytes = Vec::new();
        let kind = encode(&bodies()[0], &mut bytes).unwrap();
        bytes.push(0);
        assert!(matches!(decode(5, kind, &bytes), Err(StoreError::Damaged(_))));
    }
}
