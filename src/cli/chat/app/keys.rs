//! The keyboard and the mouse.

use super::{App, Find, Overlay};
use crate::cli::chat::geometry::Pane;
use crate::cli::chat::room::{Room, Scroll};
use crate::cli::chat::text;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

/// Rows that a turn of the wheel moves.
const WHEEL: i64 = 3;
/// Bytes of a search: longer than any name.
const QUERY_MAX: usize = 128;

/// What the help shows: keys, and what they do.
pub const HELP: &[(&str, &str)] = &[
    // On a small screen only the first of them fit.
    ("Enter", "send; in the list: open"),
    ("Alt+Enter  Ctrl+J", "new line"),
    ("Tab  Ctrl+K", "jump to somebody, or begin"),
    ("Esc", "back; put a notice away"),
    ("PgUp PgDn  wheel  ↑", "scroll"),
    ("Ctrl+R  Ctrl+X", "refused: send again, take back"),
    ("Ctrl+C  Ctrl+Q", "quit"),
    ("F1  ?", "this help"),
    ("Alt+↑  Alt+↓", "conversation before, after"),
    ("Ctrl+Home  Ctrl+End", "oldest, newest"),
    ("Ctrl+W  Ctrl+U  Ctrl+D", "delete word, to start, to end"),
    ("Shift+drag", "select text, in most terminals"),
];

impl App {
    pub(super) fn on_key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('c' | 'q') if control => self.leaving = true,
            KeyCode::F(1) => {
                self.overlay = if self.overlay == Some(Overlay::Help) { None } else { Some(Overlay::Help) };
            }
            _ => match self.overlay.take() {
                // Any key puts the help away.
                Some(Overlay::Help) => {}
                Some(Overlay::Find(find)) => self.on_find_key(find, key.code, control, alt),
                None => self.on_plain_key(key.code, control, alt),
            },
        }
    }

    fn on_plain_key(&mut self, code: KeyCode, control: bool, alt: bool) {
        match code {
            KeyCode::Tab => self.overlay = Some(Overlay::Find(Find::default())),
            KeyCode::Char('k') if control => self.overlay = Some(Overlay::Find(Find::default())),
            KeyCode::Up if alt => self.open_next(false),
            KeyCode::Down if alt => self.open_next(true),
            KeyCode::Esc => self.on_escape(),
            KeyCode::PageUp => self.page(-1),
            KeyCode::PageDown => self.page(1),
            KeyCode::Home if control => self.jump_to_top(),
            KeyCode::End if control => self.jump_to_end(),
            _ if self.pane == Pane::People || self.open.is_none() => self.on_list_key(code, control, alt),
            KeyCode::Char('r') if control => self.retry(),
            KeyCode::Char('x') if control => self.take_back(),
            KeyCode::Char('?') if !control && !alt && self.room().is_some_and(|room| room.composer.is_empty()) => {
                self.overlay = Some(Overlay::Help);
            }
            KeyCode::Enter if !alt => self.send(),
            _ => self.on_composer_key(code, control, alt),
        }
    }

    fn on_escape(&mut self) {
        if self.notices.front().is_some_and(|notice| notice.until.is_none()) {
            self.notices.pop_front();
        } else if self.pane == Pane::Thread {
            self.pane = Pane::People;
        } else if self.open.is_some() {
            self.pane = Pane::Thread;
        }
    }

    fn on_list_key(&mut self, code: KeyCode, control: bool, alt: bool) {
        match code {
            KeyCode::Up => self.select(false),
            KeyCode::Down => self.select(true),
            KeyCode::Enter | KeyCode::Right => self.open_selected(),
            KeyCode::Char('?') => self.overlay = Some(Overlay::Help),
            // Typing in the list looks for somebody.
            KeyCode::Char(c) if !control && !alt => self.overlay = Some(Overlay::Find(Find { query: c.into(), chosen: 0 })),
            _ => {}
        }
    }

    fn on_find_key(&mut self, mut find: Find, code: KeyCode, control: bool, alt: bool) {
        match code {
            KeyCode::Esc => return,
            KeyCode::Enter => {
                self.overlay = Some(Overlay::Find(find));
                return self.take_found();
            }
            KeyCode::Down | KeyCode::Tab => find.chosen += 1,
            KeyCode::Char('k' | 'n') if control => find.chosen += 1,
            KeyCode::Up | KeyCode::BackTab => find.chosen = find.chosen.saturating_sub(1),
            KeyCode::Char('p') if control => find.chosen = find.chosen.saturating_sub(1),
            KeyCode::Char('u') if control => find = Find::default(),
            KeyCode::Backspace => {
                find.query.pop();
                find.chosen = 0;
            }
            KeyCode::Char(c) if !control && !alt && find.query.len() < QUERY_MAX => {
                find.query.push(c);
                find.chosen = 0;
            }
            _ => {}
        }
        find.chosen = find.chosen.min(self.found(&find).len().saturating_sub(1));
        self.overlay = Some(Overlay::Find(find));
    }

    fn on_composer_key(&mut self, code: KeyCode, control: bool, alt: bool) {
        let columns = self.composer_columns();
        let Some(room) = self.room_mut() else { return };
        let composer = &mut room.composer;
        let word = control || alt;
        let mut fits = true;
        let mut changed = true;
        match code {
            KeyCode::Enter => fits = composer.insert("\n"),
            KeyCode::Char('j') if control => fits = composer.insert("\n"),
            KeyCode::Char('w') if control => composer.delete_word(),
            KeyCode::Char('u') if control => composer.delete_to_start(),
            // Ctrl+K jumps; this is the other half of Ctrl+U.
            KeyCode::Char('d') if control => composer.delete_to_end(),
            KeyCode::Char(c) if !control && !alt => fits = composer.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace if word => composer.delete_word(),
            KeyCode::Backspace => composer.backspace(),
            KeyCode::Delete => composer.delete(),
            code => {
                changed = false;
                match code {
                    KeyCode::Left => composer.left(word),
                    KeyCode::Right => composer.right(word),
                    KeyCode::Home => composer.home(),
                    KeyCode::Char('a') if control => composer.home(),
                    KeyCode::End if composer.is_empty() => return self.jump_to_end(),
                    KeyCode::End => composer.end(),
                    KeyCode::Char('e') if control => composer.end(),
                    KeyCode::Up if composer.is_empty() => return self.scroll(-1),
                    KeyCode::Down if composer.is_empty() => return self.scroll(1),
                    KeyCode::Up => drop(composer.vertical(false, columns)),
                    KeyCode::Down => drop(composer.vertical(true, columns)),
                    _ => {}
                }
            }
        }
        self.on_written(changed, fits);
    }

    fn on_written(&mut self, changed: bool, fits: bool) {
        if !fits {
            self.tell("That is more than a message can hold".into(), super::Weight::Warning);
        }
        if changed {
            self.say_typing();
        }
    }

    pub(super) fn on_paste(&mut self, pasted: &str) {
        if let Some(Overlay::Find(find)) = &mut self.overlay {
            let room = QUERY_MAX.saturating_sub(find.query.len());
            find.query.extend(text::clean_line(pasted).trim().chars().take(room / 4));
            find.chosen = 0;
            return;
        }
        self.overlay = None;
        if let Some(room) = self.room_mut() {
            let fits = room.composer.insert(pasted);
            self.pane = Pane::Thread;
            self.on_written(true, fits);
        }
    }

    pub(super) fn on_mouse(&mut self, mouse: MouseEvent) {
        let geometry = self.geometry();
        let at = Position::new(mouse.column, mouse.row);
        let in_list = geometry.people.contains(at);
        match mouse.kind {
            MouseEventKind::ScrollUp if in_list => self.select(false),
            MouseEventKind::ScrollDown if in_list => self.select(true),
            MouseEventKind::ScrollUp => self.scroll(-WHEEL),
            MouseEventKind::ScrollDown => self.scroll(WHEEL),
            MouseEventKind::Down(MouseButton::Left) if self.overlay.is_some() => self.overlay = None,
            MouseEventKind::Down(MouseButton::Left) if in_list => {
                let entries = self.entries();
                let first = geometry.first_entry(self.selected(&entries).unwrap_or(0));
                let index = first + usize::from((mouse.row - geometry.people.y) / geometry.entry);
                if let Some(entry) = entries.into_iter().nth(index) {
                    self.selected = Some(entry);
                    self.open_selected();
                }
            }
            MouseEventKind::Down(MouseButton::Left) if geometry.rule.contains(at) => self.jump_to_end(),
            MouseEventKind::Down(MouseButton::Left) if self.open.is_some() => self.pane = Pane::Thread,
            _ => {}
        }
    }

    /// Whether the open conversation is on the screen.
    fn shows_thread(&self) -> bool {
        !self.geometry().thread.is_empty()
    }

    fn page(&mut self, pages: i64) {
        // One row stays, to go on reading from.
        let height = i64::from(self.geometry().thread.height);
        self.scroll(pages * (height - 1).max(1));
    }

    fn scroll(&mut self, rows: i64) {
        self.set_scroll(|layout| layout.scrolled(rows));
    }

    fn jump_to_top(&mut self) {
        self.set_scroll(|layout| layout.first());
    }

    fn jump_to_end(&mut self) {
        self.set_scroll(|_| Scroll::Bottom);
    }

    fn set_scroll(&mut self, scroll: impl Fn(&crate::cli::chat::thread::Layout<'_>) -> Scroll) {
        if !self.shows_thread() {
            return;
        }
        let Some(scroll) = self.layout().map(|layout| scroll(&layout)) else { return };
        if let Some(room) = self.room_mut() {
            room.scroll = scroll;
        }
    }

    /// How many new messages are further down, when one is not at the end: `None` at the end.
    pub fn below(&self) -> Option<usize> {
        let room: &Room = self.room()?;
        (room.scroll != Scroll::Bottom).then(|| room.unread(&self.me))
    }
}
