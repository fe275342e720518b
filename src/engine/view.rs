//! What a device sees of a record. The same record is a message to one, an outcome to another, and nothing to a third.

use crate::store::{DeviceKey, Entry, Origin, Record, RecordBody, UserNo};
use std::collections::HashMap;
use whimbrel_protocol::frame::{Event, EventBody, Message, Receipt, Rejected, Sent, Skip, Started};
use whimbrel_protocol::{ConversationId, Incarnation, UserId};

/// Who looks.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// The device.
    pub device: DeviceKey,
    /// Its user, by name.
    pub user: UserId,
    /// Its present outbox: outcomes of earlier ones are shown as if another device had sent.
    pub incarnation: Incarnation,
    /// Whether names are always written out (JSON), or left away where the conversation tells them (postcard).
    pub full_names: bool,
}

/// Where names come from. `None` means that a name is not at hand without waiting.
pub(super) type Names<'a> = dyn FnMut(UserNo) -> Option<UserId> + 'a;

/// Turns mailbox entries into events, with as few events as will do: what a later one supersedes, or what is not for this device, is
/// skipped, and skips in a row are one.
///
/// `None` if a name is not at hand.
pub(super) fn render(viewer: &Viewer, entries: &[Entry], names: &mut Names) -> Option<Vec<Event>> {
    let mut newest: HashMap<(ConversationId, UserNo), usize> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let RecordBody::Receipt { conversation, user, .. } = &entry.record.body {
            newest.insert((*conversation, *user), at);
        }
    }
    let mut events: Vec<Event> = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let superseded = match &entry.record.body {
            RecordBody::Receipt { conversation, user, .. } => newest.get(&(*conversation, *user)) != Some(&at),
            _ => false,
        };
        let body = if superseded { None } else { body(viewer, &entry.record, names)? };
        match (body, events.last_mut()) {
            (Some(body), _) => events.push(Event { seq: entry.seq, time: entry.record.time, body }),
            (None, Some(Event { body: EventBody::Skip(skip), time, .. })) => {
                skip.through = entry.seq;
                *time = entry.record.time;
            }
            (None, _) => {
                let skip = Skip { through: entry.seq };
                events.push(Event { seq: entry.seq, time: entry.record.time, body: skip.into() });
            }
        }
    }
    Some(events)
}

/// `Some(None)`: nothing for this device. `None`: a name is not at hand.
fn body(viewer: &Viewer, record: &Record, names: &mut Names) -> Option<Option<EventBody>> {
    let own = |origin: &Origin| origin.device == viewer.device && origin.incarnation == viewer.incarnation;
    Some(match &record.body {
        RecordBody::Message { conversation, seq, origin, .. } if own(origin) => {
            Some(Sent { incarnation: origin.incarnation, cseq: origin.cseq, conversation: *conversation, seq: *seq }.into())
        }
        RecordBody::Message { conversation, seq, origin, content } => {
            let from = short_name(viewer, origin.device.user, names)?;
            Some(Message { conversation: *conversation, seq: *seq, from, content: content.clone() }.into())
        }
        RecordBody::Repeat { origin, message: Some((conversation, seq)) } if own(origin) => {
            Some(Sent { incarnation: origin.incarnation, cseq: origin.cseq, conversation: *conversation, seq: *seq }.into())
        }
        RecordBody::Rejected { origin, code, message } if own(origin) => {
            Some(Rejected { incarnation: origin.incarnation, cseq: origin.cseq, code: *code, message: message.clone() }.into())
        }
        RecordBody::Started { conversation, kind, members } => {
            let members = members.iter().map(|member| names(*member)).collect::<Option<Vec<_>>>()?;
            Some(Started { conversation: *conversation, kind: *kind, members }.into())
        }
        RecordBody::Receipt { conversation, user, delivered, read, .. } => {
            let user = short_name(viewer, *user, names)?;
            Some(Receipt { conversation: *conversation, user, delivered: *delivered, read: *read }.into())
        }
        RecordBody::Outbox { .. } | RecordBody::Repeat { .. } | RecordBody::Rejected { .. } => None,
    })
}

/// The name as an event has it: left away where the reader's directory gives it, which today is every conversation with two members.
fn short_name(viewer: &Viewer, user: UserNo, names: &mut Names) -> Option<Option<UserId>> {
    if user == viewer.device.user {
        Some(Some(viewer.user.clone()))
    } else if viewer.full_names {
        names(user).map(Some)
    } else {
        Some(None)
    }
}
