//! Changes of names: rename, exchange, link, make and remove, between open directories.
//!
//! Nothing here replaces or removes content that the caller did not name: there is no plain rename and no recursive
//! removal. Invariant: each function is one system call, hence happens or does not happen.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use super::{Dir, check_name};
use crate::error::{ErrorKind, GateError, Result};
use crate::stat::{is_immutable, statx_fd};

impl Dir {
    /// Renames `name` to `to_name` in `to`, where that name must be free.
    ///
    /// # Errors
    /// `Exists`, `NotFound`, `Immutable`, `NoSpace`, `ReadOnly`, `CrossDevice`, `Busy`, `Denied`; `Io(EINVAL)` for a
    /// directory into its own child; `Unsupported` where the file system can't promise not to replace.
    pub fn rename_noreplace(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> Result<()> {
        self.rename(name, to, to_name, RenameFlags::NOREPLACE, "rename")
    }

    /// Exchanges `name` with `to_name` in `to`; both must exist, of whatever kinds.
    ///
    /// # Errors
    /// As [`Self::rename_noreplace`], without `Exists`.
    pub fn rename_exchange(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> Result<()> {
        self.rename(name, to, to_name, RenameFlags::EXCHANGE, "exchange")
    }

    fn rename(&self, name: &OsStr, to: &Self, to_name: &OsStr, flags: RenameFlags, operation: &'static str) -> Result<()> {
        check_name(operation, name)?;
        check_name(operation, to_name)?;
        rustix::fs::renameat_with(self, name, to, to_name, flags)
            .map_err(|e| explain(e, operation, name, &[(self, Some(name)), (to, Some(to_name))]))
    }

    /// Replaces `to_name` by `name`, both in this directory. For the product's own small files only.
    pub(super) fn rename_replace(&self, name: &OsStr, to_name: &OsStr) -> Result<()> {
        rustix::fs::renameat(self, name, self, to_name)
            .map_err(|e| explain(e, "replace", to_name, &[(self, Some(to_name)), (self, Some(name))]))
    }

    /// Gives the file `name` a second name in `to`. A symlink is linked itself.
    ///
    /// # Errors
    /// As [`Self::rename_noreplace`]; `Denied` for directories, `TooMany` links.
    pub fn link(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> Result<()> {
        let operation = "link";
        check_name(operation, name)?;
        check_name(operation, to_name)?;
        rustix::fs::linkat(self, name, to, to_name, AtFlags::empty())
            .map_err(|e| explain(e, operation, name, &[(self, Some(name)), (to, None)]))
    }

    /// Makes a directory. Its mode is `mode` less the process's umask, and a default ACL here is inherited; write the
    /// metadata afterwards to be exact.
    ///
    /// # Errors
    /// `Exists`, `NoSpace`, `Immutable`, `ReadOnly`, `Denied`, `TooMany`.
    pub fn mkdir(&self, name: &OsStr, mode: u32) -> Result<()> {
        check_name("make directory", name)?;
        rustix::fs::mkdirat(self, name, Mode::from_raw_mode(mode & 0o7777))
            .map_err(|e| explain(e, "make directory", name, &[(self, None)]))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty`, `NotFound`, `NotDirectory`, `Busy`, `Immutable`, `ReadOnly`, `Denied`.
    pub fn rmdir(&self, name: &OsStr) -> Result<()> {
        check_name("remove directory", name)?;
        rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR).map_err(|errno| {
            // POSIX allows either answer for a directory with entries.
            let errno = if errno == Errno::EXIST { Errno::NOTEMPTY } else { errno };
            explain(errno, "remove directory", name, &[(self, Some(name))])
        })
    }

    /// Removes the name of a file or symlink.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `Busy`, `Immutable`, `ReadOnly`, `Denied`.
    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        check_name("remove", name)?;
        rustix::fs::unlinkat(self, name, AtFlags::empty()).map_err(|e| explain(e, "remove", name, &[(self, Some(name))]))
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// `Exists`, `NoSpace`, `Immutable`, `ReadOnly`, `Denied`; `InvalidName` for a target longer than a path may be.
    pub fn symlink(&self, name: &OsStr, target: &OsStr) -> Result<()> {
        check_name("make symlink", name)?;
        rustix::fs::symlinkat(target, self, name).map_err(|e| explain(e, "make symlink", name, &[(self, None)]))
    }

    /// Target of the symlink `name`.
    ///
    /// # Errors
    /// `NotFound`, also if it is no symlink.
    pub fn read_link(&self, name: &OsStr) -> Result<Vec<u8>> {
        self.inode(name)?.read_link()
    }
}

/// Makes an error of an errno, and tells "marked immutable" from "not allowed" by a look at what was involved.
fn explain(errno: Errno, operation: &'static str, name: &OsStr, involved: &[(&Dir, Option<&OsStr>)]) -> GateError {
    let error = GateError::from_errno(errno, operation, name);
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    let immutable = involved.iter().any(|(dir, entry)| {
        statx_fd(dir.as_fd()).is_ok_and(|x| is_immutable(&x))
            || entry.is_some_and(|entry| dir.inode(entry).is_ok_and(|inode| statx_fd(&inode).is_ok_and(|x| is_immutable(&x))))
    });
    if immutable { error.with_kind(ErrorKind::Immutable) } else { error }
}
