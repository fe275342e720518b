//! From the application to the screen. Nothing here changes anything.

mod overlay;
mod people;
#[cfg(test)]
mod tests;
mod thread;

use super::app::{App, Overlay, Weight};
use super::geometry::Pane;
use super::text;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};

/// How things look: the terminal's own colours, one accent, and red for what may be lost.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    accent: Style,
    alarm: Style,
    dim: Style,
    strong: Style,
}

impl Theme {
    /// Without colours.
    pub fn plain() -> Self {
        let strong = Style::new().add_modifier(Modifier::BOLD);
        Self { accent: Style::new(), alarm: strong, dim: Style::new().add_modifier(Modifier::DIM), strong }
    }

    /// With an accent, which is readable on light and on dark: `rich` for terminals with 256 colours.
    pub fn coloured(rich: bool) -> Self {
        let accent = if rich { Color::Indexed(30) } else { Color::Cyan };
        Self { accent: Style::new().fg(accent), alarm: Style::new().fg(Color::Red), ..Self::plain() }
    }

    /// As the environment says: `NO_COLOR`, `TERM` and `COLORTERM`.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let term = variable("TERM").is_some_and(|term| term.to_string_lossy().contains("256color"));
        match variable("NO_COLOR") {
            Some(_) => Self::plain(),
            None => Self::coloured(term || variable("COLORTERM").is_some()),
        }
    }

    fn weight(&self, weight: Weight) -> Style {
        match weight {
            Weight::Quiet => self.dim,
            Weight::Warning => Style::new(),
            Weight::Grave => self.alarm,
        }
    }
}

/// Draws everything.
pub fn draw(app: &App, theme: &Theme, frame: &mut Frame<'_>) {
    let geometry = app.geometry();
    let screen = frame.area();
    // A frame of another size than was last told of: the news of that is on its way.
    let whole = [geometry.people, geometry.border, geometry.thread, geometry.composer, geometry.status];
    if whole.iter().any(|part| screen.union(*part) != screen && !part.is_empty()) {
        return;
    }
    let buffer = frame.buffer_mut();
    people::draw(app, theme, &geometry, buffer);
    for y in geometry.border.top()..geometry.border.bottom() {
        put(buffer, Rect::new(geometry.border.x, y, geometry.border.width, 1), "│", theme.dim);
    }
    thread::draw(app, theme, &geometry, buffer);
    status(app, theme, geometry.status, buffer);
    match app.overlay() {
        Some(Overlay::Help) => overlay::help(theme, screen, buffer),
        Some(Overlay::Find(find)) => {
            let cursor = overlay::find(app, find, theme, screen, buffer);
            frame.set_cursor_position(cursor);
            return;
        }
        None => {}
    }
    if app.pane() == Pane::Thread
        && !geometry.composer.is_empty()
        && let Some(cursor) = thread::cursor(app, &geometry)
    {
        frame.set_cursor_position(cursor);
    }
}

/// The last row: what is to be told on the left, the connection on the right.
fn status(app: &App, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let brief = area.width < super::geometry::TWO_PANES;
    let connection = app.connection_words(brief);
    let (words, weight) = app.status();
    let right = u16::try_from(text::width(&connection)).unwrap_or(u16::MAX).min(area.width.saturating_sub(1));
    let style = if app.is_connected() { theme.accent } else { theme.strong };
    // What may be lost is told in full, if need be over the connection.
    let grave = weight == Weight::Grave;
    let left = if grave { area.width.saturating_sub(1) } else { area.width.saturating_sub(right + 4) };
    let shown = text::fit(&words, left.into());
    let used = u16::try_from(text::width(&shown)).unwrap_or(left);
    put(buffer, Rect::new(area.x + 1, area.y, left, 1).intersection(area), &shown, theme.weight(weight));
    if used + right + 3 < area.width {
        put(buffer, Rect::new(area.right() - right - 1, area.y, right, 1), &connection, style);
    } else if !grave {
        put(buffer, Rect::new(area.x + 1, area.y, area.width.saturating_sub(1), 1), &text::fit(&connection, area.width.into()), style);
    }
}

/// Writes one row of text, which is fit for the terminal, as far as there is room. Returns where it ends.
fn put(buffer: &mut Buffer, area: Rect, text: &str, style: Style) -> u16 {
    if area.is_empty() || !buffer.area.contains(area.as_position()) {
        return area.x;
    }
    buffer.set_stringn(area.x, area.y, text, area.width.into(), style).0
}

/// The cells of a part of the screen as if nothing had been drawn.
fn clear(buffer: &mut Buffer, area: Rect) {
    for position in area.intersection(buffer.area).positions() {
        if let Some(cell) = buffer.cell_mut(position) {
            cell.reset();
        }
    }
}

/// A point within a rectangle, however small it is.
fn within(area: Rect, column: usize, row: usize) -> Position {
    let clamp = |value: usize, size: u16| u16::try_from(value).unwrap_or(u16::MAX).min(size.saturating_sub(1));
    Position::new(area.x + clamp(column, area.width), area.y + clamp(row, area.height))
}
