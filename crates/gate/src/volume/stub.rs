//! The hands of tiering and recall: the record on a file, and its content being filled in and given up.
//!
//! It decides nothing and orders nothing; what must be durable before what is the business of the callers. All of it goes
//! through the root's own mount, about which a gate does not ask. **Invariant:** nothing here but [`StubFile::set_len`] changes a
//! file's length.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, SeekFrom, XattrFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Inode, STUB_RECORD_XATTR, proc_path, xattr};
use crate::error::{ErrorKind, GateError, Result};
use crate::{Kind, Stat, sys};

/// Where Samba keeps DOS attributes.
const DOS_XATTR: &str = "user.DOSATTRIB";

/// Whether an open file has a record, whatever it says.
pub(crate) fn has_record(fd: impl AsFd) -> std::result::Result<bool, Errno> {
    xattr::is_present(fd, STUB_RECORD_XATTR)
}

/// A regular file, open for being made a stub or whole.
#[derive(Debug)]
pub struct StubFile {
    fd: OwnedFd,
    name: Vec<u8>,
}

impl StubFile {
    /// Opens the file of an inode. Waits for nobody: a file under somebody's lease is `Busy`.
    ///
    /// # Errors
    /// `NotRegular`, `Busy`, `Denied`, `ReadOnly`, or a failure of the volume.
    pub fn open(inode: &Inode) -> Result<Self> {
        Self::open_for(inode, OFlags::RDWR, "open for tiering")
    }

    /// Opens it for looking at it, flushing it and taking its record away; also a program that runs, which nobody can open for
    /// writing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_look(inode: &Inode) -> Result<Self> {
        Self::open_for(inode, OFlags::RDONLY, "open for a look")
    }

    fn open_for(inode: &Inode, access: OFlags, operation: &'static str) -> Result<Self> {
        // Looked at before it is opened: opening a device can have effects.
        if inode.stat()?.kind != Kind::File {
            return Err(GateError::new(ErrorKind::NotRegular, operation, inode.name()));
        }
        let flags = access | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(CWD, proc_path(inode), flags, Mode::empty()));
        let fd = fd.map_err(|errno| GateError::from_errno(errno, operation, inode.name()))?;
        Ok(Self { fd, name: inode.name().as_bytes().to_vec() })
    }

    /// Its state.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn stat(&self) -> Result<Stat> {
        Stat::of(&self.fd).map_err(|errno| self.fail(errno, "look at"))
    }

    /// Whether any of its content is on the disk, be it zeros.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn has_data(&self) -> Result<bool> {
        match rustix::fs::seek(&self.fd, SeekFrom::Data(0)) {
            Ok(_) => Ok(true),
            Err(Errno::NXIO) => Ok(false),
            Err(errno) => Err(self.fail(errno, "look for content of")),
        }
    }

    /// Takes the file for this descriptor alone; false if somebody else has it open or mapped, or is about to. To be asked when
    /// whoever opens it from now on waits; whoever does not waits all the same, until [`Self::let_others_in`] or the end of this.
    ///
    /// # Errors
    /// `Unsupported` on file systems without leases, or a failure of the volume.
    pub fn take_alone(&self) -> Result<bool> {
        sys::lease::take_write_lease(&self.fd).map_err(|errno| self.fail(errno, "probe users of"))
    }

    /// Lets everybody in again.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn let_others_in(&self) -> Result<()> {
        sys::lease::give_back(&self.fd).map_err(|errno| self.fail(errno, "let others use"))
    }

    /// Its record, if it has one.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn record(&self) -> Result<Option<Vec<u8>>> {
        xattr::stub_record(&self.fd).map_err(|errno| self.fail(errno, "read the stub record of"))
    }

    /// Gives it a record, or another one.
    ///
    /// # Errors
    /// `NoSpaceForXattr`, `Denied`, or a failure of the volume.
    pub fn set_record(&self, record: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(&self.fd, STUB_RECORD_XATTR, record, XattrFlags::empty())
            .map_err(|errno| self.fail(errno, "write the stub record of"))
    }

    /// Takes its record away; none is no error.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn remove_record(&self) -> Result<()> {
        match rustix::fs::fremovexattr(&self.fd, STUB_RECORD_XATTR) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(self.fail(errno, "remove the stub record of")),
        }
    }

    /// What Samba keeps of it for clients (`user.DOSATTRIB`), if it has that.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn dos_attributes(&self) -> Result<Option<Vec<u8>>> {
        xattr::value_if_any(&self.fd, DOS_XATTR).map_err(|errno| self.fail(errno, "read the attributes of"))
    }

    /// Replaces that.
    ///
    /// # Errors
    /// `NoSpaceForXattr`, `Denied`, or a failure of the volume.
    pub fn set_dos_attributes(&self, value: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(&self.fd, DOS_XATTR, value, XattrFlags::REPLACE)
            .map_err(|errno| self.fail(errno, "write the attributes of"))
    }

    /// Writes content. Not beyond the end: what is there must have its length already.
    ///
    /// # Errors
    /// `NoSpace`, or a failure of the volume; some of it may have been written.
    pub fn fill(&self, offset: u64, content: &[u8]) -> Result<()> {
        let mut written = 0;
        while written < content.len() {
            let rest = &content[written..];
            let more = retry_on_intr(|| rustix::io::pwrite(&self.fd, rest, offset + written as u64));
            match more.map_err(|errno| self.fail(errno, "fill"))? {
                0 => return Err(self.fail(Errno::IO, "fill")),
                more => written += more,
            }
        }
        Ok(())
    }

    /// Where the next content on the disk begins, be it zeros; none where there is no more.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn next_data(&self, from: u64) -> Result<Option<u64>> {
        match rustix::fs::seek(&self.fd, SeekFrom::Data(from)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(self.fail(errno, "look for content of")),
        }
    }

    /// What is there now; zeros where nothing is.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn read_at(&self, offset: u64, found: &mut [u8]) -> Result<()> {
        let mut read = 0;
        while read < found.len() {
            let rest = &mut found[read..];
            match retry_on_intr(|| rustix::io::pread(&self.fd, &mut *rest, offset + read as u64)) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(errno) => return Err(self.fail(errno, "read back")),
            }
        }
        found[read..].fill(0);
        Ok(())
    }

    /// Gives up all of its content; its length stays. A record that stands for it has to be durable by now.
    ///
    /// # Errors
    /// `Unsupported`, or a failure of the volume.
    pub fn give_up(&self) -> Result<()> {
        let size = self.stat()?.size;
        if size == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Beyond the end too: the last block is given up only as a whole.
        let len = size.next_multiple_of(1 << 16);
        rustix::fs::fallocate(&self.fd, flags, 0, len).map_err(|errno| self.fail(errno, "give up the content of"))
    }

    /// Puts a length right that somebody has changed while nothing of the content was here.
    ///
    /// # Errors
    /// `NoSpace`, or a failure of the volume.
    pub fn set_len(&self, size: u64) -> Result<()> {
        retry_on_intr(|| rustix::fs::ftruncate(&self.fd, size)).map_err(|errno| self.fail(errno, "set the length of"))
    }

    /// Whether this byte is there; none is where the file does not reach.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn holds(&self, offset: u64, byte: u8) -> Result<bool> {
        let mut found = [0];
        let read = retry_on_intr(|| rustix::io::pread(&self.fd, &mut found, offset));
        Ok(read.map_err(|errno| self.fail(errno, "read back"))? == 1 && found == [byte])
    }

    /// Makes content, length and record durable.
    ///
    /// # Errors
    /// A failure of the volume; nothing is known to be durable then.
    pub fn flush(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|errno| self.fail(errno, "flush"))
    }

    pub(super) fn label(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    pub(super) fn fail(&self, errno: Errno, operation: &'static str) -> GateError {
        GateError::from_errno(errno, operation, self.label())
    }
}

impl AsFd for StubFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
