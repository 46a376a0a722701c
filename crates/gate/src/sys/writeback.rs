//! Having the kernel write what it keeps of a file to the device, without telling the device to keep it.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Begins to write what was changed in a file.
pub(crate) fn begin(file: impl AsFd) -> Result<(), Errno> {
    call(file, libc::SYNC_FILE_RANGE_WRITE)
}

/// Writes what was changed in a file, and waits until it is written. Also an earlier failure that nobody was told of.
pub(crate) fn end(file: impl AsFd) -> Result<(), Errno> {
    call(file, libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER)
}

fn call(file: impl AsFd, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: no memory is involved, and the descriptor is borrowed by the caller.
    let answer = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, flags) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}
