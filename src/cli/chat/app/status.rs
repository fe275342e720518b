//! What is going on, in words.

use super::{App, Overlay};
use crate::cli::chat::clock::{Now, Zone};
use crate::cli::chat::geometry::{Pane, TWO_PANES};
use crate::cli::chat::room::{Fate, Mark, Room};
use crate::cli::chat::text;
use whimbrel_client::Connection;
use whimbrel_client::protocol::UserId;

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Said in passing.
    Quiet,
    /// Something to know.
    Warning,
    /// Something may be lost.
    Grave,
}

impl App {
    /// Who one is.
    pub fn me(&self) -> &UserId {
        &self.me
    }

    /// Where days begin.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The present, as it was when something last came in.
    pub fn now(&self) -> Now {
        self.now
    }

    /// What has the keyboard.
    pub fn pane(&self) -> Pane {
        self.pane
    }

    /// What lies over the rest.
    pub fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// How many messages are on their way.
    pub fn waiting(&self) -> usize {
        self.rooms.iter().map(Room::waiting).sum()
    }

    /// New messages in all conversations but the open one.
    pub fn unread_elsewhere(&self) -> usize {
        let others = self.rooms.iter().enumerate().filter(|(index, _)| self.open != Some(*index));
        others.map(|(_, room)| room.unread(&self.me)).sum()
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        matches!(self.connection, Connection::Connected { .. })
    }

    /// The connection, in a word or a few more if there is room.
    pub fn connection_words(&self, brief: bool) -> String {
        let waiting = self.waiting();
        let wait = match waiting {
            0 => String::new(),
            1 => ": 1 message waits".into(),
            _ => format!(": {waiting} messages wait"),
        };
        match &self.connection {
            Connection::Connected { .. } if brief => "Connected".into(),
            Connection::Connected { transport } => format!("Connected · {transport}"),
            // After a session, or an attempt, that failed it is still what it was: offline.
            Connection::Connecting { why: Some(_), .. } if waiting > 0 => format!("Offline{wait}"),
            Connection::Connecting { .. } => "Connecting…".into(),
            Connection::Offline { .. } => {
                let left = self.retry_at.map(|at| at.saturating_duration_since(self.now.at).as_millis().div_ceil(1000));
                match left {
                    Some(left @ 1..) if !brief => format!("Offline{wait} · again in {left} s"),
                    _ => format!("Offline{wait}"),
                }
            }
            _ => "Ended".into(),
        }
    }

    /// Why there is no connection.
    pub fn why_offline(&self) -> Option<&str> {
        match &self.connection {
            Connection::Offline { why, .. } | Connection::Connecting { why: Some(why), .. } => Some(why),
            _ => None,
        }
    }

    /// What is to be told now, and how much it matters.
    pub fn status(&self) -> (String, Weight) {
        if let Some(notice) = self.notices.front() {
            let text = if notice.until.is_none() { format!("{} (Esc)", notice.text) } else { notice.text.clone() };
            return (text, notice.weight);
        }
        if let Some(why) = self.why_offline().filter(|_| !self.is_connected()) {
            return (text::clean_line(why), Weight::Quiet);
        }
        let state = self.room().filter(|_| self.pane == Pane::Thread).and_then(|room| self.last_words(room));
        state.unwrap_or_else(|| (self.hint(), Weight::Quiet))
    }

    /// The last message of one's own, in words.
    fn last_words(&self, room: &Room) -> Option<(String, Weight)> {
        let (mark, pending) = room.last_own(&self.me)?;
        let words = match (mark, pending.map(|pending| &pending.fate)) {
            (_, Some(Fate::Refused(why))) => return Some((format!("Not sent: {why} · Ctrl+R tries again"), Weight::Grave)),
            (Mark::Sending | Mark::Refused, _) => "Sending…".into(),
            (Mark::Sent, _) => "Sent".into(),
            (Mark::Delivered, _) => format!("Delivered to {}", room.title),
            (Mark::Read, _) => format!("Read by {}", room.title),
        };
        Some((words, Weight::Quiet))
    }

    fn hint(&self) -> String {
        match self.pane {
            Pane::People if self.size.0 < TWO_PANES => "Tab finds · F1 help".into(),
            Pane::People => "Enter opens · Tab finds · F1 help".into(),
            Pane::Thread => "F1 help".into(),
        }
    }

    /// Who types in the open conversation.
    pub fn typing_words(&self) -> Option<String> {
        let names: Vec<String> = self.room()?.typists().map(|user| text::clean_line(user.as_str())).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(format!("{one} is typing…")),
            [one, two] => Some(format!("{one} and {two} are typing…")),
            _ => Some("several people are typing…".into()),
        }
    }
}
