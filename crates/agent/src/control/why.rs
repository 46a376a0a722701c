//! Why the content of a file is here or not: what is asked for, what becomes of it, and what happened to it.
//!
//! **Invariant:** how a file stands is asked of the file itself; what happened is a record for people, and is believed only where it
//! fits that.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_api::path::ShownPath;
use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::node::Kind;
use isotherm_core::tiering::{Policy, Stays};
use isotherm_core::trees::{Local, Record};
use serde::{Deserialize, Serialize};

use super::file::{self, Spot};
use super::heat;
use crate::agent::Overview;
use crate::catalog::{CatalogReader, Happening, What};
use crate::guarded::{GuardedVolume, GuardedVolumes};
use crate::tiering::{Kept, outlook_of_stub};
use crate::volume::gate_handle;

/// What happened lately on the volume is looked through up to this number, for what happened below a directory.
const LOOKED_THROUGH: u32 = 5_000;
/// What is told of a directory.
const TOLD: usize = 20;

/// Where a content is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Here.
    Here,
    /// In the share only.
    Tiered,
    /// In the share, and on its way.
    Recalling,
}

/// Why a file is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// Path below the endpoint.
    #[serde(flatten)]
    pub path: ShownPath,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its group.
    pub group: String,
    /// File or directory.
    pub kind: Kind,
    /// Where the content is; none for a directory.
    pub standing: Option<Standing>,
    /// Whether it is pinned, or lies below what is.
    pub pinned: bool,
    /// Length of the content in bytes.
    pub size: Option<u64>,
    /// What made it so; none where that is not remembered, or a program has written the file anew since.
    pub because: Option<Happening>,
    /// What becomes of the content by itself, and why.
    pub outlook: Option<String>,
    /// Of a directory: what lies below it.
    pub below: Option<Below>,
    /// What happened, the newest first.
    pub happened: Vec<Happened>,
}

/// Something that happened, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The path of the file now, below the endpoint.
    #[serde(flatten)]
    pub path: ShownPath,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// The files below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// All of them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, files whose content is in the share only.
    pub tiered_files: u64,
    /// Their bytes.
    pub tiered_bytes: u64,
}

/// Answers for a path.
pub(super) fn show((overview, guarded): (&Overview, &GuardedVolumes), path: &[u8]) -> Result<WhyView, String> {
    let Spot { endpoint, catalog, volume, record } = file::on_guarded((overview, guarded), path)?;
    let shown = ShownPath::new(&catalog.path(record.node));
    let mut view = WhyView {
        path: shown.clone(),
        endpoint: endpoint.endpoint,
        group: endpoint.group_name.clone(),
        kind: Kind::Directory,
        standing: None,
        pinned: false,
        size: None,
        because: None,
        outlook: None,
        below: None,
        happened: Vec::new(),
    };
    if record.node.is_anchor() {
        view.pinned = catalog.pinned().is_some_and(|pinned| pinned.contains(&record.node));
        return Ok(of_directory(view, &catalog, &volume, record.node));
    }
    let text = String::from_utf8_lossy(path);
    let local = record.here().ok_or_else(|| format!("{text} is not here yet; `isotherm file show` tells what is known of it"))?;
    view.pinned = is_pinned(&catalog, &record, local);
    match local.kind() {
        Kind::Directory => return Ok(of_directory(view, &catalog, &volume, record.node)),
        Kind::Symlink => return Err(format!("{text} is a symlink: only contents of files come and go; name what it leads to")),
        Kind::File => view.kind = Kind::File,
    }
    let standing = standing(&volume, local);
    let happened = volume.history().of(record.node);
    let mut moves = happened.iter().filter(|one| one.what != What::ReadInPart);
    view.because = moves.next().filter(|last| last.what.is_recall() == (standing == Standing::Here)).cloned();
    view.outlook = Some(match standing {
        Standing::Here => volume.outlook(endpoint.endpoint, &catalog, &record, local),
        Standing::Tiered | Standing::Recalling => outlook_of_stub(&catalog, &record, local),
    });
    view.standing = Some(standing);
    view.size = Some(local.print.size);
    view.happened = happened.into_iter().map(|what| Happened { path: shown.clone(), what }).collect();
    Ok(view)
}

fn standing(volume: &GuardedVolume, local: &Local) -> Standing {
    let inode = gate_handle(&local.handle).and_then(|handle| volume.root().inode(&handle));
    match inode.is_ok_and(|inode| inode.is_stub()) {
        false => Standing::Here,
        true if volume.is_recalling(&local.handle) => Standing::Recalling,
        true => Standing::Tiered,
    }
}

fn is_pinned(catalog: &CatalogReader, record: &Record, local: &Local) -> bool {
    let kept = Kept::new(catalog, Policy::default());
    kept.is_some_and(|mut kept| kept.stays(catalog, record.node, &local.place) == Some(Stays::Pinned))
}

fn of_directory(view: WhyView, catalog: &CatalogReader, volume: &GuardedVolume, directory: NodeId) -> WhyView {
    let sum = heat::sum(catalog, volume, directory);
    let mut tree = Tree { catalog, known: BTreeMap::from([(directory, true)]) };
    let latest = volume.history().latest(LOOKED_THROUGH);
    let below = latest.into_iter().filter(|what| tree.is_below(what.node)).take(TOLD);
    let happened = below.map(|what| Happened { path: ShownPath::new(&catalog.path(what.node)), what }).collect();
    let (files, bytes) = (sum.files, sum.bytes);
    let below = Below { files, bytes, tiered_files: sum.tiered_files, tiered_bytes: sum.tiered_bytes };
    WhyView { below: Some(below), happened, ..view }
}

/// Which nodes lie below a directory; each is looked at once.
struct Tree<'a> {
    catalog: &'a CatalogReader,
    known: BTreeMap<NodeId, bool>,
}

impl Tree<'_> {
    fn is_below(&mut self, node: NodeId) -> bool {
        let (mut at, mut way) = (node, BTreeSet::new());
        let is_below = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            // A ring, which names of both sides together can make for a while, leads nowhere.
            let is_new = way.insert(at);
            match self
                .catalog
                .record(at)
                .filter(|_| is_new && !at.is_anchor())
                .and_then(|record| Some(record.here()?.place.parent))
            {
                Some(parent) => at = parent,
                None => break false,
            }
        };
        self.known.extend(way.into_iter().map(|node| (node, is_below)));
        is_below
    }
}
