//! Whether collection waits: once records were put back, until every server has offered what it has.
//!
//! A backup says in its records that it is one; the first service that opens it takes note and begins to wait. Where a whole
//! machine was put back, an agent finds out.
//!
//! **Invariant** (case 10 of the ways to lose a file): from the transaction that knows of it on, collection waits until
//! [`end_wait`], also over restarts.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::codec::{signed, unsigned};
use crate::fault::Fault;

const IS_COPY: &str = "is_copy";
const WAITS_SINCE: &str = "collect_waits_since";

fn set(connection: &Connection, key: &str, value: i64) -> Result<(), rusqlite::Error> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key, value]).map(drop)
}

/// Says in records that were just copied that they are a copy.
pub(super) fn mark_as_copy(connection: &Connection) -> Result<(), rusqlite::Error> {
    set(connection, IS_COPY, 1)
}

/// Begins to wait if the records are a copy that is served now.
pub(super) fn wait_if_copy(connection: &Connection, now_ms: u64) -> Result<(), Fault> {
    let transaction = connection.unchecked_transaction()?;
    if transaction.execute("DELETE FROM meta WHERE key = ?1", [IS_COPY])? > 0 {
        wait_for_all(&transaction, now_ms)?;
        tracing::warn!("A backup was put back; no garbage is collected before every server has offered what it has");
    }
    Ok(transaction.commit()?)
}

/// Collection waits from now on, if it does not already. Each endpoint is asked to look at its whole folder: what it has reached
/// before says nothing.
pub(super) fn wait_for_all(connection: &Connection, now_ms: u64) -> Result<(), Fault> {
    if waits_since(connection)?.is_some() {
        return Ok(());
    }
    // Beyond all barriers that were ever set, also where the clock is behind.
    let newest: i64 = connection.query_row("SELECT coalesce(max(barrier), 0) FROM share", [], |row| row.get(0))?;
    let since = signed(now_ms).max(newest + 1);
    set(connection, WAITS_SINCE, since)?;
    connection.execute("UPDATE share SET barrier = ?1", [since])?;
    super::groups::bump(connection)
}

/// Refuses in a transaction that lets go of something: the waiting may have begun since the run did.
pub(crate) fn refuse_while_waiting(connection: &Connection) -> Result<(), Fault> {
    if waits_since(connection)?.is_none() {
        return Ok(());
    }
    let message = "Records were put back, and nothing goes before every server has offered what it has";
    Err(Fault::new(isotherm_api::Code::InUse, message))
}

/// Since when collection waits, in milliseconds since 1970 (later than that where the clock was behind), which is also the least
/// barrier that an endpoint has to reach; none if it does not.
pub(crate) fn waits_since(connection: &Connection) -> Result<Option<u64>, Fault> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([WAITS_SINCE], |row| row.get(0).map(unsigned)).optional()?)
}

/// Collection waits no longer: everything is there, or an administrator has waived it. Gives whether it did wait since then.
pub(crate) fn end_wait(connection: &Connection, since_ms: u64) -> Result<bool, Fault> {
    let ended = connection.execute("DELETE FROM meta WHERE key = ?1 AND value = ?2", params![WAITS_SINCE, signed(since_ms)])?;
    Ok(ended > 0)
}
