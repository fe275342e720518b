//! A table, for terminals and for Markdown.

/// Rows of cells under a head. The first column is text, the others are numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one with these columns.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|cell| (*cell).into()).collect(), rows: Vec::new() }
    }

    /// Another row, filled up with empty cells.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    /// Whether it has rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        (0..self.head.len()).map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect()
    }

    fn line(&self, row: &[String], between: &str) -> String {
        let cells = row.iter().zip(self.widths()).enumerate();
        let cells = cells.map(|(column, (cell, width))| if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join(between)
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = std::iter::once(&self.head).chain(&self.rows).map(|row| self.line(row, "  ").trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// For Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &[String]| format!("| {} |\n", self.line(row, " | "));
        let rule: Vec<String> = self.widths().iter().enumerate().map(|(column, width)| rule(column, *width)).collect();
        let mut text = line(&self.head) + &format!("| {} |\n", rule.join(" | "));
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

fn rule(column: usize, width: usize) -> String {
    let width = width.max(2);
    if column == 0 { "-".repeat(width) } else { "-".repeat(width - 1) + ":" }
}

/// Milliseconds as people read them: three digits that count, and seconds from one second on.
#[must_use]
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 99_950.0 => format!("{:.1} s", ms / 1_000.0),
        ms => format!("{:.0} s", ms / 1_000.0),
    }
}

/// Bytes as people read them.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let kib = bytes as f64 / 1_024.0;
    match kib {
        kib if kib < 1_024.0 => format!("{kib:.0} KiB"),
        kib => format!("{:.1} MiB", kib / 1_024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_in_text_and_in_markdown() {
        let mut table = Table::new(&["transport", "n"]);
        table.row(["quic".into(), "1,000".into()]);
        table.row(["auto".into()]);
        assert_eq!(table.text(), "transport      n\nquic       1,000\nauto\n");
        assert_eq!(table.markdown(), "| transport |     n |\n| --------- | ----: |\n| quic      | 1,000 |\n| auto      |       |\n");
    }

    #[test]
    fn numbers_are_short() {
        let times = [0.123, 9.94, 9.96, 512.4, 999.6, 61_234.0, 123_456.0].map(time);
        assert_eq!(times, ["0.1 ms", "9.9 ms", "10 ms", "512 ms", "1.0 s", "61.2 s", "123 s"]);
        assert_eq!([bytes(51_200), bytes(3 << 20)], ["50 KiB", "3.0 MiB"]);
    }
}
