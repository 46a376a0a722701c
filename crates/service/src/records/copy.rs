//! Copying a database while a service works on it, and reading the packs of a copy.

use std::path::Path;

use isotherm_core::content::PackId;
use rusqlite::{Connection, OpenFlags};

use super::chunks::PackRow;
use super::codec::unsigned;
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

/// The packs of a database that nobody serves.
pub(crate) fn packs_in(file: &Path) -> Result<Vec<PackRow>, Fault> {
    let read = || {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let mut statement = connection.prepare("SELECT id, len FROM pack ORDER BY num")?;
        let rows =
            statement.query_map([], |row| Ok(PackRow { id: PackId::from_bytes(row.get(0)?), len: unsigned(row.get(1)?) }))?;
        rows.collect::<Result<_, _>>()
    };
    read().map_err(|error| named(file, error))
}
