//! The first frame of each side: who, how far, and under which terms.

use crate::{CommandSeq, DeviceId, Incarnation, LogEpoch, MailboxSeq, Nonce, SessionEpoch, Time, UserId};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The first frame of a client, due within 10 seconds. Its form is frozen for ever; what is new goes into `extensions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Lowest version of the protocol that the client speaks.
    pub min_version: u8,
    /// Highest version of the protocol that the client speaks.
    pub max_version: u8,
    /// Who the client says it is.
    pub user: UserId,
    /// Which of the user's devices.
    pub device: DeviceId,
    /// Proof, where the server wants one; empty otherwise.
    #[serde(default)]
    pub token: String,
    /// Name and version of the client software, for logs.
    #[serde(default)]
    pub agent: String,
    /// Random, for each run of the client; zeros where the client does not say.
    #[serde(default)]
    pub instance: Nonce,
    /// Rises with each `Hello` of one run. One that comes after a higher one is late, from a connection that the client gave up on, and is
    /// refused: it must not replace the session that is in use.
    #[serde(default)]
    pub attempt: u32,
    /// The outbox that commands of this session come from; 0 asks for a new one.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// How far this device has got, if it has been here before.
    #[serde(default)]
    pub position: Option<Position>,
    /// Where to begin if there is no position, or if it cannot be served.
    #[serde(default)]
    pub origin: Origin,
    /// Room for later versions; unknown ones are ignored.
    #[serde(default)]
    pub extensions: Vec<Extension>,
}

/// How far a device has got, with enough beside the number to notice a log that is not the one it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The epoch of the log that the cursor belongs to.
    pub epoch: LogEpoch,
    /// Highest mailbox sequence that the device has durably taken.
    pub cursor: MailboxSeq,
    /// The time of the entry at the cursor; 0 where the cursor is 0 or the server did not say. A log that has another time there is not
    /// the one that the device has read, whatever its epoch says.
    pub time: Time,
}

/// Where a device begins that has no position the server can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// At the present, after a snapshot of the conversations with their latest messages.
    #[default]
    Snapshot,
    /// At the oldest entry that the mailbox still holds.
    Oldest,
    /// At the present. A snapshot only names the conversations, without messages.
    Now,
}

/// A key and bytes, ignored by whoever does not know the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// What it is.
    pub key: u16,
    /// What it says.
    pub value: Vec<u8>,
}

/// The server's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The version of the protocol that this session speaks.
    pub version: u8,
    /// Who the user is, as the server knows it.
    pub user: UserId,
    /// Rises with every session of the device; only the newest may write. 0 where it is not known yet: in a `Welcome` before the end of a
    /// QUIC handshake.
    pub session_epoch: SessionEpoch,
    /// The epoch of the server's log.
    pub epoch: LogEpoch,
    /// The device's outbox. Where the `Hello` asked for a new one, the client renumbers what is not applied from 1; where it is another
    /// than the one of the `Hello`, the two disagree (see [`Uplink::on_welcome`](crate::Uplink::on_welcome)). A server gives it higher
    /// than any before and than the one asked for, and best not predictably, so that two lives of a store do not give the same.
    pub incarnation: Incarnation,
    /// Highest applied command of that incarnation.
    pub applied: CommandSeq,
    /// The nonce of that command; zeros where `applied` is 0.
    pub applied_nonce: Nonce,
    /// Highest entry of the mailbox at this moment.
    pub head: MailboxSeq,
    /// Where the events begin.
    pub begin: Begin,
    /// How many commands may be on their way without being applied.
    pub window: u32,
    /// The longest text of a message, in bytes of UTF-8.
    pub max_text: u32,
    /// The server's clock.
    pub time: Time,
    /// Where else this server can be reached, so that a client can move to a better transport.
    pub endpoints: Vec<Endpoint>,
    /// Room for later versions; unknown ones are ignored.
    pub extensions: Vec<Extension>,
}

/// Where the events of a session begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begin {
    /// The first event is the one after this.
    pub cursor: MailboxSeq,
    /// The time of the entry at `cursor`, for the device's [`Position`]; 0 where the cursor is 0 or the time is no longer known.
    pub time: Time,
    /// Whether [`Snapshot`](crate::frame::Snapshot) pages come first. The device's cursor is `cursor` once it has stored the last.
    pub snapshot: bool,
    /// Why the device's position could not be served; what it held from the mailbox before may have gaps.
    pub reset: Option<ResetReason>,
}

/// Why a position could not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResetReason {
    /// The mailbox no longer holds what comes after the cursor.
    Trimmed,
    /// The log is another one: the store was restored, copied or begun anew.
    OtherLog,
}

/// An address of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Endpoint {
    /// WebTransport.
    #[serde(rename_all = "camelCase")]
    WebTransport {
        /// `https://host:port/wt`.
        url: String,
        /// SHA-256 of certificates that may be pinned, newest first; empty if the certificate is publicly trusted.
        certificate_hashes: Vec<[u8; 32]>,
    },
    /// WebSocket.
    #[serde(rename_all = "camelCase")]
    WebSocket {
        /// `wss://host:port/ws` or `ws://host:port/ws`.
        url: String,
    },
}
