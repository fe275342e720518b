//! The cursor of a device: takes each event of the mailbox once and in order, from however many paths they come.

use crate::frame::{Ack, Begin, Event, Position, ResetReason, Welcome};
use crate::{LogEpoch, MailboxSeq, Time};
use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

/// Events that came before their turn are held, up to this many; others are dropped and come again.
pub const EARLY_MAX: usize = 64;
/// An acknowledgement is due after this many events …
pub const ACK_EVENTS: u64 = 64;
/// … or this long after the first event that was not acknowledged.
pub const ACK_DELAY: Duration = Duration::from_millis(50);

/// What a device keeps durably: written in the same transaction as the events it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DownlinkState {
    /// How far the device has got; `None` for a device that was never here.
    pub position: Option<Position>,
}

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Why the old position could not be served, if it could not: tell the application.
    pub reset: Option<ResetReason>,
    /// A position to store before the first event: the session begins, without a snapshot, elsewhere than the device was.
    pub position: Option<Position>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// These events are next, in order. Store them with the position of the last and call [`Downlink::on_stored`].
    Next(Vec<Event>),
    /// It came before its turn and waits for the ones before it.
    Early,
    /// It was taken before, or cannot be used now; nothing to do.
    Dropped,
}

/// The cursor of a device.
///
/// Order to keep: on a `Welcome`, [`on_welcome`](Self::on_welcome), and store the position it gives, if any; if it begins with a snapshot, store its pages, and with the last
/// one the position that [`on_snapshot_stored`](Self::on_snapshot_stored) gives. Then for each event [`on_event`](Self::on_event);
/// store what it returns together with [`position_at`](Self::position_at), then [`on_stored`](Self::on_stored). Only what was
/// stored is acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Downlink {
    stored: Option<Position>,
    /// The epoch of the log that this session reads.
    epoch: LogEpoch,
    /// Highest event handed out; at or above the stored cursor.
    taken: MailboxSeq,
    /// Events before their turn, by number.
    early: BTreeMap<MailboxSeq, Event>,
    /// Between a `Welcome` with a snapshot and its last page.
    snapshot: Option<MailboxSeq>,
    live: bool,
    acked: MailboxSeq,
    /// Since when something stored waits to be acknowledged.
    ack_since: Option<Duration>,
}

impl Downlink {
    /// A cursor as it was stored.
    #[must_use]
    pub fn restore(state: DownlinkState) -> Self {
        Self { stored: state.position, ..Self::default() }
    }

    /// What a `Hello` says.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.stored
    }

    /// A session begins.
    pub fn on_welcome(&mut self, welcome: &Welcome) -> Resumed {
        let Begin { cursor, snapshot, reset } = welcome.begin;
        self.on_disconnect();
        self.epoch = welcome.epoch;
        self.taken = cursor;
        self.acked = cursor;
        self.snapshot = snapshot.then_some(cursor);
        self.live = !snapshot;
        let served = self.stored.is_some_and(|stored| stored.epoch == welcome.epoch && stored.cursor == cursor);
        let position = (!snapshot && !served).then_some(Position { epoch: welcome.epoch, cursor, time: Time(0) });
        if position.is_some() {
            self.stored = position;
        }
        Resumed { reset, position }
    }

    /// The position to store together with the last page of a snapshot; `None` if no snapshot is under way. Events follow.
    pub fn on_snapshot_stored(&mut self) -> Option<Position> {
        let cursor = self.snapshot.take()?;
        let position = Position { epoch: self.epoch, cursor, time: Time(0) };
        self.stored = Some(position);
        self.live = true;
        Some(position)
    }

    /// An event arrived, over any path.
    pub fn on_event(&mut self, event: Event) -> Taken {
        if !self.live || event.through() <= self.taken {
            return Taken::Dropped;
        }
        if event.seq > self.taken.next() {
            if self.early.len() >= EARLY_MAX {
                return Taken::Dropped;
            }
            self.early.insert(event.seq, event);
            return Taken::Early;
        }
        let mut next = Vec::with_capacity(1);
        self.taken = event.through();
        next.push(event);
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.taken.next() {
                break;
            }
            let event = entry.remove();
            if event.through() > self.taken {
                self.taken = event.through();
                next.push(event);
            }
        }
        Taken::Next(next)
    }

    /// The position to store together with `event` and all before it.
    #[must_use]
    pub fn position_at(&self, event: &Event) -> Position {
        Position { epoch: self.epoch, cursor: event.through(), time: event.time }
    }

    /// The device has durably stored everything up to `position`.
    pub fn on_stored(&mut self, position: Position, now: Duration) {
        if position.epoch != self.epoch || self.stored.is_some_and(|stored| stored.epoch == position.epoch && stored.cursor >= position.cursor) {
            return;
        }
        self.stored = Some(position);
        if self.live && self.ack_since.is_none() {
            self.ack_since = Some(now);
        }
    }

    /// An acknowledgement to send, if one is due.
    pub fn poll_ack(&mut self, now: Duration) -> Option<Ack> {
        let since = self.ack_since?;
        let seq = self.stored?.cursor;
        if seq.0.saturating_sub(self.acked.0) < ACK_EVENTS && now < since.saturating_add(ACK_DELAY) {
            return None;
        }
        self.flush_ack()
    }

    /// The acknowledgement of everything stored, due or not: before leaving.
    pub fn flush_ack(&mut self) -> Option<Ack> {
        self.ack_since.take()?;
        let seq = self.stored?.cursor;
        self.acked = seq;
        Some(Ack { seq })
    }

    /// When [`poll_ack`](Self::poll_ack) is worth another call although nothing arrived.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.ack_since.map(|since| since.saturating_add(ACK_DELAY))
    }

    /// The session ended.
    pub fn on_disconnect(&mut self) {
        self.live = false;
        self.snapshot = None;
        self.early.clear();
        self.ack_since = None;
    }
}
