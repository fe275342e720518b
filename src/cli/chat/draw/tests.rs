//! What is on the screen, cell by cell.

use super::*;
use crate::cli::chat::app::Input;
use crate::cli::chat::app::tests::{Test, user};
use crossterm::event::{KeyCode, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::time::Duration;
use whimbrel_client::Connection;

fn screen(test: &Test, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(&test.app, &Theme::plain(), frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let mut row = String::new();
        let mut hidden = 0;
        for x in 0..width {
            let symbol = buffer[(x, y)].symbol();
            if hidden == 0 {
                row.push_str(symbol);
                hidden = text::width(symbol).max(1);
            }
            hidden -= 1;
        }
        row.trim_end().to_owned()
    };
    (0..height).map(row).collect()
}

fn talk(width: u16, height: u16) -> Test {
    let mut test = Test::new(width, height);
    test.online("bob");
    test.online("zoe");
    test.says(2, 1, "carol", "see you");
    test.later(60_000);
    test.starts(1, "bob");
    test.says(1, 1, "bob", "Hello 世界");
    test.says(1, 2, "bob", "are you there?");
    test.app.open_user(&user("bob"));
    test.give(Input::Tick);
    test.says(1, 3, "alice", "Yes, and this one is long enough to need a second row on most of the screens that there are");
    test.receipt(1, "bob", 3, 3);
    test
}

#[test]
fn two_panes() {
    let test = talk(120, 30);
    let shown = screen(&test, 120, 30);
    let expected = [
        (0, " whimbrel alice                   │ bob online"),
        (1, "▏● bob                      09:01 │"),
        (2, "▏  You: Yes, and this one is lo…  │"),
        (3, " ○ carol                    09:00 │"),
        (4, "   see you                     1  │"),
        (5, " ● zoe                            │"),
        (6, "   online                         │"),
        (17, "                                  │                               This is where it begins"),
        (18, "                                  │ ────────────────────────────────────── Today ──────────────────────────────────────"),
        (19, "                                  │ ─────────────────────────────────────── New ───────────────────────────────────────"),
        (20, "                                  │ bob"),
        (21, "                                  │ Hello 世界                                                                 09:01"),
        (22, "                                  │ are you there?                                                             09:01"),
        (23, "                                  │"),
        (24, "                                  │ You"),
    ];
    for (row, text) in expected {
        assert_eq!(shown[row], text, "row {row}\n{}", shown.join("\n"));
    }
    assert!(shown[25].ends_with("09:01 ✓✓"), "{}", shown[25]);
    assert!(shown[28].ends_with("│ › Message"));
    assert!(shown[29].starts_with(" Read by bob") && shown[29].ends_with("Connected · webtransport"));
}

#[test]
fn sixty_columns_still_hold_both() {
    let test = talk(60, 20);
    let shown = screen(&test, 60, 20);
    assert_eq!(shown[0], " whimbrel alice       │ bob online");
    assert_eq!(shown[1], "▏● bob          09:01 │");
    assert!(shown[18].ends_with("│ › Message"), "{}", shown.join("\n"));
    assert_eq!(shown[19], " Read by bob                       Connected · webtransport");
}

#[test]
fn forty_columns_hold_one_at_a_time() {
    let mut test = talk(40, 10);
    let thread = [
        "‹ 1 bob online",
        " are you there?                09:01",
        " You",
        " Yes, and this one is long     09:01 ✓✓",
        " enough to need a second row",
        " on most of the screens that",
        " there are",
        "────────────────────────────────────────",
        " › Message",
        " Read by bob                  Connected",
    ];
    let shown = screen(&test, 40, 10);
    for (row, text) in thread.iter().enumerate() {
        assert_eq!(shown[row].trim_start(), text.trim_start(), "row {row}\n{}", shown.join("\n"));
    }
    test.key(KeyCode::Esc);
    let shown = screen(&test, 40, 10);
    assert_eq!(
        shown[..4],
        [" whimbrel alice", "▌● bob                            09:01", " ○ carol                             1", " ● zoe"]
    );
    assert_eq!(shown[9], " Tab finds · F1 help          Connected");
}

#[test]
fn offline_says_what_waits_and_why() {
    let mut test = talk(100, 20);
    test.give(Input::Connection(Connection::Offline { retry_in: Duration::from_secs(4), why: "no route".into(), mismatch: false }));
    test.type_in("later");
    test.key(KeyCode::Enter);
    let shown = screen(&test, 100, 20);
    assert!(shown[19].starts_with(" no route") && shown[19].ends_with("Offline: 1 message waits · again in 4 s"), "{}", shown[19]);
    assert!(shown[16].ends_with(" ·"), "{}", shown.join("\n"));
    assert!(!shown[0].contains("online"), "nobody can say");
}

#[test]
fn the_draft_grows_and_what_is_below_is_announced() {
    let mut test = talk(60, 20);
    test.give(Input::Paste("1\n2\n3\n4\n5\n6\n7\n8".into()));
    let shown = screen(&test, 60, 20);
    assert!(shown[13].ends_with("│ › 3") && shown[18].ends_with("8"), "{}", shown.join("\n"));
    test.key(KeyCode::PageUp);
    test.says(1, 4, "bob", "psst");
    let shown = screen(&test, 60, 20);
    assert!(shown[12].ends_with(" 1 new ↓ ─"), "{}", shown.join("\n"));
}

#[test]
fn overlays_stay_on_the_screen_at_every_size() {
    for (width, height) in [(120, 30), (60, 20), (40, 10), (20, 4), (8, 3), (1, 1)] {
        let mut test = talk(width, height);
        test.key(KeyCode::F(1));
        let shown = screen(&test, width, height);
        if width >= 40 {
            assert!(shown.iter().any(|row| row.contains("send; in the list: open")), "{}", shown.join("\n"));
        }
        test.key(KeyCode::F(1));
        test.press(KeyCode::Char('k'), KeyModifiers::CONTROL);
        test.type_in("zoë");
        let shown = screen(&test, width, height);
        if width >= 40 {
            assert!(shown.iter().any(|row| row.contains("Begin with “zoë”")), "{}", shown.join("\n"));
        }
    }
}

#[test]
fn nothing_that_anybody_writes_leaves_its_place() {
    let evil = "\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}\u{9b}H👨\u{200d}👩\u{200d}👧\u{fe0f}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{0}";
    for (width, height) in [(120, 30), (60, 20), (40, 10)] {
        let mut test = talk(width, height);
        let name = "\u{202e}eve\u{200b}\u{2066}";
        test.online(name);
        for seq in 1..4 {
            test.says(3, seq, name, &evil.repeat(9));
        }
        test.give(Input::Disagreement(evil.into()));
        test.give(Input::Paste(evil.into()));
        test.app.open_user(&user(name));
        test.give(Input::Paste(evil.into()));
        for shown in screen(&test, width, height) {
            assert!(!shown.chars().any(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')), "{shown:?}");
            assert!(text::width(&shown) <= width.into(), "{shown:?}");
        }
    }
}
