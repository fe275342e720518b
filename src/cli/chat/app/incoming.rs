//! What comes from the server, and from the device's store.

use super::{Action, App, Done, Page, Stored, Told, UNCLAIMED_MAX, Unsent, Weight};
use crate::cli::chat::room::{Fate, Older, Pending, Room};
use crate::cli::chat::text;
use std::time::Duration;
use whimbrel_client::Connection;
use whimbrel_client::protocol::frame::{
    ConversationKind, ConversationState, Event, EventBody, MemberState, Message, PresenceState, Receipt, ResetReason, ServerSignal,
    StoredMessage, Target,
};
use whimbrel_client::protocol::{ConversationId, ConversationSeq, Nonce, UserId};

impl App {
    /// The conversation with this user; begins if there is none.
    pub(super) fn room_with(&mut self, user: &UserId) -> usize {
        if let Some(index) = self.by_user.get(user) {
            return *index;
        }
        self.rooms.push(Room::with(user.clone()));
        let index = self.rooms.len() - 1;
        self.by_user.insert(user.clone(), index);
        index
    }

    /// The conversation of this number; `peer` is who it is with, where that is known.
    fn room_of(&mut self, id: ConversationId, peer: Option<&UserId>) -> usize {
        if let Some(index) = self.by_id.get(&id) {
            return *index;
        }
        let index = match peer {
            Some(peer) => self.room_with(peer),
            None => {
                self.rooms.push(Room::numbered(id));
                self.rooms.len() - 1
            }
        };
        self.bind(index, id);
        index
    }

    fn bind(&mut self, index: usize, id: ConversationId) {
        if let Some(room) = self.rooms.get_mut(index) {
            room.id = Some(id);
            self.by_id.insert(id, index);
        }
    }

    /// The conversation that its members make: between two by the other's name.
    fn room_among(&mut self, id: ConversationId, kind: ConversationKind, members: &[UserId]) -> usize {
        let other = members.iter().find(|user| **user != self.me).or(members.first()).cloned();
        let direct = kind == ConversationKind::Direct;
        let index = self.room_of(id, other.as_ref().filter(|_| direct));
        if !direct {
            let names: Vec<_> = members.iter().filter(|user| **user != self.me).map(UserId::as_str).collect();
            self.rooms[index].title = text::clean_line(&names.join(", "));
        }
        index
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event.body {
            EventBody::Started(started) => drop(self.room_among(started.conversation, started.kind, &started.members)),
            EventBody::Message(message) => self.on_message(event.time, message),
            EventBody::Receipt(receipt) => self.on_receipt(receipt),
            // Outcomes come as such. A message of an outbox that this device no longer has is in the conversation; what was refused
            // of it is told, because nobody else does.
            EventBody::Rejected(rejected) => self.tell(format!("The server refused a message: {}", rejected.message), Weight::Grave),
            EventBody::Sent(_) | EventBody::Skip(_) => {}
            EventBody::Unknown(unknown) => {
                self.tell(format!("Something came that this version does not understand ({})", unknown.reason), Weight::Warning);
            }
        }
    }

    fn on_message(&mut self, time: whimbrel_client::protocol::Time, message: Message) {
        let Message { conversation, seq, from, content } = message;
        let Some(from) = from else {
            return self.tell(format!("A message came from somebody unknown, in conversation {conversation}"), Weight::Warning);
        };
        let index = self.room_of(conversation, Some(&from).filter(|from| **from != self.me));
        self.add(index, StoredMessage { seq, time, from, content });
    }

    fn add(&mut self, index: usize, message: StoredMessage) {
        let watching = self.open == Some(index) && self.is_watching();
        let me = &self.me;
        let Some(room) = self.rooms.get_mut(index) else { return };
        let (seq, theirs) = (message.seq, message.from != *me);
        let nothing_new = room.unread(me) == 0;
        if room.add(message) && theirs && nothing_new && !watching && self.open == Some(index) {
            room.divider = Some(seq);
        }
    }

    fn on_receipt(&mut self, receipt: Receipt) {
        let Receipt { conversation, user, delivered, read } = receipt;
        let (Some(user), Some(index)) = (user, self.by_id.get(&conversation)) else { return };
        let Some(room) = self.rooms.get_mut(*index) else { return };
        if user == self.me {
            room.told = room.told.max(read);
        }
        room.raise(&MemberState { user, delivered, read });
    }

    pub(super) fn on_told(&mut self, told: Told) {
        let Told { nonce, to, text, result } = told;
        let of_nonce = nonce.and_then(|nonce| self.rooms.iter().position(|room| room.pending.iter().any(|p| p.nonce == Some(nonce))));
        let index = of_nonce.or(match &to {
            Some(Target::User(user)) => Some(self.room_with(user)),
            Some(Target::Conversation(id)) => self.by_id.get(id).copied(),
            None => None,
        });
        if let (Some(nonce), None) = (nonce, of_nonce) {
            // Told before this loop heard that it is stored.
            self.unclaimed.push_back(nonce);
            if self.unclaimed.len() > UNCLAIMED_MAX {
                self.unclaimed.pop_front();
            }
        }
        match result {
            Ok((id, seq, time)) => {
                let index = index.unwrap_or_else(|| self.room_of(id, None));
                self.bind(index, id);
                let pending = nonce.and_then(|nonce| self.rooms[index].settle(nonce, Some(seq)));
                if let Some(text) = text.or(pending.map(|pending| pending.text)) {
                    let from = self.me.clone();
                    self.add(index, StoredMessage { seq, time, from, content: whimbrel_client::text(text) });
                }
            }
            Err(Unsent::Untold) => {
                if let (Some(index), Some(nonce)) = (index, nonce) {
                    self.rooms[index].settle(nonce, None);
                }
                self.tell("A message got through, but it is not known where in the conversation it stands".into(), Weight::Warning);
            }
            Err(Unsent::Refused(why)) => {
                let pending = index.and_then(|index| self.rooms[index].pending.iter_mut().find(|pending| pending.nonce == nonce));
                match pending.filter(|_| nonce.is_some()) {
                    Some(pending) => pending.fate = Fate::Refused(text::clean_line(&why)),
                    None => self.tell(format!("A message was refused: {why}"), Weight::Grave),
                }
            }
        }
    }

    pub(super) fn on_signal(&mut self, signal: ServerSignal) {
        let now = self.now.at;
        match signal {
            ServerSignal::Typing(typing) => {
                if let Some(index) = self.by_id.get(&typing.conversation)
                    && typing.user != self.me
                {
                    self.rooms[*index].typing(typing.user, typing.active, now);
                }
            }
            ServerSignal::Presence(list) => {
                for presence in list {
                    if presence.state == PresenceState::Online {
                        self.online.insert(presence.user);
                    } else {
                        self.online.remove(&presence.user);
                    }
                }
            }
            // It is not asked for.
            ServerSignal::Lobby(_) => {}
        }
    }

    pub(super) fn on_reset(&mut self, reason: ResetReason) {
        let what = match reason {
            ResetReason::Trimmed => "This device was away for long: what came meanwhile is loaded anew",
            ResetReason::OtherLog => {
                "The server's data is not what it was (deleted, or restored from a backup): conversations are loaded anew"
            }
        };
        self.tell(what.into(), Weight::Grave);
        if reason == ResetReason::OtherLog {
            self.by_id.clear();
            for room in &mut self.rooms {
                room.clear();
                room.members.clear();
                room.told = ConversationSeq(0);
                room.id = None;
                room.begun = None;
            }
            // Without a name and without a number there is no conversation.
            if self.room().is_some_and(|room| room.peer.is_none()) {
                self.open = None;
            }
            // The store has what there is of the new one, also where this is told again after a crash.
            self.actions.push(Action::Load);
        }
    }

    pub(super) fn on_snapshot(&mut self) {
        // There may be a gap between what was here and what is new.
        self.rooms.iter_mut().for_each(Room::clear);
        self.actions.push(Action::Load);
    }

    pub(super) fn on_connection(&mut self, connection: Connection) {
        self.retry_at = match &connection {
            Connection::Offline { retry_in, .. } => Some(self.now.at + *retry_in),
            _ => None,
        };
        if let Connection::Connected { .. } = connection {
            self.was_connected = true;
            for room in self.rooms.iter_mut().filter(|room| room.older == Older::Failed) {
                room.older = Older::More;
            }
        } else {
            // Nobody says any more who is here.
            self.online.clear();
            self.rooms.iter_mut().for_each(Room::forget_typing);
        }
        self.connection = connection;
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Stored(local, result) => self.on_stored(local, result),
            Done::Unread(id, why) => {
                if let Some(index) = self.by_id.get(&id) {
                    self.rooms[*index].told = ConversationSeq(0);
                    self.read_due = Some(self.now.at + Duration::from_secs(5));
                }
                self.tell(format!("What was read could not be noted: {why}"), Weight::Warning);
            }
            Done::Loaded(Ok(stored)) => self.on_loaded(stored),
            Done::Loaded(Err(why)) => {
                self.loaded = true;
                self.tell(format!("The stored conversations cannot be read: {why}"), Weight::Grave);
            }
            Done::Older(id, result) => self.on_older(id, result),
        }
    }

    fn on_stored(&mut self, local: u64, result: Result<Nonce, String>) {
        let is_it = |pending: &Pending| pending.local == local;
        let Some(room) = self.rooms.iter_mut().find(|room| room.pending.iter().any(is_it)) else { return };
        match result {
            Ok(nonce) if self.unclaimed.contains(&nonce) => room.pending.retain(|pending| pending.local != local),
            Ok(nonce) => room.pending.iter_mut().filter(|pending| is_it(pending)).for_each(|pending| pending.nonce = Some(nonce)),
            Err(why) => {
                let why = text::clean_line(&why);
                room.pending.iter_mut().filter(|pending| is_it(pending)).for_each(|pending| pending.fate = Fate::Refused(why.clone()));
            }
        }
    }

    fn on_loaded(&mut self, stored: Stored) {
        for state in stored.conversations {
            self.on_conversation(state);
        }
        if !std::mem::replace(&mut self.loaded, true) {
            for (nonce, to, text) in stored.sending {
                let index = match to {
                    Target::User(user) => self.room_with(&user),
                    Target::Conversation(id) => self.room_of(id, None),
                };
                self.locals += 1;
                let (local, shown) = (self.locals, text::clean(&text));
                self.rooms[index].pending.push(Pending { local, nonce: Some(nonce), time: None, text, shown, fate: Fate::Sending });
            }
        }
        for (id, seq) in stored.reading {
            if let Some(index) = self.by_id.get(&id) {
                let room = &mut self.rooms[*index];
                room.told = room.told.max(seq);
                room.raise_read(&self.me, seq);
            }
        }
        if let Some(index) = self.open {
            self.show_new(index);
        }
    }

    fn on_conversation(&mut self, state: ConversationState) {
        let ConversationState { conversation, kind, members, messages, .. } = state;
        let users: Vec<UserId> = members.iter().map(|member| member.user.clone()).collect();
        let index = self.room_among(conversation, kind, &users);
        let room = &mut self.rooms[index];
        for member in &members {
            if member.user == self.me {
                room.told = room.told.max(member.read);
            }
            room.raise(member);
        }
        for message in messages {
            room.add(message);
        }
    }

    fn on_older(&mut self, id: ConversationId, result: Result<Page, String>) {
        let Some(index) = self.by_id.get(&id) else { return };
        let room = &mut self.rooms[*index];
        match result {
            Ok(page) => {
                room.older = if page.more && !page.messages.is_empty() { Older::More } else { Older::End };
                for message in page.messages {
                    room.add(message);
                }
            }
            Err(why) => {
                room.older = Older::Failed;
                self.tell(format!("What came before could not be loaded: {why}"), Weight::Warning);
            }
        }
    }
}
