//! Builds the manifest of content that is read once from front to back.
//!
//! It does not keep chunks; they go to the sink. A long run of zeros is a hole, whether the file system keeps it as one
//! or as data, so that two servers with the same bytes have the same version of a file.
//!
//! Invariant: the same bytes give the same manifest, in whatever pieces they are told.

use super::{HOLE_MIN, LEN_MAX, Manifest, ManifestError, Part};
use crate::content::chunk::Chunker;
use crate::content::id::ChunkId;

/// Zeros for holes that are too short to be kept as holes.
static ZEROS: [u8; HOLE_MIN as usize] = [0; HOLE_MIN as usize];

/// Cuts and hashes content and writes down its parts.
///
/// The sink of each call gets the chunks that are complete, in order; a chunk that occurs twice comes twice. When a
/// sink fails the builder must be dropped.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    chunker: Chunker,
    parts: Vec<Part>,
    /// Zeros that were told and may still grow to a hole.
    hole: u64,
}

impl ManifestBuilder {
    /// A builder at the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes are data.
    pub fn data<E>(&mut self, bytes: &[u8], mut sink: impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let zeros = leading_zeros(rest);
            self.hole(zeros as u64);
            rest = &rest[zeros..];
            if rest.is_empty() {
                break;
            }
            self.settle_hole(&mut sink)?;
            let run = until_zeros(rest);
            self.push(&rest[..run], &mut sink)?;
            rest = &rest[run..];
        }
        Ok(())
    }

    /// The next `len` bytes are a hole. Holes that touch are one; one shorter than [`HOLE_MIN`] becomes zeros.
    pub fn hole(&mut self, len: u64) {
        // No file is that long; `finish` refuses the sum.
        self.hole = self.hole.saturating_add(len).min(LEN_MAX + 1);
    }

    /// The file ends here. Fails only if it is longer than a manifest may be.
    pub fn finish<E: From<ManifestError>>(
        mut self,
        mut sink: impl FnMut(ChunkId, &[u8]) -> Result<(), E>,
    ) -> Result<Manifest, E> {
        self.settle_hole(&mut sink)?;
        self.end_run(&mut sink)?;
        Ok(Manifest::new(self.parts)?)
    }

    fn settle_hole<E>(&mut self, sink: &mut impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let len = std::mem::take(&mut self.hole);
        if len >= HOLE_MIN {
            self.end_run(sink)?;
            self.parts.push(Part::Hole { len });
            return Ok(());
        }
        self.push(&ZEROS[..len as usize], sink)
    }

    fn push<E>(&mut self, bytes: &[u8], sink: &mut impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let parts = &mut self.parts;
        self.chunker.push(bytes, |chunk| keep(parts, chunk, sink))
    }

    fn end_run<E>(&mut self, sink: &mut impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let parts = &mut self.parts;
        self.chunker.finish(|chunk| keep(parts, chunk, sink))
    }
}

fn leading_zeros(bytes: &[u8]) -> usize {
    // Whole blocks first: without an early end in it, the loop over a block becomes a few wide instructions.
    let blocks = bytes.chunks_exact(64).take_while(|block| block.iter().fold(0, |all, byte| all | byte) == 0).count();
    let rest = &bytes[64 * blocks..];
    64 * blocks + rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len())
}

fn trailing_zeros(bytes: &[u8]) -> usize {
    bytes.iter().rev().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// How much of `bytes`, which begin with data, comes before the next zeros that are a hole, or may become one with what
/// follows. A run of that length covers one of the places that are looked at, so nearly all bytes are left unread.
fn until_zeros(bytes: &[u8]) -> usize {
    const STRIDE: usize = HOLE_MIN as usize;
    let mut at = STRIDE;
    while let Some(byte) = bytes.get(at) {
        if *byte == 0 {
            let start = at - trailing_zeros(&bytes[..at]);
            let end = at + leading_zeros(&bytes[at..]);
            if end - start >= STRIDE || end == bytes.len() {
                return start;
            }
        }
        at += STRIDE;
    }
    bytes.len() - trailing_zeros(bytes)
}

fn keep<E>(parts: &mut Vec<Part>, bytes: &[u8], sink: &mut impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let chunk = ChunkId::of(bytes);
    parts.push(Part::Data { chunk, len: bytes.len() as u32 });
    sink(chunk, bytes)
}
