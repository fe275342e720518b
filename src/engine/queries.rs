//! Queries: reads that a client asks for, answered in as many frames as it takes.

use super::{Engine, SessionHandle};
use crate::store::{Record, RecordBody, StoreError, UserNo};
use std::sync::Arc;
use whimbrel_protocol::codec::MAX_PAGE;
use whimbrel_protocol::frame::{
    AnswerBody, Direction, History, HistoryPage, Online, OnlinePage, QueryBody, Refused, StoredMessage, Target,
};
use whimbrel_protocol::{ConversationId, ErrorCode};

/// The most that a page of history or a list holds.
const PAGE_MAX: usize = 500;
/// The most content that an answer to one query holds, in bytes.
const HISTORY_BYTES: usize = 1 << 20;
/// What a message takes beside its text and its author's name, in bytes, at most: numbers, lengths, kind.
pub(super) const MESSAGE_OVERHEAD: usize = 40;

impl Engine {
    /// Answers a query: one body for each frame, in order.
    pub async fn query(self: &Arc<Self>, session: &SessionHandle, query: QueryBody) -> Vec<AnswerBody> {
        let user = session.user;
        let answer = match query {
            QueryBody::Online(Online { after, limit }) => {
                let (users, more) = self.hub.online(&after, (limit as usize).clamp(1, PAGE_MAX));
                return vec![OnlinePage { users, more }.into()];
            }
            QueryBody::History(history) => self.on_store(move |engine| engine.history(user, &history)).await,
            QueryBody::Unknown(unknown) => {
                Ok(vec![refused(ErrorCode::Unsupported, format!("this server cannot answer that: {}", unknown.reason))])
            }
        };
        answer.unwrap_or_else(|error| {
            tracing::error!(%error, "a query failed");
            vec![refused(ErrorCode::Internal, "the server could not read its store; ask again later".into())]
        })
    }

    fn history(&self, user: UserNo, history: &History) -> Result<Vec<AnswerBody>, StoreError> {
        let Some(conversation) = self.find(user, &history.of)? else {
            return Ok(vec![refused(ErrorCode::NotFound, "you are in no such conversation".into())]);
        };
        let limit = (history.limit as usize).clamp(1, PAGE_MAX);
        let backwards = history.direction == Direction::Backwards;
        // One more than asked for tells whether there are more.
        let records = self.store.conversation_entries(conversation, history.from, history.direction, limit + 1, HISTORY_BYTES)?;
        let mut records = &records[..];
        let mut more = records.len() > limit;
        if more {
            records = if backwards { &records[records.len() - limit..] } else { &records[..limit] };
        } else if let (Some(first), Some(last)) = (records.first(), records.last()) {
            // Fewer than asked for: the end, or as much as fits.
            let number = |record: &Record| match &record.body {
                RecordBody::Message { seq, .. } => seq.0,
                _ => 0,
            };
            let head = self.store.conversation(conversation)?.map_or(0, |conversation| conversation.head.0);
            more = if backwards { number(first) > 1 } else { number(last) < head };
        }
        let mut pages: Vec<HistoryPage> = Vec::new();
        let mut room = 0;
        for record in records {
            let Some(message) = self.stored_message(record)? else { continue };
            let bytes = page_bytes(&message);
            match pages.last_mut() {
                Some(page) if bytes <= room => {
                    room -= bytes;
                    page.messages.push(message);
                }
                _ => {
                    room = MAX_PAGE.saturating_sub(bytes);
                    pages.push(HistoryPage { conversation, messages: vec![message], more });
                }
            }
        }
        if pages.is_empty() {
            pages.push(HistoryPage { conversation, messages: Vec::new(), more });
        }
        Ok(pages.into_iter().map(AnswerBody::from).collect())
    }

    pub(super) fn stored_message(&self, record: &Record) -> Result<Option<StoredMessage>, StoreError> {
        Ok(match &record.body {
            RecordBody::Message { seq, origin, content, .. } => {
                let from = self.name(origin.device.user)?;
                Some(StoredMessage { seq: *seq, time: record.time, from, content: content.clone() })
            }
            _ => None,
        })
    }

    /// The conversation that a target names, if the user is in it.
    pub(super) fn find(&self, user: UserNo, target: &Target) -> Result<Option<ConversationId>, StoreError> {
        match target {
            Target::Conversation(id) => {
                Ok(self.store.conversation(*id)?.filter(|conversation| conversation.member(user).is_some()).map(|_| *id))
            }
            Target::User(other) => match self.store.user(other)? {
                Some(other) => self.store.direct(user, other),
                None => Ok(None),
            },
        }
    }
}

/// What a message takes of a page. One that takes more than a page has a page of its own, which still fits a frame.
pub(super) fn page_bytes(message: &StoredMessage) -> usize {
    message.content.size() + message.from.as_str().len() + MESSAGE_OVERHEAD
}

fn refused(code: ErrorCode, message: String) -> AnswerBody {
    Refused { code, message }.into()
}
