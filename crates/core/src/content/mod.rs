//! Content: how the bytes of a file become chunks, a manifest and packs.
//!
//! Everything here is a function of bytes. It does not read files, does not talk to a store and keeps no cache; the
//! callers bring the bytes and decide where they go.
//!
//! Invariant: an id is computed from bytes and from nothing else, and whoever turns an id back into bytes has hashed
//! them. A byte that does not belong to the id it was asked for never leaves this module.
//!
//! * [`chunk`]: cuts content at content-defined places.
//! * [`manifest`]: the ordered list of parts that makes a file's content, and its stored form.
//! * [`pack`]: the stored object that holds many chunks.
//!
//! The byte layouts are described in `docs/format.md`.

pub mod chunk;
mod id;
pub mod manifest;
pub mod pack;
mod wire;

pub use chunk::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, Chunker};
pub use id::{ChunkId, ManifestId, PackId, ParseIdError};
pub use manifest::{Decoded, Encoded, HOLE_MIN, Manifest, ManifestBuilder, ManifestError, ManifestIndex, Part, PlacedPart};
pub use pack::{Footer, Form, PackBuilder, PackEntry, PackError};
pub use wire::WireError;
