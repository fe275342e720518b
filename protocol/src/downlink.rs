//! The cursor of a device: takes each event of the mailbox once and in order, from however many paths they come.

use crate::frame::{Ack, Begin, Event, Position, ResetReason, Welcome};
use crate::{LogEpoch, MailboxSeq};
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
    /// Why the old position could not be served, if it could not: tell the application, before the new position is stored or in the
    /// same transaction.
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
/// Order to keep, one thing after the other:
/// 1. on a `Welcome`, [`on_welcome`](Self::on_welcome), and store the position it gives, if any;
/// 2. if it begins with a snapshot, store its pages, and with the last one the position that
///    [`on_snapshot_stored`](Self::on_snapshot_stored) gives; only then hand in events;
/// 3. for each event [`on_event`](Self::on_event); store what it returns together with [`position_at`](Self::position_at) of the last in
///    one transaction, then [`on_stored`](Self::on_stored). Only what was stored is acknowledged.
///
/// Only frames of the session whose `Welcome` came last may be handed in. One path of a session (the stream) must bring every event in
/// order; others may bring copies of some, in any order and number.
#[derive(Debug, Clone, Default)]
pub struct Downlink {
    stored: Option<Position>,
    /// The epoch of the log that this session reads.
    epoch: LogEpoch,
    /// Highest event handed out; at or above the stored cursor.
    taken: MailboxSeq,
    /// Events before their turn, by number.
    early: BTreeMap<MailboxSeq, Event>,
    /// Between a `Welcome` with a snapshot and its last page: where the events begin after it.
    snapshot: Option<Position>,
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
        let Begin { cursor, time, snapshot, reset } = welcome.begin;
        self.on_disconnect();
        self.epoch = welcome.epoch;
        let begin = Position { epoch: welcome.epoch, cursor, time };
        // What was stored after the `Hello` was said is not taken back: events up to there are dropped when they come again.
        let held = self.stored.filter(|stored| stored.epoch == begin.epoch && stored.cursor >= cursor && !snapshot && reset.is_none());
        // A server that begins elsewhere and does not say why: the application must hear of it all the same.
        let reset = reset.or((self.stored.is_some() && held.is_none()).then_some(ResetReason::OtherLog));
        let position = (held.is_none() && !snapshot).then_some(begin);
        self.stored = position.or(self.stored);
        self.taken = held.map_or(cursor, |stored| stored.cursor);
        self.acked = cursor;
        self.snapshot = snapshot.then_some(begin);
        self.live = !snapshot;
        Resumed { reset, position }
    }

    /// The position to store together with the last page of a snapshot; `None` if no snapshot is under way. Events follow, and an
    /// acknowledgement is due at once: what the snapshot held is delivered.
    pub fn on_snapshot_stored(&mut self) -> Option<Position> {
        let position = self.snapshot.take()?;
        self.stored = Some(position);
        self.live = true;
        self.ack_since = Some(Duration::ZERO);
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

    /// The device has durably stored everything up to `position`: also of an earlier session, but not of one before a [`Resumed`] that
    /// begins elsewhere (with a position, a reset or a snapshot), since the log may be another one there, with other entries under the
    /// same numbers.
    pub fn on_stored(&mut self, position: Position, now: Duration) {
        if position.epoch != self.epoch
            || self.stored.is_some_and(|stored| stored.epoch == position.epoch && stored.cursor >= position.cursor)
        {
            return;
        }
        self.stored = Some(position);
        self.taken = self.taken.max(position.cursor);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{EventBody, Skip, Unknown};
    use crate::{CommandSeq, Incarnation, Nonce, SessionEpoch, Time, UserId};
    use std::string::String;

    fn welcome(begin: Begin) -> Welcome {
        Welcome {
            version: 1,
            user: UserId::new("alice").unwrap(),
            session_epoch: SessionEpoch(1),
            epoch: LogEpoch(1),
            incarnation: Incarnation(1),
            applied: CommandSeq(0),
            applied_nonce: Nonce::default(),
            head: MailboxSeq(1000),
            begin,
            window: 3,
            max_text: 100,
            time: Time(0),
            endpoints: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn at(cursor: u64) -> Begin {
        Begin { cursor: MailboxSeq(cursor), time: Time(cursor * 10), snapshot: false, reset: None }
    }

    fn position(cursor: u64) -> Position {
        Position { epoch: LogEpoch(1), cursor: MailboxSeq(cursor), time: Time(cursor * 10) }
    }

    fn device(cursor: u64) -> Downlink {
        let mut downlink = Downlink::restore(DownlinkState { position: Some(position(cursor)) });
        assert_eq!(downlink.on_welcome(&welcome(at(cursor))), Resumed { reset: None, position: None });
        downlink
    }

    fn event(seq: u64) -> Event {
        Event { seq: MailboxSeq(seq), time: Time(seq * 10), body: EventBody::Unknown(Unknown { kind: 99, reason: String::new() }) }
    }

    fn skip(seq: u64, through: u64) -> Event {
        Event { seq: MailboxSeq(seq), time: Time(through * 10), body: Skip { through: MailboxSeq(through) }.into() }
    }

    fn numbers(taken: Taken) -> Vec<u64> {
        let Taken::Next(events) = taken else { return Vec::new() };
        events.iter().map(|event| event.seq.0).collect()
    }

    #[test]
    fn events_come_out_once_and_in_order() {
        let mut downlink = device(10);
        assert_eq!(downlink.on_event(event(10)), Taken::Dropped);
        assert_eq!(downlink.on_event(event(13)), Taken::Early);
        assert_eq!(downlink.on_event(event(12)), Taken::Early);
        assert_eq!(downlink.on_event(event(13)), Taken::Early);
        assert_eq!(numbers(downlink.on_event(event(11))), [11, 12, 13]);
        assert_eq!(downlink.on_event(event(12)), Taken::Dropped);
        assert_eq!(numbers(downlink.on_event(event(14))), [14]);
    }

    #[test]
    fn a_skip_counts_for_all_that_it_covers() {
        let mut downlink = device(10);
        assert_eq!(downlink.on_event(event(14)), Taken::Early);
        assert_eq!(downlink.on_event(event(12)), Taken::Early);
        let Taken::Next(events) = downlink.on_event(skip(11, 13)) else { panic!("it is next") };
        assert_eq!(events.iter().map(|event| event.through().0).collect::<Vec<_>>(), [13, 14]);
        assert_eq!(downlink.position_at(&skip(11, 13)), position(13));
        assert_eq!(skip(11, 3).through(), MailboxSeq(11), "a skip that points back covers itself");
    }

    #[test]
    fn early_events_are_bounded_and_forgotten_with_the_session() {
        let mut downlink = device(0);
        for seq in 2..2 + EARLY_MAX as u64 {
            assert_eq!(downlink.on_event(event(seq)), Taken::Early);
        }
        assert_eq!(downlink.on_event(event(500)), Taken::Dropped);
        downlink.on_disconnect();
        assert_eq!(downlink.on_event(event(1)), Taken::Dropped, "there is no session");
        downlink.on_welcome(&welcome(at(0)));
        assert_eq!(numbers(downlink.on_event(event(1))), [1]);
    }

    #[test]
    fn only_what_is_stored_is_acknowledged_and_soon() {
        let mut downlink = device(10);
        let ms = Duration::from_millis;
        downlink.on_event(event(11));
        assert_eq!((downlink.poll_ack(ms(500)), downlink.poll_timeout()), (None, None));
        downlink.on_stored(position(11), ms(500));
        assert_eq!((downlink.poll_ack(ms(549)), downlink.poll_timeout()), (None, Some(ms(550))));
        assert_eq!(downlink.poll_ack(ms(550)), Some(Ack { seq: MailboxSeq(11) }));
        assert_eq!((downlink.flush_ack(), downlink.poll_timeout()), (None, None));
        downlink.on_event(skip(12, 11 + ACK_EVENTS));
        downlink.on_stored(position(11 + ACK_EVENTS), ms(600));
        assert_eq!(downlink.poll_ack(ms(600)), Some(Ack { seq: MailboxSeq(11 + ACK_EVENTS) }), "many are acknowledged at once");
    }

    #[test]
    fn a_snapshot_moves_the_cursor_when_it_is_stored_and_is_acknowledged_at_once() {
        let mut downlink = Downlink::default();
        let begin = Begin { snapshot: true, ..at(40) };
        assert_eq!(downlink.on_welcome(&welcome(begin)), Resumed { reset: None, position: None });
        assert_eq!(downlink.on_event(event(41)), Taken::Dropped);
        assert_eq!(downlink.position(), None);
        assert_eq!(downlink.on_snapshot_stored(), Some(position(40)));
        assert_eq!(downlink.poll_ack(Duration::from_secs(1)), Some(Ack { seq: MailboxSeq(40) }));
        assert_eq!(downlink.on_snapshot_stored(), None);
        assert_eq!(numbers(downlink.on_event(event(41))), [41]);
    }

    #[test]
    fn a_position_stored_between_hello_and_welcome_is_not_taken_back() {
        let mut downlink = device(10);
        downlink.on_event(event(11));
        downlink.on_disconnect();
        assert_eq!(downlink.position(), Some(position(10)), "a Hello says this");
        downlink.on_stored(position(11), Duration::ZERO);
        assert_eq!(downlink.on_welcome(&welcome(at(10))), Resumed { reset: None, position: None });
        assert_eq!(downlink.on_event(event(11)), Taken::Dropped);
        assert_eq!(numbers(downlink.on_event(event(12))), [12]);
    }

    #[test]
    fn a_reset_to_the_same_number_replaces_the_position() {
        let mut downlink = Downlink::restore(DownlinkState { position: Some(Position { time: Time(7), ..position(10) }) });
        let reset = Some(ResetReason::OtherLog);
        assert_eq!(downlink.on_welcome(&welcome(Begin { reset, ..at(10) })), Resumed { reset, position: Some(position(10)) });
        assert_eq!(downlink.position(), Some(position(10)));
    }

    #[test]
    fn a_server_that_begins_elsewhere_in_silence_is_named() {
        for begin in [at(11), Begin { snapshot: true, ..at(10) }] {
            let mut downlink = device(10);
            assert_eq!(downlink.on_welcome(&welcome(begin)).reset, Some(ResetReason::OtherLog));
        }
        assert_eq!(Downlink::default().on_welcome(&welcome(at(11))).reset, None, "a device that was never here has nothing to lose");
    }
}
