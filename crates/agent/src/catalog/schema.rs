//! The tables of a catalog, and whether a file is one that this release can read.
//!
//! Records are read only to bring a file of an earlier format forward. **Invariant:** a file of another format or a damaged one is refused by name before anything of it
//! is believed.

use std::path::Path;

use isotherm_core::name::Case;
use isotherm_core::trees::Record;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::row::Columns;
use crate::engine::CatalogFailure;

/// Format of the catalog. Those of formats 1 to 3 are brought forward; any other is refused.
pub(super) const FORMAT: i64 = 4;

/// Marks the file as a catalog of this product ("IsoC").
const APPLICATION: i64 = 0x4973_6f43;

/// Pages of the log before they are put into the file: a page that several transactions change is then put there once. 32 MiB.
const LOG_PAGES: i64 = 8_192;

/// Most memory for cached pages of one connection, in KiB.
const CACHE_KIB: i64 = 48 * 1024;

/// How many prepared statements are kept; more than there are.
const STATEMENTS: usize = 64;

/// Anchors (root and parked) count as settled, so that no index holds them as work.
const TABLES: &str = "
CREATE TABLE node (
    id BLOB PRIMARY KEY,
    local_parent BLOB,
    local_name BLOB,
    local_lost INTEGER NOT NULL,
    handle BLOB,
    remote_parent BLOB,
    remote_key BLOB,
    link BLOB,
    state INTEGER NOT NULL,
    kind INTEGER,
    size INTEGER,
    owed INTEGER NOT NULL,
    up INTEGER NOT NULL,
    down INTEGER NOT NULL,
    record BLOB NOT NULL,
    print BLOB,
    tiered INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX node_local ON node (local_parent, local_name, id, local_lost, handle, print, tiered) WHERE local_parent IS NOT NULL;
CREATE INDEX node_remote ON node (remote_parent, remote_key, id) WHERE remote_parent IS NOT NULL;
CREATE INDEX node_handle ON node (handle, id) WHERE handle IS NOT NULL;
CREATE INDEX node_link ON node (link, id) WHERE link IS NOT NULL;
CREATE INDEX node_unsettled ON node (id, state) WHERE state <> 0;
CREATE INDEX node_lost ON node (id, local_lost) WHERE local_lost <> 0;
CREATE TABLE fact (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE sent (number INTEGER PRIMARY KEY, operations BLOB NOT NULL) STRICT;
";

/// Opens a catalog for its one writer; it is made where there is none.
pub(super) fn open(path: &Path, case: Case) -> Result<Connection, CatalogFailure> {
    let fail = |error| failure(path, &error);
    let mut connection = Connection::open(path).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    tune(&connection).map_err(fail)?;
    let format = check_format(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES).map_err(fail)?;
    if format == 0 {
        make(&mut connection, case).map_err(fail)?;
    } else {
        check_whole(&connection, path)?;
    }
    if (1..FORMAT).contains(&format) {
        bring_forward(&mut connection, path, case, format)?;
    }
    check_case(&connection, path, case)?;
    Ok(connection)
}

/// Opens a catalog that [`open`] has made or checked, for reading beside its writer.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    tune(&connection)?;
    Ok(connection)
}

/// Opens a catalog for one more small change, between the transactions of its writer.
pub(super) fn open_beside(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    // Without it a statement whose plan looked at a partial index is planned again for each value that is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// 0: a new file.
fn check_format(connection: &Connection, path: &Path) -> Result<i64, CatalogFailure> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|e| failure(path, &e));
    let (format, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| failure(path, &error))?;
    match (format, application) {
        (0, 0) if tables == 0 => Ok(0),
        (1..=FORMAT, APPLICATION) => Ok(format),
        (format, APPLICATION) => Err(CatalogFailure {
            text: format!("Catalog {} has format {format}, this release knows format {FORMAT}", path.display()),
            remedy: "Use the release that wrote it, or remove the file: the endpoint then compares by content".to_owned(),
        }),
        _ => Err(CatalogFailure {
            text: format!("File {} is not a catalog", path.display()),
            remedy: "Move it away: the endpoint then makes a new catalog and compares by content".to_owned(),
        }),
    }
}

fn make(connection: &mut Connection, case: Case) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO fact (key, value) VALUES ('case', ?1)", params![case_byte(case)])?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Format 1 had no states of local files in its index, formats 1 and 2 had handles as the file system writes them, and before format 4
/// nothing said which contents are away: the next looks find that out.
fn bring_forward(connection: &mut Connection, path: &Path, case: Case, format: i64) -> Result<(), CatalogFailure> {
    let fail = |error| failure(path, &error);
    let transaction = connection.transaction().map_err(fail)?;
    if format == 1 {
        transaction.execute_batch("ALTER TABLE node ADD COLUMN print BLOB").map_err(fail)?;
    }
    transaction.execute_batch("ALTER TABLE node ADD COLUMN tiered INTEGER NOT NULL DEFAULT 0").map_err(fail)?;
    transaction.execute_batch("DROP INDEX node_local; DROP INDEX node_handle;").map_err(fail)?;
    if format < 3 {
        let mut all = transaction.prepare("SELECT id, record FROM node").map_err(fail)?;
        let mut keep = transaction.prepare("UPDATE node SET print = ?2, handle = ?3 WHERE id = ?1").map_err(fail)?;
        let mut rows = all.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let (id, blob): (Vec<u8>, Vec<u8>) = row.get(0).and_then(|id| Ok((id, row.get(1)?))).map_err(fail)?;
            let record: Record = super::row::decode(&blob).map_err(|why| damaged(path, &why))?;
            let columns = Columns::of(&record, case);
            keep.execute(params![id, columns.print, columns.handle]).map_err(fail)?;
        }
    }
    let is_new =
        |line: &&str| ["CREATE INDEX node_local ", "CREATE INDEX node_handle "].iter().any(|name| line.starts_with(name));
    let indexes: String = TABLES.lines().filter(is_new).collect();
    transaction.execute_batch(&indexes).map_err(fail)?;
    transaction.pragma_update(None, "user_version", FORMAT).map_err(fail)?;
    transaction.commit().map_err(fail)
}

fn check_whole(connection: &Connection, path: &Path) -> Result<(), CatalogFailure> {
    let verdict: Result<String, _> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(damaged(path, &verdict)),
        Err(error) => Err(failure(path, &error)),
    }
}

fn check_case(connection: &Connection, path: &Path, case: Case) -> Result<(), CatalogFailure> {
    let query = connection.query_row("SELECT value FROM fact WHERE key = 'case'", [], |row| row.get::<_, Vec<u8>>(0));
    match query.optional().map_err(|error| failure(path, &error))? {
        Some(kept) if kept == case_byte(case) => Ok(()),
        _ => Err(CatalogFailure {
            text: format!("Catalog {} belongs to a share whose names compare otherwise", path.display()),
            remedy: "Remove the file: the endpoint then compares by content".to_owned(),
        }),
    }
}

fn case_byte(case: Case) -> Vec<u8> {
    vec![match case {
        Case::Sensitive => 0,
        Case::Insensitive => 1,
    }]
}

/// What a failure of the database means to a user.
pub(super) fn failure(path: &Path, error: &rusqlite::Error) -> CatalogFailure {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &error.to_string()),
        Some(ErrorCode::DiskFull) => CatalogFailure {
            text: format!("Catalog {} cannot be written: no space left", path.display()),
            remedy: "Make room on the volume that holds it; work goes on by itself".to_owned(),
        },
        _ => CatalogFailure {
            text: format!("Catalog {} cannot be used: {error}", path.display()),
            remedy: "Check the volume that holds it; work goes on by itself once it can be used".to_owned(),
        },
    }
}

pub(super) fn damaged(path: &Path, detail: &str) -> CatalogFailure {
    CatalogFailure {
        text: format!("Catalog {} is damaged: {detail}", path.display()),
        remedy: "Remove the file: the endpoint makes a new one and compares folder and share by content".to_owned(),
    }
}
