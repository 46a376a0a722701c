//! What a file has on this machine alone, when another inode takes its place: labels, attributes of the administrator, and
//! the project that its directory belongs to.
//!
//! None of it is synced. **Invariant:** neither content nor what is synced is touched.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Dir, Inode, proc_path, xattr};
use crate::error::{GateError, Result};
use crate::sys::project;

impl Inode {
    /// Takes over from the inode that this one replaces what belongs to this machine: labels of security modules and
    /// `trusted.*`. Capabilities are left: a program that was replaced has to be given them again, as after any write.
    ///
    /// # Errors
    /// A failure of the volume, also for want of room.
    pub fn take_local_attributes(&self, from: &Self) -> Result<()> {
        let fail = |errno| GateError::from_errno(errno, "copy local attributes to", self.name());
        for (name, value) in xattr::read_local(from.as_fd()).map_err(fail)? {
            xattr::set(self.as_fd(), &name, &value).map_err(fail)?;
        }
        Ok(())
    }

    /// Gives this file or directory to the project of a directory that takes nothing else in. Answers whether that changed
    /// anything; false also where there are no projects.
    ///
    /// # Errors
    /// A failure of the volume, such as the project's quota.
    pub fn join_project(&self, dir: &Dir) -> Result<bool> {
        let fail = |errno| GateError::from_errno(errno, "give a project to", self.name());
        let Some(wanted) = reopen(dir.as_fd()).and_then(project::inherited).map_err(fail)? else { return Ok(false) };
        match reopen(self.as_fd()) {
            Ok(own) => project::give_to(own, wanted).map_err(fail),
            // A symlink cannot be opened, so its project cannot be changed.
            Err(Errno::LOOP | Errno::NXIO) => Ok(false),
            Err(errno) => Err(fail(errno)),
        }
    }
}

fn reopen(fd: impl AsFd) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::openat(CWD, proc_path(fd.as_fd()), flags, Mode::empty()))
}
