//! Copying a database while a service works on it, and reading what a backup needs to know of a copy.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use isotherm_core::content::PackId;
use isotherm_core::ids::GroupId;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

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
        // A path is bytes, and so is a text of the database's.
        let to = ToSqlOutput::Borrowed(ValueRef::Text(to.as_os_str().as_bytes()));
        connection.execute("VACUUM INTO ?1", [to])
    };
    copy().map_err(|error| named(from, error))?;
    let mark = || super::waiting::mark_as_copy(&Connection::open_with_flags(to, flags)?);
    mark().map_err(|error| named(to, error))
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

/// How many chunks of a database that nobody serves are set aside, by the packs that they lie in.
pub(crate) fn aside_in(file: &Path) -> Result<Vec<(PackRow, u64)>, Fault> {
    read(file, |connection| {
        let sql = "SELECT pack.id, pack.len, count(*) FROM chunk JOIN pack ON pack.num = chunk.pack WHERE condemned = ?1
            GROUP BY pack.num";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([SET_ASIDE], |row| {
            Ok((PackRow { id: PackId::from_bytes(row.get(0)?), len: unsigned(row.get(1)?) }, unsigned(row.get(2)?)))
        })?;
        rows.collect()
    })
}

/// Whose records a database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Drawn when the data folder was made; none in tables of earlier releases.
    id: Option<i64>,
    groups: Vec<(GroupId, String)>,
}

impl Owner {
    /// Whether these may be records of the same service at different times.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        match (self.id, other.id) {
            (Some(own), Some(other)) => own == other,
            _ => other.groups.is_empty() || other.groups.iter().any(|(id, _)| self.groups.iter().any(|(own, _)| own == id)),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "service {id:016x}")?,
            None => f.write_str("a service of an earlier release")?,
        }
        let names: Vec<&str> = self.groups.iter().map(|(_, name)| name.as_str()).collect();
        if names.is_empty() { f.write_str(" without groups") } else { write!(f, " with the groups {}", names.join(", ")) }
    }
}

/// Whose records a database that nobody serves holds.
pub(crate) fn owner_of(file: &Path) -> Result<Owner, Fault> {
    read(file, |connection| {
        let sql = "SELECT value FROM meta WHERE key = 'identity'";
        let id = connection.query_row(sql, [], |row| row.get(0)).optional()?;
        let mut statement = connection.prepare("SELECT id, name FROM share ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((GroupId(row.get(0)?), row.get(1)?)))?;
        Ok(Owner { id, groups: rows.collect::<Result<_, _>>()? })
    })
}
