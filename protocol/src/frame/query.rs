//! Reads: asked again after a reconnect, answered in one frame or many. And the snapshot, which is made of the same parts.

use super::command::{Content, Target};
use super::event::ConversationKind;
use super::open::{bodies, envelope};
use crate::{ConversationId, ConversationSeq, ErrorCode, QueryId, Time, UserId};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// A question. It has no effect, so it is simply asked again after a reconnect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Comes back with the answer.
    pub id: QueryId,
    /// What is asked.
    pub body: QueryBody,
}

envelope!(Query { id: QueryId } QueryBody);

bodies! {
    /// The kinds of query.
    pub enum QueryBody {
        /// Messages of a conversation.
        History(History) = 1 => "history",
        /// Who is online.
        Online(Online) = 2 => "online",
    }
}

/// An answer, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The query.
    pub id: QueryId,
    /// Whether nothing follows.
    pub last: bool,
    /// What is answered.
    pub body: AnswerBody,
}

envelope!(Answer { id: QueryId, last: bool } AnswerBody);

bodies! {
    /// The kinds of answer.
    pub enum AnswerBody {
        /// To [`History`].
        History(HistoryPage) = 1 => "history",
        /// To [`Online`].
        Online(OnlinePage) = 2 => "online",
        /// The query was refused.
        Refused(Refused) = 3 => "refused",
    }
}

/// Messages of a conversation next to a point in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Which conversation; by user, the direct one with that user.
    pub of: Target,
    /// The point, itself not included. Backwards from 0: from the end. Forwards from 0: from the beginning.
    pub from: ConversationSeq,
    /// Which way.
    pub direction: Direction,
    /// How many messages at most, 1 to 500; more is cut to that.
    pub limit: u32,
}

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Towards the beginning.
    Backwards,
    /// Towards the end.
    Forwards,
}

/// Messages in rising order, whichever way was asked. A long page comes in several answers, each in rising order, and together too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryPage {
    /// Which conversation.
    pub conversation: ConversationId,
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Whether there are more beyond the page, the way that was asked.
    pub more: bool,
}

/// A message as it lies in its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// Its number in the conversation.
    pub seq: ConversationSeq,
    /// When it was committed.
    pub time: Time,
    /// Who wrote it.
    pub from: UserId,
    /// What it says.
    pub content: Content,
}

/// Who is online; at most `limit` users with names after `after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Online {
    /// Names that come after this one; empty: from the beginning.
    #[serde(default)]
    pub after: String,
    /// How many at most, 1 to 500; more is cut to that.
    pub limit: u32,
}

/// Users who are online, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnlinePage {
    /// The users.
    pub users: Vec<UserId>,
    /// Whether there are more.
    pub more: bool,
}

/// The query was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Why.
    pub code: ErrorCode,
    /// For people: what was wrong and what to do.
    pub message: String,
}

/// A page of the conversations of a user, for a device that cannot be served from the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Conversations; each stands in one page only.
    pub conversations: Vec<ConversationState>,
    /// Whether this is the last page. Once it is stored, the cursor is the one of [`Begin`](super::Begin).
    pub last: bool,
}

/// A conversation as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationState {
    /// Its name.
    pub conversation: ConversationId,
    /// What sort.
    pub kind: ConversationKind,
    /// Its members with their watermarks.
    pub members: Vec<MemberState>,
    /// Highest number in it.
    pub head: ConversationSeq,
    /// The latest messages, rising; as many as were asked for and fit.
    pub messages: Vec<StoredMessage>,
}

/// A member and how far they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberState {
    /// Who.
    pub user: UserId,
    /// A device of theirs has durably taken the conversation up to here.
    pub delivered: ConversationSeq,
    /// They have read up to here.
    pub read: ConversationSeq,
}
