//! What the model server keeps: one mailbox a user, one row a device; and how a command changes it.

use crate::fault::Fault;
use crate::server::Out;
use std::collections::{BTreeMap, VecDeque};
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

/// Nonces remembered for each device. Scripts are shorter than this.
const NONCES: usize = 256;
pub const CONVERSATION: ConversationId = ConversationId(1);
const USERS: [&str; 2] = ["alice", "bob"];

/// What a command is known by to the checker, whatever else may happen to it.
pub type CommandId = u64;

/// All of a nonce but the first byte, so that a fault can change the nonce.
pub fn command_id(nonce: Nonce) -> CommandId {
    u64::from_be_bytes(nonce.0) & (u64::MAX >> 8)
}

/// Three devices: two of Alice's, one of Bob's.
pub type DeviceNo = usize;
pub const DEVICES: usize = 3;

pub fn user_of(device: DeviceNo) -> usize {
    usize::from(device == 2)
}

pub fn user_id(user: usize) -> UserId {
    UserId::new(USERS[user]).unwrap()
}

/// Which command made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub device: DeviceNo,
    pub incarnation: Incarnation,
    pub cseq: CommandSeq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Sent(ConversationSeq),
    Rejected,
    Read,
}

#[derive(Debug, Clone)]
pub enum What {
    /// A message, and the writer's user.
    Message {
        user: usize,
        seq: ConversationSeq,
        text: String,
    },
    Receipt {
        user: usize,
        read: ConversationSeq,
    },
    /// A command was refused, or one that had got through came again under another number.
    Outcome(Outcome),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub time: Time,
    pub by: Origin,
    pub what: What,
}

impl Entry {
    /// What a device sees in a session with this outbox; nothing stands for a skip.
    pub fn view(&self, device: DeviceNo, incarnation: Incarnation) -> Option<EventBody> {
        let Origin { incarnation: by_incarnation, cseq, .. } = self.by;
        let own = self.by.device == device && by_incarnation == incarnation;
        let sent = |seq| Sent { incarnation, cseq, conversation: CONVERSATION, seq }.into();
        match &self.what {
            What::Message { seq, .. } if own => Some(sent(*seq)),
            What::Message { user, seq, text } => {
                let content = Content::text(text.clone());
                Some(Message { conversation: CONVERSATION, seq: *seq, from: Some(user_id(*user)), content }.into())
            }
            What::Receipt { user, read } => {
                Some(Receipt { conversation: CONVERSATION, user: Some(user_id(*user)), delivered: *read, read: *read }.into())
            }
            What::Outcome(Outcome::Sent(seq)) if own => Some(sent(*seq)),
            What::Outcome(Outcome::Rejected) if own => {
                Some(Rejected { incarnation, cseq, code: ErrorCode::Unsupported, message: String::new() }.into())
            }
            What::Outcome(_) => None,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Mailbox {
    /// Highest entry that is no longer served; the model keeps it all the same, to compare with.
    pub floor: u64,
    pub entries: Vec<Entry>,
}

impl Mailbox {
    pub fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Also known for the last entry that was trimmed: a server keeps that one time.
    pub fn time_at(&self, cursor: u64) -> Time {
        cursor.checked_sub(1).and_then(|at| self.entries.get(at as usize)).map_or(Time(0), |entry| entry.time)
    }

    /// What a snapshot at this cursor holds.
    pub fn messages(&self, cursor: u64) -> Vec<(u64, String)> {
        let messages = self.entries.iter().take(cursor as usize).filter_map(|entry| match &entry.what {
            What::Message { seq, text, .. } => Some((seq.0, text.clone())),
            _ => None,
        });
        messages.collect()
    }
}

#[derive(Debug, Clone, Default)]
pub struct DeviceRow {
    pub incarnation: Incarnation,
    pub applied: CommandSeq,
    pub session: SessionEpoch,
    pub recent: VecDeque<(Nonce, Incarnation, CommandSeq, Outcome)>,
}

/// What is durable.
#[derive(Debug, Clone, Default)]
pub struct Store {
    pub epoch: LogEpoch,
    pub mailboxes: [Mailbox; 2],
    pub devices: [DeviceRow; DEVICES],
    pub head: ConversationSeq,
    /// How often each command took effect: this is what must be one.
    pub effects: BTreeMap<CommandId, u32>,
}

impl Store {
    pub fn decide(&mut self, device: DeviceNo, session: SessionEpoch, command: &Command, time: Time, fault: Option<Fault>, out: &mut Out) {
        let row = &mut self.devices[device];
        let fenced = row.session != session && fault != Some(Fault::DoesNotFence);
        if fenced || command.incarnation != row.incarnation {
            return;
        }
        let repeat = command.cseq <= row.applied;
        if repeat && fault != Some(Fault::CountsRepeats) {
            let known = row.recent.iter().find(|(_, incarnation, cseq, _)| (*incarnation, *cseq) == (command.incarnation, command.cseq));
            if known.is_some_and(|known| known.0 != command.nonce) && fault.is_none() {
                out.violations.push(format!("{command:?} is another one than the server knows"));
            }
            return;
        }
        if command.cseq > row.applied.next() {
            return;
        }
        row.applied = row.applied.max(command.cseq);
        let by = Origin { device, incarnation: command.incarnation, cseq: command.cseq };
        let known = row.recent.iter().find(|recent| recent.0 == command.nonce && !repeat).map(|recent| recent.3);
        let outcome = match known {
            Some(outcome) => {
                self.enter(&[user_of(device)], Entry { time, by, what: What::Outcome(outcome) });
                outcome
            }
            None => self.carry_out(by, command, time),
        };
        let row = &mut self.devices[device];
        row.recent.push_back((command.nonce, command.incarnation, command.cseq, outcome));
        row.recent.drain(..row.recent.len().saturating_sub(NONCES));
    }

    fn carry_out(&mut self, by: Origin, command: &Command, time: Time) -> Outcome {
        *self.effects.entry(command_id(command.nonce)).or_default() += 1;
        let user = user_of(by.device);
        match &command.body {
            CommandBody::Send(send) => {
                self.head = self.head.next();
                let what = What::Message { user, seq: self.head, text: send.content.text.clone() };
                self.enter(&[0, 1], Entry { time, by, what });
                Outcome::Sent(self.head)
            }
            CommandBody::MarkRead(mark) => {
                self.enter(&[1 - user], Entry { time, by, what: What::Receipt { user, read: mark.seq } });
                Outcome::Read
            }
            CommandBody::Unknown(_) => {
                self.enter(&[user], Entry { time, by, what: What::Outcome(Outcome::Rejected) });
                Outcome::Rejected
            }
        }
    }

    fn enter(&mut self, users: &[usize], entry: Entry) {
        for &user in users {
            self.mailboxes[user].entries.push(entry.clone());
        }
    }
}
