//! The only place of the product with `unsafe` and libc: one small safe function per system call that rustix lacks.
//!
//! Functions here check nothing beyond what memory safety needs and return bare [`rustix::io::Errno`]; meaning is
//! added by the callers. Invariant: no raw pointer or raw descriptor leaves this module.
#![allow(unsafe_code)]

pub(crate) mod accounts;
pub(crate) mod blocks;
pub(crate) mod bpf;
pub(crate) mod fanotify;
pub(crate) mod fs_id;
pub(crate) mod handle;
pub(crate) mod heap;
pub(crate) mod inherited;
pub(crate) mod lease;
#[cfg(feature = "testing")]
pub(crate) mod mapping;
pub(crate) mod mount;
pub(crate) mod project;
pub(crate) mod signals;
pub(crate) mod writeback;

use rustix::io::Errno;

/// The error of the system call that just failed on this thread.
fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
