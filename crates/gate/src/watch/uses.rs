//! Uses of files: who has closed one that he had open for reading.
//!
//! A file that is used all the time is told of once in each span: after the first time a mark says that it need not be told again,
//! and all such marks go together. **Invariant:** nothing waits for this, and nothing that is lost does harm: files look colder then.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::group::{UnavailableReason, WatchUnavailable};
use super::parse::{InfoKind, parse_events};
use crate::volume::Root;
use crate::{FileHandle, sys};

/// What is told: a descriptor that could not write was closed. Writes show in the file's times.
const MASK: u64 = libc::FAN_CLOSE_NOWRITE;
const INIT_FLAGS: u32 =
    libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID | libc::FAN_UNLIMITED_MARKS | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
/// Size of the buffer for one read, in bytes: some thousand uses.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Reads of one call.
const READS_MAX: usize = 16;

/// The uses of a volume's files, as they happen.
#[derive(Debug)]
pub struct Uses {
    group: Arc<OwnedFd>,
    buffer: Vec<u8>,
}

/// Marks of files that need not be told of, for whoever makes stubs of such files. Whoever waits for the content of a file keeps the
/// marks that it has: an agent with a mark there could not end before it has answered him, not even if it is killed.
#[derive(Debug, Clone, Default)]
pub struct Resting {
    group: Weak<OwnedFd>,
}

impl Resting {
    /// This one is told of again. Nothing is left to do for one that is gone, or if nobody listens.
    pub fn tell_again(&self, root: &Root, file: &FileHandle) {
        let Some(group) = self.group.upgrade() else { return };
        let place = libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORE_SURV;
        let _ = super::mark_file(&*group, place, MASK, root, file);
    }
}

impl Uses {
    /// Begins to listen on the volume of `root`; what happens through `root` itself is not told.
    ///
    /// # Errors
    /// [`WatchUnavailable`] with the reason.
    pub fn new(root: &Root) -> Result<Self, WatchUnavailable> {
        let unavailable = |errno: Errno| WatchUnavailable {
            reason: match errno {
                Errno::PERM => UnavailableReason::NotPrivileged,
                Errno::NOSYS | Errno::INVAL => UnavailableReason::Kernel,
                Errno::OPNOTSUPP | Errno::NODEV => UnavailableReason::FileSystem(root.fs()),
                Errno::XDEV => UnavailableReason::Subvolume,
                other => UnavailableReason::Other(other.into()),
            },
        };
        let group = sys::fanotify::init(INIT_FLAGS).map_err(unavailable)?;
        let add = libc::FAN_MARK_ADD;
        sys::fanotify::mark(&group, add | libc::FAN_MARK_FILESYSTEM, MASK, root.dir()).map_err(unavailable)?;
        let uses = Self { group: Arc::new(group), buffer: vec![0; READ_BUFFER_BYTES] };
        uses.spare(root.dir());
        Ok(uses)
    }

    /// What happens through this mount is not told either. Where that fails the caller can tell by the process.
    pub fn spare(&self, mount: impl AsFd) {
        let place = libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT | libc::FAN_MARK_IGNORE_SURV;
        let _ = sys::fanotify::mark(&*self.group, place, MASK, mount);
    }

    /// Waits for uses, for so long at most. Files, each with the process that used it last; 0 where that is unknown.
    pub fn read(&mut self, patience: Duration) -> BTreeMap<FileHandle, i32> {
        let timeout = Timespec::try_from(patience).ok();
        let mut used = BTreeMap::new();
        if poll(&mut [PollFd::new(&*self.group, PollFlags::IN)], timeout.as_ref()) != Ok(1) {
            return used;
        }
        // Not until there are no more: there may always be.
        for _ in 0..READS_MAX {
            let Ok(len @ 1..) = retry_on_intr(|| rustix::io::read(&*self.group, &mut self.buffer[..])) else { break };
            // What cannot be read is a use that nobody hears of.
            for event in parse_events(&self.buffer[..len]).unwrap_or_default() {
                let target = event.records.into_iter().find(|record| record.kind == InfoKind::Target);
                used.extend(target.map(|target| (target.handle, event.pid)));
            }
        }
        used
    }

    /// This one need not be told again until [`Self::tell_all_again`].
    pub fn rest(&self, root: &Root, file: &FileHandle) {
        let place = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_EVICTABLE;
        let _ = super::mark_file(&*self.group, place, MASK, root, file);
    }

    /// What has files told of again.
    pub fn resting(&self) -> Resting {
        Resting { group: Arc::downgrade(&self.group) }
    }

    /// A new span begins.
    pub fn tell_all_again(&self, root: &Root) {
        let _ = sys::fanotify::mark(&*self.group, libc::FAN_MARK_FLUSH, 0, root.dir());
    }
}
