//! Text of other people, made fit for a terminal: what it shows, how wide that is, and where it breaks.

use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Marks on one character that are shown; more of them smear over the lines above and below.
const MARKS_MAX: u32 = 4;
/// What a tabulator becomes.
const TAB: &str = "    ";

/// Text without anything that could move the cursor, turn the direction of what follows, or be wider than it says. Line breaks stay.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut marks = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => continue,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            '\t' => clean.push_str(TAB),
            // Control characters as their pictures: what somebody tried to do can be seen, and does nothing.
            '\0'..' ' => clean.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            '\u{7f}' => clean.push('\u{2421}'),
            '\u{80}'..='\u{9f}' => clean.push('\u{fffd}'),
            // They shape letters; between pictures they promise one picture where many terminals draw several.
            '\u{200c}' | '\u{200d}' if clean.ends_with(char::is_alphanumeric) || marks > 0 => clean.push(c),
            _ if is_hidden(c) => continue,
            _ if c.width() == Some(0) => {
                marks += 1;
                if marks <= MARKS_MAX {
                    if clean.is_empty() || clean.ends_with('\n') {
                        clean.push('\u{25cc}');
                    }
                    clean.push(c);
                }
                continue;
            }
            _ => clean.push(c),
        }
        marks = 0;
    }
    clean
}

/// [`clean`], on one line.
pub fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// Characters that are not seen and change what is: direction, joining, the form of an emoji, tags.
const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// How many columns the text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text, cut to so many columns; an ellipsis says so.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += width(grapheme);
        // One column is the ellipsis's.
        if used >= columns {
            break;
        }
        cut.push_str(grapheme);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Where the text breaks into rows of so many columns: at spaces, after wide characters, and within words that are longer than a row.
/// Spaces at a break stay at the end of their row. Never empty.
pub fn wrap(text: &str, columns: usize) -> Vec<Range<usize>> {
    wrap_by(text, columns, width)
}

/// [`wrap`], for a text whose characters are shown as something else.
pub fn wrap_by(text: &str, columns: usize, measure: impl Fn(&str) -> usize) -> Vec<Range<usize>> {
    let mut rows = Vec::new();
    let mut begin = 0;
    for line in text.split('\n') {
        let mut start = 0;
        let mut used = 0;
        let mut last_break = 0;
        for (at, grapheme) in line.grapheme_indices(true) {
            let wide = measure(grapheme);
            let space = grapheme == " ";
            while used + wide > columns && at > start && !space {
                let end = if last_break > start { last_break } else { at };
                rows.push(begin + start..begin + end);
                start = end;
                used = line[start..at].graphemes(true).map(&measure).sum();
            }
            used += wide;
            if space || wide > 1 {
                last_break = at + grapheme.len();
            }
        }
        rows.push(begin + start..begin + line.len());
        begin += line.len() + 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        let evil = "a\u{1b}[2J\u{1b}]0;owned\u{7}b\u{9b}31mc\u{202e}dcba\u{2066}\u{200f}\u{7f}\0";
        let shown = clean(evil);
        assert_eq!(shown, "a␛[2J␛]0;owned␇b\u{fffd}31mcdcba␡␀");
        assert!(!shown.chars().any(char::is_control));
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let shown = clean(&format!("x{c}y"));
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{c:?}");
            assert!(!shown.contains(['\u{200e}', '\u{202d}', '\u{2069}']), "{c:?}");
        }
    }

    #[test]
    fn marks_do_not_pile_up_and_pictures_are_as_wide_as_they_say() {
        assert_eq!(clean(&format!("z{}", "\u{301}".repeat(50))), format!("z{}", "\u{301}".repeat(4)));
        assert_eq!(clean("\u{301}a"), "\u{25cc}\u{301}a");
        assert_eq!(clean("👨\u{200d}👩\u{200d}👧 ❤\u{fe0f}"), "👨👩👧 ❤");
        assert_eq!(clean("می\u{200c}خواهم"), "می\u{200c}خواهم");
        assert_eq!(clean("a\r\nb\rc\td"), "a\nb\nc    d");
        assert_eq!(clean_line("a\nb"), "a b");
    }

    #[test]
    fn text_is_cut_by_columns() {
        assert_eq!(fit("hello", 5), "hello");
        assert_eq!(fit("hello", 4), "hel…");
        assert_eq!(fit("日本語です", 6), "日本…");
        assert_eq!(fit("日本語", 0), "");
        assert_eq!(fit("日本語", 1), "…");
    }

    fn wrapped(text: &str, columns: usize) -> Vec<&str> {
        wrap(text, columns).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn text_breaks_at_words_and_where_it_must() {
        assert_eq!(wrapped("one two three", 8), ["one two ", "three"]);
        assert_eq!(wrapped("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrapped("a abcdefgh", 4), ["a ", "abcd", "efgh"]);
        assert_eq!(wrapped("日本語です", 5), ["日本", "語で", "す"]);
        assert_eq!(wrapped("a\n\nb", 5), ["a", "", "b"]);
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(wrapped("日", 1), ["日"], "what does not fit stands alone");
        for columns in 1..20 {
            let text = "Zwölf Boxkämpfer jagen 日本語の 👩🏽 über den    Deich\nund ab";
            let rows = wrap(text, columns);
            assert_eq!(rows.iter().map(|row| &text[row.clone()]).collect::<String>(), text.replace('\n', ""));
            for row in rows {
                let row = text[row].trim_end_matches(' ');
                assert!(width(row) <= columns.max(2), "{columns}: {row:?}");
            }
        }
    }
}
