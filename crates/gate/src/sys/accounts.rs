//! Users and groups by name and by number, through the system's name services (files, LDAP, SSSD).
//!
//! Caches nothing; a lookup may block on the network. Names that are not UTF-8 count as absent.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;

use rustix::io::Errno;

use super::last_errno;

/// First buffer for one account record, and the size past which a growing one is given up, in bytes.
const BUFFER_START: usize = 1024;
const BUFFER_MAX: usize = 1 << 20;

/// Name of a user number; `None` if nobody has it.
pub(crate) fn user_name(uid: u32) -> Result<Option<String>, Errno> {
    // SAFETY: `lookup` passes valid pointers, and the name is read while the buffer lives.
    lookup(
        |record, buffer, len, found| unsafe { libc::getpwuid_r(uid, record, buffer, len, found) },
        |record: &libc::passwd| unsafe { owned_name(record.pw_name) },
    )
    .map(Option::flatten)
}

/// Name of a group number; `None` if no group has it.
pub(crate) fn group_name(gid: u32) -> Result<Option<String>, Errno> {
    // SAFETY: as in `user_name`.
    lookup(
        |record, buffer, len, found| unsafe { libc::getgrgid_r(gid, record, buffer, len, found) },
        |record: &libc::group| unsafe { owned_name(record.gr_name) },
    )
    .map(Option::flatten)
}

/// Number of a user name; `None` if there is no such user.
pub(crate) fn user_id(name: &str) -> Result<Option<u32>, Errno> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: as in `user_name`; `name` outlives the call.
    lookup(
        |record, buffer, len, found| unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer, len, found) },
        |record: &libc::passwd| record.pw_uid,
    )
}

/// Number of a group name; `None` if there is no such group.
pub(crate) fn group_id(name: &str) -> Result<Option<u32>, Errno> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: as in `user_id`.
    lookup(
        |record, buffer, len, found| unsafe { libc::getgrnam_r(name.as_ptr(), record, buffer, len, found) },
        |record: &libc::group| record.gr_gid,
    )
}

/// Calls one of the `get*_r` functions with a buffer that grows until the record fits.
fn lookup<R, T>(
    ask: impl Fn(*mut R, *mut c_char, usize, *mut *mut R) -> c_int,
    take: impl FnOnce(&R) -> T,
) -> Result<Option<T>, Errno> {
    let mut buffer: Vec<c_char> = vec![0; BUFFER_START];
    loop {
        let mut record = MaybeUninit::<R>::uninit();
        let mut found: *mut R = std::ptr::null_mut();
        let code = ask(record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        match code {
            0 if found.is_null() => return Ok(None),
            // SAFETY: on success `found` points to `record`, now filled in, whose strings lie in `buffer`; both live here.
            0 => return Ok(Some(take(unsafe { &*found }))),
            libc::ERANGE if buffer.len() < BUFFER_MAX => buffer.resize(buffer.len() * 4, 0),
            libc::EINTR => {}
            // POSIX leaves open how "no such entry" is told; these are what name services answer for it.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            code if code > 0 => return Err(Errno::from_raw_os_error(code)),
            _ => return Err(last_errno()),
        }
    }
}

/// Copies a C string of a record.
///
/// # Safety
/// `name` is null or points to a C string that lives during the call.
unsafe fn owned_name(name: *const c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().ok().map(str::to_owned)
}
