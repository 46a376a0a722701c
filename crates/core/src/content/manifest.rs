//! The manifest: the ordered list of chunks and holes that makes a file's content.
//!
//! It does not fetch chunks and does not know the file's name or metadata. The stored form is in the module `encoding`,
//! the builder that cuts content is in `builder`.
//!
//! Invariant: every `Manifest` is canonical. No part is empty, no two holes touch, each hole is at least [`HOLE_MIN`]
//! long, each data part fits one chunk, and the parts add up to the length. So one layout has one encoding and one id.

mod builder;
mod encoding;

pub use builder::ManifestBuilder;
pub use encoding::{Decoded, Encoded, LEAF_MAX, ManifestIndex};

use std::ops::Range;

use super::chunk::CHUNK_MAX;
use super::id::{ChunkId, ManifestId};
use super::wire::WireError;

/// Shortest hole that a manifest holds, in bytes. A shorter run of absent blocks is stored as zeros: file systems round
/// holes to their own block size, and a small hole would cost more as a part than it saves.
pub const HOLE_MIN: u64 = 64 * 1024;

/// Most parts of one manifest. At the average chunk size this is 32 TiB of data; it bounds what a decoder allocates
/// (48 bytes a part).
pub const PARTS_MAX: usize = 1 << 25;

/// Longest content in bytes: the largest file offset of Linux.
pub const LEN_MAX: u64 = i64::MAX as u64;

/// One part of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Bytes that one chunk holds.
    Data {
        /// The chunk.
        chunk: ChunkId,
        /// Its length in bytes, 1 to [`CHUNK_MAX`].
        len: u32,
    },
    /// A range without blocks, which reads as zeros.
    Hole {
        /// Its length in bytes, at least [`HOLE_MIN`].
        len: u64,
    },
}

impl Part {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Data { len, .. } => u64::from(len),
            Self::Hole { len } => len,
        }
    }

    /// Never true for a part of a manifest.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunk, if this is data.
    pub fn chunk(&self) -> Option<ChunkId> {
        match *self {
            Self::Data { chunk, .. } => Some(chunk),
            Self::Hole { .. } => None,
        }
    }
}

/// A part together with the place where it begins in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedPart {
    /// Offset of the part's first byte in the file.
    pub offset: u64,
    /// The part, always whole.
    pub part: Part,
}

impl PlacedPart {
    /// The range of the file that the part covers.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.part.len()
    }
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes cannot be read as a manifest.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The parts break a rule of the canonical form.
    #[error("Manifest is not canonical: part {part} {why}")]
    Part {
        /// Number of the part, counted from 0.
        part: usize,
        /// The rule that is broken.
        why: &'static str,
    },
    /// The bytes are a manifest, but not the one that was asked for.
    #[error("Manifest {wanted} was asked for, its bytes hash to {found}")]
    OtherId {
        /// The id that was asked for.
        wanted: ManifestId,
        /// The id of the bytes.
        found: ManifestId,
    },
    /// A chunk of a large manifest is not the one its index names.
    #[error("Manifest's own chunk {wanted} is damaged: its bytes hash to {found}")]
    IndexChunk {
        /// The chunk that the index names.
        wanted: ChunkId,
        /// The id of the bytes that were given.
        found: ChunkId,
    },
}

/// The content of one file: its parts, in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    parts: Vec<Part>,
    /// Where each part ends, so that a range is found by bisection: a streaming recall asks often.
    ends: Vec<u64>,
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest").field("len", &self.len()).field("parts", &self.parts).finish()
    }
}

impl Manifest {
    /// The content of an empty file.
    pub const fn empty() -> Self {
        Self { parts: Vec::new(), ends: Vec::new() }
    }

    /// Checks that the parts are canonical and takes them.
    pub fn new(parts: Vec<Part>) -> Result<Self, ManifestError> {
        let mut ends = Vec::with_capacity(parts.len());
        let mut end = 0_u64;
        for (number, part) in parts.iter().enumerate() {
            let after_hole = number > 0 && parts[number - 1].chunk().is_none();
            let next = end.checked_add(part.len()).filter(|next| *next <= LEN_MAX);
            let why = match part {
                _ if number >= PARTS_MAX => Some("is one too many"),
                _ if next.is_none() => Some("ends past the longest file"),
                Part::Data { len: 0, .. } => Some("is empty"),
                Part::Data { len, .. } if *len as usize > CHUNK_MAX => Some("is longer than a chunk can be"),
                Part::Hole { len } if *len < HOLE_MIN => Some("is a hole that is too short"),
                Part::Hole { .. } if after_hole => Some("is a hole that follows a hole"),
                _ => None,
            };
            if let Some(why) = why {
                return Err(ManifestError::Part { part: number, why });
            }
            end = next.unwrap_or(LEN_MAX);
            ends.push(end);
        }
        Ok(Self { parts, ends })
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether the file has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// All parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All parts with their offsets, in order.
    pub fn placed(&self) -> impl Iterator<Item = PlacedPart> + '_ {
        self.placed_from(0)
    }

    /// The chunks in file order, with their lengths in bytes. A chunk that occurs twice is named twice.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkId, u32)> + '_ {
        self.parts.iter().filter_map(|part| match *part {
            Part::Data { chunk, len } => Some((chunk, len)),
            Part::Hole { .. } => None,
        })
    }

    /// The parts that share at least one byte with `range`, each whole. Nothing for an empty range, and nothing past
    /// the end of the file.
    pub fn parts_in(&self, range: Range<u64>) -> impl Iterator<Item = PlacedPart> + '_ {
        let first = self.ends.partition_point(|end| *end <= range.start);
        let end = if range.is_empty() { 0 } else { range.end };
        self.placed_from(first).take_while(move |placed| placed.offset < end)
    }

    /// Bytes that are not holes; what the content takes on disk before rounding to blocks.
    pub fn data_len(&self) -> u64 {
        self.chunks().map(|(_, len)| u64::from(len)).sum()
    }

    fn placed_from(&self, first: usize) -> impl Iterator<Item = PlacedPart> + '_ {
        let parts = self.parts[first..].iter().zip(&self.ends[first..]);
        parts.map(|(part, end)| PlacedPart { offset: end - part.len(), part: *part })
    }
}
