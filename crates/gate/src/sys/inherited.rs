//! Descriptors that whoever started this process has opened for it.
//!
//! Invariant: each is taken over once, and none that this program has opened itself.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first of them, behind standard input, output and error.
const FIRST: RawFd = 3;
/// More than these nobody gives.
const COUNT_MAX: usize = 1 << 16;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over so many; none if they are not all there, and none the second time.
pub(crate) fn take(count: usize) -> Vec<OwnedFd> {
    if count == 0 || count > COUNT_MAX || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let numbers = FIRST..FIRST + count as RawFd;
    // What this program opens is closed in programs that it starts. What has come over such a start cannot be.
    // SAFETY: only numbers are passed.
    let flags = |number| unsafe { libc::fcntl(number, libc::F_GETFD) };
    if numbers.clone().any(|number| flags(number) != 0) {
        return Vec::new();
    }
    let take = |number| {
        // SAFETY: only numbers are passed.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        // SAFETY: it is open, this program did not open it, and this function comes here once in a process.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    numbers.map(take).collect()
}
