//! Snapshots: the conversations of a user as they stand, in pages, for a device that cannot be served from the log.

use super::queries::{MESSAGE_OVERHEAD, page_bytes};
use super::{Engine, store_error};
use crate::store::{StoreError, UserNo};
use std::sync::Arc;
use whimbrel_protocol::codec::MAX_PAGE;
use whimbrel_protocol::frame::{ConversationState, Direction, Error, MemberState, Snapshot};
use whimbrel_protocol::{ConversationId, ConversationSeq};

/// Messages of each conversation in a snapshot.
const MESSAGES: usize = 20;
/// The most conversations in a page.
const CONVERSATIONS: usize = 100;

/// A page of a snapshot.
#[derive(Debug)]
pub struct SnapshotPage {
    /// What the device is sent.
    pub page: Snapshot,
    /// Where the next page begins; `None` after the last.
    pub next: Option<SnapshotCursor>,
    /// Up to where the page holds messages of others: delivered once the device has acknowledged the snapshot.
    pub holds: Vec<(ConversationId, ConversationSeq)>,
}

/// How far a session has got with its snapshot.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotCursor {
    after: ConversationId,
    messages: bool,
}

impl SnapshotCursor {
    pub(super) fn new(messages: bool) -> Self {
        Self { after: ConversationId(0), messages }
    }
}

impl Engine {
    /// The next page of a snapshot.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn snapshot(self: &Arc<Self>, user: UserNo, cursor: SnapshotCursor) -> Result<SnapshotPage, Error> {
        let page = self.on_store(move |engine| engine.snapshot_page(user, cursor)).await;
        page.map_err(|error| store_error(&error))
    }

    fn snapshot_page(&self, user: UserNo, cursor: SnapshotCursor) -> Result<SnapshotPage, StoreError> {
        let found = self.store.conversations_of(user, cursor.after, CONVERSATIONS)?;
        let mut page = Snapshot { conversations: Vec::new(), last: found.len() < CONVERSATIONS };
        let mut room = MAX_PAGE;
        let mut after = cursor.after;
        let mut holds = Vec::new();
        let reader = self.name(user)?;
        for conversation in found {
            let messages = if cursor.messages {
                let from = ConversationSeq(0);
                let records = self.store.conversation_entries(conversation.id, from, Direction::Backwards, MESSAGES, MAX_PAGE)?;
                records.iter().filter_map(|record| self.stored_message(record).transpose()).collect::<Result<Vec<_>, _>>()?
            } else {
                Vec::new()
            };
            let members = conversation.members.iter().map(|member| {
                let user = self.name(member.user)?;
                Ok(MemberState { user, delivered: member.delivered, read: member.read })
            });
            let members = members.collect::<Result<Vec<_>, StoreError>>()?;
            let names = members.iter().map(|member| member.user.as_str().len() + MESSAGE_OVERHEAD).sum::<usize>();
            let bytes = messages.iter().map(page_bytes).sum::<usize>() + names;
            if bytes > room && !page.conversations.is_empty() {
                page.last = false;
                break;
            }
            room = room.saturating_sub(bytes);
            after = conversation.id;
            if let Some(newest) = messages.iter().rev().find(|message| message.from != reader) {
                holds.push((conversation.id, newest.seq));
            }
            let head = conversation.head;
            page.conversations.push(ConversationState { conversation: conversation.id, kind: conversation.kind, members, head, messages });
        }
        let next = (!page.last).then_some(SnapshotCursor { after, ..cursor });
        Ok(SnapshotPage { page, next, holds })
    }
}
