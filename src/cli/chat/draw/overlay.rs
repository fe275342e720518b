//! What lies over the rest: the help, and the search.

use super::{Theme, clear, put, within};
use crate::cli::chat::app::{App, Candidate, Find, HELP};
use crate::cli::chat::text;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Widget};

/// An empty box in the middle of the screen; what is left within it.
fn frame(title: &str, width: u16, height: u16, theme: &Theme, screen: Rect, buffer: &mut Buffer) -> Rect {
    let (width, height) = (width.min(screen.width), height.min(screen.height));
    let area = Rect::new(screen.x + (screen.width - width) / 2, screen.y + (screen.height - height) / 2, width, height);
    clear(buffer, area);
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(theme.dim).title(format!(" {title} "));
    let inner = block.inner(area);
    block.render(area, buffer);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
}

pub(super) fn help(theme: &Theme, screen: Rect, buffer: &mut Buffer) {
    let rows = u16::try_from(HELP.len()).unwrap_or(u16::MAX);
    let keys = HELP.iter().map(|(key, _)| text::width(key)).max().unwrap_or(0);
    let area = frame("Keys", 58, rows + 2, theme, screen, buffer);
    // Where there is no room for two columns, what a key does goes next to it.
    let column = if area.width < 50 { 0 } else { keys + 2 };
    for (y, (key, what)) in (area.y..area.bottom()).zip(HELP) {
        let row = Rect { y, height: 1, ..area };
        let used = put(buffer, row, key, theme.accent.patch(theme.strong)) - row.x;
        let at = used.saturating_add(1).max(u16::try_from(column).unwrap_or(0));
        let rest = Rect { x: row.x + at, width: row.width.saturating_sub(at), ..row };
        put(buffer, rest, &text::fit(what, rest.width.into()), Style::new());
    }
}

pub(super) fn find(app: &App, find: &Find, theme: &Theme, screen: Rect, buffer: &mut Buffer) -> Position {
    let found = app.found(find);
    let height = screen.height.saturating_sub(2).clamp(5, 14);
    let area = frame("Jump to", 46, height, theme, screen, buffer);
    let query = Rect { height: area.height.min(1), ..area };
    let shown = text::clean_line(&find.query);
    // The end of what was typed stays in view.
    let skip = text::width(&shown).saturating_sub(usize::from(query.width).saturating_sub(4));
    let mut visible = shown.as_str();
    while text::width(&shown) - text::width(visible) < skip {
        let mut chars = visible.chars();
        chars.next();
        visible = chars.as_str();
    }
    let start = put(buffer, query, "› ", theme.accent.patch(theme.strong));
    let rest = Rect { x: start, width: query.right().saturating_sub(start), ..query };
    if visible.is_empty() {
        put(buffer, rest, "a name", theme.dim);
    }
    put(buffer, rest, visible, Style::new());
    let list = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let first = (find.chosen + 1).saturating_sub(list.height.into());
    for (y, (index, candidate)) in (list.y..list.bottom()).zip(found.iter().enumerate().skip(first)) {
        let row = Rect { y, height: 1, ..list };
        let chosen = index == find.chosen;
        put(buffer, row, if chosen { "▌" } else { " " }, theme.accent);
        let row = Rect { x: row.x + 2, width: row.width.saturating_sub(2), ..row };
        let style = if chosen { theme.strong } else { Style::new() };
        match candidate {
            Candidate::Known(entry) => {
                let (dot, dot_style) = if app.entry_online(entry) { ("● ", theme.accent) } else { ("○ ", theme.dim) };
                let x = put(buffer, row, dot, dot_style);
                let rest = Rect { x, width: row.right().saturating_sub(x), ..row };
                put(buffer, rest, &text::fit(&app.entry_title(entry), rest.width.into()), style);
            }
            Candidate::New(user) => {
                let words = format!("Begin with “{}”", text::clean_line(user.as_str()));
                put(buffer, row, &text::fit(&words, row.width.into()), style);
            }
        }
    }
    if found.is_empty() {
        let words = if find.query.is_empty() { "Type a name, then Enter" } else { "That cannot be a name" };
        put(buffer, Rect { height: list.height.min(1), ..list }, words, theme.dim);
    }
    within(rest, text::width(visible), 0)
}
