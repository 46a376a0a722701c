//! Endpoint roots and everything that is done to files below them, relative to open directories.
//!
//! It does not know which files belong to a namespace, and keeps no record of what it did. Invariants: a name is one
//! directory entry, never a path; no symlink is followed, no mount crossed; the owner of the only way to content is
//! [`ContentReader`].

mod content;
mod dir;
mod inode;
pub(crate) mod ledger;
mod local;
mod mask;
mod names;
mod owners;
mod root;
mod share;
mod small;
mod staging;
mod stub;
mod xattr;

pub use content::{ContentReader, Extent, Finish, STUB_RECORD_XATTR, Snapshot};
pub use dir::{Dir, ListEntry};
pub use inode::{Inode, Metadata};
pub use ledger::Ledger;
pub(crate) use ledger::listed;
pub use mask::{MaskPool, mask_byte};
pub use owners::{Account, Owners};
pub use root::{FsKind, Isolation, Liveness, Root, Space};
pub use share::Shared;
pub use staging::{STAGE_DIR, StagedFile, Staging};
pub use stub::StubFile;
pub(crate) use stub::has_record;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{ErrorKind, GateError, Result};

/// Longest name of a directory entry on every file system that is supported, in bytes (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// Opens one entry of `dir`, or `dir` itself as `.`, without following a symlink or crossing a mount.
fn open_beneath(dir: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    retry_on_intr(|| rustix::fs::openat2(&dir, name, flags | OFlags::CLOEXEC, mode, resolve))
}

/// Refuses what is not the name of one directory entry.
fn check_name(operation: &'static str, name: &OsStr) -> Result<()> {
    let bytes = name.as_bytes();
    let bad = bytes.is_empty()
        || bytes == b"."
        || bytes == b".."
        || bytes.len() > NAME_BYTES_MAX
        || bytes.contains(&b'/')
        || bytes.contains(&0);
    if bad { Err(GateError::new(ErrorKind::InvalidName, operation, name)) } else { Ok(()) }
}

/// Path through which calls that take no `O_PATH` descriptor reach the inode of one.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_entries_are_names() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(check_name("open", OsStr::from_bytes(bad)).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b"a\nb", b"\xff", &[b'x'; 255]] {
            assert!(check_name("open", OsStr::from_bytes(good)).is_ok(), "{good:?}");
        }
    }
}
