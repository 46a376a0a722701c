//! From asking about a whole file system to asking about stubs alone, so that all other files are as fast as without a gate.
//!
//! Users work all the while. **Invariant:** the file system's mark goes only when every stub has a mark of its own, and everything
//! that becomes one from then on gets it first.

use std::sync::Arc;
use std::time::Instant;

use super::guarded::Guarded;
use crate::guard::GuardUnavailable;
use crate::link::Guarding;
use crate::sys;
use crate::volume::listed;

/// What a marked inode takes of the kernel's memory, in bytes; measured.
const MARK_BYTES: u64 = 1_300;
/// Part of the machine's memory that marks may take where nobody has said otherwise (DESIGN 7.3).
const MEMORY_SHARE: u64 = 10;

impl Guarded {
    /// Whether an agent has to mark what may become a stub: then, or later, the file system's mark goes.
    pub(super) fn wants_marks(&self) -> bool {
        self.listed().settings.guard != Guarding::FileSystem
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
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME | libc::O_CLOEXEC;
        let mut marked = 0;
        for stub in &stubs {
            // Nobody waits for this lock but who detaches the volume.
            let opened = sys::handle::open_handle(self.mounted().top(), stub.handle_type(), stub.raw(), flags);
            // What is gone needs none. What has no record may be about to get one, by an agent that marked it at another gate.
            let Ok(file) = opened else { continue };
            self.group().guard_file(&file)?;
            marked += 1;
        }
        let link = self.agent();
        // Another agent has another list.
        if link.as_ref().is_none_or(|link| link.number != agent) {
            return Ok(None);
        }
        self.group().release_file_system(self.mounted().top())?;
        self.set_by_inode();
        Ok(Some(marked))
    }
}

/// How many marks fit into the share of this machine's memory.
fn marks_in_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024 / MEMORY_SHARE / MARK_BYTES)
}
