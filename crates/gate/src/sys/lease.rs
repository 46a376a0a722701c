//! File leases, used as a question only. No lease outlives the call that took it.
//!
//! Invariant: a lease that is broken in between can't kill the process (its signal is one that is ignored by default).

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

/// Whether a write lease could be had on `fd`, a writable descriptor of a regular file: nobody else has it open or mapped at
/// all, or is about to. The lease is given back at once: who opens the file while it lasts would wait for its end.
pub(crate) fn probe_write_lease(fd: impl AsFd) -> Result<bool, Errno> {
    probe(fd, libc::F_WRLCK)
}

fn probe(fd: impl AsFd, kind: i32) -> Result<bool, Errno> {
    let raw = fd.as_fd().as_raw_fd();
    // An opener who comes between the next two calls breaks the lease, and the default signal for that is SIGIO,
    // which ends a process. SIGURG is ignored unless somebody asks for it.
    fcntl_int(raw, F_SETSIG, libc::SIGURG)?;
    match fcntl_int(raw, libc::F_SETLEASE, kind) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    fcntl_int(raw, libc::F_SETLEASE, libc::F_UNLCK)?;
    Ok(true)
}

fn fcntl_int(raw: i32, command: i32, argument: i32) -> Result<(), Errno> {
    // SAFETY: these commands take an integer; no memory is involved, and the descriptor is borrowed by the caller.
    let answer = unsafe { libc::fcntl(raw, command, argument) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}
