//! For whom collection waits after records were put back.
//!
//! **Invariant** (case 10 of the ways to lose a file): an endpoint counts as heard only by a report in the share's present
//! life, of after it had looked at its whole folder, with everything of it in the share.

use isotherm_api::collect::CollectionWait;
use isotherm_api::management::BarrierMissing;
use isotherm_core::ids::EndpointId;
use rusqlite::Connection;

use crate::State;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::live::Live;
use crate::records::{self, EndpointRow};

/// Since when collection waits, and for whom; none if it does not.
pub(crate) fn read(connection: &Connection, live: &Live) -> Result<Option<CollectionWait>, Fault> {
    let Some(since_ms) = records::waits_since(connection)? else { return Ok(None) };
    let mut missing = Vec::new();
    for row in records::endpoints(connection)? {
        if !has_offered(connection, live, &row, since_ms)? {
            let reason = reason(live, row.endpoint.id, row.endpoint.paused);
            let endpoint = row.endpoint;
            missing.push(BarrierMissing { endpoint: endpoint.id, server: endpoint.server, path: endpoint.path, reason });
        }
    }
    Ok(Some(CollectionWait { since_ms, missing }))
}

fn has_offered(connection: &Connection, live: &Live, row: &EndpointRow, since_ms: u64) -> Result<bool, Fault> {
    let group = records::group_by_id(connection, row.group)?;
    // One that knows more than there is has not found out yet that the share was put back.
    let is_up = |cursor: isotherm_core::ids::Cursor| cursor.incarnation == group.incarnation && cursor.version <= group.head;
    Ok(live.agreed(row.endpoint.id).is_some_and(|agreed| agreed.barrier >= since_ms && is_up(agreed.cursor)))
}

fn reason(live: &Live, endpoint: EndpointId, paused: bool) -> String {
    match live.endpoint(endpoint) {
        None => "No report has come from its server",
        Some(_) if paused => "It is paused",
        Some(_) => "It has not yet compared its whole folder with the share, or something is left to do",
    }
    .to_owned()
}

/// Refuses while somebody is missing; ends the waiting when nobody is, or if that is waived.
pub(super) async fn check(state: &State, waive: bool) -> Result<(), Fault> {
    let live = std::sync::Arc::clone(&state.live);
    let Some(wait) = state.database.read(move |connection| read(connection, &live)).await? else { return Ok(()) };
    if !waive && !wait.missing.is_empty() {
        let servers: Vec<&str> = wait.missing.iter().map(|one| one.server.as_str()).collect();
        let message = format!(
            "Records were put back, and nothing is collected before every server has offered what it has; missing: {}. If they \
             never come back, `isotherm service gc --waive` goes on without them",
            servers.join(", ")
        );
        return Err(Fault::new(isotherm_api::Code::InUse, message));
    }
    let detail = if waive { "waived" } else { "every server has reported" };
    let end = move |connection: &Connection| {
        if records::end_wait(connection, wait.since_ms)? {
            records::audit(connection, now_ms(), "service.gc-goes-on", "", detail)?;
        }
        // Another wait may have begun since.
        records::refuse_while_waiting(connection)
    };
    state.database.write(end, |()| {}).await
}
