//! The stored form of a manifest.
//!
//! A *leaf* holds the parts. A leaf of more than [`LEAF_MAX`] bytes is cut into chunks like any content, and an *index*
//! that names those chunks takes its place. Nothing is fetched here: the caller brings an index's chunks.
//!
//! Invariant: one manifest has one encoding, and what decodes is canonical. Decoding allocates in proportion to the
//! bytes it was given, whatever their length fields say.

use super::{Manifest, ManifestError, PARTS_MAX, Part};
use crate::content::chunk::{CHUNK_MAX, Chunker};
use crate::content::id::{ChunkId, ManifestId};
use crate::content::wire::{CHECK_LEN, WireError, WireReader, check_of, check_version, put_varint};

/// Longest leaf in bytes that is stored as it is.
pub const LEAF_MAX: usize = 1024 * 1024;

/// First bytes of an encoded manifest.
const MAGIC: [u8; 4] = *b"isoM";
/// The newest format version that is understood; the one that is written.
const VERSION: u8 = 1;
const KIND_LEAF: u8 = 0;
const KIND_INDEX: u8 = 1;
/// Magic, version, kind, and the longest form of the body's length.
const HEADER_LEN_MAX: usize = MAGIC.len() + 2 + 10;
/// What errors call the encoding.
const WHAT: &str = "Manifest";
const WHAT_INDEX: &str = "Manifest index";
/// Shortest encoding of data or of an index entry: a length and an id.
const ENTRY_LEN_MIN: u64 = 33;
/// Shortest encoding of a hole: a length of at least 64 KiB.
const HOLE_LEN_MIN: u64 = 3;

/// A manifest ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The id, hashed over `bytes`.
    pub id: ManifestId,
    /// The leaf, or the index of a large one.
    pub bytes: Vec<u8>,
    /// The pieces of a large leaf, to be stored as chunks before the manifest is named; they are part of what keeps
    /// the manifest alive. Empty for a leaf.
    pub extra_chunks: Vec<(ChunkId, Vec<u8>)>,
}

/// What a stored manifest turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// The manifest itself.
    Whole(Manifest),
    /// A large one: fetch [`ManifestIndex::chunks`], then [`ManifestIndex::assemble`].
    Index(ManifestIndex),
}

/// Names the chunks whose concatenation is a large manifest's leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestIndex {
    chunks: Vec<(ChunkId, u32)>,
}

impl Manifest {
    /// The stored form and the id.
    pub fn encode(&self) -> Encoded {
        let leaf = encode_leaf(&self.parts);
        if leaf.len() <= LEAF_MAX {
            return Encoded { id: ManifestId::of(&leaf), bytes: leaf, extra_chunks: Vec::new() };
        }
        let mut extra_chunks = Vec::new();
        let mut keep = |chunk: &[u8]| {
            extra_chunks.push((ChunkId::of(chunk), chunk.to_vec()));
            Ok::<(), std::convert::Infallible>(())
        };
        let mut chunker = Chunker::new();
        let Ok(()) = chunker.push(&leaf, &mut keep);
        let Ok(()) = chunker.finish(&mut keep);
        let bytes = encode_index(&extra_chunks);
        Encoded { id: ManifestId::of(&bytes), bytes, extra_chunks }
    }

    /// The id alone.
    pub fn id(&self) -> ManifestId {
        self.encode().id
    }

    /// Reads the stored form and checks that it is the one with this id.
    pub fn decode(id: ManifestId, bytes: &[u8]) -> Result<Decoded, ManifestError> {
        let decoded = Self::decode_unnamed(bytes)?;
        let found = ManifestId::of(bytes);
        if found != id {
            return Err(ManifestError::OtherId { wanted: id, found });
        }
        Ok(decoded)
    }

    /// Reads the stored form where the id is not known, for example when it is offered for storing.
    pub fn decode_unnamed(bytes: &[u8]) -> Result<Decoded, ManifestError> {
        let (kind, body) = open(bytes)?;
        if kind == KIND_INDEX {
            return decode_index(body).map(Decoded::Index);
        }
        if bytes.len() > LEAF_MAX {
            return Err(not_canonical("a leaf of this length must be chunked"));
        }
        decode_leaf(body).map(Decoded::Whole)
    }
}

impl ManifestIndex {
    /// The chunks to fetch, with their lengths in bytes, in order.
    pub fn chunks(&self) -> &[(ChunkId, u32)] {
        &self.chunks
    }

    /// Puts the manifest together from the bytes of [`ManifestIndex::chunks`], in their order. Every chunk is hashed.
    pub fn assemble<'a>(&self, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Manifest, ManifestError> {
        let mut given = chunks.into_iter();
        let mut leaf = Vec::new();
        for (wanted, len) in &self.chunks {
            let needed = u64::from(*len);
            let bytes = given.next().ok_or(WireError::Truncated { what: WHAT_INDEX, needed })?;
            let found = ChunkId::of(bytes);
            if found != *wanted {
                return Err(ManifestError::IndexChunk { wanted: *wanted, found });
            }
            leaf.extend_from_slice(bytes);
        }
        let (kind, body) = open(&leaf)?;
        if kind != KIND_LEAF || leaf.len() <= LEAF_MAX {
            return Err(not_canonical("an index must stand for a large leaf"));
        }
        decode_leaf(body)
    }
}

fn encode_leaf(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, parts.len() as u64);
    for part in parts {
        // The lowest bit tells the kind; a manifest's lengths leave it free.
        match part {
            Part::Data { chunk, len } => {
                put_varint(&mut bytes, u64::from(*len) << 1);
                bytes.extend_from_slice(chunk.as_bytes());
            }
            Part::Hole { len } => put_varint(&mut bytes, len << 1 | 1),
        }
    }
    close(KIND_LEAF, &bytes)
}

fn decode_leaf(body: &[u8]) -> Result<Manifest, ManifestError> {
    let mut reader = WireReader::new(WHAT, body);
    // Holes never touch, so at most every second part, rounded up, is one.
    let count = read_count(&mut reader, WHAT, |count| count / 2 * ENTRY_LEN_MIN + count.div_ceil(2) * HOLE_LEN_MIN)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let tagged = reader.varint()?;
        let len = tagged >> 1;
        if tagged & 1 == 1 {
            parts.push(Part::Hole { len });
            continue;
        }
        let len = u32::try_from(len).map_err(|_| reader.not_canonical("a chunk is too long"))?;
        let chunk = ChunkId::from_bytes(reader.array()?);
        parts.push(Part::Data { chunk, len });
    }
    reader.finish()?;
    Manifest::new(parts)
}

fn encode_index(chunks: &[(ChunkId, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, chunks.len() as u64);
    for (id, chunk) in chunks {
        put_varint(&mut bytes, chunk.len() as u64);
        bytes.extend_from_slice(id.as_bytes());
    }
    close(KIND_INDEX, &bytes)
}

fn decode_index(body: &[u8]) -> Result<ManifestIndex, ManifestError> {
    let mut reader = WireReader::new(WHAT_INDEX, body);
    let count = read_count(&mut reader, WHAT_INDEX, |count| count * ENTRY_LEN_MIN)?;
    let mut chunks = Vec::with_capacity(count);
    let mut total = 0_usize;
    for _ in 0..count {
        let len = reader.varint()?;
        if len == 0 || len > CHUNK_MAX as u64 {
            return Err(reader.not_canonical("a chunk is empty or too long").into());
        }
        total = total.saturating_add(len as usize);
        chunks.push((ChunkId::from_bytes(reader.array()?), len as u32));
    }
    if total <= LEAF_MAX {
        return Err(reader.not_canonical("it stands for a small leaf").into());
    }
    reader.finish()?;
    Ok(ManifestIndex { chunks })
}

/// Reads how many entries follow and refuses a number that the bytes left cannot hold.
fn read_count(reader: &mut WireReader<'_>, what: &'static str, len_min: impl Fn(u64) -> u64) -> Result<usize, WireError> {
    let count = reader.varint()?;
    if count > PARTS_MAX as u64 {
        return Err(reader.not_canonical("it has too many parts"));
    }
    let needed = len_min(count).saturating_sub(reader.left() as u64);
    if needed > 0 {
        return Err(WireError::Truncated { what, needed });
    }
    Ok(count as usize)
}

/// Puts header, length and check sum around a body.
fn close(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN_MAX + body.len() + CHECK_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, kind]);
    put_varint(&mut bytes, body.len() as u64);
    bytes.extend_from_slice(body);
    let check = check_of(&bytes);
    bytes.extend_from_slice(&check);
    bytes
}

/// Checks magic, version, length, check sum and kind, in this order: a newer version may go on differently and must be
/// refused by its number. Returns kind and body.
fn open(bytes: &[u8]) -> Result<(u8, &[u8]), ManifestError> {
    let mut reader = WireReader::new(WHAT, bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(WireError::Magic { what: WHAT }.into());
    }
    check_version(WHAT, reader.byte()?, VERSION)?;
    let kind = reader.byte()?;
    let body_len = reader.varint()?;
    let missing = body_len.saturating_add(CHECK_LEN as u64).saturating_sub(reader.left() as u64);
    if missing > 0 {
        return Err(WireError::Truncated { what: WHAT, needed: missing }.into());
    }
    let body = reader.take(body_len as usize)?;
    let summed = bytes.len() - reader.left();
    if reader.array()? != check_of(&bytes[..summed]) {
        return Err(WireError::Check { what: WHAT }.into());
    }
    reader.finish()?;
    if kind > KIND_INDEX {
        return Err(not_canonical("it is of an unknown kind"));
    }
    Ok((kind, body))
}

fn not_canonical(why: &'static str) -> ManifestError {
    WireError::NotCanonical { what: WHAT, why }.into()
}
