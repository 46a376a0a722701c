//! Whether a file was cut while its content came.
//!
//! Most who cut a file open it, and wait. A client of kernel NFS does not, and nobody is asked (row 18); what is written after
//! that makes the file long again, with zeros where a piece has been. **Invariant:** where all seals hold and the length is right,
//! no byte that was written has gone: a cut takes all behind it, so the last byte of a piece that is not zero goes with
//! whatever else it takes of that piece.

use isotherm_gate::{GateError, StubFile};

/// For each piece that was written, its last byte that is not zero, and where that is.
#[derive(Debug, Default)]
pub(super) struct Seals(Vec<(u64, u8)>);

impl Seals {
    /// A piece was written.
    pub(super) fn add(&mut self, offset: u64, piece: &[u8]) {
        // Zeros cannot be lost.
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            self.0.push((offset + last as u64, piece[last]));
        }
    }

    /// Whether all pieces are still there. To be asked when the last one was written.
    pub(super) fn hold(&self, file: &StubFile, progress: &dyn Fn()) -> Result<bool, GateError> {
        for (offset, byte) in &self.0 {
            progress();
            if !file.holds(*offset, *byte)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
