//! What garbage collection reads and writes: which content is named, which chunks are not, which packs can go.
//!
//! **Invariant** (case 11 of the ways to lose a file): a chunk is condemned only in a transaction that sees every
//! manifest that was uploaded or named until then. A manifest is named by live nodes and by kept revisions, and counts
//! as named for as long as an upload of it may be under way ([`Ages::pin_ms`]).

use std::collections::HashSet;

use isotherm_core::content::{ChunkId, Decoded, Form, Manifest, ManifestId, PackEntry, PackId};
use isotherm_store::Location;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::chunks::{PackRow, listed_chunks};
use super::codec::{signed, unsigned};
use super::damage::SET_ASIDE;
use crate::fault::Fault;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long things live that nothing names any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// After its upload, or after an agent asked for it: the longest that an upload may take until its commit.
    pub pin_ms: u64,
    /// After it was condemned, for those who read it, or learned of it before.
    pub grace_ms: u64,
    /// Deleted nodes and answers to operations: how long a server may be away and still hear of each deletion.
    pub horizon_ms: u64,
}

impl Default for Ages {
    fn default() -> Self {
        Self { pin_ms: super::chunks::PIN_MS, grace_ms: DAY_MS, horizon_ms: 90 * DAY_MS }
    }
}

/// Named content by the first eight bytes of its ids. Two ids that begin alike only keep something longer; a share of a
/// hundred million chunks takes about 2 GiB of memory for it.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    manifests: HashSet<u64>,
    chunks: HashSet<u64>,
}

pub(super) fn first(id: &[u8; 32]) -> u64 {
    u64::from_be_bytes(*id.first_chunk().expect("an id has 32 bytes"))
}

impl Mark {
    pub(crate) fn has_chunk(&self, chunk: ChunkId) -> bool {
        self.chunks.contains(&first(chunk.as_bytes()))
    }

    pub(crate) fn has_manifest(&self, manifest: ManifestId) -> bool {
        self.manifests.contains(&first(manifest.as_bytes()))
    }

    fn add_content(&mut self, manifest: ManifestId, bytes: &[u8], listed: Option<Vec<u8>>) -> Result<(), Fault> {
        if let Some(listed) = listed {
            self.chunks.extend(listed_chunks(&listed)?.iter().map(|chunk| first(chunk.as_bytes())));
            return Ok(());
        }
        match Manifest::decode(manifest, bytes) {
            Ok(Decoded::Whole(whole)) => {
                self.chunks.extend(whole.chunks().map(|(chunk, _)| first(chunk.as_bytes())));
                Ok(())
            }
            // Nothing may be concluded from what cannot be read.
            Ok(Decoded::Index(_)) => Err(Fault::corrupt(format!("Manifest {manifest} is kept without its list of chunks"))),
            Err(error) => Err(Fault::corrupt(format!("Manifest {manifest} in the records: {error}"))),
        }
    }
}

/// Everything that is named at one moment, in the connection's read transaction.
pub(crate) fn mark(connection: &Connection, now_ms: u64, ages: Ages) -> Result<Mark, Fault> {
    let mut mark = Mark::default();
    for sql in [
        "SELECT manifest FROM node WHERE manifest IS NOT NULL AND deleted = 0",
        "SELECT manifest FROM revision WHERE manifest IS NOT NULL",
    ] {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            mark.manifests.insert(first(&row.get::<_, [u8; 32]>(0)?));
        }
    }
    let since = signed(now_ms.saturating_sub(ages.pin_ms));
    let mut statement = connection.prepare("SELECT id, bytes, chunks, at_ms FROM manifest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = ManifestId::from_bytes(row.get(0)?);
        let is_recent = row.get::<_, i64>(3)? >= since;
        if is_recent || mark.has_manifest(id) {
            mark.manifests.insert(first(id.as_bytes()));
            mark.add_content(id, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, row.get(2)?)?;
        }
    }
    Ok(mark)
}

/// A page of chunks in order of id that a mark does not name, with where the next page begins. What is set aside goes too,
/// once nothing names it.
pub(crate) fn unnamed_chunks(
    connection: &Connection,
    mark: &Mark,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<(Vec<ChunkId>, Option<ChunkId>), Fault> {
    let sql = "SELECT id FROM chunk WHERE id > ?1 AND condemned IN (0, ?3) ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let after = after.map_or_else(Vec::new, |chunk| chunk.as_bytes().to_vec());
    let rows = statement.query_map(params![after, limit as i64, SET_ASIDE], |row| row.get(0).map(ChunkId::from_bytes))?;
    let page: Vec<ChunkId> = rows.collect::<Result<_, _>>()?;
    let next = page.last().copied().filter(|_| page.len() == limit);
    Ok((page.into_iter().filter(|chunk| !mark.has_chunk(*chunk)).collect(), next))
}

/// Condemns chunks that nothing named when the mark was begun, unless they were uploaded, asked for or named since.
/// Gives how many.
pub(crate) fn condemn(
    connection: &Connection,
    chunks: &[ChunkId],
    marked_ms: u64,
    now_ms: u64,
    ages: Ages,
) -> Result<usize, Fault> {
    let mut since = Mark::default();
    let mut statement = connection.prepare_cached("SELECT id, bytes, chunks FROM manifest WHERE at_ms >= ?1")?;
    let mut rows = statement.query([signed(marked_ms)])?;
    while let Some(row) = rows.next()? {
        let id = ManifestId::from_bytes(row.get(0)?);
        since.add_content(id, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, row.get(2)?)?;
    }
    // A pin holds for `PIN_MS` from when it was set.
    let pinned = signed(now_ms + (super::chunks::PIN_MS - ages.pin_ms.min(super::chunks::PIN_MS)));
    let sql = "UPDATE chunk SET condemned = ?2 WHERE id = ?1 AND condemned IN (0, ?4) AND pinned_until_ms <= ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut condemned = 0;
    for chunk in chunks.iter().filter(|chunk| !since.has_chunk(**chunk)) {
        condemned += statement.execute(params![chunk.as_bytes(), signed(now_ms.max(1)), pinned, SET_ASIDE])?;
    }
    if condemned > 0 {
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'condemnations'", [])?;
    }
    Ok(condemned)
}

/// Forgets manifests that nothing names; gives how many.
pub(crate) fn forget_manifests(connection: &Connection, mark: &Mark, marked_ms: u64, ages: Ages) -> Result<usize, Fault> {
    let until = signed(marked_ms.saturating_sub(ages.pin_ms));
    let mut statement = connection.prepare_cached("SELECT id FROM manifest WHERE at_ms < ?1")?;
    let rows = statement.query_map([until], |row| row.get(0).map(ManifestId::from_bytes))?;
    let old: Vec<ManifestId> = rows.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare_cached("DELETE FROM manifest WHERE id = ?1 AND at_ms < ?2")?;
    let mut forgotten = 0;
    for manifest in old.into_iter().filter(|manifest| !mark.has_manifest(*manifest)) {
        forgotten += statement.execute(params![manifest.as_bytes(), until])?;
    }
    Ok(forgotten)
}

/// Forgets packs in which nothing is left, or only chunks that were condemned long enough ago, at most `limit`. Their
/// objects can be deleted afterwards, before the same pack is stored again.
pub(crate) fn forget_packs(connection: &Connection, now_ms: u64, ages: Ages, limit: usize) -> Result<Vec<PackRow>, Fault> {
    let until = signed(now_ms.saturating_sub(ages.grace_ms));
    let sql = "SELECT num, id, len FROM pack WHERE at_ms <= ?1 AND NOT EXISTS (
        SELECT 1 FROM chunk WHERE chunk.pack = pack.num AND (condemned = 0 OR condemned > ?1)) LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![until, limit as i64], |row| {
        let pack = PackRow { id: PackId::from_bytes(row.get(1)?), len: unsigned(row.get(2)?) };
        Ok((row.get::<_, i64>(0)?, pack))
    })?;
    let found: Vec<(i64, PackRow)> = rows.collect::<Result<_, _>>()?;
    for (num, _) in &found {
        connection.prepare_cached("DELETE FROM chunk WHERE pack = ?1")?.execute([num])?;
        connection.prepare_cached("DELETE FROM pack WHERE num = ?1")?.execute([num])?;
    }
    Ok(found.into_iter().map(|(_, pack)| pack).collect())
}

/// A pack, and how much of it is still named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackUse {
    pub(crate) num: i64,
    pub(crate) len: u64,
    /// Chunks that it was made of.
    pub(crate) chunks: u64,
    /// Bytes of records.
    pub(crate) live: u64,
}

/// All packs that hold something that is not condemned.
pub(crate) fn pack_uses(connection: &Connection) -> Result<Vec<PackUse>, Fault> {
    let sql = "SELECT pack.num, pack.len, pack.chunks, sum(stored_len) FROM chunk JOIN pack ON pack.num = chunk.pack
        WHERE condemned = 0 GROUP BY pack.num";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let (len, chunks, live) = (unsigned(row.get(1)?), unsigned(row.get(2)?), unsigned(row.get(3)?));
        Ok(PackUse { num: row.get(0)?, len, chunks, live })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The number of a pack; none if it is not known any more.
pub(crate) fn pack_number(connection: &Connection, pack: PackId) -> Result<Option<i64>, Fault> {
    let mut statement = connection.prepare_cached("SELECT num FROM pack WHERE id = ?1")?;
    Ok(statement.query_row([pack.as_bytes()], |row| row.get(0)).optional()?)
}

/// The chunks of a pack that are not condemned.
pub(crate) fn live_chunks(connection: &Connection, num: i64) -> Result<Vec<Location>, Fault> {
    let sql = "SELECT pack.id, chunk.id, at, stored_len, raw_len, form FROM chunk JOIN pack ON pack.num = chunk.pack
        WHERE chunk.pack = ?1 AND condemned = 0 ORDER BY at";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([num])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let chunk = ChunkId::from_bytes(row.get(1)?);
        let form = Form::from_code(row.get(5)?)
            .ok_or_else(|| Fault::corrupt(format!("Chunk {chunk} in the records has an unknown form")))?;
        let entry = PackEntry { chunk, offset: unsigned(row.get(2)?), stored_len: row.get(3)?, raw_len: row.get(4)?, form };
        found.push(Location { pack: PackId::from_bytes(row.get(0)?), entry });
    }
    Ok(found)
}

/// Chunks now lie in another pack, those that still lay in one of the old ones. The old packs go once nobody can be
/// reading them any more.
pub(crate) fn repack(
    connection: &Connection,
    old: &[i64],
    pack: PackRow,
    entries: &[PackEntry],
    now_ms: u64,
) -> Result<(), Fault> {
    let sql = "INSERT INTO pack (id, len, chunks, at_ms) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (id) DO UPDATE SET at_ms = ?4 RETURNING num";
    let num: i64 = connection
        .prepare_cached(sql)?
        .query_row(params![pack.id.as_bytes(), signed(pack.len), entries.len() as i64, signed(now_ms)], |row| row.get(0))?;
    let sql = "UPDATE chunk SET pack = ?3, at = ?4, stored_len = ?5, form = ?6 WHERE id = ?1 AND pack = ?2 AND condemned = 0";
    let mut statement = connection.prepare_cached(sql)?;
    for num_before in old {
        for entry in entries {
            let place =
                params![entry.chunk.as_bytes(), num_before, num, signed(entry.offset), entry.stored_len, entry.form.code()];
            statement.execute(place)?;
        }
        connection.prepare_cached("UPDATE pack SET at_ms = ?2 WHERE num = ?1")?.execute(params![num_before, signed(now_ms)])?;
    }
    Ok(())
}
