//! Finding inodes by their handle without the privilege to open handles.
//!
//! An agent that is not root remembers under which name it saw each inode, and looks everywhere when it is not there any
//! more. That takes memory for each name and time for each walk, which is why an agent for more than a first look runs as
//! root. **Invariant:** what is returned has the handle that was asked for; every step down is a descriptor's, and no
//! symlink is followed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use isotherm_gate::{Dir, ErrorKind, FileHandle, GateError, Inode, Kind, Root};

/// Time in which a walk is not repeated: what it did not find is taken for gone.
const WALK_AGAIN: Duration = Duration::from_secs(1);
/// Directories above an inode; more means that names moved in a ring while they were remembered.
const DEPTH_MAX: usize = 4_096;

/// Names of inodes as they were last seen.
#[derive(Debug)]
pub(super) struct Search {
    staging: FileHandle,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The directory and the name of an inode.
    places: HashMap<FileHandle, (FileHandle, OsString)>,
    walked: Option<Instant>,
}

impl Search {
    /// A search where opening by handle is refused; none where it works.
    pub(super) fn if_needed(root: &Root, staging: FileHandle) -> Option<Self> {
        let refused = root.open_dir(root.handle()).is_err_and(|error| error.kind() == ErrorKind::Denied);
        refused.then(|| Self { staging, seen: Mutex::default() })
    }

    /// The directory of a handle.
    pub(super) fn dir(&self, root: &Root, staging: &Dir, handle: &FileHandle) -> Result<Dir, GateError> {
        self.twice(root, handle, |seen| self.descend(seen, root, staging, handle, 0))
    }

    /// The inode of a handle, of any kind.
    pub(super) fn inode(&self, root: &Root, staging: &Dir, handle: &FileHandle) -> Result<Inode, GateError> {
        self.twice(root, handle, |seen| {
            let (parent, name) = seen.places.get(handle).ok_or_else(|| stale(handle))?;
            let inode = self.descend(seen, root, staging, parent, 0)?.inode(name)?;
            if inode.stat()?.handle == *handle { Ok(inode) } else { Err(stale(handle)) }
        })
    }

    /// Looks everywhere now, so that what follows speaks of this moment.
    pub(super) fn refresh(&self, root: &Root) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.walked = None;
        seen.walk(root);
    }

    /// Tries with the names that are remembered, and once more after looking everywhere.
    fn twice<T>(&self, root: &Root, handle: &FileHandle, find: impl Fn(&Seen) -> Result<T, GateError>) -> Result<T, GateError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        find(&seen).or_else(|_| {
            seen.walk(root);
            find(&seen).map_err(|error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotDirectory => stale(handle),
                _ => error,
            })
        })
    }

    fn descend(&self, seen: &Seen, root: &Root, staging: &Dir, handle: &FileHandle, depth: usize) -> Result<Dir, GateError> {
        if handle == root.handle() {
            return root.dir().try_clone();
        }
        if *handle == self.staging {
            return staging.try_clone();
        }
        let (parent, name) = seen.places.get(handle).filter(|_| depth < DEPTH_MAX).ok_or_else(|| stale(handle))?;
        let dir = self.descend(seen, root, staging, parent, depth + 1)?.open_dir(name)?;
        if dir.stat_self()?.handle == *handle { Ok(dir) } else { Err(stale(handle)) }
    }
}

impl Seen {
    fn walk(&mut self, root: &Root) {
        if self.walked.is_some_and(|at| at.elapsed() < WALK_AGAIN) {
            return;
        }
        self.places.clear();
        if let Err(error) = self.enter(root.dir(), root.handle(), 0) {
            tracing::debug!(%error, "Could not look everywhere");
        }
        self.walked = Some(Instant::now());
    }

    fn enter(&mut self, dir: &Dir, handle: &FileHandle, depth: usize) -> Result<(), GateError> {
        let mut names = Vec::new();
        dir.list(|entry| names.push(entry.name.to_owned()))?;
        for name in names {
            // What vanishes or cannot be read meanwhile is not found, as it would be a moment later.
            let Ok(Some(stat)) = dir.stat(&name) else { continue };
            self.places.insert(stat.handle.clone(), (handle.clone(), name.clone()));
            let own = depth == 0 && name == OsStr::new(isotherm_gate::STAGE_DIR);
            if stat.kind == Kind::Directory && !own && depth < DEPTH_MAX {
                let Ok(inner) = dir.open_dir(&name) else { continue };
                // A directory that cannot be listed hides what is in it from everybody who is not root.
                let _ = self.enter(&inner, &stat.handle, depth + 1);
            }
        }
        Ok(())
    }
}

fn stale(handle: &FileHandle) -> GateError {
    GateError::new(ErrorKind::Stale, "find", format!("{handle:?}"))
}
