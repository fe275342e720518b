//! The outbox of a device: what it wants done, numbered, until the server says that it is durable.

use crate::frame::{Command, CommandBody, Welcome};
use crate::{CommandSeq, Incarnation, Nonce};
use alloc::collections::VecDeque;
use core::time::Duration;

/// What a device keeps durably beside its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxState {
    /// The outbox's incarnation; 0 until the server gave one.
    pub incarnation: Incarnation,
    /// Highest command known to be applied.
    pub applied: CommandSeq,
    /// That command's nonce; zeros where `applied` is 0.
    pub applied_nonce: Nonce,
}

/// How a `Welcome` and this outbox fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// They agree. Store [`Uplink::state`] if it changed, then go on.
    Agreed,
    /// The server gave a new outbox: every command not known to be applied now has a new number (from 1) in the new incarnation and its
    /// old nonce. Store the new state and numbers in one transaction *before* sending any of them.
    Renumbered,
    /// They contradict each other. Store [`Uplink::state`] (its incarnation is 0 now), connect again, and the server gives a new outbox.
    /// Tell the application: the reason says what may have been lost.
    Disagreed(Disagreement),
}

/// Why an outbox and the server contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The server has applied commands that this outbox never numbered: the outbox was restored from a backup, or cloned. Nothing is
    /// lost; what the other life of the outbox sent comes as ordinary messages.
    #[error("the server applied commands up to {server}, this outbox has numbered {numbered}: it was restored or cloned")]
    OutboxIsOlder {
        /// Highest applied command by the server's word.
        server: CommandSeq,
        /// Highest command of this outbox.
        numbered: CommandSeq,
    },
    /// The server applied another command under a number of ours: two outboxes have written under the same numbers.
    #[error("command {cseq} is another one for the server: two outboxes claim to be this device")]
    AnotherCommand {
        /// The number both used.
        cseq: CommandSeq,
    },
    /// The server no longer knows of commands that it had applied: its store was restored from a backup. Commands after `server` up
    /// to and including `ours` may be lost there.
    #[error("the server applied commands up to {server} but had said {ours}: its store was restored, what lies between may be lost")]
    ServerIsOlder {
        /// Highest applied command by the server's word now.
        server: CommandSeq,
        /// Highest applied command by its word before.
        ours: CommandSeq,
    },
}

/// The outbox of a device.
///
/// Order to keep, so that nothing is lost or done twice, whenever the device is killed:
/// 1. [`enqueue`](Self::enqueue), store the command durably, then let it be sent by [`poll_transmit`](Self::poll_transmit);
/// 2. on a `Welcome`, [`on_welcome`](Self::on_welcome), store what it asks for, then transmit;
/// 3. on `Applied`, [`on_applied`](Self::on_applied), then store the state whenever convenient: repeats are harmless.
///
/// Bound: the caller decides how many commands it lets wait ([`waiting`](Self::waiting)).
#[derive(Debug, Clone, Default)]
pub struct Uplink {
    state: OutboxState,
    /// Commands not known to be applied; the first has the number after `state.applied`, the others follow without a gap.
    pending: VecDeque<Command>,
    /// How many of `pending`, from the front, were handed out in this session.
    in_flight: usize,
    /// Commands that may be in flight; 0 while there is no session.
    window: usize,
    /// Nothing is sent before this time: the server was busy.
    not_before: Option<Duration>,
}

impl Uplink {
    /// An outbox as it was stored: its state, and all commands not known to be applied, in order. Commands at or below
    /// `state.applied` are dropped.
    pub fn restore(state: OutboxState, pending: impl IntoIterator<Item = Command>) -> Self {
        let pending = pending.into_iter().filter(|command| command.cseq > state.applied).collect();
        Self { state, pending, ..Self::default() }
    }

    /// What to store beside the commands.
    #[must_use]
    pub fn state(&self) -> OutboxState {
        self.state
    }

    /// What a `Hello` says.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.state.incarnation
    }

    /// Commands not known to be applied, in order.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = &Command> {
        self.pending.iter()
    }

    /// How many commands are not known to be applied.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Numbers a new command. It must be durable on the device before [`poll_transmit`](Self::poll_transmit) is called again.
    pub fn enqueue(&mut self, nonce: Nonce, body: CommandBody) -> Command {
        let cseq = self.last().next();
        let command = Command { incarnation: self.state.incarnation, cseq, nonce, body };
        self.pending.push_back(command.clone());
        command
    }

    /// Compares the outbox with what the server says of it, and opens the window if they agree.
    pub fn on_welcome(&mut self, welcome: &Welcome) -> Agreement {
        self.on_disconnect();
        if welcome.incarnation != self.state.incarnation {
            return self.renumber(welcome);
        }
        if let Err(disagreement) = self.compare(welcome.applied, welcome.applied_nonce) {
            self.state.incarnation = Incarnation(0);
            return Agreement::Disagreed(disagreement);
        }
        self.window = welcome.window as usize;
        self.on_applied(welcome.applied);
        Agreement::Agreed
    }

    fn renumber(&mut self, welcome: &Welcome) -> Agreement {
        if welcome.applied.0 != 0 {
            // The incarnation is not the one that was said in `Hello`, and not a fresh one either: ask for one.
            self.state.incarnation = Incarnation(0);
            return Agreement::Disagreed(Disagreement::OutboxIsOlder { server: welcome.applied, numbered: self.last() });
        }
        self.state = OutboxState { incarnation: welcome.incarnation, ..OutboxState::default() };
        for (cseq, command) in (1..).zip(&mut self.pending) {
            command.incarnation = welcome.incarnation;
            command.cseq = CommandSeq(cseq);
        }
        self.window = welcome.window as usize;
        Agreement::Renumbered
    }

    fn compare(&self, applied: CommandSeq, nonce: Nonce) -> Result<(), Disagreement> {
        let ours = self.state.applied;
        if applied < ours {
            return Err(Disagreement::ServerIsOlder { server: applied, ours });
        }
        if applied > self.last() {
            return Err(Disagreement::OutboxIsOlder { server: applied, numbered: self.last() });
        }
        if self.nonce_of(applied) != Some(nonce) {
            return Err(Disagreement::AnotherCommand { cseq: applied });
        }
        Ok(())
    }

    fn nonce_of(&self, cseq: CommandSeq) -> Option<Nonce> {
        let ahead = cseq.0.checked_sub(self.state.applied.0)?;
        match usize::try_from(ahead).ok()?.checked_sub(1) {
            None => Some(self.state.applied_nonce),
            Some(index) => self.pending.get(index).map(|command| command.nonce),
        }
    }

    /// The next command to send, as long as the window has room. Each is handed out once a session.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<&Command> {
        if self.not_before.is_some_and(|time| now < time) || self.in_flight >= self.window.min(self.pending.len()) {
            return None;
        }
        self.not_before = None;
        self.in_flight += 1;
        self.pending.get(self.in_flight - 1)
    }

    /// When [`poll_transmit`](Self::poll_transmit) is worth another call although nothing arrived.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.in_flight < self.window.min(self.pending.len()) { self.not_before } else { None }
    }

    /// The server says that everything up to `cseq` is durable. Returns how many commands that forgets. A number that was never
    /// given is ignored: it can only be a stray of another session.
    pub fn on_applied(&mut self, cseq: CommandSeq) -> usize {
        let Some(count) = cseq.0.checked_sub(self.state.applied.0).and_then(|count| usize::try_from(count).ok()) else { return 0 };
        if count == 0 || count > self.pending.len() {
            return 0;
        }
        if let Some(last) = self.pending.drain(..count).last() {
            self.state.applied = last.cseq;
            self.state.applied_nonce = last.nonce;
        }
        self.in_flight = self.in_flight.saturating_sub(count);
        count
    }

    /// The server took nothing from `cseq` on; it is sent again after `retry_after`.
    pub fn on_busy(&mut self, cseq: CommandSeq, retry_after: Duration, now: Duration) {
        let taken = cseq.0.saturating_sub(self.state.applied.0.saturating_add(1));
        self.in_flight = self.in_flight.min(usize::try_from(taken).unwrap_or(usize::MAX));
        self.not_before = Some(now.saturating_add(retry_after));
    }

    /// The session ended: whatever was in flight is sent again in the next one.
    pub fn on_disconnect(&mut self) {
        self.in_flight = 0;
        self.window = 0;
        self.not_before = None;
    }

    fn last(&self) -> CommandSeq {
        self.pending.back().map_or(self.state.applied, |command| command.cseq)
    }
}
