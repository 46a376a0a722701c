//! Requests of command line and portal: groups, servers, endpoints, status, problems, conflicts, audit log.
//!
//! **Invariant:** every change goes through `records`, which writes the audit log, and wakes the agents afterwards.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use globset::Glob;
use isotherm_api::check::CheckRequest;
use isotherm_api::collect::CollectRequest;
use isotherm_api::limits::name_problem;
use isotherm_api::management::{
    Endpoint, EndpointChange, EndpointStatus, Group, GroupChange, GroupStatus, NewEndpoint, NewGroup, Problems, Server,
    ServerChange, ShownProblem, ShownReport, Status,
};
use isotherm_api::path::ShownPath;
use isotherm_api::sync::OnStubs;
use isotherm_core::bandwidth::InForce;
use isotherm_core::exclude::excludes_everything;
use isotherm_core::ids::{EndpointId, GroupId, Incarnation};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Answered, Shared, body};
use crate::clock::{now_ms, random};
use crate::fault::Fault;
use crate::{State as Service, VERSION, records};

/// Most entries of the audit log in one answer.
const AUDIT_MAX: u32 = 1_000;

/// How long a request may wait.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    #[serde(default)]
    pub(super) wait_ms: u64,
}

pub(super) type WaitQuery = Result<Query<Wait>, QueryRejection>;

/// Changes something, wakes the agents, and answers with what it has become.
async fn change<T: Serialize + Send + 'static>(
    state: &Arc<Service>,
    work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
) -> Answered {
    let woken = Arc::clone(state);
    let value = state.database.write(work, move |_| woken.live.assignments_changed()).await?;
    Ok(body::json(&value))
}

async fn show<T: Serialize + Send + 'static>(
    state: &Arc<Service>,
    work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
) -> Answered {
    Ok(body::json(&state.database.read(work).await?))
}

pub(super) async fn version() -> Answered {
    Ok(body::json(&VERSION))
}

pub(super) async fn groups(State(state): Shared) -> Answered {
    show(&state, records::groups).await
}

pub(super) async fn group(State(state): Shared, Path(name): Path<String>) -> Answered {
    show(&state, move |connection| records::group(connection, &name)).await
}

pub(super) async fn create_group(State(state): Shared, request: Body) -> Answered {
    let new: NewGroup = body::from_json(request).await?;
    if let Some(why) = name_problem(&new.name) {
        let name = isotherm_core::name::escape(new.name.as_bytes()).into_owned();
        return Err(Fault::invalid(format!("Group name `{name}` {why}")));
    }
    check_rules(Some(&new.exclusions), new.max_delete_fraction)?;
    let id = GroupId(random()?);
    let incarnation = Incarnation(u64::from_be_bytes(random()?));
    let answered = change(&state, move |connection| records::create_group(connection, id, incarnation, &new, now_ms())).await;
    if answered.is_ok() {
        state.lives.begun(id);
    }
    answered
}

pub(super) async fn change_group(State(state): Shared, Path(name): Path<String>, request: Body) -> Answered {
    let wanted: GroupChange = body::from_json(request).await?;
    check_rules(wanted.exclusions.as_deref(), wanted.max_delete_fraction)?;
    change(&state, move |connection| records::change_group(connection, &name, &wanted, now_ms())).await
}

fn check_rules(exclusions: Option<&[String]>, fraction: Option<f64>) -> Result<(), Fault> {
    for pattern in exclusions.unwrap_or_default() {
        Glob::new(pattern).map_err(|error| Fault::invalid(format!("Exclusion is no pattern: {error}")))?;
        if excludes_everything(pattern) {
            return Err(Fault::invalid(format!("Exclusion {pattern} would exclude everything")));
        }
    }
    match fraction {
        Some(fraction) if !(0.0..=1.0).contains(&fraction) => {
            Err(Fault::invalid(format!("Fraction of deletes {fraction} is not between 0 and 1")))
        }
        _ => Ok(()),
    }
}

pub(super) async fn delete_group(State(state): Shared, Path(name): Path<String>) -> Answered {
    let woken = Arc::clone(&state);
    let delete = move |connection: &Connection| records::delete_group(connection, &name, now_ms());
    state.database.write(delete, move |group| woken.live.share_deleted(*group)).await?;
    Ok(body::json(&()))
}

pub(super) async fn start_check(State(state): Shared, request: Body) -> Answered {
    let wanted: CheckRequest = body::from_json(request).await?;
    crate::check::start(&state, wanted)?;
    check(State(state)).await
}

pub(super) async fn check(State(state): Shared) -> Answered {
    Ok(body::json(&state.checks.status()))
}

pub(super) async fn start_collection(State(state): Shared, request: Body) -> Answered {
    let wanted: CollectRequest = body::from_json(request).await?;
    crate::collect::start(&state, wanted).await?;
    collection(State(state)).await
}

pub(super) async fn collection(State(state): Shared) -> Answered {
    Ok(body::json(&state.collections.status()))
}

fn shown_servers(state: &Service, connection: &Connection) -> Result<Vec<Server>, Fault> {
    Ok(records::servers(connection)?.into_iter().map(|row| shown_server(state, row)).collect())
}

fn shown_server(state: &Service, row: records::ServerRow) -> Server {
    let seen = state.live.server(row.id);
    let is_online = seen.is_online();
    Server {
        id: row.id,
        name: row.name,
        online: is_online,
        last_seen_ms: seen.last_seen_ms,
        epoch: row.epoch,
        agent_version: seen.agent_version,
        endpoints: row.endpoints,
        limits: row.limits,
        // What a silent one keeps is not known.
        in_force: if is_online { seen.in_force } else { InForce::default() },
    }
}

pub(super) async fn servers(State(state): Shared) -> Answered {
    let live = Arc::clone(&state);
    show(&state, move |connection| shown_servers(&live, connection)).await
}

pub(super) async fn change_server(State(state): Shared, Path(name): Path<String>, request: Body) -> Answered {
    let wanted: ServerChange = body::from_json(request).await?;
    let live = Arc::clone(&state);
    change(&state, move |connection| {
        let row = records::change_server(connection, &name, &wanted, now_ms())?;
        Ok(shown_server(&live, row))
    })
    .await
}

pub(super) async fn delete_server(State(state): Shared, Path(name): Path<String>) -> Answered {
    change(&state, move |connection| records::delete_server(connection, &name, now_ms())).await
}

fn endpoint_id(text: &str) -> Result<EndpointId, Fault> {
    text.parse().map_err(|error| Fault::invalid(format!("Endpoint: {error}")))
}

pub(super) async fn create_endpoint(State(state): Shared, request: Body) -> Answered {
    let new: NewEndpoint = body::from_json(request).await?;
    let id = EndpointId(random()?);
    records::keep_off(&new.path, &state.folder.real_path())?;
    change(&state, move |connection| records::create_endpoint(connection, id, &new, now_ms())).await
}

pub(super) async fn endpoints(State(state): Shared) -> Answered {
    show(&state, |connection| {
        let rows = records::endpoints(connection)?;
        Ok(rows.into_iter().map(|row| row.endpoint).collect::<Vec<Endpoint>>())
    })
    .await
}

pub(super) async fn endpoint(State(state): Shared, Path(id): Path<String>) -> Answered {
    let id = endpoint_id(&id)?;
    let live = Arc::clone(&state);
    show(&state, move |connection| {
        let row = records::endpoint(connection, id)?;
        let group = records::group_by_id(connection, row.group)?;
        Ok(endpoint_status(&live, &group, row))
    })
    .await
}

pub(super) async fn change_endpoint(State(state): Shared, Path(id): Path<String>, request: Body) -> Answered {
    let id = endpoint_id(&id)?;
    let wanted: EndpointChange = body::from_json(request).await?;
    change(&state, move |connection| records::change_endpoint(connection, id, &wanted, now_ms())).await
}

pub(super) async fn confirm_deletes(State(state): Shared, Path(id): Path<String>) -> Answered {
    let id = endpoint_id(&id)?;
    change(&state, move |connection| records::confirm_deletes(connection, id, now_ms())).await
}

#[derive(Debug, Deserialize)]
pub(super) struct DeleteQuery {
    #[serde(default)]
    forget: bool,
    #[serde(default)]
    stubs: OnStubs,
}

pub(super) async fn delete_endpoint(
    State(state): Shared,
    Path(id): Path<String>,
    query: Result<Query<DeleteQuery>, QueryRejection>,
) -> Answered {
    let id = endpoint_id(&id)?;
    let Query(query) = query.map_err(|error| Fault::invalid(error.body_text()))?;
    if !query.forget {
        return change(&state, move |connection| records::delete_endpoint(connection, id, query.stubs, now_ms())).await;
    }
    let answer = change(&state, move |connection| records::remove_endpoint(connection, id, "endpoint.forget", now_ms())).await?;
    state.live.endpoint_removed(id);
    Ok(answer)
}

fn endpoint_status(state: &Service, group: &Group, row: records::EndpointRow) -> EndpointStatus {
    let reported = state.live.endpoint(row.endpoint.id);
    EndpointStatus {
        online: state.live.server(row.server).is_online(),
        reported_ms: reported.as_ref().map(|reported| reported.at_ms),
        report: reported.map(|reported| ShownReport::new(&reported.report, group.head)),
        endpoint: row.endpoint,
    }
}

pub(super) async fn status(State(state): Shared) -> Answered {
    let live = Arc::clone(&state);
    show(&state, move |connection| {
        let rows = records::endpoints(connection)?;
        let with_endpoints = |group: Group| -> Result<GroupStatus, Fault> {
            let own = rows.iter().filter(|row| row.group == group.id);
            let endpoints = own.map(|row| endpoint_status(&live, &group, row.clone())).collect();
            let damaged = records::count_damaged(connection, group.id)?;
            Ok(GroupStatus { group, endpoints, damaged })
        };
        Ok(Status {
            service_version: VERSION.to_owned(),
            now_ms: now_ms(),
            groups: records::groups(connection)?.into_iter().map(with_endpoints).collect::<Result<_, _>>()?,
            servers: shown_servers(&live, connection)?,
            collection_waits: crate::collect::waiting::read(connection, &live.live)?,
        })
    })
    .await
}

pub(super) async fn conflicts(State(state): Shared, Path(name): Path<String>) -> Answered {
    show(&state, move |connection| {
        let group = records::group(connection, &name)?;
        records::conflicts(connection, group.id, &name)
    })
    .await
}

pub(super) async fn problems(State(state): Shared) -> Answered {
    let rows = state.database.read(records::endpoints).await?;
    let mut all = Problems { total: 0, problems: Vec::new() };
    for row in rows {
        let Some(reported) = state.live.endpoint(row.endpoint.id) else { continue };
        all.total += reported.report.problems_total;
        all.problems.extend(reported.report.problems.into_iter().map(|problem| ShownProblem {
            group: row.endpoint.group.clone(),
            server: row.endpoint.server.clone(),
            endpoint: row.endpoint.id,
            path: ShownPath::new(&problem.path),
            code: problem.code,
            text: problem.text,
            remedy: problem.remedy,
            since_ms: problem.since_ms,
        }));
    }
    Ok(body::json(&all))
}

#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    before: Option<u64>,
    limit: Option<u32>,
}

pub(super) async fn audit(State(state): Shared, query: Result<Query<AuditQuery>, QueryRejection>) -> Answered {
    let Query(query) = query.map_err(|error| Fault::invalid(error.body_text()))?;
    let limit = query.limit.unwrap_or(AUDIT_MAX).min(AUDIT_MAX);
    show(&state, move |connection| records::audit_log(connection, query.before, limit)).await
}
