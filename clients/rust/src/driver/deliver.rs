//! From the wire into the inbox: in order, once, with the names that the wire leaves out.

use super::phase::Phase;
use super::queries::Reply;
use super::session::Session;
use super::{Completed, Driver};
use crate::inbox::{EVENTS_MAX, Item};
use crate::{Incoming, QueryError};
use tokio::sync::oneshot;
use whimbrel_protocol::ConversationSeq;
use whimbrel_protocol::frame::{Direction, Event, EventBody, History, HistoryPage, Rejected, Sent, Target};

/// Messages that are looked at to find out who the other member is.
const LOOKED_AT: u32 = 20;

impl Driver {
    /// Takes an event that is next in its session.
    pub(super) fn deliver(&mut self, session: &mut Session, mut event: Event) {
        if event.through() <= self.queued {
            return;
        }
        // What does not fit is thrown away, and comes again in another session.
        session.overflow |= !self.inbox.has_room() || self.parked.len() >= EVENTS_MAX;
        if !session.overflow && (!self.parked.is_empty() || self.is_nameless(&event)) {
            return self.parked.push_back(event);
        }
        if let EventBody::Sent(Sent { incarnation, cseq, .. }) | EventBody::Rejected(Rejected { incarnation, cseq, .. }) = event.body {
            // An outcome says that the command is durable; `Applied` may come later. Stored together with the event, at the latest.
            if incarnation == self.outbox.incarnation() {
                self.on_applied(session, cseq);
            }
        }
        let outcome = self.outbox.on_outcome(&event, session.transport, session.overflow);
        if session.overflow {
            return;
        }
        self.queued = event.through();
        let position = self.downlink.position_at(&event);
        self.directory.complete(&mut event);
        let shown = match (&event.body, outcome) {
            (EventBody::Skip(_), _) => None,
            (_, Some(outcome)) => Some(Incoming::Outcome(outcome)),
            _ => Some(Incoming::Event { event: event.clone(), transport: session.transport }),
        };
        self.inbox.push(Item::Event { event, position, shown });
    }

    /// Whether the event has to wait until the server has said who is in its conversation. Devices that did not begin at the beginning
    /// meet conversations of which they were told nothing.
    fn is_nameless(&mut self, event: &Event) -> bool {
        let Some(conversation) = self.directory.lacks(event).filter(|_| self.nameless != Some(event.seq)) else { return false };
        let (from, direction) = match &event.body {
            EventBody::Message(message) => (ConversationSeq(message.seq.0.saturating_sub(1)), Direction::Forwards),
            _ => (ConversationSeq(0), Direction::Backwards),
        };
        let (reply, answer) = oneshot::channel();
        let question = History { of: Target::Conversation(conversation), from, direction, limit: LOOKED_AT };
        self.queries.open(question.into(), Reply::History(reply));
        self.jobs.push(Box::pin(async move { Completed::Named(answer.await.unwrap_or(Err(QueryError::Ended))) }));
        true
    }

    /// The server has said who it is, or cannot: what waited for that goes on.
    pub(super) fn on_named(&mut self, page: Option<HistoryPage>) {
        if !page.is_some_and(|page| self.directory.learn_from(&page)) {
            self.nameless = self.parked.front().map(|event| event.seq);
        }
        let Some(mut session) = self.take_session() else { return };
        let mut parked = std::mem::take(&mut self.parked);
        while let Some(event) = parked.pop_front() {
            self.deliver(&mut session, event);
            if !self.parked.is_empty() {
                // It has to wait for another name, and the rest with it.
                self.parked.append(&mut parked);
            }
        }
        self.phase = Phase::Session(session);
    }
}
