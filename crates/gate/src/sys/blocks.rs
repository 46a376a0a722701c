//! Blocks of files: having two share them, and which are shared.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Same layout as `struct file_dedupe_range` of the kernel with one `struct file_dedupe_range_info` behind it.
#[repr(C)]
struct DedupeRange {
    source_offset: u64,
    length: u64,
    count: u16,
    reserved: [u16; 3],
    target: i64,
    target_offset: u64,
    shared: u64,
    status: i32,
    reserved_too: u32,
}

/// `_IOWR(0x94, 54, struct file_dedupe_range)`; the size in it is that of the head alone.
const FIDEDUPERANGE: u32 = 0xc018_9436;
/// `FILE_DEDUPE_RANGE_DIFFERS` of the kernel.
const DIFFERS: i32 = 1;

/// Has a range of `target` be the same blocks as one of `source` if both hold the same bytes, which the kernel compares while nobody can
/// change them. How many bytes are shared now, less than asked for at the kernel's choice; none if they differ.
pub(crate) fn share_equal(source: impl AsFd, from: u64, target: impl AsFd, to: u64, len: u64) -> Result<Option<u64>, Errno> {
    let mut range = DedupeRange {
        source_offset: from,
        length: len,
        count: 1,
        reserved: [0; 3],
        target: i64::from(target.as_fd().as_raw_fd()),
        target_offset: to,
        shared: 0,
        status: 0,
        reserved_too: 0,
    };
    let source = source.as_fd();
    // SAFETY: both descriptors are open, and the kernel reads and writes one head and, as its count says, one info behind it.
    let answer = unsafe { libc::ioctl(source.as_raw_fd(), FIDEDUPERANGE as libc::Ioctl, &raw mut range) };
    match range.status {
        _ if answer < 0 => Err(last_errno()),
        DIFFERS => Ok(None),
        status if status < 0 => Err(Errno::from_raw_os_error(-status)),
        _ => Ok(Some(range.shared)),
    }
}

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

/// Extents that are asked for at once.
const EXTENTS: usize = 64;

/// Same layout as `struct fiemap_extent` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// Same layout as `struct fiemap` of the kernel with room for extents behind it.
#[repr(C)]
struct ExtentMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// `_IOWR('f', 11, struct fiemap)`; the size in it is that of the head alone.
const FS_IOC_FIEMAP: u32 = 0xc020_660b;
/// `FIEMAP_EXTENT_LAST` and `FIEMAP_EXTENT_SHARED` of the kernel.
const LAST: u32 = 0x1;
const SHARED: u32 = 0x2000;

/// Where on the volume, in bytes, those blocks of a file are that other files have too, or snapshots.
pub(crate) fn shared_blocks(file: impl AsFd) -> Result<Vec<Range<u64>>, Errno> {
    let none = Extent { logical: 0, physical: 0, length: 0, reserved: [0; 2], flags: 0, reserved_too: [0; 3] };
    let (mut start, mut shared) = (0, Vec::new());
    loop {
        let mut map = ExtentMap {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped: 0,
            room: EXTENTS as u32,
            reserved: 0,
            extents: [none; EXTENTS],
        };
        let raw = file.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open, and the kernel writes one head and at most as many extents as the head says there is room for.
        let answer = unsafe { libc::ioctl(raw, FS_IOC_FIEMAP as libc::Ioctl, &raw mut map) };
        if answer < 0 {
            return Err(last_errno());
        }
        let found = &map.extents[..(map.mapped as usize).min(EXTENTS)];
        let is_shared = |extent: &&Extent| extent.flags & SHARED != 0;
        shared.extend(found.iter().filter(is_shared).map(|extent| extent.physical..extent.physical + extent.length));
        match found.last() {
            Some(last) if last.flags & LAST == 0 => start = last.logical + last.length,
            _ => return Ok(shared),
        }
    }
}
