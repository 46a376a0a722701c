//! What is in a stub before its content comes: of a recall that was broken off, or of somebody who wrote to it while nobody
//! guarded the volume.
//!
//! **Invariant:** what somebody wrote is not overwritten. What a broken recall leaves is the content's own, or nothing; what was streamed
//! leaves a mask besides.

use isotherm_gate::{GateError, StubFile, mask_byte};

/// Pieces in which it is compared, in bytes.
const PIECE: usize = 1 << 20;

/// Bytes that may be in the way of a content.
#[derive(Debug)]
pub(super) struct Remains {
    /// There are any.
    any: bool,
    /// What came, as offset and end; kept only if there are any.
    came: Vec<(u64, u64)>,
    /// Some of them may be a mask.
    masked: bool,
}

impl Remains {
    /// Of a stub that is about to be filled.
    pub(super) fn of(file: &StubFile) -> Result<Self, GateError> {
        Ok(Self { any: file.has_data()?, came: Vec::new(), masked: false })
    }

    /// The same of a file with a record of what is here: elsewhere there may be a mask.
    pub(super) fn of_partial() -> Self {
        Self { any: true, came: Vec::new(), masked: true }
    }

    pub(super) fn are_any(&self) -> bool {
        self.any
    }

    /// Whether a piece may be written there: nothing is, or the same.
    pub(super) fn allow(&mut self, file: &StubFile, offset: u64, piece: &[u8]) -> Result<bool, GateError> {
        if !self.any {
            return Ok(true);
        }
        self.came.push((offset, offset + piece.len() as u64));
        let mut found = vec![0; piece.len().min(PIECE)];
        for (at, wanted) in piece.chunks(PIECE).enumerate() {
            let found = &mut found[..wanted.len()];
            file.read_at(offset + (at * PIECE) as u64, found)?;
            let from = offset + (at * PIECE) as u64;
            let is_mask = |found: u8, at: usize| self.masked && found == mask_byte(from + at as u64);
            let is_other = |(at, (found, wanted)): (usize, (&u8, &u8))| *found != 0 && found != wanted && !is_mask(*found, at);
            if found.iter().zip(wanted).enumerate().any(is_other) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether there is nothing where nothing came. To be asked when all has come.
    pub(super) fn leave_holes(&mut self, file: &StubFile, size: u64, progress: &dyn Fn()) -> Result<bool, GateError> {
        // A content that was streamed has no holes, and of others no partial record is written but while they are mended.
        if !self.any || self.masked {
            return Ok(true);
        }
        self.came.sort_unstable();
        let mut from = 0;
        for (begin, end) in self.came.iter().copied().chain([(size, size)]) {
            if from < begin && !are_zeros(file, from, begin, progress)? {
                return Ok(false);
            }
            from = from.max(end);
        }
        Ok(true)
    }
}

fn are_zeros(file: &StubFile, from: u64, until: u64, progress: &dyn Fn()) -> Result<bool, GateError> {
    let mut buffer = vec![0; PIECE];
    let mut at = from;
    while let Some(data) = file.next_data(at)?.filter(|data| *data < until) {
        progress();
        at = data;
        let len = usize::try_from(until - at).unwrap_or(PIECE).min(PIECE);
        let found = &mut buffer[..len];
        file.read_at(at, found)?;
        if found.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}
