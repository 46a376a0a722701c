//! Project ids of inodes, by which XFS and ext4 count quotas of directories.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Same layout as `struct fsxattr` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Fsxattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// Directory flag: what is made here belongs to the directory's project, and nothing else may be moved here.
const PROJINHERIT: u32 = 0x200;
/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

/// The project that a directory gives to what is in it, if it gives any. `fd` is not an `O_PATH` descriptor.
pub(crate) fn inherited(fd: impl AsFd) -> Result<Option<u32>, Errno> {
    match get(fd) {
        Ok(fsx) => Ok((fsx.flags & PROJINHERIT != 0).then_some(fsx.project)),
        // A file system without projects.
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Gives an inode to a project. `fd` is not an `O_PATH` descriptor. Answers whether it was another's.
pub(crate) fn give_to(fd: impl AsFd, project: u32) -> Result<bool, Errno> {
    let fsx = get(&fd)?;
    if fsx.project == project {
        return Ok(false);
    }
    let wanted = Fsxattr { project, ..fsx };
    // SAFETY: the structure has the layout and the size that are encoded in the request, and outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_FSSETXATTR as libc::Ioctl, &raw const wanted) };
    if answer < 0 { Err(last_errno()) } else { Ok(true) }
}

fn get(fd: impl AsFd) -> Result<Fsxattr, Errno> {
    let mut fsx = Fsxattr::default();
    // SAFETY: as above; the kernel writes no more than the structure.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR as libc::Ioctl, &raw mut fsx) };
    if answer < 0 { Err(last_errno()) } else { Ok(fsx) }
}
