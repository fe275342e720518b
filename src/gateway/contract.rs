//! The events of the clients that exist already, with the names that they have there (`docs/socketio.md`).

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use whimbrel_protocol::UserId;
use whimbrel_protocol::frame::Content;

/// Names of events.
pub(super) mod event {
    pub const LOGIN: &str = "user:login";
    pub const LOGGED_IN: &str = "user:login:success";
    pub const ONLINE: &str = "online_users";
    pub const MESSAGE: &str = "message";
    pub const SENT: &str = "message:sent";
    pub const STATUS: &str = "status_change";
    pub const FILE: &str = "file_transfer";
    pub const TYPING: &str = "typing";
    pub const GET_HISTORY: &str = "get_history";
    pub const HISTORY: &str = "history";
    pub const ERROR: &str = "error";
    pub const SHUTDOWN: &str = "server:shutdown";
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub id: String,
    pub name: String,
    pub avatar: String,
    pub status: &'static str,
}

impl User {
    /// One who is not here over Socket.IO, and so has no name but the one that they are known by.
    pub fn nameless(id: &UserId) -> Self {
        Self { id: id.to_string(), name: id.to_string(), avatar: String::new(), status: "online" }
    }
}

/// What a message of these clients says beside its text: kept with it, for the others of their kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Beside {
    /// The client's own name for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<MessageType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<serde_json::Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

impl Beside {
    /// What is kept with a message.
    pub fn of(content: &Content) -> Self {
        let said = content.extensions.iter().find(|extension| extension.key == Content::SOCKET_IO);
        said.and_then(|extension| serde_json::from_slice(&extension.value).ok()).unwrap_or_default()
    }
}

/// What sort of message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MessageType {
    #[default]
    Text,
    File,
}

/// A message, as clients get it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub id: String,
    pub from_id: String,
    pub from_name: String,
    pub to_id: String,
    pub topic: String,
    pub content: String,
    pub r#type: MessageType,
    pub timestamp: serde_json::Number,
    pub server_timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    pub message_id: String,
    pub status: &'static str,
    pub timestamp: u64,
}

/// Somebody types, as clients get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TypingFrom {
    pub from_id: String,
    pub from_name: String,
    pub is_typing: bool,
}

/// Somebody's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub user_id: String,
    pub status: &'static str,
    pub timestamp: u64,
}

/// What was said with somebody.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct History {
    pub friend_id: String,
    pub topic: String,
    pub messages: Vec<Message>,
}

/// Words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Words {
    pub message: String,
}

/// As much of a text as is told back to whoever sent it.
pub(super) fn brief(text: &str, most: usize) -> Cow<'_, str> {
    match text.len() > most {
        true => Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(most)])),
        false => Cow::Borrowed(text),
    }
}

/// What a client's callback is told of what has no other answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Done {
    pub fn of(outcome: Result<(), String>) -> Self {
        match outcome {
            Ok(()) => Self { status: Some("ok"), error: None },
            Err(why) => Self { status: None, error: Some(why) },
        }
    }
}

/// What an event says, or an answer.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Payload {
    Message(Box<Message>),
    Sent(Sent),
    Status(Status),
    Typing(TypingFrom),
    User(User),
    Users(#[serde(serialize_with = "shared")] Arc<Vec<User>>),
    History(History),
    Messages(Vec<Message>),
    Words(Words),
    Done(Done),
}

fn shared<S: Serializer>(users: &Arc<Vec<User>>, serializer: S) -> Result<S::Ok, S::Error> {
    users.as_slice().serialize(serializer)
}

/// A line of a client that never says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub content: String,
}

/// What came with an event: its first argument, and the attachments that it refers to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub value: Value,
    pub attachments: Vec<Bytes>,
    /// Bytes of the value as it came.
    pub text_bytes: usize,
}

/// Notes the attachments that are referred to; `false` if one is for the second time, or is not there.
fn place_once(value: &Value, seen: &mut [bool]) -> bool {
    if value.get("_placeholder").is_some_and(|marked| marked == &Value::Bool(true)) {
        let number = value.get("num").and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        return number.and_then(|number| seen.get_mut(number)).is_some_and(|seen| !std::mem::replace(seen, true));
    }
    match value {
        Value::Array(values) => values.iter().all(|value| place_once(value, seen)),
        Value::Object(fields) => fields.values().all(|value| place_once(value, seen)),
        _ => true,
    }
}

impl Given {
    /// Whether each attachment is referred to once at most: what is passed on holds each where it stands, and must not be longer than what came.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut seen = vec![false; self.attachments.len()];
        place_once(&self.value, &mut seen)
    }

    /// Bytes of it, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text_bytes + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// A field that has to be there.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn need<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        self.may(name)?.ok_or_else(|| match self.value.is_object() {
            true => format!("{name} is missing"),
            false => format!("it needs an object with {name}"),
        })
    }

    /// A field that may be missing; `null` is as good as that.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn may<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        match self.value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|why| format!("{name}: {why}")),
        }
    }
}

impl Serialize for Given {
    /// As it came: attachments become attachments again, at the same places.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Part { value: &self.value, attachments: &self.attachments }.serialize(serializer)
    }
}

struct Part<'a> {
    value: &'a Value,
    attachments: &'a [Bytes],
}

impl Part<'_> {
    fn of<'a>(&self, value: &'a Value) -> Part<'a>
    where
        Self: 'a,
    {
        Part { value, attachments: self.attachments }
    }

    /// The attachment that stands here.
    fn attachment(&self) -> Option<&Bytes> {
        let marked = self.value.get("_placeholder")?.as_bool()?;
        self.attachments.get(usize::try_from(self.value.get("num")?.as_u64()?).ok()?).filter(|_| marked)
    }
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(bytes) = self.attachment() {
            return serializer.serialize_bytes(bytes);
        }
        match self.value {
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, &self.of(value))?;
                }
                map.end()
            }
            Value::Array(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(&self.of(value))?;
                }
                list.end()
            }
            other => other.serialize(serializer),
        }
    }
}
