//! Frames there and back, and what of a frame survives when a part of it is not understood.

use crate::{config, strategy};
use proptest::prelude::*;
use serde_json::{Value, json};
use whimbrel_protocol::codec::{CodecError, Form, MAX_REASON};
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

const FORMS: [Form; 2] = [Form::Postcard, Form::Json];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_client_frame_comes_back(frame in strategy::client_frame()) {
        for form in FORMS {
            prop_assert_eq!(&form.decode::<ClientFrame>(&form.encode(&frame).unwrap()).unwrap(), &frame);
        }
    }

    #[test]
    fn every_server_frame_comes_back(frame in strategy::server_frame()) {
        for form in FORMS {
            prop_assert_eq!(&form.decode::<ServerFrame>(&form.encode(&frame).unwrap()).unwrap(), &frame);
        }
    }

    #[test]
    fn bytes_after_a_frame_are_an_error(frame in strategy::server_frame(), rest in proptest::collection::vec(any::<u8>(), 1..9)) {
        let mut bytes = Form::Postcard.encode(&frame).unwrap();
        bytes.extend(&rest);
        prop_assert_eq!(Form::Postcard.decode::<ServerFrame>(&bytes), Err(CodecError::Trailing(rest.len())));
        let mut text = Form::Json.encode(&frame).unwrap();
        text.extend(b" {}");
        prop_assert!(matches!(Form::Json.decode::<ServerFrame>(&text), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn a_frame_cut_short_is_an_error(frame in strategy::client_frame(), cut in any::<prop::sample::Index>()) {
        for form in FORMS {
            let bytes = form.encode(&frame).unwrap();
            let cut = cut.index(bytes.len());
            prop_assert!(matches!(form.decode::<ClientFrame>(&bytes[..cut]), Err(CodecError::Malformed(_))));
        }
    }

    #[test]
    fn an_unknown_kind_still_has_its_number(event in strategy::event(), kind in 1000u16.., body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = envelope(&event, kind, &body);
        let ServerFrame::Event(read) = Form::Postcard.decode(&bytes).unwrap() else { panic!("it is an event") };
        prop_assert_eq!((read.seq, read.time, read.body.kind(), read.through()), (event.seq, event.time, kind, event.seq));
        prop_assert!(matches!(read.body, EventBody::Unknown(_)));
    }

    #[test]
    fn an_unreadable_body_still_has_its_number(event in strategy::event(), body in proptest::collection::vec(any::<u8>(), 0..40)) {
        for &(kind, _) in EventBody::KINDS {
            let ServerFrame::Event(read) = Form::Postcard.decode(&envelope(&event, kind, &body)).unwrap() else { panic!("it is an event") };
            prop_assert_eq!((read.seq, read.time, read.body.kind()), (event.seq, event.time, kind));
        }
    }

    #[test]
    fn fields_of_a_later_version_are_ignored(event in strategy::event(), later in proptest::collection::vec(any::<u8>(), 0..40)) {
        let frame = Form::Postcard.encode(&ServerFrame::Event(event.clone())).unwrap();
        let head = postcard::to_allocvec(&(2u8, event.seq, event.time, event.body.kind())).unwrap();
        let (body, _) = postcard::take_from_bytes::<&[u8]>(&frame[head.len()..]).unwrap();
        let longer = envelope(&event, event.body.kind(), &[body, &later].concat());
        prop_assert_eq!(Form::Postcard.decode::<ServerFrame>(&longer).unwrap(), ServerFrame::Event(event.clone()));

        let mut json: Value = serde_json::from_slice(&Form::Json.encode(&ServerFrame::Event(event.clone())).unwrap()).unwrap();
        json["event"]["later"] = json!(1);
        json["event"]["body"]["later"] = json!({"a": [1, 2]});
        prop_assert_eq!(Form::Json.decode::<ServerFrame>(json.to_string().as_bytes()).unwrap(), ServerFrame::Event(event));
    }
}

/// An event as it stands in postcard, with any kind and body.
fn envelope(event: &Event, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = postcard::to_allocvec(&(2u8, event.seq, event.time, kind, body.len())).unwrap();
    bytes.extend(body);
    bytes
}

fn read<F: serde::de::DeserializeOwned>(json: Value) -> Result<F, CodecError> {
    Form::Json.decode(json.to_string().as_bytes())
}

#[test]
fn a_known_body_that_is_too_short_is_unknown_and_says_why() {
    let event = Event { seq: MailboxSeq(7), time: Time(8), body: Skip { through: MailboxSeq(9) }.into() };
    let ServerFrame::Event(read) = Form::Postcard.decode(&envelope(&event, 4, &[1, 2])).unwrap() else { panic!("it is an event") };
    let EventBody::Unknown(Unknown { kind: 4, reason }) = read.body else { panic!("{read:?}") };
    assert!(reason.contains("sent"), "{reason}");
}

#[test]
fn json_bodies_that_cannot_be_read_keep_their_number() {
    let unreadable = [
        (json!({"kind": "dance", "body": {"a": [1e300, "\u{202e}"]}}), 0),
        (json!({"kind": "dance"}), 0),
        (json!({"kind": "send"}), 1),
        (json!({"kind": "send", "body": null}), 1),
        (json!({"kind": "send", "body": {"to": {"user": ""}, "content": {"kind": "text", "text": "a"}}}), 1),
        (json!({"kind": "markRead", "body": {"conversation": "1", "seq": "18446744073709551616"}}), 2),
    ];
    for (mut command, kind) in unreadable {
        command["incarnation"] = json!("1");
        command["cseq"] = json!("5");
        command["nonce"] = json!("00000000000000ff");
        let ClientFrame::Command(command) = read(json!({"command": command})).unwrap() else { panic!("it is a command") };
        assert_eq!((command.cseq, command.nonce), (CommandSeq(5), Nonce([0, 0, 0, 0, 0, 0, 0, 255])));
        assert!(matches!(command.body, CommandBody::Unknown(Unknown { kind: found, .. }) if found == kind), "{command:?}");
    }
}

#[test]
fn a_number_no_double_can_hold_does_not_make_a_frame_unreadable() {
    let text = br#"{"event":{"seq":"1","time":"2","kind":"later","body":[1e999,-0,{"a":{}}]}}"#;
    let ServerFrame::Event(event) = Form::Json.decode(text).unwrap() else { panic!("it is an event") };
    assert_eq!(event.seq, MailboxSeq(1));
}

#[test]
fn numbers_are_strings_in_json_and_taken_as_numbers_too() {
    let ack = ClientFrame::Ack(Ack { seq: MailboxSeq(u64::MAX) });
    assert_eq!(Form::Json.encode(&ack).unwrap(), br#"{"ack":{"seq":"18446744073709551615"}}"#);
    assert_eq!(read(json!({"ack": {"seq": u64::MAX}})), Ok(ack));
    for bad in
        [json!("18446744073709551616"), json!(-1), json!("-1"), json!("+1"), json!(""), json!(" 1"), json!(1.5), json!(null), json!("1e3")]
    {
        assert!(matches!(read::<ClientFrame>(json!({"ack": {"seq": bad}})), Err(CodecError::Malformed(_))), "{bad}");
    }
}

#[test]
fn nonces_are_sixteen_digits_in_json() {
    let command = |nonce: &str| read::<ClientFrame>(json!({"command": {"incarnation": 1, "cseq": 1, "nonce": nonce, "kind": "x"}}));
    assert!(command("0123456789abcDEF").is_ok());
    for bad in ["", "0123456789abcde", "0123456789abcdef0", "+123456789abcdef", "0123456789abcdeg", "é23456789abcdef"] {
        assert!(matches!(command(bad), Err(CodecError::Malformed(_))), "{bad}");
    }
}

#[test]
fn an_unknown_choice_is_kept_and_the_rest_is_read() {
    let frame = json!({"event": {"seq": 1, "time": 2, "kind": "rejected",
        "body": {"incarnation": 3, "cseq": 4, "code": "tooBlue", "message": "m"}}});
    let ServerFrame::Event(Event { body: EventBody::Rejected(rejected), .. }) = read(frame).unwrap() else { panic!("it is a rejection") };
    assert_eq!((rejected.cseq, rejected.code), (CommandSeq(4), ErrorCode::Other(0)));
    let content = |kind: &str| serde_json::from_value::<Content>(json!({"kind": kind, "text": "shown instead"})).unwrap().kind;
    assert_eq!([content("text"), content("1"), content("77"), content("image")].map(ContentKind::to_number), [1, 1, 77, 0]);
}

#[test]
fn a_reason_that_quotes_the_peer_is_short() {
    let long = "\u{1}订".repeat(20_000);
    let read = |json: Value| Form::Json.decode::<ClientFrame>(json.to_string().as_bytes());
    let command = |kind: &str, body: Value| json!({"command": {"incarnation": 1, "cseq": 1, "nonce": "0000000000000000", "kind": kind, "body": body}});
    for json in [command(&long, json!(null)), command("markRead", json!({"conversation": 1, "seq": long}))] {
        let Ok(ClientFrame::Command(Command { body: CommandBody::Unknown(unknown), .. })) = read(json) else {
            panic!("its body is unknown")
        };
        assert!((100..=MAX_REASON).contains(&unknown.reason.len()), "{}", unknown.reason.len());
    }
    let Err(CodecError::Malformed(reason)) = read(json!({"ack": {"seq": long}})) else { panic!("it is malformed") };
    assert!((100..=MAX_REASON).contains(&reason.len()), "{}", reason.len());
}

#[test]
fn a_hello_needs_no_more_than_who_it_is() {
    let least = json!({"hello": {"minVersion": 1, "maxVersion": 1, "user": "alice", "device": "phone"}});
    let ClientFrame::Hello(hello) = read(least).unwrap() else { panic!("it is a hello") };
    assert_eq!((hello.incarnation, hello.position, hello.origin), (Incarnation(0), None, Origin::Snapshot));
}

#[test]
fn names_are_checked_where_they_come_in() {
    let longest = "é".repeat(32);
    for (name, good) in [
        ("a b", true),
        (&longest, true),
        (&(longest.clone() + "a"), false),
        ("", false),
        (" a", false),
        ("a\u{3000}", false),
        ("a\nb", false),
    ] {
        assert_eq!(UserId::new(name).is_ok(), good, "{name:?}");
        for form in FORMS {
            let watch = form.encode(&("x", vec![name])).unwrap();
            assert_eq!(form.decode::<(String, Vec<UserId>)>(&watch).is_ok(), good, "{name:?}");
        }
    }
}

/// The size that the whole design is about.
#[test]
fn a_text_of_52_bytes_takes_at_most_75_bytes() {
    let text = "Running late, train stopped outside Basel again. Ok?";
    assert_eq!(text.len(), 52);
    let message = Message { conversation: ConversationId(10_000), seq: ConversationSeq(1000), from: None, content: Content::text(text) };
    let event = |from| {
        ServerFrame::Event(Event {
            seq: MailboxSeq(100_000),
            time: Time(1_790_000_000_000),
            body: Message { from, ..message.clone() }.into(),
        })
    };
    let mut stream = Vec::new();
    codec::write_frame(&event(None), &mut stream).unwrap();
    let json = Form::Json.encode(&event(Some(UserId::new("alice").unwrap()))).unwrap();
    println!("52 bytes of text: {} on a stream, {} in JSON", stream.len(), json.len());
    assert!(stream.len() <= 75, "{}", stream.len());
    assert!(json.len() <= 235, "{}", json.len());
}
