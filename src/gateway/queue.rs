//! What a client of Socket.IO is still to be told, in its order.

use super::contract::Payload;
use socketioxide::extract::AckSender;
use std::collections::VecDeque;
use whimbrel_protocol::frame::{Message, Receipt};
use whimbrel_protocol::{ConversationId, ConversationSeq, MailboxSeq, Time};

/// What an entry takes besides what is in it, in bytes.
const ENTRY_BYTES: usize = 64;

/// What waits to be told.
pub(super) enum What {
    Told(&'static str, Payload),
    /// A client is called back.
    Answer(AckSender, Payload),
    Find(Find),
}

/// What is to be found out before it can be told.
#[derive(Debug, Clone)]
pub(super) enum Find {
    /// A message of this user's other device: to whom is to be found out.
    Own(Box<Message>, Time),
    /// A message of this user is in the log; by whose name is to be found out.
    Nameless {
        conversation: ConversationId,
        seq: ConversationSeq,
        time: Time,
    },
    Receipt {
        receipt: Receipt,
        time: Time,
    },
}

pub(super) struct Item {
    /// What of the mailbox is told once this is.
    pub through: Option<MailboxSeq>,
    bytes: usize,
    /// Nothing, if only the mailbox gets on.
    pub what: Option<What>,
}

/// What waits, and what was handed over and has not left.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Bytes of both.
    bytes: usize,
    /// Of what was handed over each event's number.
    leaving: VecDeque<(u64, usize)>,
}

impl Queue {
    /// Bytes that are held for it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, through: Option<MailboxSeq>, bytes: usize, what: Option<What>) {
        let bytes = bytes + ENTRY_BYTES;
        self.bytes += bytes;
        self.items.push_back(Item { through, bytes, what });
    }

    pub fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    /// Hands the first over, as the event of this number, or the one before it.
    pub fn hand_over(&mut self, number: impl FnOnce(Option<What>) -> u64) -> Option<(u64, Option<MailboxSeq>)> {
        let Item { through, bytes, what } = self.items.pop_front()?;
        let number = number(what);
        self.leaving.push_back((number, bytes));
        Some((number, through))
    }

    /// Puts what was found out in the place of what was to be found out.
    pub fn replace_front(&mut self, found: Vec<(&'static str, Payload)>) {
        let Some(Item { mut through, bytes, .. }) = self.items.pop_front() else { return };
        self.bytes -= bytes;
        // What is told last tells that the entry of the mailbox is told.
        let mut put = |what: Option<What>| {
            let item = Item { through: through.take(), bytes: if what.is_some() { bytes } else { ENTRY_BYTES }, what };
            self.bytes += item.bytes;
            self.items.push_front(item);
        };
        if found.is_empty() {
            put(None);
        }
        found.into_iter().rev().for_each(|(name, payload)| put(Some(What::Told(name, payload))));
    }

    /// Events up to this one have left.
    pub fn on_left(&mut self, written: u64) {
        while let Some((_, bytes)) = self.leaving.pop_front_if(|(number, _)| *number <= written) {
            self.bytes -= bytes;
        }
    }

    /// Whether all that was handed over has left.
    pub fn has_left(&self) -> bool {
        self.leaving.is_empty()
    }

    /// The last that was handed over and has not left.
    pub fn last_leaving(&self) -> Option<u64> {
        self.leaving.back().map(|(number, _)| *number)
    }

    /// Takes out all that waits, and forgets what was handed over.
    pub fn take(&mut self) -> VecDeque<Item> {
        std::mem::take(self).items
    }
}
