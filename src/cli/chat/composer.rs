//! The field in which a message is written.

use super::text;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// Bytes that a draft may have: more than any message, so that what is too long can be shortened.
const BYTES_MAX: usize = 256 * 1024;

/// A draft, and where its cursor is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Composer {
    text: String,
    /// Between two characters, as a byte.
    cursor: usize,
    /// The column that moving up and down tries to keep.
    goal: Option<usize>,
}

/// What a draft looks like in so many columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The rows, fit for the terminal.
    pub rows: Vec<String>,
    /// Row and column of the cursor.
    pub cursor: (usize, usize),
}

impl Composer {
    /// What was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the draft out.
    pub fn take(&mut self) -> String {
        std::mem::take(self).text
    }

    /// Writes at the cursor. Returns whether it fits.
    pub fn insert(&mut self, written: &str) -> bool {
        let written = written.replace("\r\n", "\n").replace('\r', "\n");
        let written: String = written.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        if self.text.len() + written.len() > BYTES_MAX {
            return false;
        }
        self.text.insert_str(self.cursor, &written);
        self.move_to(self.cursor + written.len());
        true
    }

    fn move_to(&mut self, cursor: usize) {
        self.cursor = cursor;
        self.goal = None;
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        self.cursor + self.text[self.cursor..].graphemes(true).next().map_or(0, str::len)
    }

    fn word_before(&self) -> usize {
        let mut words = self.text[..self.cursor].unicode_word_indices();
        words.next_back().map_or(0, |(at, _)| at)
    }

    fn word_after(&self) -> usize {
        let mut words = self.text[self.cursor..].unicode_word_indices();
        words.next().map_or(self.text.len(), |(at, word)| self.cursor + at + word.len())
    }

    fn line_start(&self) -> usize {
        self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self) -> usize {
        self.text[self.cursor..].find('\n').map_or(self.text.len(), |at| self.cursor + at)
    }

    fn remove(&mut self, range: Range<usize>) {
        let start = range.start;
        self.text.drain(range);
        self.move_to(start);
    }

    /// Removes the character before the cursor.
    pub fn backspace(&mut self) {
        self.remove(self.before()..self.cursor);
    }

    /// Removes the character after the cursor.
    pub fn delete(&mut self) {
        self.remove(self.cursor..self.after());
    }

    /// Removes the word before the cursor.
    pub fn delete_word(&mut self) {
        self.remove(self.word_before()..self.cursor);
    }

    /// Removes what stands before the cursor on its line.
    pub fn delete_to_start(&mut self) {
        self.remove(self.line_start()..self.cursor);
    }

    /// Removes what stands after the cursor on its line.
    pub fn delete_to_end(&mut self) {
        self.remove(self.cursor..self.line_end());
    }

    /// Moves a character, or a word, to the left.
    pub fn left(&mut self, word: bool) {
        self.move_to(if word { self.word_before() } else { self.before() });
    }

    /// Moves a character, or a word, to the right.
    pub fn right(&mut self, word: bool) {
        self.move_to(if word { self.word_after() } else { self.after() });
    }

    /// Moves to the beginning of the line.
    pub fn home(&mut self) {
        self.move_to(self.line_start());
    }

    /// Moves to the end of the line.
    pub fn end(&mut self) {
        self.move_to(self.line_end());
    }

    /// Moves a row up or down, as it is shown. Returns whether there was one.
    pub fn vertical(&mut self, down: bool, columns: usize) -> bool {
        let rows = self.wrap(columns);
        let row = self.row(&rows);
        let next = if down { row.checked_add(1).filter(|next| *next < rows.len()) } else { row.checked_sub(1) };
        let Some(next) = next else { return false };
        let goal = self.goal.unwrap_or_else(|| measure_all(&self.text[rows[row].start..self.cursor]));
        let mut cursor = rows[next].start;
        let mut column = 0;
        for grapheme in self.text[rows[next].clone()].graphemes(true) {
            column += measure(grapheme);
            // The end of a row that is broken within a line is the beginning of the next one.
            let end = cursor + grapheme.len();
            if column > goal || (end == rows[next].end && rows.get(next + 1).is_some_and(|row| row.start == end)) {
                break;
            }
            cursor = end;
        }
        self.cursor = cursor;
        self.goal = Some(goal);
        true
    }

    fn wrap(&self, columns: usize) -> Vec<Range<usize>> {
        // The last column is the cursor's.
        text::wrap_by(&self.text, columns.saturating_sub(1).max(2), measure)
    }

    fn row(&self, rows: &[Range<usize>]) -> usize {
        rows.iter().rposition(|row| row.start <= self.cursor).unwrap_or(0)
    }

    /// How it looks in so many columns.
    pub fn show(&self, columns: usize) -> Shown {
        let rows = self.wrap(columns);
        let row = self.row(&rows);
        let column = measure_all(&self.text[rows[row].start..self.cursor]).min(columns.saturating_sub(1));
        let rows = rows.into_iter().map(|row| self.text[row].graphemes(true).map(text::clean_line).collect()).collect();
        Shown { rows, cursor: (row, column) }
    }

    /// How many rows it has in so many columns.
    pub fn rows(&self, columns: usize) -> usize {
        self.wrap(columns).len()
    }
}

/// How wide a character is, as it is shown.
fn measure(grapheme: &str) -> usize {
    match grapheme.as_bytes() {
        [b' '..=b'~'] => 1,
        _ => text::width(&text::clean_line(grapheme)),
    }
}

fn measure_all(text: &str) -> usize {
    text.graphemes(true).map(measure).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composer(text: &str) -> Composer {
        let mut composer = Composer::default();
        assert!(composer.insert(text));
        composer
    }

    #[test]
    fn the_cursor_moves_by_characters_as_people_see_them() {
        let mut composer = composer("añ👩🏽日");
        composer.left(false);
        composer.left(false);
        composer.backspace();
        assert_eq!(composer.text(), "a👩🏽日");
        composer.delete();
        assert_eq!(composer.text(), "a日");
        composer.right(false);
        composer.right(false);
        composer.insert("!");
        assert_eq!(composer.text(), "a日!");
    }

    #[test]
    fn words_and_lines_go_as_a_whole() {
        let mut composer = composer("one two\nthree four");
        composer.delete_word();
        assert_eq!(composer.text(), "one two\nthree ");
        composer.left(true);
        composer.delete_to_end();
        assert_eq!(composer.text(), "one two\n");
        composer.left(false);
        composer.delete_to_start();
        assert_eq!(composer.text(), "\n");
    }

    #[test]
    fn what_is_pasted_brings_no_control_characters() {
        let composer = composer("a\u{1b}[31mb\r\nc\rd\te");
        assert_eq!(composer.text(), "a[31mb\nc\nd\te");
        assert_eq!(composer.show(20).rows, ["a[31mb", "c", "d    e"]);
    }

    #[test]
    fn moving_up_and_down_keeps_the_column() {
        let mut composer = composer("abcdef\nab\nabcdef");
        composer.left(false);
        assert!(composer.vertical(false, 20));
        assert_eq!(composer.show(20).cursor, (1, 2));
        assert!(composer.vertical(false, 20));
        assert_eq!(composer.show(20).cursor, (0, 5));
        assert!(!composer.vertical(false, 20));
        assert!(composer.vertical(true, 20));
        assert!(composer.vertical(true, 20));
        assert!(!composer.vertical(true, 20));
        assert_eq!(composer.show(20).cursor, (2, 5));
    }

    #[test]
    fn rows_are_wrapped_and_the_cursor_is_within() {
        let mut composer = composer("hello brave new world");
        assert_eq!(composer.show(10).rows, ["hello ", "brave new ", "world"]);
        assert!(composer.vertical(false, 10));
        assert_eq!(composer.show(10).cursor, (1, 5));
        for columns in 1..12 {
            for _ in 0..30 {
                let (row, column) = composer.show(columns).cursor;
                assert!(row < composer.rows(columns) && column < columns);
                composer.left(false);
            }
            composer.end();
        }
    }

    #[test]
    fn a_draft_has_an_end() {
        let mut composer = composer(&"x".repeat(BYTES_MAX));
        assert!(!composer.insert("y"));
        assert_eq!(composer.text().len(), BYTES_MAX);
    }
}
