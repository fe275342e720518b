//! Two macros for what may grow: open integers, and bodies behind a kind.

use alloc::string::String;

/// A body that could not be read: its kind is not known here, or its bytes are not what the kind says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The kind as a number; 0 where a JSON peer named a kind that has no number here.
    pub kind: u16,
    /// What was wrong, for people; at most [`MAX_REASON`](crate::codec::MAX_REASON) bytes.
    pub reason: String,
}

/// A byte string that borrows: postcard then neither copies nor walks it.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a>(pub &'a [u8]);

impl serde::Serialize for Body<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for Body<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

/// An enum whose values are numbers on the wire (names in JSON) and which keeps numbers it does not know. A name that it does not know
/// becomes the number 0, which is never given: the rest of what it stands in can still be read.
macro_rules! open_enum {
    (
        $(#[$doc:meta])*
        pub enum $type:ident: $repr:ty {
            $( $(#[$variant_doc:meta])* $variant:ident = $number:literal => $name:literal, )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type {
            $( $(#[$variant_doc])* $variant, )+
            /// A number that this version does not know; it is kept as it came.
            Other($repr),
        }

        impl $type {
            /// Every value this version knows.
            pub const ALL: &[Self] = &[$( Self::$variant ),+];

            /// The number on the wire.
            #[must_use]
            pub const fn to_number(self) -> $repr {
                match self {
                    $( Self::$variant => $number, )+
                    Self::Other(number) => number,
                }
            }

            /// The value of a number from the wire.
            #[must_use]
            pub const fn from_number(number: $repr) -> Self {
                match number {
                    $( $number => Self::$variant, )+
                    other => Self::Other(other),
                }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self {
                    $( Self::$variant => f.pad($name), )+
                    Self::Other(number) => write!(f, "{number}"),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serde::Serialize::serialize(&self.to_number(), serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <$repr as serde::Deserialize>::deserialize(deserializer).map(Self::from_number);
                }
                let name = <alloc::string::String as serde::Deserialize>::deserialize(deserializer)?;
                Ok(match name.as_str() {
                    $( $name => Self::$variant, )+
                    other => Self::from_number(other.parse().unwrap_or(0)),
                })
            }
        }
    };
}
pub(crate) use open_enum;

/// An enum of bodies, each behind a number (a name in JSON), with [`Unknown`] for all that cannot be read.
macro_rules! bodies {
    (
        $(#[$doc:meta])*
        pub enum $type:ident {
            $( $(#[$variant_doc:meta])* $variant:ident($inner:ty) = $number:literal => $name:literal, )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $type {
            $( $(#[$variant_doc])* $variant($inner), )+
            /// A kind this version does not know, or a body it cannot read. It still counts as what it is numbered.
            Unknown($crate::frame::Unknown),
        }

        $( impl From<$inner> for $type {
            fn from(body: $inner) -> Self {
                Self::$variant(body)
            }
        } )+

        impl $type {
            /// The kind's number on the wire.
            #[must_use]
            pub const fn kind(&self) -> u16 {
                match self {
                    $( Self::$variant(_) => $number, )+
                    Self::Unknown(unknown) => unknown.kind,
                }
            }

            /// The kind's name in JSON.
            #[must_use]
            pub const fn kind_name(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => $name, )+
                    Self::Unknown(_) => "unknown",
                }
            }

            /// Every kind this version knows: number and name.
            pub const KINDS: &[(u16, &'static str)] = &[$( ($number, $name) ),+];

            /// The body alone, as postcard.
            pub(crate) fn to_bytes(&self) -> Result<alloc::vec::Vec<u8>, postcard::Error> {
                match self {
                    $( Self::$variant(body) => $crate::codec::to_postcard(body), )+
                    Self::Unknown(_) => Ok(alloc::vec::Vec::new()),
                }
            }

            pub(crate) fn from_bytes(kind: u16, bytes: &[u8]) -> Self {
                match kind {
                    // Bytes after what is known are fields of a later version.
                    $( $number => match postcard::take_from_bytes::<$inner>(bytes) {
                        Ok((body, _later)) => Self::$variant(body),
                        Err(why) => Self::Unknown($crate::frame::Unknown {
                            kind,
                            reason: $crate::codec::reason(format_args!(concat!("cannot read the body of ", $name, ": {}"), why)),
                        }),
                    }, )+
                    _ => Self::Unknown($crate::frame::Unknown { kind, reason: $crate::codec::reason(format_args!("kind {kind} is not known")) }),
                }
            }

            pub(crate) fn to_json(&self) -> Result<alloc::boxed::Box<serde_json::value::RawValue>, serde_json::Error> {
                match self {
                    $( Self::$variant(body) => serde_json::value::to_raw_value(body), )+
                    Self::Unknown(_) => serde_json::value::to_raw_value(&()),
                }
            }

            pub(crate) fn from_json(name: &str, body: &str) -> Self {
                match name {
                    $( $name => match serde_json::from_str::<$inner>(body) {
                        Ok(body) => Self::$variant(body),
                        Err(why) => Self::Unknown($crate::frame::Unknown {
                            kind: $number,
                            reason: $crate::codec::reason(format_args!(concat!("cannot read the body of ", $name, ": {}"), why)),
                        }),
                    }, )+
                    _ => Self::Unknown($crate::frame::Unknown { kind: 0, reason: $crate::codec::reason(format_args!("kind {name:?} is not known")) }),
                }
            }
        }
    };
}
pub(crate) use bodies;

/// Serde for an envelope: head fields, then kind, then the body with its length (postcard) or as an object (JSON).
macro_rules! envelope {
    ($type:ident { $( $field:ident: $field_type:ty ),+ } $body:ident) => {
        const _: () = {
            #[derive(serde::Serialize, serde::Deserialize)]
            struct Binary<'a> {
                $( $field: $field_type, )+
                kind: u16,
                #[serde(borrow)]
                body: $crate::frame::open::Body<'a>,
            }

            #[derive(serde::Serialize, serde::Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Json<'a> {
                $( $field: $field_type, )+
                kind: alloc::borrow::Cow<'a, str>,
                // As text: an unknown body is stepped over without being built.
                #[serde(default)]
                body: Option<alloc::boxed::Box<serde_json::value::RawValue>>,
            }

            impl serde::Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    use serde::ser::Error;
                    if serializer.is_human_readable() {
                        let body = self.body.to_json().map_err(S::Error::custom)?;
                        Json { $( $field: self.$field, )+ kind: self.body.kind_name().into(), body: Some(body) }.serialize(serializer)
                    } else {
                        let body = self.body.to_bytes().map_err(S::Error::custom)?;
                        Binary { $( $field: self.$field, )+ kind: self.body.kind(), body: $crate::frame::open::Body(&body) }
                            .serialize(serializer)
                    }
                }
            }

            impl<'de> serde::Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    if deserializer.is_human_readable() {
                        let json = Json::deserialize(deserializer)?;
                        let body = json.body.as_deref().map_or("null", |body| body.get());
                        Ok(Self { $( $field: json.$field, )+ body: $body::from_json(&json.kind, body) })
                    } else {
                        let binary = Binary::deserialize(deserializer)?;
                        Ok(Self { $( $field: binary.$field, )+ body: $body::from_bytes(binary.kind, binary.body.0) })
                    }
                }
            }
        };
    };
}
pub(crate) use envelope;
