//! What is known of an inode without reading its content.
//!
//! No access time: the product keeps its own record of use. Invariant: all fields of a [`Stat`], the handle included,
//! are of the same inode, because they are asked of one open descriptor.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use crate::FileHandle;

/// `STATX_MNT_ID_UNIQUE` of `linux/stat.h`, since Linux 6.8.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket; never synced.
    Other,
}

/// State of an inode at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Identity on its volume.
    pub handle: FileHandle,
    /// What it is.
    pub kind: Kind,
    /// Length of a file's content, or of a symlink's target, in bytes.
    pub size: u64,
    /// Space it takes on disk, in units of 512 bytes.
    pub blocks: u64,
    /// Last change of content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last access that the file system noted, in nanoseconds since 1970; how often it notes one is the mount's choice.
    pub atime_ns: i64,
    /// Last change of content or metadata, in nanoseconds since 1970; cannot be set.
    pub ctime_ns: i64,
    /// Creation, in nanoseconds since 1970, where the file system records it; cannot be set.
    pub btime_ns: Option<i64>,
    /// Permission bits with setuid, setgid and sticky: the low twelve bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// How many names it has.
    pub nlink: u32,
    /// Device number (`makedev`) of the file system or btrfs subvolume.
    pub dev: u64,
    /// Inode number on that device; unlike the handle it is used again.
    pub ino: u64,
    /// Whether it is marked immutable or append-only.
    pub immutable: bool,
}

/// The kernel's number of the mount that a descriptor came through, never given twice; none where the kernel does not tell.
pub(crate) fn mount_number(fd: impl AsFd) -> Option<u64> {
    let unique = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let found = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, unique).ok()?;
    (found.stx_mask & STATX_MNT_ID_UNIQUE != 0).then_some(found.stx_mnt_id)
}

impl Stat {
    /// Asks the open descriptor `fd`, which may be `O_PATH`.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let handle = FileHandle::of(&fd)?;
        Ok(Self::from_statx(handle, &statx_fd(&fd)?))
    }

    fn from_statx(handle: FileHandle, x: &Statx) -> Self {
        Self {
            handle,
            kind: Kind::from_mode(u32::from(x.stx_mode)),
            size: x.stx_size,
            blocks: x.stx_blocks,
            mtime_ns: nanoseconds(x.stx_mtime),
            atime_ns: nanoseconds(x.stx_atime),
            ctime_ns: nanoseconds(x.stx_ctime),
            btime_ns: (x.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| nanoseconds(x.stx_btime)),
            mode: u32::from(x.stx_mode) & 0o7777,
            uid: x.stx_uid,
            gid: x.stx_gid,
            nlink: x.stx_nlink,
            dev: device(x),
            ino: x.stx_ino,
            immutable: is_immutable(x),
        }
    }

    /// Whether content may have changed between `self` and `later`: another inode, size, mtime or ctime.
    pub fn content_may_differ(&self, later: &Self) -> bool {
        self.handle != later.handle
            || self.size != later.size
            || self.mtime_ns != later.mtime_ns
            || self.ctime_ns != later.ctime_ns
    }
}

impl Kind {
    fn from_mode(mode: u32) -> Self {
        Self::from(rustix::fs::FileType::from_raw_mode(mode))
    }
}

impl From<rustix::fs::FileType> for Kind {
    fn from(file_type: rustix::fs::FileType) -> Self {
        use rustix::fs::FileType;
        match file_type {
            FileType::Directory => Self::Directory,
            FileType::RegularFile => Self::File,
            FileType::Symlink => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// `statx` of an open descriptor.
pub(crate) fn statx_fd(fd: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Device number of a `statx` answer.
pub(crate) fn device(x: &Statx) -> u64 {
    rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor)
}

/// Whether the inode of a `statx` answer is marked immutable or append-only.
pub(crate) fn is_immutable(x: &Statx) -> bool {
    x.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// One number for a time stamp. Saturates outside of the years 1677 to 2262, which no file system here can hold.
fn nanoseconds(t: StatxTimestamp) -> i64 {
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(t.tv_nsec))
}
