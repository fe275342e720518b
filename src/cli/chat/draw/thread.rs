//! The open conversation.

use super::{Theme, put, within};
use crate::cli::chat::app::App;
use crate::cli::chat::geometry::{Geometry, Pane, TWO_PANES};
use crate::cli::chat::room::{Mark, Room};
use crate::cli::chat::text;
use crate::cli::chat::thread::{Row, SIDE};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};

/// Columns before the text of the draft.
const PROMPT: u16 = 3;

pub(super) fn draw(app: &App, theme: &Theme, geometry: &Geometry, buffer: &mut Buffer) {
    let Some(room) = app.room() else { return nobody(app, theme, geometry.thread, buffer) };
    title(app, room, theme, geometry, buffer);
    messages(app, theme, geometry.thread, buffer);
    rule(app, theme, geometry.rule, buffer);
    composer(app, room, theme, geometry, buffer);
}

fn nobody(app: &App, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let words = if app.entries().is_empty() { "Tab begins a conversation" } else { "↑ ↓ and Enter open a conversation" };
    middle(buffer, Rect { y: area.y + area.height / 2, height: area.height.min(1), ..area }, words, theme.dim);
}

/// Writes in the middle of a row.
fn middle(buffer: &mut Buffer, area: Rect, words: &str, style: Style) {
    let words = text::fit(words, area.width.into());
    let used = u16::try_from(text::width(&words)).unwrap_or(area.width);
    let left = area.width.saturating_sub(used) / 2;
    put(buffer, Rect { x: area.x + left, width: area.width - left, ..area }, &words, style);
}

fn title(app: &App, room: &Room, theme: &Theme, geometry: &Geometry, buffer: &mut Buffer) {
    let area = geometry.title;
    let mut x = area.x + 1;
    let rest = |x: u16| Rect { x, width: area.right().saturating_sub(x + 1), ..area };
    if area.x == 0 && area.width < TWO_PANES {
        x = put(buffer, rest(x), "‹ ", theme.accent);
        let elsewhere = app.unread_elsewhere();
        if elsewhere > 0 {
            x = put(buffer, rest(x), &format!("{elsewhere} "), theme.accent.patch(theme.strong));
        }
    }
    let room_for_name = usize::from(rest(x).width.saturating_sub(12));
    x = put(buffer, rest(x), &text::fit(&room.title, room_for_name), theme.strong);
    let words = match &room.peer {
        Some(peer) if peer == app.me() => "notes to yourself",
        // Without a connection nobody can say.
        _ if !app.is_connected() => "",
        Some(_) if app.is_online(room) => "online",
        Some(_) => "offline",
        None => "",
    };
    let style = if words == "online" { theme.accent } else { theme.dim };
    put(buffer, rest(x + 1), words, style);
}

fn messages(app: &App, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let Some(layout) = app.layout() else { return };
    let rows = layout.view();
    if rows.is_empty() && app.is_loaded() {
        let area = Rect { y: area.y + area.height / 2, height: area.height.min(1), ..area };
        return middle(buffer, area, "Nothing was said here yet", theme.dim);
    }
    let text_width = layout.text_width();
    // The newest stand at the bottom, next to where one writes.
    let top = area.bottom() - u16::try_from(rows.len()).unwrap_or(area.height).min(area.height);
    for (y, row) in (top..area.bottom()).zip(rows) {
        let line = Rect::new(area.x + 1, y, area.width.saturating_sub(2), 1);
        match row {
            Row::Blank => {}
            Row::Note(words) => middle(buffer, line, &words, theme.dim),
            Row::Day(name) => ruled(buffer, line, &name, theme.dim),
            Row::New => ruled(buffer, line, "New", theme.accent),
            Row::Author { name, own } => {
                let style = if own { theme.accent.patch(theme.strong) } else { theme.strong };
                put(buffer, line, &text::fit(&name, line.width.into()), style);
            }
            Row::Text { text, time, mark } => {
                put(buffer, Rect { width: text_width.min(line.width), ..line }, &text, Style::new());
                let side = Rect { x: line.x + text_width + 1, width: SIDE, ..line }.intersection(line);
                put(buffer, side, &time.unwrap_or_else(|| "     ".into()), theme.dim);
                if let Some(mark) = mark {
                    let (shown, style) = mark_shown(mark, theme);
                    put(buffer, Rect { x: side.x + 6, width: side.width.saturating_sub(6), ..side }, shown, style);
                }
            }
        }
    }
}

fn mark_shown(mark: Mark, theme: &Theme) -> (&'static str, Style) {
    match mark {
        Mark::Refused => ("!", theme.alarm.patch(theme.strong)),
        Mark::Sending => ("·", theme.dim),
        Mark::Sent => ("✓", theme.dim),
        Mark::Delivered => ("✓✓", theme.dim),
        // Bold too: colour alone is not for everybody.
        Mark::Read => ("✓✓", theme.accent.patch(theme.strong)),
    }
}

/// A line with a word in the middle.
fn ruled(buffer: &mut Buffer, area: Rect, word: &str, style: Style) {
    line(buffer, area, style);
    middle(buffer, area, &format!(" {word} "), style);
}

fn line(buffer: &mut Buffer, area: Rect, style: Style) {
    put(buffer, area, &"─".repeat(area.width.into()), style);
}

/// Between conversation and composer: who types, and what is new further down.
fn rule(app: &App, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    line(buffer, area, theme.dim);
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    if let Some(words) = app.typing_words() {
        put(buffer, inner, &format!(" {} ", text::fit(&words, usize::from(inner.width).saturating_sub(14))), theme.accent);
    }
    let pill = match app.below() {
        None => return,
        Some(0) => " ↓ ".into(),
        Some(count) => format!(" {count} new ↓ "),
    };
    let width = u16::try_from(text::width(&pill)).unwrap_or(0).min(inner.width);
    put(buffer, Rect { x: inner.right() - width, width, ..inner }, &pill, theme.accent.add_modifier(Modifier::REVERSED));
}

fn composer(app: &App, room: &Room, theme: &Theme, geometry: &Geometry, buffer: &mut Buffer) {
    let area = geometry.composer;
    let shown = room.composer.show(app.composer_columns());
    let first = first_row(shown.cursor.0, area.height);
    let style = if app.pane() == Pane::Thread { theme.accent.patch(theme.strong) } else { theme.dim };
    put(buffer, Rect { x: area.x + 1, width: area.width.saturating_sub(1), ..area }, "›", style);
    let inner = Rect { x: area.x + PROMPT, width: area.width.saturating_sub(PROMPT), ..area };
    if room.composer.is_empty() {
        put(buffer, inner, "Message", theme.dim);
    }
    for (y, row) in (area.y..area.bottom()).zip(shown.rows.iter().skip(first)) {
        put(buffer, Rect { y, height: 1, ..inner }, row, Style::new());
    }
}

fn first_row(cursor: usize, height: u16) -> usize {
    (cursor + 1).saturating_sub(height.into())
}

/// Where the cursor of the draft is.
pub(super) fn cursor(app: &App, geometry: &Geometry) -> Option<Position> {
    let (row, column) = app.room()?.composer.show(app.composer_columns()).cursor;
    let area = geometry.composer;
    Some(within(area, column + usize::from(PROMPT), row - first_row(row, area.height)))
}
