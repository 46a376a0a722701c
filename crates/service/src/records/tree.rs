//! Paths of a share: look one up, list a directory, walk the whole tree, list the conflict copies.
//!
//! It reads only, in the caller's transaction.
//!
//! **Invariant:** a walk names each live node once, after its parent.

use isotherm_api::management::{Conflict, TreeEntry};
use isotherm_api::path::ShownPath;
use isotherm_core::ids::{GroupId, NodeId};
use isotherm_core::name::Name;
use isotherm_core::namespace::{Life, Records as _, Share};
use isotherm_core::node::{Content, Kind, Node};
use rusqlite::{Connection, params};

use super::codec::{decode_node, unsigned};
use super::share::SqlRecords;
use crate::fault::Fault;

/// Most directories above a node that are named in a path; deeper ones are cut, which only a damaged tree has.
const DEPTH_MAX: usize = 4096;

/// What a path means.
#[derive(Debug)]
pub(crate) enum Found {
    /// The top of the share.
    Root,
    /// A live node.
    Node(Box<Node>),
}

/// Looks up a path; empty parts are nothing.
pub(crate) fn find(records: &SqlRecords<'_>, path: &[u8]) -> Result<Found, Fault> {
    let shown = || Fault::not_found("Path", isotherm_core::name::escape(path));
    let case = records.share()?.case;
    let mut found = Found::Root;
    for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        let parent = match &found {
            Found::Root => NodeId::ROOT,
            Found::Node(node) => node.id,
        };
        let name = Name::new(part).map_err(|_| shown())?;
        let id = records.child(parent, &name.key(case))?.ok_or_else(shown)?;
        found = Found::Node(Box::new(records.node(id)?.ok_or_else(shown)?));
    }
    Ok(found)
}

/// The entries of a directory by name, or the one node that is none.
pub(crate) fn list(connection: &Connection, records: &SqlRecords<'_>, found: &Found) -> Result<Vec<TreeEntry>, Fault> {
    let parent = match found {
        Found::Root => NodeId::ROOT,
        Found::Node(node) if node.kind() == Kind::Directory => node.id,
        Found::Node(node) => return Ok(vec![entry(node)]),
    };
    let sql = "SELECT data FROM node WHERE share = ?1 AND parent = ?2 AND deleted = 0 ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![records.num(), parent.0])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(&decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?));
    }
    Ok(entries)
}

fn entry(node: &Node) -> TreeEntry {
    let target = match &node.content {
        Content::Symlink { target } => Some(ShownPath::new(target)),
        _ => None,
    };
    TreeEntry {
        name: ShownPath::new(node.place.name.as_bytes()),
        node: node.id,
        kind: node.kind(),
        size: node.content.size(),
        modified_ns: node.content.file().map(|file| file.modified.0),
        manifest: node.content.file().map(|file| file.manifest),
        target,
        version: node.versions.last,
    }
}

/// Walks all live nodes of a share, parents first, in one transaction that the connection is in. `start` gets the
/// share at that moment, and the lives that have ended. Either callback ends the walk by answering false; the count is that of the nodes given.
pub(crate) fn snapshot(
    connection: &Connection,
    group: GroupId,
    start: impl FnOnce(Share, Vec<Life>) -> bool,
    mut each: impl FnMut(Node) -> bool,
) -> Result<u64, Fault> {
    let records = SqlRecords::open(connection, group, 0)?;
    if !start(records.share()?, records.lives()?) {
        return Ok(0);
    }
    // The queue of the recursion holds ids only; `CROSS JOIN` keeps the order of the walk.
    let sql = "WITH RECURSIVE tree (id, kind) AS (
            SELECT id, kind FROM node WHERE share = ?1 AND parent = ?2 AND deleted = 0
            UNION ALL
            SELECT node.id, node.kind FROM tree CROSS JOIN node
                ON node.share = ?1 AND node.parent = tree.id AND node.deleted = 0
                WHERE tree.kind = 0)
        SELECT node.data FROM tree CROSS JOIN node ON node.share = ?1 AND node.id = tree.id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![records.num(), NodeId::ROOT.0])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        if !each(decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?) {
            break;
        }
    }
    Ok(count)
}

/// The conflict copies of a share.
pub(crate) fn conflicts(connection: &Connection, group: GroupId, group_name: &str) -> Result<Vec<Conflict>, Fault> {
    let records = SqlRecords::open(connection, group, 0)?;
    let sql = "SELECT data, at_ms FROM node WHERE share = ?1 AND conflict_of IS NOT NULL AND deleted = 0";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([records.num()])?;
    let mut conflicts = Vec::new();
    while let Some(row) = rows.next()? {
        let node = decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let kept = match node.conflict_of {
            Some(kept) => records.node(kept)?.filter(Node::is_live),
            None => None,
        };
        conflicts.push(Conflict {
            group: group_name.to_owned(),
            node: node.id,
            path: ShownPath::new(&path_of(&records, &node)?),
            kept: kept.map(|kept| path_of(&records, &kept)).transpose()?.map(|path| ShownPath::new(&path)),
            since_ms: made_ms(connection, &records, &node, unsigned(row.get(1)?))?,
        });
    }
    conflicts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(conflicts)
}

/// When a node was made: the time of its first revision, or of the present one where that is the first.
fn made_ms(connection: &Connection, records: &SqlRecords<'_>, node: &Node, present_ms: u64) -> Result<u64, Fault> {
    if node.versions.created == node.versions.last {
        return Ok(present_ms);
    }
    let sql = "SELECT at_ms FROM revision WHERE share = ?1 AND id = ?2 AND last >= ?3 ORDER BY last LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![records.num(), node.id.0, node.versions.created.0 as i64])?;
    Ok(match rows.next()? {
        Some(row) => unsigned(row.get(0)?),
        None => present_ms,
    })
}

/// The path of a node from the top of the share, without a slash in front.
fn path_of(records: &SqlRecords<'_>, node: &Node) -> Result<Vec<u8>, Fault> {
    let mut parts = vec![node.place.name.clone()];
    let mut at = node.place.parent;
    while at != NodeId::ROOT && parts.len() < DEPTH_MAX {
        let Some(parent) = records.node(at)? else { break };
        at = parent.place.parent;
        parts.push(parent.place.name);
    }
    parts.reverse();
    Ok(parts.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/'))
}
