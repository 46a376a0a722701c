//! `isotherm status`: what is in sync, what is not yet safe in the share, what is wrong. And the words for the state of
//! an endpoint, which other commands show too.
//!
//! It changes nothing.
//!
//! **Invariant:** exit code 3 exactly where somebody has to look: problems, an endpoint that stands still against the
//! will of its administrator, a server that was not heard of.

use isotherm_api::Client;
use isotherm_api::management::{EndpointStatus, ShownReport, Status};
use isotherm_api::sync::{Direction, EndpointState, Watch};

use crate::args::Format;
use crate::endpoint::short;
use crate::failure::Failure;
use crate::output::{Answer, NOTHING, Table, plural, text};
use crate::{server, size};

pub(crate) async fn run(client: &Client, format: Format) -> Result<Answer, Failure> {
    let status = client.status().await?;
    let is_damaged = status.groups.iter().any(|group| group.damaged > 0);
    let needs_attention = is_damaged
        || status.collection_waits.as_ref().is_some_and(|wait| !wait.missing.is_empty())
        || status.groups.iter().flat_map(|group| &group.endpoints).any(needs_attention);
    Ok(Answer::new(format.json, &status, || show(&status)).with_problems(needs_attention))
}

/// The error for a group that is not there.
pub(crate) fn check_group(status: &Status, group: Option<&str>) -> Result<(), Failure> {
    match group {
        Some(name) if !status.groups.iter().any(|found| found.group.name == name) => {
            Err(Failure::failed(format!("There is no group `{}`", text(name))).with_remedy("Look at `isotherm group list`"))
        }
        _ => Ok(()),
    }
}

/// Whether somebody has to look at an endpoint.
pub(crate) fn needs_attention(one: &EndpointStatus) -> bool {
    let Some(report) = &one.report else { return !one.endpoint.paused };
    let stands_still = matches!(report.state, EndpointState::Stopped { .. } | EndpointState::WaitingForConfirmation { .. });
    !one.online || stands_still || report.problems > 0
}

fn show(status: &Status) -> String {
    if status.groups.is_empty() {
        return "No groups yet; make one with `isotherm group create NAME`\n".to_owned();
    }
    let mut out = String::new();
    for group in &status.groups {
        let endpoints: Vec<&EndpointStatus> = group.endpoints.iter().collect();
        let size = size::bytes(group.group.usage);
        out.push_str(&format!("{}  {size}, {}\n", group.group.name, plural(endpoints.len() as u64, "endpoint")));
        if !endpoints.is_empty() {
            out.push_str(&endpoint_table(&endpoints, status.now_ms).indented(2).render());
        }
        for one in endpoints.iter().filter(|one| is_worth_a_line(one)) {
            out.push_str(&format!("  {}: {}\n", one.endpoint.server, state_in_full(one)));
        }
        out.push('\n');
    }
    let problems: u64 = reports(status).map(|report| report.problems).sum();
    let waiting: u64 = reports(status).map(|report| report.counts.unsynced_items).sum();
    let damaged: u64 = status.groups.iter().map(|group| group.damaged).sum();
    if damaged > 0 {
        out.push_str(&format!(
            "The content of {} is damaged in the service and was not sent again yet: see `isotherm service check`.\n",
            plural(damaged, "file")
        ));
    }
    out.push_str(&match (waiting, reports(status).filter_map(|report| report.unsafe_since_ms).min()) {
        (0, None) if damaged > 0 => "Everything else that the servers know of is in the share.\n".to_owned(),
        (0, None) => "Everything that the servers know of is in the share.\n".to_owned(),
        (items, Some(since)) => {
            format!("Not yet in the share: {}, the oldest for {}.\n", plural(items, "item"), size::age(status.now_ms, since))
        }
        (items, None) => format!("Not yet in the share: {}.\n", plural(items, "item")),
    });
    for limited in status.servers.iter().filter_map(server::in_force) {
        out.push_str(&limited);
        out.push('\n');
    }
    if let Some(wait) = &status.collection_waits {
        let mut servers: Vec<&str> = wait.missing.iter().map(|one| one.server.as_str()).collect();
        servers.dedup();
        let whom = if servers.is_empty() { "the next run".to_owned() } else { text(&servers.join(", ")) };
        out.push_str(&format!(
            "Records were put back {} ago. Garbage is not collected until every server has offered what it has; that waits for \
             {whom}.\n",
            size::age(status.now_ms, wait.since_ms)
        ));
    }
    if problems > 0 {
        out.push_str(&format!("{}: see `isotherm problems`.\n", plural(problems, "problem")));
    }
    out
}

fn reports(status: &Status) -> impl Iterator<Item = &ShownReport> {
    status.groups.iter().flat_map(|group| &group.endpoints).filter_map(|one| one.report.as_ref())
}

fn is_worth_a_line(one: &EndpointStatus) -> bool {
    let Some(report) = &one.report else { return false };
    matches!(report.state, EndpointState::Stopped { .. } | EndpointState::WaitingForConfirmation { .. })
}

/// Endpoints of one group.
pub(crate) fn endpoint_table(endpoints: &[&EndpointStatus], now_ms: u64) -> Table {
    let mut table =
        Table::new(&["server", "folder", "state", "files>", "tiered>", "in flight", "not in the share", "problems>", "watch"]);
    for one in endpoints {
        let mut row = vec![one.endpoint.server.clone(), text(&one.endpoint.path), state(one)];
        row.extend(match &one.report {
            Some(report) => [
                size::count(report.counts.files),
                size::count(report.counts.tiered_files),
                in_flight(report),
                unsafe_text(report, now_ms),
                size::count(report.problems),
                watch(&report.watch).to_owned(),
            ],
            None => std::array::from_fn(|_| NOTHING.to_owned()),
        });
        table.row(row);
    }
    table
}

/// Endpoints of all groups, with what other commands want to know.
pub(crate) fn endpoint_list(endpoints: &[&EndpointStatus], now_ms: u64) -> Table {
    let mut table = Table::new(&["id", "group", "server", "folder", "state", "not in the share", "last report"]);
    for one in endpoints {
        let endpoint = &one.endpoint;
        table.row(vec![
            short(endpoint.id),
            endpoint.group.clone(),
            endpoint.server.clone(),
            text(&endpoint.path),
            state(one),
            one.report.as_ref().map_or_else(|| NOTHING.to_owned(), |report| unsafe_text(report, now_ms)),
            one.reported_ms.map_or_else(|| "never".to_owned(), |at| format!("{} ago", size::age(now_ms, at))),
        ]);
    }
    table
}

fn watch(watch: &Watch) -> &'static str {
    match watch {
        Watch::Events => "watching",
        Watch::Scan { .. } => "scanning",
    }
}

/// One or two words for what an endpoint does.
pub(crate) fn state(one: &EndpointStatus) -> String {
    let word = match &one.report {
        Some(report) if matches!(report.state, EndpointState::HoldsStubs { .. }) => "HAS STUBS",
        _ if one.endpoint.deleting => "being deleted",
        None if one.endpoint.paused => "paused",
        None => "no report",
        Some(_) if !one.online => "server offline",
        Some(_) if one.endpoint.paused => "paused",
        Some(report) => match &report.state {
            EndpointState::Scanning => "comparing",
            EndpointState::Syncing => "syncing",
            // A report is a moment old: the share may have moved on.
            EndpointState::Synced if report.behind > 0 => "syncing",
            EndpointState::Synced => "in sync",
            EndpointState::Offline => "service away",
            EndpointState::Paused => "paused",
            EndpointState::Stopped { .. } => "STOPPED",
            EndpointState::WaitingForConfirmation { .. } => "WAITING",
            EndpointState::HoldsStubs { .. } => "HAS STUBS",
            EndpointState::Removed => "removed",
        },
    };
    word.to_owned()
}

/// What an endpoint does, with reason and remedy.
pub(crate) fn state_in_full(one: &EndpointStatus) -> String {
    match one.report.as_ref().map(|report| &report.state) {
        Some(EndpointState::Stopped { reason, remedy }) => format!("stopped: {}. {}", text(reason), text(remedy)),
        Some(EndpointState::HoldsStubs { files }) => {
            let id = short(one.endpoint.id);
            format!(
                "to be deleted, and has {} tiered files: recall them, or isotherm endpoint delete {id} --leave-stubs",
                size::count(*files)
            )
        }
        Some(EndpointState::WaitingForConfirmation { deletes, of }) => {
            let id = short(one.endpoint.id);
            format!(
                "waiting: {} of {} would be deleted; deletes of the last ten minutes count together. If that is meant: \
                 isotherm endpoint confirm-deletes {id}",
                size::count(*deletes),
                size::count(*of)
            )
        }
        _ => state(one),
    }
}

fn in_flight(report: &ShownReport) -> String {
    let counts = report.counts;
    let mut parts = Vec::new();
    if counts.up_items > 0 {
        parts.push(format!("{} up", size::count(counts.up_items)));
    }
    if counts.down_items > 0 {
        parts.push(format!("{} down", size::count(counts.down_items)));
    }
    if parts.is_empty() { NOTHING.to_owned() } else { parts.join(", ") }
}

/// Items, bytes and rate of one direction.
pub(crate) fn moving(items: u64, bytes: u64, bytes_per_s: u64) -> String {
    if items == 0 && bytes == 0 {
        return NOTHING.to_owned();
    }
    let mut text = plural(items, "item");
    if bytes > 0 {
        text.push_str(&format!(", {}", size::bytes(bytes)));
    }
    if bytes_per_s > 0 {
        text.push_str(&format!(", {}/s", size::bytes(bytes_per_s)));
    }
    text
}

/// What is not yet safe in the share, since when.
pub(crate) fn unsafe_text(report: &ShownReport, now_ms: u64) -> String {
    let items = report.counts.unsynced_items;
    match report.unsafe_since_ms {
        Some(since) => format!("{}, for {}", plural(items, "item"), size::age(now_ms, since)),
        None if items > 0 => plural(items, "item"),
        None => NOTHING.to_owned(),
    }
}

pub(crate) fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}
