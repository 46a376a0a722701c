//! Packs that checks saw and no record names.
//!
//! **Invariant:** what is remembered of a pack begins anew whenever a check does not see it as a stray.

use std::collections::BTreeSet;

use isotherm_core::content::PackId;
use rusqlite::{Connection, params};

use super::codec::{signed, unsigned};
use crate::fault::Fault;

/// Whether any are remembered.
pub(crate) fn any_strays(connection: &Connection) -> Result<bool, Fault> {
    Ok(connection.prepare("SELECT 1 FROM stray LIMIT 1")?.exists([])?)
}

/// Remembers since when these are seen; all others are forgotten.
pub(crate) fn remember_strays(connection: &Connection, strays: &[(PackId, u64)], now_ms: u64) -> Result<(), Fault> {
    let seen: BTreeSet<PackId> = strays.iter().map(|(pack, _)| *pack).collect();
    let mut statement = connection.prepare("SELECT pack FROM stray")?;
    let rows = statement.query_map([], |row| row.get(0).map(PackId::from_bytes))?;
    let remembered: Vec<PackId> = rows.collect::<Result<_, _>>()?;
    let gone: Vec<PackId> = remembered.into_iter().filter(|pack| !seen.contains(pack)).collect();
    forget_strays(connection, &gone)?;
    let mut statement = connection.prepare("INSERT OR IGNORE INTO stray (pack, len, seen_ms) VALUES (?1, ?2, ?3)")?;
    for (pack, len) in strays {
        statement.execute(params![pack.as_bytes(), signed(*len), signed(now_ms)])?;
    }
    Ok(())
}

/// Packs with their lengths that were first seen before a moment and that nothing names now, at most `limit`.
pub(crate) fn old_strays(connection: &Connection, until_ms: u64, limit: usize) -> Result<Vec<(PackId, u64)>, Fault> {
    let sql = "SELECT pack, len FROM stray WHERE seen_ms < ?1
        AND NOT EXISTS (SELECT 1 FROM pack WHERE pack.id = stray.pack) ORDER BY pack LIMIT ?2";
    let mut statement = connection.prepare(sql)?;
    let rows = statement
        .query_map(params![signed(until_ms), limit as i64], |row| Ok((PackId::from_bytes(row.get(0)?), unsigned(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// They are gone, or no strays any more.
pub(crate) fn forget_strays(connection: &Connection, packs: &[PackId]) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("DELETE FROM stray WHERE pack = ?1")?;
    for pack in packs {
        statement.execute([pack.as_bytes()])?;
    }
    Ok(())
}
