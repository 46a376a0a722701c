//! The pack: one stored object that holds many chunks, each compressed where that pays, with an index at its end.
//!
//! It knows neither object stores nor which chunk is still needed. Records carry no headers: the footer alone says
//! where a chunk lies, so a chunk is one ranged read.
//!
//! Invariant: the chunk index of a pack can be rebuilt from the pack alone, and [`PackEntry::decode`] returns the bytes
//! of its chunk id or an error.

mod footer;

pub use footer::{Footer, TRAILER_LEN, check_header, read_footer};

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use super::chunk::CHUNK_MAX;
use super::id::{ChunkId, PackId};
use super::wire::WireError;

/// Stored bytes at which a pack is worth sealing. Big enough that requests cost little beside bytes, small enough that
/// a compaction moves little.
pub const PACK_TARGET: usize = 32 * 1024 * 1024;

/// Longest record area of a pack in bytes; a builder refuses what would go past it.
pub const PACK_MAX: usize = 64 * 1024 * 1024;

/// Most chunks of one pack. It bounds the footer, which is read whole, to 3 MiB.
pub const ENTRIES_MAX: usize = 1 << 16;

/// zstd level of the records: the fastest, since uploads wait for it and a share's big files are mostly compressed.
pub const ZSTD_LEVEL: i32 = 1;

/// So many bytes of a pack are records at least; the rest may be its header, index and trailer.
#[must_use]
pub const fn records_len_min(len: u64, chunks: u64) -> u64 {
    len.saturating_sub(footer::AROUND_LEN_MAX + chunks * footer::ENTRY_LEN_MAX)
}

/// A record is kept compressed when that saves at least one part in this many (6.25 %); below, the readers' time to
/// decompress is worth more than the space.
const SAVING_PART: usize = 16;

/// How a record holds its chunk. The numbers are those of the footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Form {
    /// The chunk's bytes as they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Form {
    /// The number in a footer or a database.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The form with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Where one chunk lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackEntry {
    /// The chunk.
    pub chunk: ChunkId,
    /// Offset of the record in the pack, in bytes.
    pub offset: u64,
    /// Length of the record in bytes.
    pub stored_len: u32,
    /// Length of the chunk in bytes, 1 to [`CHUNK_MAX`].
    pub raw_len: u32,
    /// How the record holds the chunk.
    pub form: Form,
}

/// Why a pack or a record of it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The bytes cannot be read as a pack.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The bytes of a chunk are not those of its id.
    #[error("Chunk {wanted} is damaged: its bytes hash to {found}")]
    OtherChunk {
        /// The id that was asked for or announced.
        wanted: ChunkId,
        /// The id of the bytes.
        found: ChunkId,
    },
    /// A record does not have the form that its entry tells.
    #[error("Chunk {chunk} is damaged: its record {why}")]
    Record {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong.
        why: &'static str,
    },
    /// A chunk that no chunker makes.
    #[error("Chunk {chunk} has {len} bytes, a chunk has 1 to {CHUNK_MAX}")]
    Length {
        /// The chunk.
        chunk: ChunkId,
        /// Its length in bytes.
        len: usize,
    },
    /// The pack cannot take this chunk; seal it and begin another.
    #[error("Pack is full, chunk {chunk} needs another")]
    Full {
        /// The chunk that was refused.
        chunk: ChunkId,
    },
}

impl PackEntry {
    /// The range of the record in the pack, in bytes.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + u64::from(self.stored_len)
    }

    /// The chunk's bytes from the bytes of its record, decompressed and hashed. Allocates at most [`CHUNK_MAX`].
    pub fn decode<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, PackError> {
        let damaged = |why| PackError::Record { chunk: self.chunk, why };
        let raw_len = self.raw_len as usize;
        if raw_len == 0 || raw_len > CHUNK_MAX {
            return Err(PackError::Length { chunk: self.chunk, len: raw_len });
        }
        if stored.len() != self.stored_len as usize {
            return Err(damaged("is not as long as its entry tells"));
        }
        let bytes = match self.form {
            Form::Raw => Cow::Borrowed(stored),
            Form::Zstd => Cow::Owned(
                zstd::bulk::decompress(stored, raw_len)
                    .map_err(|_| damaged("cannot be decompressed to the length that its entry tells"))?,
            ),
        };
        if bytes.len() != raw_len {
            return Err(damaged("holds another length than its entry tells"));
        }
        check_chunk(self.chunk, &bytes)?;
        Ok(bytes)
    }
}

/// Puts chunks together to a pack.
///
/// The caller seals it when [`PackBuilder::is_ripe`], or earlier when somebody waits for its chunks to be durable.
#[derive(Default)]
pub struct PackBuilder {
    /// Header and records so far; empty before the first chunk.
    bytes: Vec<u8>,
    entries: Vec<PackEntry>,
    known: BTreeSet<ChunkId>,
    /// Kept over chunks, because its tables are dear to set up for small ones.
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackBuilder")
            .field("stored_len", &self.stored_len())
            .field("chunks", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl PackBuilder {
    /// An empty pack.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk after hashing it. A chunk that the pack has already is not added again. On an error the pack is as
    /// before.
    pub fn push(&mut self, chunk: ChunkId, bytes: &[u8]) -> Result<(), PackError> {
        if bytes.is_empty() || bytes.len() > CHUNK_MAX {
            return Err(PackError::Length { chunk, len: bytes.len() });
        }
        check_chunk(chunk, bytes)?;
        if self.make_room(chunk, bytes.len())? {
            let offset = self.bytes.len() as u64;
            let form = self.append(bytes);
            let stored_len = (self.bytes.len() as u64 - offset) as u32;
            self.add(PackEntry { chunk, offset, stored_len, raw_len: bytes.len() as u32, form });
        }
        Ok(())
    }

    /// Adds a chunk as another pack holds it, after hashing it: `stored` is the record of `entry`. Otherwise as
    /// [`PackBuilder::push`].
    pub fn push_record(&mut self, entry: &PackEntry, stored: &[u8]) -> Result<(), PackError> {
        entry.decode(stored)?;
        if entry.stored_len > entry.raw_len || (entry.form == Form::Raw) != (entry.stored_len == entry.raw_len) {
            return Err(PackError::Record { chunk: entry.chunk, why: "has a form and lengths that disagree" });
        }
        if self.make_room(entry.chunk, stored.len())? {
            let offset = self.bytes.len() as u64;
            self.bytes.extend_from_slice(stored);
            self.add(PackEntry { offset, ..*entry });
        }
        Ok(())
    }

    /// Whether the chunk is to be added, its record having this many bytes at most; not if the pack has it already.
    fn make_room(&mut self, chunk: ChunkId, len: usize) -> Result<bool, PackError> {
        if self.known.contains(&chunk) {
            return Ok(false);
        }
        if self.entries.len() >= ENTRIES_MAX || self.stored_len() + len > PACK_MAX {
            return Err(PackError::Full { chunk });
        }
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&footer::HEADER);
        }
        Ok(true)
    }

    fn add(&mut self, entry: PackEntry) {
        self.known.insert(entry.chunk);
        self.entries.push(entry);
    }

    /// Bytes of the records so far.
    pub fn stored_len(&self) -> usize {
        self.bytes.len().saturating_sub(footer::HEADER.len())
    }

    /// Chunks so far.
    pub fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Whether no chunk was added; such a pack is not worth storing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the pack has reached [`PACK_TARGET`] or [`ENTRIES_MAX`] and should be sealed. A pack that is not ripe
    /// takes one more chunk of any length.
    pub fn is_ripe(&self) -> bool {
        self.stored_len() >= PACK_TARGET || self.entries.len() >= ENTRIES_MAX
    }

    /// Seals the pack: its id, its bytes, and where each chunk lies in it.
    pub fn finish(mut self) -> (PackId, Vec<u8>, Vec<PackEntry>) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&footer::HEADER);
        }
        footer::append(&mut self.bytes, &self.entries);
        (PackId::of(&self.bytes), self.bytes, self.entries)
    }

    /// Appends the record in the form that is worth it.
    fn append(&mut self, bytes: &[u8]) -> Form {
        if self.compressor.is_none() {
            self.compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        // Compression fails only for want of memory; a raw record needs none.
        let compressed = self.compressor.as_mut().and_then(|zstd| zstd.compress(bytes).ok());
        let most = bytes.len() - bytes.len().div_ceil(SAVING_PART);
        match compressed {
            Some(frame) if frame.len() <= most => {
                self.bytes.extend_from_slice(&frame);
                Form::Zstd
            }
            _ => {
                self.bytes.extend_from_slice(bytes);
                Form::Raw
            }
        }
    }
}

fn check_chunk(wanted: ChunkId, bytes: &[u8]) -> Result<(), PackError> {
    let found = ChunkId::of(bytes);
    if found == wanted { Ok(()) } else { Err(PackError::OtherChunk { wanted, found }) }
}
