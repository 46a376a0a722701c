//! What nodes were: the versions of a path, the nodes that a restore is about, and what is not kept any longer.
//!
//! It reads, but for [`expire`]. What a restore changes goes through core's rules like any commit.
//!
//! **Invariant:** what is offered here can be read: content that retention let go is not offered.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_api::management::Keep;
use isotherm_core::ids::{GroupId, NodeId, Version};
use isotherm_core::name::Name;
use isotherm_core::namespace::{Records as _, Revisions};
use isotherm_core::node::{Kind, Node};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::codec::{decode_node, signed, unsigned};
use super::share::SqlRecords;
use crate::fault::Fault;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Most directories above a node; deeper ones only a damaged tree has.
const DEPTH_MAX: usize = 4096;

/// A node as it was for a while.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) node: Node,
    pub(crate) at_ms: u64,
    /// When the next version came; none for the present one.
    pub(crate) replaced_ms: Option<u64>,
}

/// A moment that a restore goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Time(u64),
    Version(Version),
}

impl Revisions for SqlRecords<'_> {
    fn revision(&self, node: NodeId, version: Version) -> Result<Option<Node>, Fault> {
        if let Some(now) = self.node(node)?.filter(|now| now.versions.last == version) {
            return Ok(Some(now));
        }
        let sql = "SELECT data FROM revision WHERE share = ?1 AND id = ?2 AND last = ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(params![self.num(), node.0, signed(version.0)])?;
        rows.next()?.map(|row| decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)).transpose()
    }
}

impl SqlRecords<'_> {
    /// All that is kept of a node, newest first.
    pub(crate) fn versions(&self, node: NodeId) -> Result<Vec<Revision>, Fault> {
        let sql = "SELECT data, at_ms, NULL AS replaced_ms, last FROM node WHERE share = ?1 AND id = ?2
            UNION ALL SELECT data, at_ms, replaced_ms, last FROM revision WHERE share = ?1 AND id = ?2 ORDER BY last DESC";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(params![self.num(), node.0])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Revision {
                node: decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?,
                at_ms: unsigned(row.get(1)?),
                replaced_ms: row.get::<_, Option<i64>>(2)?.map(unsigned),
            });
        }
        Ok(found)
    }

    /// The version of a node that held at a moment; none if there was none, or it is not kept.
    pub(crate) fn version_at(&self, node: NodeId, moment: Moment) -> Result<Option<Node>, Fault> {
        let (column, value) = match moment {
            Moment::Time(ms) => ("at_ms", ms),
            Moment::Version(version) => ("last", version.0),
        };
        let sql = format!(
            "SELECT data FROM (
                SELECT data, last, at_ms FROM node WHERE share = ?1 AND id = ?2
                UNION ALL SELECT data, last, at_ms FROM revision WHERE share = ?1 AND id = ?2)
            WHERE {column} <= ?3 ORDER BY last DESC LIMIT 1"
        );
        let mut statement = self.connection().prepare_cached(&sql)?;
        let mut rows = statement.query(params![self.num(), node.0, signed(value)])?;
        rows.next()?.map(|row| decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)).transpose()
    }

    /// Nodes whose present version is older than `before` and younger than the moment, newest first.
    pub(crate) fn changed_since(&self, moment: Moment, before: Option<Version>, limit: usize) -> Result<Vec<Revision>, Fault> {
        let sql = "SELECT data, at_ms FROM node WHERE share = ?1 AND last < ?2 ORDER BY last DESC LIMIT ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let before = before.map_or(i64::MAX, |before| signed(before.0));
        let mut rows = statement.query(params![self.num(), before, limit as i64])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let node = decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
            let at_ms = unsigned(row.get(1)?);
            let is_after = match moment {
                Moment::Time(ms) => at_ms > ms,
                Moment::Version(version) => node.versions.last > version,
            };
            if !is_after {
                break;
            }
            found.push(Revision { node, at_ms, replaced_ms: None });
        }
        Ok(found)
    }

    /// All nodes that have or had this path, the present one first, then those that lost it last.
    pub(crate) fn ever_at(&self, path: &[u8]) -> Result<Vec<NodeId>, Fault> {
        let mut parents = vec![NodeId::ROOT];
        for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            let Ok(name) = Name::new(part) else { return Ok(Vec::new()) };
            let key = name.key(self.share()?.case);
            let mut found = Vec::new();
            for parent in parents {
                for node in self.ever_named(parent, &key)? {
                    if !found.contains(&node) {
                        found.push(node);
                    }
                }
            }
            parents = found;
        }
        Ok(parents)
    }

    fn ever_named(&self, parent: NodeId, key: &[u8]) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT id, max(rank) FROM (
                SELECT id, 9223372036854775807 AS rank FROM node WHERE share = ?1 AND parent = ?2 AND key = ?3 AND deleted = 0
                UNION ALL SELECT id, last FROM node WHERE share = ?1 AND parent = ?2 AND key = ?3 AND deleted = 1
                UNION ALL SELECT id, last FROM revision WHERE share = ?1 AND parent = ?2 AND key = ?3)
            GROUP BY id ORDER BY 2 DESC";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map(params![self.num(), parent.0, key], |row| row.get(0).map(NodeId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deleted nodes that were in this directory when they were deleted.
    pub(crate) fn deleted_in(&self, parent: NodeId) -> Result<Vec<Revision>, Fault> {
        let sql = "SELECT data, at_ms FROM node WHERE share = ?1 AND parent = ?2 AND deleted = 1";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(params![self.num(), parent.0])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let node = decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
            found.push(Revision { node, at_ms: unsigned(row.get(1)?), replaced_ms: None });
        }
        Ok(found)
    }

    /// Nodes that were in this directory in a version that is not their present one.
    pub(crate) fn once_in(&self, parent: NodeId) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT DISTINCT id FROM revision WHERE share = ?1 AND parent = ?2";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map(params![self.num(), parent.0], |row| row.get(0).map(NodeId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The path of a node as it is now, through directories that may be deleted.
    pub(crate) fn path_now(&self, node: &Node, known: &mut BTreeMap<NodeId, Vec<u8>>) -> Result<Vec<u8>, Fault> {
        let mut parts: Vec<Name> = vec![node.place.name.clone()];
        let mut at = node.place.parent;
        let mut seen = BTreeSet::new();
        let mut path = loop {
            if at == NodeId::ROOT {
                break Vec::new();
            }
            if let Some(path) = known.get(&at) {
                break path.clone();
            }
            let Some(parent) = self.node(at)?.filter(|_| seen.len() < DEPTH_MAX && seen.insert(at)) else { break Vec::new() };
            at = parent.place.parent;
            parts.push(parent.place.name);
        };
        for part in parts.iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part.as_bytes());
        }
        if node.kind() == Kind::Directory {
            known.insert(node.id, path.clone());
        }
        Ok(path)
    }

    /// The path of a version, by the names that its directories had then, as far as these are kept.
    pub(crate) fn path_then(&self, node: &Node) -> Result<Vec<u8>, Fault> {
        let moment = Moment::Version(node.versions.last);
        let (mut at, mut parts) = (node.place.parent, vec![node.place.name.clone()]);
        while at != NodeId::ROOT && parts.len() < DEPTH_MAX {
            let then = match self.version_at(at, moment)? {
                Some(then) => Some(then),
                None => self.versions(at)?.pop().map(|oldest| oldest.node),
            };
            let Some(directory) = then else { break };
            at = directory.place.parent;
            parts.push(directory.place.name);
        }
        Ok(parts.iter().rev().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/'))
    }

    /// Whether a node lies in a directory or is it, as its place was at a moment.
    pub(crate) fn was_below(&self, node: &Node, above: NodeId, moment: Moment) -> Result<bool, Fault> {
        if above == NodeId::ROOT || node.id == above {
            return Ok(true);
        }
        let mut at = node.place.parent;
        for _ in 0..DEPTH_MAX {
            if at == above {
                return Ok(true);
            }
            if at == NodeId::ROOT {
                return Ok(false);
            }
            let Some(parent) = self.version_at(at, moment)? else { return Ok(false) };
            at = parent.place.parent;
        }
        Ok(false)
    }
}

/// How far back everything that was is still kept, as a time and as a version; zeros as long as nothing was let go.
pub(crate) fn kept_since(connection: &Connection, group: GroupId) -> Result<(u64, Version), Fault> {
    let mut statement = connection.prepare_cached("SELECT gone_ms, gone_version FROM share WHERE id = ?1")?;
    let found = statement.query_row([&group.0], |row| Ok((unsigned(row.get(0)?), Version(unsigned(row.get(1)?)))));
    found.optional()?.ok_or_else(|| Fault::not_found("Share", group))
}

/// Lets go what a group does not keep any longer, at most `limit` rows; gives how many went. Their content becomes garbage.
pub(crate) fn expire(connection: &Connection, group: GroupId, keep: Keep, now_ms: u64, limit: usize) -> Result<usize, Fault> {
    if keep.hold {
        return Ok(0);
    }
    let num = SqlRecords::open(connection, group, now_ms)?.num();
    let until = signed(now_ms.saturating_sub(u64::from(keep.days) * DAY_MS));
    let sql = "SELECT id, last, replaced_ms, coalesce(
            (SELECT min(newer.last) FROM revision AS newer WHERE newer.share = ?1 AND newer.id = old.id AND newer.last > old.last),
            (SELECT node.last FROM node WHERE node.share = ?1 AND node.id = old.id), last)
        FROM revision AS old WHERE share = ?1 AND replaced_ms < ?2
            AND (SELECT count(*) FROM revision AS newer
                WHERE newer.share = ?1 AND newer.id = old.id AND newer.last > old.last) >= ?3
        LIMIT ?4";
    // The present version is the newest, so one fewer of the others is kept beside it.
    let beside = i64::from(keep.versions.saturating_sub(1));
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map(params![num, until, beside, limit as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let gone: Vec<([u8; 16], i64, i64, i64)> = rows.collect::<Result<_, _>>()?;
    let mut delete = connection.prepare_cached("DELETE FROM revision WHERE share = ?1 AND id = ?2 AND last = ?3")?;
    for (id, last, _, _) in &gone {
        delete.execute(params![num, id, last])?;
    }
    // Whoever asks for what was before these were replaced is told that it is not known any more.
    let newest = gone.iter().fold((0, 0), |(ms, version), row| (row.2.max(ms), row.3.max(version)));
    let sql = "UPDATE share SET gone_ms = max(gone_ms, ?2), gone_version = max(gone_version, ?3) WHERE num = ?1";
    connection.prepare_cached(sql)?.execute(params![num, newest.0, newest.1])?;
    Ok(gone.len())
}
