//! A conversation: its messages, one's own that are on their way, who has read how far, and the draft.

use super::composer::Composer;
use super::text;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use whimbrel_client::protocol::frame::{MemberState, StoredMessage, Target};
use whimbrel_client::protocol::{ConversationId, ConversationSeq, Nonce, Time, UserId};

/// Somebody who does not say again that they type has stopped.
const TYPING_FOR: Duration = Duration::from_secs(6);
/// People who type, in one conversation, that are remembered.
const TYPING_MAX: usize = 16;
/// When so many messages are in memory, the oldest go while nobody looks at them; they can be loaded again.
const KEPT_MAX: usize = 2_000;
/// … down to this many.
const KEPT: usize = 500;

/// A message that is in the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number there.
    pub seq: ConversationSeq,
    /// When it came there.
    pub time: Time,
    /// Who wrote it.
    pub from: UserId,
    /// What it says, fit for the terminal.
    pub text: String,
}

/// What became of a message of one's own that is not in the conversation yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is being sent, or waits for it.
    Sending,
    /// It was refused, and why.
    Refused(String),
}

/// A message of one's own that is not in the conversation yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Names it in this run.
    pub local: u64,
    /// Names the command; `None` until it is stored.
    pub nonce: Option<Nonce>,
    /// When it was written; `None` if that was in an earlier run.
    pub time: Option<Time>,
    /// What was written.
    pub text: String,
    /// The same, fit for the terminal.
    pub shown: String,
    /// What became of it.
    pub fate: Fate,
}

/// How far a message of one's own has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Refused.
    Refused,
    /// On its way.
    Sending,
    /// Durable at the server.
    Sent,
    /// On a device of each other member.
    Delivered,
    /// Read by each other member.
    Read,
}

/// What is before the oldest message in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Older {
    /// There may be more.
    #[default]
    More,
    /// It was asked for.
    Loading,
    /// It was asked for, and refused.
    Failed,
    /// Nothing: the conversation begins here.
    End,
}

/// A place in a conversation that stays the same while messages come before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A message.
    Message(ConversationSeq),
    /// One that is on its way.
    Pending(u64),
}

/// What is in view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scroll {
    /// The newest, also when more comes.
    #[default]
    Bottom,
    /// The row at the top is this many rows after the first row of that message's text; before it, if negative.
    At(Place, i64),
}

/// A conversation.
#[derive(Debug, Default)]
pub struct Room {
    /// Its number; `None` while nothing was ever said in it.
    pub id: Option<ConversationId>,
    /// With whom, if it is between two.
    pub peer: Option<UserId>,
    /// Its name, fit for the terminal.
    pub title: String,
    /// Its members with their watermarks, oneself included.
    pub members: Vec<MemberState>,
    /// What was said, rising, without a gap.
    pub messages: VecDeque<Message>,
    /// What is on its way, in order.
    pub pending: Vec<Pending>,
    /// What is before that.
    pub older: Older,
    /// What is being written.
    pub composer: Composer,
    /// What is in view.
    pub scroll: Scroll,
    /// The first message that was new when one came to look.
    pub divider: Option<ConversationSeq>,
    /// When one opened it, if nothing was said in it then.
    pub begun: Option<Time>,
    /// How far the server was told that one has read.
    pub told: ConversationSeq,
    typing: Vec<(UserId, Instant)>,
}

impl Room {
    /// A conversation of which nothing is known but with whom it is.
    pub fn with(peer: UserId) -> Self {
        Self { title: text::clean_line(peer.as_str()), peer: Some(peer), ..Self::default() }
    }

    /// A conversation of which nothing is known but its number.
    pub fn numbered(id: ConversationId) -> Self {
        Self { title: format!("conversation {id}"), id: Some(id), ..Self::default() }
    }

    /// Where messages go: by name, where there is one, because that outlives a server that begins anew.
    pub fn target(&self) -> Option<Target> {
        self.peer.clone().map(Target::User).or(self.id.map(Target::Conversation))
    }

    /// When something was last said in it; before that, when it was begun.
    pub fn latest(&self) -> Option<Time> {
        let written = self.pending.iter().filter_map(|pending| pending.time).max();
        self.messages.back().map(|message| message.time).max(written).or(self.begun)
    }

    /// Whether there is anything to it but a name.
    pub fn is_something(&self) -> bool {
        self.id.is_some() || self.latest().is_some() || !self.pending.is_empty() || !self.composer.is_empty()
    }

    /// Raises what is known of how far somebody is.
    pub fn raise(&mut self, state: &MemberState) {
        match self.members.iter_mut().find(|member| member.user == state.user) {
            Some(member) => {
                member.delivered = member.delivered.max(state.delivered);
                member.read = member.read.max(state.read);
            }
            None => self.members.push(state.clone()),
        }
    }

    /// Raises how far somebody has read.
    pub fn raise_read(&mut self, user: &UserId, read: ConversationSeq) {
        self.raise(&MemberState { user: user.clone(), delivered: ConversationSeq(0), read });
    }

    /// How far somebody has read.
    pub fn read_by(&self, user: &UserId) -> ConversationSeq {
        self.members.iter().find(|member| member.user == *user).map_or(ConversationSeq(0), |member| member.read)
    }

    /// The newest message's number.
    pub fn newest(&self) -> ConversationSeq {
        self.messages.back().map_or(ConversationSeq(0), |message| message.seq)
    }

    /// The oldest message's number in memory.
    pub fn oldest(&self) -> Option<ConversationSeq> {
        self.messages.front().map(|message| message.seq)
    }

    /// Messages of others that `me` has not read. Those that are not in memory count as others': who writes has read.
    pub fn unread(&self, me: &UserId) -> usize {
        self.unread_messages(me).count() + self.unread_before(me)
    }

    fn unread_before(&self, me: &UserId) -> usize {
        let oldest = self.oldest().filter(|_| self.older != Older::End).map_or(0, |oldest| oldest.0);
        usize::try_from(oldest.saturating_sub(self.read_by(me).next().0)).unwrap_or(usize::MAX)
    }

    /// The first of them.
    pub fn first_unread(&self, me: &UserId) -> Option<ConversationSeq> {
        if self.unread_before(me) > 0 {
            return Some(self.read_by(me).next());
        }
        self.unread_messages(me).last().map(|message| message.seq)
    }

    fn unread_messages<'a>(&'a self, me: &'a UserId) -> impl Iterator<Item = &'a Message> {
        let read = self.read_by(me);
        self.messages.iter().rev().take_while(move |message| message.seq > read).filter(move |message| message.from != *me)
    }

    /// Adds a message; returns whether it was not known.
    pub fn add(&mut self, message: StoredMessage) -> bool {
        let StoredMessage { seq, time, from, content } = message;
        let at = self.messages.partition_point(|known| known.seq < seq);
        if self.messages.get(at).is_some_and(|known| known.seq == seq) {
            return false;
        }
        if seq.0 <= 1 {
            self.older = Older::End;
        }
        self.typing.retain(|(user, _)| *user != from);
        self.messages.insert(at, Message { seq, time, from, text: text::clean(&content.text) });
        true
    }

    /// Lets go of old messages when there are many and the newest are in view.
    pub fn trim(&mut self) {
        if self.messages.len() > KEPT_MAX && self.scroll == Scroll::Bottom {
            self.messages.drain(..self.messages.len() - KEPT);
            self.older = Older::More;
        }
    }

    /// Forgets what was said; what is on its way, and the draft, stay.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.older = Older::More;
        self.scroll = Scroll::Bottom;
        self.divider = None;
    }

    /// A message of one's own is in the conversation now. Returns what was written, if it is known.
    pub fn settle(&mut self, nonce: Nonce, at: Option<ConversationSeq>) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.nonce == Some(nonce))?;
        let pending = self.pending.remove(index);
        if let Scroll::At(Place::Pending(local), line) = self.scroll
            && local == pending.local
        {
            self.scroll = at.map_or(Scroll::Bottom, |seq| Scroll::At(Place::Message(seq), line));
        }
        Some(pending)
    }

    /// How far everybody else is with a message of one's own.
    pub fn mark(&self, me: &UserId, seq: ConversationSeq) -> Mark {
        let mut others = self.members.iter().filter(|member| member.user != *me).peekable();
        if others.peek().is_none() {
            return Mark::Sent;
        }
        let of = |member: &MemberState| match member {
            MemberState { read, .. } if *read >= seq => Mark::Read,
            MemberState { delivered, .. } if *delivered >= seq => Mark::Delivered,
            _ => Mark::Sent,
        };
        others.map(of).min().unwrap_or(Mark::Sent)
    }

    /// The last message of one's own, and how far it is.
    pub fn last_own(&self, me: &UserId) -> Option<(Mark, Option<&Pending>)> {
        if let Some(pending) = self.pending.iter().rev().find(|pending| pending.fate != Fate::Sending) {
            return Some((Mark::Refused, Some(pending)));
        }
        if let Some(pending) = self.pending.last() {
            return Some((Mark::Sending, Some(pending)));
        }
        let own = self.messages.iter().rev().find(|message| message.from == *me)?;
        Some((self.mark(me, own.seq), None))
    }

    /// How many messages are on their way.
    pub fn waiting(&self) -> usize {
        self.pending.iter().filter(|pending| pending.fate == Fate::Sending).count()
    }

    /// Somebody types, or has stopped.
    pub fn typing(&mut self, user: UserId, active: bool, now: Instant) {
        self.typing.retain(|(other, _)| *other != user);
        if active && self.typing.len() < TYPING_MAX {
            self.typing.push((user, now + TYPING_FOR));
        }
    }

    /// Who types.
    pub fn typists(&self) -> impl Iterator<Item = &UserId> {
        self.typing.iter().map(|(user, _)| user)
    }

    /// Forgets who has not said for long that they type.
    pub fn expire_typing(&mut self, now: Instant) {
        self.typing.retain(|(_, until)| *until > now);
    }

    /// When to look again.
    pub fn typing_ends(&self) -> Option<Instant> {
        self.typing.iter().map(|(_, until)| *until).min()
    }

    /// Forgets who types: there is nobody to hear it from.
    pub fn forget_typing(&mut self) {
        self.typing.clear();
    }

    /// What was last said, for the list: by whom, and what.
    pub fn preview(&self) -> Option<(Option<&UserId>, &str)> {
        match (self.pending.last(), self.messages.back()) {
            (Some(pending), _) => Some((None, &pending.shown)),
            (None, Some(message)) => Some((Some(&message.from), &message.text)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_client::text as content;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn message(seq: u64, from: &str) -> StoredMessage {
        StoredMessage { seq: ConversationSeq(seq), time: Time(seq * 1000), from: user(from), content: content("x") }
    }

    fn state(name: &str, delivered: u64, read: u64) -> MemberState {
        MemberState { user: user(name), delivered: ConversationSeq(delivered), read: ConversationSeq(read) }
    }

    #[test]
    fn messages_stand_once_and_in_order() {
        let mut room = Room::with(user("bob"));
        for seq in [3, 2, 3, 4, 2, 1] {
            room.add(message(seq, "bob"));
        }
        assert_eq!(room.messages.iter().map(|message| message.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(room.older, Older::End);
        assert_eq!(room.latest(), Some(Time(4000)));
    }

    #[test]
    fn unread_counts_what_others_wrote_after_what_was_read() {
        let me = user("alice");
        let mut room = Room::with(user("bob"));
        for (seq, from) in [(1, "bob"), (2, "bob"), (3, "alice"), (4, "bob")] {
            room.add(message(seq, from));
        }
        room.raise(&state("alice", 0, 1));
        assert_eq!((room.unread(&me), room.first_unread(&me)), (2, Some(ConversationSeq(2))));
        room.raise(&state("alice", 0, 4));
        room.raise(&state("alice", 0, 2));
        assert_eq!((room.unread(&me), room.first_unread(&me)), (0, None), "watermarks only rise");
    }

    #[test]
    fn what_is_not_in_memory_is_unread_too() {
        let me = user("alice");
        let mut room = Room::with(user("bob"));
        room.raise(&state("alice", 0, 10));
        for seq in 381..=400 {
            room.add(message(seq, "bob"));
        }
        assert_eq!((room.unread(&me), room.first_unread(&me)), (390, Some(ConversationSeq(11))));
        room.raise_read(&me, ConversationSeq(400));
        assert_eq!((room.unread(&me), room.first_unread(&me)), (0, None));
    }

    #[test]
    fn a_message_is_as_far_as_the_slowest_of_the_others() {
        let me = user("alice");
        let mut room = Room::with(user("bob"));
        assert_eq!(room.mark(&me, ConversationSeq(1)), Mark::Sent);
        room.raise(&state("alice", 9, 9));
        assert_eq!(room.mark(&me, ConversationSeq(1)), Mark::Sent, "what oneself has read says nothing");
        room.raise(&state("bob", 2, 1));
        assert_eq!(room.mark(&me, ConversationSeq(1)), Mark::Read);
        assert_eq!(room.mark(&me, ConversationSeq(2)), Mark::Delivered);
        assert_eq!(room.mark(&me, ConversationSeq(3)), Mark::Sent);
        room.raise(&state("carol", 3, 0));
        assert_eq!(room.mark(&me, ConversationSeq(1)), Mark::Delivered);
    }

    #[test]
    fn typing_ends_by_itself_and_with_a_message() {
        let now = Instant::now();
        let mut room = Room::with(user("bob"));
        room.typing(user("bob"), true, now);
        assert_eq!(room.typing_ends(), Some(now + TYPING_FOR));
        room.add(message(1, "bob"));
        assert_eq!(room.typists().count(), 0);
        room.typing(user("bob"), true, now);
        room.expire_typing(now + TYPING_FOR);
        assert_eq!(room.typists().count(), 0);
    }

    #[test]
    fn memory_is_bounded_while_nobody_looks_at_the_past() {
        let mut room = Room::with(user("bob"));
        for seq in 1..=KEPT_MAX as u64 + 1 {
            room.add(message(seq, "bob"));
        }
        room.scroll = Scroll::At(Place::Message(ConversationSeq(5)), 0);
        room.trim();
        assert_eq!(room.messages.len(), KEPT_MAX + 1);
        room.scroll = Scroll::Bottom;
        room.trim();
        assert_eq!((room.messages.len(), room.older), (KEPT, Older::More));
    }
}
