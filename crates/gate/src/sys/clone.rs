//! Blocks that two files share.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Same layout as `struct file_clone_range` of the kernel.
#[repr(C)]
struct FileCloneRange {
    source: i64,
    source_offset: u64,
    source_length: u64,
    target_offset: u64,
}

/// `_IOW(0x94, 13, struct file_clone_range)`.
const FICLONERANGE: u32 = 0x4020_940d;

/// Puts the first `len` bytes of one file into another at an offset, as the same blocks. All of it in whole blocks.
pub(crate) fn share_blocks(from: impl AsFd, to: impl AsFd, len: u64, offset: u64) -> Result<(), Errno> {
    let source = i64::from(from.as_fd().as_raw_fd());
    let range = FileCloneRange { source, source_offset: 0, source_length: len, target_offset: offset };
    // SAFETY: both descriptors are open, and the kernel reads one FileCloneRange.
    let answer = unsafe { libc::ioctl(to.as_fd().as_raw_fd(), FICLONERANGE as libc::Ioctl, &raw const range) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}
