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
    /// The server gave the new outbox that was asked for: every command not known to be applied now has a new number (from 1) in the new
    /// incarnation and its old nonce. Store the new state and numbers in one transaction *before* sending any of them.
    Renumbered,
    /// They contradict each other. Store [`Uplink::state`] (its incarnation is 0 now), connect again, and the server gives a new outbox.
    /// Note the reason in the same transaction, until the application has been told: afterwards nothing else remembers the contradiction.
    /// The reason says what may have been lost; it stands until [`Renumbered`](Self::Renumbered).
    Disagreed(Disagreement),
}

/// Why an outbox and the server contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The server has applied commands that this outbox never numbered: the outbox was restored from a backup, or cloned. Nothing is
    /// lost; what the other life of the outbox sent comes as ordinary messages.
    #[error(
        "the server has carried out command {server} of this device, which has given out numbers up to {numbered}: its files were restored from a backup, or copied"
    )]
    OutboxIsOlder {
        /// Highest applied command by the server's word.
        server: CommandSeq,
        /// Highest command of this outbox.
        numbered: CommandSeq,
    },
    /// The server applied another command under a number of ours: two outboxes have written under the same numbers.
    #[error("command {cseq} is another one for the server: two copies of this device's files are in use")]
    AnotherCommand {
        /// The number both used.
        cseq: CommandSeq,
    },
    /// The server no longer knows of commands that it had applied: its store was restored from a backup. Commands after `server` up
    /// to and including `ours` may be lost there.
    #[error(
        "the server had confirmed commands up to {ours} and knows of {server} now: its data was restored from a backup, what lies between may be lost there"
    )]
    ServerIsOlder {
        /// Highest applied command by the server's word now.
        server: CommandSeq,
        /// Highest applied command by its word before.
        ours: CommandSeq,
    },
    /// The server gave another outbox although none was asked for. If its number is higher, this outbox was restored or cloned and
    /// nothing is lost, or the server began anew; otherwise the server was restored or has forgotten the device, and commands known to be
    /// applied may be lost there.
    #[error("{}", of_another_outbox(*server > *ours))]
    AnotherOutbox {
        /// The outbox by the server's word.
        server: Incarnation,
        /// The outbox as it is stored here.
        ours: Incarnation,
    },
}

fn of_another_outbox(server_is_ahead: bool) -> &'static str {
    if server_is_ahead {
        "the server knows another outbox of this device: the server's data was deleted or restored from a backup, or this device's files were, or copied"
    } else {
        "the server does not know this device any more: its data was deleted, or restored from a backup"
    }
}

/// The outbox of a device.
///
/// Order to keep, so that nothing is lost or done twice, whenever the device is killed:
/// 1. [`enqueue`](Self::enqueue), store the command durably, then let it be sent by [`poll_transmit`](Self::poll_transmit);
/// 2. on a `Welcome`, [`on_welcome`](Self::on_welcome), store what it asks for, then transmit;
/// 3. on `Applied`, [`on_applied`](Self::on_applied), then store the state whenever convenient: repeats are harmless.
///
/// Where the transport allows it, the first of [`pending`](Self::pending) may be sent right behind the `Hello`, once it said an incarnation
/// other than 0: then [`on_opened`](Self::on_opened) before the `Welcome` is handed in.
///
/// Only frames of the session whose `Welcome` came last may be handed in: `Applied` and `Busy` do not say which outbox they mean.
///
/// Bound: the caller decides how many commands it lets wait ([`waiting`](Self::waiting)).
#[derive(Debug, Clone, Default)]
pub struct Uplink {
    state: OutboxState,
    /// Commands not known to be applied; the first has the number after `state.applied`, the others follow without a gap.
    pending: VecDeque<Command>,
    /// How many of `pending`, from the front, were handed out in this session.
    in_flight: usize,
    /// How many of `pending`, from the front, stand behind the `Hello` of the session that begins.
    opened: usize,
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

    /// The session that begins was opened with a `Hello` of this incarnation and, right behind it, all pending commands up to `through`.
    /// They are on their way, and not sent again in this session if its `Welcome` agrees.
    pub fn on_opened(&mut self, incarnation: Incarnation, through: CommandSeq) {
        let count = through.0.saturating_sub(self.state.applied.0);
        let known = incarnation == self.state.incarnation && incarnation != Incarnation(0);
        self.opened = if known { usize::try_from(count).map_or(self.pending.len(), |count| count.min(self.pending.len())) } else { 0 };
    }

    /// Compares the outbox with what the server says of it, and opens the window if they agree.
    ///
    /// An outbox changes its incarnation only when its `Hello` asked for a new one. That makes every other change a [`Disagreement`]
    /// that the application hears of, also when a server lost the outbox together with commands it had applied.
    pub fn on_welcome(&mut self, welcome: &Welcome) -> Agreement {
        let opened = self.opened;
        self.on_disconnect();
        let ours = self.state.incarnation;
        let window = usize::try_from(welcome.window).unwrap_or(usize::MAX);
        if ours == Incarnation(0) && welcome.applied == CommandSeq(0) {
            self.renumber(welcome.incarnation);
            self.window = window;
            return Agreement::Renumbered;
        }
        let compared = if welcome.incarnation == ours {
            self.compare(welcome.applied, welcome.applied_nonce)
        } else {
            Err(Disagreement::AnotherOutbox { server: welcome.incarnation, ours })
        };
        if let Err(disagreement) = compared {
            self.state.incarnation = Incarnation(0);
            return Agreement::Disagreed(disagreement);
        }
        self.window = window;
        self.in_flight = opened;
        self.on_applied(welcome.applied);
        Agreement::Agreed
    }

    fn renumber(&mut self, incarnation: Incarnation) {
        self.state = OutboxState { incarnation, ..OutboxState::default() };
        for (cseq, command) in (1..).zip(&mut self.pending) {
            command.incarnation = incarnation;
            command.cseq = CommandSeq(cseq);
        }
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
        if let Some(last) = self.pending.drain(..count).next_back() {
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
        self.opened = 0;
        self.window = 0;
        self.not_before = None;
    }

    fn last(&self) -> CommandSeq {
        self.pending.back().map_or(self.state.applied, |command| command.cseq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Begin, MarkRead};
    use crate::{ConversationId, ConversationSeq, LogEpoch, MailboxSeq, SessionEpoch, Time, UserId};
    use std::vec::Vec;

    fn welcome(incarnation: u64, applied: u64, nonce: u8) -> Welcome {
        Welcome {
            version: 1,
            user: UserId::new("alice").unwrap(),
            session_epoch: SessionEpoch(1),
            epoch: LogEpoch(1),
            incarnation: Incarnation(incarnation),
            applied: CommandSeq(applied),
            applied_nonce: Nonce([nonce; 8]),
            head: MailboxSeq(0),
            begin: Begin { cursor: MailboxSeq(0), time: Time(0), snapshot: false, reset: None },
            window: 3,
            max_text: 100,
            time: Time(0),
            endpoints: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// An outbox with incarnation 5, commands 1 to 5 with nonces of those numbers, the first two applied.
    fn outbox() -> Uplink {
        let mut uplink = Uplink::default();
        for nonce in 1..=5 {
            uplink.enqueue(Nonce([nonce; 8]), MarkRead { conversation: ConversationId(1), seq: ConversationSeq(1) }.into());
        }
        assert_eq!(uplink.on_welcome(&welcome(5, 0, 0)), Agreement::Renumbered);
        assert_eq!(uplink.on_applied(CommandSeq(2)), 2);
        uplink
    }

    fn sent(uplink: &mut Uplink, now: u64) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(command) = uplink.poll_transmit(Duration::from_millis(now)) {
            sent.push(command.cseq.0);
        }
        sent
    }

    #[test]
    fn a_session_sends_each_command_once_within_the_window_and_the_next_session_again() {
        let mut uplink = outbox();
        assert_eq!(uplink.on_welcome(&welcome(5, 2, 2)), Agreement::Agreed);
        assert_eq!(sent(&mut uplink, 0), [3, 4, 5]);
        uplink.enqueue(Nonce([6; 8]), MarkRead { conversation: ConversationId(1), seq: ConversationSeq(1) }.into());
        assert!(sent(&mut uplink, 0).is_empty(), "three are on their way");
        uplink.on_applied(CommandSeq(3));
        assert_eq!(sent(&mut uplink, 0), [6], "only what was not sent yet");
        assert_eq!(uplink.on_welcome(&welcome(5, 3, 3)), Agreement::Agreed);
        assert_eq!(sent(&mut uplink, 0), [4, 5, 6]);
        uplink.on_disconnect();
        assert!(sent(&mut uplink, 0).is_empty());
        assert_eq!(uplink.waiting(), 3);
    }

    #[test]
    fn what_stands_behind_the_hello_is_not_sent_again_if_the_two_agree() {
        let five = Incarnation(5);
        // Opened up to 4; of the five pending the server has applied so many already.
        for (applied, rest) in [(2, [5].as_slice()), (3, &[5]), (4, &[5]), (5, &[])] {
            let mut uplink = outbox();
            uplink.on_disconnect();
            uplink.on_opened(five, CommandSeq(4));
            assert!(sent(&mut uplink, 0).is_empty(), "nothing more before the welcome");
            assert_eq!(uplink.on_welcome(&welcome(5, applied, u8::try_from(applied).unwrap())), Agreement::Agreed);
            assert_eq!(sent(&mut uplink, 0), rest);
        }
        // They count for the window, and are forgotten with the session.
        let mut uplink = outbox();
        uplink.on_opened(five, CommandSeq(5));
        let narrow = Welcome { window: 2, ..welcome(5, 2, 2) };
        uplink.enqueue(Nonce([6; 8]), MarkRead { conversation: ConversationId(1), seq: ConversationSeq(1) }.into());
        uplink.on_welcome(&narrow);
        uplink.on_applied(CommandSeq(3));
        assert!(sent(&mut uplink, 0).is_empty());
        uplink.on_applied(CommandSeq(4));
        assert_eq!(sent(&mut uplink, 0), [6]);
        uplink.on_opened(five, CommandSeq(6));
        uplink.on_disconnect();
        uplink.on_welcome(&welcome(5, 4, 4));
        assert_eq!(sent(&mut uplink, 0), [5, 6]);
        // Not taken by the server: again.
        uplink.on_opened(five, CommandSeq(6));
        uplink.on_welcome(&welcome(5, 4, 4));
        uplink.on_busy(CommandSeq(5), Duration::ZERO, Duration::ZERO);
        assert_eq!(sent(&mut uplink, 0), [5, 6]);
    }

    #[test]
    fn what_stands_behind_a_hello_that_does_not_agree_was_never_sent() {
        for disagreeing in [welcome(5, 1, 1), welcome(5, 6, 6), welcome(5, 3, 9), welcome(6, 0, 0)] {
            let mut uplink = outbox();
            uplink.on_opened(Incarnation(5), CommandSeq(5));
            assert!(matches!(uplink.on_welcome(&disagreeing), Agreement::Disagreed(_)));
            assert_eq!(uplink.on_welcome(&welcome(7, 0, 0)), Agreement::Renumbered);
            assert_eq!(sent(&mut uplink, 0), [1, 2, 3]);
        }
        // Of an outbox of the past, or of none.
        let mut uplink = outbox();
        for incarnation in [4, 0] {
            uplink.on_opened(Incarnation(incarnation), CommandSeq(5));
            uplink.on_welcome(&welcome(5, 2, 2));
            assert_eq!(sent(&mut uplink, 0), [3, 4, 5]);
        }
    }

    #[test]
    fn busy_takes_back_what_was_not_taken_and_waits() {
        let mut uplink = outbox();
        uplink.on_welcome(&welcome(5, 2, 2));
        assert_eq!(sent(&mut uplink, 0), [3, 4, 5]);
        uplink.on_busy(CommandSeq(4), Duration::from_millis(100), Duration::from_millis(10));
        assert_eq!(uplink.poll_timeout(), Some(Duration::from_millis(110)));
        assert!(sent(&mut uplink, 109).is_empty());
        assert_eq!(sent(&mut uplink, 110), [4, 5]);
        assert_eq!(uplink.poll_timeout(), None);
    }

    #[test]
    fn applied_counts_no_number_that_was_never_given() {
        let mut uplink = outbox();
        assert_eq!(uplink.on_applied(CommandSeq(2)), 0);
        assert_eq!(uplink.on_applied(CommandSeq(1)), 0);
        assert_eq!(uplink.on_applied(CommandSeq(6)), 0);
        assert_eq!(uplink.on_applied(CommandSeq(u64::MAX)), 0);
        assert_eq!(uplink.on_applied(CommandSeq(5)), 3);
        assert_eq!(uplink.state().applied_nonce, Nonce([5; 8]));
    }

    #[test]
    fn every_contradiction_has_its_name_and_asks_for_a_new_outbox() {
        let (server, ours) = (CommandSeq, CommandSeq(2));
        let cases = [
            (welcome(5, 1, 1), Disagreement::ServerIsOlder { server: server(1), ours }),
            (welcome(5, 6, 6), Disagreement::OutboxIsOlder { server: server(6), numbered: CommandSeq(5) }),
            (welcome(5, 2, 9), Disagreement::AnotherCommand { cseq: CommandSeq(2) }),
            (welcome(5, 4, 9), Disagreement::AnotherCommand { cseq: CommandSeq(4) }),
            (welcome(6, 0, 0), Disagreement::AnotherOutbox { server: Incarnation(6), ours: Incarnation(5) }),
            (welcome(4, 2, 2), Disagreement::AnotherOutbox { server: Incarnation(4), ours: Incarnation(5) }),
        ];
        for (welcome, disagreement) in cases {
            let mut uplink = outbox();
            assert_eq!(uplink.on_welcome(&welcome), Agreement::Disagreed(disagreement));
            assert_eq!(uplink.incarnation(), Incarnation(0));
            assert!(sent(&mut uplink, 0).is_empty(), "nothing is sent before a new outbox is agreed");

            assert_eq!(uplink.on_welcome(&self::welcome(7, 0, 0)), Agreement::Renumbered);
            let kept: Vec<_> = uplink.pending().map(|command| (command.incarnation.0, command.cseq.0, command.nonce.0[0])).collect();
            assert_eq!(kept, [(7, 1, 3), (7, 2, 4), (7, 3, 5)]);
        }
    }

    #[test]
    fn a_restart_keeps_what_is_not_applied() {
        let uplink = outbox();
        let mut commands: Vec<_> = uplink.pending().cloned().collect();
        commands.insert(0, Command { cseq: CommandSeq(2), ..commands[0].clone() });
        let mut again = Uplink::restore(uplink.state(), commands);
        assert_eq!(again.waiting(), 3);
        assert_eq!(again.on_welcome(&welcome(5, 4, 4)), Agreement::Agreed);
        assert_eq!(sent(&mut again, 0), [5]);
    }
}
