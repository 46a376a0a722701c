//! What is forgotten after the tombstone horizon: nodes that were deleted long ago, and old answers. And the clock by
//! which things grow old.
//!
//! **Invariant:** a share's horizon lies at or after the last version of every node that was forgotten: a reader before it
//! starts over.

use isotherm_core::ids::{GroupId, NodeId};
use isotherm_core::namespace::Records as _;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::codec::{signed, unsigned};
use super::share::SqlRecords;
use crate::fault::Fault;

/// How far the clock of retention goes in one run at most, in milliseconds: a wrong clock of the machine costs a day of
/// old versions in each run, and leaves time to see it.
const CLOCK_STEP_MS: u64 = 24 * 60 * 60 * 1000;

/// The time by which versions and deletions grow old: that of the machine, but in steps of a day at most, and never back.
pub(crate) fn advance_clock(connection: &Connection, now_ms: u64) -> Result<u64, Fault> {
    let sql = "SELECT value FROM meta WHERE key = 'retention_ms'";
    let known = connection.query_row(sql, [], |row| row.get(0).map(unsigned)).optional()?;
    let time = known.map_or(now_ms, |known| known + now_ms.saturating_sub(known).min(CLOCK_STEP_MS));
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('retention_ms', ?1)", [signed(time)])?;
    if time + CLOCK_STEP_MS < now_ms {
        tracing::warn!(
            behind_ms = now_ms - time,
            "The clock went ahead by more than a day since the last collection; old versions go a day at a time"
        );
    }
    Ok(time)
}

/// Nodes that were deleted before a moment and of which no version is kept, at most `limit` that follow `after` in order of
/// id. It may look at all nodes of a share.
pub(crate) fn long_deleted(
    connection: &Connection,
    group: GroupId,
    before_ms: u64,
    after: Option<NodeId>,
    limit: usize,
) -> Result<Vec<NodeId>, Fault> {
    let num = SqlRecords::open(connection, group, before_ms)?.num();
    let from = after.map_or_else(Vec::new, |node| node.0.to_vec());
    let sql = "SELECT id FROM node WHERE share = ?1 AND id > ?2 AND deleted = 1 AND at_ms < ?3
        AND NOT EXISTS (SELECT 1 FROM revision WHERE revision.share = ?1 AND revision.id = node.id) ORDER BY id LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![num, from, signed(before_ms), limit as i64], |row| row.get(0).map(NodeId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets those of some nodes that were deleted before a moment and of which no version is kept; gives how many.
pub(crate) fn forget_deleted(connection: &Connection, group: GroupId, before_ms: u64, nodes: &[NodeId]) -> Result<usize, Fault> {
    let records = SqlRecords::open(connection, group, before_ms)?;
    let num = records.num();
    // One may have been brought back since it was found.
    let sql = "DELETE FROM node WHERE share = ?1 AND id = ?2 AND deleted = 1 AND at_ms < ?3
        AND NOT EXISTS (SELECT 1 FROM revision WHERE share = ?1 AND id = ?2) RETURNING last";
    let mut statement = connection.prepare_cached(sql)?;
    let (mut gone, mut newest) = (0, 0);
    for node in nodes {
        let last: Option<i64> = statement.query_row(params![num, node.0, signed(before_ms)], |row| row.get(0)).optional()?;
        gone += usize::from(last.is_some());
        newest = newest.max(last.unwrap_or(0));
    }
    debug_assert!(unsigned(newest) <= records.share()?.head.0);
    connection.execute("UPDATE share SET horizon = max(horizon, ?2) WHERE num = ?1", params![num, newest])?;
    Ok(gone)
}

/// Where the next page of answers begins, and how many of this one were forgotten.
pub(crate) type AnswersPage = (Option<[u8; 16]>, usize);

/// Forgets answers of before a moment among `limit` operations that follow `after` in order of id.
pub(crate) fn forget_answers(
    connection: &Connection,
    group: GroupId,
    before_ms: u64,
    after: Option<[u8; 16]>,
    limit: usize,
) -> Result<AnswersPage, Fault> {
    let num = SqlRecords::open(connection, group, before_ms)?.num();
    let from = after.map_or_else(Vec::new, |id| id.to_vec());
    let sql = "SELECT id, at_ms FROM operation WHERE share = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![num, from, limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let page: Vec<([u8; 16], i64)> = rows.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare_cached("DELETE FROM operation WHERE share = ?1 AND id = ?2")?;
    let mut forgotten = 0;
    for (id, _) in page.iter().filter(|(_, at_ms)| unsigned(*at_ms) < before_ms) {
        forgotten += statement.execute(params![num, id])?;
    }
    Ok((page.last().map(|(id, _)| *id).filter(|_| page.len() == limit), forgotten))
}
