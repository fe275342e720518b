//! A conversation as rows: which of them are in view, and how to get to others.
//!
//! Only what is in view is laid out, starting from the place that is to stay where it is. That is why nothing jumps: what is added
//! before and after it does not count.

use super::clock::Zone;
use super::room::{Fate, Mark, Message, Older, Pending, Place, Room, Scroll};
use super::text;
use std::collections::VecDeque;
use whimbrel_client::protocol::{Time, UserId};

/// Messages of one person that follow each other within this time share one name.
const GROUP_MS: u64 = 5 * 60 * 1000;
/// The widest a text gets: longer lines are hard to read.
const TEXT_MAX: u16 = 96;
/// Columns for time and mark: `12:34 ✓✓`, and one before.
pub const SIDE: u16 = 9;

/// A row of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Nothing.
    Blank,
    /// About the conversation itself.
    Note(String),
    /// A new day.
    Day(String),
    /// What follows is new.
    New,
    /// Who wrote what follows.
    Author {
        /// The name.
        name: String,
        /// Whether that is oneself.
        own: bool,
    },
    /// A row of text; the first of a message has its time, and on one's own its mark.
    Text {
        /// The text.
        text: String,
        /// When it was written.
        time: Option<String>,
        /// How far it is.
        mark: Option<Mark>,
    },
}

/// How a conversation is shown.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// Which.
    pub room: &'a Room,
    /// Who looks at it.
    pub me: &'a UserId,
    /// Where days begin.
    pub zone: &'a Zone,
    /// The present.
    pub now: Time,
    /// Whether there is a connection to load more over.
    pub online: bool,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

enum Item<'a> {
    Message(&'a Message),
    Pending(&'a Pending),
}

impl Item<'_> {
    fn place(&self) -> Place {
        match self {
            Self::Message(message) => Place::Message(message.seq),
            Self::Pending(pending) => Place::Pending(pending.local),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Message(message) => &message.text,
            Self::Pending(pending) => &pending.shown,
        }
    }
}

/// A message's rows: those before its text, and its text.
struct Rows {
    rows: Vec<Row>,
    before: usize,
}

impl<'a> Layout<'a> {
    /// Columns for text.
    pub fn text_width(&self) -> u16 {
        self.width.saturating_sub(SIDE + 2).clamp(4, TEXT_MAX)
    }

    /// Few rows: none of them are left empty.
    fn is_dense(&self) -> bool {
        self.height < 10
    }

    fn len(&self) -> usize {
        self.room.messages.len() + self.room.pending.len()
    }

    fn item(&self, index: usize) -> Option<Item<'a>> {
        let messages = &self.room.messages;
        match messages.get(index) {
            Some(message) => Some(Item::Message(message)),
            None => self.room.pending.get(index - messages.len()).map(Item::Pending),
        }
    }

    fn find(&self, place: Place) -> Option<usize> {
        match place {
            Place::Message(seq) => {
                let index = self.room.messages.partition_point(|message| message.seq < seq);
                self.room.messages.get(index).filter(|message| message.seq == seq).map(|_| index)
            }
            Place::Pending(local) => {
                let index = self.room.pending.iter().position(|pending| pending.local == local)?;
                Some(self.room.messages.len() + index)
            }
        }
    }

    /// Who wrote it, and when; what was written in an earlier run counts as now.
    fn origin(&self, item: &Item<'a>) -> (&'a UserId, Time) {
        match item {
            Item::Message(message) => (&message.from, message.time),
            Item::Pending(pending) => (self.me, pending.time.unwrap_or(self.now)),
        }
    }

    fn rows(&self, index: usize) -> Rows {
        let mut rows = Vec::new();
        let Some(item) = self.item(index) else { return Rows { rows, before: 0 } };
        let (from, time) = self.origin(&item);
        let previous = index.checked_sub(1).and_then(|index| self.item(index)).map(|previous| self.origin(&previous));
        if previous.is_none() {
            rows.extend(self.beginning());
        }
        let day = self.zone.day(time);
        let new_day = previous.is_none_or(|(_, before)| self.zone.day(before) != day);
        let new = self.begins_new(index);
        let same_author = previous.is_some_and(|(before, at)| before == from && time.0.saturating_sub(at.0) < GROUP_MS);
        if new_day {
            rows.push(Row::Day(self.zone.day_name(time, self.now)));
        }
        if new {
            rows.push(Row::New);
        }
        if new_day || new || !same_author {
            if !new_day && !new && !self.is_dense() {
                rows.push(Row::Blank);
            }
            let own = from == self.me;
            rows.push(Row::Author { name: if own { "You".into() } else { text::clean_line(from.as_str()) }, own });
        }
        let before = rows.len();
        let mark = match &item {
            Item::Message(message) => (from == self.me).then(|| self.room.mark(self.me, message.seq)),
            Item::Pending(Pending { fate: Fate::Sending, .. }) => Some(Mark::Sending),
            Item::Pending(_) => Some(Mark::Refused),
        };
        let mut time = match item {
            Item::Pending(Pending { time: None, .. }) => None,
            _ => Some(self.zone.clock(time)),
        };
        let mut mark = mark;
        let shown = item.text();
        for range in text::wrap(shown, self.text_width().into()) {
            rows.push(Row::Text { text: shown[range].to_owned(), time: time.take(), mark: mark.take() });
        }
        Rows { rows, before }
    }

    /// Whether a message is the first that is new, of those in memory.
    fn begins_new(&self, index: usize) -> bool {
        let Some(divider) = self.room.divider else { return false };
        let is_new = |index: usize| self.room.messages.get(index).map(|message| message.seq >= divider);
        is_new(index) == Some(true) && index.checked_sub(1).and_then(is_new) != Some(true)
    }

    fn beginning(&self) -> Option<Row> {
        let note = match (self.room.older, self.online) {
            (Older::End, _) => "This is where it begins",
            (Older::Loading, true) => "Loading what came before…",
            (Older::Loading, false) => "What came before is at the server",
            (Older::Failed, _) => "What came before could not be loaded",
            (Older::More, _) => return None,
        };
        Some(Row::Note(note.into()))
    }

    /// The row at the top of the view: of which message, and which of its rows.
    fn top(&self) -> (usize, usize) {
        if let Scroll::At(place, line) = self.room.scroll
            && let Some(index) = self.find(place)
        {
            let before = i64::try_from(self.rows(index).before).unwrap_or(0);
            return self.walk((index, 0), before + line);
        }
        self.bottom()
    }

    /// The row at the top when the newest is at the bottom.
    fn bottom(&self) -> (usize, usize) {
        self.walk((self.len(), 0), -i64::from(self.height))
    }

    /// So many rows further down, or up; as far as there are any.
    fn walk(&self, (mut index, row): (usize, usize), by: i64) -> (usize, usize) {
        let mut row = i64::try_from(row).unwrap_or(0) + by;
        while row < 0 {
            let Some(previous) = index.checked_sub(1) else { return (0, 0) };
            index = previous;
            row += self.count(index);
        }
        while index < self.len() && row >= self.count(index) {
            row -= self.count(index);
            index += 1;
        }
        (index, usize::try_from(row).unwrap_or(0))
    }

    fn count(&self, index: usize) -> i64 {
        i64::try_from(self.rows(index).rows.len()).unwrap_or(0)
    }

    /// The rows in view; fewer than fit only if there are no more.
    pub fn view(&self) -> Vec<Row> {
        let (mut index, skip) = self.top();
        let mut view = VecDeque::new();
        let mut skip = skip;
        while index < self.len() && view.len() < usize::from(self.height) {
            view.extend(self.rows(index).rows.into_iter().skip(skip));
            skip = 0;
            index += 1;
        }
        view.truncate(self.height.into());
        view.into()
    }

    /// What to look at after moving so many rows, down or up.
    pub fn scrolled(&self, by: i64) -> Scroll {
        self.at(self.walk(self.top(), by))
    }

    /// The very top of what is in memory.
    pub fn first(&self) -> Scroll {
        self.at((0, 0))
    }

    /// What to look at so that the first message that is new is at the top; the bottom, if that shows it too.
    pub fn first_new(&self) -> Scroll {
        let first = (0..self.room.messages.len()).find(|index| self.begins_new(*index));
        first.map_or(Scroll::Bottom, |index| self.at((index, 0)))
    }

    fn at(&self, top: (usize, usize)) -> Scroll {
        if top >= self.bottom() {
            return Scroll::Bottom;
        }
        let Some(item) = self.item(top.0) else { return Scroll::Bottom };
        let line = i64::try_from(top.1).unwrap_or(0) - i64::try_from(self.rows(top.0).before).unwrap_or(0);
        Scroll::At(item.place(), line)
    }

    /// How many messages are at or above the top of the view.
    pub fn above(&self) -> usize {
        self.top().0
    }

    /// What the view has become, where there is less to see than there was.
    pub fn normal(&self) -> Scroll {
        match self.room.scroll {
            Scroll::Bottom => Scroll::Bottom,
            Scroll::At(place, _) if self.find(place).is_none() || self.top() >= self.bottom() => Scroll::Bottom,
            at => at,
        }
    }
}
