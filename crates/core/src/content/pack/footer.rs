//! The frame around a pack's records: header, index and trailer.
//!
//! It does not look at the records. The trailer has a fixed length and says how long the index is, so a reader that
//! knows only the object's length needs at most two reads from its end.
//!
//! Invariant: a footer that is accepted describes records that follow each other without gap from the header to the
//! footer, each chunk once; no offset is stored, so none can be wrong.

use std::collections::BTreeSet;

use super::{ENTRIES_MAX, Form, PACK_MAX, PackEntry, PackError};
use crate::content::chunk::CHUNK_MAX;
use crate::content::id::ChunkId;
use crate::content::wire::{CHECK_LEN, WireError, WireReader, check_of, check_version, put_varint};

/// The newest format version that is understood; the one that is written.
const VERSION: u8 = 1;
/// Magic, version, and zeros that make the records begin at 8.
pub(super) const HEADER: [u8; 8] = [b'i', b's', b'o', b'P', VERSION, 0, 0, 0];
/// Last bytes of a pack.
const END_MAGIC: [u8; 4] = *b"Posi";

/// Bytes of the trailer: length of the index (4), check sum (8), version (1), magic (4).
pub const TRAILER_LEN: usize = 4 + CHECK_LEN + 1 + END_MAGIC.len();

/// The longest entry of an index.
pub(super) const ENTRY_LEN_MAX: u64 = 32 + 4 + 4 + 1;

/// All that is in a pack beside its records and the entries of its index, at most.
pub(super) const AROUND_LEN_MAX: u64 = HEADER.len() as u64 + 4 + TRAILER_LEN as u64;

/// Shortest encoding of an entry: id, two lengths, form.
const ENTRY_LEN_MIN: usize = 32 + 3;
/// Longest index: ids and forms, and lengths of at most four bytes each.
const INDEX_LEN_MAX: u64 = 4 + ENTRIES_MAX as u64 * ENTRY_LEN_MAX;

const WHAT: &str = "Pack";

/// What the end of a pack told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Footer {
    /// Where every chunk lies, in the order of the records.
    Entries(Vec<PackEntry>),
    /// The index is longer than the tail that was given; read this many bytes from the pack's end.
    NeedTail(u64),
}

/// Appends index and trailer to header and records.
pub(super) fn append(bytes: &mut Vec<u8>, entries: &[PackEntry]) {
    let start = bytes.len();
    put_varint(bytes, entries.len() as u64);
    for entry in entries {
        bytes.extend_from_slice(entry.chunk.as_bytes());
        put_varint(bytes, u64::from(entry.stored_len));
        put_varint(bytes, u64::from(entry.raw_len));
        bytes.push(entry.form.code());
    }
    let index_len = (bytes.len() - start) as u32;
    bytes.extend_from_slice(&index_len.to_le_bytes());
    let check = check_of(&bytes[start..]);
    bytes.extend_from_slice(&check);
    bytes.push(VERSION);
    bytes.extend_from_slice(&END_MAGIC);
}

/// Checks the first bytes of a pack; eight are enough.
pub fn check_header(head: &[u8]) -> Result<(), PackError> {
    let mut reader = WireReader::new(WHAT, head);
    if reader.take(4)? != &HEADER[..4] {
        return Err(WireError::Magic { what: WHAT }.into());
    }
    check_version(WHAT, reader.byte()?, VERSION)?;
    if reader.take(3)? != [0; 3] {
        return Err(reader.not_canonical("its header has bits of no meaning").into());
    }
    Ok(())
}

/// Reads the index from the last bytes of a pack that is `pack_len` bytes long. At least [`TRAILER_LEN`] bytes must be
/// given; more save a second read.
pub fn read_footer(pack_len: u64, tail: &[u8]) -> Result<Footer, PackError> {
    let least = (HEADER.len() + 1 + TRAILER_LEN) as u64;
    if pack_len < least {
        return Err(WireError::Truncated { what: WHAT, needed: least - pack_len }.into());
    }
    let needed = TRAILER_LEN.saturating_sub(tail.len()) as u64;
    if needed > 0 {
        return Err(WireError::Truncated { what: WHAT, needed }.into());
    }
    let (front, trailer) = tail.split_at(tail.len() - TRAILER_LEN);
    let mut reader = WireReader::new(WHAT, trailer);
    let len_bytes: [u8; 4] = reader.array()?;
    let check: [u8; CHECK_LEN] = reader.array()?;
    let version = reader.byte()?;
    if reader.take(END_MAGIC.len())? != END_MAGIC {
        return Err(WireError::Magic { what: WHAT }.into());
    }
    check_version(WHAT, version, VERSION)?;
    let index_len = u64::from(u32::from_le_bytes(len_bytes));
    let room = pack_len - (HEADER.len() + TRAILER_LEN) as u64;
    if index_len > room.min(INDEX_LEN_MAX) {
        return Err(reader.not_canonical("its index is longer than it can be").into());
    }
    if index_len > front.len() as u64 {
        return Ok(Footer::NeedTail(index_len + TRAILER_LEN as u64));
    }
    let start = front.len() - index_len as usize;
    if check_of(&tail[start..front.len() + len_bytes.len()]) != check {
        return Err(WireError::Check { what: WHAT }.into());
    }
    read_index(&front[start..], room - index_len).map(Footer::Entries)
}

/// Reads the entries; `records_len` is what lies between header and index.
fn read_index(index: &[u8], records_len: u64) -> Result<Vec<PackEntry>, PackError> {
    let mut reader = WireReader::new(WHAT, index);
    let count = reader.varint()?;
    if count > (reader.left() / ENTRY_LEN_MIN).min(ENTRIES_MAX) as u64 {
        return Err(reader.not_canonical("it has more chunks than its index can name").into());
    }
    let mut entries = Vec::with_capacity(count as usize);
    let mut known = BTreeSet::new();
    let mut offset = HEADER.len() as u64;
    for _ in 0..count {
        let chunk = ChunkId::from_bytes(reader.array()?);
        let (stored_len, raw_len) = (reader.varint()?, reader.varint()?);
        let form = Form::from_code(reader.byte()?);
        let bounds = 1..=CHUNK_MAX as u64;
        if !bounds.contains(&raw_len) || !bounds.contains(&stored_len) || stored_len > raw_len {
            return Err(reader.not_canonical("a chunk's length is out of bounds").into());
        }
        let Some(form) = form else {
            return Err(reader.not_canonical("a chunk is in an unknown form").into());
        };
        if (form == Form::Raw) != (stored_len == raw_len) {
            return Err(reader.not_canonical("a chunk's form and lengths disagree").into());
        }
        if !known.insert(chunk) {
            return Err(reader.not_canonical("it names a chunk twice").into());
        }
        let (stored_len, raw_len) = (stored_len as u32, raw_len as u32);
        entries.push(PackEntry { chunk, offset, stored_len, raw_len, form });
        offset += u64::from(stored_len);
    }
    let records_end = HEADER.len() as u64 + records_len;
    if offset != records_end || records_len > PACK_MAX as u64 {
        return Err(reader.not_canonical("its index does not cover its records").into());
    }
    reader.finish()?;
    Ok(entries)
}
