//! From asking about a whole file system to asking about stubs alone, so that all other files are as fast as without a gate.
//!
//! Users work all the while. **Invariant:** the file system's mark goes only when every stub has a mark of its own, and everything
//! that becomes one from then on gets it first.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::guarded::Guarded;
use crate::FileHandle;
use crate::guard::GuardUnavailable;
use crate::link::Guarding;
use crate::sys;
use crate::volume::listed;

/// What a marked inode takes of the kernel's memory, in bytes; measured.
const MARK_BYTES: u64 = 1_300;
/// Part of the machine's memory that marks may take where nobody has said otherwise (DESIGN 7.3).
const MEMORY_SHARE: u64 = 10;
/// A file with a lease is tried again after this time, and given up after that.
const LEASED: Duration = Duration::from_millis(20);
const LEASED_MAX: Duration = Duration::from_secs(10);

impl Guarded {
    /// Whether an agent has to mark what may become a stub: then, or later, the file system's mark goes.
    pub(super) fn wants_marks(&self) -> bool {
        match self.listed().settings.guard {
            Guarding::FileSystem => false,
            Guarding::Inode => true,
            // The files of a snapshot are inodes of their own, which have no marks.
            Guarding::Auto => !self.has_snapshots(),
        }
    }

    fn has_snapshots(&self) -> bool {
        /// `BTRFS_SUPER_MAGIC` of `linux/magic.h`.
        const BTRFS: u64 = 0x9123_683e;
        // Where it cannot be told it may have some.
        rustix::fs::fstatfs(self.mounted().top()).map_or(true, |fs| fs.f_type as u64 & 0xffff_ffff == BTRFS)
    }

    /// Marks all stubs, on a thread of its own. Only with an agent: it keeps the list, and marks what it makes a stub from now on.
    pub(super) fn arm(self: &Arc<Self>, agent: u64) {
        if !self.wants_marks() || self.is_by_inode() {
            return;
        }
        let volume = Arc::clone(self);
        std::thread::spawn(move || {
            let (path, begun) = (volume.listed().settings.path.display().to_string(), Instant::now());
            match volume.mark_stubs(agent) {
                Ok(Some(marked)) => {
                    let took = begun.elapsed().as_millis() as u64;
                    tracing::info!(path, marked, took, "Only tiered files are asked about from now on");
                }
                Ok(None) => tracing::info!(path, "The whole file system goes on being asked about"),
                Err(error) => tracing::warn!(path, %error, "The whole file system goes on being asked about"),
            }
        });
    }

    /// How many were marked; none if the file system's mark has to stay.
    fn mark_stubs(&self, agent: u64) -> Result<Option<usize>, GuardUnavailable> {
        let Some(stubs) = listed(self.mounted().top()) else { return Ok(None) };
        if self.listed().settings.guard == Guarding::Auto && stubs.len() as u64 > marks_in_memory() {
            return Ok(None);
        }
        let mut marked = 0;
        for stub in &stubs {
            // Nobody waits for this lock but who detaches the volume.
            // What has no record may be about to get one, by an agent that marked it at another gate.
            let Some(file) = self.open_for_mark(stub)? else { continue };
            self.group().guard_file(&file)?;
            marked += 1;
        }
        let link = self.agent();
        // Another agent has another list.
        if self.has_ended() || link.as_ref().is_none_or(|link| link.number != agent) {
            return Ok(None);
        }
        self.group().release_file_system(self.mounted().top())?;
        self.set_by_inode();
        Ok(Some(marked))
    }
}

impl Guarded {
    /// None if it is gone, and needs no mark.
    fn open_for_mark(&self, stub: &FileHandle) -> Result<Option<OwnedFd>, GuardUnavailable> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME | libc::O_CLOEXEC;
        let begun = Instant::now();
        loop {
            match sys::handle::open_handle(self.mounted().top(), stub.handle_type(), stub.raw(), flags) {
                Ok(file) => return Ok(Some(file)),
                Err(Errno::STALE | Errno::NOENT) => return Ok(None),
                // Somebody has a lease on it for a moment, such as the agent that looks whether it is in use.
                Err(Errno::AGAIN) if begun.elapsed() < LEASED_MAX => std::thread::sleep(LEASED),
                Err(errno) => return Err(GuardUnavailable::Other(errno.into())),
            }
        }
    }
}

/// How many marks fit into the share of this machine's memory.
fn marks_in_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024 / MEMORY_SHARE / MARK_BYTES)
}
