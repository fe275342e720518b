//! Whether the server is still there: when to ask it, and when to doubt it.
//!
//! A connection that died without a word looks like one that has nothing to say. So the server is asked: soon while the application is
//! active, seldom while it is not (a phone pays for each packet with its battery), and at once when something that was sent stays
//! unanswered for a few round trips. What it says unasked is no sign of life: it shows that its way to us works, not ours to it.
//!
//! A session that is in doubt is not given up. Another connection is tried beside it ([`super::scout`]), and whichever answers first is
//! the one: so little patience is needed, and a blackout that ends soon costs no new connection.

use super::quiet::Quiet;
use crate::Liveness;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::CommandSeq;
use whimbrel_protocol::frame::Ping;

/// An application counts as active for this long after it last asked for something.
const ACTIVE_FOR: Duration = Duration::from_secs(60);
/// What was sent is probed when it stays unanswered for so many round trips …
const ROUND_TRIPS: u32 = 4;
/// … and for at least this long: a server that waits for its disk is not dead.
const ANSWER_MIN: Duration = Duration::from_millis(500);
/// Each connection in a row that was replaced for its silence doubles the patience with the next one, so many times: on a network that
/// needs longer than we wait, nothing that takes long would ever get through.
const DOUBLINGS_MAX: u32 = 4;
/// QUIC waits longer and longer before it sends again what was lost, but learns of the loss from the answer to anything later. So while an
/// answer is awaited there it is given something to send this often …
const STEADY: Duration = Duration::from_millis(250);
/// … and this often while nobody is active.
const STEADY_IDLE: Duration = Duration::from_secs(1);
/// Probes whose answers are recognized.
const PROBES_MAX: usize = 32;

/// How closely to watch: of the client, over all its sessions.
#[derive(Debug)]
pub(super) struct Watchfulness {
    liveness: Liveness,
    /// The application says that somebody looks.
    active: bool,
    /// It says that it is suspended, or about to be.
    background: bool,
    /// When its last wish stops to count.
    active_until: Instant,
    /// Sessions in a row that were replaced because nothing was heard.
    silences: u32,
}

impl Watchfulness {
    pub fn new(liveness: Liveness, now: Instant) -> Self {
        Self { liveness, active: false, background: false, active_until: now + ACTIVE_FOR, silences: 0 }
    }

    /// The application says whether somebody looks.
    pub fn on_active(&mut self, active: bool) {
        self.active = active;
    }

    /// The application asked for something.
    pub fn on_wish(&mut self, now: Instant) {
        self.active_until = now + ACTIVE_FOR;
    }

    /// A session was replaced because it did not answer.
    pub fn on_silence(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }

    /// The application says whether it is suspended.
    pub fn on_background(&mut self, background: bool) {
        self.background = background;
    }

    /// Whether the application is suspended, as it says.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// Whether the application is active: somebody looks, or it asked for something a moment ago.
    pub fn is_active(&self, now: Instant) -> bool {
        !self.background && (self.active || now < self.active_until)
    }

    /// Whether a server that answered then will soon be asked whether it is there.
    pub fn asks_often(&self, answered: Instant) -> bool {
        self.is_active(answered + self.liveness.active)
    }

    /// An answer took so long.
    fn on_answer(&mut self, took: Duration) {
        if took <= self.liveness.give_up_after {
            self.silences = 0;
        }
    }

    /// How long an answer to a probe may take.
    fn patience(&self) -> Duration {
        self.liveness.give_up_after.saturating_mul(1 << self.silences.min(DOUBLINGS_MAX))
    }
}

/// What to do about the server's silence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Wait on.
    Fine,
    /// Ask whether it is there.
    Probe(Ping),
    /// It has not answered for this long: look for another connection. Said once.
    Doubt(Duration),
}

/// What was heard of the server in one session.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the server answered last: then both ways worked.
    answered: Instant,
    /// Since when it owes an answer.
    owes: Option<Instant>,
    /// The probes that are unanswered.
    asked: Option<Asked>,
    /// The id of the next probe, and when the last ones left, the newest last.
    next: u32,
    probes: VecDeque<Instant>,
    /// A command whose answer is timed, and when it left.
    timed: Option<(CommandSeq, Instant)>,
    /// How long answers take, about.
    round_trip: Duration,
    /// How long nothing was said.
    pub quiet: Quiet,
    /// Whether the connection is helped by probes at a steady pace.
    steady: bool,
}

#[derive(Debug)]
struct Asked {
    since: Instant,
    last: Instant,
    doubted: bool,
}

impl Pulse {
    /// A session that the server welcomed, so long after the hello. `steady` says whether probes go on at a steady pace, `first` is
    /// anything random.
    pub fn new(now: Instant, round_trip: Duration, steady: bool, first: u32, quiet: Quiet) -> Self {
        Self { answered: now, owes: None, asked: None, next: first, probes: VecDeque::new(), timed: None, round_trip, quiet, steady }
    }

    /// The server answered something that we said, so it hears us.
    pub fn on_answer(&mut self, now: Instant) {
        self.answered = now;
        self.owes = None;
        self.asked = None;
    }

    /// The answer to a probe came.
    pub fn on_pong(&mut self, pong: &Ping, now: Instant, watchfulness: &mut Watchfulness) {
        // The newest probe is the last in the queue.
        let age = self.next.wrapping_sub(pong.id).wrapping_sub(1);
        let sent = usize::try_from(age).ok().and_then(|age| self.probes.iter().rev().nth(age));
        if let Some(took) = sent.map(|sent| now.duration_since(*sent)) {
            watchfulness.on_answer(took);
            // One that was lost and sent again tells how long the network was away, not how long it is.
            if age == 0 {
                self.round_trip = (self.round_trip * 7 + took) / 8;
            }
        }
        self.on_answer(now);
    }

    /// A command was sent.
    pub fn on_command(&mut self, cseq: CommandSeq, now: Instant) {
        self.timed.get_or_insert((cseq, now));
        self.on_owing(now);
    }

    /// Commands up to this one have their answer.
    pub fn on_applied(&mut self, cseq: CommandSeq, now: Instant, watchfulness: &mut Watchfulness) {
        if let Some((_, sent)) = self.timed.take_if(|(timed, _)| *timed <= cseq) {
            watchfulness.on_answer(now.duration_since(sent));
        }
        self.on_answer(now);
    }

    /// It owes an answer: something was sent, or came while an answer was awaited. A pong is no reason, as it says enough by itself.
    pub fn on_owing(&mut self, now: Instant) {
        self.owes.get_or_insert(now);
    }

    /// Nobody listens now, so nothing can be heard.
    pub fn on_deaf(&mut self, now: Instant) {
        self.on_answer(now);
        self.quiet.on_said(now);
    }

    /// There is a reason to doubt it as of now.
    pub fn doubt(&mut self, now: Instant) {
        let asked = self.asked.get_or_insert(Asked { since: now, last: now, doubted: true });
        asked.doubted = true;
    }

    /// When the server answered last.
    pub fn answered(&self) -> Instant {
        self.answered
    }

    /// Whether it was asked whether it is there, and has not answered.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether it is in doubt that the server hears us.
    pub fn is_doubted(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.doubted)
    }

    /// Whether the connection has enough that is unanswered, where probes go on: what is sent on top of it would fill the window that QUIC
    /// has for what is under way, and leave no room for the probes.
    pub fn is_full(&self) -> bool {
        // After the second probe: the first is often the usual question after a pause, and its answer on the way.
        self.steady && self.asked.as_ref().is_some_and(|asked| asked.doubted || asked.last > asked.since)
    }

    /// How long answers take, about.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// When [`check`](Self::check) has something to say although nothing came.
    pub fn due(&self, watchfulness: &Watchfulness) -> Option<Instant> {
        let Some(asked) = &self.asked else { return self.ask_at(watchfulness) };
        let doubt = (!asked.doubted).then(|| asked.since + watchfulness.patience());
        let pace = if watchfulness.is_active(asked.last) { STEADY } else { STEADY_IDLE };
        let again = self.steady.then(|| asked.last + pace);
        [doubt, again].into_iter().flatten().min()
    }

    /// When to ask whether it is there. Where the server asks it is not asked before the question is missed.
    fn ask_at(&self, watchfulness: &Watchfulness) -> Option<Instant> {
        let liveness = &watchfulness.liveness;
        let often = watchfulness.asks_often(self.answered).then(|| self.answered + liveness.active);
        let answer = (self.round_trip * ROUND_TRIPS).max(ANSWER_MIN).min(liveness.active);
        [often.or_else(|| self.quiet.missed_at()), self.owes.map(|since| since + answer)].into_iter().flatten().min()
    }

    /// What to do now.
    pub fn check(&mut self, now: Instant, watchfulness: &Watchfulness) -> Verdict {
        if self.due(watchfulness).is_none_or(|due| now < due) {
            return Verdict::Fine;
        }
        if let Some(asked) = &mut self.asked
            && !asked.doubted
            && now >= asked.since + watchfulness.patience()
        {
            asked.doubted = true;
            return Verdict::Doubt(now.duration_since(self.answered));
        }
        Verdict::Probe(self.ask(now))
    }

    /// Asks whether the server is there.
    pub fn ask(&mut self, now: Instant) -> Ping {
        self.asked.get_or_insert(Asked { since: now, last: now, doubted: false }).last = now;
        if self.probes.len() == PROBES_MAX {
            self.probes.pop_front();
        }
        self.probes.push_back(now);
        let id = self.next;
        self.next = id.wrapping_add(1);
        Ping { id }
    }

    /// The same if the server is the one who asks, and was not asked yet.
    pub fn ask_along(&mut self, now: Instant) -> Option<Ping> {
        (self.quiet.is_told() && self.asked.is_none()).then(|| self.ask(now))
    }
}

#[cfg(test)]
mod tests;
