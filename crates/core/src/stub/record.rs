//! The record of a stub: what its content is, kept in an attribute of the file itself.
//!
//! It is short, so that it fits into the inode: 60 bytes are what an ext4 inode of 256 bytes has left for the value of an
//! attribute with our name, and a record needs 55 for a file of less than 512 TiB.
//! The record of a partially tiered file names its resident ranges too, and takes what it takes.
//! **Invariant:** bytes that were not written by [`StubRecord::encode`] or [`StubRecord::encode_partial`] are an error, never a
//! record; and a record holds for the one inode that it was written for.

use crate::content::ManifestId;
use crate::ids::{NodeId, Version};
use crate::stored::{self, StoredError};
use crate::trees::Handle;

use super::units::{Units, units_of};

/// Format of the record of a file of which nothing is here.
const COMPACT: u8 = 1;
/// Format of the record of a file of which some ranges are here. What the file holds elsewhere is of no meaning: nothing, a mask, or what
/// came and was not made durable.
const PARTIAL: u8 = 2;

/// Most bytes of a compact record: format, check, inode, node, content, and two numbers of up to ten bytes.
const COMPACT_MAX: usize = 1 + 4 + BOUND_BYTES + 16 + PREFIX_BYTES + 10 + 10;

/// Most resident ranges that a record names: far more than a program leaves behind.
pub const RANGES_MAX: usize = 64;

/// Most bytes of a record: two numbers more for each range.
pub const RECORD_MAX: usize = COMPACT_MAX + RANGES_MAX * 20;

const BOUND_BYTES: usize = 6;
const PREFIX_BYTES: usize = 16;

/// What a stub stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StubRecord {
    /// The node of the share. It is never another file's, in no share.
    pub node: NodeId,
    /// The version whose content it is.
    pub version: Version,
    /// Which content that is.
    pub content: ContentPrefix,
    /// Length of the content, in bytes, and of the file for as long as it is a stub.
    pub size: u64,
    /// The inode that it was written for.
    pub bound: Bound,
}

/// The first half of a manifest id: enough that nobody finds another content with it by chance, and short enough for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentPrefix(pub [u8; PREFIX_BYTES]);

/// A digest of an inode's number and generation. A record that was copied along with other attributes (`cp -a`, `tar --xattrs`,
/// `rsync -X`) stands on another inode and says so. Two inodes of a volume share one in one of 2^48 cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bound([u8; BOUND_BYTES]);

/// Why an attribute is no record that holds for its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RecordError {
    /// It is not what was written, or another release wrote it.
    #[error("Stub record: {0}")]
    Stored(#[from] StoredError),
    /// The check is right and the rest is not: no release writes such a thing.
    #[error("Stub record: an entry has a wrong length")]
    Length,
    /// The file has no name any more: another one took it while somebody was about to open this one.
    #[error("Stub record: the file is gone")]
    Gone,
    /// The file could not be looked at.
    #[error("Stub record: the file cannot be looked at")]
    Unreadable,
    /// It was written for another inode, or nothing is left of it: somebody copied it (`rsync -X` copies the name of a record that
    /// goes while it reads, and no value).
    #[error("Stub record: it belongs to another file, of which this one is a copy")]
    Void,
}

impl ContentPrefix {
    /// That of a content.
    #[must_use]
    pub fn of(manifest: &ManifestId) -> Self {
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&manifest.as_bytes()[..PREFIX_BYTES]);
        Self(prefix)
    }
}

impl Bound {
    /// That of an inode.
    #[must_use]
    pub fn to(handle: &Handle) -> Self {
        let mut bound = [0; BOUND_BYTES];
        blake3::Hasher::new_derive_key("isotherm stub record 1: inode").update(&handle.0).finalize_xof().fill(&mut bound);
        Self(bound)
    }
}

impl StubRecord {
    /// The value of the attribute of a file of which nothing is here.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored::seal(COMPACT, &self.body())
    }

    /// The value of the attribute of a file of which these are here, and whatever it holds elsewhere means nothing. Of more than
    /// [`RANGES_MAX`] ranges the longest are named.
    #[must_use]
    pub fn encode_partial(&self, resident: &Units) -> Vec<u8> {
        let mut body = self.body();
        let mut from = 0;
        for range in resident.longest(RANGES_MAX).ranges() {
            put_number(&mut body, range.start - from);
            put_number(&mut body, range.end - range.start);
            from = range.end;
        }
        stored::seal(PARTIAL, &body)
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(COMPACT_MAX);
        body.extend(self.bound.0);
        body.extend(self.node.0);
        body.extend(self.content.0);
        put_number(&mut body, self.version.0);
        put_number(&mut body, self.size);
        body
    }

    /// Reads the value of the attribute of the inode `handle`.
    ///
    /// # Errors
    /// It is damaged, of another release, or of another inode.
    pub fn decode(value: &[u8], handle: &Handle) -> Result<Self, RecordError> {
        Self::decode_with(value, handle).map(|(record, _)| record)
    }

    /// The same, with what is here; none where it is a compact record: then the file holds nothing that is not the content's.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_with(value: &[u8], handle: &Handle) -> Result<(Self, Option<Units>), RecordError> {
        let (record, resident) = Self::decode_unbound(value)?;
        if record.bound == Bound::to(handle) { Ok((record, resident)) } else { Err(RecordError::Void) }
    }

    /// Reads the value of an attribute, whatever inode it is on.
    ///
    /// # Errors
    /// It is damaged or of another release.
    pub fn decode_unbound(value: &[u8]) -> Result<(Self, Option<Units>), RecordError> {
        let Some(format) = value.first() else { return Err(RecordError::Void) };
        let is_partial = *format == PARTIAL;
        let mut body = stored::open(if is_partial { PARTIAL } else { COMPACT }, value)?;
        let bound = Bound(take(&mut body)?);
        let node = NodeId(take(&mut body)?);
        let content = ContentPrefix(take(&mut body)?);
        let (version, size) = (Version(take_number(&mut body)?), take_number(&mut body)?);
        let resident = if is_partial { Some(take_ranges(&mut body, units_of(size))?) } else { None };
        if body.is_empty() { Ok((Self { node, version, content, size, bound }, resident)) } else { Err(RecordError::Length) }
    }
}

/// Ranges within so many units. There is one form of each set: no empty range, none that touches the next.
fn take_ranges(body: &mut &[u8], units: u64) -> Result<Units, RecordError> {
    let (mut ranges, mut from) = (Vec::new(), 0_u64);
    while !body.is_empty() {
        let (gap, len) = (take_number(body)?, take_number(body)?);
        let start = from.checked_add(gap).ok_or(RecordError::Length)?;
        let end = start.checked_add(len).ok_or(RecordError::Length)?;
        if len == 0 || end > units || (gap == 0 && !ranges.is_empty()) || ranges.len() == RANGES_MAX {
            return Err(RecordError::Length);
        }
        ranges.push(start..end);
        from = end;
    }
    Ok(ranges.into_iter().collect())
}

fn take<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (taken, rest) = body.split_first_chunk().ok_or(RecordError::Length)?;
    *body = rest;
    Ok(*taken)
}

/// Seven bits a byte, the lowest first; all but the last have the highest bit set.
fn put_number(body: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        body.push(number as u8 | 0x80);
        number >>= 7;
    }
    body.push(number as u8);
}

/// The one shortest form of a number; longer forms of it are refused.
fn take_number(body: &mut &[u8]) -> Result<u64, RecordError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(body)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(RecordError::Length);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(RecordError::Length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn handle(byte: u8) -> Handle {
        Handle(Box::from([byte; 9]))
    }

    fn record(version: u64, size: u64) -> StubRecord {
        let content = ContentPrefix::of(&ManifestId::from_bytes([7; 32]));
        StubRecord { node: NodeId([1; 16]), version: Version(version), content, size, bound: Bound::to(&handle(1)) }
    }

    #[test]
    fn it_fits_into_the_inode_of_ext4() {
        assert!(record((1 << 35) - 1, (1 << 49) - 1).encode().len() <= 55);
        assert!(record((1 << 56) - 1, u64::MAX >> 1).encode().len() <= 60);
        assert_eq!(record(u64::MAX, u64::MAX).encode().len(), COMPACT_MAX);
    }

    #[test]
    fn a_copy_on_another_inode_is_void() {
        let value = record(5, 10).encode();
        assert_eq!(StubRecord::decode(&value, &handle(1)), Ok(record(5, 10)));
        assert_eq!(StubRecord::decode(&value, &handle(2)), Err(RecordError::Void));
    }

    #[test]
    fn the_format_is_what_it_was() {
        let value = record(300, 70_000).encode();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "011e9c001854f2bc96b79e0101010101010101010101010101010107070707070707070707070707070707ac02f0a204");
    }

    #[test]
    fn other_formats_and_other_lengths_are_refused_by_name() {
        let mut later = record(5, 10).encode();
        later[0] = 3;
        let error = StubRecord::decode(&later, &handle(1)).unwrap_err();
        assert_eq!(error.to_string(), "Stub record: an entry has format 3, this release knows format 1");
        assert_eq!(StubRecord::decode(b"\x01", &handle(1)), Err(StoredError::Short.into()));
        assert_eq!(StubRecord::decode(b"", &handle(1)), Err(RecordError::Void), "somebody copied a record that went meanwhile");
        let body = &record(5, 10).encode()[5..];
        for wrong in [&body[..body.len() - 1], &[body, &[0]].concat(), &[&body[..body.len() - 1], &[0x8a, 0]].concat()] {
            assert_eq!(StubRecord::decode_unbound(&stored::seal(1, wrong)), Err(RecordError::Length));
        }
    }

    #[test]
    fn what_is_here_stands_behind_the_rest() {
        let (of, size) = (handle(1), 9 * crate::stub::UNIT + 1);
        for resident in [Units::none(), Units::all(size), Units::from_iter([0..1, 3..5, 9..10])] {
            let value = record(5, size).encode_partial(&resident);
            assert_eq!(StubRecord::decode_with(&value, &of), Ok((record(5, size), Some(resident))));
            assert_eq!(StubRecord::decode(&value, &handle(2)), Err(RecordError::Void));
        }
        assert_eq!(StubRecord::decode_with(&record(5, size).encode(), &of), Ok((record(5, size), None)));
        let body = record(5, size).body();
        for wrong in [&[0][..], &[0, 0], &[0, 11], &[1, 1, 0, 1], &[0x80, 0, 1], &[0, 1, 9, 1]] {
            let value = stored::seal(PARTIAL, &[&body, wrong].concat());
            assert_eq!(StubRecord::decode_with(&value, &of), Err(RecordError::Length), "{wrong:?}");
        }
    }

    #[test]
    fn of_many_ranges_the_longest_are_named() {
        let many: Units = (0..100).map(|at| at * 10..at * 10 + 1 + at % 7).collect();
        let size = 1_000 * crate::stub::UNIT;
        let value = record(u64::MAX, size).encode_partial(&many);
        assert!(value.len() <= RECORD_MAX);
        let resident = StubRecord::decode_with(&value, &handle(1)).unwrap().1.unwrap();
        assert_eq!((resident.ranges().count(), many.contain(&resident)), (RANGES_MAX, true));
        assert!(resident.ranges().all(|range| range.end - range.start >= 3));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(node: [u8; 16], version: u64, content: [u8; 16], size: u64, inode: Vec<u8>) {
            let handle = Handle(inode.into());
            let (node, content, bound) = (NodeId(node), ContentPrefix(content), Bound::to(&handle));
            let record = StubRecord { node, version: Version(version), content, size, bound };
            prop_assert_eq!(StubRecord::decode(&record.encode(), &handle), Ok(record));
        }

        #[test]
        fn a_changed_bit_is_noticed(version: u64, size: u64, at in 0_usize..40, bit in 0_u8..8) {
            let mut value = record(version, size).encode();
            value[at] ^= 1 << bit;
            prop_assert!(StubRecord::decode_unbound(&value).is_err());
        }
    }
}
