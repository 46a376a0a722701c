//! An open directory: opening and listing its entries.
//!
//! Changes of names are in `names`. Invariant: a listing is whole or an error, so that absence from it means absence.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::{Inode, check_name, open_beneath};
use crate::error::{ErrorKind, GateError, Result};
use crate::stat::{device, statx_fd};
use crate::{Kind, Stat};

/// Size of the buffer that entries are read into, in bytes: some thousand names a call.
const LIST_BUFFER_BYTES: usize = 128 * 1024;

/// An open directory on the device of its root.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    dev: u64,
    name: Vec<u8>,
}

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct ListEntry<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// What it is, where the file system says so in the directory itself.
    pub kind: Option<Kind>,
    /// Inode number.
    pub ino: u64,
}

impl Dir {
    pub(super) fn new(fd: OwnedFd, dev: u64, name: &OsStr) -> Self {
        Self { fd, dev, name: name.as_bytes().to_vec() }
    }

    /// Takes an open directory if it is on `dev`.
    pub(super) fn checked(fd: OwnedFd, dev: u64, operation: &'static str, name: &OsStr) -> Result<Self> {
        let x = statx_fd(&fd).map_err(|e| GateError::from_errno(e, operation, name))?;
        if device(&x) != dev {
            return Err(GateError::new(ErrorKind::CrossDevice, operation, name));
        }
        Ok(Self::new(fd, dev, name))
    }

    /// Opens the child directory `name`.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `Symlink`, `CrossDevice` (a mount or a subvolume), `InvalidName`.
    pub fn open_dir(&self, name: &OsStr) -> Result<Self> {
        let operation = "open directory";
        check_name(operation, name)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = open_beneath(&self.fd, name, flags, Mode::empty()).map_err(|errno| {
            let error = GateError::from_errno(errno, operation, name);
            // With O_DIRECTORY the kernel says "not a directory" of a symlink; the caller wants to know.
            let symlink = errno == Errno::NOTDIR && self.kind_of(name) == Some(Kind::Symlink);
            if symlink { error.with_kind(ErrorKind::Symlink) } else { error }
        })?;
        Self::checked(fd, self.dev, operation, name)
    }

    /// A second descriptor of the same directory.
    ///
    /// # Errors
    /// `TooMany` when the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|e| self.fail(Errno::from_io_error(&e).unwrap_or(Errno::IO), "duplicate"))?;
        Ok(Self { fd, dev: self.dev, name: self.name.clone() })
    }

    /// A reference to whatever `name` is now, a symlink included.
    ///
    /// # Errors
    /// `NotFound`, `CrossDevice` (a mount), `InvalidName`.
    pub fn inode(&self, name: &OsStr) -> Result<Inode> {
        let operation = "look up";
        check_name(operation, name)?;
        let fd = open_beneath(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| GateError::from_errno(e, operation, name))?;
        Ok(Inode::new(fd, name))
    }

    /// State of whatever `name` is now; `None` if there is no such name.
    ///
    /// # Errors
    /// `CrossDevice` (a mount), `InvalidName`, or a failure of the volume.
    pub fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        match self.inode(name) {
            Ok(inode) => inode.stat().map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// State of the directory itself.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn stat_self(&self) -> Result<Stat> {
        Stat::of(&self.fd).map_err(|e| self.fail(e, "stat"))
    }

    /// The directory itself as an inode, for its metadata.
    ///
    /// # Errors
    /// `TooMany` when the process has no descriptor left.
    pub fn as_inode(&self) -> Result<Inode> {
        Ok(Inode::new(self.try_clone()?.fd, OsStr::from_bytes(&self.name)))
    }

    /// Visits every entry but `.` and `..`, in the order of the file system, to the very end. At an endpoint root
    /// the product's own folder is among them.
    ///
    /// # Errors
    /// Any failure on the way: then absence of a name says nothing. `NotFound` if the directory was removed.
    pub fn list(&self, mut visit: impl FnMut(ListEntry<'_>)) -> Result<()> {
        let operation = "list";
        // An open file description of its own, so that listings of one directory don't share a position.
        let fd = open_beneath(&self.fd, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|e| self.fail(e, operation))?;
        let mut buffer: Vec<MaybeUninit<u8>> = vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.fail(errno, operation)),
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = (entry.file_type() != FileType::Unknown).then(|| Kind::from(entry.file_type()));
            visit(ListEntry { name: OsStr::from_bytes(name), kind, ino: entry.ino() });
        }
        Ok(())
    }

    /// Makes changes of names in this directory durable.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|e| self.fail(e, "sync directory"))
    }

    /// Device number of the volume.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// How it was opened, for messages: a name, a handle, or the path of a root.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    pub(super) fn kind_of(&self, name: &OsStr) -> Option<Kind> {
        self.stat(name).ok().flatten().map(|stat| stat.kind)
    }

    pub(super) fn fail(&self, errno: Errno, operation: &'static str) -> GateError {
        GateError::from_errno(errno, operation, self.name())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
