//! One enum an operation: what went wrong, and what to do.

use crate::StateError;
use crate::link::{PinError, TrustError};
use whimbrel_protocol::ErrorCode;
use whimbrel_protocol::id::NameError;

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be the name of a {what}: {reason}")]
pub struct BadName {
    /// What was given.
    pub name: String,
    /// What it was given for.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: NameError,
}

/// Why a client could not be started. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The server's URL cannot be used.
    #[error("{0}")]
    Url(String),
    /// The user's or the device's name cannot be used.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The hash to pin cannot be used.
    #[error("{0}")]
    Pin(String),
    /// The CA cannot be used.
    #[error("{0}")]
    Ca(String),
    /// An `https` URL, and nothing to verify the server's certificate with.
    #[error(
        "{url} cannot be verified: give the CA that signed its certificate (`--ca`, in code `ca`: a PEM file, or the server's certs directory), \
         or the hash of its certificate (`--pin`, in code `pin`)"
    )]
    NothingToTrust {
        /// The server.
        url: String,
    },
    /// The device's state cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<PinError> for StartError {
    fn from(why: PinError) -> Self {
        Self::Pin(why.to_string())
    }
}

impl From<TrustError> for StartError {
    fn from(why: TrustError) -> Self {
        Self::Ca(why.to_string())
    }
}

/// Why [`Builder::connect`](crate::Builder::connect) gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It could not even be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The first attempt failed.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// Who answered does not fit the URL, the CA or the pin: waiting does not mend it.
    #[error("cannot connect: {0}")]
    Mismatch(String),
    /// The server said no, or the state gave out.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// Why a client ended although nobody closed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// The server refused the session, in a way that trying again does not mend.
    #[error("the server refused the session ({code}): {message}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// What was wrong and what to do.
        message: String,
    },
    /// The server speaks another version of the protocol, or takes us for somebody else.
    #[error("this client cannot talk to that server: {0}")]
    Incompatible(String),
    /// The device's state can no longer be written: going on would lose something.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why something was not taken into the outbox. Nothing will be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The text is longer than any server takes.
    #[error("the text has {len} bytes, at most {max} are allowed: send a file, or several messages")]
    TooLong {
        /// Bytes it has.
        len: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// More than fit into the outbox at once.
    #[error("{count} commands at once, at most {max}: send them in parts")]
    TooMany {
        /// How many were given.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// It could not be stored on this device.
    #[error(transparent)]
    State(#[from] StateError),
    /// The client has ended.
    #[error("the client has ended: nothing is sent any more")]
    Ended,
}

/// Why a command that was stored has no message to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutcomeError {
    /// The server refused it; it had no effect.
    #[error("the server refused it ({code}): {message}")]
    Rejected {
        /// Why.
        code: ErrorCode,
        /// What was wrong and what to do.
        message: String,
    },
    /// The server carried it out, but this device was reset before it could be told where: it was away for longer than its mailbox is
    /// kept, or the log or the outbox is another one now. Look into the conversation.
    #[error("it was carried out, but this device was reset before it was told where: look into the conversation")]
    Untold,
    /// The client ended first. The command stays in the outbox: the next run of this device sends it, and tells its outcome.
    #[error("the client ended before the outcome was known; what is in the outbox is sent by the next run")]
    Ended,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The server refused it.
    #[error("the server refused the question ({code}): {message}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// What was wrong and what to do.
        message: String,
    },
    /// The server answered something else.
    #[error("the server's answer does not fit the question: {0}")]
    BadAnswer(String),
    /// As many questions as may be open at once are open: wait for some.
    #[error("{max} questions are open already: wait for an answer first")]
    TooMany {
        /// How many may be.
        max: usize,
    },
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}
