//! File leases: whether somebody else has a file open, and having a file alone for a while.
//!
//! Invariant: a lease that somebody breaks can't kill the process (its signal is one that is ignored by default).

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::last_errno;

/// Chooses the signal of a broken lease; number 10 on every architecture of Linux, but missing from libc.
const F_SETSIG: i32 = 10;

/// Whether a read lease could be had on `fd`, a read-only descriptor of a regular file: nobody has it open or mapped
/// for writing. The lease is given back at once.
pub(crate) fn probe_read_lease(fd: impl AsFd) -> Result<bool, Errno> {
    probe(fd, libc::F_RDLCK)
}

/// Takes a write lease on `fd`, a writable descriptor of a regular file; false if somebody else has it open or mapped, or is
/// about to. Who opens the file from then on waits until it is given back or `fd` is closed, at most the kernel's
/// `lease-break-time`.
pub(crate) fn take_write_lease(fd: impl AsFd) -> Result<bool, Errno> {
    take(fd.as_fd().as_raw_fd(), libc::F_WRLCK)
}

/// Gives a lease back; none is no error.
pub(crate) fn give_back(fd: impl AsFd) -> Result<(), Errno> {
    match fcntl_int(fd.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) {
        Ok(()) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn probe(fd: impl AsFd, kind: i32) -> Result<bool, Errno> {
    let raw = fd.as_fd().as_raw_fd();
    if !take(raw, kind)? {
        return Ok(false);
    }
    fcntl_int(raw, libc::F_SETLEASE, libc::F_UNLCK)?;
    Ok(true)
}

fn take(raw: i32, kind: i32) -> Result<bool, Errno> {
    // An opener breaks the lease, and the default signal for that is SIGIO, which ends a process. SIGURG is ignored unless
    // somebody asks for it.
    fcntl_int(raw, F_SETSIG, libc::SIGURG)?;
    match fcntl_int(raw, libc::F_SETLEASE, kind) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn fcntl_int(raw: i32, command: i32, argument: i32) -> Result<(), Errno> {
    // SAFETY: these commands take an integer; no memory is involved, and the descriptor is borrowed by the caller.
    let answer = unsafe { libc::fcntl(raw, command, argument) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}
