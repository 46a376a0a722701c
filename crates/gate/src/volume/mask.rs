//! Masks: blocks over what of a stub's content is not here, so that no hole shows while a program reads the file as it comes.
//!
//! A program that sees a hole may take it for zeros without reading it. Where blocks can be shared, all masks are the same few blocks of
//! one file, which say what they are; elsewhere room is reserved. **Invariant:** nothing but holes is masked.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use super::{Root, StubFile};
use crate::error::{ErrorKind, GateError, Result};

/// What a mask says, over and over: its length divides that of every block, so the place in a file tells the byte.
const TEXT: &[u8; 64] = b"Isotherm: this content is in the share and has not come here yet";

/// Most bytes that the shared blocks take, and which part of a volume.
const POOL_MAX: u64 = 64 << 20;
const POOL_PART: u64 = 256;
const POOL_MIN: u64 = 1 << 20;

/// The byte of a mask at this place of a file.
#[must_use]
pub const fn mask_byte(offset: u64) -> u8 {
    TEXT[(offset % TEXT.len() as u64) as usize]
}

/// What masks are made of on one volume.
#[derive(Debug)]
pub struct MaskPool {
    /// A file without a name, and how many bytes it has; none where blocks cannot be shared.
    shared: Option<(OwnedFd, u64)>,
    /// Bytes of a block.
    block: u64,
}

impl MaskPool {
    /// Makes one, which takes at most 64 MiB of the volume for as long as it is there.
    ///
    /// # Errors
    /// `NoSpace`, or a failure of the volume.
    pub fn new(root: &Root) -> Result<Self> {
        let fail = |errno| root.dir().fail(errno, "make a mask on");
        let block = rustix::fs::fstatvfs(root.dir()).map_err(fail)?.f_bsize.max(TEXT.len() as u64);
        if !root.supports_reflink() {
            return Ok(Self { shared: None, block });
        }
        let wanted = (root.space()?.total / POOL_PART).clamp(POOL_MIN, POOL_MAX);
        let len = wanted.next_multiple_of(POOL_MIN);
        let fd = root.staging()?.unnamed()?;
        let piece: Vec<u8> = (0..POOL_MIN).map(mask_byte).collect();
        for at in (0..len).step_by(piece.len()) {
            write_all(&fd, &piece, at).map_err(fail)?;
        }
        rustix::fs::fsync(&fd).map_err(fail)?;
        Ok(Self { shared: Some((fd, len)), block })
    }
}

impl MaskPool {
    /// Whether masks take room of their own.
    #[must_use]
    pub fn reserves(&self) -> bool {
        self.shared.is_none()
    }
}

impl StubFile {
    /// Masks the holes within these bytes. The last block, if the file ends within it, stays a hole: a mask covers whole blocks.
    ///
    /// # Errors
    /// `NoSpace`, or a failure of the volume; some holes may be masked then.
    pub fn mask(&self, pool: &MaskPool, within: impl IntoIterator<Item = Range<u64>>) -> Result<()> {
        let size = self.stat()?.size;
        let last = size - size % pool.block;
        for range in within {
            let range = range.start.next_multiple_of(pool.block)..range.end.min(last);
            match &pool.shared {
                _ if range.is_empty() => {}
                Some(shared) => self.share(shared, range)?,
                None => self.reserve(range)?,
            }
        }
        Ok(())
    }

    /// Gives up what is in these bytes, in whole blocks: what a record that is durable by now does not name.
    ///
    /// # Errors
    /// `Unsupported`, or a failure of the volume.
    pub fn give_up_within(&self, within: impl IntoIterator<Item = Range<u64>>) -> Result<()> {
        let size = self.stat()?.size;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for range in within {
            // The last block is given up only as a whole.
            let end = if range.end >= size { size.next_multiple_of(1 << 16) } else { range.end };
            if range.start < end {
                let punched = rustix::fs::fallocate(self, flags, range.start, end - range.start);
                punched.map_err(|errno| self.fail(errno, "give up a part of"))?;
            }
        }
        Ok(())
    }

    /// Blocks of the pool over each hole.
    fn share(&self, (pool, len): &(OwnedFd, u64), range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = self.next_data(at)?.unwrap_or(range.end).min(range.end);
            while at < end {
                let piece = (end - at).min(*len);
                crate::sys::blocks::share_blocks(pool, self, piece, at).map_err(|errno| match errno {
                    Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL => {
                        GateError::new(ErrorKind::Unsupported, "mask a part of", self.label())
                    }
                    errno => self.fail(errno, "mask a part of"),
                })?;
                at += piece;
            }
            at = self.next_hole(at, range.end)?;
        }
        Ok(())
    }

    fn reserve(&self, range: Range<u64>) -> Result<()> {
        let reserved = rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, range.start, range.end - range.start);
        reserved.map_err(|errno| self.fail(errno, "reserve room for"))
    }

    /// Where the next hole begins, or the end.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn next_hole(&self, from: u64, end: u64) -> Result<u64> {
        if from >= end {
            return Ok(end);
        }
        match rustix::fs::seek(self, SeekFrom::Hole(from)) {
            Ok(hole) => Ok(hole.min(end)),
            Err(Errno::NXIO) => Ok(end),
            Err(errno) => Err(self.fail(errno, "look for holes of")),
        }
    }
}

fn write_all(fd: impl AsFd, bytes: &[u8], at: u64) -> std::result::Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        match retry_on_intr(|| rustix::io::pwrite(&fd, &bytes[written..], at + written as u64))? {
            0 => return Err(Errno::IO),
            more => written += more,
        }
    }
    Ok(())
}
