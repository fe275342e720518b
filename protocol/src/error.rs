//! One table of error codes; the range says what a client should do.

use crate::frame::open_enum;

open_enum! {
    /// Why something was refused or ended. The range is the instruction, so a client can act on a code that it does not know:
    ///
    /// | range | what to do |
    /// |---|---|
    /// | 1–99 | reconnect, with backoff (or after the time the server says) |
    /// | 200–299 | give up and tell a person: connecting again the same way ends the same way |
    /// | 300–399 | this command or query was refused; the session goes on |
    pub enum ErrorCode: u16 {
        /// A fault of the server's own, not of what was sent.
        Internal = 1 => "internal",
        /// The server is at a limit of its own; try again later.
        Overloaded = 2 => "overloaded",
        /// No complete `Hello` came within 10 seconds.
        HelloTimeout = 3 => "helloTimeout",
        /// Nothing was heard from the client for too long.
        Idle = 4 => "idle",
        /// The store cannot be written or read at the moment.
        StoreUnavailable = 5 => "storeUnavailable",

        /// Bytes that are not a frame, or a frame that is not allowed at that point.
        Malformed = 200 => "malformed",
        /// No version of the protocol is spoken by both sides.
        UnsupportedVersion = 201 => "unsupportedVersion",
        /// A frame longer than the limit.
        FrameTooLong = 202 => "frameTooLong",
        /// The token is missing, expired or for somebody else.
        Unauthorized = 203 => "unauthorized",
        /// A newer session of the same device took over.
        Replaced = 204 => "replaced",
        /// More commands under way than the window allows, or a command number that leaves a gap.
        WindowExceeded = 205 => "windowExceeded",
        /// A command number was used again with another nonce: two outboxes claim to be this device.
        OutboxConflict = 206 => "outboxConflict",
        /// As many devices of the user as are allowed are connected at this moment.
        TooManyDevices = 207 => "tooManyDevices",

        /// A kind of command, query or content that this server does not know.
        Unsupported = 300 => "unsupported",
        /// There is no such conversation or message, or it is none of the user's.
        NotFound = 301 => "notFound",
        /// The content is longer than the limit.
        TooLong = 302 => "tooLong",
        /// The content is empty.
        Empty = 303 => "empty",
        /// This command made the server fail; it was not carried out, the others were.
        Failed = 304 => "failed",
    }
}

/// What a client does about an error, read off the code's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Connect again, with backoff.
    Reconnect,
    /// Stop and tell a person.
    GiveUp,
    /// Only the command or query failed; go on.
    GoOn,
}

impl ErrorCode {
    /// What to do about it. A code outside every range is treated as [`Advice::Reconnect`].
    #[must_use]
    pub fn advice(self) -> Advice {
        match self.to_number() {
            200..=299 => Advice::GiveUp,
            300..=399 => Advice::GoOn,
            _ => Advice::Reconnect,
        }
    }
}
