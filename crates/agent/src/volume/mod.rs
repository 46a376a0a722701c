//! The folder of an endpoint: looking at it, changing it, and finding what an earlier run left in it.
//!
//! Everything here goes through `isotherm_gate` and decides nothing: it answers what is there and performs steps that say
//! what they expect. **Invariant:** no bytes that a user wrote go away here before they were proved to be the ones that a
//! step expected to go.

pub(crate) mod acl;
pub(crate) mod attributes;
mod errand;
mod look;
mod marker;
mod metadata;
mod perform;
mod recover;
mod search;

pub use errand::Errand;
pub use look::look;
pub use marker::{Marker, MarkerProblem, Renewed, is_rolled_back, renew_nonce};
pub use perform::{ContentSource, Keeps, Performer, StubGuard, StubRules};
pub use recover::{KnownContent, Recovered, recover};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::observe::Liveness;
use isotherm_core::stub::{RecordError, StubRecord};
use isotherm_core::trees::{Handle, Print};
use isotherm_gate::{Account, Dir, ErrorKind, FileHandle, GateError, Inode, Owners, Root, Staging, Stat};

use search::Search;

/// An open endpoint root with its staging folder.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    root: Root,
    staging: Staging,
    owners: Mutex<Owners>,
    /// Where inodes cannot be opened by their handle.
    search: Option<Search>,
    /// Clients of Samba are not to see which files are tiered.
    hides_offline: AtomicBool,
}

impl Volume {
    /// Opens the folder `path`; its own folder and staging are made if missing.
    ///
    /// # Errors
    /// Those of [`Root::open`] and [`Root::staging`].
    pub fn open(path: &Path) -> Result<Self, GateError> {
        Self::with_root(path, Root::open(path)?)
    }

    /// Opens the folder `path` where an endpoint has been before. Nothing is made in a folder that merely has the name,
    /// such as the place where a disk is to be mounted.
    ///
    /// # Errors
    /// As [`Self::open`], and `NotFound` where the product's own folder is missing.
    pub fn open_known(path: &Path) -> Result<Self, GateError> {
        let root = Root::open(path)?;
        root.dir().open_dir(std::ffi::OsStr::new(isotherm_gate::STAGE_DIR))?;
        Self::with_root(path, root)
    }

    fn with_root(path: &Path, root: Root) -> Result<Self, GateError> {
        let staging = root.staging()?;
        let search = Search::if_needed(&root, staging.dir().stat_self()?.handle);
        Ok(Self { path: path.to_owned(), root, staging, owners: Mutex::default(), search, hides_offline: AtomicBool::new(false) })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The staging folder.
    #[must_use]
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The inode of the root.
    #[must_use]
    pub fn root_handle(&self) -> Handle {
        handle_of(self.root.handle())
    }

    /// The inode of the staging folder.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn staging_handle(&self) -> Result<Handle, GateError> {
        Ok(handle_of(&self.staging.dir().stat_self()?.handle))
    }

    /// What earlier runs knew of the names of accounts.
    pub fn set_last_names(&self, names: BTreeMap<Account, String>) {
        *self.owners.lock().unwrap_or_else(PoisonError::into_inner) = Owners::with_last_names(names);
    }

    /// Whether clients of Samba are to see which files come as stubs from now on.
    pub(crate) fn show_offline(&self, shows: bool) {
        self.hides_offline.store(!shows, Ordering::Relaxed);
    }

    fn shows_offline(&self) -> bool {
        !self.hides_offline.load(Ordering::Relaxed)
    }

    /// Names of accounts that later runs have to know, since this was asked last.
    pub fn take_learned_names(&self) -> Vec<(Account, String)> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).take_learned()
    }

    /// Asks the name service anew from now on, so that changes of accounts are seen.
    pub fn forget_owners(&self) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Asks for inodes. What cannot be told is left out.
    #[must_use]
    pub fn probe(&self, nodes: &[(NodeId, Handle)]) -> Vec<(NodeId, Liveness)> {
        if let Some(search) = &self.search {
            search.refresh(&self.root);
        }
        let alive = |(node, handle): &(NodeId, Handle)| Some((*node, self.liveness(handle)?));
        nodes.iter().filter_map(alive).collect()
    }

    fn liveness(&self, handle: &Handle) -> Option<Liveness> {
        let is_own = |value: Vec<u8>| is_own(&value, handle);
        let found = self.inode(handle).and_then(|inode| Ok((inode.stat()?, inode.stub_record()?.is_some_and(is_own))));
        match found {
            Ok((stat, _)) if stat.nlink == 0 => Some(Liveness::Gone),
            Ok((stat, true)) => Some(Liveness::Tiered(stat.nlink)),
            Ok((stat, false)) => Some(Liveness::Linked(stat.nlink)),
            Err(error) if error.kind() == ErrorKind::Stale => Some(Liveness::Gone),
            Err(error) => {
                tracing::warn!(%error, "Cannot tell whether a file still exists");
                None
            }
        }
    }

    /// A directory by its inode; one that has left the endpoint counts as gone.
    pub(crate) fn dir(&self, handle: &Handle) -> Result<Dir, GateError> {
        if let Some(search) = &self.search {
            return search.dir(&self.root, self.staging.dir(), &gate_handle(handle)?);
        }
        let dir = self.root.open_dir(&gate_handle(handle)?)?;
        if self.root.contains(&dir)? {
            return Ok(dir);
        }
        Err(GateError::new(ErrorKind::Stale, "find below the endpoint", dir.name()))
    }

    pub(crate) fn inode(&self, handle: &Handle) -> Result<Inode, GateError> {
        match &self.search {
            Some(search) => search.inode(&self.root, self.staging.dir(), &gate_handle(handle)?),
            None => self.root.inode(&gate_handle(handle)?),
        }
    }
}

/// The engine's form of a handle.
pub(crate) fn handle_of(handle: &FileHandle) -> Handle {
    Handle(handle.to_bytes().into())
}

/// The kernel's form of a handle. What is no handle names nothing that exists.
pub(crate) fn gate_handle(handle: &Handle) -> Result<FileHandle, GateError> {
    FileHandle::from_bytes(&handle.0).map_err(|_| GateError::new(ErrorKind::Stale, "open by handle", format!("{handle:?}")))
}

/// Whether a record says that the content of its inode is away. One that came with a copy stands for nothing.
fn is_own(record: &[u8], handle: &Handle) -> bool {
    !matches!(StubRecord::decode(record, handle), Err(RecordError::Void))
}

/// Whether the content of an inode is away. Only what takes less room than its length can be a stub, or was one and is streamed now, so
/// others cost no system call. What cannot be told is no stub.
pub(crate) fn is_tiered(inode: &Inode, stat: &Stat, was_tiered: bool) -> bool {
    let is_hollow = was_tiered || stat.blocks.saturating_mul(512) < stat.size;
    stat.kind == isotherm_gate::Kind::File
        && is_hollow
        && inode.stub_record().is_ok_and(|record| record.is_some_and(|value| is_own(&value, &handle_of(&stat.handle))))
}

pub(crate) fn print_of(stat: &Stat) -> Print {
    Print { size: stat.size, modified: Timestamp(stat.mtime_ns), changed: Timestamp(stat.ctime_ns), links: stat.nlink }
}
