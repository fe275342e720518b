//! One session: its frames, in and out.

mod beginning;

use super::Driver;
use super::liveness::{Pulse, Verdict};
use super::phase::{Phase, Retry, Stop};
use super::quiet::Quiet;
use super::roaming::{Move, Step, Whereabouts};
use crate::inbox::Item;
use crate::link::{Link, QUEUED_MAX, STEP_TIMEOUT, Sink, Source};
use crate::state::CommandNumber;
use crate::{Connection, EndReason, Incoming, Outcome, TransportKind};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::error::Advice;
use whimbrel_protocol::frame::{
    ClientFrame, ClientState, Error, Event, GoAway, Hello, Query, ResetReason, ServerFrame, Signal, Snapshot, Welcome,
};
use whimbrel_protocol::{Agreement, Disagreement, MailboxSeq, Nonce, Taken, VERSION_MAX, VERSION_MIN};

/// Why a session ends whose connection cannot move.
pub(super) const NETWORK_CHANGED: &str = "the network changed";

pub(super) struct Session {
    pub source: Source,
    pub sink: Sink,
    pub transport: TransportKind,
    begun: Instant,
    /// Since when the server has welcomed us.
    pub greeted: Option<Instant>,
    /// Whether anything ever came.
    heard: bool,
    /// What is heard of the server.
    pub pulse: Pulse,
    /// Where we are, as the system says.
    pub whereabouts: Whereabouts,
    /// We are somewhere else than before, and whether the connection works there is not known yet.
    moving: Option<Move>,
    /// The head of the log when the session began: what lies up to there was asked for by our hello.
    head: MailboxSeq,
    /// Highest event that came in this session: what is acknowledged is at most this.
    seen: MailboxSeq,
    /// Whether the server knows whom to watch.
    pub watched: bool,
    /// A snapshot is under way: why, and how many pages and conversations came.
    snapshot: Option<Pages>,
    /// Commands that were applied before the session began and whose outcomes have not come, and the entry by which they must have: a
    /// device that was away longer than the mailbox keeps begins after some of them.
    due: Option<(MailboxSeq, Vec<CommandNumber>)>,
    /// Events came that the inbox had no room for: they come again in another session.
    pub overflow: bool,
}

#[derive(Default)]
struct Pages {
    reset: Option<ResetReason>,
    pages: usize,
    conversations: usize,
    /// The snapshot stands for everything up to now: outcomes that did not come before it will not come.
    forget_outcomes: bool,
}

impl Session {
    /// `told` is how the hello says that we are.
    pub fn begin(link: Link, told: ClientState) -> Self {
        let Link { source, sink, transport, peer, opened } = link;
        let now = Instant::now();
        Self {
            source,
            sink,
            transport,
            begun: now,
            greeted: None,
            heard: false,
            pulse: Pulse::new(now, opened.unwrap_or_default(), false, 0, Quiet::new(now, told)),
            whereabouts: Whereabouts::new(peer, now),
            moving: None,
            head: MailboxSeq(0),
            seen: MailboxSeq(0),
            watched: false,
            snapshot: None,
            due: None,
            overflow: false,
        }
    }

    /// How long answers take, about.
    pub fn round_trip(&self) -> Duration {
        self.pulse.round_trip()
    }

    /// The transport to begin with after this one brought nothing.
    pub fn other_transport(&self) -> TransportKind {
        match self.transport {
            TransportKind::Quic | TransportKind::WebTransport => TransportKind::WebSocket,
            TransportKind::WebSocket | TransportKind::WebSocketJson | TransportKind::SocketIo => TransportKind::Quic,
        }
    }

    /// Takes the connection along to another network, if it can move. It is given up if nothing is heard there.
    pub fn move_on(&mut self) -> bool {
        let moves = self.greeted.is_some() && self.sink.rebind();
        if moves {
            // What the application says now the system need not say again.
            self.whereabouts.look(Instant::now());
            tracing::debug!(transport = %self.transport, "another network: the connection moves");
            self.moving = Some(Move::begin(Instant::now(), self.pulse.round_trip(), rand::random()));
        }
        moves
    }

    /// Whether it has begun, and has what it begins with.
    pub fn is_settled(&self) -> bool {
        self.greeted.is_some() && self.snapshot.is_none() && self.moving.is_none()
    }

    /// How long ago the server welcomed us.
    pub fn lasted(&self) -> Duration {
        self.greeted.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether probes at a steady pace help it: on TCP they would only queue up.
    pub fn is_steady(&self) -> bool {
        matches!(self.transport, TransportKind::Quic | TransportKind::WebTransport)
    }

    /// Whether nothing ever came.
    pub fn is_mute(&self) -> bool {
        !self.heard
    }

    /// Whether a frame answers something that we said in this session. Those that say what became of a command are looked at elsewhere.
    fn is_answer(&self, frame: &ServerFrame) -> bool {
        match frame {
            ServerFrame::Welcome(_) | ServerFrame::Snapshot(_) | ServerFrame::Answer(_) | ServerFrame::Busy(_) => true,
            ServerFrame::Event(event) => event.seq <= self.head,
            _ => false,
        }
    }

    /// Sends a signal, if that is possible at once.
    pub fn signal(&mut self, signal: Signal) {
        if self.greeted.is_some() && self.sink.queued() < QUEUED_MAX {
            self.pulse.quiet.on_said(Instant::now());
            // Too long for a frame: lost, as signals may be.
            let _ = self.sink.push(&ClientFrame::Signal(signal));
        }
    }

    pub async fn leave(self) {
        self.sink.close().await;
    }

    /// Tells the server how we are.
    pub fn tell(&mut self, state: ClientState) -> Result<(), Stop> {
        self.pulse.quiet.told = state;
        self.push(&ClientFrame::Signal(Signal::State(state)))
    }

    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), Stop> {
        self.pulse.quiet.on_said(Instant::now());
        self.sink.push(frame).map_err(|why| Stop::lost(format!("a frame of ours is not one: {why}"), Retry::Backoff))
    }
}

impl Session {
    /// Asks, on a stream beside the session's if there can be one and the server answered there before.
    fn ask(&mut self, query: Query, beside: bool) -> Result<(), Stop> {
        self.pulse.quiet.on_said(Instant::now());
        let asked = if beside { self.sink.ask(query) } else { self.sink.push(&ClientFrame::Query(query)) };
        asked.map_err(|why| Stop::lost(format!("a query of ours is no frame: {why}"), Retry::Backoff))
    }
}

impl Driver {
    pub(super) fn hello(&mut self, state: ClientState) -> Hello {
        self.attempt = self.attempt.saturating_add(1);
        Hello {
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            user: self.config.user.clone(),
            device: self.config.device.clone(),
            token: self.config.token.clone(),
            agent: self.config.agent.clone(),
            instance: self.instance,
            attempt: self.attempt,
            incarnation: self.outbox.incarnation(),
            position: self.downlink.position(),
            origin: self.config.origin,
            extensions: if state == ClientState::default() { Vec::new() } else { vec![state.to_extension()] },
        }
    }

    /// Whether frames are wanted: not while the inbox is full, unless somebody waits for an answer that stands behind the events.
    pub(super) fn may_read(&self) -> bool {
        self.inbox.has_room() || self.queries.is_waiting() || self.outbox.has_tickets()
    }

    /// Queues whatever there is to send. Says whether, when closing, nothing is left to do.
    pub(super) fn pump(&mut self) -> Result<bool, EndReason> {
        let Some(mut session) = self.take_session() else { return Ok(self.is_settled() || self.is_overdue()) };
        let result = self.pump_session(&mut session);
        self.phase = Phase::Session(session);
        match result {
            Ok(finished) => return Ok(finished),
            Err(Stop::End(reason)) => return Err(reason),
            Err(Stop::Lost { why, retry }) => self.lost(why, retry),
        }
        Ok(false)
    }

    fn is_overdue(&self) -> bool {
        self.closing.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn pump_session(&mut self, session: &mut Session) -> Result<bool, Stop> {
        let now = self.now();
        self.check_liveness(session)?;
        if session.greeted.is_none() {
            return Ok(self.closing.is_some() && (self.is_settled() || self.is_overdue()));
        }
        // What the server has not said in this session, it is not told that we have.
        let tellable = self.downlink.position().is_some_and(|position| position.cursor <= session.seen);
        let leaving = self.closing.is_some() && self.is_settled();
        let ack = match (tellable, leaving) {
            (false, _) => None,
            (true, true) => self.downlink.flush_ack(),
            (true, false) => self.downlink.poll_ack(now),
        };
        if let Some(ack) = ack {
            session.push(&ClientFrame::Ack(ack))?;
        }
        if self.closing.is_some() {
            return Ok(self.is_overdue() || (leaving && session.sink.queued() == 0));
        }
        if let (Some(watch), false) = (&self.watch, session.watched) {
            session.watched = true;
            session.signal(Signal::Watch(watch.clone()));
        }
        while session.sink.queued() < QUEUED_MAX {
            let Some((query, beside)) = self.queries.poll_transmit() else { break };
            session.ask(query, beside)?;
            session.pulse.on_owing(Instant::now());
        }
        while self.may_command(session) && session.sink.queued() < QUEUED_MAX {
            let Some(command) = self.outbox.poll_transmit(now) else { break };
            let cseq = command.cseq;
            session.push(&ClientFrame::Command(command.clone()))?;
            session.pulse.on_command(cseq, Instant::now());
        }
        if session.overflow && self.parked.is_empty() && self.inbox.is_half_empty() {
            return Err(Stop::lost("events came faster than they were taken; now there is room again", Retry::Now));
        }
        Ok(false)
    }

    /// Whether commands may leave. Not while one is being stored: the outbox does not say which of them are durable. Nor while a snapshot
    /// is under way: if the connection breaks before its last page the next session begins at a later present, and the outcome of what was
    /// carried out in between would lie before it.
    fn may_command(&self, session: &Session) -> bool {
        !self.storing && session.snapshot.is_none() && !session.pulse.is_full()
    }

    fn check_liveness(&mut self, session: &mut Session) -> Result<(), Stop> {
        let now = Instant::now();
        if session.greeted.is_none() {
            if now >= session.begun + STEP_TIMEOUT {
                return Err(Stop::lost("the server did not welcome us in time", Retry::Backoff));
            }
            return Ok(());
        }
        if self.sleep.is_over(now, super::sleep::wall()) {
            // What did not come meanwhile says nothing of the network, and whoever looks wants to know soon whether the server is there.
            self.suspicion = None;
            let ping = session.pulse.ask(now);
            session.push(&ClientFrame::Ping(ping))?;
        }
        let look_at = session.whereabouts.due(self.watchfulness.is_active(now), self.notices.are_given());
        if look_at.is_some_and(|at| now >= at) && session.whereabouts.look(now) {
            self.on_other_network();
            if !session.move_on() {
                return Err(Stop::lost(NETWORK_CHANGED, Retry::Now));
            }
        }
        if !self.may_read() {
            session.pulse.on_deaf(now);
            session.moving = None;
        }
        self.believe(session);
        self.tell_state(session)?;
        if !self.may_read() {
            return Ok(());
        }
        if let Some(moving) = &mut session.moving {
            match moving.step(now) {
                Step::Wait => {}
                Step::Probe(ping) => session.push(&ClientFrame::Ping(ping))?,
                Step::Failed => {
                    session.moving = None;
                    self.doubt(session, "the network changed, and the connection does not work on the new one".into())?;
                }
            }
        }
        self.try_upgrade(session);
        self.await_knowing(session)?;
        self.on_asking(session, now);
        match session.pulse.check(now, &self.watchfulness) {
            Verdict::Fine => Ok(()),
            Verdict::Probe(ping) => session.push(&ClientFrame::Ping(ping)),
            Verdict::Doubt(silence) => {
                // Another port is another way through address translations, and for the server a way on which nothing is under way yet.
                session.sink.rebind();
                self.doubt(session, format!("the server has not answered for {:.1} s", silence.as_secs_f64()))
            }
        }
    }

    /// When the loop is worth another turn although nothing happened.
    pub(super) fn wake(&self) -> Instant {
        // An hour, for want of an end of time.
        let mut wake = Instant::now() + Duration::from_secs(3_600);
        let mut at = |time: Option<Instant>| wake = wake.min(time.unwrap_or(wake));
        at(self.closing);
        if !self.saving {
            at(self.unsaved.map(|since| since + super::SAVE_DELAY));
        }
        let Phase::Session(session) = &self.phase else { return wake };
        if session.greeted.is_none() {
            at(Some(session.begun + STEP_TIMEOUT));
            return wake;
        }
        at(session.pulse.due(&self.watchfulness).filter(|_| self.may_read()));
        at(session.whereabouts.due(self.watchfulness.is_active(Instant::now()), self.notices.are_given()));
        at(session.sink.due());
        at(self.upgrade_due(session).filter(|_| self.may_read()));
        at(session.moving.as_ref().filter(|_| self.may_read()).map(Move::due));
        if self.may_command(session) && session.sink.queued() < QUEUED_MAX {
            at(self.outbox.poll_timeout().map(|time| self.epoch + time));
        }
        if self.downlink.position().is_some_and(|position| position.cursor <= session.seen) {
            at(self.downlink.poll_timeout().map(|time| self.epoch + time));
        }
        wake
    }

    pub(super) async fn on_frame(&mut self, session: &mut Session, frame: ServerFrame) -> Result<(), Stop> {
        session.heard = true;
        let now = Instant::now();
        self.on_heard(session, matches!(frame, ServerFrame::Ping(_)), now);
        if let ServerFrame::Pong(pong) = &frame {
            self.suspending.on_pong(pong);
            self.on_server_answers(true, now);
            session.moving.take_if(|moving| moving.is_answer(pong));
            session.pulse.on_pong(pong, now, &mut self.watchfulness);
            return Ok(());
        }
        if session.is_answer(&frame) {
            session.pulse.on_answer(now);
        }
        let mut result = self.take_frame(session, frame).await;
        if result.is_ok() {
            result = self.give_up_what_is_overdue(session).await;
        }
        if self.outbox.is_waiting() || self.queries.is_waiting() {
            session.pulse.on_owing(now);
        }
        result
    }

    async fn take_frame(&mut self, session: &mut Session, frame: ServerFrame) -> Result<(), Stop> {
        match (frame, session.greeted) {
            (ServerFrame::Error(error), _) => Err(on_error(error)),
            (ServerFrame::GoAway(GoAway { retry_after_ms, message }), _) => {
                Err(Stop::lost(format!("the server is going away: {message}"), asked_for(retry_after_ms)))
            }
            (ServerFrame::Ping(ping), _) => self.answer(session, ping),
            (ServerFrame::Welcome(welcome), None) => self.on_welcome(session, welcome).await,
            (ServerFrame::Welcome(_), Some(_)) => Err(out_of_place("a second Welcome")),
            (_, None) => Err(out_of_place("something before Welcome")),
            (ServerFrame::Applied(applied), _) => {
                self.on_applied(session, applied.cseq);
                Ok(())
            }
            (ServerFrame::Busy(busy), _) => {
                let now = self.now();
                self.outbox.on_busy(busy.cseq, Duration::from_millis(busy.retry_after_ms.into()), now);
                Ok(())
            }
            (ServerFrame::Event(event), _) => self.on_event(session, event),
            (ServerFrame::Snapshot(page), _) => self.on_snapshot(session, page).await,
            (ServerFrame::Answer(answer), _) => {
                self.queries.on_answer(answer);
                Ok(())
            }
            (ServerFrame::Signal(signal), _) => {
                self.inbox.push_signal(signal);
                Ok(())
            }
            // Heard, which is all there is to it.
            (ServerFrame::Pong(_), _) => Ok(()),
        }
    }

    /// Something came in a datagram: it may come before its turn, and comes again in its order if it matters.
    pub(super) fn on_hint(&mut self, session: &mut Session, frame: ServerFrame) {
        if session.greeted.is_none() {
            return;
        }
        match frame {
            ServerFrame::Event(event) => {
                if let Taken::Next(events) = self.downlink.on_event(event) {
                    self.deliver_all(session, events);
                }
            }
            ServerFrame::Signal(signal) => self.inbox.push_signal(signal),
            _ => {}
        }
    }

    fn on_event(&mut self, session: &mut Session, event: Event) -> Result<(), Stop> {
        // Also where it is known already: what the server has said may be acknowledged.
        session.seen = session.seen.max(event.through());
        match self.downlink.on_event(event) {
            Taken::Next(events) => {
                self.deliver_all(session, events);
                Ok(())
            }
            // One reliable stream has no business with gaps: waiting would be for ever.
            Taken::Early => Err(out_of_place("an event with a gap before it")),
            Taken::Dropped => Ok(()),
        }
    }

    fn deliver_all(&mut self, session: &mut Session, events: Vec<Event>) {
        for event in events {
            session.seen = session.seen.max(event.through());
            self.deliver(session, event);
        }
    }

    pub(super) fn on_applied(&mut self, session: &mut Session, cseq: whimbrel_protocol::CommandSeq) {
        if self.outbox.on_applied(cseq) {
            session.pulse.on_applied(cseq, Instant::now(), &mut self.watchfulness);
            self.unsaved.get_or_insert_with(Instant::now);
        }
    }
}

fn on_error(error: Error) -> Stop {
    let Error { code, message, retry_after_ms } = error;
    match code.advice() {
        Advice::GiveUp => Stop::End(EndReason::Refused { code, message }),
        // The session ends either way.
        Advice::Reconnect | Advice::GoOn => {
            Stop::lost(format!("the server ended the session ({code}): {message}"), asked_for(retry_after_ms))
        }
    }
}

fn asked_for(retry_after_ms: u32) -> Retry {
    if retry_after_ms > 0 { Retry::After(Duration::from_millis(retry_after_ms.into())) } else { Retry::Backoff }
}

fn out_of_place(what: &str) -> Stop {
    Stop::lost(format!("the server sent {what}"), Retry::Backoff)
}

fn state(why: crate::StateError) -> Stop {
    Stop::End(EndReason::State(why))
}
