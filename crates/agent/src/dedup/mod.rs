//! Equal contents of a volume in the same blocks.
//!
//! The catalogs know which files hold what, and manifests which parts of large ones are equal (`isotherm_core::dedup`); the kernel compares
//! before anything is shared. It works in the background, on files that nobody has changed for a while, and reads none but those that
//! are thought to be equal. **Invariant:** no byte of a file changes by it, nor any time of it, and nothing of sync rests on it.

mod pass;
mod settings;

pub(crate) use pass::run;
pub(crate) use settings::DedupSettings;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use isotherm_gate::Root;

use crate::catalog::{ShareStore, SharedFile};
use crate::volume::{gate_handle, print_of};

/// Deduplication of a volume: what is set, and what is known.
#[derive(Debug)]
pub(crate) struct Dedup {
    folder: PathBuf,
    settings: Mutex<DedupSettings>,
    pub(crate) store: ShareStore,
}

impl Dedup {
    /// Of a volume with this folder of records.
    pub(crate) fn open(folder: &Path) -> Self {
        let store = ShareStore::open(&folder.join("shares"));
        Self { folder: folder.to_owned(), settings: Mutex::new(settings::read(folder)), store }
    }

    /// What is set.
    pub(crate) fn settings(&self) -> DedupSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets it from now on, durably.
    pub(crate) fn set(&self, settings: DedupSettings) -> io::Result<()> {
        let mut current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings::write(&self.folder, settings)?;
        *current = settings;
        Ok(())
    }

    /// How many of a family are here and hold the blocks that they share.
    pub(crate) fn here(&self, root: &Root, family: i64) -> usize {
        self.store.members(family).iter().filter(|file| is_as_it_was(root, file)).count()
    }
}

/// Whether a file is whole and was not changed since it was looked at.
fn is_as_it_was(root: &Root, file: &SharedFile) -> bool {
    let Ok(inode) = gate_handle(&file.handle).and_then(|handle| root.inode(&handle)) else { return false };
    let is_whole = inode.stub_record().is_ok_and(|record| record.is_none());
    is_whole && inode.stat().is_ok_and(|stat| print_of(&stat).changed.0 == file.changed_ns)
}
