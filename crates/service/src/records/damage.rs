//! Which live files a check found damaged, until they are whole again: agents are asked for exactly these.
//!
//! Chunks that cannot be read are set aside in their own table; this one says whose they were. Each check writes its rows
//! under a number of its own, its *round*, and makes the round known when all of them are there.
//!
//! **Invariant:** a row asks only for what the share would have again: who sends it changes no node and makes no version.

use std::collections::BTreeSet;

use isotherm_api::share::{Wanted, WantedContent};
use isotherm_core::content::{ChunkId, ManifestId};
use isotherm_core::ids::{GroupId, NodeId, ServerId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::codec::{signed, unsigned};
use super::share::missing_chunks;
use crate::fault::Fault;

/// What `condemned` says of a chunk that is set aside.
pub(super) const SET_ASIDE: i64 = i64::MAX;

/// A live node by the number of its share.
pub(crate) type NodeKey = (i64, [u8; 16]);

/// A node whose content is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damaged {
    at: NodeKey,
    manifest: ManifestId,
}

/// Condemns chunks that cannot be read, whatever names them, so that an upload of the same bytes puts them back. They are
/// condemned for ever: their packs are not deleted, because the fault may be one that passes.
pub(crate) fn set_aside(connection: &Connection, chunks: &BTreeSet<ChunkId>) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("UPDATE chunk SET condemned = ?2 WHERE id = ?1 AND condemned = 0")?;
    for chunk in chunks {
        statement.execute(params![chunk.as_bytes(), SET_ASIDE])?;
    }
    // Also where none was known: what was found complete before is to be looked at again.
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'condemnations'", [])?;
    Ok(())
}

/// A page of the chunks that are set aside, in order of id.
pub(crate) fn chunks_aside(connection: &Connection, after: Option<ChunkId>, limit: usize) -> Result<Vec<ChunkId>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM chunk WHERE id > ?1 AND condemned = ?2 ORDER BY id LIMIT ?3")?;
    let after = after.map_or_else(Vec::new, |chunk| chunk.as_bytes().to_vec());
    let rows = statement.query_map(params![after, SET_ASIDE, limit as i64], |row| row.get(0).map(ChunkId::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Chunks that were set aside can be read again.
pub(crate) fn take_back(connection: &Connection, chunks: &[ChunkId]) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("UPDATE chunk SET condemned = 0 WHERE id = ?1 AND condemned = ?2")?;
    for chunk in chunks {
        statement.execute(params![chunk.as_bytes(), SET_ASIDE])?;
    }
    Ok(())
}

/// The damaged ones among `limit` nodes after one, with where the next page begins.
pub(crate) fn damaged_nodes(
    connection: &Connection,
    contents: &BTreeSet<ManifestId>,
    after: Option<NodeKey>,
    limit: usize,
) -> Result<(Vec<Damaged>, Option<NodeKey>), Fault> {
    let sql = "SELECT share, id, deleted, manifest FROM node WHERE (share, id) > (?1, ?2) ORDER BY share, id LIMIT ?3";
    let (share, id) = after.map_or((0, Vec::new()), |(share, id)| (share, id.to_vec()));
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![share, id, limit as i64])?;
    let (mut found, mut seen, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let at = (row.get(0)?, row.get(1)?);
        (seen, last) = (seen + 1, Some(at));
        let manifest = row.get::<_, Option<[u8; 32]>>(3)?.map(ManifestId::from_bytes);
        if let Some(manifest) = manifest.filter(|manifest| contents.contains(manifest))
            && !row.get::<_, bool>(2)?
        {
            found.push(Damaged { at, manifest });
        }
    }
    Ok((found, last.filter(|_| seen == limit)))
}

/// The round of a check that begins; it is made known by [`end_round`].
pub(crate) fn next_round(connection: &Connection, now_ms: u64) -> Result<u64, Fault> {
    // The time, so that rows of a check that was cut off have another number.
    Ok(now_ms.max(round(connection)? + 1))
}

fn round(connection: &Connection) -> Result<u64, Fault> {
    let sql = "SELECT value FROM meta WHERE key = 'damage_round'";
    let found = connection.prepare_cached(sql)?.query_row([], |row| row.get(0).map(unsigned)).optional()?;
    Ok(found.unwrap_or(0))
}

/// Keeps damaged nodes.
pub(crate) fn keep_damage(connection: &Connection, damaged: &[Damaged], round: u64) -> Result<(), Fault> {
    // A node that has become another one or whose share is gone since is left out when rows are read.
    let sql = "INSERT INTO damage (share, node, manifest, round, repaired) SELECT num, ?2, ?3, ?4, 0 FROM share WHERE num = ?1
        ON CONFLICT (share, node) DO UPDATE SET manifest = ?3, round = ?4, repaired = 0";
    let mut statement = connection.prepare_cached(sql)?;
    for Damaged { at, manifest } in damaged {
        statement.execute(params![at.0, at.1, manifest.as_bytes(), signed(round)])?;
    }
    Ok(())
}

/// Ends a check: its rows stand, those of earlier ones go. Gives how many files of these are whole again.
pub(crate) fn end_round(connection: &Connection, round: u64) -> Result<u64, Fault> {
    let sql = "SELECT count(*) FROM damage WHERE round <> ?1 AND EXISTS (SELECT 1 FROM node
        WHERE node.share = damage.share AND node.id = damage.node AND node.manifest = damage.manifest AND deleted = 0)";
    let whole = connection.query_row(sql, [signed(round)], |row| row.get(0).map(unsigned))?;
    connection.execute("DELETE FROM damage WHERE round <> ?1", [signed(round)])?;
    let sql = "INSERT OR REPLACE INTO meta SELECT 'damage_round', ?1 WHERE EXISTS (SELECT 1 FROM damage)";
    connection.execute(sql, [signed(round)])?;
    Ok(whole)
}

/// A content was sent: if it was wanted and is whole now, nobody has to send it again. Gives whether it was.
pub(super) fn end_damage(connection: &Connection, manifest: ManifestId, now_ms: u64) -> Result<bool, Fault> {
    let mut wanted = connection.prepare_cached("SELECT 1 FROM damage WHERE manifest = ?1 AND repaired = 0")?;
    if !wanted.exists([manifest.as_bytes()])? || !missing_chunks(connection, manifest, now_ms)?.is_empty() {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached("UPDATE damage SET repaired = 1 WHERE manifest = ?1 AND repaired = 0")?;
    statement.execute([manifest.as_bytes()])?;
    Ok(true)
}

/// What the nodes of a group lack, at most `limit` after one of them. Each server's circle begins elsewhere, so that they do not
/// all begin with the same file.
pub(crate) fn wanted(
    connection: &Connection,
    group: GroupId,
    server: ServerId,
    after: Option<NodeId>,
    limit: usize,
) -> Result<Wanted, Fault> {
    let (start, end) = (start(connection, group, server)?, NodeId([0xff; 16]));
    let from = after.unwrap_or(start);
    let mut contents = Vec::new();
    if after == Some(start) {
        // The last one of the circle was given.
        return Ok(Wanted { round: round(connection)?, contents, next: None });
    }
    let is_first_arc = from >= start;
    if is_first_arc {
        contents = arc(connection, group, from, end, limit)?;
    }
    let rest = limit - contents.len();
    // No node has the id of zeros: it is the root's.
    let second = if is_first_arc { NodeId::ROOT } else { from };
    let behind = NodeId(u128::from_be_bytes(start.0).saturating_add(1).to_be_bytes());
    contents.extend(arc(connection, group, second, behind, rest)?);
    let next = contents.last().map(|last: &WantedContent| last.node).filter(|_| contents.len() == limit);
    Ok(Wanted { round: round(connection)?, contents, next })
}

/// As far between the first and the last damaged node as the server's id is between the first and the last id: ids of servers are
/// drawn at random, and those of nodes grow. The circle begins behind it and ends with it.
fn start(connection: &Connection, group: GroupId, server: ServerId) -> Result<NodeId, Fault> {
    let end = |which: &str| -> Result<Option<u128>, Fault> {
        // Each from its end of the index.
        let sql = format!("SELECT {which}(node) FROM damage WHERE share = (SELECT num FROM share WHERE id = ?1)");
        let node: Option<[u8; 16]> = connection.prepare_cached(&sql)?.query_row([group.0], |row| row.get(0))?;
        Ok(node.map(u128::from_be_bytes))
    };
    let (Some(first), Some(last)) = (end("min")?, end("max")?) else { return Ok(NodeId::ROOT) };
    let part = u128::from_be_bytes(server.0) >> 64;
    Ok(NodeId((first + ((last - first) >> 64) * part).to_be_bytes()))
}

/// How many live files of a group have content that a check found damaged and nobody has mended.
pub(crate) fn count_damaged(connection: &Connection, group: GroupId) -> Result<u64, Fault> {
    let sql = "SELECT count(*) FROM share JOIN damage ON damage.share = share.num
        JOIN node ON node.share = damage.share AND node.id = damage.node AND node.manifest = damage.manifest
        WHERE share.id = ?1 AND repaired = 0 AND deleted = 0";
    let count: i64 = connection.prepare_cached(sql)?.query_row([group.0], |row| row.get(0))?;
    Ok(unsigned(count))
}

/// What is wanted of the nodes between two.
fn arc(
    connection: &Connection,
    group: GroupId,
    after: NodeId,
    before: NodeId,
    limit: usize,
) -> Result<Vec<WantedContent>, Fault> {
    let sql = "SELECT damage.node, damage.manifest FROM share JOIN damage ON damage.share = share.num
        JOIN node ON node.share = damage.share AND node.id = damage.node AND node.manifest = damage.manifest
        WHERE share.id = ?1 AND damage.node > ?2 AND damage.node < ?3 AND repaired = 0 AND deleted = 0
        ORDER BY damage.node LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![group.0, after.0, before.0, limit as i64], |row| {
        Ok(WantedContent { node: NodeId(row.get(0)?), manifest: ManifestId::from_bytes(row.get(1)?) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use isotherm_core::content::{Form, Manifest, PackEntry, PackId, Part};

    use super::super::{PackRow, check_names, index_pack, put_manifest, schema};
    use super::*;

    /// A database with one live file of one chunk in a share of number 1.
    fn one_file() -> (tempfile::TempDir, Connection, ManifestId, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let sql = schema::open(&folder.path().join("records.sqlite")).unwrap();
        let chunk = ChunkId::of(b"bytes");
        let entry = PackEntry { chunk, offset: 8, stored_len: 5, raw_len: 5, form: Form::Raw };
        index_pack(&sql, PackRow { id: PackId::from_bytes([9; 32]), len: 100 }, &[entry], 1).unwrap();
        let encoded = Manifest::new(vec![Part::Data { chunk, len: 5 }]).unwrap().encode();
        put_manifest(&sql, encoded.id, &encoded.bytes, None, 1).unwrap();
        let share = "INSERT INTO share (num, id, name, incarnation, head, horizon, insensitive, fold_version, used, exclusions,
            max_delete_fraction, barrier, created_ms) VALUES (1, x'03', 'g', 1, 1, 0, 0, 1, 5, '[]', 0.5, 0, 1)";
        sql.execute(share, []).unwrap();
        let node = "INSERT INTO node (share, id, parent, name, kind, deleted, last, size, manifest, at_ms, data)
            VALUES (1, ?1, ?2, x'61', 1, 0, 1, 5, ?3, 1, x'')";
        sql.execute(node, params![[7_u8; 16], NodeId::ROOT.0, encoded.id.as_bytes()]).unwrap();
        (folder, sql, encoded.id, encoded.bytes)
    }

    #[test]
    fn a_manifest_that_is_damaged_or_lost_is_put_back() {
        let (_folder, sql, manifest, bytes) = one_file();
        for (round, damage) in [(2, "UPDATE manifest SET bytes = x'00'"), (3, "DELETE FROM manifest")] {
            assert!(missing_chunks(&sql, manifest, 0).unwrap().is_empty());
            sql.execute(damage, []).unwrap();
            let broken = check_names(&sql).unwrap().broken;
            assert_eq!(broken, BTreeSet::from([manifest]), "{damage}");
            set_aside(&sql, &BTreeSet::new()).unwrap();
            let (found, next) = damaged_nodes(&sql, &broken, None, 10).unwrap();
            assert_eq!((found.len(), next), (1, None));
            keep_damage(&sql, &found, round).unwrap();
            end_round(&sql, round).unwrap();
            assert!(put_manifest(&sql, manifest, &bytes, None, 2).unwrap(), "{damage}");
            assert!(!put_manifest(&sql, manifest, &bytes, None, 2).unwrap(), "it is told once");
            assert!(check_names(&sql).unwrap().broken.is_empty());
        }
    }

    #[test]
    fn a_check_that_was_cut_off_leaves_nothing_behind() {
        let (_folder, sql, manifest, _) = one_file();
        let nodes = damaged_nodes(&sql, &BTreeSet::from([manifest]), None, 1).unwrap();
        assert_eq!((nodes.0.len(), nodes.1), (1, Some((1, [7; 16]))));
        let first = next_round(&sql, 1_000).unwrap();
        keep_damage(&sql, &nodes.0, first).unwrap();
        // It is not known before the end, and the next check has a number of its own.
        assert_eq!(round(&sql).unwrap(), 0);
        let second = next_round(&sql, 1_001).unwrap();
        assert_ne!(first, second);
        assert_eq!(end_round(&sql, second).unwrap(), 1);
        assert_eq!(sql.query_row("SELECT count(*) FROM damage", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        // Also where the clock went back.
        keep_damage(&sql, &nodes.0, second).unwrap();
        end_round(&sql, second).unwrap();
        assert_eq!(next_round(&sql, 5).unwrap(), second + 1);
    }

    /// Whatever the ids of files and servers are, and however large the pages: each server is asked for each damaged file once.
    #[test]
    fn every_circle_comes_to_every_file_once() {
        let grown = |number: u128| ((1 << 120) + (number << 66)).to_be_bytes();
        let side_by_side = |number: u128| ((1 << 120) + number).to_be_bytes();
        for (files, id) in [(1, grown as fn(u128) -> [u8; 16]), (7, grown), (1, side_by_side), (7, side_by_side)] {
            let (_folder, sql, manifest, _) = one_file();
            sql.execute("DELETE FROM node", []).unwrap();
            for number in 0..files {
                let id = id(number);
                let node = "INSERT INTO node (share, id, parent, key, name, kind, deleted, last, size, manifest, at_ms, data)
                    VALUES (1, ?1, ?2, ?1, ?1, 1, 0, ?4, 5, ?3, 1, x'')";
                sql.execute(node, params![id, NodeId::ROOT.0, manifest.as_bytes(), number as i64]).unwrap();
                let damage = "INSERT INTO damage (share, node, manifest, round, repaired) VALUES (1, ?1, ?2, 1, 0)";
                sql.execute(damage, params![id, manifest.as_bytes()]).unwrap();
            }
            sql.execute("UPDATE share SET id = ?1", [[3_u8; 16]]).unwrap();
            for server in [0, 1, u128::MAX / 3, u128::MAX / 2, u128::MAX - 1, u128::MAX] {
                for limit in 1..=8 {
                    let (mut seen, mut after) = (Vec::new(), None);
                    for _ in 0..20 {
                        let page = wanted(&sql, GroupId([3; 16]), ServerId(server.to_be_bytes()), after, limit).unwrap();
                        seen.extend(page.contents.iter().map(|content| content.node.0));
                        after = page.next;
                        if after.is_none() {
                            break;
                        }
                    }
                    assert_eq!(after, None, "the circle ends");
                    seen.sort_unstable();
                    assert_eq!(seen, (0..files).map(id).collect::<Vec<_>>(), "server {server:x}, pages of {limit}");
                }
            }
        }
    }
}
