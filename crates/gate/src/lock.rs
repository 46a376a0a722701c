//! One process at a time for a state folder: an exclusive lock on a file, freed by the kernel when the process ends.
//!
//! It does not guard against a lock file that is deleted under it; the folder is root's alone. Invariant: the lock
//! file is never removed, so that two processes cannot lock two files of one name.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// An exclusive lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
    path: PathBuf,
}

/// Why a lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, or another part of this one, has it.
    #[error("'{path}' is locked by {who}", path = path.display(), who = holder.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Process number of the holder as it wrote it down, if readable.
        holder: Option<u32>,
    },
    /// The lock file could not be opened or locked.
    #[error("Cannot lock '{path}': {source}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Takes the lock of the file `path`, which is made if missing, without waiting.
///
/// # Errors
/// [`LockError::Held`] if somebody has it; [`LockError::Io`] if the file cannot be made or is a symlink.
pub fn lock_exclusive(path: &Path) -> Result<StateLock, LockError> {
    let io = |source| LockError::Io { path: path.to_owned(), source };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(LockError::Held { path: path.to_owned(), holder: read_holder(&mut file) }),
        Err(errno) => return Err(io(errno.into())),
    }
    // The number is a courtesy for error messages; the lock itself is the kernel's.
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(StateLock { _file: file, path: path.to_owned() })
}

impl StateLock {
    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn second_holder_is_refused_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = lock_exclusive(&path).unwrap();
        match lock_exclusive(&path) {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        lock_exclusive(&path).unwrap();
    }

    #[test]
    fn a_symlink_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(lock_exclusive(&path), Err(LockError::Io { .. })));
    }
}
