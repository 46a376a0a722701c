//! Builds the manifest of content that is read once from front to back.
//!
//! It does not find holes: the reader of the file tells them. It does not keep chunks either; they go to the sink.
//!
//! Invariant: the same bytes with the same holes give the same manifest, in whatever pieces they are told.

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
    /// A hole that was told and may still grow.
    hole: u64,
}

impl ManifestBuilder {
    /// A builder at the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes are data.
    pub fn data<E>(&mut self, bytes: &[u8], mut sink: impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.settle_hole(&mut sink)?;
        self.push(bytes, &mut sink)
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

fn keep<E>(parts: &mut Vec<Part>, bytes: &[u8], sink: &mut impl FnMut(ChunkId, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let chunk = ChunkId::of(bytes);
    parts.push(Part::Data { chunk, len: bytes.len() as u32 });
    sink(chunk, bytes)
}
