//! Server endpoints and the rules for where they may lie.
//!
//! It knows nothing of their state; agents report that.
//!
//! **Invariant:** no two endpoints of one server share a file: no path is another or lies below another.

use std::path::Path;

use isotherm_api::Code;
use isotherm_api::limits::{ENDPOINTS_PER_GROUP_MAX, ENDPOINTS_PER_SERVER_MAX};
use isotherm_api::management::{Endpoint, EndpointChange, NewEndpoint};
use isotherm_api::sync::{InitialUpload, OnStubs};
use isotherm_core::ids::{EndpointId, GroupId, ServerId};
use isotherm_core::tiering::{Policy, PolicyError};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::codec::{signed, unsigned};
use super::groups::{audit, group};
use super::servers::server_by_name;
use crate::fault::Fault;

/// An endpoint with the ids of what it connects.
#[derive(Clone, Debug)]
pub(crate) struct EndpointRow {
    pub(crate) endpoint: Endpoint,
    pub(crate) group: GroupId,
    pub(crate) server: ServerId,
    /// If it is to go.
    pub(crate) on_stubs: OnStubs,
}

const SELECT: &str = "SELECT endpoint.id, share.name, server.name, path, authoritative, paused, deleting, confirmed_deletes,
    endpoint.created_ms, share.id, server.id, tiering, policy
    FROM endpoint JOIN share ON share.num = endpoint.share JOIN server ON server.id = endpoint.server";

fn read(row: &Row<'_>) -> Result<EndpointRow, rusqlite::Error> {
    let endpoint = Endpoint {
        id: EndpointId(row.get(0)?),
        group: row.get(1)?,
        server: row.get(2)?,
        path: row.get(3)?,
        initial_upload: if row.get(4)? { InitialUpload::Authoritative } else { InitialUpload::Merge },
        paused: row.get(5)?,
        deleting: row.get(6)?,
        confirmed_deletes: unsigned(row.get(7)?),
        created_ms: unsigned(row.get(8)?),
        tiering: row.get(11)?,
        policy: policy(row, 12)?,
    };
    let on_stubs = match row.get::<_, i64>(6)? {
        2 => OnStubs::Recall,
        3 => OnStubs::Leave,
        _ => OnStubs::Wait,
    };
    Ok(EndpointRow { endpoint, on_stubs, group: GroupId(row.get(9)?), server: ServerId(row.get(10)?) })
}

/// What is not said is as usual.
fn policy(row: &Row<'_>, at: usize) -> Result<Policy, rusqlite::Error> {
    let text = row.get_ref(at)?.as_str()?;
    serde_json::from_str(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error)))
}

fn policy_text(policy: &Policy) -> String {
    serde_json::to_string(policy).expect("a policy is numbers and texts")
}

fn bad_policy(error: &PolicyError) -> Fault {
    Fault::invalid(error.to_string())
}

/// All endpoints, by group and server.
pub(crate) fn endpoints(connection: &Connection) -> Result<Vec<EndpointRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY share.name, server.name"))?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The endpoints of a server, by id.
pub(crate) fn endpoints_of(connection: &Connection, server: ServerId) -> Result<Vec<EndpointRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE server.id = ?1 ORDER BY endpoint.id"))?;
    let rows = statement.query_map([&server.0], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One endpoint.
pub(crate) fn endpoint(connection: &Connection, id: EndpointId) -> Result<EndpointRow, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE endpoint.id = ?1"))?;
    let mut rows = statement.query([&id.0])?;
    rows.next()?.map(read).transpose()?.ok_or_else(|| Fault::not_found("Endpoint", id))
}

/// Makes an endpoint.
pub(crate) fn create_endpoint(
    connection: &Connection,
    id: EndpointId,
    new: &NewEndpoint,
    now_ms: u64,
) -> Result<Endpoint, Fault> {
    let path = plain_path(&new.path)?;
    let group = group(connection, &new.group)?;
    let server = server_by_name(connection, &new.server)?;
    let limit =
        |what: String, max: usize| Fault::new(Code::Limit, format!("{what} has {max} endpoints already, the most it can have"));
    if group.endpoints >= ENDPOINTS_PER_GROUP_MAX as u64 {
        return Err(limit(format!("Group {}", new.group), ENDPOINTS_PER_GROUP_MAX));
    }
    if server.endpoints >= ENDPOINTS_PER_SERVER_MAX as u64 {
        return Err(limit(format!("Server {}", new.server), ENDPOINTS_PER_SERVER_MAX));
    }
    for other in endpoints_of(connection, server.id)? {
        if other.group == group.id {
            let message =
                format!("Server {} has an endpoint of group {} already: {}", new.server, new.group, other.endpoint.path);
            return Err(Fault::new(Code::Exists, message));
        }
        if overlap(&path, &other.endpoint.path) {
            let message =
                format!("Path {path} overlaps with the endpoint {} of group {}", other.endpoint.path, other.endpoint.group);
            return Err(Fault::new(Code::Overlap, message));
        }
    }
    let sql = "INSERT INTO endpoint (id, share, server, path, authoritative, paused, deleting, confirmed_deletes, created_ms,
            tiering, policy)
        SELECT ?1, num, ?3, ?4, ?5, 0, 0, 0, ?6, ?7, ?8 FROM share WHERE id = ?2";
    let authoritative = new.initial_upload == InitialUpload::Authoritative;
    let policy = policy_text(&new.policy.apply(Policy::default()).map_err(|error| bad_policy(&error))?);
    connection.execute(sql, params![id.0, group.id.0, server.id.0, path, authoritative, signed(now_ms), new.tiering, policy])?;
    audit(connection, now_ms, "endpoint.create", &format!("{}@{}", new.group, new.server), &path)?;
    Ok(endpoint(connection, id)?.endpoint)
}

/// Refuses a path that overlaps the service's own data folder: an endpoint there would feed on itself. Which machine the
/// server is on is not known, so this holds for all of them.
pub(crate) fn keep_off(path: &str, data: &Path) -> Result<(), Fault> {
    let path = plain_path(path)?;
    if is_overlap(Path::new(&path), data) {
        let message = format!("Path {path} overlaps with the service's own data folder {}", data.display());
        return Err(Fault::new(Code::Overlap, message));
    }
    Ok(())
}

/// Changes an endpoint.
pub(crate) fn change_endpoint(
    connection: &Connection,
    id: EndpointId,
    change: &EndpointChange,
    now_ms: u64,
) -> Result<Endpoint, Fault> {
    if let Some(paused) = change.paused {
        connection.execute("UPDATE endpoint SET paused = ?2 WHERE id = ?1", params![id.0, paused])?;
        note(connection, id, if paused { "endpoint.pause" } else { "endpoint.resume" }, now_ms)?;
    }
    if let Some(mode) = change.initial_upload {
        let authoritative = mode == InitialUpload::Authoritative;
        connection.execute("UPDATE endpoint SET authoritative = ?2 WHERE id = ?1", params![id.0, authoritative])?;
        note(connection, id, "endpoint.set", now_ms)?;
    }
    if let Some(tiering) = change.tiering {
        connection.execute("UPDATE endpoint SET tiering = ?2 WHERE id = ?1", params![id.0, tiering])?;
        note(connection, id, if tiering { "endpoint.tiering-on" } else { "endpoint.tiering-off" }, now_ms)?;
    }
    if !change.policy.is_empty() {
        let before = endpoint(connection, id)?.endpoint.policy;
        let policy = change.policy.apply(before).map_err(|error| bad_policy(&error))?;
        connection.execute("UPDATE endpoint SET policy = ?2 WHERE id = ?1", params![id.0, policy_text(&policy)])?;
        note(connection, id, "endpoint.policy", now_ms)?;
    }
    Ok(endpoint(connection, id)?.endpoint)
}

/// Confirms the deletes that the endpoint's agent waits with. The number is that of the moment, so that it is none that the
/// agent has heard of: a backup that was put back may lack some.
pub(crate) fn confirm_deletes(connection: &Connection, id: EndpointId, now_ms: u64) -> Result<Endpoint, Fault> {
    let sql = "UPDATE endpoint SET confirmed_deletes = max(confirmed_deletes + 1, ?2) WHERE id = ?1";
    connection.execute(sql, params![id.0, signed(now_ms)])?;
    note(connection, id, "endpoint.confirm-deletes", now_ms)?;
    Ok(endpoint(connection, id)?.endpoint)
}

/// Asks the agent to let go of the endpoint.
pub(crate) fn delete_endpoint(connection: &Connection, id: EndpointId, on_stubs: OnStubs, now_ms: u64) -> Result<(), Fault> {
    let deleting = match on_stubs {
        OnStubs::Wait => 1,
        OnStubs::Recall => 2,
        OnStubs::Leave => 3,
    };
    connection.execute("UPDATE endpoint SET deleting = ?2 WHERE id = ?1", params![id.0, deleting])?;
    note(connection, id, "endpoint.delete", now_ms)
}

/// Takes an endpoint out of the records.
pub(crate) fn remove_endpoint(connection: &Connection, id: EndpointId, action: &str, now_ms: u64) -> Result<(), Fault> {
    note(connection, id, action, now_ms)?;
    connection.execute("DELETE FROM endpoint WHERE id = ?1", [&id.0])?;
    Ok(())
}

fn note(connection: &Connection, id: EndpointId, action: &str, now_ms: u64) -> Result<(), Fault> {
    let endpoint = endpoint(connection, id)?.endpoint;
    audit(connection, now_ms, action, &format!("{}@{}", endpoint.group, endpoint.server), &endpoint.path)
}

/// An absolute path in its plain form: no empty, `.` or `..` components, no slash at the end.
fn plain_path(path: &str) -> Result<String, Fault> {
    let invalid = |why: &str| Fault::invalid(format!("Path `{}` {why}", isotherm_core::name::escape(path.as_bytes())));
    if !path.starts_with('/') {
        return Err(invalid("is not absolute"));
    }
    if path.contains('\0') || path.len() > 4096 {
        return Err(invalid("cannot be a path"));
    }
    if path.split('/').any(|part| part == "." || part == "..") {
        return Err(invalid("has a `.` or `..` component"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(invalid("is the root of the system"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Whether one path is or lies below the other, component by component: `/a` and `/ab` do not overlap.
fn overlap(a: &str, b: &str) -> bool {
    is_overlap(Path::new(a), Path::new(b))
}

fn is_overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_are_made_plain_or_refused() {
        for (given, plain) in [("/a", "/a"), ("/a/b/", "/a/b"), ("//a///b", "/a/b"), ("/a b/ü", "/a b/ü")] {
            assert_eq!(plain_path(given).unwrap(), plain);
        }
        for bad in ["", "a", "a/b", "/", "//", "/a/../b", "/./a", "/a\0"] {
            assert!(plain_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_services_own_folder_is_kept_off() {
        let data = Path::new("/srv/isotherm");
        for (path, is_refused) in [
            ("/srv/isotherm", true),
            ("/srv/isotherm/objects/", true),
            ("/srv", true),
            ("/srv/isotherm2", false),
            ("/srv/plans", false),
        ] {
            assert_eq!(keep_off(path, data).is_err_and(|fault| fault.code == Code::Overlap), is_refused, "{path}");
        }
    }

    #[test]
    fn paths_overlap_by_components() {
        for (a, b, is_overlap) in [("/a", "/a", true), ("/a", "/a/b", true), ("/a/b", "/a", true), ("/a", "/ab", false)] {
            assert_eq!(overlap(a, b), is_overlap, "{a} {b}");
        }
    }
}
