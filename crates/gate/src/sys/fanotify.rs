//! `fanotify_init` and `fanotify_mark`. Masks and flags are the caller's; reading is an ordinary read.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::last_errno;

/// A new fanotify group. The descriptors of its events, if it has any, are read-only.
pub(crate) fn init(flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE) as u32) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds or changes a mark of `group` on the object, mount or file system of `fd` (not an `O_PATH` descriptor).
pub(crate) fn mark(group: impl AsFd, flags: u32, mask: u64, fd: impl AsFd) -> Result<(), Errno> {
    // SAFETY: a null path means "the descriptor itself"; no other memory is involved.
    let answer = unsafe { libc::fanotify_mark(group.as_fd().as_raw_fd(), flags, mask, fd.as_fd().as_raw_fd(), std::ptr::null()) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}
