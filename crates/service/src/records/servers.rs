//! Registered servers and their epochs.
//!
//! Whether one is online is no record; that is kept in memory.
//!
//! **Invariant:** an epoch is given once, and never a smaller one after it.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_api::Code;
use isotherm_api::management::ServerChange;
use isotherm_api::sync::Attach;
use isotherm_core::bandwidth::{LIMITS_MAX, Limit};
use isotherm_core::ids::{Epoch, ServerId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::codec::{signed, unsigned};
use super::groups::audit;
use crate::fault::Fault;

/// A server as the records have it.
#[derive(Clone, Debug)]
pub(crate) struct ServerRow {
    pub(crate) id: ServerId,
    pub(crate) name: String,
    pub(crate) epoch: Epoch,
    pub(crate) endpoints: u64,
    pub(crate) limits: Vec<Limit>,
}

const COLUMNS: &str = "id, name, epoch, (SELECT count(*) FROM endpoint WHERE endpoint.server = server.id), limits";

fn read(row: &Row<'_>) -> Result<ServerRow, rusqlite::Error> {
    Ok(ServerRow {
        id: ServerId(row.get(0)?),
        name: row.get(1)?,
        epoch: Epoch(unsigned(row.get(2)?)),
        endpoints: unsigned(row.get(3)?),
        limits: limits(row, 4)?,
    })
}

fn limits(row: &Row<'_>, at: usize) -> Result<Vec<Limit>, rusqlite::Error> {
    let text = row.get_ref(at)?.as_str()?;
    serde_json::from_str(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error)))
}

/// All servers, by name.
pub(crate) fn servers(connection: &Connection) -> Result<Vec<ServerRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM server ORDER BY name"))?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One server.
pub(crate) fn server_by_name(connection: &Connection, name: &str) -> Result<ServerRow, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM server WHERE name = ?1"))?;
    statement.query_row([name], read).optional()?.ok_or_else(|| Fault::not_found("Server", name))
}

/// Registers a server, or knows it again, and gives it its next epoch. `fresh` becomes the id of one that has none.
pub(crate) fn attach(connection: &Connection, attach: &Attach, fresh: ServerId, now_ms: u64) -> Result<ServerRow, Fault> {
    let id = attach.server.unwrap_or(fresh);
    let holder: Option<[u8; 16]> =
        connection.query_row("SELECT id FROM server WHERE name = ?1", [&attach.name], |row| row.get(0)).optional()?;
    if holder.is_some_and(|holder| holder != id.0) {
        let message = format!(
            "Server name {} belongs to another registered server; choose another name, or delete that server first",
            attach.name
        );
        return Err(Fault::new(Code::Exists, message));
    }
    let known: Option<String> =
        connection.query_row("SELECT name FROM server WHERE id = ?1", [&id.0], |row| row.get(0)).optional()?;
    match known {
        None => {
            let sql = "INSERT INTO server (id, name, epoch, created_ms) VALUES (?1, ?2, 0, ?3)";
            connection.execute(sql, params![id.0, attach.name, signed(now_ms)])?;
            keep_name(connection, id, &attach.name, now_ms)?;
            audit(connection, now_ms, "server.register", &attach.name, &id.to_string())?;
        }
        Some(name) if name != attach.name => {
            connection.execute("UPDATE server SET name = ?2 WHERE id = ?1", params![id.0, attach.name])?;
            keep_name(connection, id, &attach.name, now_ms)?;
            audit(connection, now_ms, "server.rename", &name, &attach.name)?;
        }
        Some(_) => {}
    }
    connection.execute("UPDATE server SET epoch = epoch + 1 WHERE id = ?1", [&id.0])?;
    server_by_name(connection, &attach.name)
}

/// Remembers for ever that a server has a name now: what it wrote is asked for by it.
fn keep_name(connection: &Connection, server: ServerId, name: &str, now_ms: u64) -> Result<(), Fault> {
    let sql = "INSERT OR REPLACE INTO server_name (id, name, at_ms) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![server.0, name, signed(now_ms)])?;
    Ok(())
}

/// What earlier releases have noted of names, in the audit log.
pub(super) fn name_from_audit(connection: &Connection) -> Result<(), Fault> {
    let sql =
        "SELECT action, subject, detail, at_ms FROM audit WHERE action IN ('server.register', 'server.rename') ORDER BY num";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut holders: BTreeMap<String, ServerId> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (action, subject, detail): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (name, server) = match action.as_str() {
            "server.register" => (subject, detail.parse().ok()),
            _ => (detail, holders.remove(&subject)),
        };
        if let Some(server) = server {
            keep_name(connection, server, &name, unsigned(row.get(3)?))?;
            holders.insert(name, server);
        }
    }
    connection.execute("INSERT OR IGNORE INTO server_name (id, name, at_ms) SELECT id, name, created_ms FROM server", [])?;
    Ok(())
}

/// The servers that ever had a name, or the one with this id, also those that were deleted.
pub(crate) fn ever_called(connection: &Connection, name: &str) -> Result<BTreeSet<ServerId>, Fault> {
    let mut statement = connection.prepare_cached("SELECT id FROM server_name WHERE name = ?1")?;
    let rows = statement.query_map([name], |row| row.get(0).map(ServerId))?;
    let mut found: BTreeSet<ServerId> = rows.collect::<Result<_, _>>()?;
    if let Ok(id) = name.parse::<ServerId>()
        && connection.prepare_cached("SELECT 1 FROM server_name WHERE id = ?1")?.exists([&id.0])?
    {
        found.insert(id);
    }
    if found.is_empty() { Err(Fault::not_found("Server", isotherm_core::name::escape(name.as_bytes()))) } else { Ok(found) }
}

/// The name of a server that wrote something, the last one that it had; none if it was never known.
pub(crate) fn server_name(connection: &Connection, server: ServerId) -> Result<Option<String>, Fault> {
    let sql = "SELECT name FROM (SELECT 1 AS rank, name, 0 AS at_ms FROM server WHERE id = ?1
        UNION ALL SELECT 0, name, at_ms FROM server_name WHERE id = ?1) ORDER BY rank DESC, at_ms DESC LIMIT 1";
    Ok(connection.prepare_cached(sql)?.query_row([&server.0], |row| row.get(0)).optional()?)
}

/// Refuses what comes from an unknown server or an older run.
pub(crate) fn check_epoch(connection: &Connection, server: ServerId, epoch: Epoch) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("SELECT name, epoch FROM server WHERE id = ?1")?;
    let found: Option<(String, i64)> = statement.query_row([&server.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (name, newest) = found.ok_or_else(|| Fault::not_found("Server", server))?;
    // A newer one is of a run that a backup which was put back does not know yet; its next commit tells ([`learn_epoch`]).
    if unsigned(newest) <= epoch.0 {
        return Ok(());
    }
    Err(Fault::new(Code::Fenced, format!("Another run of the agent of server {name} has taken over (fenced)")))
}

/// Learns of a run that began after the backup which was put back: older ones are fenced again.
pub(crate) fn learn_epoch(connection: &Connection, server: ServerId, epoch: Epoch) -> Result<(), Fault> {
    let sql = "UPDATE server SET epoch = ?2 WHERE id = ?1 AND epoch < ?2";
    connection.prepare_cached(sql)?.execute(params![server.0, signed(epoch.0)])?;
    Ok(())
}

/// Changes a server.
pub(crate) fn change_server(connection: &Connection, name: &str, change: &ServerChange, now_ms: u64) -> Result<ServerRow, Fault> {
    let server = server_by_name(connection, name)?;
    if let Some(limits) = &change.limits {
        if limits.len() > LIMITS_MAX {
            return Err(Fault::invalid(format!("{} limits are too many for one server: at most {LIMITS_MAX}", limits.len())));
        }
        let text = serde_json::to_string(limits).expect("limits are texts");
        connection.execute("UPDATE server SET limits = ?2 WHERE id = ?1", params![server.id.0, text])?;
        let shown: Vec<String> = limits.iter().map(ToString::to_string).collect();
        audit(connection, now_ms, "server.limits", name, &shown.join(" "))?;
    }
    server_by_name(connection, name)
}

/// Forgets a server without endpoints.
pub(crate) fn delete_server(connection: &Connection, name: &str, now_ms: u64) -> Result<(), Fault> {
    let server = server_by_name(connection, name)?;
    if server.endpoints > 0 {
        let message = format!("Server {name} still has {} endpoints; delete them first", server.endpoints);
        return Err(Fault::new(Code::InUse, message));
    }
    connection.execute("DELETE FROM server WHERE id = ?1", [&server.id.0])?;
    audit(connection, now_ms, "server.delete", name, "")
}
