//! What a gateway asks that a client of ours knows by itself, from its own store.

use super::committer::{Known, Work};
use super::queue::Lane;
use super::{Engine, store_error};
use crate::store::StoreError;
use std::sync::Arc;
use whimbrel_protocol::frame::{Direction, Error, StoredMessage};
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, MailboxSeq, UserId};

/// The most content that is read at once, in bytes.
const BYTES_MAX: usize = 1 << 20;

impl Engine {
    /// A user's devices, and how far each has got, as far as it said. None of a user who was never seen.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn devices_of(self: &Arc<Self>, user: &UserId) -> Result<Vec<(DeviceId, MailboxSeq)>, Error> {
        let id = user.clone();
        let number = self.on_store(move |engine| engine.store.user(&id)).await.map_err(|error| store_error(&error))?;
        let Some(user) = number else { return Ok(Vec::new()) };
        let known = self.commit_hello(Lane::User(user), |answer| Work::Devices { user, answer }).await?;
        Ok(known.into_iter().map(|Known { key, name, cursor }| (name, self.cursors.acked(key).max(cursor))).collect())
    }

    /// How far the clients of a user have got that keep no position of their own, if that was ever noted.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn position_of(self: &Arc<Self>, user: &UserId) -> Result<Option<MailboxSeq>, Error> {
        let id = user.clone();
        let position = move |engine: &Self| engine.store.user(&id)?.map_or(Ok(None), |user| engine.store.position(user));
        self.on_store(position).await.map_err(|error| store_error(&error))
    }

    /// Notes how far such clients have got, for good.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn save_positions(self: &Arc<Self>, positions: Vec<(UserId, MailboxSeq)>) -> Result<(), StoreError> {
        self.on_store(move |engine| {
            let mut known = Vec::with_capacity(positions.len());
            for (user, seq) in &positions {
                known.extend(engine.store.user(user)?.map(|user| (user, *seq)));
            }
            engine.store.save_positions(&known)
        })
        .await
    }

    /// Who is in a conversation, if there is one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn members_of(self: &Arc<Self>, conversation: ConversationId) -> Result<Vec<UserId>, StoreError> {
        self.on_store(move |engine| {
            let Some(conversation) = engine.store.conversation(conversation)? else { return Ok(Vec::new()) };
            conversation.members.iter().map(|member| engine.name(member.user)).collect()
        })
        .await
    }

    /// The messages of a conversation up to and including a number, rising; at most `limit`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn messages_until(
        self: &Arc<Self>,
        conversation: ConversationId,
        last: ConversationSeq,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        self.on_store(move |engine| {
            let records = engine.store.conversation_entries(conversation, last.next(), Direction::Backwards, limit, BYTES_MAX)?;
            let mut messages = Vec::with_capacity(records.len());
            for record in &records {
                messages.extend(engine.stored_message(record)?);
            }
            Ok(messages)
        })
        .await
    }
}
