//! How far the client at the other end of a connection has got: events are counted as they leave, whatever carries them, and a client has
//! taken what left before a ping that it answered, or before the poll that it sent next. Socket.IO itself acknowledges nothing unless the
//! application's code does, which the old clients' does not.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::sleep;

/// How long a poll may wait while its client tries a WebSocket: it moves there only once no poll waits.
const POLL_TIME: Duration = Duration::from_millis(100);

/// One connection of Engine.IO, from its first request to its end, whatever it moves to in between.
#[derive(Debug, Default)]
pub(super) struct Wire {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    resumed: Notify,
    moving: watch::Sender<Moving>,
    /// Held for reading by polls, and for writing by who takes their place.
    pub polls: RwLock<()>,
}

/// Whether a client that polls moves to a WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Moving {
    #[default]
    No,
    /// There is one.
    Opened,
    /// It has asked whether it gets through.
    Tries,
    /// It polls no more, and is told nothing until what it has not polled has left.
    Moves,
    /// It has moved.
    Moved,
}

#[derive(Debug, Default)]
struct State {
    /// Events that were handed over to leave.
    emitted: u64,
    counted: Counted,
    /// How many had left at each ping that is not answered.
    pings: VecDeque<u64>,
    /// A ping was polled, and nothing was posted since.
    polled_ping: bool,
    /// Why nothing is read for now.
    paused: BTreeSet<Paused>,
    /// Nothing more is read at all.
    cut: bool,
    /// Nor written.
    given_up: bool,
    sockets: u32,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Why nothing is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Paused {
    /// More came than its session can work off.
    Wishes,
    /// What it was answered has not left.
    Words,
}

/// Counts events among the packets of Engine.IO. An event with attachments has left once the last of them has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Events that left.
    pub events: u64,
    /// Attachments that are still to come.
    pub attachments: u64,
}

impl Counted {
    /// Takes a packet of text, of which only the beginning matters.
    pub fn on_text(&mut self, packet: &[u8]) {
        match packet {
            // Events, and answers to those that want to be called back.
            [b'4', b'2' | b'3', ..] => self.events += 1,
            [b'4', b'5', rest @ ..] => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
                self.attachments = digits.fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
                if self.attachments == 0 {
                    self.events += 1;
                }
            }
            _ => {}
        }
    }

    /// Takes an attachment.
    pub fn on_binary(&mut self) {
        self.attachments = self.attachments.saturating_sub(1);
        if self.attachments == 0 {
            self.events += 1;
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Events that left.
    pub written: u64,
    /// Events that the client has.
    pub taken: u64,
    /// Rises with each sign of life.
    pub heard: u64,
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event was handed over: its number.
    pub fn on_emitted(&self) -> u64 {
        let mut state = self.state();
        state.emitted += 1;
        state.emitted
    }

    /// The number of the last event that was handed over.
    pub fn emitted(&self) -> u64 {
        self.state().emitted
    }

    /// What left.
    pub fn counted(&self) -> Counted {
        self.state().counted
    }

    /// How far it is, and to wait until it is further.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Packets left: the count is this now.
    pub fn on_left(&self, counted: Counted) {
        self.state().counted = counted;
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.written, counted.events) != counted.events);
    }

    /// Whether a ping would tell something.
    pub fn wants_ping(&self) -> bool {
        let state = self.state();
        state.pings.is_empty() && state.counted.attachments == 0 && state.counted.events > self.progress.borrow().taken
    }

    /// A ping left.
    pub fn on_ping(&self) {
        let mut state = self.state();
        let events = state.counted.events;
        state.pings.push_back(events);
    }

    /// A pong came: what had left before its ping was taken. One that nobody asked for is a sign of life only.
    pub fn on_pong(&self) {
        let events = self.state().pings.pop_front().unwrap_or_default();
        self.on_taken(events);
    }

    /// The client polls: it has the answers to all its polls before.
    pub fn on_poll(&self) {
        let events = self.counted().events;
        self.on_taken(events);
    }

    /// A sign of life, from somebody who has at least so many events.
    fn on_taken(&self, events: u64) {
        self.progress.send_modify(|progress| {
            progress.heard += 1;
            progress.taken = progress.taken.max(events);
        });
    }

    /// Something else came.
    pub fn on_heard(&self) {
        self.on_taken(0);
    }

    /// A ping left with the answer to a poll.
    pub fn on_polled_ping(&self) {
        self.state().polled_ping = true;
    }

    /// Something was posted, which is not looked into: it may be the pong.
    pub fn on_post(&self) {
        self.state().polled_ping = false;
        self.on_heard();
    }

    /// Its client polls no more. A ping that it has polled it answers over the WebSocket, and that tells of nothing that left there.
    pub fn on_moves(&self) {
        {
            let mut state = self.state();
            if std::mem::take(&mut state.polled_ping) {
                state.pings.push_front(0);
            }
        }
        self.set_moving(Moving::Moves);
    }

    /// A client that polls opens a WebSocket: `false` if it has one.
    pub fn open(&self) -> bool {
        self.moving.send_if_modified(|moving| {
            let first = *moving == Moving::No;
            if first {
                *moving = Moving::Opened;
            }
            first
        })
    }

    /// It gets through.
    pub fn on_probed(&self) {
        self.set_moving(Moving::Tries);
    }

    /// How far it is.
    pub fn set_moving(&self, moving: Moving) {
        self.moving.send_replace(moving);
        // Who had to wait for it looks again.
        self.progress.send_modify(|_| {});
    }

    /// Whether it polls no more.
    pub fn has_moved(&self) -> bool {
        matches!(*self.moving.borrow(), Moving::Moves | Moving::Moved)
    }

    /// Whether it is on its way, and can be told nothing for a moment.
    pub fn moves(&self) -> bool {
        *self.moving.borrow() == Moving::Moves
    }

    /// Waits until a poll has to end, because its client moves.
    pub async fn poll_ends(&self) {
        let mut moving = self.moving.subscribe();
        let tries = |moving: &Moving| matches!(moving, Moving::Tries | Moving::Moves);
        loop {
            // It fails only once the wire is gone, which who waits holds.
            let _ = moving.wait_for(tries).await;
            sleep(POLL_TIME).await;
            if tries(&moving.borrow()) {
                return;
            }
        }
    }

    /// A socket of this connection came, or went.
    pub fn on_socket(&self, came: bool) {
        let mut state = self.state();
        state.sockets = if came { state.sockets + 1 } else { state.sockets.saturating_sub(1) };
    }

    /// Whether there is one.
    pub fn has_socket(&self) -> bool {
        self.state().sockets > 0
    }

    /// Stops reading for a reason, or lets it go on as far as that is concerned.
    pub fn pause(&self, why: Paused, paused: bool) {
        let mut state = self.state();
        if paused {
            state.paused.insert(why);
            return;
        }
        let goes_on = state.paused.remove(&why) && state.paused.is_empty();
        let reader = state.reader.clone().filter(|_| goes_on);
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if goes_on {
            self.resumed.notify_waiters();
        }
    }

    /// The server leaves: the connection ends as one that breaks does. To be told that it ended in order would keep some libraries from coming back.
    pub fn cut(&self) {
        let mut state = self.state();
        state.cut = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// The client says nothing any more, not even that it is there: who still writes to it, waits in vain.
    pub fn give_up(&self) {
        let writer = {
            let mut state = self.state();
            state.given_up = true;
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        self.cut();
    }

    /// Whether nothing is written any more. The task is woken when that changes.
    pub fn is_given_up(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        match &mut state.writer {
            Some(writer) => writer.clone_from(context.waker()),
            writer => *writer = Some(context.waker().clone()),
        }
        state.given_up
    }

    /// Whether nothing more is read.
    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// Whether anything may be read, or `None` if nothing ever will be. The task is woken when that changes.
    pub fn may_read(&self, context: &Context<'_>) -> Option<bool> {
        let mut state = self.state();
        match &mut state.reader {
            Some(reader) => reader.clone_from(context.waker()),
            reader => *reader = Some(context.waker().clone()),
        }
        (!state.cut).then_some(state.paused.is_empty())
    }

    /// Waits until anything may be read.
    pub async fn reading(&self) {
        loop {
            let notified = self.resumed.notified();
            tokio::pin!(notified);
            // From now on it is woken, also by what comes before it is polled.
            notified.as_mut().enable();
            if self.state().paused.is_empty() {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(packets: &[&str]) -> Counted {
        let mut counted = Counted::default();
        for packet in packets {
            match packet.strip_prefix("b:") {
                Some(_) => counted.on_binary(),
                None => counted.on_text(packet.as_bytes()),
            }
        }
        counted
    }

    #[test]
    fn events_are_counted_and_nothing_else() {
        for (packets, events, attachments) in [
            (&["0{\"sid\":\"x\"}", "2", "3", "40", "41", "44{}", "6", "", "4"][..], 0, 0),
            (&["430[]", "431[{\"status\":\"ok\"}]"], 2, 0),
            (&["42[\"a\"]", "42/chat,[\"a\"]", "421[\"a\"]"], 3, 0),
            (&["451-[\"a\",{}]", "b:"], 1, 0),
            (&["452-[\"a\",{}]", "b:"], 0, 1),
            (&["452-[\"a\",{}]", "b:", "b:", "42[\"b\"]"], 2, 0),
            (&["450-[\"a\",{}]"], 1, 0),
        ] {
            assert_eq!(counted(packets), Counted { events, attachments }, "{packets:?}");
        }
    }

    #[test]
    fn what_left_before_an_answered_ping_is_taken() {
        let wire = Wire::default();
        let leave = |events| wire.on_left(Counted { events, attachments: 0 });
        assert!(!wire.wants_ping(), "nothing to learn");
        leave(2);
        assert!(wire.wants_ping());
        wire.on_ping();
        assert!(!wire.wants_ping(), "one is enough");
        leave(5);
        wire.on_pong();
        assert_eq!(*wire.progress().borrow(), Progress { written: 5, taken: 2, heard: 1 });
        assert!(wire.wants_ping());
        wire.on_ping();
        wire.on_pong();
        wire.on_pong();
        assert_eq!(*wire.progress().borrow(), Progress { written: 5, taken: 5, heard: 3 });
        leave(6);
        wire.on_poll();
        assert_eq!(wire.progress().borrow().taken, 6);
    }

    #[test]
    fn the_answer_to_a_ping_that_was_polled_tells_of_nothing_that_left_later() {
        for (posted, taken) in [(false, 0), (true, 3)] {
            let wire = Wire::default();
            wire.on_polled_ping();
            if posted {
                wire.on_post();
            }
            wire.on_moves();
            wire.on_left(Counted { events: 3, attachments: 0 });
            wire.on_ping();
            wire.on_pong();
            assert_eq!(wire.progress().borrow().taken, taken);
        }
    }

    #[test]
    fn who_is_cut_reads_nothing_any_more() {
        let (wire, context) = (Wire::default(), Context::from_waker(Waker::noop()));
        assert_eq!(wire.may_read(&context), Some(true));
        wire.pause(Paused::Wishes, true);
        assert_eq!(wire.may_read(&context), Some(false));
        wire.cut();
        assert_eq!(wire.may_read(&context), None);
    }

    #[tokio::test]
    async fn who_waits_to_read_goes_on_when_it_may() {
        let wire = std::sync::Arc::new(Wire::default());
        wire.pause(Paused::Wishes, true);
        wire.pause(Paused::Words, true);
        wire.pause(Paused::Words, false);
        let other = wire.clone();
        let waiting = tokio::spawn(async move { other.reading().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        wire.pause(Paused::Wishes, false);
        waiting.await.unwrap_or_else(|why| panic!("{why}"));
    }
}
