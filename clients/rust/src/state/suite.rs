//! What every store must do: run against both. The one on disk is opened anew after each step.

use super::*;
use tempfile::TempDir;
use whimbrel_protocol::frame::{
    CommandBody, Content, ConversationKind, ConversationState, EventBody, Extension, MarkRead, MemberState, Message, Receipt, Rejected,
    Send, Sent, Started, StoredMessage, Target,
};
use whimbrel_protocol::{Disagreement, ErrorCode, LogEpoch, MailboxSeq, Time};

struct Subject {
    store: Option<Box<dyn Store>>,
    folder: Option<TempDir>,
}

impl Subject {
    fn both() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        let on_disk = Self { store: Some(Box::new(open(&folder))), folder: Some(folder) };
        [Self { store: Some(Box::new(MemoryStore::default())), folder: None }, on_disk]
    }

    fn call<T>(&mut self, work: impl FnOnce(&mut dyn Store) -> Result<T, StateError>) -> T {
        let store = self.store.as_mut().unwrap();
        store.begin().unwrap();
        store.savepoint().unwrap();
        let result = work(store.as_mut()).unwrap();
        store.end_savepoint(true).unwrap();
        store.commit().unwrap();
        if let Some(folder) = &self.folder {
            self.store = None;
            self.store = Some(Box::new(open(folder)));
        }
        result
    }

    fn load(&mut self) -> Loaded {
        self.call(|store| store.load())
    }

    fn texts(&mut self, conversation: u64) -> Vec<(u64, String, String)> {
        let messages = self.call(|store| store.messages(ConversationId(conversation), None, 5_000));
        messages.into_iter().map(|message| (message.seq.0, message.from.unwrap().to_string(), message.content.text)).collect()
    }
}

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path(), &user("alice"), None, &"laptop".parse().unwrap()).unwrap().0
}

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// With something beside the text, which has to stay with it.
fn content(text: &str) -> Content {
    Content { extensions: vec![Extension { key: 900, value: text.as_bytes().to_vec() }], ..crate::text(text) }
}

fn command(incarnation: u64, cseq: u64, text: &str) -> Command {
    let body = CommandBody::Send(Send { to: Target::User(user("bob")), content: content(text) });
    numbered(incarnation, cseq, body)
}

fn numbered(incarnation: u64, cseq: u64, body: CommandBody) -> Command {
    let nonce = Nonce((incarnation << 32 | cseq).to_be_bytes());
    Command { incarnation: Incarnation(incarnation), cseq: CommandSeq(cseq), nonce, body }
}

fn event(seq: u64, body: impl Into<EventBody>) -> Event {
    Event { seq: MailboxSeq(seq), time: Time(100 + seq), body: body.into() }
}

fn started(conversation: u64) -> Started {
    let members = vec![user("alice"), user("bob")];
    Started { conversation: ConversationId(conversation), kind: ConversationKind::Direct, members }
}

fn message(conversation: u64, seq: u64, text: &str) -> Message {
    let (conversation, seq) = (ConversationId(conversation), ConversationSeq(seq));
    Message { conversation, seq, from: Some(user("bob")), content: content(text) }
}

fn position(cursor: u64) -> Position {
    Position { epoch: LogEpoch(1), cursor: MailboxSeq(cursor), time: Time(100 + cursor) }
}

fn outbox(incarnation: u64, applied: u64) -> OutboxState {
    let applied_nonce = if applied == 0 { Nonce::default() } else { command(incarnation, applied, "").nonce };
    OutboxState { incarnation: Incarnation(incarnation), applied: CommandSeq(applied), applied_nonce }
}

fn take(subject: &mut Subject, events: &[Event], cursor: u64, state: OutboxState) {
    subject.call(|store| store.take(&user("alice"), events, position(cursor), state));
}

fn numbers(commands: &[Command]) -> Vec<(u64, u64)> {
    commands.iter().map(|command| (command.incarnation.0, command.cseq.0)).collect()
}

#[test]
fn a_new_device_knows_nothing() {
    for mut subject in Subject::both() {
        let loaded = subject.load();
        assert_eq!((loaded.outbox, loaded.position), (OutboxState::default(), None));
        assert!(loaded.pending.is_empty() && loaded.awaiting.is_empty() && loaded.directory.is_empty());
    }
}

#[test]
fn commands_stay_until_their_outcome_is_taken() {
    for mut subject in Subject::both() {
        let read = MarkRead { conversation: ConversationId(7), seq: ConversationSeq(1) };
        let commands = [command(1, 1, "one"), numbered(1, 2, read.into()), command(1, 3, "three"), command(1, 4, "four")];
        subject.call(|store| store.renumber(outbox(1, 0), &[]));
        subject.call(|store| store.enqueue(&commands));
        assert_eq!(subject.load().pending, commands);
        subject.call(|store| store.applied(outbox(1, 3)));
        let loaded = subject.load();
        assert_eq!(loaded.outbox, outbox(1, 3));
        assert_eq!(numbers(&loaded.pending), [(1, 4)]);
        let awaiting: Vec<_> = loaded.awaiting.into_iter().map(|row| row.command.cseq.0).collect();
        assert_eq!(awaiting, [1, 3], "nobody is told that a read mark was applied: it is forgotten");

        let (incarnation, conversation) = (Incarnation(1), ConversationId(7));
        let sent = Sent { incarnation, cseq: CommandSeq(1), conversation, seq: ConversationSeq(1) };
        let rejected = Rejected { incarnation, cseq: CommandSeq(3), code: ErrorCode::Empty, message: String::new() };
        // The outcome of the fourth is here before it was said to be applied.
        let fourth = Sent { incarnation, cseq: CommandSeq(4), conversation, seq: ConversationSeq(2) };
        let events = [event(1, started(7)), event(2, sent), event(3, rejected), event(4, fourth)];
        take(&mut subject, &events, 4, outbox(1, 4));
        let loaded = subject.load();
        assert!(loaded.pending.is_empty() && loaded.awaiting.is_empty());
        assert_eq!((loaded.outbox, loaded.position), (outbox(1, 4), Some(position(4))));
        let texts = [(1, "alice".into(), "one".into()), (2, "alice".into(), "four".into())];
        assert_eq!(subject.texts(7), texts, "one's own messages have their text from the outbox");
    }
}

#[test]
fn renumbering_keeps_nonces_and_what_awaits_its_outcome() {
    for mut subject in Subject::both() {
        let commands: Vec<_> = (1..=4).map(|cseq| command(3, cseq, "x")).collect();
        subject.call(|store| store.enqueue(&commands));
        subject.call(|store| store.applied(outbox(3, 2)));
        // The third and fourth become the first and second.
        let numbers_now = [(commands[2].nonce, CommandSeq(1)), (commands[3].nonce, CommandSeq(2)), (Nonce([9; 8]), CommandSeq(3))];
        subject.call(|store| store.renumber(outbox(4, 0), &numbers_now));
        let loaded = subject.load();
        assert_eq!(numbers(&loaded.pending), [(4, 1), (4, 2)]);
        assert_eq!(loaded.pending[0].nonce, commands[2].nonce);
        assert_eq!(loaded.awaiting.len(), 2);
        // The server forgets the second: it is sent again.
        let state = OutboxState { incarnation: Incarnation(0), applied: CommandSeq(1), applied_nonce: Nonce::default() };
        let why = Disagreement::ServerIsOlder { server: CommandSeq(1), ours: CommandSeq(2) };
        subject.call(|store| store.disagree(state, &[commands[1].nonce], &[], why));
        let loaded = subject.load();
        assert_eq!(loaded.outbox, state);
        assert_eq!((loaded.pending.len(), loaded.awaiting.len()), (3, 1));
    }
}

#[test]
fn events_make_conversations() {
    for mut subject in Subject::both() {
        let receipt =
            Receipt { conversation: ConversationId(7), user: Some(user("bob")), delivered: ConversationSeq(2), read: ConversationSeq(1) };
        let older = Receipt { delivered: ConversationSeq(1), ..receipt.clone() };
        let events = [
            event(1, started(7)),
            event(2, message(7, 1, "one")),
            event(3, message(7, 2, "two")),
            event(4, receipt),
            event(5, older),
            event(6, started(8)),
            event(7, message(8, 1, "newer")),
        ];
        take(&mut subject, &events, 7, OutboxState::default());
        // The same again changes nothing.
        take(&mut subject, &events[1..3], 7, OutboxState::default());
        let conversations = subject.call(|store| store.conversations());
        assert_eq!(conversations.iter().map(|conversation| conversation.id.0).collect::<Vec<_>>(), [8, 7], "the newest first");
        assert_eq!((conversations[1].head, conversations[1].members.len()), (ConversationSeq(2), 2));
        let bob = MemberState { user: user("bob"), delivered: ConversationSeq(2), read: ConversationSeq(1) };
        assert_eq!(conversations[1].members[1], bob);
        assert_eq!(subject.texts(7).len(), 2);
        let before = subject.call(|store| store.messages(ConversationId(7), Some(ConversationSeq(2)), 10));
        assert_eq!(before.len(), 1);
        assert_eq!(subject.load().directory.len(), 2);
    }
}

#[test]
fn the_newest_thousand_messages_are_kept() {
    for mut subject in Subject::both() {
        for start in [1, 401, 801] {
            let events: Vec<_> = (start..start + 400).map(|seq| event(seq, message(7, seq, "x"))).collect();
            take(&mut subject, &events, start + 399, OutboxState::default());
        }
        let texts = subject.texts(7);
        assert_eq!((texts.len(), texts[0].0, texts[999].0), (1_000, 201, 1_200));
    }
}

fn page(conversation: u64, seqs: std::ops::RangeInclusive<u64>, last: bool) -> Snapshot {
    let stored =
        |seq| StoredMessage { seq: ConversationSeq(seq), time: Time(seq), from: user("bob"), content: content("from the snapshot") };
    let state = ConversationState {
        conversation: ConversationId(conversation),
        kind: ConversationKind::Direct,
        members: vec![MemberState { user: user("bob"), delivered: ConversationSeq(1), read: ConversationSeq(1) }],
        head: ConversationSeq(*seqs.end()),
        messages: seqs.map(stored).collect(),
    };
    Snapshot { conversations: vec![state], last }
}

#[test]
fn a_snapshot_counts_when_it_is_complete() {
    for (reset, kept) in [(ResetReason::Trimmed, 2), (ResetReason::OtherLog, 0)] {
        for mut subject in Subject::both() {
            let (one, two) = (command(1, 1, "untold"), command(1, 2, "waits"));
            subject.call(|store| store.enqueue(&[one.clone(), two]));
            take(&mut subject, &[event(1, started(7)), event(2, message(7, 1, "old"))], 2, outbox(1, 1));
            take(&mut subject, &[event(3, message(6, 1, "old"))], 3, outbox(1, 1));
            // One that is broken off leaves no trace.
            subject.call(|store| store.stage(&page(99, 1..=1, false), true));
            assert_eq!(subject.call(|store| store.conversations()).len(), 2);
            subject.call(|store| store.stage(&page(7, 5..=6, false), true));
            subject.call(|store| store.stage(&page(8, 1..=1, true), false));
            subject.call(|store| store.apply_snapshot(position(50), Some(reset), &[one.nonce]));
            let loaded = subject.load();
            assert_eq!((loaded.position, loaded.awaiting.len(), loaded.pending.len()), (Some(position(50)), 0, 1));
            let seqs: Vec<_> = subject.texts(7).into_iter().map(|(seq, ..)| seq).collect();
            assert_eq!(seqs, if kept > 0 { vec![1, 5, 6] } else { vec![5, 6] });
            assert_eq!(subject.texts(6).len(), usize::from(kept > 0));
            assert_eq!((subject.texts(8).len(), subject.texts(99).len()), (1, 0));
        }
    }
}

#[test]
fn a_restart_without_a_snapshot_moves_the_cursor() {
    for mut subject in Subject::both() {
        take(&mut subject, &[event(1, started(7)), event(2, message(7, 1, "old"))], 2, OutboxState::default());
        subject.call(|store| store.restart(position(40), Some(ResetReason::Trimmed), &[]));
        assert_eq!((subject.load().position, subject.texts(7).len()), (Some(position(40)), 1));
        subject.call(|store| store.restart(position(0), Some(ResetReason::OtherLog), &[]));
        assert_eq!((subject.load().position, subject.texts(7).len()), (Some(position(0)), 0));
    }
}

#[test]
fn a_reset_is_remembered_with_the_position_until_it_was_told() {
    for mut subject in Subject::both() {
        assert_eq!(subject.load().reset, None);
        subject.call(|store| store.restart(position(1), None, &[]));
        assert_eq!(subject.load().reset, None, "a beginning is no reset");
        subject.call(|store| store.restart(position(40), Some(ResetReason::Trimmed), &[]));
        assert_eq!(subject.load().reset, Some(ResetReason::Trimmed));
        subject.call(|store| store.stage(&page(7, 5..=6, true), true));
        assert_eq!(subject.load().reset, Some(ResetReason::Trimmed));
        subject.call(|store| store.apply_snapshot(position(50), Some(ResetReason::OtherLog), &[]));
        assert_eq!(subject.load().reset, Some(ResetReason::OtherLog));
        subject.call(|store| store.restart(position(60), Some(ResetReason::Trimmed), &[]));
        assert_eq!(subject.load().reset, Some(ResetReason::OtherLog), "the one that says more stays");
        take(&mut subject, &[event(61, started(8))], 61, OutboxState::default());
        assert_eq!(subject.load().reset, Some(ResetReason::OtherLog));
        subject.call(|store| store.told(&Told { reset: true, ..Told::default() }));
        assert_eq!(subject.load().reset, None);
    }
}

#[test]
fn what_cannot_be_told_is_remembered_until_that_was_told() {
    for mut subject in Subject::both() {
        let commands: Vec<_> = (1..=3).map(|cseq| command(3, cseq, "x")).collect();
        subject.call(|store| store.enqueue(&commands));
        subject.call(|store| store.applied(outbox(3, 3)));
        subject.call(|store| store.restart(position(40), Some(ResetReason::Trimmed), &[commands[1].nonce]));
        let forgotten = |ours| Disagreement::AnotherOutbox { server: Incarnation(2), ours: Incarnation(ours) };
        let older = Disagreement::OutboxIsOlder { server: CommandSeq(9), numbered: CommandSeq(3) };
        for why in [forgotten(3), older, forgotten(4)] {
            subject.call(|store| store.disagree(outbox(0, 3), &[], &[commands[0].nonce], why));
        }
        // A new outbox may use their numbers.
        subject.call(|store| store.renumber(outbox(3, 0), &[]));
        let again = Command { nonce: Nonce([7; 8]), ..commands[1].clone() };
        subject.call(|store| store.enqueue(std::slice::from_ref(&again)));
        let mut loaded = subject.load();
        assert_eq!(loaded.untold, [commands[1].clone(), commands[0].clone()]);
        loaded.disagreements.sort_by_key(|why| *why == forgotten(4));
        assert_eq!(loaded.disagreements, [older, forgotten(4)], "of each kind the newest");
        assert_eq!((loaded.pending, loaded.awaiting.len()), (vec![again], 1));
        assert_eq!(subject.call(|store| store.waiting()).len(), 4, "they count as long as nobody has taken note");

        let told = Told { reset: false, untold: vec![commands[1].nonce], disagreements: vec![older, forgotten(3)] };
        subject.call(|store| store.told(&told));
        let loaded = subject.load();
        assert_eq!((loaded.untold, loaded.disagreements), (vec![commands[0].clone()], vec![forgotten(4)]));
        assert_eq!(loaded.reset, Some(ResetReason::Trimmed));
    }
}

#[test]
fn notes_are_remembered() {
    for mut subject in Subject::both() {
        assert_eq!(subject.call(|store| store.note("a")), None);
        subject.call(|store| store.set_note("a", "b"));
        subject.call(|store| store.set_note("a", "c"));
        assert_eq!(subject.call(|store| store.note("a")).as_deref(), Some("c"));
    }
}

#[test]
fn a_call_that_fails_undoes_itself_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    store.begin().unwrap();
    store.savepoint().unwrap();
    store.enqueue(&[command(1, 1, "kept")]).unwrap();
    store.end_savepoint(true).unwrap();
    store.savepoint().unwrap();
    assert!(store.enqueue(&[command(1, 2, "undone"), command(1, 1, "a double")]).is_err());
    store.end_savepoint(false).unwrap();
    store.commit().unwrap();
    drop(store);
    assert_eq!(numbers(&open(&folder).load().unwrap().pending), [(1, 1)]);
}

#[test]
fn a_folder_belongs_to_one_process_and_one_device() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    let again = |who: &str, device: Option<&str>| {
        let device = device.map(|device| device.parse().unwrap());
        SqliteStore::open(folder.path(), &user(who), device.as_ref(), &"fresh".parse().unwrap())
            .map(|(_, device)| device.device.to_string())
    };
    assert_eq!(again("alice", None), Err(StateError::Locked { folder: folder.path().into() }));
    drop(first);
    assert_eq!(again("alice", None).as_deref(), Ok("laptop"), "the folder remembers the name");
    assert_eq!(again("alice", Some("laptop")).as_deref(), Ok("laptop"));
    let other = StateError::OtherDevice { user: "alice".into(), device: "laptop".into() };
    assert_eq!(again("alice", Some("phone")), Err(other.clone()));
    assert_eq!(again("bob", None), Err(other));
}
