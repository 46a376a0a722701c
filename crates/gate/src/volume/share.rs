//! Equal content of several files in the same blocks.
//!
//! **Invariant:** no byte of any file changes by it: the kernel compares before it shares, and whoever writes afterwards gets blocks of
//! his own.

use std::ops::Range;

use rustix::io::Errno;

use super::StubFile;
use crate::error::{ErrorKind, GateError, Result};
use crate::sys::blocks;

/// Whoever reads or writes one of the two files waits for one such piece at most, in bytes.
const PIECE: u64 = 4 << 20;

/// What became of ranges that were thought to be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// All of them are the same blocks now.
    All,
    /// They differ from this many bytes on, within the next few; what is before that is shared.
    Differs(u64),
}

impl StubFile {
    /// Has `len` bytes from `to` on be the same blocks as those of `source` from `from` on, where both hold the same bytes. Whole blocks, or
    /// up to the end of both files. Both may be open for reading alone.
    ///
    /// # Errors
    /// `Unsupported` where files of this volume cannot share blocks, or these two cannot, `NoSpace`, or a failure of the volume; a part may
    /// be shared then.
    pub fn share_equal(&self, to: u64, source: &Self, from: u64, len: u64) -> Result<Shared> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE);
            let shared = blocks::share_equal(source, from + done, self, to + done, piece).map_err(|errno| match errno {
                Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::PERM | Errno::TXTBSY => {
                    GateError::new(ErrorKind::Unsupported, "share blocks of", self.label())
                }
                errno => self.fail(errno, "share blocks of"),
            })?;
            match shared {
                // Nothing is got on with: the end of a file is not where it was.
                None | Some(0) => return Ok(Shared::Differs(done)),
                Some(shared) => done += shared,
            }
        }
        Ok(Shared::All)
    }

    /// Where on the volume, in bytes, those of its blocks are that other files have too, or snapshots: they stay in use when its content
    /// goes.
    ///
    /// # Errors
    /// `Unsupported`, or a failure of the volume.
    pub fn shared_blocks(&self) -> Result<Vec<Range<u64>>> {
        blocks::shared_blocks(self).map_err(|errno| self.fail(errno, "look at the blocks of"))
    }
}
