//! The tables, and how a database is opened.
//!
//! A change of the tables is a new number and a step in `upgrade`; tables of earlier releases are kept by the tests.
//!
//! **Invariant:** a database that is damaged or of another format is refused before anything is read from it.

use std::path::Path;
use std::time::Duration;

use isotherm_api::Code;
use isotherm_core::fold::FOLD_VERSION;
use isotherm_core::name::Case;
use rusqlite::{Connection, OpenFlags, params};

use super::codec::decode_node;
use crate::clock::{now_ms, random};
use crate::fault::Fault;

/// Number in the database's header: "isoT".
const APPLICATION_ID: i64 = 0x6973_6f54;
/// Version of the tables.
const TABLES: i64 = 8;
/// How long a connection waits for a lock; only a checkpoint ever holds one.
pub(super) const BUSY: Duration = Duration::from_secs(10);
/// Memory for pages of the writing connection in KiB.
const CACHE_KIB: i64 = 64 * 1024;
/// The write-ahead log is cut back to this many bytes after a long reader has let it grow.
const LOG_MAX: i64 = 64 * 1024 * 1024;
/// Pages of the log before they are put into the file: a page that several transactions change is then put there once. 32 MiB.
const LOG_PAGES: i64 = 8_192;
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// Numbers that are more than 63 bits wide (incarnation, sizes) are kept as the signed number of the same bits.
/// `data` holds a node in core's encoding behind a format byte; the columns beside it are what queries look at.
const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE share (
    num INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    incarnation INTEGER NOT NULL, head INTEGER NOT NULL, horizon INTEGER NOT NULL,
    insensitive INTEGER NOT NULL, fold_version INTEGER NOT NULL, quota INTEGER, used INTEGER NOT NULL,
    exclusions TEXT NOT NULL, max_delete_fraction REAL NOT NULL, barrier INTEGER NOT NULL, created_ms INTEGER NOT NULL,
    keep_days INTEGER NOT NULL DEFAULT 30, keep_versions INTEGER NOT NULL DEFAULT 0, hold INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE node (
    share INTEGER NOT NULL REFERENCES share(num), id BLOB NOT NULL, parent BLOB NOT NULL,
    key BLOB, name BLOB NOT NULL, kind INTEGER NOT NULL, deleted INTEGER NOT NULL, last INTEGER NOT NULL,
    size INTEGER NOT NULL, manifest BLOB, conflict_of BLOB, at_ms INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (share, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX node_by_name ON node (share, parent, key) WHERE deleted = 0;
CREATE UNIQUE INDEX node_by_version ON node (share, last);
CREATE INDEX node_by_conflict ON node (share, conflict_of) WHERE conflict_of IS NOT NULL AND deleted = 0;
CREATE INDEX node_by_old_name ON node (share, parent, key) WHERE deleted = 1;
CREATE TABLE revision (
    share INTEGER NOT NULL REFERENCES share(num), id BLOB NOT NULL, last INTEGER NOT NULL,
    manifest BLOB, at_ms INTEGER NOT NULL, replaced_ms INTEGER NOT NULL, data BLOB NOT NULL,
    parent BLOB, key BLOB, PRIMARY KEY (share, id, last)
) WITHOUT ROWID;
CREATE INDEX revision_by_name ON revision (share, parent, key);
CREATE INDEX revision_by_age ON revision (share, replaced_ms);
CREATE TABLE operation (
    share INTEGER NOT NULL REFERENCES share(num), id BLOB NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL,
    at_ms INTEGER NOT NULL, PRIMARY KEY (share, id)
) WITHOUT ROWID;
CREATE TABLE server (
    id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, created_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE endpoint (
    id BLOB PRIMARY KEY, share INTEGER NOT NULL REFERENCES share(num), server BLOB NOT NULL REFERENCES server(id),
    path TEXT NOT NULL, authoritative INTEGER NOT NULL, paused INTEGER NOT NULL, deleting INTEGER NOT NULL,
    confirmed_deletes INTEGER NOT NULL, created_ms INTEGER NOT NULL, UNIQUE (share, server)
) WITHOUT ROWID;
CREATE INDEX endpoint_by_server ON endpoint (server);
CREATE TABLE pack (
    num INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, len INTEGER NOT NULL, chunks INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
);
CREATE TABLE chunk (
    id BLOB PRIMARY KEY, pack INTEGER NOT NULL REFERENCES pack(num), at INTEGER NOT NULL, stored_len INTEGER NOT NULL,
    raw_len INTEGER NOT NULL, form INTEGER NOT NULL, condemned INTEGER NOT NULL, pinned_until_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX chunk_by_pack ON chunk (pack);
CREATE TABLE manifest (
    id BLOB PRIMARY KEY, bytes BLOB NOT NULL, chunks BLOB, at_ms INTEGER NOT NULL, complete_at INTEGER
) WITHOUT ROWID;
CREATE INDEX manifest_by_age ON manifest (at_ms);
CREATE TABLE audit (
    num INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
INSERT INTO meta VALUES ('revision', 1), ('condemnations', 0);
";

/// Opens the database for writing; makes it where there is none.
pub(super) fn open(file: &Path) -> Result<Connection, Fault> {
    let damaged = |why: String| Fault::new(Code::Corrupt, format!("Records database {} is damaged: {why}", file.display()));
    let named = |error: rusqlite::Error| {
        let fault = Fault::from(error);
        Fault::new(fault.code, format!("{}: {}", file.display(), fault.message))
    };
    let connection = Connection::open(file).map_err(named)?;
    prepare(&connection).map_err(named)?;
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(named)?;
    let tables = pragma("user_version").map_err(named)?;
    let is_new = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map_err(named)? == 0;
    if !is_new && (application != APPLICATION_ID || !(1..=TABLES).contains(&tables)) {
        let message = format!("Records database {} has tables of version {tables}, this release knows {TABLES}", file.display());
        return Err(Fault::invalid(message));
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(named)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(named)?;
    // What a nested transaction would take back is otherwise kept in a file in /tmp, which a hardened unit may not write to:
    // then no change can be made. It is as large as the pages of one batch.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(named)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES).map_err(named)?;
    connection.pragma_update(None, "journal_size_limit", LOG_MAX).map_err(named)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(named)?;
    if is_new {
        let script = format!(
            "BEGIN IMMEDIATE; {SCHEMA} {FROM_2} {FROM_3} {FROM_4} {FROM_5} {FROM_6} {FROM_7} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {TABLES}; COMMIT;"
        );
        connection.execute_batch(&script).map_err(named)?;
        identify(&connection)?;
        super::statistics::tell(&connection)?;
        return Ok(connection);
    }
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(named)?;
    if check != "ok" {
        return Err(damaged(check));
    }
    check_fold(&connection, file)?;
    upgrade(&connection, tables).map_err(|fault| Fault::new(fault.code, format!("{}: {}", file.display(), fault.message)))?;
    identify(&connection)?;
    super::statistics::tell(&connection)?;
    super::waiting::wait_if_copy(&connection, now_ms())?;
    Ok(connection)
}

/// Gives the records an identity for ever, by which a backup knows whose it is.
fn identify(connection: &Connection) -> Result<(), Fault> {
    // The first bit stays clear, so that it reads the same as any other number.
    let drawn = i64::from_be_bytes(random()?) & i64::MAX;
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?1)", [drawn])?;
    Ok(())
}

/// What tables of version 1 lack: how long versions are kept, and the names that nodes had.
const FROM_1: &str = "
ALTER TABLE share ADD COLUMN keep_days INTEGER NOT NULL DEFAULT 30;
ALTER TABLE share ADD COLUMN keep_versions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE share ADD COLUMN hold INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revision ADD COLUMN parent BLOB;
ALTER TABLE revision ADD COLUMN key BLOB;
CREATE INDEX node_by_old_name ON node (share, parent, key) WHERE deleted = 1;
CREATE INDEX revision_by_name ON revision (share, parent, key);
CREATE INDEX revision_by_age ON revision (share, replaced_ms);
CREATE INDEX manifest_by_age ON manifest (at_ms);
";

/// What tables of version 2 lack, and new ones get too: what groups take in the store, and the lives of shares that have
/// ended.
const FROM_2: &str = "
CREATE TABLE space (
    share INTEGER PRIMARY KEY REFERENCES share(num), files INTEGER NOT NULL, distinct_bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL, measured_ms INTEGER NOT NULL
);
CREATE TABLE life (
    num INTEGER PRIMARY KEY, share INTEGER NOT NULL REFERENCES share(num), incarnation INTEGER NOT NULL, ended INTEGER NOT NULL
);
CREATE INDEX life_by_share ON life (share, num);
";

/// What tables of version 3 lack, and new ones get too: live files whose content a check found damaged, and packs that it saw
/// and nothing names.
const FROM_3: &str = "
CREATE TABLE damage (
    share INTEGER NOT NULL REFERENCES share(num), node BLOB NOT NULL, manifest BLOB NOT NULL, round INTEGER NOT NULL,
    repaired INTEGER NOT NULL, PRIMARY KEY (share, node)
) WITHOUT ROWID;
CREATE INDEX damage_by_manifest ON damage (manifest) WHERE repaired = 0;
CREATE TABLE stray (pack BLOB PRIMARY KEY, len INTEGER NOT NULL, seen_ms INTEGER NOT NULL) WITHOUT ROWID;
";

/// What tables of version 4 lack, and new ones get too: since when all that was is still kept, and the names that servers ever
/// had, which outlive them.
const FROM_4: &str = "
CREATE TABLE server_name (
    id BLOB NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (name, id)
) WITHOUT ROWID;
CREATE INDEX server_name_by_id ON server_name (id, at_ms);
ALTER TABLE share ADD COLUMN gone_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE share ADD COLUMN gone_version INTEGER NOT NULL DEFAULT 0;
";

/// What tables of version 5 lack, and new ones get too: whether an endpoint tiers.
const FROM_5: &str = "
ALTER TABLE endpoint ADD COLUMN tiering INTEGER NOT NULL DEFAULT 0;
";

/// What tables of version 6 lack, and new ones get too: which contents an endpoint lets go, as JSON.
const FROM_6: &str = "
ALTER TABLE endpoint ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
";

/// What tables of version 7 lack, and new ones get too: the limits of a server's traffic, as JSON.
const FROM_7: &str = "
ALTER TABLE server ADD COLUMN limits TEXT NOT NULL DEFAULT '[]';
";

/// Earlier releases did not note what they let go: all that the group's days allowed them to.
const GONE_BEFORE_5: &str = "
UPDATE share SET gone_ms = max(0, (SELECT value FROM meta WHERE key = 'retention_ms') - keep_days * 86400000)
    WHERE hold = 0 AND EXISTS (SELECT 1 FROM meta WHERE key = 'retention_ms');
UPDATE share SET gone_ms = 0 WHERE gone_ms <= created_ms;
UPDATE share SET gone_version = max(
    coalesce((SELECT max(last) FROM node WHERE node.share = num AND node.at_ms <= gone_ms), 0),
    coalesce((SELECT max(last) FROM revision WHERE revision.share = num AND revision.at_ms <= gone_ms), 0));
";

/// Brings tables of an earlier release to the present version, in one transaction.
fn upgrade(connection: &Connection, tables: i64) -> Result<(), Fault> {
    if tables == TABLES {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    if tables < 2 {
        transaction.execute_batch(FROM_1)?;
        name_revisions(&transaction)?;
    }
    if tables < 3 {
        transaction.execute_batch(FROM_2)?;
    }
    if tables < 4 {
        transaction.execute_batch(FROM_3)?;
    }
    if tables < 5 {
        transaction.execute_batch(FROM_4)?;
        transaction.execute_batch(GONE_BEFORE_5)?;
        super::servers::name_from_audit(&transaction)?;
    }
    if tables < 6 {
        transaction.execute_batch(FROM_5)?;
    }
    if tables < 7 {
        transaction.execute_batch(FROM_6)?;
    }
    transaction.execute_batch(FROM_7)?;
    transaction.pragma_update(None, "user_version", TABLES)?;
    transaction.commit()?;
    tracing::info!(from = tables, to = TABLES, "Records were brought to this release's tables");
    Ok(())
}

fn name_revisions(connection: &Connection) -> Result<(), Fault> {
    let sql =
        "SELECT revision.share, revision.id, last, data, insensitive FROM revision JOIN share ON share.num = revision.share";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut named = connection.prepare("UPDATE revision SET parent = ?4, key = ?5 WHERE share = ?1 AND id = ?2 AND last = ?3")?;
    while let Some(row) = rows.next()? {
        let (share, id, last): (i64, [u8; 16], i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let node = decode_node(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let case = if row.get(4)? { Case::Insensitive } else { Case::Sensitive };
        named.execute(params![share, id, last, node.place.parent.0, node.place.name.key(case)])?;
    }
    Ok(())
}

/// A share folds names by the table that it was made with, for ever.
fn check_fold(connection: &Connection, file: &Path) -> Result<(), Fault> {
    let mut statement =
        connection.prepare("SELECT name, fold_version FROM share WHERE insensitive = 1 AND fold_version <> ?1")?;
    let mut rows = statement.query([FOLD_VERSION])?;
    if let Some(row) = rows.next()? {
        let (name, found): (String, i64) = (row.get(0)?, row.get(1)?);
        let message =
            format!("Group {name} in {} folds names by table {found}, this release knows table {FOLD_VERSION}", file.display());
        return Err(Fault::invalid(message));
    }
    Ok(())
}

/// Opens the database for reading.
pub(super) fn open_to_read(file: &Path) -> Result<Connection, rusqlite::Error> {
    // Not read-only for SQLite itself: readers of a write-ahead log write to its shared index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    prepare(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", true)
}
