//! Copying a database while a service works on it, and reading the packs of a copy.

use std::path::Path;

use isotherm_core::content::PackId;
use rusqlite::{Connection, OpenFlags};

use super::chunks::PackRow;
use super::codec::unsigned;
use super::damage::SET_ASIDE;
use crate::fault::Fault;

fn named(file: &Path, error: rusqlite::Error) -> Fault {
    let fault = Fault::from(error);
    Fault::new(fault.code, format!("{}: {}", file.display(), fault.message))
}

/// Writes the state of one moment into a new file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = || {
        let connection = Connection::open_with_flags(from, flags)?;
        connection.busy_timeout(super::schema::BUSY)?;
        connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])
    };
    copy().map(drop).map_err(|error| named(from, error))
}

/// A database that nobody serves.
fn read<T>(file: &Path, read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>) -> Result<T, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags).and_then(|connection| read(&connection)).map_err(|error| named(file, error))
}

/// The packs of a database that nobody serves, each with whether anything in it is wanted.
pub(crate) fn packs_in(file: &Path) -> Result<Vec<(PackRow, bool)>, Fault> {
    read(file, |connection| {
        let wanted = "EXISTS (SELECT 1 FROM chunk WHERE chunk.pack = pack.num AND condemned = 0)";
        let mut statement = connection.prepare(&format!("SELECT id, len, {wanted} FROM pack ORDER BY num"))?;
        let rows = statement.query_map([], |row| {
            Ok((PackRow { id: PackId::from_bytes(row.get(0)?), len: unsigned(row.get(1)?) }, row.get(2)?))
        })?;
        rows.collect()
    })
}

/// How many chunks of a database that nobody serves are set aside.
pub(crate) fn aside_in(file: &Path) -> Result<u64, Fault> {
    read(file, |connection| {
        let sql = "SELECT count(*) FROM chunk WHERE condemned = ?1";
        connection.query_row(sql, [SET_ASIDE], |row| row.get(0).map(unsigned))
    })
}
