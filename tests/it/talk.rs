//! Two people talk: what one says the other gets, once and in order, with receipts, on every device.

use crate::harness::{Frames, ServerProcess, hello, run, text};
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{
    AnswerBody, ClientFrame, Direction, EventBody, History, MarkRead, PresenceState, Query, Send, ServerFrame, ServerSignal, Signal,
    Target, Typing, Watch,
};
use whimbrel_protocol::{ConversationSeq, ErrorCode, Incarnation, QueryId, Time, UserId};

fn user(name: &str) -> Target {
    Target::User(UserId::new(name).unwrap())
}

#[test]
fn what_one_says_the_other_gets_in_both_forms() {
    run(async {
        let server = ServerProcess::start();
        for (ann_form, bob_form) in [(Form::Postcard, Form::Json), (Form::Json, Form::Postcard)] {
            let mut ann = Frames::enter(server.http, ann_form, "ann", "phone").await;
            let mut bob = Frames::enter(server.http, bob_form, "bob", "phone").await;
            for number in 0..100 {
                let cseq = ann.say("bob", &format!("{ann_form:?} {number}")).await;
                if number == 99 {
                    ann.applied(cseq).await;
                }
            }
            for number in 0..100 {
                loop {
                    let said = bob.message().await;
                    // The second round begins at the oldest entry, so the first is heard again.
                    if said.starts_with(&format!("{ann_form:?}")) {
                        assert_eq!(said, format!("{ann_form:?} {number}"));
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn the_sender_gets_outcomes_and_the_senders_other_devices_the_messages() {
    run(async {
        let server = ServerProcess::start();
        let mut phone = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let mut laptop = Frames::enter(server.http, Form::Json, "ann", "laptop").await;
        let cseq = phone.say("bob", "hello").await;
        let sent = phone
            .event_of(|body| match body {
                EventBody::Sent(sent) => Some(*sent),
                EventBody::Message(_) => panic!("the device that sent gets the short form"),
                _ => None,
            })
            .await;
        assert_eq!((sent.cseq, sent.seq, sent.incarnation), (cseq, ConversationSeq(1), phone.welcome.incarnation));
        let copy = laptop
            .event_of(|body| match body {
                EventBody::Message(message) => Some(message.clone()),
                _ => None,
            })
            .await;
        assert_eq!((copy.conversation, copy.seq, copy.from), (sent.conversation, sent.seq, Some(UserId::new("ann").unwrap())));
        assert_eq!(copy.content, text("hello"));
    });
}

#[test]
fn a_device_that_was_away_goes_on_after_its_cursor() {
    run(async {
        let server = ServerProcess::start();
        let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        ann.say("bob", "one").await;
        assert_eq!(bob.event().await.body.kind_name(), "started");
        let one = bob.event().await;
        let position = bob.position(one.time);
        let incarnation = bob.welcome.incarnation;
        drop(bob);
        ann.say("bob", "two").await;
        let last = ann.say("bob", "three").await;
        ann.applied(last).await;
        let back = whimbrel_protocol::frame::Hello { position: Some(position), incarnation, ..hello("bob", "phone") };
        let mut bob = Frames::enter_with(server.http, Form::Postcard, back).await;
        assert_eq!(bob.welcome.begin.reset, None);
        assert_eq!(bob.welcome.incarnation, incarnation);
        assert_eq!(bob.message().await, "two");
        assert_eq!(bob.message().await, "three");
    });
}

#[test]
fn a_cursor_of_another_log_is_told_and_not_guessed() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let cseq = ann.say("bob", "one").await;
        ann.applied(cseq).await;
        let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
        let first = bob.event().await;
        let good = bob.position(first.time);
        let cases = [
            whimbrel_protocol::frame::Position { time: Time(first.time.0 + 1), ..good },
            whimbrel_protocol::frame::Position { cursor: whimbrel_protocol::MailboxSeq(1000), ..good },
            whimbrel_protocol::frame::Position { epoch: whimbrel_protocol::LogEpoch(good.epoch.0 + 1), ..good },
        ];
        for position in cases {
            let back = whimbrel_protocol::frame::Hello { position: Some(position), ..hello("bob", "phone") };
            let bob = Frames::enter_with(server.http, Form::Postcard, back).await;
            assert_eq!(bob.welcome.begin.reset, Some(whimbrel_protocol::frame::ResetReason::OtherLog), "{position:?}");
        }
    });
}

#[test]
fn receipts_rise_from_delivered_to_read_and_reach_who_wrote() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let mut bob = Frames::enter(server.http, Form::Json, "bob", "phone").await;
        let mut tablet = Frames::enter(server.http, Form::Json, "bob", "tablet").await;
        ann.say("bob", "one").await;
        ann.say("bob", "two").await;
        assert_eq!(bob.message().await, "one");
        assert_eq!(bob.message().await, "two");
        bob.ack().await;
        let receipt = |body: &EventBody| match body {
            EventBody::Receipt(receipt) => Some(receipt.clone()),
            _ => None,
        };
        let delivered = ann.event_of(receipt).await;
        assert_eq!((delivered.user, delivered.delivered, delivered.read), (None, ConversationSeq(2), ConversationSeq(0)));
        let mark = MarkRead { conversation: delivered.conversation, seq: ConversationSeq(2) };
        bob.command(mark).await;
        let read = ann.event_of(receipt).await;
        assert_eq!((read.delivered, read.read), (ConversationSeq(2), ConversationSeq(2)));
        // The reader's devices are in step, and the one that read remembers it too.
        for device in [&mut tablet, &mut bob] {
            let own = device.event_of(receipt).await;
            assert_eq!((own.user, own.read), (Some(UserId::new("bob").unwrap()), ConversationSeq(2)));
        }
    });
}

#[test]
fn history_comes_in_pages_backwards_and_forwards() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        for number in 1..=60 {
            ann.say("bob", &number.to_string()).await;
        }
        ann.applied(ann.cseq).await;
        let pages =
            [(0, Direction::Backwards, 51, 60, true), (51, Direction::Backwards, 41, 50, true), (5, Direction::Backwards, 1, 4, false)];
        let forwards =
            [(0, Direction::Forwards, 1, 10, true), (10, Direction::Forwards, 11, 20, true), (55, Direction::Forwards, 56, 60, false)];
        for (id, (from, direction, first, last, more)) in pages.into_iter().chain(forwards).enumerate() {
            let id = QueryId(id as u64);
            let history = History { of: user("bob"), from: ConversationSeq(from), direction, limit: 10 };
            ann.link.send(&ClientFrame::Query(Query { id, body: history.into() })).await;
            let page = ann
                .wait("an answer", |frame| match frame {
                    ServerFrame::Answer(answer) if answer.id == id => Some(answer.clone()),
                    _ => None,
                })
                .await;
            let AnswerBody::History(page) = page.body else { panic!("{page:?}") };
            let numbers: Vec<u64> = page.messages.iter().map(|message| message.seq.0).collect();
            assert_eq!((numbers, page.more), ((first..=last).collect(), more), "from {from} {direction:?}");
            assert!(page.messages.iter().all(|message| message.content.text == message.seq.to_string()));
        }
    });
}

#[test]
fn a_long_answer_comes_in_as_many_frames_as_it_takes() {
    run(async {
        let server = ServerProcess::start();
        // Names of the largest size, and texts from tiny to the largest.
        let (ann, bob) = ("a".repeat(UserId::MAX_BYTES), "b".repeat(UserId::MAX_BYTES));
        let mut sender = Frames::enter(server.http, Form::Postcard, &ann, "phone").await;
        for number in 0..400 {
            let cseq = sender.say(&bob, &"x".repeat(if number % 100 == 99 { 60 * 1024 } else { 60 })).await;
            if number % 100 == 99 {
                sender.applied(cseq).await;
            }
        }
        for form in [Form::Postcard, Form::Json] {
            let mut reader = Frames::enter(server.http, form, &bob, &format!("{form:?}")).await;
            let history = History { of: user(&ann), from: ConversationSeq(0), direction: Direction::Forwards, limit: 500 };
            reader.link.send(&ClientFrame::Query(Query { id: QueryId(1), body: history.into() })).await;
            let mut numbers = Vec::new();
            let mut last = false;
            while !last {
                let answer = |frame: &ServerFrame| if let ServerFrame::Answer(answer) = frame { Some(answer.clone()) } else { None };
                let answer = reader.wait("an answer", answer).await;
                let AnswerBody::History(page) = answer.body else { panic!("{:?}", answer.body) };
                numbers.extend(page.messages.iter().map(|message| message.seq.0));
                last = answer.last;
                assert!(!page.more);
            }
            assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
            let snapshot = whimbrel_protocol::frame::Hello {
                origin: whimbrel_protocol::frame::Origin::Snapshot,
                ..hello(&bob, &format!("{form:?} new"))
            };
            let mut new = Frames::enter_with(server.http, form, snapshot).await;
            new.wait("a snapshot", |frame| matches!(frame, ServerFrame::Snapshot(page) if page.last).then_some(())).await;
        }
    });
}

#[test]
fn a_device_that_was_away_longer_than_the_mailbox_keeps_is_reset() {
    run(async {
        let mut server = ServerProcess::start_with(&["--mailbox-entries", "10"]);
        let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        ann.say("bob", "1").await;
        bob.event().await;
        let first = bob.event().await;
        let position = bob.position(first.time);
        drop(bob);
        for number in 2..=1500 {
            let cseq = ann.say("bob", &number.to_string()).await;
            if number % 100 == 0 {
                ann.applied(cseq).await;
            }
        }
        // Mailboxes are trimmed when the server starts, and each hour.
        assert!(server.terminate().success());
        server.restart();
        let back = whimbrel_protocol::frame::Hello { position: Some(position), ..hello("bob", "phone") };
        let trimmed = async {
            loop {
                let bob = Frames::enter_with(server.http, Form::Postcard, back.clone()).await;
                if bob.welcome.begin.reset.is_some() {
                    break bob;
                }
            }
        };
        let mut bob = crate::harness::within("a reset", trimmed).await;
        assert_eq!(bob.welcome.begin.reset, Some(whimbrel_protocol::frame::ResetReason::Trimmed));
        // It is told of the conversation, then has what is kept, to the end and without a gap.
        let page = bob.wait("a snapshot", |frame| if let ServerFrame::Snapshot(page) = frame { Some(page.clone()) } else { None }).await;
        assert_eq!((page.conversations.len(), page.last), (1, true));
        let mut next: Option<u32> = None;
        while next != Some(1501) {
            let number: u32 = bob.message().await.parse().unwrap();
            assert!(next.is_none_or(|next| next == number), "{number} instead of {next:?}");
            next = Some(number + 1);
        }
    });
}

#[test]
fn strangers_do_not_see_a_conversation() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        ann.say("bob", "between us").await;
        let sent = ann.event_of(|body| matches!(body, EventBody::Sent(_)).then(|| body.clone())).await;
        let EventBody::Sent(sent) = sent else { unreachable!() };
        let mut eve = Frames::enter(server.http, Form::Json, "eve", "phone").await;
        let of = Target::Conversation(sent.conversation);
        let history = History { of: of.clone(), from: ConversationSeq(0), direction: Direction::Backwards, limit: 10 };
        eve.link.send(&ClientFrame::Query(Query { id: QueryId(1), body: history.into() })).await;
        let answer = eve.wait("an answer", |frame| if let ServerFrame::Answer(answer) = frame { Some(answer.clone()) } else { None }).await;
        assert!(matches!(answer.body, AnswerBody::Refused(refused) if refused.code == ErrorCode::NotFound));
        eve.command(Send { to: of, content: text("let me in") }).await;
        eve.command(MarkRead { conversation: sent.conversation, seq: ConversationSeq(1) }).await;
        for _ in 0..2 {
            let rejected = eve.event_of(|body| if let EventBody::Rejected(rejected) = body { Some(rejected.clone()) } else { None }).await;
            assert_eq!(rejected.code, ErrorCode::NotFound);
        }
    });
}

#[test]
fn presence_and_typing_are_seen_by_who_watches() {
    run(async {
        let server = ServerProcess::start_with(&["--presence-grace", "0"]);
        let mut ann = Frames::enter(server.http, Form::Json, "ann", "phone").await;
        ann.say("bob", "hi").await;
        let watch = Watch { users: vec![UserId::new("bob").unwrap()], everyone: false, lobby: false };
        ann.link.send(&ClientFrame::Signal(Signal::Watch(watch))).await;
        let presence = |frame: &ServerFrame| match frame {
            ServerFrame::Signal(ServerSignal::Presence(list)) => Some(list[0].state),
            _ => None,
        };
        assert_eq!(ann.wait("presence", presence).await, PresenceState::Offline);
        let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
        assert_eq!(ann.wait("presence", presence).await, PresenceState::Online);
        bob.link.send(&ClientFrame::Signal(Signal::Typing(Typing { to: user("ann"), active: true }))).await;
        let typing = ann
            .wait("typing", |frame| match frame {
                ServerFrame::Signal(ServerSignal::Typing(typing)) => Some(typing.clone()),
                _ => None,
            })
            .await;
        assert_eq!((typing.user.as_str(), typing.active), ("bob", true));
        drop(bob);
        assert_eq!(ann.wait("presence", presence).await, PresenceState::Offline);
    });
}

#[test]
fn a_command_sent_again_has_one_effect_over_sessions_and_outboxes() {
    run(async {
        use whimbrel_protocol::frame::{Command, Hello};
        use whimbrel_protocol::{CommandSeq, Nonce};
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let command = |incarnation, cseq| {
            let body = Send { to: user("bob"), content: text("once") }.into();
            ClientFrame::Command(Command { incarnation, cseq: CommandSeq(cseq), nonce: Nonce([7; 8]), body })
        };
        ann.link.send(&command(ann.welcome.incarnation, 1)).await;
        ann.applied(CommandSeq(1)).await;
        // The same session, another session, another outbox.
        ann.link.send(&command(ann.welcome.incarnation, 1)).await;
        let back = Hello { incarnation: ann.welcome.incarnation, ..hello("ann", "phone") };
        let mut ann = Frames::enter_with(server.http, Form::Postcard, back).await;
        assert_eq!((ann.welcome.applied, ann.welcome.applied_nonce), (CommandSeq(1), Nonce([7; 8])));
        ann.link.send(&command(ann.welcome.incarnation, 1)).await;
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        assert_eq!((ann.welcome.incarnation, ann.welcome.applied), (Incarnation(2), CommandSeq(0)));
        ann.link.send(&command(ann.welcome.incarnation, 1)).await;
        ann.applied(CommandSeq(1)).await;
        let sent = loop {
            let sent = ann.event_of(|body| if let EventBody::Sent(sent) = body { Some(*sent) } else { None }).await;
            if sent.incarnation == Incarnation(2) {
                break sent;
            }
        };
        assert_eq!(sent.seq, ConversationSeq(1), "the outcome names the message that got through first");
        ann.cseq = CommandSeq(1);
        let last = ann.say("bob", "end").await;
        ann.applied(last).await;
        let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
        assert_eq!(bob.message().await, "once");
        assert_eq!(bob.message().await, "end");
    });
}

#[test]
fn a_newer_session_of_a_device_replaces_the_older() {
    run(async {
        let server = ServerProcess::start();
        let mut older = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        let mut newer = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        assert!(newer.welcome.session_epoch > older.welcome.session_epoch);
        assert_eq!(older.link.error().await.code, ErrorCode::Replaced);
        let cseq = newer.say("bob", "still here").await;
        newer.applied(cseq).await;
    });
}

#[test]
fn a_hello_that_comes_late_does_not_replace_the_session_in_use() {
    run(async {
        use whimbrel_protocol::Nonce;
        use whimbrel_protocol::frame::Hello;
        let server = ServerProcess::start();
        let attempt = |attempt| Hello { instance: Nonce([3; 8]), attempt, ..hello("ann", "phone") };
        let mut first = Frames::enter_with(server.http, Form::Postcard, attempt(1)).await;
        let mut third = Frames::enter_with(server.http, Form::Postcard, attempt(3)).await;
        assert_eq!(first.link.error().await.code, ErrorCode::Replaced);
        let mut late = crate::harness::Link::open(server.http, Form::Postcard).await;
        late.send(&ClientFrame::Hello(attempt(2))).await;
        assert_eq!(late.error().await.code, ErrorCode::Replaced);
        let cseq = third.say("bob", "still here").await;
        third.applied(cseq).await;
        assert_eq!(third.welcome.incarnation, Incarnation(2), "the late one did not change the outbox");
    });
}

#[test]
fn a_device_whose_mailbox_was_not_kept_gets_a_snapshot() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = Frames::enter(server.http, Form::Postcard, "ann", "phone").await;
        for number in 1..=30 {
            ann.say("bob", &number.to_string()).await;
        }
        ann.applied(ann.cseq).await;
        let origin = whimbrel_protocol::frame::Origin::Snapshot;
        let new = whimbrel_protocol::frame::Hello { origin, ..hello("bob", "new") };
        let mut bob = Frames::enter_with(server.http, Form::Postcard, new).await;
        assert!(bob.welcome.begin.snapshot && bob.welcome.begin.reset.is_none());
        let page = bob.wait("a snapshot", |frame| if let ServerFrame::Snapshot(page) = frame { Some(page.clone()) } else { None }).await;
        assert!(page.last);
        let state = &page.conversations[0];
        assert_eq!((state.head, state.members.len()), (ConversationSeq(30), 2));
        let texts: Vec<String> = state.messages.iter().map(|message| message.content.text.clone()).collect();
        assert_eq!(texts, (11..=30).map(|number| number.to_string()).collect::<Vec<_>>());
        // What the snapshot held is delivered once the device says that it has it, and no sooner.
        bob.ack().await;
        let delivered = ann.event_of(|body| if let EventBody::Receipt(receipt) = body { Some(receipt.delivered) } else { None }).await;
        assert_eq!(delivered, ConversationSeq(30));
        ann.say("bob", "after").await;
        assert_eq!(bob.message().await, "after");
    });
}
