//! What comes from the server, in order, each until it is done.

use crate::inbox::Inbox;
use crate::{OutcomeError, Sent, TransportKind};
use std::sync::Arc;
use whimbrel_protocol::frame::{Content, Event, ResetReason, ServerSignal, Target};
use whimbrel_protocol::{CommandSeq, Disagreement, MailboxSeq, Nonce, Time};

/// Something that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// An entry of the user's mailbox. `from` of a message and `user` of a receipt are filled in; they are `None` only where this device
    /// does not know the conversation's members.
    Event {
        /// The entry.
        event: Event,
        /// What it came over.
        transport: TransportKind,
    },
    /// What became of a command of this device, of this run or of one before.
    Outcome(Outcome),
    /// The mailbox could not be continued from where this device was: what it was told before may have gaps, or is gone
    /// ([`ResetReason::OtherLog`]). What this device keeps is right again already, the snapshot included if there was one: read
    /// [`Client::conversations`](crate::Client::conversations) anew. Done when it is done, as an event is: a process that dies before
    /// is told again.
    Reset {
        /// Why.
        reason: ResetReason,
    },
    /// A snapshot is stored: [`Client::conversations`](crate::Client::conversations) and
    /// [`Client::messages`](crate::Client::messages) have it now.
    Snapshot {
        /// How many conversations it held.
        conversations: usize,
    },
    /// This device's outbox and the server contradicted each other. It goes on with a new outbox; the text says what may have been lost.
    /// Done when it is done, as a reset is.
    Disagreement(Disagreement),
    /// Something fleeting: typing, presence. Dropped if the application is slow.
    Signal(ServerSignal),
}

/// What became of a command of this device. Done when it is done, as an entry of the mailbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Its place in the mailbox; `None` if a reset, or a disagreement, made it known instead ([`OutcomeError::Untold`]).
    pub entry: Option<MailboxSeq>,
    /// When it was committed.
    pub time: Time,
    /// The command's number.
    pub cseq: CommandSeq,
    /// The command's name for its life, as [`Ticket::nonce`](crate::Ticket::nonce) has it; `None` if this device no longer has the command.
    pub nonce: Option<Nonce>,
    /// Where it went; `None` if this device no longer has the command, or if it was not a message.
    pub to: Option<Target>,
    /// What it said; `None` as above.
    pub content: Option<Content>,
    /// The message, or why there is none.
    pub result: Result<Sent, OutcomeError>,
}

/// The stream of everything that comes. One reader; in order.
#[derive(Debug)]
pub struct Events {
    inbox: Arc<Inbox>,
}

impl Events {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Says that what was returned before is done, and waits for the next. `None` once the client has ended.
    ///
    /// Cancel-safe: a future that is dropped loses nothing.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.done();
        loop {
            let arrived = self.inbox.arrived();
            match self.inbox.take() {
                Some(next) => return next,
                None => arrived.await,
            }
        }
    }

    /// What is there already, without waiting; otherwise as [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Incoming> {
        self.done();
        self.inbox.take().flatten()
    }

    /// Says that what [`next`](Self::next) returned is done: it is stored and acknowledged. For when no other is asked for soon.
    pub fn done(&mut self) {
        self.inbox.done();
    }

    /// From now on everything is stored and acknowledged as it comes, without being handed out: for applications that only send, or that
    /// read from [`Client::messages`](crate::Client::messages).
    pub fn store_only(self) {
        self.inbox.store_only();
    }
}
