//! The application without its surroundings: what comes in changes it, what it wants done is an [`Action`], and nothing here waits.

mod incoming;
mod keys;
mod people;
mod status;
#[cfg(test)]
pub(super) mod tests;

pub use keys::HELP;
pub use people::{Candidate, Entry, Find};
pub use status::Weight;

use super::clock::{Now, Zone};
use super::geometry::{Geometry, Pane, composer_columns};
use super::room::{Fate, Older, Pending, Room, Scroll};
use super::text;
use super::thread::Layout;
use crossterm::event::{KeyEvent, MouseEvent};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};
use whimbrel_client::protocol::codec::MAX_TEXT;
use whimbrel_client::protocol::frame::{ConversationState, Event, ResetReason, ServerSignal, StoredMessage, Target};
use whimbrel_client::protocol::{ConversationId, ConversationSeq, Nonce, Time, UserId};
use whimbrel_client::{Connection, EndReason};

/// What was read is told to the server this much later, so that many messages are told of at once.
const READ_DELAY: Duration = Duration::from_millis(400);
/// How often it is said again that one types.
const TYPING_EVERY: Duration = Duration::from_secs(3);
/// How long something that is good to know is shown.
const NOTICE_FOR: Duration = Duration::from_secs(8);
/// Things to be told that wait for their turn; the oldest go.
const NOTICES_MAX: usize = 32;
/// Outcomes of commands that were not known to be stored yet.
const UNCLAIMED_MAX: usize = 256;
/// When the view begins within so many messages of the oldest one in memory, older ones are loaded.
const LOAD_AHEAD: usize = 30;

/// Something that comes in.
#[derive(Debug)]
pub enum Input {
    /// A key.
    Key(KeyEvent),
    /// Text from the clipboard.
    Paste(String),
    /// The mouse.
    Mouse(MouseEvent),
    /// The terminal has another size.
    Resize(u16, u16),
    /// The terminal got, or lost, the focus.
    Focus(bool),
    /// The mailbox has an entry.
    Event(Event),
    /// A command of this device has an outcome.
    Told(Told),
    /// Something fleeting.
    Signal(ServerSignal),
    /// The mailbox could not be continued.
    Reset(ResetReason),
    /// The device's store has a snapshot.
    Snapshot,
    /// Outbox and server contradicted each other; what it says.
    Disagreement(String),
    /// The connection is in another state.
    Connection(Connection),
    /// An action is done.
    Done(Done),
    /// It is later.
    Tick,
}

/// What became of a command of this device.
#[derive(Debug, Clone)]
pub struct Told {
    /// The command.
    pub nonce: Option<Nonce>,
    /// Where it went.
    pub to: Option<Target>,
    /// What it said.
    pub text: Option<String>,
    /// Where the message is, or why there is none.
    pub result: Result<(ConversationId, ConversationSeq, Time), Unsent>,
}

/// Why a command of this device has no message to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// The server refused it.
    Refused(String),
    /// The message is in the conversation, but it is not known where.
    Untold,
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Store a message, and send it.
    Send {
        /// Names it in this run.
        local: u64,
        /// Where to.
        to: Target,
        /// What it says.
        text: String,
    },
    /// Say how far one has read.
    MarkRead(ConversationId, ConversationSeq),
    /// Say that one types, or has stopped.
    Typing(Target, bool),
    /// Read the conversations from the store.
    Load,
    /// Get what comes before a message; the newest, if none is named.
    Older(ConversationId, Option<ConversationSeq>),
}

/// What became of an action.
#[derive(Debug)]
pub enum Done {
    /// A message is stored, or is not.
    Stored(u64, Result<Nonce, String>),
    /// It could not be said how far one has read.
    Unread(ConversationId, String),
    /// The conversations of the store.
    Loaded(Result<Stored, String>),
    /// What comes before a message.
    Older(ConversationId, Result<Page, String>),
}

/// What the store holds.
#[derive(Debug, Default)]
pub struct Stored {
    /// Conversations, each with its newest messages.
    pub conversations: Vec<ConversationState>,
    /// Messages in the outbox.
    pub sending: Vec<(Nonce, Target, String)>,
    /// Marks of reading in the outbox.
    pub reading: Vec<(ConversationId, ConversationSeq)>,
}

/// Messages before a message.
#[derive(Debug)]
pub struct Page {
    /// Rising.
    pub messages: Vec<StoredMessage>,
    /// Whether there are more.
    pub more: bool,
}

/// What lies over the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// The keys.
    Help,
    /// A search for somebody.
    Find(Find),
}

#[derive(Debug)]
struct Notice {
    text: String,
    weight: Weight,
    /// Without an end it stays until it is put away.
    until: Option<Instant>,
}

/// The application.
#[derive(Debug)]
pub struct App {
    me: UserId,
    zone: Zone,
    now: Now,
    size: (u16, u16),
    /// Whether the terminal has the focus, as far as it says.
    focused: bool,
    rooms: Vec<Room>,
    by_user: HashMap<UserId, usize>,
    by_id: HashMap<ConversationId, usize>,
    online: BTreeSet<UserId>,
    open: Option<usize>,
    selected: Option<Entry>,
    pane: Pane,
    overlay: Option<Overlay>,
    connection: Connection,
    /// When the next attempt to connect is due.
    retry_at: Option<Instant>,
    was_connected: bool,
    notices: VecDeque<Notice>,
    locals: u64,
    unclaimed: VecDeque<Nonce>,
    loaded: bool,
    read_due: Option<Instant>,
    /// When it was last said that one types in the open conversation.
    typing_said: Option<Instant>,
    leaving: bool,
    actions: Vec<Action>,
}

impl App {
    /// An application that knows nothing yet.
    pub fn new(me: UserId, zone: Zone, now: Now, size: (u16, u16)) -> Self {
        Self {
            me,
            zone,
            now,
            size,
            focused: true,
            rooms: Vec::new(),
            by_user: HashMap::new(),
            by_id: HashMap::new(),
            online: BTreeSet::new(),
            open: None,
            selected: None,
            pane: Pane::People,
            overlay: None,
            connection: Connection::Connecting { attempt: 1, why: None },
            retry_at: None,
            was_connected: false,
            notices: VecDeque::new(),
            locals: 0,
            unclaimed: VecDeque::new(),
            loaded: false,
            read_due: None,
            typing_said: None,
            leaving: false,
            actions: vec![Action::Load],
        }
    }

    /// Something came in.
    pub fn on(&mut self, input: Input, now: Now) {
        self.now = now;
        match input {
            Input::Key(key) => self.on_key(key),
            Input::Paste(text) => self.on_paste(&text),
            Input::Mouse(mouse) => self.on_mouse(mouse),
            Input::Resize(width, height) => self.size = (width, height),
            Input::Focus(focused) => self.focused = focused,
            Input::Event(event) => self.on_event(event),
            Input::Told(told) => self.on_told(told),
            Input::Signal(signal) => self.on_signal(signal),
            Input::Reset(reason) => self.on_reset(reason),
            Input::Snapshot => self.on_snapshot(),
            Input::Disagreement(text) => self.tell(format!("This device and the server disagreed: {text}"), Weight::Grave),
            Input::Connection(connection) => self.on_connection(connection),
            Input::Done(done) => self.on_done(done),
            Input::Tick => {}
        }
        self.settle();
    }

    /// Whether somebody looks at the screen, as far as the terminal says.
    pub fn is_focused(&self) -> bool {
        self.focused
    }

    /// What is to be done; each is told once.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When there is something to do although nothing came in.
    pub fn wake(&self) -> Option<Instant> {
        let notices = self.notices.front().and_then(|notice| notice.until);
        // The countdown is shown in whole seconds.
        let countdown = self.retry_at.filter(|at| *at > self.now.at).map(|at| {
            let left = at.duration_since(self.now.at);
            self.now.at + Duration::from_nanos(u64::from(left.subsec_nanos()).max(1_000_000))
        });
        let typing = self.rooms.iter().filter_map(Room::typing_ends).min();
        [notices, countdown, typing, self.read_due].into_iter().flatten().min()
    }

    /// Whether the user wants to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether the stored conversations are known: only then is what comes after them taken in.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Why it is over, if it is.
    pub fn ended(&self) -> Option<Option<&EndReason>> {
        match &self.connection {
            Connection::Ended { error } => Some(error.as_ref()),
            _ => None,
        }
    }

    /// Whether there was a session in this run.
    pub fn was_connected(&self) -> bool {
        self.was_connected
    }

    /// The conversation that is open.
    pub fn room(&self) -> Option<&Room> {
        self.open.and_then(|index| self.rooms.get(index))
    }

    fn room_mut(&mut self) -> Option<&mut Room> {
        self.open.and_then(|index| self.rooms.get_mut(index))
    }

    /// Which part of the screen is what.
    pub fn geometry(&self) -> Geometry {
        let (width, height) = self.size;
        let draft = self.room().map_or(1, |room| room.composer.rows(composer_columns(width).into()));
        Geometry::new(width, height, self.pane, draft)
    }

    /// The columns of the draft.
    pub fn composer_columns(&self) -> usize {
        composer_columns(self.size.0).into()
    }

    /// The open conversation as it is shown.
    pub fn layout(&self) -> Option<Layout<'_>> {
        let area = self.geometry().thread;
        let Self { me, zone, now, .. } = self;
        let online = matches!(self.connection, Connection::Connected { .. });
        Some(Layout { room: self.room()?, me, zone, now: now.time, online, width: area.width, height: area.height })
    }

    /// Whether what comes at the end of the open conversation is seen.
    fn is_watching(&self) -> bool {
        let at_bottom = self.room().is_some_and(|room| room.scroll == Scroll::Bottom);
        at_bottom && self.focused && self.overlay.is_none() && !self.geometry().thread.is_empty()
    }

    /// Draws the conclusions from whatever happened.
    fn settle(&mut self) {
        let now = self.now.at;
        while self.notices.front().is_some_and(|notice| notice.until.is_some_and(|until| until <= now)) {
            self.notices.pop_front();
        }
        for room in &mut self.rooms {
            room.expire_typing(now);
        }
        if let Some(scroll) = self.layout().map(|layout| layout.normal())
            && let Some(room) = self.room_mut()
        {
            room.scroll = scroll;
            room.trim();
        }
        self.see();
        self.load_older();
        if self.read_due.is_some_and(|due| due <= now) {
            self.tell_read();
        }
    }

    /// What is in view and at the end was read.
    fn see(&mut self) {
        if !self.is_watching() {
            return;
        }
        let (me, due) = (self.me.clone(), self.now.at + READ_DELAY);
        let Some(room) = self.room_mut() else { return };
        let newest = room.newest();
        if room.unread(&me) > 0 {
            room.raise_read(&me, newest);
            self.read_due.get_or_insert(due);
        }
    }

    /// Has everything told that was read and was not told.
    pub fn tell_read(&mut self) {
        self.read_due = None;
        for room in &mut self.rooms {
            let read = room.read_by(&self.me);
            if let Some(id) = room.id
                && read > room.told
            {
                room.told = read;
                self.actions.push(Action::MarkRead(id, read));
            }
        }
    }

    fn load_older(&mut self) {
        let near = self.layout().is_some_and(|layout| layout.above() < LOAD_AHEAD);
        if !near || !self.loaded {
            return;
        }
        let Some(room) = self.room_mut() else { return };
        if let (Older::More, Some(id)) = (room.older, room.id) {
            room.older = Older::Loading;
            let action = Action::Older(id, room.oldest());
            self.actions.push(action);
        }
    }

    /// Says something in the status line.
    fn tell(&mut self, text: String, weight: Weight) {
        // What was lost is told until it is put away.
        let until = (weight != Weight::Grave).then(|| self.now.at + NOTICE_FOR);
        if self.notices.len() >= NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(Notice { text: text::clean_line(&text), weight, until });
    }

    /// Sends the draft.
    fn send(&mut self) {
        let Some(room) = self.room_mut() else { return };
        let text = room.composer.text().trim_end().to_owned();
        if text.trim().is_empty() {
            return;
        }
        if text.len() > MAX_TEXT {
            let notice = format!("This message has {} bytes, at most {MAX_TEXT} are allowed: shorten it", text.len());
            return self.tell(notice, Weight::Warning);
        }
        room.composer.take();
        room.scroll = Scroll::Bottom;
        room.divider = None;
        self.typing_said = None;
        self.submit(text);
    }

    fn submit(&mut self, text: String) {
        self.locals += 1;
        let (local, time) = (self.locals, self.now.time);
        let Some(room) = self.room_mut() else { return };
        let Some(to) = room.target() else { return };
        let shown = text::clean(&text);
        room.pending.push(Pending { local, nonce: None, time: Some(time), text: text.clone(), shown, fate: Fate::Sending });
        self.actions.push(Action::Send { local, to, text });
    }

    /// Sends what was refused once more.
    fn retry(&mut self) {
        for text in self.take_refused() {
            self.submit(text);
        }
    }

    /// Puts what was refused back into the draft.
    fn take_back(&mut self) {
        let texts = self.take_refused().join("\n");
        if let Some(room) = self.room_mut()
            && !texts.is_empty()
        {
            room.composer.insert(&texts);
        }
    }

    fn take_refused(&mut self) -> Vec<String> {
        let Some(room) = self.room_mut() else { return Vec::new() };
        let (refused, rest) = std::mem::take(&mut room.pending).into_iter().partition(|pending| pending.fate != Fate::Sending);
        room.pending = rest;
        let refused: Vec<Pending> = refused;
        refused.into_iter().map(|pending| pending.text).collect()
    }

    /// Says that one types, or has stopped, as the draft is now.
    fn say_typing(&mut self) {
        let now = self.now.at;
        let Some(room) = self.room() else { return };
        let Some(to) = room.target() else { return };
        let active = !room.composer.is_empty();
        let due = self.typing_said.is_none_or(|said| now.duration_since(said) >= TYPING_EVERY);
        match (active, self.typing_said) {
            (true, _) if due => {
                self.typing_said = Some(now);
                self.actions.push(Action::Typing(to, true));
            }
            (false, Some(_)) => {
                self.typing_said = None;
                self.actions.push(Action::Typing(to, false));
            }
            _ => {}
        }
    }
}
