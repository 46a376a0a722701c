//! Change detection: which names of a volume were touched, by whom.
//!
//! It reports and does not look: order inside a batch means little, merged events have lost theirs, so a [`Change`]
//! says "go and look", never "this happened". It does not filter by endpoint or by process; the caller does, by
//! directory handle and pid. Invariant: nothing that the kernel told is dropped silently; a loss is `overflow` or an
//! error, and both mean that everything must be scanned.

mod group;
pub mod parse;
mod uses;

pub use group::{UnavailableReason, Waker, Watch, WatchError, WatchUnavailable};
pub use uses::{Resting, Uses};

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::{FileHandle, Root, sys};
use parse::{InfoKind, RawEvent};

/// Something happened to this name, or to this inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Directory that holds the name. `None` where the kernel knows no name: an unlinked file that goes for good, or
    /// one opened by handle.
    pub directory: Option<FileHandle>,
    /// The name in it; `.` for the directory itself; empty without a directory.
    pub name: Vec<u8>,
    /// The inode it was about; `None` where the kernel did not say.
    pub target: Option<FileHandle>,
    /// What happened, as a union of merged events.
    pub kinds: ChangeKinds,
    /// Process that did it, 0 if unknown in this pid namespace.
    pub pid: i32,
}

/// Kinds of a change; several can be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeKinds {
    /// The name was made (create, link, mkdir, symlink).
    pub created: bool,
    /// The name was removed.
    pub deleted: bool,
    /// The name is the old or the new place of a rename.
    pub moved: bool,
    /// Content was written or truncated, or the mtime set. Stores through a mapping are not seen.
    pub modified: bool,
    /// A descriptor or mapping that could write was closed.
    pub closed_write: bool,
    /// Owner, mode, extended attribute, link count or time changed.
    pub attrib: bool,
    /// The inode is gone for good.
    pub gone: bool,
    /// It is about a directory.
    pub is_dir: bool,
}

/// What one read brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Changes in the order of the kernel's queue; a rename is two, the old place first.
    pub changes: Vec<Change>,
    /// Events were lost: scan everything.
    pub overflow: bool,
    /// A [`Waker`] ended the wait.
    pub woken: bool,
}

/// Adds or removes a mark on a file that is known by its handle. It is not opened: that would ask whoever has a lease on it to give it
/// back.
fn mark_file(group: impl AsFd, place: u32, mask: u64, root: &Root, file: &FileHandle) -> Result<(), Errno> {
    let found = root.open_handle(file, OFlags::PATH | OFlags::CLOEXEC)?;
    let path = CString::new(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(|_| Errno::INVAL)?;
    sys::fanotify::mark_at(group, place, mask, &path)
}

impl Batch {
    pub(crate) fn add(&mut self, event: RawEvent) {
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            self.overflow = true;
            return;
        }
        let kinds = ChangeKinds::from_mask(event.mask);
        let target = event.records.iter().find(|r| r.kind == InfoKind::Target).map(|r| r.handle.clone());
        let before = self.changes.len();
        for record in event.records {
            if record.kind == InfoKind::Target {
                continue;
            }
            self.changes.push(Change {
                directory: Some(record.handle),
                name: record.name,
                target: target.clone(),
                kinds,
                pid: event.pid,
            });
        }
        if self.changes.len() == before {
            self.changes.push(Change { directory: None, name: Vec::new(), target, kinds, pid: event.pid });
        }
    }
}

impl ChangeKinds {
    fn from_mask(mask: u64) -> Self {
        let has = |bits: u64| mask & bits != 0;
        Self {
            created: has(libc::FAN_CREATE),
            deleted: has(libc::FAN_DELETE),
            moved: has(libc::FAN_RENAME | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO),
            modified: has(libc::FAN_MODIFY),
            closed_write: has(libc::FAN_CLOSE_WRITE),
            attrib: has(libc::FAN_ATTRIB),
            gone: has(libc::FAN_DELETE_SELF),
            is_dir: has(libc::FAN_ONDIR),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::parse::InfoRecord;
    use super::*;

    fn record(kind: InfoKind, byte: u8, name: &[u8]) -> InfoRecord {
        InfoRecord { kind, handle: FileHandle::new(1, &[byte; 8]).unwrap(), name: name.to_vec() }
    }

    fn batch(mask: u64, records: Vec<InfoRecord>) -> Batch {
        let mut batch = Batch::default();
        batch.add(RawEvent { mask, pid: 7, fd: -1, records, range: None });
        batch
    }

    #[test]
    fn a_rename_is_two_changes_of_one_inode() {
        let records = vec![
            record(InfoKind::OldDirectory, 1, b"a"),
            record(InfoKind::NewDirectory, 2, b"b"),
            record(InfoKind::Target, 3, b""),
        ];
        let changes = batch(libc::FAN_RENAME | libc::FAN_ONDIR, records).changes;
        let places: Vec<_> = changes.iter().map(|c| (c.directory.clone().unwrap().raw()[0], &c.name[..])).collect();
        assert_eq!(places, [(1, &b"a"[..]), (2, b"b")]);
        assert!(
            changes.iter().all(|c| c.target.as_ref().unwrap().raw()[0] == 3 && c.kinds.moved && c.kinds.is_dir && c.pid == 7)
        );
    }

    #[test]
    fn an_overflow_and_an_event_without_place_are_not_lost() {
        assert!(batch(libc::FAN_Q_OVERFLOW, Vec::new()).overflow);
        let changes = batch(libc::FAN_MODIFY, vec![record(InfoKind::Target, 3, b"")]).changes;
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].directory.as_ref(), changes[0].kinds.modified), (None, true));
        assert!(changes[0].target.is_some());
    }
}
