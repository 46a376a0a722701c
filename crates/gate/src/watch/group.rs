//! The fanotify group behind change detection: set up, wait, read.
//!
//! Not the group that guards stubs: the kernel refuses names in that class. Invariant: the queue has no bound, so the
//! kernel drops nothing while memory lasts.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};

use super::Batch;
use super::parse::{ParseError, parse_events};
use crate::error::ErrorKind;
use crate::volume::{Isolation, Root};
use crate::{FileHandle, FsKind, sys};

/// Size of the buffer for one read, in bytes: some three thousand events.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// What is watched. Renames are told by `FAN_RENAME`, which names both places and the inode, so `FAN_MOVE_SELF` would
/// only say it again.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_DELETE_SELF
    | libc::FAN_ONDIR;

/// What of our own work the kernel can leave out; the rest is told by pid (names belong to no mount).
const OWN_MASK: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;

const INIT_FLAGS: u32 = libc::FAN_CLASS_NOTIF
    | libc::FAN_REPORT_DFID_NAME_TARGET
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_UNLIMITED_MARKS
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK;

/// Why a volume cannot be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Changes cannot be watched: {reason}")]
pub struct WatchUnavailable {
    /// The reason, to be shown.
    pub reason: UnavailableReason,
}

/// Why a volume cannot be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableReason {
    /// The process lacks CAP_SYS_ADMIN.
    #[error("the process may not (CAP_SYS_ADMIN)")]
    NotPrivileged,
    /// The kernel is older than 5.17 or built without fanotify.
    #[error("the kernel is too old or built without fanotify (5.17 is needed)")]
    Kernel,
    /// The file system does not take part.
    #[error("the file system {0} does not support it")]
    FileSystem(FsKind),
    /// The root lies in a btrfs subvolume that is not the one that was mounted.
    #[error("the folder is in a subvolume that is not mounted itself")]
    Subvolume,
    /// Anything else.
    #[error("{0}")]
    Other(ErrorKind),
}

/// A failure of a watch that was set up. What was queued may be lost: scan everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Waiting or reading failed.
    #[error("Cannot read changes: {0}")]
    Read(ErrorKind),
    /// The kernel's records were not understood.
    #[error("Cannot read changes: {0}")]
    Parse(#[from] ParseError),
}

/// A running watch of the whole volume of an endpoint root.
#[derive(Debug)]
pub struct Watch {
    group: OwnedFd,
    wake: Arc<OwnedFd>,
    own_mount_ignored: bool,
    buffer: Vec<u8>,
}

/// Ends the wait of a [`Watch`] from another thread.
#[derive(Debug, Clone)]
pub struct Waker {
    wake: Arc<OwnedFd>,
}

impl Watch {
    /// Begins to watch: every change after this returned is told.
    ///
    /// # Errors
    /// [`WatchUnavailable`] with the reason; then the endpoint must be scanned.
    pub fn new(root: &Root) -> Result<Self, WatchUnavailable> {
        let unavailable = |reason| WatchUnavailable { reason };
        let group = sys::fanotify::init(INIT_FLAGS).map_err(|errno| {
            unavailable(match errno {
                Errno::PERM => UnavailableReason::NotPrivileged,
                Errno::NOSYS | Errno::INVAL => UnavailableReason::Kernel,
                other => UnavailableReason::Other(other.into()),
            })
        })?;
        sys::fanotify::mark(&group, libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, MASK, root.dir()).map_err(|errno| {
            unavailable(match errno {
                Errno::PERM => UnavailableReason::NotPrivileged,
                Errno::OPNOTSUPP | Errno::NODEV => UnavailableReason::FileSystem(root.fs()),
                Errno::XDEV => UnavailableReason::Subvolume,
                Errno::INVAL => UnavailableReason::Kernel,
                other => UnavailableReason::Other(other.into()),
            })
        })?;
        // Without it own writes arrive too and are told by their pid, at some cost.
        let own_mount_ignored = root.isolation() == Isolation::PrivateClone
            && sys::fanotify::mark(
                &group,
                libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT | libc::FAN_MARK_IGNORE_SURV,
                OWN_MASK,
                root.dir(),
            )
            .is_ok();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| unavailable(UnavailableReason::Other(errno.into())))?;
        Ok(Self { group, wake: Arc::new(wake), own_mount_ignored, buffer: vec![0; READ_BUFFER_BYTES] })
    }

    /// Whether the kernel leaves out writes through the root's private clone.
    pub fn own_mount_ignored(&self) -> bool {
        self.own_mount_ignored
    }

    /// What can end a wait.
    pub fn waker(&self) -> Waker {
        Waker { wake: Arc::clone(&self.wake) }
    }

    /// Writes to this file are not told any more until [`Self::tell_writes`]; that it is closed is. False where that cannot be.
    pub fn hush_writes(&self, root: &Root, file: &FileHandle) -> bool {
        let place = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_EVICTABLE;
        super::mark_file(&self.group, place, libc::FAN_MODIFY, root, file).is_ok()
    }

    /// Writes to this file are told again. Nothing is left to do for one that is gone.
    pub fn tell_writes(&self, root: &Root, file: &FileHandle) {
        let place = libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORE_SURV;
        let _ = super::mark_file(&self.group, place, libc::FAN_MODIFY, root, file);
    }

    /// Waits for changes and reads some. Empty after `timeout` (`None`: no limit) or when woken.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn read_batch(&mut self, timeout: Option<Duration>) -> Result<Batch, WatchError> {
        // A time-out beyond what the kernel can take is as good as none.
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        let mut fds = [PollFd::new(&self.group, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(WatchError::Read(errno.into())),
        }
        let woken = !fds[1].revents().is_empty();
        let mut batch = self.read_once()?.unwrap_or_default();
        if woken {
            // Only its being non-zero matters; somebody else may have reset it already.
            let _ = rustix::io::read(self.wake.as_fd(), &mut [0; 8]);
            batch.woken = true;
        }
        Ok(batch)
    }

    /// Lets changes come together for so long, unless somebody wakes it: reading one at a time costs a switch of threads for each.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn gather(&self, time: Duration) -> Result<(), WatchError> {
        let timeout = Timespec::try_from(time).ok();
        match poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(WatchError::Read(errno.into())),
        }
    }

    /// Reads until the kernel's queue was empty once, and hands on each batch: all that happened before the call has
    /// then been seen.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn drain(&mut self, mut visit: impl FnMut(Batch)) -> Result<(), WatchError> {
        while let Some(batch) = self.read_once()? {
            visit(batch);
        }
        Ok(())
    }

    /// One read; `None` if the queue is empty.
    fn read_once(&mut self) -> Result<Option<Batch>, WatchError> {
        let len = match retry_on_intr(|| rustix::io::read(&self.group, &mut self.buffer[..])) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(None),
            Ok(len) => len,
            Err(errno) => return Err(WatchError::Read(errno.into())),
        };
        let mut batch = Batch::default();
        for event in parse_events(&self.buffer[..len])? {
            batch.add(event);
        }
        Ok(Some(batch))
    }
}

impl Waker {
    /// Ends the current wait, or the next one.
    pub fn wake(&self) {
        // Fails only when the counter is at its end, and then it is awake anyway.
        let _ = rustix::io::write(self.wake.as_fd(), &1_u64.to_ne_bytes());
    }
}
