//! The product's own folder on an endpoint's volume, where new content is made before it gets a place.
//!
//! It decides nothing about what is in it. Invariant: only this process's user can look into or change the folder, so
//! what was put there is what is found there.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags, XattrFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Dir, Inode, Root, STUB_RECORD_XATTR, check_name, open_beneath};
use crate::error::{ErrorKind, GateError, Result};
use crate::{Kind, Stat};

/// Name of the product's own folder inside an endpoint root; never part of a namespace.
pub const STAGE_DIR: &str = ".isotherm";

/// Name of the folder for content in the making, inside [`STAGE_DIR`].
const STAGING: &str = "staging";

/// The open staging folder of an endpoint root.
#[derive(Debug)]
pub struct Staging {
    home: Dir,
    dir: Dir,
}

/// A file in staging, open for writing.
#[derive(Debug)]
pub struct StagedFile {
    inode: Inode,
    name: OsString,
}

impl Root {
    /// Opens `.isotherm/staging`, which is made if missing.
    ///
    /// # Errors
    /// `Untrusted` if either folder belongs to somebody else; `Symlink` or `NotDirectory` if something else stands
    /// there; `CrossDevice` if something is mounted there; `NoSpace`, `ReadOnly`, `Denied`.
    pub fn staging(&self) -> Result<Staging> {
        let home = open_own(self.dir(), OsStr::new(STAGE_DIR))?;
        let dir = open_own(&home, OsStr::new(STAGING))?;
        Ok(Staging { home, dir })
    }
}

impl Staging {
    /// The staging folder, for renames into and out of it.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The folder above it ([`STAGE_DIR`]), for the marker of the endpoint root.
    pub fn home(&self) -> &Dir {
        &self.home
    }

    /// Makes an empty file, mode 0600. The caller sees to it that names are unique.
    ///
    /// # Errors
    /// `Exists`, `NoSpace`, `ReadOnly`, `InvalidName`.
    pub fn create(&self, name: &str) -> Result<StagedFile> {
        self.open_with("create staged file", name, OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a file that an earlier run left here.
    ///
    /// # Errors
    /// `NotFound`, `NotRegular`, `Symlink`, `IsDirectory`.
    pub fn open(&self, name: &str) -> Result<StagedFile> {
        let file = self.open_with("open staged file", name, OFlags::empty())?;
        if file.stat()?.kind != Kind::File {
            return Err(GateError::new(ErrorKind::NotRegular, "open staged file", name));
        }
        Ok(file)
    }

    /// Names of everything in staging, sorted.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn list(&self) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.dir.list(|entry| names.push(entry.name.to_owned()))?;
        names.sort();
        Ok(names)
    }

    /// Removes one thing from staging: a file, a symlink or an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`, `Immutable`.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        match self.dir.unlink(name) {
            Err(error) if error.kind() == ErrorKind::IsDirectory => self.dir.rmdir(name),
            answer => answer,
        }
    }

    /// A file without a name, gone when its descriptor is closed.
    pub(super) fn unnamed(&self) -> Result<OwnedFd> {
        open_beneath(&self.dir, OsStr::new("."), OFlags::RDWR | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.dir.fail(e, "make unnamed file in"))
    }

    fn open_with(&self, operation: &'static str, name: &str, flags: OFlags) -> Result<StagedFile> {
        let name = OsStr::new(name);
        check_name(operation, name)?;
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
        let fd = open_beneath(&self.dir, name, flags, mode).map_err(|e| GateError::from_errno(e, operation, name))?;
        Ok(StagedFile { inode: Inode::new(fd, name), name: name.to_owned() })
    }
}

impl StagedFile {
    /// Its name in staging when it was opened.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The same file for its metadata.
    pub fn inode(&self) -> &Inode {
        &self.inode
    }

    /// Reads bytes from an offset until the buffer is full or the file ends; gives how many.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let (rest, at) = (&mut buffer[filled..], offset + filled as u64);
            match retry_on_intr(|| rustix::io::pread(&self.inode, &mut *rest, at)).map_err(|e| self.fail(e, "read"))? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// State now.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn stat(&self) -> Result<Stat> {
        self.inode.stat()
    }

    /// Writes all of `bytes` at `offset`. What is never written stays a hole.
    ///
    /// # Errors
    /// `NoSpace`, `TooLarge`, or a failure of the volume; part of the bytes may be written then.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            let written = retry_on_intr(|| rustix::io::pwrite(&self.inode, bytes, offset)).map_err(|e| self.fail(e, "write"))?;
            if written == 0 {
                return Err(self.fail(Errno::IO, "write"));
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Sets the length; new bytes are a hole.
    ///
    /// # Errors
    /// `TooLarge`, or a failure of the volume.
    pub fn set_len(&self, len: u64) -> Result<()> {
        retry_on_intr(|| rustix::fs::ftruncate(&self.inode, len)).map_err(|e| self.fail(e, "set length of"))
    }

    /// Gives up the blocks of a range; it reads as zeros afterwards. The length stays.
    ///
    /// # Errors
    /// `Unsupported`, `Io(EINVAL)` for a length of 0, or a failure of the volume.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry_on_intr(|| rustix::fs::fallocate(&self.inode, mode, offset, len)).map_err(|e| self.fail(e, "punch"))
    }

    /// Makes it a stub: its length stays, and its content is to come from elsewhere.
    ///
    /// # Errors
    /// `NoSpaceForXattr`, `Denied`, or a failure of the volume.
    pub fn set_stub_record(&self, record: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(&self.inode, STUB_RECORD_XATTR, record, XattrFlags::empty())
            .map_err(|e| self.fail(e, "write the stub record of"))
    }

    /// Makes content and metadata durable (not its name; see [`Dir::sync`] and [`Root::sync`]).
    ///
    /// # Errors
    /// A failure of the volume, after which the content may not be trusted.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.inode).map_err(|e| self.fail(e, "sync"))
    }

    fn fail(&self, errno: Errno, operation: &'static str) -> GateError {
        GateError::from_errno(errno, operation, &self.name)
    }
}

/// Opens a folder that is ours alone, made if missing.
fn open_own(parent: &Dir, name: &OsStr) -> Result<Dir> {
    let dir = match parent.open_dir(name) {
        // Only then: also making what is there already waits while the volume is frozen.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            match parent.mkdir(name, 0o700) {
                Err(error) if error.kind() != ErrorKind::Exists => return Err(error),
                _ => {}
            }
            parent.open_dir(name)?
        }
        opened => opened?,
    };
    let stat = dir.stat_self()?;
    if stat.uid != rustix::process::geteuid().as_raw() {
        return Err(GateError::new(ErrorKind::Untrusted, "use as staging", name));
    }
    // A default ACL of the parent may have given it more than was asked for.
    if stat.mode & 0o077 != 0 {
        rustix::fs::fchmod(dir.as_fd(), Mode::RWXU).map_err(|e| GateError::from_errno(e, "protect", name))?;
    }
    Ok(dir)
}
