//! The list of people and conversations.

use super::{Theme, put};
use crate::cli::chat::app::{App, Entry};
use crate::cli::chat::geometry::{Geometry, Pane};
use crate::cli::chat::room::Room;
use crate::cli::chat::text;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

pub(super) fn draw(app: &App, theme: &Theme, geometry: &Geometry, buffer: &mut Buffer) {
    let (title, area) = (geometry.people_title, geometry.people);
    if area.is_empty() {
        return;
    }
    let name = text::clean_line(app.me().as_str());
    let used = put(buffer, inner(title), "whimbrel", theme.accent.patch(theme.strong));
    put(buffer, Rect { x: used + 1, width: title.right().saturating_sub(used + 1), ..title }, &name, theme.dim);
    let entries = app.entries();
    let selected = app.selected(&entries);
    if entries.is_empty() {
        let row = |y| Rect { y, height: 1, ..inner(area) }.intersection(area);
        let words = if app.is_loaded() { ["Nobody is here yet.", "Tab: begin with a name"] } else { ["Loading…", ""] };
        put(buffer, row(area.y), words[0], theme.dim);
        put(buffer, row(area.y + 1), words[1], theme.dim);
    }
    let first = geometry.first_entry(selected.unwrap_or(0));
    for (place, (index, entry)) in entries.iter().enumerate().skip(first).take(geometry.entries()).enumerate() {
        let y = area.y + u16::try_from(place).unwrap_or(0) * geometry.entry;
        let rows = Rect { y, height: geometry.entry, ..area };
        draw_entry(app, theme, entry, selected == Some(index), rows, buffer);
    }
}

fn inner(area: Rect) -> Rect {
    Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area }
}

fn draw_entry(app: &App, theme: &Theme, entry: &Entry, selected: bool, area: Rect, buffer: &mut Buffer) {
    let room = app.entry_room(entry);
    let unread = room.map_or(0, |room| room.unread(app.me()));
    let row = |y: u16, from: u16, to: u16| Rect::new(area.x + from, area.y + y, area.width.saturating_sub(from + to), 1);
    if selected {
        // The bar is enough where the keyboard is elsewhere.
        let focused = app.pane() == Pane::People;
        for y in 0..area.height {
            put(buffer, Rect { width: 1, height: 1, y: area.y + y, ..area }, if focused { "▌" } else { "▏" }, theme.accent);
        }
    }
    if app.entry_online(entry) {
        put(buffer, row(0, 1, 0), "●", theme.accent);
    } else {
        put(buffer, row(0, 1, 0), "○", theme.dim);
    }
    let when = room.filter(|room| !room.messages.is_empty() || !room.pending.is_empty());
    let when = when.and_then(Room::latest).map(|latest| app.zone().brief(latest, app.now().time)).unwrap_or_default();
    let badge = if unread > 0 { format!(" {} ", badge(unread)) } else { String::new() };
    let right_text = if area.height == 1 && unread > 0 { &badge } else { &when };
    let right = columns(right_text);
    let name_style = if unread > 0 || selected { theme.strong } else { ratatui::style::Style::new() };
    let name = row(0, 3, right + 2);
    put(buffer, name, &text::fit(&app.entry_title(entry), name.width.into()), name_style);
    let badge_style = theme.accent.add_modifier(Modifier::REVERSED);
    let right_style = if area.height == 1 && unread > 0 { badge_style } else { theme.dim };
    put(buffer, row(0, area.width.saturating_sub(right + 1), 1), right_text, right_style);
    if area.height > 1 {
        let right = columns(&badge);
        let preview = row(1, 3, right + 2);
        put(buffer, preview, &text::fit(&preview_text(app, room), preview.width.into()), theme.dim);
        put(buffer, row(1, area.width.saturating_sub(right + 1), 1), &badge, badge_style);
    }
}

fn columns(text: &str) -> u16 {
    u16::try_from(text::width(text)).unwrap_or(u16::MAX)
}

/// A number of messages, short.
fn badge(count: usize) -> String {
    if count > 99 { "99+".into() } else { count.to_string() }
}

fn preview_text(app: &App, room: Option<&Room>) -> String {
    let Some(room) = room else { return "online".into() };
    if room.typists().next().is_some() {
        return "typing…".into();
    }
    if !room.composer.is_empty() && app.room().is_none_or(|open| !std::ptr::eq(open, room)) {
        return format!("Draft: {}", text::clean_line(room.composer.text()));
    }
    match room.preview() {
        Some((None, said)) => format!("You: {}", said.replace('\n', " ")),
        Some((Some(from), said)) if from == app.me() => format!("You: {}", said.replace('\n', " ")),
        Some((_, said)) => said.replace('\n', " "),
        None => String::new(),
    }
}
