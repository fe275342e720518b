//! The frames that the golden vectors hold: every kind, every choice, and the edges. Written here, kept as bytes in `vectors/`.

use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Client(ClientFrame),
    Server(ServerFrame),
}

pub struct Sample {
    pub family: &'static str,
    pub name: String,
    pub frame: Frame,
}

const MOST: u64 = u64::MAX;
const TIME: Time = Time(1_790_000_000_000);
const NONCE: Nonce = Nonce([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
/// Several scripts, some that run the other way, an emoji of many parts, and what escaping may get wrong.
const NASTY: &str = "é 订单 שלום مرحبا 👩‍👩‍👧 \0 \" \\ \u{7f} \n";

struct List {
    family: &'static str,
    samples: Vec<Sample>,
}

impl List {
    fn add(&mut self, name: &str, frame: Frame) {
        self.samples.push(Sample { family: self.family, name: name.to_owned(), frame });
    }

    fn client(&mut self, name: &str, frame: ClientFrame) {
        self.add(name, Frame::Client(frame));
    }

    fn server(&mut self, name: &str, frame: ServerFrame) {
        self.add(name, Frame::Server(frame));
    }
}

pub fn all() -> Vec<Sample> {
    let mut list = List { family: "", samples: Vec::new() };
    for (family, fill) in [
        ("hello", hello as fn(&mut List)),
        ("control", control),
        ("error", errors),
        ("command", commands),
        ("event", events),
        ("query", queries),
        ("snapshot", snapshots),
        ("signal", signals),
    ] {
        list.family = family;
        fill(&mut list);
    }
    list.samples
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn text(text: &str) -> Content {
    Content::text(text)
}

fn hello(list: &mut List) {
    let least = Hello {
        min_version: 1,
        max_version: 1,
        user: user("alice"),
        device: DeviceId::new("phone").unwrap(),
        token: String::new(),
        agent: String::new(),
        instance: Nonce::default(),
        attempt: 0,
        incarnation: Incarnation(0),
        position: None,
        origin: Origin::Snapshot,
        extensions: Vec::new(),
    };
    let position = Position { epoch: LogEpoch(3), cursor: MailboxSeq(99_999), time: TIME };
    let back = Hello {
        token: "a.b.c".to_owned(),
        agent: "whimbrel-web/0.1".to_owned(),
        instance: Nonce([1, 2, 3, 4, 5, 6, 7, 8]),
        attempt: 2,
        incarnation: Incarnation(2),
        position: Some(position),
        ..least.clone()
    };
    let extension = |key, value: &[u8]| Extension { key, value: value.to_vec() };
    let most = Hello {
        min_version: 0,
        max_version: u8::MAX,
        user: user("\u{10ffff}订 é"),
        instance: Nonce([u8::MAX; 8]),
        attempt: u32::MAX,
        incarnation: Incarnation(MOST),
        position: Some(Position { epoch: LogEpoch(MOST), cursor: MailboxSeq(MOST), time: Time(MOST) }),
        extensions: vec![extension(1, &[]), extension(u16::MAX, &[0, 127, 128, 255])],
        ..back.clone()
    };
    list.client("hello: a new device", ClientFrame::Hello(least.clone()));
    list.client("hello: a new device that wants everything", ClientFrame::Hello(Hello { origin: Origin::Oldest, ..least.clone() }));
    list.client("hello: a new device that wants nothing old", ClientFrame::Hello(Hello { origin: Origin::Now, ..least }));
    list.client("hello: a device that comes back", ClientFrame::Hello(back));
    list.client("hello: extremes", ClientFrame::Hello(most));

    let begin = Begin { cursor: MailboxSeq(99_999), time: TIME, snapshot: false, reset: None };
    let web_transport = |certificate_hashes| Endpoint::WebTransport { url: "https://127.0.0.1:8443/wt".to_owned(), certificate_hashes };
    let web_socket = Endpoint::WebSocket { url: "ws://127.0.0.1:8080/ws".to_owned() };
    let welcome = Welcome {
        version: 1,
        user: user("alice"),
        session_epoch: SessionEpoch(17),
        epoch: LogEpoch(3),
        incarnation: Incarnation(2),
        applied: CommandSeq(41),
        applied_nonce: NONCE,
        head: MailboxSeq(100_000),
        begin,
        window: 64,
        max_text: 61_440,
        time: TIME,
        endpoints: Vec::new(),
        extensions: Vec::new(),
    };
    let fresh = Welcome {
        incarnation: Incarnation(1),
        applied: CommandSeq(0),
        applied_nonce: Nonce::default(),
        begin: Begin { cursor: MailboxSeq(0), time: Time(0), snapshot: true, reset: None },
        head: MailboxSeq(0),
        endpoints: vec![web_transport(vec![[0xa5; 32]]), web_socket],
        ..welcome.clone()
    };
    let most = Welcome {
        version: u8::MAX,
        session_epoch: SessionEpoch(MOST),
        epoch: LogEpoch(MOST),
        incarnation: Incarnation(MOST),
        applied: CommandSeq(MOST),
        applied_nonce: Nonce([255; 8]),
        head: MailboxSeq(MOST),
        begin: Begin { cursor: MailboxSeq(MOST), time: Time(MOST), ..begin },
        window: u32::MAX,
        max_text: u32::MAX,
        time: Time(MOST),
        endpoints: vec![web_transport(Vec::new())],
        extensions: vec![extension(9, b"x")],
        ..welcome.clone()
    };
    let reset = |reason| Welcome { begin: Begin { reset: Some(reason), snapshot: true, ..begin }, ..welcome.clone() };
    list.server("welcome: as it was", ServerFrame::Welcome(welcome.clone()));
    list.server("welcome: a new device, with other ways to connect", ServerFrame::Welcome(fresh));
    list.server("welcome: reset, trimmed", ServerFrame::Welcome(reset(ResetReason::Trimmed)));
    list.server("welcome: reset, another log", ServerFrame::Welcome(reset(ResetReason::OtherLog)));
    list.server("welcome: extremes", ServerFrame::Welcome(most));
}

fn control(list: &mut List) {
    // Numbers at the steps of a varint.
    for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 32, 1 << 53, MOST] {
        list.client(&format!("ack {number}"), ClientFrame::Ack(Ack { seq: MailboxSeq(number) }));
    }
    for id in [0, 300, u32::MAX] {
        list.client(&format!("ping {id}"), ClientFrame::Ping(Ping { id }));
        list.client(&format!("pong {id}"), ClientFrame::Pong(Ping { id }));
        list.server(&format!("server's ping {id}"), ServerFrame::Ping(Ping { id }));
        list.server(&format!("server's pong {id}"), ServerFrame::Pong(Ping { id }));
    }
    for cseq in [42, MOST] {
        list.server(&format!("applied {cseq}"), ServerFrame::Applied(Applied { cseq: CommandSeq(cseq) }));
        list.server(&format!("busy {cseq}"), ServerFrame::Busy(Busy { cseq: CommandSeq(cseq), retry_after_ms: 250 }));
    }
    let message = "the server restarts".to_owned();
    list.server("go away", ServerFrame::GoAway(GoAway { retry_after_ms: 1500, message }));
    list.server("go away: extremes", ServerFrame::GoAway(GoAway { retry_after_ms: u32::MAX, message: NASTY.to_owned() }));
}

fn errors(list: &mut List) {
    for &code in ErrorCode::ALL {
        let error = Error { code, message: format!("this is {code}"), retry_after_ms: 0 };
        list.server(&format!("error: {code}"), ServerFrame::Error(error));
    }
    for code in [0, 250, u16::MAX] {
        let error = Error { code: ErrorCode::Other(code), message: String::new(), retry_after_ms: u32::MAX };
        list.server(&format!("error: a code of a later version, {code}"), ServerFrame::Error(error));
    }
}

fn commands(list: &mut List) {
    let mut add = |name: &str, number, body| {
        let command = Command { incarnation: Incarnation(number), cseq: CommandSeq(number), nonce: NONCE, body };
        list.client(name, ClientFrame::Command(command));
    };
    let to_user = |content| Send { to: Target::User(user("bob")), content };
    let to_conversation = |number, content| Send { to: Target::Conversation(ConversationId(number)), content };
    add("send: to a user", 1, to_user(text("Hello")).into());
    add("send: to a conversation", 2, to_conversation(10_000, text("Hello")).into());
    add("send: nothing", 3, to_user(text("")).into());
    add("send: text that is hard to carry", MOST, to_conversation(MOST, text(NASTY)).into());
    let extended = Content { extensions: vec![Extension { key: Content::SOCKET_IO, value: br#"{"id":"m-1"}"#.to_vec() }], ..text("hello") };
    add("send: with an extension", 6, to_user(extended).into());
    add(
        "send: content of a later version",
        5,
        to_user(Content { kind: ContentKind::Other(700), text: "[picture]".to_owned(), extensions: Vec::new() }).into(),
    );
    add("mark read", 6, MarkRead { conversation: ConversationId(10_000), seq: ConversationSeq(1000) }.into());
    add("mark read: extremes", MOST, MarkRead { conversation: ConversationId(MOST), seq: ConversationSeq(MOST) }.into());
}

fn events(list: &mut List) {
    let mut add = |name: &str, seq, time, body| {
        list.server(name, ServerFrame::Event(Event { seq: MailboxSeq(seq), time: Time(time), body }));
    };
    let (conversation, seq, most) = (ConversationId(10_000), ConversationSeq(1000), ConversationSeq(MOST));
    let message = |from, content| Message { conversation, seq, from, content };
    add("skip: one", 100_000, TIME.0, Skip { through: MailboxSeq(100_000) }.into());
    add("skip: many", 100_000, TIME.0, Skip { through: MailboxSeq(100_255) }.into());
    for kind in [ConversationKind::Direct, ConversationKind::Other(9)] {
        let members = vec![user("alice"), user("bob")];
        add(&format!("started: kind {kind}"), 1, TIME.0, Started { conversation, kind, members }.into());
    }
    let notes = Started { conversation: ConversationId(MOST), kind: ConversationKind::Direct, members: vec![user("alice")] };
    add("started: notes to oneself", MOST, MOST, notes.into());
    let short = "Running late, train stopped outside Basel again. Ok?";
    add("message: from the other member", 100_000, TIME.0, message(None, text(short)).into());
    add("message: from somebody named", 100_001, TIME.0, message(Some(user("bob")), text(short)).into());
    add("message: text that is hard to carry", 1, 0, message(Some(user("订é")), text(NASTY)).into());
    let later = Content { kind: ContentKind::Other(u16::MAX), text: "[something new]".to_owned(), extensions: Vec::new() };
    add("message: content of a later version", 2, 1, message(None, later).into());
    let sent = Sent { incarnation: Incarnation(2), cseq: CommandSeq(42), conversation, seq };
    add("sent", 100_002, TIME.0, sent.into());
    add("sent: extremes", MOST, MOST, Sent { incarnation: Incarnation(MOST), cseq: CommandSeq(MOST), conversation, seq: most }.into());
    let rejected = |code| Rejected { incarnation: Incarnation(2), cseq: CommandSeq(43), code, message: "no such conversation".to_owned() };
    add("rejected", 100_003, TIME.0, rejected(ErrorCode::NotFound).into());
    add("rejected: for a reason of a later version", 100_003, TIME.0, rejected(ErrorCode::Other(399)).into());
    add(
        "receipt: of the other member",
        100_004,
        TIME.0,
        Receipt { conversation, user: None, delivered: seq, read: ConversationSeq(0) }.into(),
    );
    add(
        "receipt: of the user, on another device",
        100_005,
        TIME.0,
        Receipt { conversation, user: Some(user("alice")), delivered: most, read: most }.into(),
    );
}

fn queries(list: &mut List) {
    let mut ask = |name: &str, id, body| list.client(name, ClientFrame::Query(Query { id: QueryId(id), body }));
    let history = |of, from, direction, limit| History { of, from: ConversationSeq(from), direction, limit };
    let conversation = ConversationId(10_000);
    ask("history: the latest", 1, history(Target::User(user("bob")), 0, Direction::Backwards, 50).into());
    ask("history: from the beginning", 2, history(Target::Conversation(conversation), 0, Direction::Forwards, 500).into());
    ask("history: extremes", MOST, history(Target::Conversation(ConversationId(MOST)), MOST, Direction::Backwards, u32::MAX).into());
    ask("online: from the beginning", 3, Online { after: String::new(), limit: 100 }.into());
    ask("online: after a name", 4, Online { after: "订é".to_owned(), limit: 1 }.into());

    let mut answer = |name: &str, id, last, body| list.server(name, ServerFrame::Answer(Answer { id: QueryId(id), last, body }));
    answer(
        "answer: history, a part",
        1,
        false,
        HistoryPage { conversation, messages: vec![stored(1, "Hello"), stored(2, NASTY)], more: false }.into(),
    );
    answer("answer: history, the end", 1, true, HistoryPage { conversation, messages: Vec::new(), more: true }.into());
    answer("answer: online", 3, true, OnlinePage { users: vec![user("alice"), user("bob")], more: true }.into());
    answer("answer: nobody online", 4, true, OnlinePage { users: Vec::new(), more: false }.into());
    answer("answer: refused", 5, true, Refused { code: ErrorCode::Unsupported, message: "no such query".to_owned() }.into());
}

fn stored(seq: u64, content: &str) -> StoredMessage {
    StoredMessage { seq: ConversationSeq(seq), time: TIME, from: user("bob"), content: text(content) }
}

fn snapshots(list: &mut List) {
    let member =
        |name, delivered, read| MemberState { user: user(name), delivered: ConversationSeq(delivered), read: ConversationSeq(read) };
    let full = ConversationState {
        conversation: ConversationId(10_000),
        kind: ConversationKind::Direct,
        members: vec![member("alice", 1000, 998), member("bob", MOST, 0)],
        head: ConversationSeq(1000),
        messages: vec![stored(999, "Hello"), stored(1000, NASTY)],
    };
    let bare = ConversationState {
        conversation: ConversationId(MOST),
        kind: ConversationKind::Other(77),
        members: Vec::new(),
        head: ConversationSeq(0),
        messages: Vec::new(),
    };
    list.server("snapshot: a page", ServerFrame::Snapshot(Snapshot { conversations: vec![full, bare], last: false }));
    list.server("snapshot: nothing", ServerFrame::Snapshot(Snapshot { conversations: Vec::new(), last: true }));
}

fn signals(list: &mut List) {
    let conversation = ConversationId(10_000);
    let mut client = |name: &str, signal| list.client(name, ClientFrame::Signal(signal));
    client("typing: to a user", Signal::Typing(Typing { to: Target::User(user("bob")), active: true }));
    client("typing: in a conversation, no more", Signal::Typing(Typing { to: Target::Conversation(conversation), active: false }));
    client("watch: some", Signal::Watch(Watch { users: vec![user("bob"), user("订é")], everyone: false, lobby: false }));
    client("watch: everyone", Signal::Watch(Watch { users: Vec::new(), everyone: true, lobby: false }));
    client("watch: the lobby", Signal::Watch(Watch { users: Vec::new(), everyone: false, lobby: true }));
    client("state: suspended", Signal::State(ClientState { background: true, ask_after_s: 0 }));
    client("state: ask after 4 minutes", Signal::State(ClientState { background: false, ask_after_s: 240 }));
    let presence = |name, state| Presence { user: user(name), state };
    let all =
        vec![presence("bob", PresenceState::Online), presence("carol", PresenceState::Offline), presence("dan", PresenceState::Other(3))];
    let mut server = |name: &str, signal| list.server(name, ServerFrame::Signal(signal));
    server("somebody types", ServerSignal::Typing(TypingFrom { conversation, user: user("bob"), active: true }));
    server("presence", ServerSignal::Presence(all));
    server("presence: of nobody", ServerSignal::Presence(Vec::new()));
    server("a line in the lobby", ServerSignal::Lobby(LobbyLine { text: "is anybody here? 🐦".into() }));
}
