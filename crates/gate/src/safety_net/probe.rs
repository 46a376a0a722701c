//! Tries with one file whether the kernel refuses to open a stub that nobody guards.

use std::fs::File;

use rustix::fs::{CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::{Kernel, NetUnavailable};
use crate::error::ErrorKind;
use crate::link::VolumeId;
use crate::sys;
use crate::volume::{STUB_RECORD_XATTR, proc_path};

/// Why stubs without a guard are not refused here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetFailure {
    /// The kernel does not do it.
    #[error(transparent)]
    Unavailable(#[from] NetUnavailable),
    /// The file itself cannot be worked with.
    #[error("the file for the trial: {0}")]
    File(ErrorKind),
    /// All is in place, and the file was opened.
    #[error("a file was opened all the same")]
    NotRefused,
    /// A file without a record was refused.
    #[error("a file that is whole was refused")]
    AllRefused,
}

/// Spreads a net under the file system of `file`, which is open for reading and writing and nobody else's, for as long as this takes,
/// and opens it without and with a record.
///
/// # Errors
/// [`NetFailure`].
pub fn probe(file: &File) -> Result<(), NetFailure> {
    let failed = |errno: Errno| NetFailure::File(errno.into());
    let kernel = Kernel::look()?;
    let id = VolumeId(sys::fs_id::of(file).map_err(failed)?);
    let net = kernel.attach(&[id])?;
    let open = || rustix::fs::openat(CWD, proc_path(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    if open().is_err_and(|errno| errno == Errno::IO) {
        return Err(NetFailure::AllRefused);
    }
    rustix::fs::fsetxattr(file, STUB_RECORD_XATTR, b"trial", XattrFlags::empty()).map_err(failed)?;
    let with_record = open().map(drop);
    drop(net);
    match with_record {
        Err(Errno::IO) => Ok(()),
        Ok(()) => Err(NetFailure::NotRefused),
        Err(errno) => Err(failed(errno)),
    }
}
