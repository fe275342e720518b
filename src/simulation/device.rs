//! A device of the simulated world: what it keeps, and its session.

use crate::engine::{Provisional, SessionHandle, Viewer};
use crate::session::commands::Commands;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use whimbrel_protocol::frame::{ClientFrame, Command, Event, EventBody, Position, ServerFrame};
use whimbrel_protocol::{CommandSeq, ConversationId, ConversationSeq, DeviceId, Downlink, MailboxSeq, Nonce, OutboxState, Uplink, UserId};

/// What a device keeps over its own death.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub outbox: OutboxState,
    pub commands: Vec<Command>,
    pub position: Option<Position>,
    /// Texts by the place of their message, in the order in which they were taken.
    pub taken: Vec<(ConversationId, ConversationSeq, String)>,
    /// What was said under which nonce, for outcomes.
    pub said: HashMap<Nonce, String>,
    /// Commands that are applied, and whose outcome has not come.
    pub awaiting: BTreeMap<(u64, u64), Nonce>,
}

pub(super) struct Device {
    pub user: UserId,
    pub name: DeviceId,
    pub disk: Disk,
    pub backup: Disk,
    /// Another one for each life.
    pub instance: Nonce,
    pub attempt: u32,
    pub uplink: Uplink,
    pub downlink: Downlink,
    pub session: Option<Session>,
}

/// A session: the server's side of it, and the frames on their way.
pub(super) struct Session {
    pub handle: Arc<SessionHandle>,
    /// Its handshake is not over.
    pub provisional: Option<Provisional>,
    pub commands: Commands,
    pub viewer: Viewer,
    pub sent: MailboxSeq,
    pub answered: CommandSeq,
    pub up: VecDeque<ClientFrame>,
    pub down: VecDeque<ServerFrame>,
    /// What travels in datagrams: it may come at any time, any number of times, or not at all.
    pub copies_up: Vec<Command>,
    pub copies_down: Vec<Event>,
}

pub(super) fn numbers(uplink: &Uplink) -> Vec<(u64, u64, Nonce)> {
    uplink.pending().map(|command| (command.incarnation.0, command.cseq.0, command.nonce)).collect()
}

impl Device {
    /// Stores the outbox in one transaction; what is no longer pending waits for its outcome under the number it had.
    pub(super) fn store_outbox(&mut self, before: &[(u64, u64, Nonce)]) {
        let pending: Vec<Command> = self.uplink.pending().cloned().collect();
        for (incarnation, cseq, nonce) in before {
            if !pending.iter().any(|command| command.nonce == *nonce) {
                self.disk.awaiting.insert((*incarnation, *cseq), *nonce);
            }
        }
        self.disk.commands = pending;
        self.disk.outbox = self.uplink.state();
    }

    /// Stores what an event says, as the same transaction stores the cursor.
    pub(super) fn store_event(&mut self, event: &Event) {
        let place = match &event.body {
            EventBody::Message(message) => Some((message.conversation, message.seq, message.content.text.clone())),
            EventBody::Sent(sent) => {
                let number = (sent.incarnation.0, sent.cseq.0);
                // The outcome may overtake `Applied`.
                let pending = self.disk.commands.iter().find(|command| (command.incarnation.0, command.cseq.0) == number);
                let nonce = self.disk.awaiting.get(&number).copied().or(pending.map(|command| command.nonce));
                let text = nonce.and_then(|nonce| self.disk.said.get(&nonce)).cloned();
                // The outcome of a repeat names a message that is there already.
                let known = self.disk.taken.iter().any(|(conversation, seq, _)| (*conversation, *seq) == (sent.conversation, sent.seq));
                (!known).then(|| (sent.conversation, sent.seq, text.unwrap_or_else(|| "an outcome of nothing".into())))
            }
            _ => None,
        };
        self.disk.taken.extend(place);
    }
}
