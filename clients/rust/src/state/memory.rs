//! The store for clients whose state may go with the process.

use super::{CommandNumber, Loaded, LocalConversation, LocalMessage, MESSAGES_KEPT, OutboxRow, StateError, Store, Told, Waiting, graver};
use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;
use whimbrel_protocol::frame::{
    Command, CommandBody, Content, ConversationKind, Event, EventBody, MemberState, Position, ResetReason, Snapshot,
};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, Disagreement, Nonce, OutboxState, Time, UserId};

/// A device's state in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore {
    outbox: OutboxState,
    rows: BTreeMap<CommandNumber, OutboxRow>,
    position: Option<Position>,
    reset: Option<ResetReason>,
    untold: Vec<OutboxRow>,
    disagreements: Vec<Disagreement>,
    conversations: BTreeMap<ConversationId, Conversation>,
    staged: Vec<Snapshot>,
    notes: HashMap<String, String>,
}

#[derive(Debug, Clone)]
struct Conversation {
    kind: ConversationKind,
    members: BTreeMap<UserId, MemberState>,
    head: ConversationSeq,
    messages: BTreeMap<ConversationSeq, LocalMessage>,
}

impl MemoryStore {
    fn conversation(&mut self, id: ConversationId, kind: ConversationKind) -> &mut Conversation {
        let empty = || Conversation { kind, members: BTreeMap::new(), head: ConversationSeq(0), messages: BTreeMap::new() };
        self.conversations.entry(id).or_insert_with(empty)
    }

    fn forget_rows(&mut self, nonces: &[Nonce]) {
        self.rows.retain(|_, row| !nonces.contains(&row.command.nonce));
    }

    fn set_untold(&mut self, nonces: &[Nonce]) {
        let untold = self.rows.extract_if(.., |_, row| nonces.contains(&row.command.nonce));
        self.untold.extend(untold.map(|(_, row)| row));
    }

    fn take_one(&mut self, me: &UserId, event: &Event) {
        match &event.body {
            EventBody::Started(started) => {
                let conversation = self.conversation(started.conversation, started.kind);
                for user in &started.members {
                    conversation.raise(&MemberState { user: user.clone(), delivered: ConversationSeq(0), read: ConversationSeq(0) });
                }
            }
            EventBody::Message(message) => {
                let conversation = self.conversation(message.conversation, ConversationKind::Direct);
                conversation.add(message.conversation, message.seq, message.from.as_ref(), event.time, &message.content);
            }
            EventBody::Sent(sent) => {
                let row = self.rows.remove(&(sent.incarnation, sent.cseq));
                let conversation = self.conversation(sent.conversation, ConversationKind::Direct);
                if let Some(CommandBody::Send(send)) = row.map(|row| row.command.body) {
                    conversation.add(sent.conversation, sent.seq, Some(me), event.time, &send.content);
                }
            }
            EventBody::Rejected(rejected) => drop(self.rows.remove(&(rejected.incarnation, rejected.cseq))),
            EventBody::Receipt(receipt) => {
                if let Some(user) = receipt.user.clone() {
                    let state = MemberState { user, delivered: receipt.delivered, read: receipt.read };
                    if let Some(conversation) = self.conversations.get_mut(&receipt.conversation) {
                        conversation.raise(&state);
                    }
                }
            }
            EventBody::Skip(_) | EventBody::Unknown(_) => {}
        }
    }
}

impl Conversation {
    fn raise(&mut self, state: &MemberState) {
        let member = self.members.entry(state.user.clone()).or_insert_with(|| state.clone());
        member.delivered = member.delivered.max(state.delivered);
        member.read = member.read.max(state.read);
    }

    fn add(&mut self, conversation: ConversationId, seq: ConversationSeq, from: Option<&UserId>, time: Time, content: &Content) {
        let message = LocalMessage { conversation, seq, from: from.cloned(), time, content: content.clone() };
        self.messages.entry(seq).or_insert(message);
        self.head = self.head.max(seq);
        while self.messages.len() > MESSAGES_KEPT {
            self.messages.pop_first();
        }
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Loaded, StateError> {
        self.staged.clear();
        let mut pending: Vec<_> = self.rows.values().filter(|row| !row.applied).map(|row| row.command.clone()).collect();
        pending.sort_by_key(|command| command.cseq);
        let awaiting = self.rows.values().filter(|row| row.applied).cloned().collect();
        let directory =
            |(id, conversation): (&ConversationId, &Conversation)| (*id, conversation.kind, conversation.members.keys().cloned().collect());
        let directory = self.conversations.iter().map(directory).collect();
        let untold = self.untold.iter().map(|row| row.command.clone()).collect();
        let disagreements = self.disagreements.clone();
        Ok(Loaded { outbox: self.outbox, pending, awaiting, position: self.position, reset: self.reset, untold, disagreements, directory })
    }

    fn enqueue(&mut self, commands: &[Command]) -> Result<(), StateError> {
        for command in commands {
            let row = OutboxRow { command: command.clone(), applied: false };
            self.rows.insert((command.incarnation, command.cseq), row);
        }
        Ok(())
    }

    fn applied(&mut self, state: OutboxState) -> Result<(), StateError> {
        self.outbox = state;
        let mut forget = Vec::new();
        for row in self.rows.range_mut((state.incarnation, CommandSeq(0))..=(state.incarnation, state.applied)).map(|(_, row)| row) {
            row.applied = true;
            if !matches!(row.command.body, CommandBody::Send(_)) {
                forget.push(row.command.nonce);
            }
        }
        self.forget_rows(&forget);
        Ok(())
    }

    fn renumber(&mut self, state: OutboxState, numbers: &[(Nonce, CommandSeq)]) -> Result<(), StateError> {
        self.outbox = state;
        let numbers: HashMap<Nonce, CommandSeq> = numbers.iter().copied().collect();
        self.rows = std::mem::take(&mut self.rows)
            .into_values()
            .map(|mut row| {
                if let Some(cseq) = numbers.get(&row.command.nonce) {
                    row.command.incarnation = state.incarnation;
                    row.command.cseq = *cseq;
                    row.applied = false;
                }
                ((row.command.incarnation, row.command.cseq), row)
            })
            .collect();
        Ok(())
    }

    fn disagree(&mut self, state: OutboxState, again: &[Nonce], untold: &[Nonce], why: Disagreement) -> Result<(), StateError> {
        self.outbox = state;
        self.set_untold(untold);
        self.disagreements.retain(|before| discriminant(before) != discriminant(&why));
        self.disagreements.push(why);
        for row in self.rows.values_mut().filter(|row| again.contains(&row.command.nonce)) {
            row.applied = false;
        }
        Ok(())
    }

    fn take(&mut self, me: &UserId, events: &[Event], position: Position, outbox: OutboxState) -> Result<(), StateError> {
        self.applied(outbox)?;
        for event in events {
            self.take_one(me, event);
        }
        self.position = Some(position);
        Ok(())
    }

    fn restart(&mut self, position: Position, reset: Option<ResetReason>, untold: &[Nonce]) -> Result<(), StateError> {
        if reset == Some(ResetReason::OtherLog) {
            self.conversations.clear();
        }
        self.set_untold(untold);
        self.position = Some(position);
        self.reset = graver(self.reset, reset);
        Ok(())
    }

    fn give_up(&mut self, untold: &[Nonce]) -> Result<(), StateError> {
        self.set_untold(untold);
        Ok(())
    }

    fn stage(&mut self, page: &Snapshot, first: bool) -> Result<(), StateError> {
        if first {
            self.staged.clear();
        }
        self.staged.push(page.clone());
        Ok(())
    }

    fn apply_snapshot(&mut self, position: Position, reset: Option<ResetReason>, untold: &[Nonce]) -> Result<(), StateError> {
        self.restart(position, reset, untold)?;
        for state in std::mem::take(&mut self.staged).into_iter().flat_map(|page| page.conversations) {
            let conversation = self.conversation(state.conversation, state.kind);
            conversation.head = conversation.head.max(state.head);
            for member in &state.members {
                conversation.raise(member);
            }
            for message in &state.messages {
                conversation.add(state.conversation, message.seq, Some(&message.from), message.time, &message.content);
            }
        }
        Ok(())
    }

    fn told(&mut self, told: &Told) -> Result<(), StateError> {
        if told.reset {
            self.reset = None;
        }
        self.untold.retain(|row| !told.untold.contains(&row.command.nonce));
        self.disagreements.retain(|why| !told.disagreements.contains(why));
        Ok(())
    }

    fn conversations(&mut self) -> Result<Vec<LocalConversation>, StateError> {
        let local = |(id, conversation): (&ConversationId, &Conversation)| LocalConversation {
            id: *id,
            kind: conversation.kind,
            members: conversation.members.values().cloned().collect(),
            head: conversation.head,
            last: conversation.messages.last_key_value().map(|(_, message)| message.clone()),
        };
        let mut all: Vec<_> = self.conversations.iter().map(local).collect();
        all.sort_by_key(|conversation| std::cmp::Reverse(conversation.last.as_ref().map(|message| message.time)));
        Ok(all)
    }

    fn messages(&mut self, id: ConversationId, before: Option<ConversationSeq>, limit: usize) -> Result<Vec<LocalMessage>, StateError> {
        let Some(conversation) = self.conversations.get(&id) else { return Ok(Vec::new()) };
        let before = before.unwrap_or(ConversationSeq(u64::MAX));
        let mut messages: Vec<_> = conversation.messages.range(..before).rev().take(limit).map(|(_, message)| message.clone()).collect();
        messages.reverse();
        Ok(messages)
    }

    fn waiting(&mut self) -> Result<Vec<Waiting>, StateError> {
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by_key(|row| (!row.applied, row.command.incarnation, row.command.cseq));
        let waiting = |row: &OutboxRow| Waiting { nonce: row.command.nonce, body: row.command.body.clone(), applied: row.applied };
        Ok(self.untold.iter().chain(rows).map(waiting).collect())
    }

    fn note(&mut self, key: &str) -> Result<Option<String>, StateError> {
        Ok(self.notes.get(key).cloned())
    }

    fn set_note(&mut self, key: &str, value: &str) -> Result<(), StateError> {
        self.notes.insert(key.into(), value.into());
        Ok(())
    }
}
