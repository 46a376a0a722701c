//! Sync groups, barriers, the revision of all assignments, and the audit log.
//!
//! Names and numbers are checked by the caller of the API; what must be unique is checked here, inside the transaction.
//!
//! **Invariant:** every change here writes the audit log and the revision in the same transaction.

use isotherm_api::Code;
use isotherm_api::management::{AuditEntry, Group, GroupChange, Keep, KeepChange, MAX_DELETE_FRACTION, NewGroup, Quota};
use isotherm_core::fold::FOLD_VERSION;
use isotherm_core::ids::{GroupId, Incarnation, Version};
use isotherm_core::name::Case;
use isotherm_core::namespace::{History, Reader, Records as _};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::codec::{signed, unsigned};
use crate::fault::Fault;

const COLUMNS: &str = "id, name, insensitive, fold_version, quota, used, exclusions, max_delete_fraction, head, incarnation,
    barrier, created_ms, (SELECT count(*) FROM endpoint WHERE endpoint.share = share.num), keep_days, keep_versions, hold, num";

fn read(connection: &Connection, row: &Row<'_>) -> Result<Group, Fault> {
    let name: String = row.get(1)?;
    let exclusions: String = row.get(6)?;
    let exclusions = serde_json::from_str(&exclusions)
        .map_err(|error| Fault::corrupt(format!("Exclusions of group {name} in the records: {error}")))?;
    Ok(Group {
        id: GroupId(row.get(0)?),
        name,
        case: if row.get(2)? { Case::Insensitive } else { Case::Sensitive },
        fold_version: row.get(3)?,
        quota: row.get::<_, Option<i64>>(4)?.map(unsigned),
        usage: unsigned(row.get(5)?),
        exclusions,
        max_delete_fraction: row.get(7)?,
        head: Version(unsigned(row.get(8)?)),
        incarnation: Incarnation(unsigned(row.get(9)?)),
        barrier: unsigned(row.get(10)?),
        created_ms: unsigned(row.get(11)?),
        endpoints: unsigned(row.get(12)?),
        keep: Keep { days: row.get(13)?, versions: row.get(14)?, hold: row.get(15)? },
        space: super::space::last(connection, row.get(16)?)?,
    })
}

/// All groups, by name.
pub(crate) fn groups(connection: &Connection) -> Result<Vec<Group>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM share ORDER BY name"))?;
    let mut rows = statement.query([])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        groups.push(read(connection, row)?);
    }
    Ok(groups)
}

/// One group.
pub(crate) fn group(connection: &Connection, name: &str) -> Result<Group, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM share WHERE name = ?1"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(|row| read(connection, row)).transpose()?.ok_or_else(|| Fault::not_found("Group", name))
}

/// One group by its id.
pub(crate) fn group_by_id(connection: &Connection, id: GroupId) -> Result<Group, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM share WHERE id = ?1"))?;
    let mut rows = statement.query([&id.0])?;
    rows.next()?.map(|row| read(connection, row)).transpose()?.ok_or_else(|| Fault::not_found("Share", id))
}

/// Makes a group and its empty share.
pub(crate) fn create_group(
    connection: &Connection,
    id: GroupId,
    incarnation: Incarnation,
    new: &NewGroup,
    now_ms: u64,
) -> Result<Group, Fault> {
    let sql = "INSERT INTO share (id, name, incarnation, head, horizon, insensitive, fold_version, quota, used, exclusions,
        max_delete_fraction, barrier, created_ms) VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, 0, ?7, ?8, 0, ?9)";
    if connection.prepare_cached("SELECT 1 FROM share WHERE name = ?1")?.exists([&new.name])? {
        return Err(Fault::new(Code::Exists, format!("Group {} exists already", new.name)));
    }
    connection.prepare_cached(sql)?.execute(params![
        id.0,
        new.name,
        signed(incarnation.0),
        new.case == Case::Insensitive,
        FOLD_VERSION,
        new.quota.map(signed),
        json(&new.exclusions),
        new.max_delete_fraction.unwrap_or(MAX_DELETE_FRACTION),
        signed(now_ms)
    ])?;
    keep(connection, id, new.keep)?;
    audit(connection, now_ms, "group.create", &new.name, &json(new))?;
    group(connection, &new.name)
}

fn keep(connection: &Connection, id: GroupId, change: KeepChange) -> Result<(), Fault> {
    let sql = "UPDATE share SET keep_days = coalesce(?2, keep_days), keep_versions = coalesce(?3, keep_versions),
        hold = coalesce(?4, hold) WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![id.0, change.days, change.versions, change.hold])?;
    Ok(())
}

/// Changes a group.
pub(crate) fn change_group(connection: &Connection, name: &str, change: &GroupChange, now_ms: u64) -> Result<Group, Fault> {
    let id = group(connection, name)?.id;
    if let Some(quota) = change.quota {
        let quota = match quota {
            Quota::Unlimited => None,
            Quota::Bytes(bytes) => Some(signed(bytes)),
        };
        connection.execute("UPDATE share SET quota = ?2 WHERE id = ?1", params![id.0, quota])?;
    }
    if let Some(exclusions) = &change.exclusions {
        connection.execute("UPDATE share SET exclusions = ?2 WHERE id = ?1", params![id.0, json(exclusions)])?;
    }
    if let Some(fraction) = change.max_delete_fraction {
        connection.execute("UPDATE share SET max_delete_fraction = ?2 WHERE id = ?1", params![id.0, fraction])?;
    }
    keep(connection, id, change.keep)?;
    audit(connection, now_ms, "group.set", name, &json(change))?;
    group(connection, name)
}

/// Begins a new life of a share: versions given out before mean something only up to `common`.
fn end_life(connection: &Connection, old: &Group, common: Version, fresh: Incarnation, now_ms: u64) -> Result<(), Fault> {
    let sql = "INSERT INTO life (share, incarnation, ended) SELECT num, incarnation, ?2 FROM share WHERE id = ?1";
    connection.execute(sql, params![old.id.0, signed(common.0)])?;
    connection.execute("UPDATE share SET incarnation = ?2 WHERE id = ?1", params![old.id.0, signed(fresh.0)])?;
    audit(connection, now_ms, "group.renew", &old.name, "")
}

/// Begins another life of a share, before anything else is changed in it.
pub(crate) fn begin_life(connection: &Connection, id: GroupId, fresh: Incarnation, now_ms: u64) -> Result<(), Fault> {
    let old = group_by_id(connection, id)?;
    end_life(connection, &old, old.head, fresh, now_ms)
}

/// Begins another life of a share if a reader of this one knows more than there is: the records were set back. Gives whether
/// they were. `is_own`: this run of the service has begun the life.
pub(crate) fn begin_life_if_behind(
    connection: &Connection,
    id: GroupId,
    reader: Reader,
    (fresh, is_own): (Incarnation, bool),
    now_ms: u64,
) -> Result<bool, Fault> {
    let group = group_by_id(connection, id)?;
    let is_behind = group.incarnation == reader.cursor.incarnation && reader.newest > group.head;
    if knows_more(connection, &group, reader)? {
        super::waiting::wait_for_all(connection, now_ms)?;
    }
    if is_behind {
        // Set back under a run that went on, as with a machine's memory: nobody knows what was written since, or where the
        // common past ended.
        let common = if is_own { Version(0) } else { group.head };
        end_life(connection, &group, common, fresh, now_ms)?;
    }
    Ok(is_behind)
}

/// Whether a reader knows what these records have never had, or have no more: they were set back. It may be of a life that began
/// after the copy was made, or of one that this run has ended already.
fn knows_more(connection: &Connection, group: &Group, reader: Reader) -> Result<bool, Fault> {
    let lives = super::SqlRecords::open(connection, group.id, 0)?.lives()?;
    let history = History { lives, present: group.incarnation };
    let newest = reader.newest.max(reader.cursor.version);
    Ok(match history.common_with(reader.cursor.incarnation) {
        Some(common) => newest > common.min(group.head),
        None => newest > Version(0),
    })
}

/// Deletes a group without endpoints. Its chunks stay until they are collected.
pub(crate) fn delete_group(connection: &Connection, name: &str, now_ms: u64) -> Result<GroupId, Fault> {
    let group = group(connection, name)?;
    if group.endpoints > 0 {
        let message = format!("Group {name} still has {} endpoints; delete them first", group.endpoints);
        return Err(Fault::new(Code::InUse, message));
    }
    if group.keep.hold {
        let message = format!(
            "Group {name} is on hold: nothing of it is to go; end the hold with `isotherm group set {name} --hold off` first"
        );
        return Err(Fault::new(Code::InUse, message));
    }
    let num: i64 = connection.query_row("SELECT num FROM share WHERE id = ?1", [&group.id.0], |row| row.get(0))?;
    for table in ["operation", "revision", "node", "space", "life", "damage"] {
        connection.execute(&format!("DELETE FROM {table} WHERE share = ?1"), [num])?;
    }
    connection.execute("DELETE FROM share WHERE num = ?1", [num])?;
    audit(connection, now_ms, "group.delete", name, "")?;
    Ok(group.id)
}

/// Sets the next barrier of a group. Its number is that of the moment, so that one from before a backup was put back is smaller
/// than all that come after: agents may still report those that the backup lacks.
pub(crate) fn set_barrier(connection: &Connection, name: &str, now_ms: u64) -> Result<u64, Fault> {
    let sql = "UPDATE share SET barrier = max(barrier + 1, ?2) WHERE name = ?1 RETURNING barrier";
    let barrier: Option<i64> = connection.query_row(sql, params![name, signed(now_ms)], |row| row.get(0)).optional()?;
    bump(connection)?;
    barrier.map(unsigned).ok_or_else(|| Fault::not_found("Group", name))
}

/// The revision of all assignments.
pub(crate) fn revision(connection: &Connection) -> Result<u64, Fault> {
    let sql = "SELECT value FROM meta WHERE key = 'revision'";
    Ok(unsigned(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?))
}

pub(super) fn bump(connection: &Connection) -> Result<(), Fault> {
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'revision'", [])?;
    Ok(())
}

/// Notes a management change, which also may change what servers have to do.
pub(crate) fn audit(connection: &Connection, now_ms: u64, action: &str, subject: &str, detail: &str) -> Result<(), Fault> {
    bump(connection)?;
    let sql = "INSERT INTO audit (at_ms, action, subject, detail) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![signed(now_ms), action, subject, detail])?;
    Ok(())
}

/// The log, newest first.
pub(crate) fn audit_log(connection: &Connection, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>, Fault> {
    let sql = "SELECT num, at_ms, action, subject, detail FROM audit WHERE num < ?1 ORDER BY num DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let before = before.and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX);
    let entries = statement.query_map(params![before, limit], |row| {
        Ok(AuditEntry {
            number: unsigned(row.get(0)?),
            at_ms: unsigned(row.get(1)?),
            action: row.get(2)?,
            subject: row.get(3)?,
            detail: row.get(4)?,
        })
    })?;
    Ok(entries.collect::<Result<_, _>>()?)
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("messages are plain JSON")
}
