//! The application's states: order, unread, receipts, drafts, history without a jump, and what offline looks like.

use super::*;
use crate::cli::chat::room::{Mark, Place};
use crate::cli::chat::thread::Row;
use crossterm::event::{KeyCode, KeyModifiers};
use whimbrel_client::TransportKind;
use whimbrel_client::protocol::MailboxSeq;
use whimbrel_client::protocol::frame::{
    ConversationKind, EventBody, MemberState, Message, Presence, PresenceState, Receipt, Started, TypingFrom,
};

pub(in crate::cli::chat) const BEGUN: u64 = 1_779_267_600_000;

pub(in crate::cli::chat) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// An application with a clock that is turned by hand, connected and loaded.
pub(in crate::cli::chat) struct Test {
    pub app: App,
    pub now: Now,
    entry: u64,
}

impl Test {
    pub fn new(width: u16, height: u16) -> Self {
        let mut test = Self::offline(width, height);
        test.give(Input::Connection(Connection::Connected { transport: TransportKind::WebTransport }));
        test
    }

    pub fn offline(width: u16, height: u16) -> Self {
        let now = Now { at: Instant::now(), time: Time(BEGUN) };
        let mut app = App::new(user("alice"), Zone::utc(), now, (width, height));
        assert_eq!(app.take_actions(), [Action::Load]);
        app.on(Input::Done(Done::Loaded(Ok(Stored::default()))), now);
        Self { app, now, entry: 0 }
    }

    pub fn give(&mut self, input: Input) {
        self.app.on(input, self.now);
    }

    pub fn later(&mut self, millis: u64) {
        self.now = Now { at: self.now.at + Duration::from_millis(millis), time: Time(self.now.time.0 + millis) };
        self.give(Input::Tick);
    }

    pub fn event(&mut self, body: impl Into<EventBody>) {
        self.entry += 1;
        self.give(Input::Event(Event { seq: MailboxSeq(self.entry), time: self.now.time, body: body.into() }));
    }

    /// Somebody wrote into a conversation of theirs and alice's.
    pub fn says(&mut self, conversation: u64, seq: u64, from: &str, text: &str) {
        let content = whimbrel_client::text(text);
        let (conversation, seq) = (ConversationId(conversation), ConversationSeq(seq));
        self.event(Message { conversation, seq, from: Some(user(from)), content });
    }

    pub fn starts(&mut self, conversation: u64, with: &str) {
        let members = vec![user("alice"), user(with)];
        self.event(Started { conversation: ConversationId(conversation), kind: ConversationKind::Direct, members });
    }

    pub fn receipt(&mut self, conversation: u64, from: &str, delivered: u64, read: u64) {
        let (delivered, read) = (ConversationSeq(delivered), ConversationSeq(read));
        self.event(Receipt { conversation: ConversationId(conversation), user: Some(user(from)), delivered, read });
    }

    pub fn press(&mut self, code: KeyCode, modifiers: KeyModifiers) {
        self.give(Input::Key(KeyEvent::new(code, modifiers)));
    }

    pub fn key(&mut self, code: KeyCode) {
        self.press(code, KeyModifiers::NONE);
    }

    pub fn type_in(&mut self, text: &str) {
        text.chars().for_each(|c| self.key(KeyCode::Char(c)));
    }

    pub fn online(&mut self, name: &str) {
        let list = vec![Presence { user: user(name), state: PresenceState::Online }];
        self.give(Input::Signal(ServerSignal::Presence(list)));
    }

    fn titles(&self) -> Vec<String> {
        self.app.entries().iter().map(|entry| self.app.entry_title(entry)).collect()
    }

    fn unread(&self, name: &str) -> usize {
        self.app.rooms[self.app.by_user[&user(name)]].unread(&user("alice"))
    }

    /// What is sent, by its number in this run.
    fn sent(&mut self) -> Vec<u64> {
        let local = |action| if let Action::Send { local, .. } = action { Some(local) } else { None };
        self.app.take_actions().into_iter().filter_map(local).collect()
    }

    fn view(&self) -> Vec<Row> {
        self.app.layout().unwrap().view()
    }

    fn marks(&self) -> Vec<Mark> {
        let mark = |row| if let Row::Text { mark, .. } = row { mark } else { None };
        self.view().into_iter().filter_map(mark).collect()
    }
}

const BOB: Nonce = Nonce([7; 8]);

fn outcome(nonce: Nonce, conversation: u64, seq: u64) -> Input {
    let result = Ok((ConversationId(conversation), ConversationSeq(seq), Time(BEGUN)));
    Input::Told(Told { nonce: Some(nonce), to: Some(Target::User(user("bob"))), text: Some("hello".into()), result })
}

#[test]
fn the_latest_conversation_is_first_and_strangers_who_are_here_come_last() {
    let mut test = Test::new(100, 30);
    test.says(1, 1, "bob", "hi");
    test.later(1000);
    test.says(2, 1, "carol", "hi");
    test.online("zoe");
    test.online("bob");
    test.online("alice");
    assert_eq!(test.titles(), ["carol", "bob", "zoe"], "bob is known, and one is not in one's own list");
    test.later(1000);
    test.says(1, 2, "bob", "hi again");
    assert_eq!(test.titles(), ["bob", "carol", "zoe"]);
    test.give(Input::Connection(Connection::Offline { retry_in: Duration::from_secs(3), why: "gone".into(), mismatch: false }));
    assert_eq!(test.titles(), ["bob", "carol"], "nobody says who is here");
}

#[test]
fn only_what_is_seen_is_read_and_many_at_once() {
    let mut test = Test::new(100, 30);
    test.says(1, 1, "bob", "one");
    assert_eq!(test.unread("bob"), 1);
    test.give(Input::Focus(false));
    test.app.open_user(&user("bob"));
    test.says(1, 2, "bob", "two");
    assert_eq!((test.unread("bob"), test.app.wake()), (2, None), "nobody looks");
    test.give(Input::Focus(true));
    assert_eq!(test.unread("bob"), 0);
    test.says(1, 3, "bob", "three");
    test.app.take_actions();
    test.later(400);
    assert_eq!(test.app.take_actions(), [Action::MarkRead(ConversationId(1), ConversationSeq(3))]);
    test.key(KeyCode::F(1));
    test.says(1, 4, "bob", "four");
    assert_eq!(test.unread("bob"), 1, "the help is over it");
    test.key(KeyCode::Esc);
    assert_eq!(test.unread("bob"), 0);
    test.says(2, 1, "carol", "psst");
    assert_eq!((test.unread("carol"), test.app.unread_elsewhere()), (1, 1));
}

#[test]
fn what_another_device_has_read_is_read() {
    let mut test = Test::new(100, 30);
    test.says(1, 1, "bob", "one");
    test.says(1, 2, "bob", "two");
    test.receipt(1, "alice", 2, 1);
    assert_eq!(test.unread("bob"), 1);
    test.receipt(1, "alice", 2, 2);
    assert_eq!(test.unread("bob"), 0);
    test.app.open_user(&user("bob"));
    test.give(Input::Tick);
    test.app.tell_read();
    assert_eq!(test.app.take_actions(), [], "the server knows");
}

#[test]
fn a_message_goes_from_sending_to_read() {
    let mut test = Test::new(100, 30);
    test.app.open_user(&user("bob"));
    test.type_in("hello");
    test.key(KeyCode::Enter);
    assert_eq!(test.marks(), [Mark::Sending]);
    assert_eq!(test.sent(), [1]);
    test.give(Input::Done(Done::Stored(1, Ok(BOB))));
    assert_eq!((test.marks(), test.app.waiting()), (vec![Mark::Sending], 1), "stored here is not sent");
    test.give(outcome(BOB, 1, 1));
    assert_eq!((test.marks(), test.app.waiting()), (vec![Mark::Sent], 0));
    assert_eq!(test.app.status().0, "Sent");
    test.receipt(1, "bob", 1, 0);
    assert_eq!((test.marks(), test.app.status().0), (vec![Mark::Delivered], "Delivered to bob".into()));
    test.receipt(1, "bob", 1, 1);
    assert_eq!((test.marks(), test.app.status().0), (vec![Mark::Read], "Read by bob".into()));
}

#[test]
fn an_outcome_may_come_before_the_news_that_it_was_stored() {
    let mut test = Test::new(100, 30);
    test.app.open_user(&user("bob"));
    test.type_in("hello");
    test.key(KeyCode::Enter);
    test.give(outcome(BOB, 1, 1));
    test.give(Input::Done(Done::Stored(1, Ok(BOB))));
    assert_eq!((test.marks(), test.app.waiting()), (vec![Mark::Sent], 0));
}

#[test]
fn what_was_refused_says_why_and_can_be_tried_again_or_taken_back() {
    let mut test = Test::new(100, 30);
    test.app.open_user(&user("bob"));
    test.type_in("hello");
    test.key(KeyCode::Enter);
    test.give(Input::Done(Done::Stored(1, Ok(BOB))));
    let result = Err(Unsent::Refused("bob takes\u{1b}[2J nothing".into()));
    test.give(Input::Told(Told { nonce: Some(BOB), to: Some(Target::User(user("bob"))), text: None, result }));
    assert_eq!((test.marks(), test.app.waiting()), (vec![Mark::Refused], 0));
    assert!(test.app.status().0.contains("bob takes␛[2J nothing"), "{:?}", test.app.status());
    test.sent();
    test.press(KeyCode::Char('r'), KeyModifiers::CONTROL);
    assert_eq!((test.marks(), test.sent()), (vec![Mark::Sending], vec![2]));
    test.give(Input::Done(Done::Stored(2, Err("the disk is full".into()))));
    assert_eq!(test.marks(), [Mark::Refused]);
    test.press(KeyCode::Char('x'), KeyModifiers::CONTROL);
    assert_eq!((test.marks(), test.app.room().unwrap().composer.text()), (vec![], "hello"));
}

#[test]
fn what_an_earlier_run_left_is_shown_and_counted() {
    let now = Now { at: Instant::now(), time: Time(BEGUN) };
    let mut app = App::new(user("alice"), Zone::utc(), now, (100, 30));
    app.open_user(&user("bob"));
    let members = vec![MemberState { user: user("alice"), ..member("x") }, member("bob")];
    let messages = vec![stored(1, "bob"), stored(2, "bob"), stored(3, "bob")];
    let (conversation, head) = (ConversationId(1), ConversationSeq(3));
    let state = ConversationState { conversation, kind: ConversationKind::Direct, members, head, messages };
    let sending = vec![(BOB, Target::User(user("bob")), "hello".into())];
    let reading = vec![(ConversationId(1), ConversationSeq(2))];
    app.on(Input::Done(Done::Loaded(Ok(Stored { conversations: vec![state], sending, reading }))), now);
    let mut test = Test { app, now, entry: 0 };
    assert_eq!(test.app.waiting(), 1);
    assert_eq!(test.app.room().unwrap().divider, Some(ConversationSeq(3)), "what was read before is read");
    test.give(Input::Connection(Connection::Offline { retry_in: Duration::from_millis(2500), why: "no route".into(), mismatch: false }));
    assert_eq!(test.app.connection_words(false), "Offline: 1 message waits · again in 3 s");
    assert_eq!(test.app.connection_words(true), "Offline: 1 message waits");
    assert_eq!(test.app.wake(), Some(now.at + Duration::from_millis(400)), "the mark of reading is due first");
    test.later(600);
    assert_eq!(test.app.connection_words(false), "Offline: 1 message waits · again in 2 s");
    test.give(outcome(BOB, 1, 4));
    assert_eq!((test.app.waiting(), test.marks()), (0, vec![Mark::Sent]));
}

fn member(name: &str) -> MemberState {
    MemberState { user: user(name), delivered: ConversationSeq(0), read: ConversationSeq(0) }
}

fn stored(seq: u64, from: &str) -> StoredMessage {
    let content = whimbrel_client::text(format!("message {seq}"));
    StoredMessage { seq: ConversationSeq(seq), time: Time(BEGUN - 3_600_000 + seq * 1000), from: user(from), content }
}

#[test]
fn each_conversation_keeps_its_draft() {
    let mut test = Test::new(100, 30);
    test.app.open_user(&user("bob"));
    test.type_in("for bob");
    test.press(KeyCode::Char('k'), KeyModifiers::CONTROL);
    test.type_in("carol");
    test.key(KeyCode::Enter);
    assert_eq!(test.app.room().unwrap().title, "carol");
    test.give(Input::Paste("two\nlines".into()));
    assert_eq!(test.app.room().unwrap().composer.text(), "two\nlines", "what is pasted is not sent");
    test.press(KeyCode::Up, KeyModifiers::ALT);
    assert_eq!(test.app.room().unwrap().composer.text(), "for bob");
    assert!(test.sent().is_empty());
}

#[test]
fn typing_is_said_now_and_then_and_taken_back() {
    let mut test = Test::new(100, 30);
    test.app.open_user(&user("bob"));
    let bob = || Target::User(user("bob"));
    test.type_in("he");
    assert_eq!(test.app.take_actions(), [Action::Typing(bob(), true)]);
    test.later(3000);
    test.type_in("y");
    assert_eq!(test.app.take_actions(), [Action::Typing(bob(), true)]);
    test.press(KeyCode::Char('u'), KeyModifiers::CONTROL);
    assert_eq!(test.app.take_actions(), [Action::Typing(bob(), false)]);
    test.starts(1, "bob");
    test.give(Input::Signal(ServerSignal::Typing(TypingFrom { conversation: ConversationId(1), user: user("bob"), active: true })));
    assert_eq!(test.app.typing_words().unwrap(), "bob is typing…");
    assert_eq!(test.app.wake(), Some(test.now.at + Duration::from_secs(6)));
    test.later(6000);
    assert_eq!((test.app.typing_words(), test.app.wake()), (None, None));
}

#[test]
fn a_name_that_nobody_has_yet_begins_a_conversation() {
    let mut test = Test::new(100, 30);
    test.online("bob");
    test.key(KeyCode::Tab);
    test.type_in("bo");
    let Some(Overlay::Find(find)) = test.app.overlay().cloned() else { panic!("no search") };
    let names: Vec<_> = test.app.found(&find);
    assert_eq!(names, [Candidate::Known(Entry::Stranger(user("bob"))), Candidate::New(user("bo"))]);
    test.key(KeyCode::Down);
    test.key(KeyCode::Enter);
    assert_eq!(test.app.room().unwrap().title, "bo");
    test.key(KeyCode::Tab);
    test.key(KeyCode::Esc);
    assert_eq!((test.app.overlay(), test.app.pane()), (None, Pane::Thread));
}

/// A long conversation, of which the newest half is in memory.
fn long() -> Test {
    let mut test = Test::new(100, 20);
    test.starts(1, "bob");
    for seq in 101..=200 {
        test.says(1, seq, "bob", &format!("message {seq}"));
    }
    test.receipt(1, "alice", 200, 200);
    test.app.open_user(&user("bob"));
    test.give(Input::Tick);
    test
}

#[test]
fn older_messages_come_without_a_jump() {
    let mut test = long();
    let older = Action::Older(ConversationId(1), Some(ConversationSeq(101)));
    assert!(!test.app.take_actions().contains(&older), "the end is in view");
    for _ in 0..20 {
        test.key(KeyCode::PageUp);
    }
    assert!(test.app.take_actions().contains(&older));
    test.key(KeyCode::PageUp);
    assert!(!test.app.take_actions().contains(&older), "once is enough");
    let texts = |test: &Test| {
        let text = |row| if let Row::Text { text, .. } = row { Some(text) } else { None };
        test.view().into_iter().map(text).collect::<Vec<_>>()
    };
    let before = texts(&test);
    let page = Page { messages: (1..=100).map(|seq| stored(seq, "bob")).collect(), more: false };
    test.give(Input::Done(Done::Older(ConversationId(1), Ok(page))));
    let after = texts(&test);
    for (row, text) in before.iter().enumerate().filter(|(_, text)| text.is_some()) {
        assert_eq!(&after[row], text, "row {row}");
    }
    test.press(KeyCode::Home, KeyModifiers::CONTROL);
    assert_eq!(test.view()[0], Row::Note("This is where it begins".into()));
}

#[test]
fn new_messages_do_not_move_what_is_read() {
    let mut test = long();
    test.key(KeyCode::PageUp);
    let before = test.view();
    for seq in 201..=203 {
        test.says(1, seq, "bob", "new");
    }
    assert_eq!((test.view(), test.app.below(), test.unread("bob")), (before, Some(3), 3));
    assert_eq!(test.app.room().unwrap().divider, Some(ConversationSeq(201)));
    test.press(KeyCode::End, KeyModifiers::CONTROL);
    assert_eq!((test.app.below(), test.unread("bob")), (None, 0));
}

#[test]
fn scrolling_goes_all_the_way_and_back_at_every_size() {
    for (width, height) in [(120, 30), (60, 20), (40, 10), (40, 5)] {
        let mut test = long();
        test.give(Input::Resize(width, height));
        let bottom = test.view();
        for _ in 0..400 {
            test.key(KeyCode::Up);
        }
        let top = test.view();
        assert!(matches!(&top[0], Row::Note(_) | Row::Day(_)), "{width}x{height}: {top:?}");
        test.give(Input::Resize(100, 20));
        test.give(Input::Resize(width, height));
        for _ in 0..400 {
            test.key(KeyCode::Down);
        }
        assert_eq!((test.view(), test.app.below()), (bottom, None), "{width}x{height}");
    }
}

#[test]
fn many_new_messages_are_shown_from_the_first() {
    let mut test = Test::new(100, 20);
    test.starts(1, "bob");
    for seq in 1..=100 {
        test.says(1, seq, "bob", "new");
    }
    test.app.open_user(&user("bob"));
    test.give(Input::Tick);
    assert!(matches!(test.app.room().unwrap().scroll, Scroll::At(Place::Message(ConversationSeq(1)), _)));
    assert_eq!((test.unread("bob"), test.app.below()), (100, Some(100)), "not seen yet");
}

#[test]
fn a_conversation_that_is_opened_before_it_is_loaded_keeps_its_time() {
    let mut test = Test::new(100, 30);
    test.says(1, 1, "carol", "hi");
    test.later(60_000);
    test.app.open_user(&user("bob"));
    assert_eq!(test.titles(), ["bob", "carol"], "it was just begun");
    let old = Time(BEGUN - 86_400_000);
    let state = ConversationState {
        conversation: ConversationId(2),
        kind: ConversationKind::Direct,
        members: vec![MemberState { user: user("alice"), ..member("x") }, member("bob")],
        head: ConversationSeq(1),
        messages: vec![StoredMessage { seq: ConversationSeq(1), time: old, from: user("bob"), content: whimbrel_client::text("hi") }],
    };
    test.give(Input::Done(Done::Loaded(Ok(Stored { conversations: vec![state], ..Stored::default() }))));
    assert_eq!(test.app.room().unwrap().latest(), Some(old));
    assert_eq!(test.titles(), ["carol", "bob"]);
}

#[test]
fn resets_and_disagreements_are_told_until_they_are_put_away() {
    let mut test = Test::new(100, 30);
    test.says(2, 1, "carol", "older");
    test.says(1, 1, "bob", "old");
    test.app.open_user(&user("bob"));
    test.type_in("draft");
    test.give(Input::Disagreement("it was restored or cloned".into()));
    test.give(Input::Reset(ResetReason::OtherLog));
    assert!(test.app.take_actions().contains(&Action::Load), "after a crash it is told again, and no snapshot follows");
    test.give(Input::Snapshot);
    test.later(60_000);
    assert!(test.app.status().0.contains("restored or cloned"));
    test.key(KeyCode::Esc);
    assert!(test.app.status().0.contains("restored from a backup"));
    test.key(KeyCode::Esc);
    assert_eq!(test.app.pane(), Pane::Thread);
    let room = test.app.room().unwrap();
    assert_eq!((room.messages.len(), room.id, room.composer.text()), (0, None, "draft"));
    assert_eq!(test.titles(), ["bob"], "of carol there is nothing but a name that the server may not know");
    test.online("carol");
    assert_eq!(test.titles(), ["bob", "carol"]);
    assert!(test.app.take_actions().contains(&Action::Load));
}

#[test]
fn history_that_cannot_be_loaded_is_asked_for_again_only_after_a_reconnect() {
    let mut test = long();
    for _ in 0..20 {
        test.key(KeyCode::PageUp);
    }
    test.app.take_actions();
    test.give(Input::Done(Done::Older(ConversationId(1), Err("too busy".into()))));
    test.key(KeyCode::PageUp);
    assert_eq!(test.app.take_actions(), []);
    assert!(test.app.status().0.contains("too busy"));
    test.give(Input::Connection(Connection::Connected { transport: TransportKind::WebSocket }));
    assert_eq!(test.app.take_actions().len(), 1);
}
