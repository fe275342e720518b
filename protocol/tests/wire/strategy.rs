//! Any frame there can be, for properties.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

/// Text with everything that escaping may get wrong.
fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![4 => any::<char>(), 1 => Just('\0'), 1 => Just('"'), 1 => Just('\\'), 1 => Just('\u{202e}'), 1 => Just('订')];
    vec(char, 0..12).prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z]{1,8}", 1 => "[a-zé订🐦 ]{1,16}"].prop_filter("trimmed", |name| name.trim() == name)
}

fn user() -> impl Strategy<Value = UserId> {
    name().prop_map(|name| UserId::new(&name).unwrap())
}

/// Numbers near the steps of a varint, too.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0u32..64).prop_map(|bits| 1u64 << bits), (0u32..64).prop_map(|bits| (1u64 << bits) - 1), Just(u64::MAX)]
}

macro_rules! numbers {
    ($($name:ident: $type:ident),+ $(,)?) => { $(
        fn $name() -> impl Strategy<Value = $type> {
            number().prop_map($type)
        }
    )+ };
}
numbers! {
    mailbox_seq: MailboxSeq, conversation_seq: ConversationSeq, command_seq: CommandSeq, conversation_id: ConversationId,
    incarnation: Incarnation, log_epoch: LogEpoch, session_epoch: SessionEpoch, query_id: QueryId, time: Time,
}

fn nonce() -> impl Strategy<Value = Nonce> {
    any::<[u8; 8]>().prop_map(Nonce)
}

fn code() -> impl Strategy<Value = ErrorCode> {
    any::<u16>().prop_map(ErrorCode::from_number).boxed().prop_union(proptest::sample::select(ErrorCode::ALL).boxed())
}

fn content() -> impl Strategy<Value = Content> {
    (0u16..4, text(), extensions()).prop_map(|(kind, text, extensions)| Content { kind: ContentKind::from_number(kind), text, extensions })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![user().prop_map(Target::User), conversation_id().prop_map(Target::Conversation)]
}

fn position() -> impl Strategy<Value = Position> {
    (log_epoch(), mailbox_seq(), time()).prop_map(|(epoch, cursor, time)| Position { epoch, cursor, time })
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    vec((any::<u16>(), vec(any::<u8>(), 0..5)).prop_map(|(key, value)| Extension { key, value }), 0..3)
}

fn hello() -> impl Strategy<Value = Hello> {
    let origin = prop_oneof![Just(Origin::Snapshot), Just(Origin::Oldest), Just(Origin::Now)];
    let who = (user(), name().prop_map(|name| DeviceId::new(&name).unwrap()), text(), text());
    let run = (any::<[u8; 8]>().prop_map(Nonce), any::<u32>());
    (any::<(u8, u8)>(), who, run, incarnation(), option::of(position()), origin, extensions()).prop_map(
        |((min_version, max_version), (user, device, token, agent), (instance, attempt), incarnation, position, origin, extensions)| {
            Hello { min_version, max_version, user, device, token, agent, instance, attempt, incarnation, position, origin, extensions }
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    prop_oneof![
        (text(), vec(any::<[u8; 32]>(), 0..3)).prop_map(|(url, certificate_hashes)| Endpoint::WebTransport { url, certificate_hashes }),
        text().prop_map(|url| Endpoint::WebSocket { url }),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let reset = option::of(prop_oneof![Just(ResetReason::Trimmed), Just(ResetReason::OtherLog)]);
    let begin =
        (mailbox_seq(), time(), any::<bool>(), reset).prop_map(|(cursor, time, snapshot, reset)| Begin { cursor, time, snapshot, reset });
    let outbox = (incarnation(), command_seq(), nonce());
    let log = (session_epoch(), log_epoch(), mailbox_seq(), begin, time());
    (any::<(u8, u32, u32)>(), user(), outbox, log, vec(endpoint(), 0..3), extensions()).prop_map(
        |((version, window, max_text), user, (incarnation, applied, applied_nonce), log, endpoints, extensions)| {
            let (session_epoch, epoch, head, begin, time) = log;
            Welcome {
                version,
                user,
                session_epoch,
                epoch,
                incarnation,
                applied,
                applied_nonce,
                head,
                begin,
                window,
                max_text,
                time,
                endpoints,
                extensions,
            }
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let body = prop_oneof![
        (target(), content()).prop_map(|(to, content)| Send { to, content }.into()),
        (conversation_id(), conversation_seq()).prop_map(|(conversation, seq)| MarkRead { conversation, seq }.into()),
    ];
    (incarnation(), command_seq(), nonce(), body).prop_map(|(incarnation, cseq, nonce, body)| Command { incarnation, cseq, nonce, body })
}

pub fn event() -> impl Strategy<Value = Event> {
    let place = || (conversation_id(), conversation_seq());
    let command = || (incarnation(), command_seq());
    let body = prop_oneof![
        mailbox_seq().prop_map(|through| Skip { through }.into()),
        (conversation_id(), 0u16..3, vec(user(), 0..4)).prop_map(|(conversation, kind, members)| {
            Started { conversation, kind: ConversationKind::from_number(kind), members }.into()
        }),
        (place(), option::of(user()), content()).prop_map(|((conversation, seq), from, content)| Message {
            conversation,
            seq,
            from,
            content
        }
        .into()),
        (command(), place()).prop_map(|((incarnation, cseq), (conversation, seq))| Sent { incarnation, cseq, conversation, seq }.into()),
        (command(), code(), text()).prop_map(|((incarnation, cseq), code, message)| Rejected { incarnation, cseq, code, message }.into()),
        (place(), option::of(user()), conversation_seq()).prop_map(|((conversation, delivered), user, read)| Receipt {
            conversation,
            user,
            delivered,
            read
        }
        .into()),
    ];
    (mailbox_seq(), time(), body).prop_map(|(seq, time, body): (_, _, EventBody)| Event { seq, time, body })
}

fn query() -> impl Strategy<Value = Query> {
    let direction = prop_oneof![Just(Direction::Backwards), Just(Direction::Forwards)];
    let body = prop_oneof![
        (target(), conversation_seq(), direction, any::<u32>()).prop_map(|(of, from, direction, limit)| History {
            of,
            from,
            direction,
            limit
        }
        .into()),
        (text(), any::<u32>()).prop_map(|(after, limit)| Online { after, limit }.into()),
    ];
    (query_id(), body).prop_map(|(id, body): (_, QueryBody)| Query { id, body })
}

fn messages() -> impl Strategy<Value = Vec<StoredMessage>> {
    vec(
        (conversation_seq(), time(), user(), content()).prop_map(|(seq, time, from, content)| StoredMessage { seq, time, from, content }),
        0..3,
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    let body = prop_oneof![
        (conversation_id(), messages(), any::<bool>()).prop_map(|(conversation, messages, more)| HistoryPage {
            conversation,
            messages,
            more
        }
        .into()),
        (vec(user(), 0..4), any::<bool>()).prop_map(|(users, more)| OnlinePage { users, more }.into()),
        (code(), text()).prop_map(|(code, message)| Refused { code, message }.into()),
    ];
    (query_id(), any::<bool>(), body).prop_map(|(id, last, body): (_, _, AnswerBody)| Answer { id, last, body })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let member = (user(), conversation_seq(), conversation_seq()).prop_map(|(user, delivered, read)| MemberState { user, delivered, read });
    let conversation = (conversation_id(), 0u16..3, vec(member, 0..3), conversation_seq(), messages()).prop_map(
        |(conversation, kind, members, head, messages)| ConversationState {
            conversation,
            kind: ConversationKind::from_number(kind),
            members,
            head,
            messages,
        },
    );
    (vec(conversation, 0..3), any::<bool>()).prop_map(|(conversations, last)| Snapshot { conversations, last })
}

fn signal() -> impl Strategy<Value = Signal> {
    prop_oneof![
        (target(), any::<bool>()).prop_map(|(to, active)| Signal::Typing(Typing { to, active })),
        (vec(user(), 0..4), any::<bool>(), any::<bool>()).prop_map(|(users, everyone, lobby)| Signal::Watch(Watch {
            users,
            everyone,
            lobby
        })),
        (any::<bool>(), any::<u16>()).prop_map(|(background, ask_after_s)| Signal::State(ClientState { background, ask_after_s })),
    ]
}

fn server_signal() -> impl Strategy<Value = ServerSignal> {
    let presence = (user(), 0u16..4).prop_map(|(user, state)| Presence { user, state: PresenceState::from_number(state) });
    prop_oneof![
        (conversation_id(), user(), any::<bool>()).prop_map(|(conversation, user, active)| ServerSignal::Typing(TypingFrom {
            conversation,
            user,
            active
        })),
        vec(presence, 0..4).prop_map(ServerSignal::Presence),
        ".{0,40}".prop_map(|text| ServerSignal::Lobby(LobbyLine { text })),
    ]
}

fn ping() -> impl Strategy<Value = Ping> {
    any::<u32>().prop_map(|id| Ping { id })
}

pub fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        hello().prop_map(ClientFrame::Hello),
        command().prop_map(ClientFrame::Command),
        mailbox_seq().prop_map(|seq| ClientFrame::Ack(Ack { seq })),
        query().prop_map(ClientFrame::Query),
        signal().prop_map(ClientFrame::Signal),
        ping().prop_map(ClientFrame::Ping),
        ping().prop_map(ClientFrame::Pong),
    ]
}

pub fn server_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        welcome().prop_map(ServerFrame::Welcome),
        command_seq().prop_map(|cseq| ServerFrame::Applied(Applied { cseq })),
        event().prop_map(ServerFrame::Event),
        snapshot().prop_map(ServerFrame::Snapshot),
        answer().prop_map(ServerFrame::Answer),
        server_signal().prop_map(ServerFrame::Signal),
        ping().prop_map(ServerFrame::Ping),
        ping().prop_map(ServerFrame::Pong),
        (command_seq(), any::<u32>()).prop_map(|(cseq, retry_after_ms)| ServerFrame::Busy(Busy { cseq, retry_after_ms })),
        (any::<u32>(), text()).prop_map(|(retry_after_ms, message)| ServerFrame::GoAway(GoAway { retry_after_ms, message })),
        (code(), text(), any::<u32>()).prop_map(|(code, message, retry_after_ms)| ServerFrame::Error(Error {
            code,
            message,
            retry_after_ms
        })),
    ]
}
