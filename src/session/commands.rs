//! The commands of a session, before they are committed: in order, within the window, without a gap.

use crate::engine::WINDOW;
use std::collections::BTreeMap;
use whimbrel_protocol::frame::{Busy, Command, Error};
use whimbrel_protocol::{CommandSeq, EARLY_MAX, ErrorCode, Incarnation};

/// What a session has taken in of its device's outbox.
pub(crate) struct Commands {
    incarnation: Incarnation,
    /// The number that comes next.
    expected: CommandSeq,
    /// The server was full: what follows `expected` is ignored until `expected` itself comes again.
    refused: bool,
    busy: Option<Busy>,
    /// Copies that came before their turn.
    early: BTreeMap<CommandSeq, Command>,
    /// Repeats handed to the engine since `repeats_at` was applied.
    repeats: u32,
    repeats_at: CommandSeq,
}

impl Commands {
    pub(crate) fn new(incarnation: Incarnation, applied: CommandSeq) -> Self {
        Self { incarnation, expected: applied.next(), refused: false, busy: None, early: BTreeMap::new(), repeats: 0, repeats_at: applied }
    }

    /// A `Busy` to send.
    pub(crate) fn take_busy(&mut self) -> Option<Busy> {
        self.busy.take()
    }

    /// Takes a command in that came over the stream, or not; `submit` hands it to the engine.
    pub(crate) fn take(
        &mut self,
        command: Command,
        applied: CommandSeq,
        submit: &mut dyn FnMut(Command) -> Result<(), Busy>,
    ) -> Result<(), Error> {
        self.take_one(command, applied, submit)?;
        self.take_early(applied, submit)
    }

    /// The same for a copy that came in a datagram: it may be early, and is never an error. Repeats are left to the stream.
    pub(crate) fn take_copy(
        &mut self,
        command: Command,
        applied: CommandSeq,
        submit: &mut dyn FnMut(Command) -> Result<(), Busy>,
    ) -> Result<(), Error> {
        let within = command.cseq >= self.expected && command.cseq.0 <= applied.0.saturating_add(u64::from(WINDOW));
        let room = command.cseq == self.expected || self.early.len() < EARLY_MAX;
        // After a `Busy` the client says when it goes on.
        if command.incarnation == self.incarnation && within && room && !self.refused {
            self.early.insert(command.cseq, command);
        }
        self.take_early(applied, submit)
    }

    /// Takes in what came before its turn, and has it now.
    fn take_early(&mut self, applied: CommandSeq, submit: &mut dyn FnMut(Command) -> Result<(), Busy>) -> Result<(), Error> {
        let is_next =
            |commands: &Self| !commands.refused && commands.early.first_key_value().is_some_and(|(at, _)| *at <= commands.expected);
        while is_next(self) {
            let Some((_, command)) = self.early.pop_first() else { break };
            self.take_one(command, applied, submit)?;
        }
        if self.refused {
            self.early.clear();
        }
        Ok(())
    }

    fn take_one(
        &mut self,
        command: Command,
        applied: CommandSeq,
        submit: &mut dyn FnMut(Command) -> Result<(), Busy>,
    ) -> Result<(), Error> {
        let cseq = command.cseq;
        if command.incarnation != self.incarnation || (applied < cseq && cseq < self.expected) {
            // Of an outbox of the past; or on its way to the committer already.
            return Ok(());
        }
        if cseq.0 > applied.0.saturating_add(u64::from(WINDOW)) {
            return Err(exceeded(format!("command {cseq} is beyond the window of {WINDOW} after {applied}")));
        }
        if cseq > self.expected {
            // After a `Busy` what was on its way is dropped; without one, something is missing.
            return if self.refused { Ok(()) } else { Err(exceeded(format!("command {cseq} came, {} is missing", self.expected))) };
        }
        let next = cseq == self.expected;
        if !next && !self.may_repeat(applied) {
            return Ok(());
        }
        match submit(command) {
            Ok(()) if next => {
                self.expected = cseq.next();
                self.refused = false;
            }
            Ok(()) => {}
            Err(busy) if next => {
                self.refused = true;
                self.busy = Some(busy);
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// At or below `applied` a command is a repeat: the engine compares the nonces. It takes a window of them until something new is
    /// applied; the rest can have no effect and is dropped, so that what waits of a session is bounded.
    fn may_repeat(&mut self, applied: CommandSeq) -> bool {
        if self.repeats_at != applied {
            (self.repeats, self.repeats_at) = (0, applied);
        }
        self.repeats = self.repeats.saturating_add(1);
        self.repeats <= WINDOW
    }
}

fn exceeded(message: String) -> Error {
    Error { code: ErrorCode::WindowExceeded, message, retry_after_ms: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_protocol::Nonce;
    use whimbrel_protocol::frame::{CommandBody, Unknown};

    fn command(incarnation: u64, cseq: u64) -> Command {
        let body = CommandBody::Unknown(Unknown { kind: 9, reason: String::new() });
        Command { incarnation: Incarnation(incarnation), cseq: CommandSeq(cseq), nonce: Nonce::default(), body }
    }

    #[test]
    fn commands_go_in_once_in_order_and_without_a_gap() {
        let mut commands = Commands::new(Incarnation(3), CommandSeq(5));
        let mut taken = Vec::new();
        for (incarnation, cseq) in [(3, 6), (2, 7), (3, 6), (3, 7), (3, 5)] {
            let result = commands.take(command(incarnation, cseq), CommandSeq(5), &mut |command| {
                taken.push(command.cseq.0);
                Ok(())
            });
            assert_eq!(result, Ok(()));
        }
        assert_eq!(taken, [6, 7, 5], "repeats of what is applied go to the engine, which compares nonces");
        let gap = commands.take(command(3, 9), CommandSeq(5), &mut |_| Ok(()));
        assert_eq!(gap.unwrap_err().code, ErrorCode::WindowExceeded);
    }

    #[test]
    fn repeats_are_bounded_as_new_commands_are() {
        let mut commands = Commands::new(Incarnation(1), CommandSeq(5));
        let mut taken = 0;
        let mut repeat = |commands: &mut Commands, applied, times| {
            for _ in 0..times {
                let result = commands.take(command(1, 3), CommandSeq(applied), &mut |_| {
                    taken += 1;
                    Ok(())
                });
                assert_eq!(result, Ok(()));
            }
            std::mem::take(&mut taken)
        };
        assert_eq!(repeat(&mut commands, 5, 3 * WINDOW), WINDOW);
        assert_eq!(commands.take(command(1, 6), CommandSeq(5), &mut |_| Ok(())), Ok(()), "new ones are taken all the same");
        assert_eq!(repeat(&mut commands, 5, 1), 0);
        assert_eq!(repeat(&mut commands, 6, 2), 2);
    }

    #[test]
    fn after_busy_everything_waits_for_the_refused_one() {
        let mut commands = Commands::new(Incarnation(1), CommandSeq(0));
        let busy = Busy { cseq: CommandSeq(1), retry_after_ms: 5 };
        assert_eq!(commands.take(command(1, 1), CommandSeq(0), &mut |_| Err(busy)), Ok(()));
        assert_eq!(commands.take_busy(), Some(busy));
        assert_eq!(commands.take(command(1, 2), CommandSeq(0), &mut |_| panic!("2 must wait for 1")), Ok(()));
        assert_eq!(commands.take(command(1, 1), CommandSeq(0), &mut |_| Ok(())), Ok(()));
        assert_eq!(commands.take(command(1, 2), CommandSeq(0), &mut |_| Ok(())), Ok(()));
        assert!(commands.take(command(1, 4), CommandSeq(0), &mut |_| Ok(())).is_err());
    }

    #[test]
    fn the_window_is_kept_to_the_number() {
        let window = u64::from(WINDOW);
        let mut commands = Commands::new(Incarnation(1), CommandSeq(0));
        for cseq in 1..=window {
            assert_eq!(commands.take(command(1, cseq), CommandSeq(0), &mut |_| Ok(())), Ok(()));
        }
        assert!(commands.take(command(1, window + 1), CommandSeq(0), &mut |_| Ok(())).is_err());
        assert_eq!(commands.take(command(1, window + 1), CommandSeq(1), &mut |_| Ok(())), Ok(()));
    }

    #[test]
    fn copies_may_come_early_doubled_and_late_and_are_taken_once_in_order() {
        let mut commands = Commands::new(Incarnation(1), CommandSeq(0));
        let mut taken = Vec::new();
        let mut submit = |command: Command| {
            taken.push(command.cseq.0);
            Ok(())
        };
        // As copies, or over the stream.
        for (copy, incarnation, cseq) in [
            (true, 1, 3),
            (true, 1, 2),
            (true, 2, 1),
            (false, 1, 1),
            (true, 1, 1),
            (true, 1, 5),
            (false, 1, 2),
            (false, 1, 3),
            (true, 1, 3),
        ] {
            let take = if copy { Commands::take_copy } else { Commands::take };
            assert_eq!(take(&mut commands, command(incarnation, cseq), CommandSeq(0), &mut submit), Ok(()));
        }
        assert_eq!(commands.take(command(1, 4), CommandSeq(0), &mut submit), Ok(()));
        assert_eq!(taken, [1, 2, 3, 4, 5]);
        assert!(commands.early.is_empty());
    }

    #[test]
    fn early_copies_are_bounded_and_forgotten_when_the_server_is_full() {
        let mut commands = Commands::new(Incarnation(1), CommandSeq(0));
        for cseq in 2..=u64::from(WINDOW) + 5 {
            assert_eq!(commands.take_copy(command(1, cseq), CommandSeq(0), &mut |_| panic!("1 is missing")), Ok(()));
        }
        assert_eq!(commands.early.len(), EARLY_MAX);
        let busy = Busy { cseq: CommandSeq(1), retry_after_ms: 5 };
        assert_eq!(commands.take_copy(command(1, 1), CommandSeq(0), &mut |_| Err(busy)), Ok(()));
        assert!(commands.early.is_empty());
        assert_eq!(commands.take_copy(command(1, 1), CommandSeq(0), &mut |_| panic!("the client waits")), Ok(()));
        assert_eq!(commands.take_busy(), Some(busy));
    }
}
