//! What nodes were: the versions of a path, the nodes that a restore is about, and what is not kept any longer.
//!
//! It reads, but for [`expire`]. What a restore changes goes through core's rules like any commit.
//!
//! **Invariant:** what is offered here can be read: content that retention let go is not offered.

use std::collections::{BTreeMap, BTreeSet};

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
        // All of them are looked at: after the clock was set back, a younger version has an earlier time.
        let sql = "SELECT data, at_ms FROM node WHERE share = ?1 AND last < ?2 AND at_ms > ?4 AND last > ?5
            ORDER BY last DESC LIMIT ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let before = before.map_or(i64::MAX, |before| signed(before.0));
        let (after_ms, after) = match moment {
            Moment::Time(ms) => (signed(ms), i64::MIN),
            Moment::Version(version) => (i64::MIN, signed(version.0)),
        };
        let mut rows = statement.query(params![self.num(), before, limit as i64, after_ms, after])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let node = decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
            found.push(Revision { node, at_ms: unsigned(row.get(1)?), replaced_ms: None });
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

/// Where the next page of what may be let go begins: when a revision was replaced, of which node and which version it is.
pub(crate) type ExpiryCursor = (i64, [u8; 16], i64);

/// Lets go what a group does not keep any longer, of `limit` revisions that follow `after` in the order in which they were
/// replaced. Gives where the next page begins, and how many went. Their content becomes garbage.
pub(crate) fn expire(
    connection: &Connection,
    group: GroupId,
    now_ms: u64,
    after: Option<ExpiryCursor>,
    limit: usize,
) -> Result<(Option<ExpiryCursor>, usize), Fault> {
    // As it is now, not as it was when the run began: a hold holds at once.
    let keep = super::groups::group_by_id(connection, group)?.keep;
    if keep.hold {
        return Ok((None, 0));
    }
    let records = SqlRecords::open(connection, group, now_ms)?;
    let until = signed(now_ms.saturating_sub(u64::from(keep.days) * DAY_MS));
    let sql = "SELECT replaced_ms, id, last FROM revision
        WHERE share = ?1 AND replaced_ms >= ?3 AND replaced_ms < ?2 AND (replaced_ms, id, last) > (?3, ?4, ?5)
        ORDER BY replaced_ms, id, last LIMIT ?6";
    let from = after.unwrap_or((i64::MIN, [0; 16], i64::MIN));
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![records.num(), until, from.0, from.1, from.2, limit as i64];
    let rows = statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let page: Vec<ExpiryCursor> = rows.collect::<Result<_, _>>()?;
    let gone = records.let_go(&page, keep.versions)?;
    Ok((page.last().copied().filter(|_| page.len() == limit), gone))
}

impl SqlRecords<'_> {
    /// Lets go those of a page that are not among the newest `versions` of their nodes, the present version included.
    fn let_go(&self, page: &[ExpiryCursor], versions: u32) -> Result<usize, Fault> {
        let next = "SELECT coalesce(
            (SELECT min(last) FROM revision WHERE share = ?1 AND id = ?2 AND last > ?3),
            (SELECT last FROM node WHERE share = ?1 AND id = ?2), ?3)";
        let mut next = self.connection().prepare_cached(next)?;
        let delete = "DELETE FROM revision WHERE share = ?1 AND id = ?2 AND last = ?3";
        let mut delete = self.connection().prepare_cached(delete)?;
        // Once for each node: one that changes all the time has hundreds of thousands of revisions.
        let mut kept_from: BTreeMap<[u8; 16], i64> = BTreeMap::new();
        let (mut gone, mut newest) = (0, (0, 0));
        for (replaced_ms, id, last) in page {
            let kept_from = match kept_from.get(id) {
                Some(from) => *from,
                None => *kept_from.entry(*id).or_insert(self.kept_from(id, versions)?),
            };
            if *last >= kept_from {
                continue;
            }
            let after: i64 = next.query_row(params![self.num(), id, last], |row| row.get(0))?;
            gone += delete.execute(params![self.num(), id, last])?;
            newest = (replaced_ms.max(&newest.0).to_owned(), after.max(newest.1));
        }
        // Whoever asks for what was before these were replaced is told that it is not known any more.
        let sql = "UPDATE share SET gone_ms = max(gone_ms, ?2), gone_version = max(gone_version, ?3) WHERE num = ?1";
        self.connection().prepare_cached(sql)?.execute(params![self.num(), newest.0, newest.1])?;
        Ok(gone)
    }

    /// The oldest revision of a node that is kept for being among its newest `versions`; beyond all of them where none is.
    fn kept_from(&self, id: &[u8; 16], versions: u32) -> Result<i64, Fault> {
        // The present version is the newest, so one fewer of the others is kept beside it.
        let Some(skipped) = versions.checked_sub(2) else { return Ok(i64::MAX) };
        let sql = "SELECT last FROM revision WHERE share = ?1 AND id = ?2 ORDER BY last DESC LIMIT 1 OFFSET ?3";
        let found = self.connection().prepare_cached(sql)?.query_row(params![self.num(), id, skipped], |row| row.get(0));
        // Fewer than are kept.
        Ok(found.optional()?.unwrap_or(i64::MIN))
    }
}
