//! `name_to_handle_at` and `open_by_handle_at`. Does not judge what a handle means; see `crate::FileHandle`.
//!
//! Invariant: the kernel is never told of more handle bytes than the buffer holds.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::last_errno;

/// Most bytes that a handle may have, `MAX_HANDLE_SZ` of the kernel.
pub(crate) const HANDLE_BYTES_MAX: usize = 128;

/// Same layout as `struct file_handle` of the kernel, with room for the longest handle.
#[repr(C)]
struct RawHandle {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; HANDLE_BYTES_MAX],
}

/// Type and bytes of the handle of the open inode `fd`, which may be an `O_PATH` descriptor.
pub(crate) fn handle_of(fd: impl AsFd) -> Result<(i32, Vec<u8>), Errno> {
    let mut raw = RawHandle { handle_bytes: HANDLE_BYTES_MAX as u32, handle_type: 0, f_handle: [0; HANDLE_BYTES_MAX] };
    let mut mount_id: c_int = 0;
    // SAFETY: `raw` has the layout of `struct file_handle` followed by as many bytes as `handle_bytes` says, the
    // path is an empty C string, and both outlive the call.
    let answer = unsafe {
        libc::name_to_handle_at(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast::<libc::file_handle>(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if answer != 0 {
        return Err(last_errno());
    }
    let len = (raw.handle_bytes as usize).min(HANDLE_BYTES_MAX);
    Ok((raw.handle_type, raw.f_handle[..len].to_vec()))
}

/// Opens the inode of a handle on the mount of `mount_fd` (a descriptor that is not `O_PATH`), with open(2) `flags`.
pub(crate) fn open_handle(mount_fd: impl AsFd, handle_type: i32, bytes: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
    if bytes.is_empty() || bytes.len() > HANDLE_BYTES_MAX {
        return Err(Errno::INVAL);
    }
    let mut raw = RawHandle { handle_bytes: bytes.len() as u32, handle_type, f_handle: [0; HANDLE_BYTES_MAX] };
    raw.f_handle[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: as in `handle_of`; the kernel only reads `handle_bytes` bytes, which were checked to be there.
    let fd = unsafe { libc::open_by_handle_at(mount_fd.as_fd().as_raw_fd(), (&raw mut raw).cast::<libc::file_handle>(), flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether two descriptors of this process are of one open file; none where the kernel does not tell (kcmp(2)).
pub(crate) fn is_same_file(a: impl AsFd, b: impl AsFd) -> Option<bool> {
    /// `KCMP_FILE` of `linux/kcmp.h`.
    const KCMP_FILE: libc::c_int = 0;
    let me = std::process::id() as libc::pid_t;
    let (a, b) = (a.as_fd().as_raw_fd() as libc::c_ulong, b.as_fd().as_raw_fd() as libc::c_ulong);
    // SAFETY: only numbers are passed.
    let compared = unsafe { libc::syscall(libc::SYS_kcmp, me, me, KCMP_FILE, a, b) };
    (compared >= 0).then_some(compared == 0)
}
