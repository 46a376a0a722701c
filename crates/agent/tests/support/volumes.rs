//! Volumes, contents and steps for tests of what is done to files.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use isotherm_agent::catalog::{Recorded, RecordedState};
use isotherm_agent::engine::{Away, Look, LookRequest, StepResult};
use isotherm_agent::volume::{ContentSource, Errand, Performer, Volume, look};
use isotherm_core::content::{ChunkId, Manifest, ManifestBuilder, ManifestError, ManifestId};
use isotherm_core::exclude::Exclusions;
use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::name::Name;
use isotherm_core::node::{Content, FileContent, Metadata, Principal};
use isotherm_core::observe::{Evidence, Seen};
use isotherm_core::plan::{Action, Expected, Parent, Spot, Step};
use isotherm_core::trees::Handle;

/// The share in memory.
#[derive(Default)]
pub struct Memory {
    manifests: Mutex<BTreeMap<ManifestId, Manifest>>,
    chunks: Mutex<BTreeMap<ChunkId, Bytes>>,
    pub away: Mutex<bool>,
    breaks_after: Mutex<Option<usize>>,
    given: AtomicUsize,
}

impl Memory {
    /// Puts content in, with holes where `None`.
    pub fn put(&self, parts: &[Result<&[u8], u64>]) -> FileContent {
        let mut builder = ManifestBuilder::new();
        let mut keep = |id: ChunkId, bytes: &[u8]| {
            self.chunks.lock().unwrap().insert(id, Bytes::copy_from_slice(bytes));
            Ok::<(), ManifestError>(())
        };
        for part in parts {
            match part {
                Ok(bytes) => builder.data(bytes, &mut keep).unwrap(),
                Err(hole) => builder.hole(*hole),
            }
        }
        let manifest = builder.finish(keep).unwrap();
        let content = FileContent {
            manifest: manifest.id(),
            size: manifest.len(),
            modified: Timestamp(1_600_000_000_123_456_789),
            link: None,
        };
        self.manifests.lock().unwrap().insert(content.manifest, manifest);
        content
    }

    /// From so many chunks on that it has given in all, the connection breaks.
    pub fn break_after(&self, given: usize) {
        *self.breaks_after.lock().unwrap() = Some(given);
    }

    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }

    pub fn chunk_count(&self) -> usize {
        self.chunks.lock().unwrap().len()
    }

    pub fn lose_chunks(&self) {
        self.chunks.lock().unwrap().clear();
    }
}

impl ContentSource for Memory {
    fn manifests(&self, ids: &[ManifestId]) -> Result<Vec<Option<Manifest>>, Away> {
        if *self.away.lock().unwrap() {
            return Err(Away { text: "The service is away".to_owned(), retry: true });
        }
        let manifests = self.manifests.lock().unwrap();
        Ok(ids.iter().map(|id| manifests.get(id).cloned()).collect())
    }

    fn chunks(
        &self,
        (ids, _): (&[ChunkId], u64),
        sink: &mut dyn FnMut(ChunkId, Option<Bytes>),
        errand: &Errand<'_>,
    ) -> Result<(), Away> {
        for id in ids {
            if self.breaks_after.lock().unwrap().is_some_and(|limit| self.given() >= limit) {
                return Err(Away { text: "The connection broke".to_owned(), retry: true });
            }
            let bytes = self.chunks.lock().unwrap().get(id).cloned();
            self.given.fetch_add(1, Ordering::Relaxed);
            (errand.heard)();
            sink(*id, bytes);
        }
        Ok(())
    }
}

/// Nothing is recorded.
pub struct Blank;

impl Recorded for Blank {
    fn names(&self, _: NodeId) -> BTreeMap<Name, RecordedState> {
        BTreeMap::new()
    }
    fn name(&self, _: NodeId, _: &Name) -> Option<RecordedState> {
        None
    }
}

/// A volume with a performer that gets contents from memory.
pub struct Bench {
    pub volume: Arc<Volume>,
    pub share: Arc<Memory>,
    pub performer: Performer,
}

impl Bench {
    pub fn new(path: &Path) -> Self {
        let volume = Arc::new(Volume::open(path).unwrap());
        let share = Arc::new(Memory::default());
        let performer = Performer::new(Arc::clone(&volume), Arc::clone(&share) as Arc<_>, Arc::default());
        Self { volume, share, performer }
    }

    pub fn look(&self, handle: &Handle) -> Look {
        let request = LookRequest {
            directory: NodeId::ROOT,
            handle: handle.clone(),
            names: None,
            evidence: Evidence::Unwatched,
            full: true,
        };
        look(&self.volume, &Blank, &Exclusions::default(), &request)
    }

    pub fn seen(&self, name: &[u8]) -> Seen {
        let listing = self.look(&self.volume.root_handle()).listing.unwrap();
        listing.seen.into_iter().find(|seen| seen.name.as_bytes() == name).unwrap()
    }

    pub fn spot(&self, name: &[u8]) -> Spot {
        Spot { node: NodeId::ROOT, parent: Parent::Inode(self.volume.root_handle()), name: Name::new(name).unwrap() }
    }

    pub fn expected(&self, name: &[u8]) -> Expected {
        let seen = self.seen(name);
        Expected { spot: self.spot(name), handle: seen.handle, print: seen.print }
    }

    pub fn create(&self, number: u8, name: &[u8], content: Content, metadata: Metadata) -> Step {
        let at = self.spot(name);
        Step { node: node(number), action: Action::Create { at, content, metadata, link_to: None } }
    }

    pub fn replace(&self, expected: Expected, bytes: &[u8]) -> Step {
        let content = Content::File(self.share.put(&[Ok(bytes)]));
        Step { node: node(9), action: Action::Replace { expected, content, metadata: plain(0o644), link_to: None } }
    }

    /// Performs steps; their results alone.
    pub fn perform(&self, steps: Vec<Step>) -> Vec<StepResult> {
        self.performer.perform(steps).into_iter().map(|(_, result)| result).collect()
    }

    pub fn one(&self, step: Step) -> StepResult {
        self.perform(vec![step]).pop().unwrap()
    }

    pub fn staged(&self) -> Vec<String> {
        let names = self.volume.staging().list().unwrap();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }
}

/// What a program says of a path; it has to succeed.
pub fn run(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

/// Metadata with this mode, of the user who runs the test.
pub fn plain(mode: u32) -> Metadata {
    let root = |name: &str| Principal { id: 0, name: Some(name.to_owned()) };
    Metadata { mode, user: root("root"), group: root("root"), born: None, xattrs: BTreeMap::new() }
}

pub fn is_done(result: &StepResult) -> bool {
    matches!(result, StepResult::Done(_))
}

/// All files of a folder whose name begins like this, with their bytes.
pub fn files(folder: &Path, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let named = files.filter(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes()));
    named.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}
