//! A server as it should be, in memory: the least that keeps the promises, so that what a device sees can be compared with it.

use crate::fault::Fault;
use crate::store::{CONVERSATION, DeviceNo, Store, user_id, user_of};
use std::collections::BTreeMap;
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

const WINDOW: u32 = 4;
const RETRY_AFTER_MS: u64 = 20;

struct Session {
    device: DeviceNo,
    number: SessionEpoch,
    incarnation: Incarnation,
    /// Highest command taken in.
    accepted: u64,
    /// Highest command that the client was told is applied.
    told: CommandSeq,
    /// Highest command that came over the stream, since the last `Busy`.
    streamed: u64,
    /// Commands are ignored until this one comes again, which it must not do before this time.
    busy: Option<(u64, Time)>,
    /// Highest event pushed.
    pushed: u64,
}

/// How a commit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    Good,
    /// The connection to the store broke under it, and it had been carried out.
    UnknownKept,
    /// The same, and it had not.
    UnknownLost,
    CrashBefore,
    CrashAfter,
}

/// What came of something: frames to links, links to close, and contradictions with what devices may do.
#[derive(Default)]
pub struct Out {
    pub frames: Vec<(usize, ServerFrame)>,
    pub closed: Vec<usize>,
    pub violations: Vec<String>,
}

#[derive(Default)]
pub struct Server {
    pub store: Store,
    sessions: BTreeMap<usize, Session>,
    queue: Vec<(DeviceNo, SessionEpoch, Command)>,
    pub overloaded: bool,
    pub fault: Option<Fault>,
}

impl Server {
    pub fn idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Everything that is not durable is gone.
    pub fn crash(&mut self, out: &mut Out) {
        self.queue.clear();
        out.closed.extend(std::mem::take(&mut self.sessions).into_keys());
    }

    /// A frame over the stream of a link, or a copy of one that came as a datagram.
    pub fn on_frame(&mut self, link: usize, frame: ClientFrame, copy: bool, now: Time, out: &mut Out) {
        match frame {
            ClientFrame::Hello(hello) => self.on_hello(link, &hello, now, out),
            ClientFrame::Command(command) => self.on_command(link, command, copy, now, out),
            ClientFrame::Ack(ack) => {
                if self.sessions.get(&link).is_some_and(|session| ack.seq.0 > session.pushed) {
                    out.violations.push(format!("{ack:?} covers what was never sent"));
                }
            }
            other => out.violations.push(format!("{other:?} is not expected")),
        }
    }

    fn on_hello(&mut self, link: usize, hello: &Hello, now: Time, out: &mut Out) {
        let device: DeviceNo = hello.device.as_str().parse().unwrap();
        let user = user_of(device);
        let row = &mut self.store.devices[device];
        row.session = row.session.next();
        if hello.incarnation == Incarnation(0) || hello.incarnation != row.incarnation {
            // Above all that were ever given, also by a later life of this store that is forgotten now: time sees to that.
            row.incarnation = Incarnation(row.incarnation.max(hello.incarnation).0.max(now.0) + 1);
            row.applied = CommandSeq(0);
            if self.fault == Some(Fault::ForgetsNonces) {
                row.recent.clear();
            }
        }
        let row = &self.store.devices[device];
        let begin = self.begin(hello, user);
        let welcome = Welcome {
            version: 1,
            user: user_id(user),
            session_epoch: row.session,
            epoch: self.store.epoch,
            incarnation: row.incarnation,
            applied: row.applied,
            applied_nonce: row.recent.back().filter(|_| row.applied.0 > 0).map(|recent| recent.0).unwrap_or_default(),
            head: MailboxSeq(self.store.mailboxes[user].head()),
            begin,
            window: WINDOW,
            max_text: 100,
            time: now,
            endpoints: Vec::new(),
            extensions: Vec::new(),
        };
        let session = Session {
            device,
            number: row.session,
            incarnation: row.incarnation,
            accepted: row.applied.0,
            told: row.applied,
            streamed: row.applied.0,
            busy: None,
            pushed: begin.cursor.0,
        };
        let older = self.sessions.iter().filter(|(_, session)| session.device == device).map(|(link, _)| *link);
        for older in older.collect::<Vec<_>>() {
            self.sessions.remove(&older);
            let error = Error { code: ErrorCode::Replaced, message: String::new(), retry_after_ms: 0 };
            out.frames.push((older, ServerFrame::Error(error)));
            out.closed.push(older);
        }
        self.sessions.insert(link, session);
        out.frames.push((link, ServerFrame::Welcome(welcome)));
        if begin.snapshot {
            self.snapshot(link, user, begin.cursor.0, out);
        }
    }

    fn begin(&self, hello: &Hello, user: usize) -> Begin {
        let mailbox = &self.store.mailboxes[user];
        let reset = hello.position.and_then(|Position { epoch, cursor, time }| {
            let other_time = time != Time(0) && mailbox.time_at(cursor.0) != time && self.fault != Some(Fault::ForgetsTime);
            let other_epoch = epoch != self.store.epoch;
            if other_epoch || cursor.0 > mailbox.head() || other_time {
                Some(ResetReason::OtherLog)
            } else if cursor.0 < mailbox.floor {
                Some(ResetReason::Trimmed)
            } else {
                None
            }
        });
        let (cursor, snapshot) = match (hello.position, reset, hello.origin) {
            (Some(position), None, _) => (position.cursor.0, false),
            (_, _, frame::Origin::Snapshot) => (mailbox.head(), true),
            (_, _, frame::Origin::Oldest) => (mailbox.floor, mailbox.floor > 0),
            (_, _, frame::Origin::Now) => (mailbox.head(), false),
        };
        let time = if self.fault == Some(Fault::BeginsWithoutTime) { Time(0) } else { mailbox.time_at(cursor) };
        Begin { cursor: MailboxSeq(cursor), time, snapshot, reset }
    }

    fn snapshot(&self, link: usize, user: usize, cursor: u64, out: &mut Out) {
        let stored =
            |(seq, text)| StoredMessage { seq: ConversationSeq(seq), time: Time(0), from: user_id(0), content: Content::text(text) };
        let conversation = ConversationState {
            conversation: CONVERSATION,
            kind: ConversationKind::Direct,
            members: Vec::new(),
            head: self.store.head,
            messages: self.store.mailboxes[user].messages(cursor).into_iter().map(stored).collect(),
        };
        out.frames.push((link, ServerFrame::Snapshot(Snapshot { conversations: vec![conversation], last: false })));
        out.frames.push((link, ServerFrame::Snapshot(Snapshot { conversations: Vec::new(), last: true })));
    }

    fn on_command(&mut self, link: usize, command: Command, copy: bool, now: Time, out: &mut Out) {
        let Some(session) = self.sessions.get_mut(&link).filter(|session| session.incarnation == command.incarnation) else { return };
        let (cseq, next) = (command.cseq.0, session.accepted + 1);
        if copy && (session.busy.is_some() || cseq != next) {
            return;
        }
        if !copy {
            let again = session.busy.filter(|busy| busy.0 == cseq);
            if again.is_none() && cseq <= session.streamed || again.is_some_and(|busy| now < busy.1) {
                out.violations.push(format!("command {cseq} came again without need, or too soon"));
            }
            session.streamed = cseq;
            if again.is_some() {
                session.busy = None;
            }
        }
        if session.busy.is_some() || cseq < next {
            return;
        }
        if cseq > next || cseq > self.store.devices[session.device].applied.0 + u64::from(WINDOW) {
            out.violations.push(format!("command {cseq} where {next} is next, within the window"));
            return;
        }
        if self.overloaded && !copy {
            session.busy = Some((cseq, Time(now.0 + RETRY_AFTER_MS)));
            out.frames.push((link, ServerFrame::Busy(Busy { cseq: command.cseq, retry_after_ms: RETRY_AFTER_MS as u32 })));
            return;
        }
        session.accepted = cseq;
        if self.fault == Some(Fault::AppliesBeforeCommit) {
            out.frames.push((link, ServerFrame::Applied(Applied { cseq: command.cseq })));
        }
        self.queue.push((session.device, session.number, command));
    }

    /// Everything that waits, as one transaction; answers come after it.
    pub fn commit(&mut self, outcome: Commit, now: Time, out: &mut Out) {
        let mut store = self.store.clone();
        for (device, session, command) in &self.queue {
            store.decide(*device, *session, command, now, self.fault, out);
        }
        if !matches!(outcome, Commit::UnknownLost | Commit::CrashBefore) {
            self.store = store;
        }
        match outcome {
            // What waits is decided again, against what the store really holds.
            Commit::UnknownKept | Commit::UnknownLost => return,
            Commit::CrashBefore | Commit::CrashAfter => return self.crash(out),
            Commit::Good => self.queue.clear(),
        }
        for (link, session) in &mut self.sessions {
            let cseq = self.store.devices[session.device].applied;
            if cseq > session.told {
                session.told = cseq;
                out.frames.push((*link, ServerFrame::Applied(Applied { cseq })));
            }
        }
    }

    /// Sends a link what its session has not seen yet, as far as there is room. A session that the trim has overtaken is closed.
    pub fn pump(&mut self, link: usize, room: usize, out: &mut Out) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let mailbox = &self.store.mailboxes[user_of(session.device)];
        for _ in 0..room {
            if session.pushed < mailbox.floor {
                self.sessions.remove(&link);
                out.closed.push(link);
                return;
            }
            let seq = session.pushed + 1;
            let view = |seq: u64| mailbox.entries[seq as usize - 1].view(session.device, session.incarnation);
            if seq > mailbox.head() {
                return;
            }
            let mut through = seq;
            let body = view(seq).unwrap_or_else(|| {
                while through < mailbox.head() && view(through + 1).is_none() {
                    through += 1;
                }
                Skip { through: MailboxSeq(through) }.into()
            });
            session.pushed = through;
            if self.fault == Some(Fault::LosesEvents) && seq % 5 == 0 {
                continue;
            }
            out.frames.push((link, ServerFrame::Event(Event { seq: MailboxSeq(seq), time: mailbox.time_at(through), body })));
        }
    }
}
