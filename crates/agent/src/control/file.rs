//! The sync state of one path, from the catalog and the file system.
//!
//! It reads what was last committed to the catalog; what happened in the last half second may be missing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use isotherm_api::path::ShownPath;
use isotherm_api::sync::Problem;
use isotherm_core::exclude::Exclusions;
use isotherm_core::ids::{EndpointId, NodeId, Version};
use isotherm_core::name::Name;
use isotherm_core::node::{Content, Kind};
use isotherm_core::stub::StubRecord;
use isotherm_core::trees::{LocalContent, Print, Record, State};
use isotherm_gate::{Dir, GateError, Root, Stat, StubFile};
use serde::{Deserialize, Serialize};

use crate::agent::{EndpointView, Overview};
use crate::catalog::CatalogReader;
use crate::endpoint::CATALOG;
use crate::guarded::{GuardedVolume, GuardedVolumes};
use crate::tiering::outlook_of_stub;
use crate::volume::print_of;

/// Where a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Folder and share agree.
    Synced,
    /// Something here is not in the share yet.
    Unsafe,
    /// The share has something that is not here yet.
    Incoming,
    /// Deleted here; the share will follow.
    DeletedHere,
    /// Deleted in the share; this server will follow.
    DeletedThere,
    /// Here, and not recorded yet.
    Unseen,
    /// Its name never takes part in sync.
    Excluded,
    /// Neither here nor in the share.
    Absent,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// Path below the endpoint.
    #[serde(flatten)]
    pub path: ShownPath,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its group.
    pub group: String,
    /// Where it stands.
    pub state: FileState,
    /// The node, once it has one.
    pub node: Option<NodeId>,
    /// File, directory or symlink.
    pub kind: Option<Kind>,
    /// The newest version that the share has, as far as known here.
    pub version: Option<Version>,
    /// Length in bytes, here.
    pub size: Option<u64>,
    /// Space on disk in bytes.
    pub size_on_disk: Option<u64>,
    /// Whether its content is in the share only, and comes when somebody opens it.
    pub tiered: bool,
    /// Of a partially tiered file: how many bytes of its content are here by its record.
    #[serde(default)]
    pub resident: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Numbers of owner and group.
    pub owner: Option<(u32, u32)>,
    /// Last change of the content, in milliseconds since 1970.
    pub modified_ms: Option<i64>,
    /// Last use that is known of, in milliseconds since 1970: on a guarded volume the last recall, change or making, elsewhere the access
    /// that the file system noted.
    pub accessed_ms: Option<i64>,
    /// The last time that its content came back, as far as is remembered.
    pub recalled: Option<RecallView>,
    /// On a guarded volume: what becomes of its content by itself, and why.
    pub outlook: Option<String>,
    /// For a conflict copy: the path that kept the name.
    pub conflict_of: Option<ShownPath>,
    /// What is wrong with it, and what to do.
    pub problem: Option<(String, String)>,
}

/// A content that came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallView {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long who asked for it waited, in milliseconds; 0 where nobody did.
    pub took_ms: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The program that asked first; none if no program waited at the file, as with `isotherm recall` and kernel NFS.
    pub program: Option<String>,
    /// Number of its process.
    pub process: Option<i32>,
    /// Number of its user.
    pub user: Option<u32>,
}

/// The endpoint in which a path lies, and the names that lead to it from there.
pub(super) fn locate<'a>(overview: &'a Overview, path: &[u8]) -> Result<(&'a EndpointView, Vec<Name>), String> {
    let path = Path::new(OsStr::from_bytes(path));
    let found = overview.endpoints.iter().find_map(|endpoint| Some((endpoint, path.strip_prefix(&endpoint.path).ok()?)));
    let (endpoint, below) = found.ok_or_else(|| format!("Path {} is in no endpoint of this server", path.display()))?;
    let names: Result<Vec<Name>, _> = below.iter().map(|name| Name::new(name.as_bytes())).collect();
    Ok((endpoint, names.map_err(|error| format!("Path {}: {error}", path.display()))?))
}

/// A path on a guarded volume, and what is known of it.
pub(super) struct Spot<'a> {
    pub(super) endpoint: &'a EndpointView,
    pub(super) catalog: CatalogReader,
    pub(super) volume: Arc<GuardedVolume>,
    pub(super) record: Record,
}

/// Finds a path where contents may come and go.
pub(super) fn on_guarded<'a>((overview, guarded): (&'a Overview, &GuardedVolumes), path: &[u8]) -> Result<Spot<'a>, String> {
    let (endpoint, names) = locate(overview, path)?;
    let shown = Path::new(OsStr::from_bytes(path)).display();
    let volume = guarded.volume_of_endpoint(endpoint.endpoint);
    let volume = volume.ok_or_else(|| format!("{shown} is on no guarded volume; see `isotherm volume list`"))?;
    let catalog = catalog(overview, endpoint)?;
    let record = find(&catalog, &names, endpoint).ok_or_else(|| format!("{shown} is not known yet"))?;
    Ok(Spot { endpoint, catalog, volume, record })
}

pub(super) fn catalog(overview: &Overview, endpoint: &EndpointView) -> Result<CatalogReader, String> {
    let catalog = overview.state.join("endpoints").join(endpoint.endpoint.to_string()).join(CATALOG);
    CatalogReader::open(&catalog).map_err(|failure| failure.to_string())
}

/// Looks a path up.
pub(super) fn show((overview, guarded): (&Overview, &GuardedVolumes), path: &[u8]) -> Result<FileView, String> {
    let (endpoint, names) = locate(overview, path)?;
    let catalog = catalog(overview, endpoint)?;
    let record = find(&catalog, &names, endpoint);
    let mut found = look(Path::new(&endpoint.path), &names).map_err(|error| error.to_string())?;
    let volume = guarded.volume_of_endpoint(endpoint.endpoint);
    if let (Some(found), Some(volume), Some(local)) = (&mut found, &volume, record.as_ref().and_then(Record::here)) {
        found.is_coming = volume.is_recalling(&local.handle);
    }
    let mut view = view(endpoint, &catalog, &names, record.clone(), found);
    if let (Some(volume), Some(record)) = (volume, record)
        && let Some(local) = record.here().filter(|local| local.kind() == Kind::File)
    {
        view.recalled = recalled(&volume, record.node);
        view.accessed_ms = i64::try_from(volume.last_use(&record, local).last_ms).ok();
        view.outlook = Some(match view.tiered {
            true => outlook_of_stub(&catalog, &record, local),
            false => volume.outlook(endpoint.endpoint, &catalog, &record, local),
        });
    }
    Ok(view)
}

/// What is known of the node with these names.
fn find(catalog: &CatalogReader, names: &[Name], endpoint: &EndpointView) -> Option<Record> {
    let mut record = catalog.record(NodeId::ROOT)?;
    for name in names {
        record = catalog.child(record.node, name, endpoint.case)?;
    }
    Some(record)
}

/// What the disk shows of a path.
struct Found {
    stat: Stat,
    is_stub: bool,
    /// Bytes that are here, where its record tells.
    resident: Option<u64>,
    /// Something of it is on its way, or somebody reads it while it comes.
    is_coming: bool,
}

/// The state of a path.
fn look(root: &Path, names: &[Name]) -> Result<Option<Found>, GateError> {
    let root = Root::open(root)?;
    let Some((last, parents)) = names.split_last() else {
        return root.dir().stat_self().map(|stat| Some(Found { stat, is_stub: false, resident: None, is_coming: false }));
    };
    let mut dir: Dir = root.dir().try_clone()?;
    for name in parents {
        dir = match dir.open_dir(OsStr::from_bytes(name.as_bytes())) {
            Ok(dir) => dir,
            Err(_) => return Ok(None),
        };
    }
    let last = OsStr::from_bytes(last.as_bytes());
    let Some(stat) = dir.stat(last)? else { return Ok(None) };
    let inode = dir.inode(last).ok().filter(|_| stat.kind == isotherm_gate::Kind::File);
    let is_stub = inode.as_ref().is_some_and(isotherm_gate::Inode::is_stub);
    let record = inode.filter(|_| is_stub).and_then(|inode| StubFile::open_to_look(&inode).ok()?.record().ok()?);
    let resident = record.and_then(|value| StubRecord::decode_unbound(&value).ok()?.1);
    let resident = resident.map(|units| units.bytes(stat.size).map(|bytes| bytes.end - bytes.start).sum());
    Ok(Some(Found { stat, is_stub, resident, is_coming: false }))
}

fn view(
    endpoint: &EndpointView,
    catalog: &CatalogReader,
    names: &[Name],
    record: Option<Record>,
    found: Option<Found>,
) -> FileView {
    let stat = found.as_ref().map(|found| &found.stat);
    let bytes = names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>().join(&b'/');
    let exclusions = Exclusions::new(&endpoint.exclusions);
    let is_excluded = names.iter().any(|name| exclusions.excludes(name.as_bytes()));
    let is_problem = |problem: &&Problem| problem.path == bytes;
    let problem = endpoint.problems.iter().find(is_problem).map(|problem| (problem.text.clone(), problem.remedy.clone()));
    let kept = record.as_ref().and_then(conflict_of).map(|node| ShownPath::new(&catalog.path(node)));
    let content = record.as_ref().and_then(content);
    FileView {
        path: ShownPath::new(&bytes),
        endpoint: endpoint.endpoint,
        group: endpoint.group_name.clone(),
        state: if is_excluded { FileState::Excluded } else { state(record.as_ref(), found.as_ref(), names.is_empty()) },
        node: record.as_ref().map(|record| record.node),
        kind: content.map(|content| content.kind()).or(record.as_ref().and_then(|record| Some(record.here()?.kind()))),
        version: record.as_ref().and_then(|record| Some(record.live()?.versions.last)),
        size: stat.map(|stat| stat.size),
        size_on_disk: stat.map(|stat| stat.blocks * 512),
        tiered: found.as_ref().is_some_and(|found| found.is_stub),
        resident: found.as_ref().and_then(|found| found.resident),
        mode: stat.map(|stat| stat.mode),
        owner: stat.map(|stat| (stat.uid, stat.gid)),
        modified_ms: stat.map(|stat| stat.mtime_ns / 1_000_000),
        accessed_ms: stat.map(|stat| stat.atime_ns / 1_000_000),
        recalled: None,
        outlook: None,
        conflict_of: kept,
        problem,
    }
}

fn recalled(volume: &GuardedVolume, node: NodeId) -> Option<RecallView> {
    let last = volume.history().of(node).into_iter().find(|one| one.what.is_recall())?;
    Some(RecallView {
        at_ms: last.at_ms,
        took_ms: last.waited_ms.unwrap_or(0),
        bytes: last.bytes,
        program: last.program,
        process: last.process,
        user: last.user,
    })
}

fn conflict_of(record: &Record) -> Option<NodeId> {
    record.live().map_or(record.conflict_of, |node| node.conflict_of)
}

fn content(record: &Record) -> Option<&Content> {
    record.here().and_then(|local| local.known()).or_else(|| record.live().map(|node| &node.content))
}

fn state(record: Option<&Record>, found: Option<&Found>, is_root: bool) -> FileState {
    let stat = found.map(|found| &found.stat);
    let Some(record) = record else {
        return if stat.is_some() { FileState::Unseen } else { FileState::Absent };
    };
    if is_root {
        return FileState::Synced;
    }
    // What the disk shows now counts more than what was recorded.
    let has_moved_on = match (record.here(), stat) {
        (Some(local), Some(stat)) if local.kind() != Kind::Directory => {
            let (now, known) = (print_of(stat), local.print);
            // What came of it while it was read has moved the time that nobody can set; the other one it has again when that ends.
            let (is_stub, is_coming) = found.map_or((false, false), |found| (found.is_stub, found.is_coming));
            let changed = if is_stub { known.changed } else { now.changed };
            let modified = if is_stub && is_coming { known.modified } else { now.modified };
            Print { changed, modified, ..now } != known
        }
        (None, Some(_)) => true,
        _ => false,
    };
    match record.state() {
        _ if has_moved_on => FileState::Unsafe,
        State::Settled => FileState::Synced,
        State::DeletedHere => FileState::DeletedHere,
        State::DeletedThere => FileState::DeletedThere,
        State::Gone => FileState::Absent,
        State::Open => open_state(record),
    }
}

fn open_state(record: &Record) -> FileState {
    match (&record.local, &record.synced) {
        (Some(local), Some(synced)) if local.content != LocalContent::Unread && local.agrees(synced) => FileState::Incoming,
        (None, _) => FileState::Incoming,
        _ => FileState::Unsafe,
    }
}
