//! Newtypes for every identifier and every number that has a meaning.
//!
//! Ids are 128 bits, drawn at random by whoever creates the thing (core draws none itself), and print as 32
//! lowercase hex digits. Numbers that order things (`Version`, `Epoch`) are never mixed with counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not the printed form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id (32 hexadecimal digits)")]
pub struct ParseIdError {
    /// What was given, as it was given.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        /// Hexadecimal text where people read the format (JSON), 16 plain bytes elsewhere.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self)
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { text: text.to_owned() };
                if text.len() != 32 || !text.is_ascii() {
                    return Err(wrong());
                }
                let value = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
                Ok(Self(value.to_be_bytes()))
            }
        }
    };
}

id! {
    /// Names a node of one share for ever: through renames, edits and deletes. Chosen by the server that creates the node.
    NodeId
}
id! {
    /// Names a sync group and with it the group's share.
    GroupId
}
id! {
    /// Names a registered server.
    ServerId
}
id! {
    /// Names a server endpoint.
    EndpointId
}
id! {
    /// Names one operation of a commit, so that the same operation sent twice is done once.
    OperationId
}
id! {
    /// Shared by all names of one hard-linked inode.
    LinkId
}

impl ServerId {
    /// The service itself, as the author of what it restores. Its epoch is 0, and no agent has this id.
    pub const SERVICE: Self = Self([0; 16]);
}

impl NodeId {
    /// The root directory of every share.
    pub const ROOT: Self = Self([0; 16]);
    /// The parent of what an endpoint has parked in its staging folder while names are being exchanged. Local only:
    /// no share ever holds a node with this parent.
    pub const PARKED: Self = Self([0xff; 16]);

    /// Whether this is one of the two directories that have no name of their own.
    #[must_use]
    pub fn is_anchor(self) -> bool {
        self == Self::ROOT || self == Self::PARKED
    }
}

/// The sequence number of a change in its share; on a node, that of the change which last touched it. Zero: never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Version {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Fencing epoch: grows each time a server's agent starts; what carries an older one is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Which life of a share a version belongs to. Each run of the service that changes a share renews it, because its data may
/// have been put back, so that it hands out version numbers again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A position in the change feed of one share: everything up to `version` has been read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The life of the share the position belongs to.
    pub incarnation: Incarnation,
    /// The last version that was read.
    pub version: Version,
}

/// Nanoseconds since 1970 UTC; files may lie before that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Timestamp(pub i64);
