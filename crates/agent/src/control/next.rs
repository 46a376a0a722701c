//! What goes next by itself on a guarded volume, and what comes: the same rules and the same order as those that let contents go and
//! have them come, asked without doing either.
//!
//! **Invariant:** nothing is moved, and nothing is noted.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_api::path::ShownPath;
use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::tiering::{Heat, Plan, Volume};
use serde::{Deserialize, Serialize};

use super::file::{self, Spot};
use crate::agent::Overview;
use crate::catalog::{CatalogReader, What};
use crate::clock::wall_ms;
use crate::guarded::{GuardedVolume, GuardedVolumes};
use crate::recall::Cold;
use crate::tiering::{Situation, cold_files, expected};

/// Most that are told of.
pub const COUNT_MAX: usize = 10_000;

/// What goes and comes next on a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextView {
    /// Where users see the volume.
    #[serde(flatten)]
    pub volume: ShownPath,
    /// Whether anything may go or come by itself now: some endpoint tiers, and what the share holds is known.
    pub on: bool,
    /// Size of the volume in bytes.
    pub total: u64,
    /// Of it free for users.
    pub free: u64,
    /// What is to stay free.
    pub goal: u64,
    /// Bytes that have to go now.
    pub needed: u64,
    /// What goes next, the first first.
    pub goes: Vec<GoesNext>,
    /// What comes next, the first first.
    pub comes: Vec<ComesNext>,
}

/// A content that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoesNext {
    /// The absolute path of its file.
    #[serde(flatten)]
    pub path: ShownPath,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// The last use, in milliseconds since 1970.
    pub last_ms: u64,
    /// Why, and when.
    pub reason: GoesFor,
}

/// Why a content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoesFor {
    /// Nobody has used it for longer than its endpoint allows, in seconds: it goes soon.
    Age(u64),
    /// It is colder than the rest, and so many bytes are still needed when all that stand before it have gone.
    Space(u64),
    /// Nothing needs to go for it now; if anything has to, it is its turn.
    Later,
}

/// A content that comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComesNext {
    /// The absolute path of its file.
    #[serde(flatten)]
    pub path: ShownPath,
    /// Its length in bytes.
    pub bytes: u64,
    /// The last use of the file, in milliseconds since 1970.
    pub last_ms: u64,
    /// Because it is pinned, or because its endpoint has what is new or changed come.
    pub reason: What,
    /// There is room for it now; otherwise it waits.
    pub fits: bool,
}

/// Answers for the volume of a path, with at most so many of each.
pub(super) fn show((overview, guarded): (&Overview, &GuardedVolumes), path: &[u8], count: usize) -> Result<NextView, String> {
    let Spot { volume, .. } = file::on_guarded((overview, guarded), path)?;
    let count = count.min(COUNT_MAX);
    let shown = ShownPath::new(volume.path().as_os_str().as_encoded_bytes());
    let off = NextView { volume: shown, on: false, total: 0, free: 0, goal: 0, needed: 0, goes: Vec::new(), comes: Vec::new() };
    let Some(situation) = volume.situation() else { return Ok(off) };
    let space = situation.volume;
    let mut names = Names { overview, readers: BTreeMap::new() };
    let plan = Plan::in_order(space, wall_ms(), count);
    let cold = cold_files((volume.root(), &situation.grounds), volume.heat(), plan, &BTreeSet::new(), &|| true);
    let goes = goes(&situation, &volume, cold, &mut names);
    let comes: Vec<ComesNext> = expected(&volume)
        .into_iter()
        .take(count)
        .filter_map(|one| {
            let (path, heat, bytes) = names.of(&volume, one.endpoint, one.node)?;
            Some(ComesNext { path, bytes, last_ms: heat.last_ms, reason: one.why, fits: one.fits })
        })
        .collect();
    let Volume { total, free, .. } = space;
    Ok(NextView { on: true, total, free, goal: space.levels().goal, needed: space.needed(), goes, comes, ..off })
}

fn goes(situation: &Situation, volume: &GuardedVolume, cold: Vec<Cold>, names: &mut Names<'_>) -> Vec<GoesNext> {
    let (mut needed, now_ms) = (situation.volume.needed(), wall_ms());
    let mut of = |cold: Cold| {
        let (path, heat, _) = names.of(volume, cold.endpoint, cold.candidate.record.node)?;
        let policy = &situation.grounds.iter().find(|ground| ground.endpoint == cold.endpoint)?.policy;
        let reason = match (policy.older_than_s.filter(|_| policy.is_old(heat, now_ms)), needed) {
            (Some(seconds), _) => GoesFor::Age(seconds),
            (None, 0) => GoesFor::Later,
            (None, needed) => GoesFor::Space(needed),
        };
        needed = needed.saturating_sub(cold.bytes);
        Some(GoesNext { path, bytes: cold.bytes, last_ms: heat.last_ms, reason })
    };
    cold.into_iter().filter_map(&mut of).collect()
}

/// Knows the files of endpoints.
struct Names<'a> {
    overview: &'a Overview,
    readers: BTreeMap<EndpointId, CatalogReader>,
}

impl Names<'_> {
    fn reader(&mut self, endpoint: EndpointId) -> Option<(&CatalogReader, &str)> {
        let view = self.overview.endpoints.iter().find(|view| view.endpoint == endpoint)?;
        if !self.readers.contains_key(&endpoint) {
            self.readers.insert(endpoint, file::catalog(self.overview, view).ok()?);
        }
        Some((self.readers.get(&endpoint)?, &view.path))
    }

    /// The absolute path of a file, its uses, and its length in bytes; none if it has gone meanwhile.
    fn of(&mut self, volume: &GuardedVolume, endpoint: EndpointId, node: NodeId) -> Option<(ShownPath, Heat, u64)> {
        let (reader, top) = self.reader(endpoint)?;
        let record = reader.record(node)?;
        let local = record.here()?;
        let path = ShownPath::new(&[top.as_bytes(), b"/", &reader.path(node)].concat());
        Some((path, volume.last_use(&record, local), local.print.size))
    }
}
