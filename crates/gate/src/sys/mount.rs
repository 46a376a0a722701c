//! Attributes of a detached mount. Attaches and detaches nothing.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Same layout as `struct mount_attr` of the kernel, first version (32 bytes).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;
const MOUNT_ATTR_ATIME: u64 = 0x70;
const MOUNT_ATTR_NOATIME: u64 = 0x10;
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Makes the mount of `mount_fd` one that follows no symlink, runs no program and leaves access times alone.
pub(crate) fn harden(mount_fd: impl AsFd) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME | MOUNT_ATTR_NOSYMFOLLOW,
        attr_clr: MOUNT_ATTR_ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string, `attr` has the layout and the size that is passed; both outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount_fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}
