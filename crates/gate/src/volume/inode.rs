//! A reference to one inode, without its content: state and metadata, read and written.
//!
//! It cannot read content. Invariants: all calls reach the inode that was opened, whatever its name leads to by now;
//! writing metadata never loses setuid and setgid bits and never leaves an ACL overruled by an older mode.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::{proc_path, xattr};
use crate::error::{ErrorKind, GateError, Result};
use crate::stat::{is_immutable, statx_fd};
use crate::{FileHandle, Kind, Stat};

/// An open inode.
#[derive(Debug)]
pub struct Inode {
    fd: OwnedFd,
    name: Vec<u8>,
}

/// Metadata to write. What is in neither `set` nor `remove` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky (07777); ignored for symlinks, which have none.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes to write: only names that [`Inode::read_xattrs`] can answer.
    pub set: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Extended attributes to remove; absent ones are no error.
    pub remove: Vec<Vec<u8>>,
}

impl Inode {
    pub(super) fn new(fd: OwnedFd, name: &OsStr) -> Self {
        Self { fd, name: name.as_bytes().to_vec() }
    }

    /// State now.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn stat(&self) -> Result<Stat> {
        Stat::of(&self.fd).map_err(|e| self.fail(e, "stat"))
    }

    /// Identity.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn handle(&self) -> Result<FileHandle> {
        FileHandle::of(&self.fd).map_err(|e| self.fail(e, "read handle of"))
    }

    /// Target of a symlink.
    ///
    /// # Errors
    /// `NotFound` if it is no symlink (the kernel's answer for an empty path).
    pub fn read_link(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.fd, "", Vec::new()).map_err(|e| self.fail(e, "read symlink"))?;
        Ok(target.into_bytes())
    }

    /// Its stub record, if it has one.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn stub_record(&self) -> Result<Option<Vec<u8>>> {
        xattr::stub_record(&self.fd).map_err(|errno| self.fail(errno, "read the stub record of"))
    }

    /// Whether it has a stub record; what cannot be told is none.
    pub fn is_stub(&self) -> bool {
        self.stub_record().is_ok_and(|record| record.is_some())
    }

    /// All extended attributes that are synced: `user.*`, the POSIX ACLs and `security.NTACL`, as raw bytes.
    /// Never `security.bpf.*` nor `security.selinux`. Empty where the file system has none.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn read_xattrs(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        xattr::read_carried(&self.fd).map_err(|e| self.fail(e, "read extended attributes of"))
    }

    /// Writes owner, mode and extended attributes.
    ///
    /// Order: a change of owner clears setuid, so it comes before the mode; the mode of a file with an ACL changes the
    /// ACL's mask, so the ACL comes last.
    ///
    /// # Errors
    /// `Immutable`, `Denied`, `Unsupported` (no xattrs or ACLs there), `AclTooLarge`, `NoSpaceForXattr`, `NoSpace`,
    /// `InvalidName` for an attribute that is not synced. What was written before the failure stays.
    pub fn write_metadata(&self, metadata: &Metadata) -> Result<()> {
        let refused = metadata.set.keys().chain(&metadata.remove).find(|name| !xattr::is_carried(name));
        if let Some(name) = refused {
            return Err(GateError::new(ErrorKind::InvalidName, "write extended attribute", OsStr::from_bytes(name)));
        }
        let now = self.stat()?;
        if now.uid != metadata.uid || now.gid != metadata.gid {
            self.write_owner(metadata.uid, metadata.gid)?;
        }
        for name in &metadata.remove {
            xattr::remove(&self.fd, name).map_err(|e| self.refine(e, "remove extended attribute of"))?;
        }
        if now.kind != Kind::Symlink {
            rustix::fs::chmod(proc_path(&self.fd), Mode::from_raw_mode(metadata.mode & 0o7777))
                .map_err(|e| self.refine(e, "change mode of"))?;
        }
        let (acls, others): (Vec<_>, Vec<_>) = metadata.set.iter().partition(|(name, _)| xattr::is_acl(name));
        for (name, value) in others.into_iter().chain(acls) {
            xattr::set(&self.fd, name, value).map_err(|e| self.refine_xattr(e, name))?;
        }
        Ok(())
    }

    /// Sets the modification time, in nanoseconds since 1970. The access time stays.
    ///
    /// # Errors
    /// `Immutable`, `Denied`, `ReadOnly`.
    pub fn set_mtime(&self, mtime_ns: i64) -> Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: mtime_ns.div_euclid(1_000_000_000),
                tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
            },
        };
        rustix::fs::utimensat(&self.fd, "", &times, AtFlags::EMPTY_PATH).map_err(|e| self.refine(e, "set time of"))
    }

    fn write_owner(&self, uid: u32, gid: u32) -> Result<()> {
        // All ones means "leave as it is" to the kernel and is no owner that a stat can answer.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(self.fail(Errno::INVAL, "change owner of"));
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(&self.fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.refine(e, "change owner of"))
    }

    /// Tells "marked immutable" from "not allowed".
    fn refine(&self, errno: Errno, operation: &'static str) -> GateError {
        let error = self.fail(errno, operation);
        let immutable = error.kind() == ErrorKind::Denied && statx_fd(&self.fd).is_ok_and(|x| is_immutable(&x));
        if immutable { error.with_kind(ErrorKind::Immutable) } else { error }
    }

    /// Tells "no room for this attribute" from "volume full": file systems answer both with the same errno.
    fn refine_xattr(&self, errno: Errno, attribute: &[u8]) -> GateError {
        let error = self.refine(errno, "write extended attribute of");
        let too_large = match errno {
            Errno::TOOBIG | Errno::RANGE => true,
            Errno::NOSPC => rustix::fs::fstatvfs(&self.fd).is_ok_and(|s| s.f_bavail > 0),
            _ => false,
        };
        match (too_large, xattr::is_acl(attribute)) {
            (true, true) => error.with_kind(ErrorKind::AclTooLarge),
            (true, false) => error.with_kind(ErrorKind::NoSpaceForXattr),
            (false, _) => error,
        }
    }

    /// How it was opened, for messages.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    pub(super) fn fail(&self, errno: Errno, operation: &'static str) -> GateError {
        GateError::from_errno(errno, operation, self.name())
    }
}

impl AsFd for Inode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
