//! How a record changes what is derived from the log. Said once, here: a transaction, a commit, the replay of a tail at start and
//! `store check` all go through these functions, so they cannot come to differ.

use super::{Conversation, DEVICES_MAX, Device, DeviceKey, Member, NONCES_MAX, Pos, RecentCommand, Record, RecordBody, UserNo};
use std::collections::VecDeque;
use std::sync::Arc;
use whimbrel_protocol::frame::ConversationKind;
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, MailboxSeq, Time};

/// The device that a record changes, if it changes one.
pub(super) fn device_of(body: &RecordBody) -> Option<DeviceKey> {
    match body {
        RecordBody::Outbox { device, .. } => Some(*device),
        other => other.origin().map(|origin| origin.device),
    }
}

/// The conversation that a record changes, if it changes one.
pub(super) fn conversation_of(body: &RecordBody) -> Option<ConversationId> {
    match body {
        RecordBody::Started { conversation, .. } | RecordBody::Message { conversation, .. } | RecordBody::Receipt { conversation, .. } => {
            Some(*conversation)
        }
        RecordBody::Outbox { .. } | RecordBody::Rejected { .. } | RecordBody::Repeat { .. } => None,
    }
}

/// The number of a record in its conversation, if it is numbered there.
pub(super) fn numbered(body: &RecordBody) -> Option<(ConversationId, ConversationSeq)> {
    match body {
        RecordBody::Message { conversation, seq, .. } => Some((*conversation, *seq)),
        _ => None,
    }
}

/// The pair under which a direct conversation is found again; `None` for other conversations.
pub(super) fn direct_pair(kind: ConversationKind, members: &[UserNo]) -> Option<(UserNo, UserNo)> {
    match (kind, members) {
        (ConversationKind::Direct, [one]) => Some((*one, *one)),
        (ConversationKind::Direct, [one, other]) => Some(pair(*one, *other)),
        _ => None,
    }
}

/// Two users in the order in which they are kept.
pub(super) fn pair(one: UserNo, other: UserNo) -> (UserNo, UserNo) {
    (one.min(other), one.max(other))
}

/// Says how the record contradicts the device that it changes (as it was before), if it does.
pub(super) fn check_device(device: Option<&Device>, body: &RecordBody) -> Result<(), String> {
    let named = |key: DeviceKey| format!("device {} of user {}", key.slot, key.user.0);
    if let RecordBody::Outbox { device: key, incarnation, .. } = body {
        if usize::from(key.slot) >= DEVICES_MAX {
            return Err(format!("{}: there are {DEVICES_MAX} slots", named(*key)));
        }
        return match device {
            Some(device) if *incarnation <= device.incarnation => {
                Err(format!("{}: outbox {incarnation} after outbox {}", named(*key), device.incarnation))
            }
            _ => Ok(()),
        };
    }
    let Some(origin) = body.origin() else { return Ok(()) };
    match device {
        None => Err(format!("a command of {}, which there is not", named(origin.device))),
        Some(device) if origin.incarnation != device.incarnation => {
            Err(format!("{}: a command of outbox {}, while its outbox is {}", named(device.key), origin.incarnation, device.incarnation))
        }
        Some(device) if origin.cseq != device.applied.next() => {
            Err(format!("{}: command {} after {}", named(device.key), origin.cseq, device.applied))
        }
        Some(_) => Ok(()),
    }
}

/// Says how the record contradicts the conversation that it changes (as it was before), if it does.
pub(super) fn check_conversation(conversation: Option<&Conversation>, body: &RecordBody) -> Result<(), String> {
    let (id, user) = match body {
        RecordBody::Started { conversation: id, members, kind } => {
            let mut sorted = members.clone();
            sorted.sort_unstable();
            sorted.dedup();
            return if conversation.is_some() {
                Err(format!("conversation {id} begins a second time"))
            } else if sorted.len() != members.len() {
                Err(format!("conversation {id} names a member twice"))
            } else if *kind == ConversationKind::Direct && direct_pair(*kind, members).is_none() {
                Err(format!("direct conversation {id} has {} members", members.len()))
            } else {
                Ok(())
            };
        }
        RecordBody::Message { conversation: id, origin, .. } => (id, origin.device.user),
        RecordBody::Receipt { conversation: id, user, .. } => (id, *user),
        RecordBody::Outbox { .. } | RecordBody::Rejected { .. } | RecordBody::Repeat { .. } => return Ok(()),
    };
    let Some(conversation) = conversation else { return Err(format!("there is no conversation {id}")) };
    if conversation.member(user).is_none() {
        return Err(format!("user {} is not a member of conversation {id}", user.0));
    }
    match body {
        RecordBody::Message { seq, .. } if *seq != conversation.head.next() => {
            Err(format!("number {seq} in conversation {id} after {}", conversation.head))
        }
        _ => Ok(()),
    }
}

/// Brings the device that the record changes up to date. The record was [checked](check_device).
pub(super) fn apply_device(device: &mut Option<Arc<Device>>, pos: Pos, body: &RecordBody) {
    if let RecordBody::Outbox { device: key, name, incarnation } = body {
        match device {
            Some(device) => {
                let device = Arc::make_mut(device);
                if device.name != *name {
                    device.since = pos;
                    device.former.append(&mut device.recent);
                    device.former.drain(..device.former.len().saturating_sub(NONCES_MAX));
                    device.name = name.clone();
                }
                device.incarnation = *incarnation;
                device.applied = CommandSeq(0);
            }
            None => {
                *device = Some(Arc::new(Device {
                    key: *key,
                    name: name.clone(),
                    incarnation: *incarnation,
                    applied: CommandSeq(0),
                    recent: VecDeque::new(),
                    since: pos,
                    former: VecDeque::new(),
                    cursor: MailboxSeq(0),
                }));
            }
        }
    } else if let (Some(origin), Some(device)) = (body.origin(), device) {
        let device = Arc::make_mut(device);
        device.applied = origin.cseq;
        if device.recent.len() == NONCES_MAX {
            device.recent.pop_front();
        }
        device.recent.push_back(RecentCommand { nonce: origin.nonce, pos });
    }
}

/// Brings the conversation that the record changes up to date. The record was [checked](check_conversation).
pub(super) fn apply_conversation(conversation: &mut Option<Arc<Conversation>>, time: Time, body: &RecordBody) {
    match body {
        RecordBody::Started { conversation: id, kind, members } => {
            let zero = ConversationSeq(0);
            let members = members.iter().map(|user| Member { user: *user, sent: zero, delivered: zero, read: zero }).collect();
            *conversation = Some(Arc::new(Conversation { id: *id, kind: *kind, members, head: zero, time }));
        }
        RecordBody::Message { seq, origin, .. } => {
            if let Some(conversation) = conversation {
                let conversation = Arc::make_mut(conversation);
                conversation.head = *seq;
                conversation.time = conversation.time.max(time);
                if let Some(member) = member_mut(conversation, origin.device.user) {
                    member.sent = *seq;
                }
            }
        }
        RecordBody::Receipt { user, delivered, read, .. } => {
            if let Some(conversation) = conversation
                && let Some(member) = member_mut(Arc::make_mut(conversation), *user)
            {
                member.delivered = member.delivered.max(*delivered);
                member.read = member.read.max(*read);
            }
        }
        RecordBody::Outbox { .. } | RecordBody::Rejected { .. } | RecordBody::Repeat { .. } => {}
    }
}

fn member_mut(conversation: &mut Conversation, user: UserNo) -> Option<&mut Member> {
    conversation.members.iter_mut().find(|member| member.user == user)
}

/// How much an answer may still take up.
pub(super) struct Budget {
    entries: usize,
    bytes: usize,
    first: bool,
}

impl Budget {
    /// At most `entries` of at most `bytes` of content, but always one.
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        Self { entries, bytes, first: true }
    }

    /// Whether `record` still goes in; counts it if so. Once one does not, stop.
    pub(super) fn take(&mut self, record: &Record) -> bool {
        let size = record.content_bytes();
        if self.entries == 0 || (!self.first && size > self.bytes) {
            self.entries = 0;
            return false;
        }
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(size);
        self.first = false;
        true
    }
}
