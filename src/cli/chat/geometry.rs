//! Which part of the screen is what. Keys, mouse and drawing agree because they all ask here.

use ratatui::layout::Rect;

/// Below so many columns there is one pane at a time.
pub const TWO_PANES: u16 = 60;
/// Rows that a draft may take.
const COMPOSER_MAX: u16 = 6;
/// Columns of the composer that are not text: an empty one, the prompt, and an empty one at the end.
const PROMPT: u16 = 4;

/// What has the keyboard, and on a narrow screen, what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// The list.
    People,
    /// The conversation.
    Thread,
}

/// The screen, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The list's title.
    pub people_title: Rect,
    /// The list.
    pub people: Rect,
    /// Rows of one person in the list.
    pub entry: u16,
    /// Between list and conversation.
    pub border: Rect,
    /// The conversation's title.
    pub title: Rect,
    /// The conversation.
    pub thread: Rect,
    /// Between conversation and composer: who types, what is new.
    pub rule: Rect,
    /// The composer.
    pub composer: Rect,
    /// The last row.
    pub status: Rect,
}

/// The columns that a draft has, on a screen of this width.
pub fn composer_columns(width: u16) -> u16 {
    (width - people_width(width)).saturating_sub(PROMPT).max(4)
}

/// The columns of list and border.
fn people_width(width: u16) -> u16 {
    if width < TWO_PANES { 0 } else { (width * 3 / 10).clamp(22, 34) + 1 }
}

impl Geometry {
    /// Divides a screen; the draft has so many rows.
    pub fn new(width: u16, height: u16, pane: Pane, draft: usize) -> Self {
        let narrow = width < TWO_PANES;
        let body = height.saturating_sub(1);
        let title = 1.min(body);
        let left = match (narrow, pane) {
            (false, _) => people_width(width) - 1,
            (true, Pane::People) => width,
            (true, Pane::Thread) => 0,
        };
        let border = u16::from(!narrow);
        let (x, right) = match (narrow, pane) {
            (true, Pane::People) => (width, 0),
            _ => (left + border, width.saturating_sub(left + border)),
        };
        let composer = u16::try_from(draft).unwrap_or(COMPOSER_MAX).clamp(1, COMPOSER_MAX).min((body / 3).max(1));
        let bottom = body.saturating_sub(composer);
        let rule = bottom.saturating_sub(1).max(title);
        let list = body.saturating_sub(title);
        Self {
            people_title: Rect::new(0, 0, left, title),
            people: Rect::new(0, title, left, list),
            entry: if list >= 14 { 2 } else { 1 },
            border: Rect::new(left, 0, border, body),
            title: Rect::new(x, 0, right, title),
            thread: Rect::new(x, title, right, rule - title),
            rule: Rect::new(x, rule, right, bottom.saturating_sub(rule)),
            composer: Rect::new(x, bottom.max(title), right, body.saturating_sub(bottom.max(title))),
            status: Rect::new(0, body, width, height - body),
        }
    }

    /// How many people fit into the list.
    pub fn entries(&self) -> usize {
        usize::from(self.people.height / self.entry)
    }

    /// The first person of the list that is shown, so that this one is.
    pub fn first_entry(&self, selected: usize) -> usize {
        (selected + 1).saturating_sub(self.entries().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_stays_on_the_screen() {
        for width in 0..130 {
            for height in 0..40 {
                for pane in [Pane::People, Pane::Thread] {
                    let geometry = Geometry::new(width, height, pane, 9);
                    let screen = Rect::new(0, 0, width, height);
                    let Geometry { people_title, people, border, title, thread, rule, composer, status, .. } = geometry;
                    for part in [people_title, people, border, title, thread, rule, composer, status] {
                        assert!(part.is_empty() || screen.union(part) == screen, "{width}x{height}: {part:?}");
                    }
                    assert!(thread.bottom() <= rule.y && rule.bottom() <= composer.y && composer.bottom() <= status.y);
                }
            }
        }
    }

    #[test]
    fn there_is_room_to_read_on_the_smallest_screen() {
        let geometry = Geometry::new(40, 10, Pane::Thread, 1);
        assert_eq!((geometry.thread.width, geometry.thread.height), (40, 6));
        assert_eq!(Geometry::new(40, 10, Pane::Thread, 20).thread.height, 4);
        assert_eq!(Geometry::new(40, 10, Pane::People, 1).entries(), 8);
    }
}
