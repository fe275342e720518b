//! The outbox, the commands whose outcome is awaited, and who waits for it.

use super::{OUTBOX_MAX, ToSend};
use crate::client::Sent;
use crate::state::{CommandNumber, OutboxRow};
use crate::{Outcome, OutcomeError, TransportKind};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::sync::oneshot;
use whimbrel_protocol::frame::{Command, CommandBody, Event, EventBody, Welcome};
use whimbrel_protocol::{Agreement, CommandSeq, Disagreement, Incarnation, Nonce, OutboxState, Time, Uplink};

/// Bytes of text in the outbox, at most: the longest texts are not kept in such numbers.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Commands that a server that has forgotten an outbox is sent again, at most: it knows the nonces of twice as many.
const REPEATS_MAX: u64 = 128;

#[derive(Default)]
pub(super) struct Outbox {
    uplink: Uplink,
    /// Applied messages whose outcome did not come yet.
    awaiting: BTreeMap<CommandNumber, Command>,
    tickets: HashMap<Nonce, oneshot::Sender<Result<Sent, OutcomeError>>>,
    /// Bytes of text in both.
    bytes: usize,
}

/// What to store after a disagreement.
pub(super) struct Disagreed {
    pub state: OutboxState,
    /// Commands that the server forgot that it had applied: they are sent again.
    pub again: Vec<Nonce>,
    /// What becomes of those whose outcome will not be told.
    pub untold: Vec<Outcome>,
}

/// What becomes of a command that was carried out, and nobody can tell where.
pub(super) fn untold(command: Command) -> Outcome {
    outcome(None, command.cseq, Some(command), Err(OutcomeError::Untold))
}

fn outcome(event: Option<&Event>, cseq: CommandSeq, command: Option<Command>, result: Result<Sent, OutcomeError>) -> Outcome {
    let nonce = command.as_ref().map(|command| command.nonce);
    let (to, content) = match command.map(|command| command.body) {
        Some(CommandBody::Send(send)) => (Some(send.to), Some(send.content)),
        _ => (None, None),
    };
    let (entry, time) = event.map_or((None, Time(0)), |event| (Some(event.seq), event.time));
    Outcome { entry, time, cseq, nonce, to, content, result }
}

fn text_bytes(body: &CommandBody) -> usize {
    match body {
        CommandBody::Send(send) => send.content.text.len(),
        _ => 0,
    }
}

impl Outbox {
    pub fn restore(state: OutboxState, pending: Vec<Command>, awaiting: Vec<OutboxRow>) -> Self {
        let awaiting: BTreeMap<_, _> = awaiting.into_iter().map(|row| ((row.command.incarnation, row.command.cseq), row.command)).collect();
        let bytes = pending.iter().chain(awaiting.values()).map(|command| text_bytes(&command.body)).sum();
        Self { uplink: Uplink::restore(state, pending), awaiting, tickets: HashMap::new(), bytes }
    }

    pub fn state(&self) -> OutboxState {
        self.uplink.state()
    }

    pub fn incarnation(&self) -> Incarnation {
        self.uplink.incarnation()
    }

    /// How many commands more it takes.
    pub fn room(&self) -> usize {
        if self.bytes >= BYTES_MAX { 0 } else { OUTBOX_MAX.saturating_sub(self.uplink.waiting() + self.awaiting.len()) }
    }

    /// Whether there are commands that are not known to be applied.
    pub fn is_waiting(&self) -> bool {
        self.uplink.waiting() > 0
    }

    /// Whether somebody in this process waits for an outcome.
    pub fn has_tickets(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Numbers a command, which must be stored before the next [`poll_transmit`](Self::poll_transmit).
    pub fn enqueue(&mut self, command: ToSend) -> Command {
        self.bytes += text_bytes(&command.body);
        if let Some(ticket) = command.ticket {
            self.tickets.insert(command.nonce, ticket);
        }
        self.uplink.enqueue(command.nonce, command.body)
    }

    /// Takes back the newest commands, which could not be stored.
    pub fn forget(&mut self, nonces: &[Nonce]) {
        let pending: Vec<Command> = self.uplink.pending().filter(|command| !nonces.contains(&command.nonce)).cloned().collect();
        self.uplink = Uplink::restore(self.uplink.state(), pending);
        for nonce in nonces {
            self.tickets.remove(nonce);
        }
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        self.bytes = self.uplink.pending().chain(self.awaiting.values()).map(|command| text_bytes(&command.body)).sum();
    }

    /// Commands that are not known to be applied, in order.
    pub fn pending(&self) -> impl Iterator<Item = &Command> {
        self.uplink.pending()
    }

    /// As [`Uplink::on_opened`].
    pub fn on_opened(&mut self, incarnation: Incarnation, through: CommandSeq) {
        self.uplink.on_opened(incarnation, through);
    }

    pub fn on_welcome(&mut self, welcome: &Welcome) -> Agreement {
        let applied: Vec<Command> = if welcome.incarnation == self.uplink.incarnation() {
            self.uplink.pending().take_while(|command| command.cseq <= welcome.applied).cloned().collect()
        } else {
            Vec::new()
        };
        let agreement = self.uplink.on_welcome(welcome);
        if agreement == Agreement::Agreed {
            self.await_outcome(applied);
        }
        agreement
    }

    fn await_outcome(&mut self, applied: Vec<Command>) {
        for command in applied {
            if matches!(command.body, CommandBody::Send(_)) {
                self.awaiting.insert((command.incarnation, command.cseq), command);
            } else {
                self.tickets.remove(&command.nonce);
            }
        }
    }

    /// After [`Agreement::Disagreed`]: the outcomes of what was applied are told in the outbox that is given up, if at all, and that one is
    /// not heard of again. What the server may have lost is sent again under the new numbers; a command that it has after all is a
    /// repeat there, and its outcome is told. Of the rest it is known that it was carried out, and no more.
    pub fn on_disagreed(&mut self, disagreement: Disagreement) -> Disagreed {
        let state = self.uplink.state();
        let lost_after = match disagreement {
            Disagreement::ServerIsOlder { server, .. } => Some(server.0),
            // Forgotten by the server, or restored: of the newest it still knows the nonces, if it ever had them.
            Disagreement::AnotherOutbox { server, ours } if server < ours => Some(state.applied.0.saturating_sub(REPEATS_MAX)),
            _ => None,
        };
        let (mut lost, mut gone) = (Vec::new(), Vec::new());
        for (_, command) in std::mem::take(&mut self.awaiting) {
            if lost_after.is_some_and(|applied| command.cseq.0 > applied) { lost.push(command) } else { gone.push(command) }
        }
        let untold = gone.into_iter().map(|command| self.tell(untold(command))).collect();
        if lost.is_empty() {
            self.count_bytes();
            return Disagreed { state, again: Vec::new(), untold };
        }
        let applied = CommandSeq(lost_after.unwrap_or_default());
        let state = OutboxState { incarnation: Incarnation(0), applied, applied_nonce: Nonce::default() };
        let again = lost.iter().map(|command| command.nonce).collect();
        let pending: Vec<Command> = lost.into_iter().chain(self.uplink.pending().cloned()).collect();
        self.uplink = Uplink::restore(state, pending);
        self.count_bytes();
        Disagreed { state, again, untold }
    }

    /// The numbers of everything that waits, as they are after a renumbering.
    pub fn numbers(&self) -> Vec<(Nonce, CommandSeq)> {
        self.uplink.pending().map(|command| (command.nonce, command.cseq)).collect()
    }

    /// Returns whether the state changed, and is to be stored.
    pub fn on_applied(&mut self, cseq: CommandSeq) -> bool {
        // A number that was never given is a stray, and changes nothing.
        if self.uplink.pending().last().is_none_or(|last| cseq > last.cseq) {
            return false;
        }
        let applied: Vec<Command> = self.uplink.pending().take_while(|command| command.cseq <= cseq).cloned().collect();
        let changed = self.uplink.on_applied(cseq) > 0;
        if changed {
            self.await_outcome(applied);
        }
        changed
    }

    pub fn on_busy(&mut self, cseq: CommandSeq, retry_after: Duration, now: Duration) {
        self.uplink.on_busy(cseq, retry_after, now);
    }

    pub fn on_disconnect(&mut self) {
        self.uplink.on_disconnect();
    }

    pub fn poll_transmit(&mut self, now: Duration) -> Option<&Command> {
        self.uplink.poll_transmit(now)
    }

    pub fn poll_timeout(&self) -> Option<Duration> {
        self.uplink.poll_timeout()
    }

    /// If the event is an outcome: tells whoever waits for it. `keep` leaves the command here, because the event will come again.
    pub fn on_outcome(&mut self, event: &Event, transport: TransportKind, keep: bool) -> Option<Outcome> {
        let (incarnation, cseq, result) = match &event.body {
            EventBody::Sent(sent) => {
                let told = Sent { cseq: sent.cseq, conversation: sent.conversation, seq: sent.seq, time: event.time, transport };
                (sent.incarnation, sent.cseq, Ok(told))
            }
            EventBody::Rejected(rejected) => {
                let why = OutcomeError::Rejected { code: rejected.code, message: rejected.message.clone() };
                (rejected.incarnation, rejected.cseq, Err(why))
            }
            _ => return None,
        };
        let number = (incarnation, cseq);
        let command = if keep { self.awaiting.get(&number).cloned() } else { self.awaiting.remove(&number) };
        if let (Some(command), false) = (&command, keep) {
            self.bytes = self.bytes.saturating_sub(text_bytes(&command.body));
        }
        Some(self.tell(outcome(Some(event), cseq, command, result)))
    }

    /// Tells whoever waits for it in this process.
    fn tell(&mut self, outcome: Outcome) -> Outcome {
        if let Some(ticket) = outcome.nonce.and_then(|nonce| self.tickets.remove(&nonce)) {
            // Whoever waited may be gone.
            let _ = ticket.send(outcome.result.clone());
        }
        outcome
    }

    /// Commands whose outcomes have not come, though they are known to be applied.
    pub fn awaited(&self) -> Vec<CommandNumber> {
        self.awaiting.keys().copied().collect()
    }

    /// The outcomes of everything applied until now will not be told: the device was reset to a point after them.
    pub fn untold(&mut self) -> Vec<Outcome> {
        self.untold_of(&self.awaited())
    }

    /// The outcomes of these will not be told, as far as they were not.
    pub fn untold_of(&mut self, numbers: &[CommandNumber]) -> Vec<Outcome> {
        let commands: Vec<Command> = numbers.iter().filter_map(|number| self.awaiting.remove(number)).collect();
        let outcomes = commands.into_iter().map(|command| self.tell(untold(command))).collect();
        self.count_bytes();
        outcomes
    }
}
