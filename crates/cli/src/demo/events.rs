//! What happens in the demo, as events: found by comparing one picture of the service with the next.
//!
//! It prints nothing. Programs get an event as a line of JSON, people as a line of text.
//!
//! **Invariant:** a change that stands in two pictures is one event; a picture that misses changes (more than an agent
//! lists) costs events, never makes false ones.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_api::management::{Conflict, EndpointStatus, Problems, ShownChange, Status};
use isotherm_api::path::ShownPath;
use isotherm_api::sync::{Direction, EndpointState, Watch};
use isotherm_core::ids::NodeId;
use serde::Serialize;

use crate::{output, size, status};

/// A site and its folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) path: String,
}

/// One line of `demo --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// Both sites work. Always the first one.
    Ready { service: String, sites: Vec<Site> },
    /// Something arrived at a site, or left it for the share.
    Change {
        site: String,
        #[serde(flatten)]
        path: ShownPath,
        direction: Direction,
        delay_ms: u64,
    },
    /// Two versions of one file; both are kept.
    Conflict {
        #[serde(flatten)]
        path: ShownPath,
        kept: Option<ShownPath>,
    },
    /// Something failed for one file; it is tried again.
    Problem {
        site: String,
        #[serde(flatten)]
        path: ShownPath,
        text: String,
        remedy: String,
    },
    /// How the sites are, every few seconds and whenever that changes.
    Status { sites: Vec<SiteStatus> },
    /// The demo has ended. Always the last one.
    Stopped,
}

/// How a site is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SiteStatus {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) synced: bool,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) in_flight_up: u64,
    pub(super) in_flight_down: u64,
    pub(super) unsafe_items: u64,
    pub(super) unsafe_since_ms: Option<u64>,
    pub(super) problems: u64,
    pub(super) watching: bool,
}

impl SiteStatus {
    pub(super) fn of(one: &EndpointStatus) -> Self {
        let report = one.report.as_ref();
        let counts = report.map(|report| report.counts).unwrap_or_default();
        Self {
            name: one.endpoint.server.clone(),
            state: status::state(one),
            synced: report.is_some_and(|report| report.agreed && report.behind == 0 && report.state == EndpointState::Synced),
            files: counts.files,
            bytes: counts.bytes,
            in_flight_up: counts.up_items,
            in_flight_down: counts.down_items,
            unsafe_items: counts.unsynced_items,
            unsafe_since_ms: report.and_then(|report| report.unsafe_since_ms),
            problems: report.map_or(0, |report| report.problems),
            watching: report.is_some_and(|report| report.watch == Watch::Events),
        }
    }
}

/// Everything the demo shows, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) status: Status,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) problems: Problems,
}

impl Picture {
    /// The sites' endpoints, by name.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &EndpointStatus> {
        self.status.groups.iter().flat_map(|group| &group.endpoints)
    }

    pub(super) fn sites(&self) -> Vec<SiteStatus> {
        self.endpoints().map(SiteStatus::of).collect()
    }
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub(super) struct Events {
    recent: BTreeMap<String, Vec<ShownChange>>,
    conflicts: BTreeSet<NodeId>,
    problems: BTreeSet<(String, Vec<u8>, String)>,
    sites: Vec<SiteStatus>,
    status_ms: u64,
}

/// The longest time without a status event.
const STATUS_EVERY_MS: u64 = 5_000;

impl Events {
    /// What is new in this picture.
    pub(super) fn compare(&mut self, picture: &Picture) -> Vec<Event> {
        let mut events = Vec::new();
        for one in picture.endpoints() {
            let now = one.report.as_ref().map(|report| report.recent.clone()).unwrap_or_default();
            let before = self.recent.insert(one.endpoint.server.clone(), now.clone()).unwrap_or_default();
            // The newest is first in the list and last in time.
            events.extend(new_changes(&before, &now).iter().rev().map(|change| Event::Change {
                site: one.endpoint.server.clone(),
                path: change.path.clone(),
                direction: change.direction,
                delay_ms: change.delay_ms,
            }));
        }
        // What two sites tell in one picture has no order of its own; a change leaves before it arrives.
        events.sort_by_key(|event| matches!(event, Event::Change { direction: Direction::Down, .. }));
        self.compare_conflicts(&picture.conflicts, &mut events);
        self.compare_problems(&picture.problems, &mut events);
        let (now_ms, sites) = (picture.status.now_ms, picture.sites());
        if sites != self.sites || now_ms.saturating_sub(self.status_ms) >= STATUS_EVERY_MS {
            self.sites.clone_from(&sites);
            self.status_ms = now_ms;
            events.push(Event::Status { sites });
        }
        events
    }

    fn compare_conflicts(&mut self, found: &[Conflict], events: &mut Vec<Event>) {
        let nodes: BTreeSet<NodeId> = found.iter().map(|conflict| conflict.node).collect();
        let is_new = |conflict: &&Conflict| !self.conflicts.contains(&conflict.node);
        events.extend(
            found
                .iter()
                .filter(is_new)
                .map(|conflict| Event::Conflict { path: conflict.path.clone(), kept: conflict.kept.clone() }),
        );
        self.conflicts = nodes;
    }

    fn compare_problems(&mut self, found: &Problems, events: &mut Vec<Event>) {
        let mut keys = BTreeSet::new();
        for problem in &found.problems {
            let bytes = problem.path.bytes().unwrap_or_default();
            let key = (problem.server.clone(), bytes, problem.text.clone());
            if !self.problems.contains(&key) {
                events.push(Event::Problem {
                    site: problem.server.clone(),
                    path: problem.path.clone(),
                    text: problem.text.clone(),
                    remedy: problem.remedy.clone(),
                });
            }
            keys.insert(key);
        }
        self.problems = keys;
    }
}

/// What stands before the part that both lists share. Newest first in both; the older end may have been cut off, but
/// only if nothing less explains the new list: the same file may have changed twice in the same way.
fn new_changes<'a>(before: &[ShownChange], now: &'a [ShownChange]) -> &'a [ShownChange] {
    let rest = |from: &usize| &now[*from..];
    let uncut = (0..=now.len()).find(|from| rest(from) == before);
    let from = uncut.or_else(|| (0..now.len()).find(|from| before.starts_with(rest(from)))).unwrap_or(now.len());
    &now[..from]
}

/// An event as text for people.
pub(super) fn line(event: &Event, now_ms: u64) -> String {
    match event {
        Event::Ready { service, sites } => {
            let mut line = format!("Service at {service}");
            for site in sites {
                line.push_str(&format!("\n  {:8} {}", site.name, output::text(&site.path)));
            }
            line.push_str("\nSave a file in one folder and look into the other. Ctrl-C stops; start it again and it goes on.");
            line
        }
        Event::Change { site, path, direction, delay_ms } => {
            let way = status::way(*direction);
            format!("{site:8} {way:4} {:>8}  {}", size::span(*delay_ms), output::path(path))
        }
        Event::Conflict { path, kept } => match kept {
            Some(kept) => format!("conflict {}  beside {}", output::path(path), output::path(kept)),
            None => format!("conflict {}", output::path(path)),
        },
        Event::Problem { site, path, text, remedy } => {
            format!("{site:8} problem {}: {}. {}", output::path_below(path), output::text(text), output::text(remedy))
        }
        Event::Status { sites } => sites.iter().map(|site| site_line(site, now_ms)).collect::<Vec<_>>().join("\n"),
        Event::Stopped => "Stopped. Everything is kept; start it again on the same folder to go on.".to_owned(),
    }
}

fn site_line(site: &SiteStatus, now_ms: u64) -> String {
    let mut parts = vec![site.state.clone(), format!("{} files", size::count(site.files)), size::bytes(site.bytes)];
    let moving = site.in_flight_up + site.in_flight_down;
    if moving > 0 {
        parts.push(format!("{} in flight", size::count(moving)));
    }
    if let Some(since) = site.unsafe_since_ms {
        parts.push(format!("not yet safe in the share for {}", size::age(now_ms, since)));
    }
    if site.problems > 0 {
        parts.push(output::plural(site.problems, "problem"));
    }
    format!("{:8} {}", site.name, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(names: &str) -> Vec<ShownChange> {
        let change = |name: &str| ShownChange { path: ShownPath::new(name.as_bytes()), direction: Direction::Up, delay_ms: 1 };
        names.split_whitespace().map(change).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        for (before, now, new) in [
            ("", "", ""),
            ("", "b a", "b a"),
            ("b a", "b a", ""),
            ("b a", "c b a", "c"),
            // The oldest was cut off.
            ("c b a", "e d c b", "e d"),
            // All of it was cut off.
            ("b a", "z y", "z y"),
            // An agent that started again lists nothing, then new ones.
            ("b a", "", ""),
            // The same file again.
            ("a", "a a", "a"),
        ] {
            let (before, now) = (changes(before), changes(now));
            assert_eq!(new_changes(&before, &now), changes(new), "{before:?} {now:?}");
        }
    }

    #[test]
    fn json_lines_have_stable_words() {
        let ready = Event::Ready { service: "http://x".into(), sites: vec![Site { name: "detroit".into(), path: "/d".into() }] };
        let change =
            Event::Change { site: "munich".into(), path: ShownPath::new(b"a\xff"), direction: Direction::Down, delay_ms: 7 };
        for (event, json) in [
            (ready, r#"{"event":"ready","service":"http://x","sites":[{"name":"detroit","path":"/d"}]}"#),
            (
                change,
                "{\"event\":\"change\",\"site\":\"munich\",\"path\":\"a\u{fffd}\",\"path_b64\":\"Yf8=\",\"direction\":\"down\",\"delay_ms\":7}",
            ),
            (Event::Stopped, r#"{"event":"stopped"}"#),
        ] {
            assert_eq!(output::to_json_line(&event), json);
        }
    }

    #[test]
    fn what_is_not_safe_shows_in_the_line() {
        let site = SiteStatus {
            name: "munich".into(),
            state: "syncing".into(),
            synced: false,
            files: 1_200,
            bytes: 2048,
            in_flight_up: 2,
            in_flight_down: 0,
            unsafe_items: 2,
            unsafe_since_ms: Some(1_000),
            problems: 1,
            watching: true,
        };
        let expected = "munich   syncing, 1,200 files, 2.0 KiB, 2 in flight, not yet safe in the share for 4 s, 1 problem";
        assert_eq!(site_line(&site, 5_000), expected);
    }
}
