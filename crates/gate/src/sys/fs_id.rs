//! The id of a mounted file system, as the kernel knows it.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Same layout as `struct fsuuid2` of the kernel.
#[repr(C)]
#[derive(Default)]
struct Fsuuid {
    len: u8,
    uuid: [u8; 16],
}

/// `_IOR(0x15, 0, struct fsuuid2)`.
const FS_IOC_GETFSUUID: u32 = 0x8011_1500;

/// The id of the file system of `fd`, which is not an `O_PATH` descriptor; NOTTY where it has none.
pub(crate) fn of(fd: impl AsFd) -> Result<[u8; 16], Errno> {
    let mut found = Fsuuid::default();
    // SAFETY: the structure has the layout and the size that are encoded in the request, and outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_GETFSUUID as libc::Ioctl, &raw mut found) };
    match answer {
        0 if usize::from(found.len) == found.uuid.len() => Ok(found.uuid),
        0 => Err(Errno::NOTTY),
        _ => Err(last_errno()),
    }
}
