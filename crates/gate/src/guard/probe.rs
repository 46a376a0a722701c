//! Tries with one file whether content can be guarded here: a reader has to wait until its content is there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::group::{Group, GuardError, GuardUnavailable, Touch};
use crate::error::ErrorKind;
use crate::volume::proc_path;

/// What the reader has to get, and how much of it there is, in bytes.
const CONTENT: [u8; 8_192] = [0xA5; 8_192];
/// The kernel asks at once, if at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why content cannot be guarded, or is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// The kernel refuses.
    #[error(transparent)]
    Unavailable(#[from] GuardUnavailable),
    /// Its questions cannot be read.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The file itself cannot be worked with.
    #[error("the file for the trial: {0}")]
    File(ErrorKind),
    /// A reader went on without being asked about, or got something else.
    #[error("a reader did not wait for its content")]
    NotAsked,
}

/// Guards `file`, which is empty, open for reading and writing and nobody else's, and reads it as a stranger would.
///
/// # Errors
/// [`ProbeFailure`]: then there must be no stubs on this file system.
pub fn probe(file: &File) -> Result<(), ProbeFailure> {
    let failed = |errno: Errno| ProbeFailure::File(errno.into());
    rustix::fs::ftruncate(file, CONTENT.len() as u64).map_err(failed)?;
    let group = Group::new()?;
    group.guard_file(reopen(file).map_err(failed)?)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| reopen(file).map(|opened| read(&File::from(opened))));
        let asked = answer(&group, file, || reader.is_finished());
        // Without a holder the kernel lets everybody through, also a reader that was not understood.
        drop(group);
        let seen = reader.join().map_err(|_| ProbeFailure::NotAsked)?.map_err(failed)?;
        if asked? && seen == CONTENT { Ok(()) } else { Err(ProbeFailure::NotAsked) }
    })
}

fn reopen(file: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, proc_path(file.as_fd()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn read(mut file: &File) -> Vec<u8> {
    let mut seen = Vec::new();
    // What was not read is missing, and missed.
    let _ = file.read_to_end(&mut seen);
    seen
}

/// Fills the file when its opening is asked about; answers whether it was.
fn answer(group: &Group, file: &File, ended: impl Fn() -> bool) -> Result<bool, ProbeFailure> {
    let until = Instant::now() + PATIENCE;
    let mut asked = false;
    while !ended() && Instant::now() < until {
        let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        // Woken or not, the next read tells.
        let _ = poll(&mut [PollFd::new(group, PollFlags::IN)], Some(&moment));
        for question in group.read()? {
            if question.touch == Touch::Open {
                rustix::io::pwrite(file, &CONTENT, 0).map_err(|errno| ProbeFailure::File(errno.into()))?;
                asked = true;
            }
            question.allow();
        }
    }
    Ok(asked)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::on_each_fs;

    #[test]
    fn content_can_be_guarded_on_the_three_file_systems() {
        on_each_fs(64, |volume| {
            let file = File::options().read(true).write(true).create_new(true).open(volume.path().join("trial")).unwrap();
            probe(&file).unwrap();
        });
    }

    #[test]
    fn a_file_system_that_takes_no_part_is_named() {
        let folder = tempfile::Builder::new().tempdir_in("/dev/shm");
        let (Ok(folder), true) = (folder, crate::effective_root()) else { return };
        let file = File::options().read(true).write(true).create_new(true).open(folder.path().join("trial")).unwrap();
        assert_eq!(probe(&file), Err(ProbeFailure::Unavailable(GuardUnavailable::FileSystem)));
    }
}
