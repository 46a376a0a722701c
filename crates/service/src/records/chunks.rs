//! Where chunks lie, and the manifests.
//!
//! It reads no pack. Condemned chunks are as good as gone here; `garbage` condemns and collects them.
//!
//! **Invariant:** a chunk row names a pack that is durable, because rows are written after the pack.

use isotherm_core::content::{ChunkId, Form, ManifestId, PackEntry, PackId};
use isotherm_store::Location;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::codec::{id, signed, unsigned};
use super::garbage::Ages;
use crate::fault::Fault;

/// How long a chunk that was uploaded, or found by `have`, is safe from collection: the longest that an upload may
/// take between its first chunk and its commit, or between two questions.
pub(super) const PIN_MS: u64 = 24 * 60 * 60 * 1000;

/// A stored pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackRow {
    /// Its id.
    pub(crate) id: PackId,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// Makes the chunks of a pack known. A chunk that is known elsewhere and not condemned stays there.
pub(crate) fn index_pack(connection: &Connection, pack: PackRow, entries: &[PackEntry], now_ms: u64) -> Result<(), Fault> {
    let sql = "INSERT INTO pack (id, len, chunks, at_ms) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (id) DO UPDATE SET at_ms = ?4 RETURNING num";
    let num: i64 = connection
        .prepare_cached(sql)?
        .query_row(params![pack.id.as_bytes(), signed(pack.len), entries.len() as i64, signed(now_ms)], |row| row.get(0))?;
    let sql = "INSERT INTO chunk (id, pack, at, stored_len, raw_len, form, condemned, pinned_until_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)
        ON CONFLICT (id) DO UPDATE SET
            pack = iif(condemned = 0, pack, ?2), at = iif(condemned = 0, at, ?3),
            stored_len = iif(condemned = 0, stored_len, ?4), raw_len = iif(condemned = 0, raw_len, ?5),
            form = iif(condemned = 0, form, ?6), condemned = 0, pinned_until_ms = ?7";
    let mut statement = connection.prepare_cached(sql)?;
    for entry in entries {
        statement.execute(params![
            entry.chunk.as_bytes(),
            num,
            signed(entry.offset),
            entry.stored_len,
            entry.raw_len,
            entry.form.code(),
            signed(now_ms + PIN_MS)
        ])?;
    }
    Ok(())
}

/// Which chunks are there, and whether one of these is to be pinned anew, where pins count for so long.
pub(crate) fn present(connection: &Connection, chunks: &[ChunkId], now_ms: u64, ages: Ages) -> Result<(Vec<bool>, bool), Fault> {
    let mut statement = connection.prepare_cached("SELECT pinned_until_ms FROM chunk WHERE id = ?1 AND condemned = 0")?;
    let mut to_pin = false;
    let mut found = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let pinned: Option<i64> = statement.query_row([chunk.as_bytes()], |row| row.get(0)).optional()?;
        // Half of the time is left to whoever asked before; writing it for each question would cost a commit.
        to_pin |= pinned.is_some_and(|until| unsigned(until) + ages.pin_ms.min(PIN_MS) / 2 < now_ms + PIN_MS);
        found.push(pinned.is_some());
    }
    Ok((found, to_pin))
}

/// Which chunks are there; pins them.
pub(crate) fn pin(connection: &Connection, chunks: &[ChunkId], now_ms: u64) -> Result<Vec<bool>, Fault> {
    let sql = "UPDATE chunk SET pinned_until_ms = max(pinned_until_ms, ?2) WHERE id = ?1 AND condemned = 0";
    let mut statement = connection.prepare_cached(sql)?;
    let pinned = chunks.iter().map(|chunk| Ok(statement.execute(params![chunk.as_bytes(), signed(now_ms + PIN_MS)])? == 1));
    pinned.collect()
}

/// Where a chunk lies; none for one that is absent or condemned.
///
/// A condemned chunk is still readable until its pack goes, and a reader may have learned of it before.
pub(crate) fn chunk_location(connection: &Connection, chunk: ChunkId) -> Result<Option<Location>, Fault> {
    let sql = "SELECT pack.id, at, stored_len, raw_len, form FROM chunk JOIN pack ON pack.num = chunk.pack WHERE chunk.id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([chunk.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let form = Form::from_code(row.get(4)?)
        .ok_or_else(|| Fault::corrupt(format!("Chunk {chunk} in the records has an unknown form")))?;
    let entry = PackEntry { chunk, offset: unsigned(row.get(1)?), stored_len: row.get(2)?, raw_len: row.get(3)?, form };
    Ok(Some(Location { pack: PackId::from_bytes(row.get(0)?), entry }))
}

/// Keeps a manifest that was checked, also in the place of a damaged one. `chunks` is given for a large one: those of its
/// encoding and those of its content. Gives whether that has ended damage.
pub(crate) fn put_manifest(
    connection: &Connection,
    manifest: ManifestId,
    bytes: &[u8],
    chunks: Option<&[ChunkId]>,
    now_ms: u64,
) -> Result<bool, Fault> {
    let listed: Option<Vec<u8>> = chunks.map(|chunks| chunks.iter().flat_map(|chunk| *chunk.as_bytes()).collect());
    let sql = "INSERT INTO manifest (id, bytes, chunks, at_ms, complete_at) VALUES (?1, ?2, ?3, ?4, NULL)
        ON CONFLICT (id) DO UPDATE SET bytes = ?2, chunks = ?3, at_ms = ?4";
    connection.prepare_cached(sql)?.execute(params![manifest.as_bytes(), bytes, listed, signed(now_ms)])?;
    super::damage::end_damage(connection, manifest, now_ms)
}

/// A manifest's encoding.
pub(crate) fn manifest_bytes(connection: &Connection, manifest: ManifestId) -> Result<Option<Vec<u8>>, Fault> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM manifest WHERE id = ?1")?;
    Ok(statement.query_row([manifest.as_bytes()], |row| row.get(0)).optional()?)
}

/// The chunks of a listed column.
pub(super) fn listed_chunks(listed: &[u8]) -> Result<Vec<ChunkId>, Fault> {
    listed.chunks(32).map(|chunk| id(chunk, "Chunk id").map(ChunkId::from_bytes)).collect()
}
