//! Giving up and bringing back the content of a file, or of all files below a directory, because somebody asked for it.
//!
//! The catalog says which files are safe in the share; whether a file is what the catalog says is asked again of the file
//! itself, when everybody else has to wait. **Invariant:** it never waits for more than a batch before it says how far it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isotherm_api::path::ShownPath;
use isotherm_core::exclude::matches;
use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::node::Kind;
use isotherm_core::tiering::{Policy, Used};
use isotherm_core::trees::{Handle, Record};
use isotherm_gate::{ErrorKind, Root};
use serde::{Deserialize, Serialize};

use super::file::{self, Spot};
use crate::agent::Overview;
use crate::catalog::CatalogReader;
use crate::guarded::{GuardedVolume, GuardedVolumes};
use crate::recall::{Candidate, Lengths, NotTiered};
use crate::tiering::{Frees, Kept};
use crate::volume::{Volume, gate_handle};

/// Files that are made stubs together.
const TIERED_TOGETHER: usize = 256;
/// Files that are looked at before somebody hears of it, at least.
const TOLD_EVERY: u64 = 5_000;
/// Files that are recalled at a time, and most of them that anybody may ask for: what one file waits for, such as the disk, others need not.
pub(super) const RECALLED_TOGETHER: usize = 512;
pub(super) const ASKED_TOGETHER: usize = 64;
/// Bytes after which no more files are asked for until those have come, since somebody wants to hear how far it is; but as many files as are
/// fetched at once.
const RECALLED_BYTES: u64 = 256 << 20;
const RECALLED_LEAST: usize = 8;
/// What was written or recalled a moment ago is looked at again after this time: by then the catalog knows of it.
const SETTLES_IN: Duration = Duration::from_millis(1_500);
/// Why nothing is given up.
const NOT_KNOWN: &str = "What the share holds is not known now, so nothing is given up";
/// Why a file stays as it is.
const NOT_SAFE: &str = "it is not safe in the share yet";
/// The same.
const PINNED: &str = "it is pinned; `isotherm unpin` lets it go";
/// Files that were left alone are named up to this number.
const NAMED_MAX: usize = 100;

/// How far it is, or what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Files that were looked at.
    pub seen: u64,
    /// Files whose content came or went.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes that would really get free, when nothing goes yet: what shares blocks with files that stay frees nothing.
    #[serde(default)]
    pub frees: Option<u64>,
    /// Files that are already as was asked for.
    pub already: u64,
    /// Files that are too small, have several names, or are empty: they stay whole.
    pub unsuited: u64,
    /// Files that could not be moved now.
    pub left: u64,
    /// Why, for the first of them.
    pub why: Vec<(ShownPath, String)>,
    /// Of those that would go, when nothing goes yet: when the one was used last that goes first, in milliseconds since 1970.
    #[serde(default)]
    pub coldest_ms: Option<u64>,
    /// Whether all is done.
    pub done: bool,
}

/// Which way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Tier,
    /// What would be tiered; nothing is.
    Plan,
    Recall(Recalling),
}

/// What is brought back, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recalling {
    pub(super) lengths: Lengths,
    /// Files whose name fits this alone.
    pub(super) pattern: Option<String>,
    /// How many at a time.
    pub(super) together: usize,
    /// The warmest first, and no more than fits without others having to go.
    pub(super) by_warmth: bool,
}

impl Recalling {
    /// As many as are of use, in the order in which they are found.
    pub(super) fn all(lengths: Lengths) -> Self {
        Self { lengths, pattern: None, together: RECALLED_TOGETHER, by_warmth: false }
    }
}

/// Moves content; `progress` hears after each batch how far it is, and says whether anybody still wants to know.
pub(super) fn run(
    (overview, guarded): (&Overview, &GuardedVolumes),
    path: &[u8],
    way: Way,
    progress: &mut dyn FnMut(&Moved) -> bool,
) -> Result<Moved, String> {
    let Spot { endpoint, catalog, volume, record: top } = file::on_guarded((overview, guarded), path)?;
    if way == Way::Tier && !volume.knows_share(endpoint.endpoint) {
        return Err(format!("{NOT_KNOWN}; see `isotherm status`"));
    }
    if matches!(&way, Way::Recall(recalling) if recalling.by_warmth) && volume.situation().is_none() {
        return Err("No policy says now what fits: tiering is off, or the share is not known; see `isotherm status`".to_owned());
    }
    let root = Root::open(Path::new(&endpoint.path)).map_err(|error| error.to_string())?;
    // Patterns keep contents from going by themselves; whoever names a file means it.
    let kept = Kept::new(&catalog, Policy::default()).ok_or("It cannot be told what is pinned")?;
    let mut run = Run {
        kept,
        endpoint: endpoint.endpoint,
        catalog,
        volume,
        root,
        way,
        moved: Moved::default(),
        changed: Vec::new(),
        is_last_try: false,
        batch: Vec::new(),
        batch_bytes: 0,
        found: Vec::new(),
        frees: None,
    };
    if run.way == Way::Plan {
        run.frees = Some(Frees::default());
    }
    run.walk(top, progress);
    run.in_order(progress);
    run.try_again();
    run.moved.frees = run.frees.take().map(|frees| frees.bytes());
    run.moved.done = true;
    Ok(run.moved)
}

/// How many files of an endpoint are stubs now. An error where a single one cannot be looked at: it may be one.
pub(crate) fn count_stubs(catalog: &Path, path: &str, endpoint: EndpointId) -> Result<u64, String> {
    let catalog = CatalogReader::open(catalog).map_err(|failure| failure.to_string())?;
    let volume = Volume::open_known(Path::new(path)).map_err(|error| error.to_string())?;
    // Without the volume that is mounted there every file would be gone.
    volume.check_marker(endpoint).map_err(|problem| problem.to_string())?;
    let root = volume.root();
    let (mut open, mut stubs) = (vec![NodeId::ROOT], 0);
    while let Some(directory) = open.pop() {
        for record in catalog.children(directory) {
            match record.here() {
                Some(local) if local.kind() == Kind::Directory => open.push(record.node),
                Some(local) if local.kind() == Kind::File => {
                    let inode = gate_handle(&local.handle).and_then(|handle| root.inode(&handle));
                    match inode.and_then(|inode| inode.stub_record()) {
                        Ok(record) => stubs += u64::from(record.is_some()),
                        Err(error) if error.kind() == ErrorKind::Stale => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
                _ => {}
            }
        }
    }
    Ok(stubs)
}

/// Brings back the content of all files of an endpoint.
pub(crate) fn recall_all(overview: &Overview, guarded: &GuardedVolumes, path: &str) -> Result<Moved, String> {
    run((overview, guarded), path.as_bytes(), Way::Recall(Recalling::all(Lengths::Kept)), &mut |_| true)
}

struct Run {
    kept: Kept,
    endpoint: EndpointId,
    catalog: CatalogReader,
    volume: Arc<GuardedVolume>,
    root: Root,
    way: Way,
    moved: Moved,
    /// Files that looked otherwise than the catalog knew.
    changed: Vec<NodeId>,
    is_last_try: bool,
    /// Files, and what they become.
    batch: Vec<(Record, Option<Candidate>)>,
    /// Bytes of those that are to come.
    batch_bytes: u64,
    /// What is to come in the order of warmth, 64 bytes a file.
    found: Vec<Used<NodeId>>,
    /// Where only a plan is made: what would get free.
    frees: Option<Frees>,
}

impl Run {
    fn walk(&mut self, top: Record, progress: &mut dyn FnMut(&Moved) -> bool) {
        let mut open = vec![top];
        while let Some(record) = open.pop() {
            match record.here().map(|local| local.kind()) {
                Some(Kind::Directory) => open.extend(self.catalog.children(record.node)),
                Some(Kind::File) => self.take(record),
                _ => {}
            }
            let is_told = self.moved.seen.is_multiple_of(TOLD_EVERY) && self.moved.seen > 0;
            let is_much = self.batch_bytes >= RECALLED_BYTES && self.batch.len() >= RECALLED_LEAST;
            if (self.batch.len() >= self.together() || is_much || is_told) && !self.go_on(progress) {
                // Nobody waits for what was only found.
                self.found.clear();
                return;
            }
        }
        self.move_batch();
    }

    fn together(&self) -> usize {
        match &self.way {
            Way::Recall(recalling) => recalling.together,
            Way::Tier | Way::Plan => TIERED_TOGETHER,
        }
    }

    /// Moves what was gathered; false where nobody wants to know any more.
    fn go_on(&mut self, progress: &mut dyn FnMut(&Moved) -> bool) -> bool {
        self.move_batch();
        progress(&self.moved)
    }

    /// Brings back what was found, the warmest first, while it fits.
    fn in_order(&mut self, progress: &mut dyn FnMut(&Moved) -> bool) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable_by(|one, other| other.cmp(one));
        for part in found.chunks(self.together().min(ASKED_TOGETHER)) {
            // Asked for each: others write meanwhile, and may have switched tiering off.
            let mut room = self.volume.situation().map_or(0, |situation| situation.volume.spare_room());
            for used in part {
                let Some(record) = self.catalog.record(used.file).filter(|record| record.here().is_some()) else { continue };
                match room.checked_sub(used.bytes) {
                    Some(left) => {
                        room = left;
                        self.batch.push((record, None));
                    }
                    None => self.leave(&record, "it does not fit without others having to go"),
                }
            }
            let before = self.moved.files;
            if !self.go_on(progress) {
                return;
            }
            // Before it is asked how much more fits.
            if self.moved.files > before {
                self.volume.settle_space();
            }
        }
    }

    fn try_again(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return;
        }
        std::thread::sleep(SETTLES_IN);
        self.is_last_try = true;
        self.moved.seen -= changed.len() as u64;
        for node in changed {
            if let Some(record) = self.catalog.record(node) {
                self.take(record);
            }
            if self.batch.len() >= TIERED_TOGETHER {
                self.move_batch();
            }
        }
        self.move_batch();
    }

    fn take(&mut self, record: Record) {
        let Some(local) = record.here() else { return };
        let Way::Recall(recalling) = &self.way else {
            self.moved.seen += 1;
            if !Candidate::is_suited(local) {
                self.moved.unsuited += 1;
                return;
            }
            match Candidate::of(&record) {
                None => self.leave(&record, NOT_SAFE),
                Some(_) if self.kept.stays(&self.catalog, record.node, &local.place).is_some() => {
                    self.leave(&record, PINNED);
                }
                Some(_) if self.is_stub(&local.handle) => {
                    self.moved.already += 1;
                    if self.way == Way::Tier {
                        self.volume.give_up_part(&local.handle);
                    }
                }
                candidate => self.batch.push((record, candidate)),
            }
            return;
        };
        if recalling.pattern.as_ref().is_some_and(|pattern| !matches(pattern.as_bytes(), local.place.name.as_bytes())) {
            return;
        }
        self.moved.seen += 1;
        if !self.is_stub(&local.handle) {
            self.moved.already += 1;
        } else if record.live().is_none_or(|node| node.content.file().is_none()) {
            self.leave(&record, NOT_SAFE);
        } else if recalling.by_warmth {
            let (position, bytes) = (self.volume.last_use(&record, local).position(), local.print.size);
            self.found.push(Used { position, bytes, file: record.node });
        } else {
            self.batch_bytes += local.print.size;
            self.batch.push((record, None));
        }
    }

    /// What was pinned since the run began stays too.
    fn leave_pinned(&mut self, batch: &mut Vec<(Record, Option<Candidate>)>) {
        if let Some(kept) = Kept::new(&self.catalog, Policy::default()) {
            self.kept = kept;
        }
        for (record, candidate) in std::mem::take(batch) {
            let place = record.here().map(|local| local.place.clone());
            match place.and_then(|place| self.kept.stays(&self.catalog, record.node, &place)) {
                Some(_) => self.leave(&record, PINNED),
                None => batch.push((record, candidate)),
            }
        }
    }

    fn is_stub(&self, file: &Handle) -> bool {
        let inode = gate_handle(file).and_then(|handle| self.root.inode(&handle));
        inode.is_ok_and(|inode| inode.is_stub())
    }

    fn move_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if self.way == Way::Tier && !batch.is_empty() {
            self.leave_pinned(&mut batch);
        }
        if batch.is_empty() {
            return;
        }
        let here = batch.iter().filter_map(|(record, _)| record.here());
        let sizes: Vec<u64> = here.clone().map(|local| local.print.size).collect();
        let results: Vec<Result<(), NotTiered>> = match &self.way {
            // Asked for each batch: records of the service may have been put back since the first.
            Way::Tier if !self.volume.knows_share(self.endpoint) => {
                batch.iter().for_each(|(record, _)| self.leave(record, NOT_KNOWN));
                return;
            }
            Way::Plan => {
                batch.iter().for_each(|(record, _)| self.note_use(record));
                let of = (self.volume.root(), self.volume.dedup());
                let candidates = batch.iter().filter_map(|(_, candidate)| candidate.as_ref());
                if let Some(frees) = &mut self.frees {
                    candidates.for_each(|going| frees.note(of, going));
                }
                batch.iter().map(|_| Ok(())).collect()
            }
            Way::Tier => {
                let candidates: Vec<Candidate> = batch.iter().filter_map(|(_, candidate)| candidate.clone()).collect();
                self.volume.tier(&candidates)
            }
            Way::Recall(recalling) => {
                let came = self.volume.recall(here.map(|local| local.handle.clone()).collect(), recalling.lengths);
                came.into_iter().map(|is_whole| is_whole.then_some(()).ok_or(NotTiered::Held)).collect()
            }
        };
        for (((record, _), size), result) in batch.iter().zip(sizes).zip(results) {
            match result {
                Ok(()) => {
                    self.moved.files += 1;
                    self.moved.bytes += size;
                }
                Err(NotTiered::IsStub) => self.moved.already += 1,
                Err(NotTiered::Changed) if !self.is_last_try => self.changed.push(record.node),
                Err(_) if matches!(self.way, Way::Recall(_)) => {
                    self.leave(record, "its content did not come; see `isotherm problems`")
                }
                Err(why) => self.leave(record, &why.to_string()),
            }
        }
    }

    fn note_use(&mut self, record: &Record) {
        if let Some(local) = record.here() {
            let last = self.volume.last_use(record, local).last_ms;
            self.moved.coldest_ms = Some(self.moved.coldest_ms.map_or(last, |known| known.min(last)));
        }
    }

    fn leave(&mut self, record: &Record, why: &str) {
        self.moved.left += 1;
        if self.moved.why.len() < NAMED_MAX {
            self.moved.why.push((ShownPath::new(&self.catalog.path(record.node)), why.to_owned()));
        }
    }
}
