//! Who is in which conversation: to put back the names that the wire leaves out.

use std::collections::HashMap;
use whimbrel_protocol::frame::{ConversationKind, Event, EventBody, HistoryPage, Snapshot};
use whimbrel_protocol::{ConversationId, UserId};

pub(super) struct Directory {
    me: UserId,
    /// The other member of each direct conversation; in one's notes to oneself, that is oneself.
    others: HashMap<ConversationId, UserId>,
}

impl Directory {
    pub fn new(me: UserId, known: Vec<(ConversationId, ConversationKind, Vec<UserId>)>) -> Self {
        let mut directory = Self { me, others: HashMap::new() };
        for (id, kind, members) in known {
            directory.add(id, kind, members.iter());
        }
        directory
    }

    fn add<'a>(&mut self, id: ConversationId, kind: ConversationKind, members: impl Iterator<Item = &'a UserId>) {
        if kind != ConversationKind::Direct {
            return;
        }
        let mut other = None;
        for member in members {
            if *member != self.me || other.is_none() {
                other = Some(member);
            }
        }
        if let Some(other) = other {
            self.others.insert(id, other.clone());
        }
    }

    /// The conversation whose members would have to be known to complete this event, if they are not.
    pub fn lacks(&self, event: &Event) -> Option<ConversationId> {
        let conversation = match &event.body {
            EventBody::Message(message) if message.from.is_none() => message.conversation,
            EventBody::Receipt(receipt) if receipt.user.is_none() => receipt.conversation,
            _ => return None,
        };
        (!self.others.contains_key(&conversation)).then_some(conversation)
    }

    /// Learns from messages of a direct conversation. Returns whether they told.
    pub fn learn_from(&mut self, page: &HistoryPage) -> bool {
        let other = page.messages.iter().find(|message| message.from != self.me);
        if let Some(other) = other {
            self.others.insert(page.conversation, other.from.clone());
        }
        other.is_some()
    }

    pub fn clear(&mut self) {
        self.others.clear();
    }

    pub fn learn(&mut self, page: &Snapshot) {
        for state in &page.conversations {
            self.add(state.conversation, state.kind, state.members.iter().map(|member| &member.user));
        }
    }

    /// Learns from an event, and fills in the names that it leaves out.
    pub fn complete(&mut self, event: &mut Event) {
        match &mut event.body {
            EventBody::Started(started) => self.add(started.conversation, started.kind, started.members.iter()),
            EventBody::Message(message) => match &message.from {
                None => message.from = self.others.get(&message.conversation).cloned(),
                // A device that began at the present was not told of this conversation: a name that is given tells.
                Some(from) if *from != self.me => drop(self.others.entry(message.conversation).or_insert_with(|| from.clone())),
                Some(_) => {}
            },
            EventBody::Receipt(receipt) if receipt.user.is_none() => {
                receipt.user = self.others.get(&receipt.conversation).cloned();
            }
            _ => {}
        }
    }
}
