//! The only way to read the content of user files, for upload, hashing and comparison.
//!
//! It does not write, and does not fetch what is absent: a stub is refused. Invariant: bytes that a caller keeps after
//! [`ContentReader::finish`] answered `Unchanged` are the whole local content of one moment, never the holes of a
//! stub: no stub record was there before and after, on the descriptor that was read.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use super::{Dir, Inode, Root, Staging, proc_path, xattr};
use crate::error::{ErrorKind, GateError, Result};
use crate::{FileHandle, Kind, Stat, sys};

/// Extended attribute that makes a file a stub; its format is the business of others.
pub const STUB_RECORD_XATTR: &str = "security.bpf.isotherm";

/// How often a snapshot of a file that is being written is tried to fall between two writes.
const SNAPSHOT_TRIES: usize = 3;

/// A regular file, open for reading, that was not a stub when reading began.
#[derive(Debug)]
pub struct ContentReader {
    fd: OwnedFd,
    name: Vec<u8>,
    before: Stat,
    position: u64,
}

/// A stretch of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Bytes to be read.
    Data {
        /// First byte.
        offset: u64,
        /// Number of bytes, at least 1.
        len: u64,
    },
    /// Zeros that take no space.
    Hole {
        /// First byte.
        offset: u64,
        /// Number of bytes, at least 1.
        len: u64,
    },
}

/// What became of a file while it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Same inode, size, mtime and ctime as before: what was read is one version.
    Unchanged(Stat),
    /// Something changed: what was read may be a mixture.
    Changed,
}

/// The content of a file at one moment, in a file of its own.
#[derive(Debug)]
pub struct Snapshot {
    /// Reads the copy; its state is that of the copy, not of the file.
    pub reader: ContentReader,
    /// State of the file just before the moment of the copy. If the file was written to at that very moment the mtime
    /// is the older one, so that the next look sees a change.
    pub source: Stat,
}

impl ContentReader {
    /// Begins to read an open inode. Waits for nobody: a file under somebody's lease is `Busy`.
    ///
    /// # Errors
    /// `NotRegular`, `IsStub`, `Busy`, `Denied`, or a failure of the volume.
    pub fn open(inode: &Inode) -> Result<Self> {
        let operation = "read";
        // Looked at before it is opened: opening a device can have effects.
        if inode.stat()?.kind != Kind::File {
            return Err(GateError::new(ErrorKind::NotRegular, operation, inode.name()));
        }
        let fd = reopen(inode.as_fd()).map_err(|e| inode.fail(e, operation))?;
        Self::begun(fd, inode.name())
    }

    /// Begins to read the file `name` of `dir`.
    ///
    /// # Errors
    /// As [`Self::open`], and `NotFound`.
    pub fn open_named(dir: &Dir, name: &OsStr) -> Result<Self> {
        Self::open(&dir.inode(name)?)
    }

    /// Begins to read the file of a handle, whatever its name.
    ///
    /// # Errors
    /// As [`Self::open`], and `Stale`.
    pub fn open_handle(root: &Root, handle: &FileHandle) -> Result<Self> {
        Self::open(&root.inode(handle)?)
    }

    /// As [`Self::open`], just after [`Root::sync`]: a file that nobody has open or mapped for writing is not flushed
    /// once more. Many small files are read like this after one sync of their volume.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_after_sync(inode: &Inode) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        if inode.has_writer().unwrap_or(true) {
            return Self::open(inode);
        }
        let fd = reopen(inode.as_fd()).map_err(|e| inode.fail(e, "read"))?;
        refuse_stub(&fd, inode.name())?;
        let before = Stat::of(&fd).map_err(|e| inode.fail(e, "begin to read"))?;
        Ok(Self { fd, name: inode.name().as_bytes().to_vec(), before, position: 0 })
    }

    fn begun(fd: OwnedFd, name: &OsStr) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let before = begin(&fd, name)?;
        Ok(Self { fd, name: name.as_bytes().to_vec(), before, position: 0 })
    }

    /// Begins again on the same open file, after it changed.
    ///
    /// # Errors
    /// `IsStub`, or a failure of the volume.
    pub fn begin(&mut self) -> Result<&Stat> {
        self.before = begin(&self.fd, self.label())?;
        self.position = 0;
        Ok(&self.before)
    }

    /// State when reading began, after everything written until then was made durable. A store through a mapping that
    /// comes later moves mtime and ctime, because the flush made the pages read-only.
    pub fn before(&self) -> &Stat {
        &self.before
    }

    /// The next stretch of content; `None` at the end. Stretches follow each other without gap up to the size in
    /// [`Self::before`]. Where the file system does not tell, all is data.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn next_extent(&mut self) -> Result<Option<Extent>> {
        let (offset, size) = (self.position, self.before.size);
        if offset >= size {
            return Ok(None);
        }
        let fail = |errno| GateError::from_errno(errno, "find extents of", self.label());
        let data = match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            // No data at or after the offset.
            Err(Errno::NXIO) => size,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => offset,
            answer => answer.map_err(fail)?.min(size),
        };
        let extent = if data > offset {
            self.position = data;
            Extent::Hole { offset, len: data - offset }
        } else {
            let hole = match rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)) {
                // The file shrank: the reader will see fewer bytes, and `finish` the change.
                Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
                answer => answer.map_err(fail)?.min(size),
            };
            // A hole made since the first question would stall the walk.
            let end = if hole > offset { hole } else { size };
            self.position = end;
            Extent::Data { offset, len: end - offset }
        };
        Ok(Some(extent))
    }

    /// Reads at most `buffer.len()` bytes at `offset`; fewer only at the end of the file or by the kernel's choice, 0
    /// only at the end.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        retry_on_intr(|| rustix::io::pread(&self.fd, &mut *buffer, offset)).map_err(|e| self.fail(e, "read"))
    }

    /// Ends a reading: says whether the file is still what it was when it began.
    ///
    /// # Errors
    /// `IsStub` if it became a stub meanwhile, or a failure of the volume; then nothing that was read may be used.
    pub fn finish(&self) -> Result<Finish> {
        refuse_stub(&self.fd, self.label())?;
        let after = Stat::of(&self.fd).map_err(|e| self.fail(e, "stat"))?;
        Ok(if self.before.content_may_differ(&after) { Finish::Changed } else { Finish::Unchanged(after) })
    }

    /// Whether nobody has the file open or mapped for writing at this moment. Asked before and after reading, it tells
    /// whether what was read may be tiered. False on a [`Snapshot`], which was opened for writing.
    ///
    /// # Errors
    /// `Denied` for a file of another user without the privilege; `Unsupported` on file systems without leases.
    pub fn lease_probe(&self) -> Result<bool> {
        sys::lease::probe_read_lease(&self.fd).map_err(|e| self.fail(e, "probe writers of"))
    }

    /// Copies the content of this moment by sharing blocks, for a file that never rests.
    ///
    /// # Errors
    /// `Unsupported` without reflinks (see [`Root::supports_reflink`]), `IsStub`, `NoSpace`.
    pub fn snapshot_to(&self, staging: &Staging) -> Result<Snapshot> {
        let operation = "snapshot";
        let copy = staging.unnamed()?;
        let stat = || Stat::of(&self.fd).map_err(|e| self.fail(e, operation));
        let mut source = stat()?;
        for attempt in 1..=SNAPSHOT_TRIES {
            // A clone over a longer earlier one would keep that one's tail.
            rustix::fs::ftruncate(&copy, 0).map_err(|e| self.fail(e, operation))?;
            rustix::fs::ioctl_ficlone(&copy, &self.fd).map_err(|errno| match errno {
                Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL => GateError::new(ErrorKind::Unsupported, operation, self.label()),
                errno => self.fail(errno, operation),
            })?;
            let after = stat()?;
            if attempt == SNAPSHOT_TRIES || !source.content_may_differ(&after) {
                break;
            }
            source = after;
        }
        refuse_stub(&self.fd, self.label())?;
        let reader = Self::begun(copy, self.label())?;
        Ok(Snapshot { reader, source })
    }

    fn label(&self) -> &OsStr {
        use std::os::unix::ffi::OsStrExt;
        OsStr::from_bytes(&self.name)
    }

    fn fail(&self, errno: Errno, operation: &'static str) -> GateError {
        GateError::from_errno(errno, operation, self.label())
    }
}

impl Inode {
    /// Whether somebody has the file open or mapped for writing at this moment. Waits for nobody.
    ///
    /// # Errors
    /// `NotRegular`; `Busy` under somebody's write lease; `Denied` for a file of another user without the privilege;
    /// `Unsupported` on file systems without leases.
    pub fn has_writer(&self) -> Result<bool> {
        let operation = "probe writers of";
        if self.stat()?.kind != Kind::File {
            return Err(GateError::new(ErrorKind::NotRegular, operation, self.name()));
        }
        let fd = reopen(self.as_fd()).map_err(|e| self.fail(e, operation))?;
        sys::lease::probe_read_lease(&fd).map(|free| !free).map_err(|e| self.fail(e, operation))
    }
}

/// Flush first, then look: see [`ContentReader::before`].
fn begin(fd: &OwnedFd, name: &OsStr) -> Result<Stat> {
    let fail = |errno| GateError::from_errno(errno, "begin to read", name);
    refuse_stub(fd, name)?;
    rustix::fs::fdatasync(fd).map_err(fail)?;
    Stat::of(fd).map_err(fail)
}

fn refuse_stub(fd: &OwnedFd, name: &OsStr) -> Result<()> {
    match xattr::is_present(fd, STUB_RECORD_XATTR) {
        Ok(false) => Ok(()),
        Ok(true) => Err(GateError::new(ErrorKind::IsStub, "read", name)),
        Err(errno) => Err(GateError::from_errno(errno, "look for a stub record on", name)),
    }
}

/// Opens for reading the very inode of a descriptor that may be `O_PATH`, without touching its access time if allowed.
fn reopen(fd: impl AsFd) -> std::result::Result<OwnedFd, Errno> {
    let path = proc_path(fd);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |flags| retry_on_intr(|| rustix::fs::openat(CWD, &path, flags, Mode::empty()));
    match open(flags | OFlags::NOATIME) {
        // Only owner and root may leave the access time alone.
        Err(Errno::PERM) => open(flags),
        answer => answer,
    }
}
