//! What the limits let through, to the byte.

use whimbrel_protocol::codec::{CodecError, Form, MAX_EXTENSIONS, MAX_FRAME, MAX_JSON_FRAME, MAX_PAGE, MAX_TEXT};
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

/// The longest text in the widest envelopes that carry it, of the character that grows most.
#[test]
fn the_longest_text_fits_into_a_frame_in_both_forms() {
    let extension = Extension { key: u16::MAX, value: vec![255; MAX_EXTENSIONS / EXTENSIONS_MAX] };
    let content = Content { kind: ContentKind::Other(u16::MAX), text: "\0".repeat(MAX_TEXT), extensions: vec![extension; EXTENSIONS_MAX] };
    let user = UserId::new(&"\u{10ffff}".repeat(16)).unwrap();
    let most = u64::MAX;
    let send = Send { to: Target::User(user.clone()), content: content.clone() };
    let command = Command { incarnation: Incarnation(most), cseq: CommandSeq(most), nonce: Nonce([255; 8]), body: send.into() };
    let message =
        Message { conversation: ConversationId(most), seq: ConversationSeq(most), from: Some(user.clone()), content: content.clone() };
    let event = Event { seq: MailboxSeq(most), time: Time(most), body: message.into() };
    let stored = StoredMessage { seq: ConversationSeq(most), time: Time(most), from: user.clone(), content };
    let page = HistoryPage { conversation: ConversationId(most), messages: vec![stored.clone()], more: true };
    let answer = Answer { id: QueryId(most), last: true, body: page.into() };
    let member = MemberState { user, delivered: ConversationSeq(most), read: ConversationSeq(most) };
    let conversation = ConversationState {
        conversation: ConversationId(most),
        kind: ConversationKind::Direct,
        members: vec![member.clone(), member],
        head: ConversationSeq(most),
        messages: vec![stored],
    };
    let snapshot = Snapshot { conversations: vec![conversation], last: true };
    for form in [Form::Postcard, Form::Json] {
        assert!(form.encode(&ClientFrame::Command(command.clone())).is_ok());
        for frame in [ServerFrame::Event(event.clone()), ServerFrame::Answer(answer.clone()), ServerFrame::Snapshot(snapshot.clone())] {
            assert!(form.encode(&frame).is_ok(), "{form:?}");
        }
    }
}

#[test]
fn a_frame_may_be_as_long_as_the_limit_and_not_a_byte_longer() {
    for (form, max, around) in [(Form::Postcard, MAX_FRAME, 3), (Form::Json, MAX_JSON_FRAME, 2)] {
        assert_eq!(form.max_frame(), max);
        let text = |len: usize| "a".repeat(len - around);
        let longest = form.encode(&text(max)).unwrap();
        assert_eq!(longest.len(), max);
        assert!(form.decode::<String>(&longest).is_ok());
        assert_eq!(form.encode(&text(max + 1)), Err(CodecError::TooLong { len: max + 1, max }));
        assert_eq!(form.decode::<String>(&vec![b' '; max + 1]), Err(CodecError::TooLong { len: max + 1, max }));
    }
}

/// Of everything that comes in lists, this grows most.
#[test]
fn a_page_of_small_things_fits_into_a_frame_in_json() {
    let conversation = ConversationState {
        conversation: ConversationId(1),
        kind: ConversationKind::Direct,
        members: Vec::new(),
        head: ConversationSeq(0),
        messages: Vec::new(),
    };
    let page = |bytes: usize| ServerFrame::Snapshot(Snapshot { conversations: vec![conversation.clone(); bytes / 5], last: true });
    assert!(Form::Postcard.encode(&page(MAX_PAGE)).unwrap().len() >= MAX_PAGE);
    assert!(Form::Json.encode(&page(MAX_PAGE)).is_ok());
    assert!(Form::Json.encode(&page(2 * MAX_PAGE)).is_err(), "a page as long as a frame does not fit");
}
