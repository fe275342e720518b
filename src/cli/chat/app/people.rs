//! Who there is to talk to: the list, and the search.

use super::{App, Overlay};
use crate::cli::chat::geometry::Pane;
use crate::cli::chat::room::{Room, Scroll};
use crate::cli::chat::text;
use std::cmp::Reverse;
use whimbrel_client::protocol::UserId;

/// People in the list with whom nothing was ever said.
const STRANGERS_MAX: usize = 500;
/// Results of a search.
const FOUND_MAX: usize = 200;

/// Somebody in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A conversation.
    Room(usize),
    /// Somebody who is online.
    Stranger(UserId),
}

/// Somebody to jump to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// Somebody of the list.
    Known(Entry),
    /// A name that nobody has yet.
    New(UserId),
}

/// A search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Find {
    /// What was typed.
    pub query: String,
    /// Which result would be taken.
    pub chosen: usize,
}

impl App {
    /// The list: conversations, the latest first; then others who are online.
    pub fn entries(&self) -> Vec<Entry> {
        let listed = |index: usize| {
            let room = &self.rooms[index];
            room.target().is_some() && (self.open == Some(index) || room.is_something())
        };
        let mut rooms: Vec<usize> = (0..self.rooms.len()).filter(|index| listed(*index)).collect();
        rooms.sort_by_key(|index| (Reverse(self.rooms[*index].latest()), *index));
        let is_listed = |user: &UserId| self.by_user.get(user).is_some_and(|index| listed(*index));
        let strangers = self.online.iter().filter(|user| **user != self.me && !is_listed(user));
        let strangers = strangers.take(STRANGERS_MAX).cloned().map(Entry::Stranger);
        rooms.into_iter().map(Entry::Room).chain(strangers).collect()
    }

    /// The conversation behind an entry, if there is one.
    pub fn entry_room(&self, entry: &Entry) -> Option<&Room> {
        match entry {
            Entry::Room(index) => self.rooms.get(*index),
            Entry::Stranger(_) => None,
        }
    }

    /// The name of an entry, fit for the terminal.
    pub fn entry_title(&self, entry: &Entry) -> String {
        match entry {
            Entry::Room(index) => self.rooms[*index].title.clone(),
            Entry::Stranger(user) => text::clean_line(user.as_str()),
        }
    }

    /// Whether the other one of a conversation is online.
    pub fn is_online(&self, room: &Room) -> bool {
        room.peer.as_ref().is_some_and(|peer| self.online.contains(peer))
    }

    /// Whether the person behind an entry is online.
    pub fn entry_online(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Room(index) => self.is_online(&self.rooms[*index]),
            Entry::Stranger(user) => self.online.contains(user),
        }
    }

    /// Where in the list the selection is.
    pub fn selected(&self, entries: &[Entry]) -> Option<usize> {
        self.selected.as_ref().and_then(|selected| entries.iter().position(|entry| entry == selected))
    }

    /// Moves the selection.
    pub(super) fn select(&mut self, down: bool) {
        let entries = self.entries();
        let next = match (self.selected(&entries), down) {
            (None, _) => 0,
            (Some(at), true) => (at + 1).min(entries.len().saturating_sub(1)),
            (Some(at), false) => at.saturating_sub(1),
        };
        self.selected = entries.into_iter().nth(next);
    }

    /// Opens the conversation next to the open one.
    pub(super) fn open_next(&mut self, down: bool) {
        self.selected = self.open.map(Entry::Room).or(self.selected.take());
        self.select(down);
        self.open_selected();
    }

    /// Opens what is selected.
    pub(super) fn open_selected(&mut self) {
        if let Some(entry) = self.selected.clone() {
            self.open_entry(&entry);
        }
    }

    fn open_entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Room(index) => self.open_room(*index),
            Entry::Stranger(user) => self.open_user(&user.clone()),
        }
    }

    /// Opens the conversation with this user.
    pub fn open_user(&mut self, user: &UserId) {
        let index = self.room_with(user);
        let now = self.now.time;
        let room = &mut self.rooms[index];
        if room.messages.is_empty() && room.id.is_none() {
            // That is the latest thing that happened.
            room.begun = Some(now);
        }
        self.open_room(index);
    }

    fn open_room(&mut self, index: usize) {
        self.overlay = None;
        self.pane = Pane::Thread;
        self.selected = Some(Entry::Room(index));
        if self.open == Some(index) {
            return;
        }
        if let (Some(_), Some(to)) = (self.typing_said.take(), self.room().and_then(Room::target)) {
            self.actions.push(super::Action::Typing(to, false));
        }
        self.open = Some(index);
        self.show_new(index);
    }

    /// Shows a conversation from the first message that is new, or from its end.
    pub(super) fn show_new(&mut self, index: usize) {
        self.rooms[index].divider = self.rooms[index].first_unread(&self.me);
        self.rooms[index].scroll = self.layout().map_or(Scroll::Bottom, |layout| layout.first_new());
    }

    /// What a search finds: names that begin so, names that contain it, and a name to begin with.
    pub fn found(&self, find: &Find) -> Vec<Candidate> {
        let query = find.query.trim();
        let wanted = query.to_lowercase();
        let named = |entry: Entry| (self.entry_title(&entry).to_lowercase(), entry);
        let entries = self.entries().into_iter().map(named).filter(|(title, _)| title.contains(&wanted));
        let (first, rest): (Vec<_>, Vec<_>) = entries.partition(|(title, _)| title.starts_with(&wanted));
        let mut found: Vec<_> = first.into_iter().chain(rest).map(|(_, entry)| Candidate::Known(entry)).take(FOUND_MAX).collect();
        if let Ok(user) = query.parse::<UserId>()
            && !self.by_user.contains_key(&user)
            && !self.online.contains(&user)
        {
            found.push(Candidate::New(user));
        }
        found
    }

    /// Goes to the chosen result.
    pub(super) fn take_found(&mut self) {
        let Some(Overlay::Find(find)) = self.overlay.take() else { return };
        match self.found(&find).into_iter().nth(find.chosen) {
            Some(Candidate::Known(entry)) => self.open_entry(&entry),
            Some(Candidate::New(user)) => self.open_user(&user),
            None => self.overlay = Some(Overlay::Find(find)),
        }
    }
}
