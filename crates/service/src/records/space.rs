//! What a group takes in the store: measured now and then, and kept beside it.
//!
//! **Invariant:** what is shown says when it was measured; it never holds up a request.

use std::collections::HashSet;

use isotherm_api::management::Space;
use isotherm_core::content::{Decoded, Manifest, ManifestId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::chunks::listed_chunks;
use super::codec::{signed, unsigned};
use super::garbage::first;
use crate::fault::Fault;

/// Measures every group, in the connection's read transaction. Content that groups share counts for each of them.
pub(crate) fn measure(connection: &Connection, now_ms: u64) -> Result<Vec<(i64, Space)>, Fault> {
    let mut statement = connection.prepare("SELECT num, used FROM share ORDER BY num")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, unsigned(row.get(1)?))))?;
    let shares: Vec<(i64, u64)> = rows.collect::<Result<_, _>>()?;
    shares.into_iter().map(|(num, files)| Ok((num, measure_one(connection, num, files, now_ms)?))).collect()
}

fn measure_one(connection: &Connection, num: i64, files: u64, now_ms: u64) -> Result<Space, Fault> {
    let chunks = named_chunks(connection, &named_manifests(connection, num)?)?;
    let (mut distinct, mut stored) = (0, 0);
    let mut statement = connection.prepare("SELECT id, raw_len, stored_len FROM chunk")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if chunks.contains(&first(&row.get::<_, [u8; 32]>(0)?)) {
            distinct += unsigned(row.get(1)?);
            stored += unsigned(row.get(2)?);
        }
    }
    Ok(Space { files, distinct, stored, measured_ms: now_ms })
}

fn named_manifests(connection: &Connection, num: i64) -> Result<HashSet<u64>, Fault> {
    let mut named = HashSet::new();
    for sql in [
        "SELECT manifest FROM node WHERE share = ?1 AND manifest IS NOT NULL AND deleted = 0",
        "SELECT manifest FROM revision WHERE share = ?1 AND manifest IS NOT NULL",
    ] {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([num])?;
        while let Some(row) = rows.next()? {
            named.insert(first(&row.get::<_, [u8; 32]>(0)?));
        }
    }
    Ok(named)
}

fn named_chunks(connection: &Connection, manifests: &HashSet<u64>) -> Result<HashSet<u64>, Fault> {
    let mut chunks = HashSet::new();
    let mut statement = connection.prepare("SELECT id, bytes, chunks FROM manifest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = ManifestId::from_bytes(row.get(0)?);
        if !manifests.contains(&first(id.as_bytes())) {
            continue;
        }
        if let Some(listed) = row.get::<_, Option<Vec<u8>>>(2)? {
            chunks.extend(listed_chunks(&listed)?.iter().map(|chunk| first(chunk.as_bytes())));
        } else if let Ok(Decoded::Whole(whole)) = Manifest::decode(id, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)
        {
            chunks.extend(whole.chunks().map(|(chunk, _)| first(chunk.as_bytes())));
        }
    }
    Ok(chunks)
}

/// Keeps what was measured.
pub(crate) fn keep(connection: &Connection, measured: &[(i64, Space)]) -> Result<(), Fault> {
    // A group that was deleted meanwhile has no row to belong to.
    let sql = "INSERT OR REPLACE INTO space (share, files, distinct_bytes, stored, measured_ms)
        SELECT num, ?2, ?3, ?4, ?5 FROM share WHERE num = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    for (num, space) in measured {
        let numbers = (signed(space.files), signed(space.distinct), signed(space.stored), signed(space.measured_ms));
        statement.execute(params![num, numbers.0, numbers.1, numbers.2, numbers.3])?;
    }
    Ok(())
}

/// What was measured last of a group.
pub(crate) fn last(connection: &Connection, num: i64) -> Result<Option<Space>, Fault> {
    let sql = "SELECT files, distinct_bytes, stored, measured_ms FROM space WHERE share = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Space {
            files: unsigned(row.get(0)?),
            distinct: unsigned(row.get(1)?),
            stored: unsigned(row.get(2)?),
            measured_ms: unsigned(row.get(3)?),
        })
    };
    Ok(statement.query_row([num], read).optional()?)
}
