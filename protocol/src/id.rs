//! Names and numbers, each a type of its own, checked once where they come in.
//!
//! Numbers travel as varints in postcard and as strings in JSON (JavaScript cannot hold 64 bits in a number); when reading JSON a
//! plain number is taken as well.

use alloc::{string::String, sync::Arc};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("it is empty")]
    Empty,
    /// The name is longer than allowed.
    #[error("it has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes it has.
        len: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// The name has a control character, or begins or ends with white space.
    #[error("it has a control character, or begins or ends with white space")]
    BadCharacter,
}

fn check_name(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.len() > max {
        Err(NameError::TooLong { len: name.len(), max })
    } else if name.chars().any(char::is_control) || name.trim() != name {
        Err(NameError::BadCharacter)
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest such name, in bytes of UTF-8.
            pub const MAX_BYTES: usize = $max;

            /// Checks `name` and takes it.
            ///
            /// # Errors
            /// If it is empty, too long, has a control character, or begins or ends with white space.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check_name(name, Self::MAX_BYTES)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, name: &str) -> Result<$type, E> {
                        $type::new(name).map_err(|why| E::custom(format_args!("not {}: {why}", $what)))
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

name! {
    /// Who: the name under which a user is known to the application, 1 to 64 bytes of UTF-8 without control characters.
    UserId, 64, "a user id"
}
name! {
    /// One of a user's devices, named by the client, 1 to 64 bytes of UTF-8 without control characters. A device is the pair of user
    /// and device id; two users may well use the same device id.
    DeviceId, 64, "a device id"
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $type(pub u64);

        impl $type {
            /// The number after this one. Stays at the largest, which no real sequence reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(&self.0)
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_any(NumberVisitor).map(Self)
                } else {
                    u64::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

struct NumberVisitor;

impl de::Visitor<'_> for NumberVisitor {
    type Value = u64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of at most 64 bits, best as a string")
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<u64, E> {
        // Digits only: `parse` alone would take a plus sign, which other languages refuse.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        value.parse().ok().filter(|_| digits).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

number! {
    /// Number of an entry in a user's mailbox: 1, 2, 3 … without gaps. As a cursor: everything up to and including it was taken.
    MailboxSeq
}
number! {
    /// Number of what happened in a conversation: 1, 2, 3 … without gaps. With the conversation it names a message for ever.
    ConversationSeq
}
number! {
    /// Number of a command in a device's outbox: 1, 2, 3 … within one [`Incarnation`].
    CommandSeq
}
number! {
    /// Names a conversation; given by the server, never used again.
    ConversationId
}
number! {
    /// Which outbox of a device: the server gives each new outbox a higher one. 0 asks for a new one.
    Incarnation
}
number! {
    /// Which life of the server's log: a restored or copied store has a higher one, so that cursors of another life are noticed.
    LogEpoch
}
number! {
    /// Which session of a device: a newer session has a higher one and fences off the older.
    SessionEpoch
}
number! {
    /// Names a query within a session; chosen by the client.
    QueryId
}
number! {
    /// Wall-clock time in milliseconds since 1970-01-01 UTC.
    Time
}

/// 64 random bits that stay with a command for its life, however often it is sent or renumbered. Sixteen hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nonce(pub [u8; 8]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 8]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(bits) if digits => Ok(Self(bits.to_be_bytes())),
            _ => Err(de::Error::invalid_value(de::Unexpected::Str(&text), &"16 hexadecimal digits")),
        }
    }
}
