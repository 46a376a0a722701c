//! Cuts content into chunks at places that the content itself decides (FastCDC), so that an insertion moves few cuts.
//!
//! It neither reads files nor keeps chunks: bytes go in by any slices, whole chunks come out. The cuts are a promise to
//! every stored share: other cuts would send unchanged files again. A golden test holds them.
//!
//! Invariant: the cuts depend on the bytes since the last reset and not on how they were fed.

use fastcdc::v2020::{MASKS, cut};

/// Shortest chunk in bytes, but for the last of a run: content up to this length is one chunk.
pub const CHUNK_MIN: usize = 256 * 1024;

/// Length in bytes that the cuts aim at.
pub const CHUNK_AVERAGE: usize = 1024 * 1024;

/// Longest chunk in bytes. Every decoder uses it as its bound.
pub const CHUNK_MAX: usize = 4 * 1024 * 1024;

/// Normalisation of the chunk sizes: the mask before the average length has this many bits more than the average asks
/// for, the mask after it as many less. Over 60 one-byte edits of random content, 1, 2 and 3 sent 1.27, 1.21 and 1.09 MiB
/// in the median and 2.70, 2.05 and 1.73 MiB at most; 2 is what the paper recommends: 3 leaves fewer
/// places where a cut can fall before the longest length.
const NORMALISATION: usize = 2;

/// Bits of a mask that hits once in [`CHUNK_AVERAGE`] places.
const AVERAGE_BITS: usize = CHUNK_AVERAGE.trailing_zeros() as usize;

const MASK_STRICT: u64 = MASKS[AVERAGE_BITS + NORMALISATION];
const MASK_LOOSE: u64 = MASKS[AVERAGE_BITS - NORMALISATION];

/// Where the first chunk of `bytes` ends. It is final if `bytes` holds at least [`CHUNK_MAX`] bytes or all that is left.
fn first_cut(bytes: &[u8]) -> usize {
    let (_, end) = cut(bytes, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX, MASK_STRICT, MASK_LOOSE, MASK_STRICT << 1, MASK_LOOSE << 1);
    end
}

/// Cuts a stream of bytes that is pushed in.
///
/// The sink gets each chunk's bytes once, in order. When it fails the chunker is at an unknown place and must be
/// dropped. At most [`CHUNK_MAX`] bytes are kept.
#[derive(Debug, Default)]
pub struct Chunker {
    /// Bytes after the last cut, fewer than [`CHUNK_MAX`] between calls.
    kept: Vec<u8>,
}

impl Chunker {
    /// A chunker at the beginning of content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that were pushed and are not part of a chunk yet.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Takes the next bytes and hands out the chunks that are complete.
    pub fn push<E>(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.kept.len() + bytes.len() >= CHUNK_MAX {
            if self.kept.is_empty() {
                // Cut in the caller's memory; only a tail is ever copied.
                let end = first_cut(bytes);
                sink(&bytes[..end])?;
                bytes = &bytes[end..];
            } else {
                let missing = CHUNK_MAX - self.kept.len();
                self.kept.extend_from_slice(&bytes[..missing]);
                let end = first_cut(&self.kept);
                sink(&self.kept[..end])?;
                // What lies behind the cut came from the front of `bytes`, or was kept before.
                let behind = CHUNK_MAX - end;
                if behind <= missing {
                    self.kept.clear();
                    bytes = &bytes[missing - behind..];
                } else {
                    self.kept.truncate(CHUNK_MAX - missing);
                    self.kept.drain(..end);
                }
            }
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the run: hands out what is kept as its last chunks. The next byte begins a new run, as after a hole or at
    /// the beginning of a file. Empty content has no chunk.
    pub fn finish<E>(&mut self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut rest = &self.kept[..];
        while !rest.is_empty() {
            let end = first_cut(rest);
            sink(&rest[..end])?;
            rest = &rest[end..];
        }
        self.kept.clear();
        Ok(())
    }
}
