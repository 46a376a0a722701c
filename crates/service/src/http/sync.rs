//! Requests of agents about their server: attach, assignments, reports.
//!
//! **Invariant:** an older run of an agent is told so and changes nothing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use isotherm_api::limits::{PROBLEMS_MAX, RECENT_MAX, name_problem};
use isotherm_api::sync::{Assignment, Assignments, Attach, Attached, EndpointState, Report};
use isotherm_core::bandwidth::InForce;
use isotherm_core::ids::{EndpointId, Epoch, ServerId};
use serde::Deserialize;

use super::{Answered, Shared, body};
use crate::clock::{now_ms, random};
use crate::fault::Fault;
use crate::live::Live;
use crate::{VERSION, records};

fn server_id(text: &str) -> Result<ServerId, Fault> {
    text.parse().map_err(|error| Fault::invalid(format!("Server: {error}")))
}

pub(super) async fn attach(State(state): Shared, request: Body) -> Answered {
    let attach: Attach = body::binary(request).await?;
    if let Some(why) = name_problem(&attach.name) {
        let name = isotherm_core::name::escape(attach.name.as_bytes()).into_owned();
        return Err(Fault::invalid(format!("Server name `{name}` {why}")));
    }
    let fresh = ServerId(random()?);
    let woken = Arc::clone(&state);
    let server = state
        .database
        .write(move |connection| records::attach(connection, &attach, fresh, now_ms()), move |_| woken.live.assignments_changed())
        .await?;
    state.live.heard_of(server.id);
    tracing::info!(server = server.name, epoch = server.epoch.0, "Agent attached");
    let service_version = VERSION.to_owned();
    Ok(body::bytes(&Attached { server: server.id, name: server.name, epoch: server.epoch, service_version }))
}

#[derive(Debug, Deserialize)]
pub(super) struct AssignmentsQuery {
    epoch: u64,
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn assignments(
    State(state): Shared,
    Path(server): Path<String>,
    query: Result<Query<AssignmentsQuery>, axum::extract::rejection::QueryRejection>,
) -> Answered {
    let server = server_id(&server)?;
    let Query(query) = query.map_err(|error| Fault::invalid(error.body_text()))?;
    let mut changes = state.live.assignment_changes();
    let deadline = Live::deadline(query.wait_ms);
    loop {
        let epoch = Epoch(query.epoch);
        let found = state.database.read(move |connection| read_assignments(connection, server, epoch)).await?;
        state.live.heard_of(server);
        if found.revision != query.revision || !state.live.wait(&mut changes, deadline).await {
            return Ok(body::bytes(&found));
        }
    }
}

fn read_assignments(connection: &rusqlite::Connection, server: ServerId, epoch: Epoch) -> Result<Assignments, Fault> {
    records::check_epoch(connection, server, epoch)?;
    let mut endpoints = Vec::new();
    for row in records::endpoints_of(connection, server)? {
        let group = records::group_by_id(connection, row.group)?;
        let endpoint = row.endpoint;
        endpoints.push(Assignment {
            endpoint: endpoint.id,
            group: group.id,
            group_name: group.name,
            case: group.case,
            fold_version: group.fold_version,
            exclusions: group.exclusions,
            max_delete_fraction: group.max_delete_fraction,
            path: endpoint.path,
            paused: endpoint.paused,
            deleting: endpoint.deleting,
            on_stubs: row.on_stubs,
            initial_upload: endpoint.initial_upload,
            tiering: endpoint.tiering,
            policy: endpoint.policy,
            confirmed_deletes: endpoint.confirmed_deletes,
            barrier: group.barrier,
        });
    }
    Ok(Assignments { revision: records::revision(connection)?, endpoints })
}

pub(super) async fn report(
    State(state): Shared,
    Path(server): Path<String>,
    in_force: Result<Query<InForce>, axum::extract::rejection::QueryRejection>,
    request: Body,
) -> Answered {
    let server = server_id(&server)?;
    let Query(in_force) = in_force.map_err(|error| Fault::invalid(error.body_text()))?;
    let mut report: Report = body::binary(request).await?;
    let epoch = report.epoch;
    let rows = state
        .database
        .read(move |connection| {
            records::check_epoch(connection, server, epoch)?;
            records::endpoints_of(connection, server)
        })
        .await?;
    // An endpoint that was removed meanwhile, or another server's, is none of this agent's business.
    report.endpoints.retain(|one| rows.iter().any(|row| row.endpoint.id == one.endpoint));
    for one in &mut report.endpoints {
        one.problems.truncate(PROBLEMS_MAX);
        one.recent.truncate(RECENT_MAX);
    }
    let is_let_go = |id: EndpointId| rows.iter().any(|row| row.endpoint.id == id && row.endpoint.deleting);
    let removed: Vec<EndpointId> = report
        .endpoints
        .iter()
        .filter(|one| one.state == EndpointState::Removed && is_let_go(one.endpoint))
        .map(|one| one.endpoint)
        .collect();
    state.live.reported(server, report, in_force);
    for endpoint in removed {
        let woken = Arc::clone(&state);
        let remove =
            move |connection: &rusqlite::Connection| records::remove_endpoint(connection, endpoint, "endpoint.removed", now_ms());
        let after = move |(): &()| {
            woken.live.endpoint_removed(endpoint);
            woken.live.assignments_changed();
        };
        state.database.write(remove, after).await?;
    }
    Ok(body::bytes(&()))
}
