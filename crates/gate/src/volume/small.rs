//! Small files of the product itself, such as the marker of an endpoint root: read whole, replaced whole.
//!
//! Not for user files. Invariant: after a crash the old or the new content is there, never a mixture.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, check_name, open_beneath};
use crate::error::{ErrorKind, GateError, Result};
use crate::stat::statx_fd;

impl Dir {
    /// Writes the file `name` (mode 0600) whole and durably. A half-written `name.new` of an earlier crash is replaced.
    ///
    /// # Errors
    /// `NoSpace`, `ReadOnly`, `Immutable`, `Denied`, `IsDirectory`; the old content is still there then.
    pub fn write_small(&self, name: &OsStr, content: &[u8]) -> Result<()> {
        let operation = "write";
        let mut fresh = OsString::from(name);
        fresh.push(".new");
        check_name(operation, name)?;
        check_name(operation, &fresh)?;
        match self.unlink(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd =
            open_beneath(self, &fresh, flags, Mode::RUSR | Mode::WUSR).map_err(|e| GateError::from_errno(e, operation, name))?;
        let mut file = File::from(fd);
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let renamed = written.map_err(|e| io_error(&e, operation, name)).and_then(|()| self.rename_replace(&fresh, name));
        if let Err(error) = renamed {
            // Best effort: the next call removes it too.
            let _ = self.unlink(&fresh);
            return Err(error);
        }
        self.sync()
    }

    /// Reads the regular file `name` whole; `None` if there is no such name.
    ///
    /// # Errors
    /// `TooLarge` if it has more than `bytes_max` bytes, `NotRegular`, `Symlink`, or a failure of the volume.
    pub fn read_small(&self, name: &OsStr, bytes_max: usize) -> Result<Option<Vec<u8>>> {
        let operation = "read";
        check_name(operation, name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match open_beneath(self, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(GateError::from_errno(errno, operation, name)),
        };
        let x = statx_fd(&fd).map_err(|e| GateError::from_errno(e, operation, name))?;
        if !rustix::fs::FileType::from_raw_mode(u32::from(x.stx_mode)).is_file() {
            return Err(GateError::new(ErrorKind::NotRegular, operation, name));
        }
        let mut content = Vec::new();
        let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        File::from(fd).take(bound).read_to_end(&mut content).map_err(|e| io_error(&e, operation, name))?;
        if content.len() > bytes_max {
            return Err(GateError::new(ErrorKind::TooLarge, operation, name));
        }
        Ok(Some(content))
    }
}

fn io_error(error: &std::io::Error, operation: &'static str, name: &OsStr) -> GateError {
    GateError::from_errno(Errno::from_io_error(error).unwrap_or(Errno::IO), operation, name)
}
