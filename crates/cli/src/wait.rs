//! `isotherm wait --synced`: returns when everything that was written anywhere before the call is the same everywhere.
//!
//! It moves nothing itself; it sets a barrier for each group and waits until all endpoints have reported it.
//!
//! **Invariant:** exit code 0 means that there are endpoints, and that each group was in agreement at one moment after its
//! barrier was set.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isotherm_api::Client;
use isotherm_api::management::{BarrierMissing, ShownReport};
use serde::Serialize;

use crate::args::Wait;
use crate::endpoint::short;
use crate::failure::{Exit, Failure};
use crate::output::{self, Answer, Table, text};
use crate::progress::{Estimate, Left, ProgressLine};

/// How long one question to the service may wait for its answer, which is how often progress is shown.
const ROUND_MS: u64 = 1_000;

/// Nothing has moved for so long, and there are problems: then it is said what is waited for.
const STUCK: Duration = Duration::from_secs(10);

/// What `--json` writes: progress lines, then the result.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Progress { items: u64, bytes: u64, items_per_s: u64, bytes_per_s: u64, seconds_left: Option<u64> },
    Result { synced: bool, missing: &'a [Missing] },
}

/// What is not in sync.
#[derive(Debug, Serialize)]
struct Missing {
    group: String,
    #[serde(flatten)]
    what: BarrierMissing,
}

pub(crate) async fn run(client: &Client, wait: Wait) -> Result<Answer, Failure> {
    let started = Instant::now();
    let deadline = wait.timeout.map(|seconds| started + Duration::from_secs(seconds));
    let mut barriers = set_barriers(client, wait.of.group.as_deref()).await?;
    require_endpoints(client, wait.of.group.as_deref()).await?;
    let json = wait.of.format.json;
    let line = ProgressLine::new();
    let mut estimate = Estimate::default();
    let mut missing = Vec::new();
    let mut stuck = Stuck { left: Left::default(), since: started, is_told: false };
    while !barriers.is_empty() {
        missing = ask(client, &mut barriers, deadline).await?;
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if barriers.is_empty() || is_over {
            break;
        }
        let (left, problems) = left(client, &barriers).await?;
        estimate.measure(started.elapsed().as_millis() as u64, left);
        if stuck.is_worth_a_word(left, problems) {
            line.say(&format!("Nothing moves, and there are problems, which may need somebody:\n{}", list(&missing)));
        }
        line.show(&format!("Waiting for {}: {}", waiting_for(&missing), estimate.text()));
        if json && !output::print(&progress(&estimate))? {
            return Err(Failure::interrupted());
        }
    }
    drop(line);
    let is_synced = missing.is_empty();
    let text = if json {
        output::to_json_line(&Event::Result { synced: is_synced, missing: &missing })
    } else if is_synced {
        "Everything is in sync.\n".to_owned()
    } else {
        format!("Not in sync:\n{}", list(&missing))
    };
    Ok(Answer { text, exit: if is_synced { Exit::Done } else { Exit::Problems } })
}

/// A barrier for each wanted group.
async fn set_barriers(client: &Client, group: Option<&str>) -> Result<BTreeMap<String, u64>, Failure> {
    let names = match group {
        Some(name) => vec![name.to_owned()],
        None => client.groups().await?.into_iter().map(|group| group.name).collect(),
    };
    let mut barriers = BTreeMap::new();
    for name in names {
        let barrier = client.set_barrier(&name).await?;
        barriers.insert(name, barrier);
    }
    Ok(barriers)
}

/// Where nothing takes part nothing is in sync: a service on an empty data folder must not look as if all were well.
async fn require_endpoints(client: &Client, group: Option<&str>) -> Result<(), Failure> {
    let endpoints = client.endpoints().await?;
    if endpoints.iter().any(|endpoint| group.is_none_or(|group| endpoint.group == group)) {
        return Ok(());
    }
    Err(match group {
        Some(group) => Failure::new(Exit::Refused, format!("Group {} has no endpoint to wait for", text(group)))
            .with_remedy("Make one with `isotherm endpoint create`"),
        None => Failure::new(Exit::Refused, "This service has no endpoint to wait for").with_remedy(
            "Make one with `isotherm endpoint create`; if there were some, check that the service runs on its own data folder, and that its disk is mounted",
        ),
    })
}

/// Asks for each barrier, drops those that are reached, and gives what the others lack. A group that was reached and
/// changes later does not count again: everything from before the call has arrived there.
async fn ask(client: &Client, barriers: &mut BTreeMap<String, u64>, deadline: Option<Instant>) -> Result<Vec<Missing>, Failure> {
    let mut missing = Vec::new();
    // One round over all groups takes about ROUND_MS, not that for each of them.
    let share_ms = ROUND_MS / barriers.len() as u64;
    let mut reached = Vec::new();
    for (group, barrier) in barriers.iter() {
        let left_ms = deadline.map_or(u64::MAX, |deadline| deadline.saturating_duration_since(Instant::now()).as_millis() as u64);
        let answer = client.barrier(group, *barrier, share_ms.min(left_ms)).await?;
        if answer.reached {
            reached.push(group.clone());
        }
        missing.extend(answer.missing.into_iter().map(|what| Missing { group: group.clone(), what }));
    }
    barriers.retain(|group, _| !reached.contains(group));
    Ok(missing)
}

/// Whether what is left stays the same.
struct Stuck {
    left: Left,
    since: Instant,
    is_told: bool,
}

impl Stuck {
    /// Once, when nothing has moved for a while and there are problems.
    fn is_worth_a_word(&mut self, left: Left, problems: u64) -> bool {
        if (left.items, left.bytes) != (self.left.items, self.left.bytes) {
            (self.left, self.since) = (left, Instant::now());
        }
        let is_worth_it = !self.is_told && problems > 0 && self.since.elapsed() >= STUCK;
        self.is_told |= is_worth_it;
        is_worth_it
    }
}

/// What the endpoints of these groups have left, and how many problems.
async fn left(client: &Client, barriers: &BTreeMap<String, u64>) -> Result<(Left, u64), Failure> {
    let status = client.status().await?;
    let groups = status.groups.iter().filter(|group| barriers.contains_key(&group.group.name));
    let reports: Vec<&ShownReport> = groups.flat_map(|group| &group.endpoints).filter_map(|one| one.report.as_ref()).collect();
    let left = reports.iter().map(|report| left_of(report)).fold(Left::default(), |sum, one| Left {
        items: sum.items + one.items,
        bytes: sum.bytes + one.bytes,
        bytes_per_s: sum.bytes_per_s + one.bytes_per_s,
    });
    Ok((left, reports.iter().map(|report| report.problems).sum()))
}

/// Items on their way up are not in the share either, so the larger number of both is what is left upwards.
fn left_of(report: &ShownReport) -> Left {
    let counts = report.counts;
    Left {
        items: counts.unsynced_items.max(counts.up_items) + counts.down_items,
        bytes: counts.unsynced_bytes.max(counts.up_bytes) + counts.down_bytes,
        bytes_per_s: counts.up_bytes_per_s + counts.down_bytes_per_s,
    }
}

fn progress(estimate: &Estimate) -> String {
    let Left { items, bytes, .. } = estimate.left();
    let (items_per_s, bytes_per_s) = (estimate.items_per_s(), estimate.bytes_per_s());
    let seconds_left = estimate.seconds_left();
    output::to_json_line(&Event::Progress { items, bytes, items_per_s, bytes_per_s, seconds_left })
}

/// The servers that are waited for, in few words.
fn waiting_for(missing: &[Missing]) -> String {
    match missing {
        [] => "nothing".to_owned(),
        [one] => one.what.server.clone(),
        [first, rest @ ..] => format!("{} and {} more", first.what.server, rest.len()),
    }
}

fn list(missing: &[Missing]) -> String {
    let mut table = Table::new(&["group", "server", "folder", "endpoint", "why"]).indented(2);
    for Missing { group, what } in missing {
        let BarrierMissing { endpoint, server, path, reason } = what;
        table.row(vec![group.clone(), server.clone(), text(path), short(*endpoint), text(reason)]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use isotherm_core::ids::EndpointId;

    use super::*;

    #[test]
    fn json_lines_have_stable_words() {
        let missing = Missing {
            group: "plans".into(),
            what: BarrierMissing {
                endpoint: EndpointId([1; 16]),
                server: "munich".into(),
                path: "/a".into(),
                reason: "X".into(),
            },
        };
        let line = output::to_json_line(&Event::Result { synced: false, missing: &[missing] });
        let expected = r#"{"event":"result","synced":false,"missing":[{"group":"plans","endpoint":"01010101010101010101010101010101","server":"munich","path":"/a","reason":"X"}]}"#;
        assert_eq!(line, expected);
        let line =
            output::to_json_line(&Event::Progress { items: 1, bytes: 2, items_per_s: 4, bytes_per_s: 3, seconds_left: None });
        assert_eq!(line, r#"{"event":"progress","items":1,"bytes":2,"items_per_s":4,"bytes_per_s":3,"seconds_left":null}"#);
    }
}
