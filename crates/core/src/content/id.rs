//! The ids of chunks, manifests and packs: 32 bytes of BLAKE3 each.
//!
//! The three are types of their own, so that a manifest is never looked up where a chunk is meant. They do not say
//! where the bytes are.
//!
//! Invariant: a manifest's id is hashed in a domain of its own; no chunk, whatever its bytes, has the id of a manifest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// BLAKE3 context string of manifest ids. It is part of the format: another string makes other ids.
const MANIFEST_CONTEXT: &str = "isotherm 2026 manifest id v1";

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not 64 lowercase hexadecimal digits")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

/// Parses exactly 64 lowercase hexadecimal digits; one id has one text.
fn parse_hex(what: &'static str, text: &str) -> Result<[u8; 32], ParseIdError> {
    let lowercase = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if lowercase && let Ok(hash) = blake3::Hash::from_hex(text) {
        return Ok(*hash.as_bytes());
    }
    // A hostile text is not echoed in full.
    let text = text.chars().take(80).collect();
    Err(ParseIdError { what, text })
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 bytes that came from a format or a database; nothing is hashed or checked.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes, in the order of the hexadecimal text.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex($what, text).map(Self)
            }
        }

        /// Hexadecimal text where people read the format (JSON), 32 plain bytes elsewhere.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

hash_id! {
    /// BLAKE3 of a chunk's bytes, before any compression.
    ChunkId, "Chunk id"
}

hash_id! {
    /// BLAKE3 of a manifest's encoding, in a domain of its own. Two files have the same manifest id when they have the
    /// same bytes and the same holes.
    ManifestId, "Manifest id"
}

hash_id! {
    /// BLAKE3 of all bytes of a pack.
    PackId, "Pack id"
}

impl ChunkId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl ManifestId {
    /// The id of an encoded manifest; the bytes are not checked to be one.
    pub fn of(encoding: &[u8]) -> Self {
        Self(blake3::derive_key(MANIFEST_CONTEXT, encoding))
    }
}

impl PackId {
    /// The id of a whole pack.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
