//! Barriers: has everything that was changed before this moment arrived everywhere?
//!
//! The service only compares; agents report a barrier when all that they knew of before it is in agreement.
//!
//! **Invariant:** a barrier counts as reached only for the share as it is now: a change after it keeps it open.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use isotherm_api::management::{Barrier, BarrierMissing, BarrierStatus, Endpoint, Group};
use isotherm_api::sync::EndpointState;
use rusqlite::Connection;

use super::management::{Wait, WaitQuery};
use super::{Answered, Shared, body};
use crate::State as Service;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::live::Live;
use crate::records;

pub(super) async fn set(State(state): Shared, Path(name): Path<String>) -> Answered {
    let woken = Arc::clone(&state);
    let set = move |connection: &Connection| records::set_barrier(connection, &name, now_ms());
    let barrier = state.database.write(set, move |_| woken.live.assignments_changed()).await?;
    Ok(body::json(&Barrier { barrier }))
}

pub(super) async fn show(State(state): Shared, Path((name, number)): Path<(String, String)>, query: WaitQuery) -> Answered {
    let Query(Wait { wait_ms }) = query.map_err(|error| Fault::invalid(error.body_text()))?;
    let barrier: u64 = number.parse().map_err(|_| Fault::invalid(format!("Barrier {number} is not a number")))?;
    let deadline = Live::deadline(wait_ms);
    let mut changes = state.live.report_changes();
    loop {
        let name = name.clone();
        let read = move |connection: &Connection| {
            let group = records::group(connection, &name)?;
            let rows = records::endpoints(connection)?;
            let endpoints: Vec<Endpoint> = rows.into_iter().filter(|row| row.group == group.id).map(|row| row.endpoint).collect();
            Ok((group, endpoints))
        };
        let (group, endpoints) = state.database.read(read).await?;
        if barrier == 0 || barrier > group.barrier {
            return Err(Fault::not_found("Barrier", barrier));
        }
        let missing = missing(&state, &group, &endpoints, barrier);
        if missing.is_empty() || !state.live.wait(&mut changes, deadline).await {
            return Ok(body::json(&BarrierStatus { barrier, reached: missing.is_empty(), missing }));
        }
    }
}

/// What the endpoints lack that are not paused.
fn missing(state: &Service, group: &Group, endpoints: &[Endpoint], barrier: u64) -> Vec<BarrierMissing> {
    let lacking = |endpoint: &Endpoint| {
        let reason = reason(state, group, endpoint, barrier)?;
        Some(BarrierMissing { endpoint: endpoint.id, server: endpoint.server.clone(), path: endpoint.path.clone(), reason })
    };
    endpoints.iter().filter(|endpoint| !endpoint.paused).filter_map(lacking).collect()
}

fn reason(state: &Service, group: &Group, endpoint: &Endpoint, barrier: u64) -> Option<String> {
    let Some(reported) = state.live.endpoint(endpoint.id) else {
        return Some("No report has come from its server".to_owned());
    };
    let report = reported.report;
    match &report.state {
        EndpointState::WaitingForConfirmation { deletes, of } => {
            let id = endpoint.id;
            return Some(format!(
                "{deletes} of {of} items would be deleted, which with those of the last ten minutes is too many; that waits \
                 for `isotherm endpoint confirm-deletes {id}`"
            ));
        }
        EndpointState::Stopped { reason, remedy } => return Some(format!("It has stopped: {reason} ({remedy})")),
        _ => {}
    }
    if report.cursor.incarnation != group.incarnation {
        return Some("It has not started over after the share was renewed".to_owned());
    }
    if report.cursor.version != group.head {
        return Some(format!("It has read the share to version {} of {}", report.cursor.version, group.head));
    }
    if report.barrier < barrier {
        return Some(
            "It has not looked at the whole folder since; `isotherm problems` lists directories that cannot be read".to_owned(),
        );
    }
    if !report.agreed {
        let counts = report.counts;
        let what = format!(
            "{} items ({} bytes) are not in the share yet, {} are to come from it ({} bytes)",
            counts.unsynced_items.max(counts.up_items),
            counts.up_bytes,
            counts.down_items,
            counts.down_bytes
        );
        // The first one by name: most often it is what is waited for.
        let why = report.problems.first().map_or_else(
            || "`isotherm problems` lists what fails".to_owned(),
            |first| {
                let path = String::from_utf8_lossy(&first.path).into_owned();
                format!("`isotherm problems` lists what fails ({}), such as {path}: {}", report.problems_total, first.text)
            },
        );
        return Some(format!("{what}; {why}"));
    }
    None
}
