//! `fanotify_init`, `fanotify_mark`, and answers to permission events. Masks and flags are the caller's; reading is an
//! ordinary read.

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

/// The same on what this absolute path leads to, through links too: that of a descriptor below `/proc/self/fd`.
pub(crate) fn mark_at(group: impl AsFd, flags: u32, mask: u64, path: &std::ffi::CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with its zero byte and outlives the call; no other memory is involved.
    let answer = unsafe { libc::fanotify_mark(group.as_fd().as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A group that is asked before content is touched, of the highest class; its descriptor does not block.
pub(crate) const GUARD: u32 = FAN_CLASS_PRE_CONTENT
    | FAN_REPORT_FD_ERROR
    | libc::FAN_REPORT_TID
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_UNLIMITED_MARKS
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK;
/// Before content is read, written, mapped or cut. Constants of `linux/fanotify.h` that libc lacks.
pub(crate) const FAN_PRE_ACCESS: u64 = 0x0010_0000;
const FAN_CLASS_PRE_CONTENT: u32 = 0x8;
const FAN_REPORT_FD_ERROR: u32 = 0x2000;
/// Where the errno of a refusal stands in an answer.
const ERRNO_SHIFT: u32 = 24;

/// Same layout as `struct fanotify_response` of the kernel.
#[repr(C)]
struct Response {
    fd: i32,
    response: u32,
}

/// Takes over the descriptor of an event. `None` where the kernel could make none; the number is its errno then.
///
/// Only for numbers that stand in an event which this process just read from its own group, and once for each: the kernel
/// made them for the reader, and nobody else owns them.
pub(crate) fn take_event_fd(fd: i32) -> Option<OwnedFd> {
    // SAFETY: see above; the one caller passes the descriptor of each event once.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Answers the event with this descriptor number: let it go on, or refuse with an errno that the kernel accepts.
/// `NotFound` (ENOENT) if no event with this number waits for an answer.
pub(crate) fn respond(group: impl AsFd, fd: i32, refusal: Option<Errno>) -> Result<(), Errno> {
    let response = refusal.map_or(libc::FAN_ALLOW, |errno| libc::FAN_DENY | (errno.raw_os_error() as u32 & 0xff) << ERRNO_SHIFT);
    let answer = Response { fd, response };
    // SAFETY: `answer` has the layout of the kernel and outlives the call.
    let written = unsafe { libc::write(group.as_fd().as_raw_fd(), (&raw const answer).cast(), size_of::<Response>()) };
    if written < 0 { Err(last_errno()) } else { Ok(()) }
}
