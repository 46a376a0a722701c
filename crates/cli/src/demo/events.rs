//! What happens in the demo, as events: found by comparing one picture of the service with the next.
//!
//! It prints nothing. Programs get an event as a line of JSON, people as lines of text ([`super::lines`]).
//!
//! **Invariant:** a change that stands in two pictures is one event; a picture that misses changes (more than an agent
//! lists) costs events, never makes false ones.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::control::{BANDS_DAYS, Happened};
use isotherm_api::management::{Conflict, EndpointStatus, Problems, ShownChange, Status};
use isotherm_api::path::ShownPath;
use isotherm_api::sync::{Direction, EndpointState, Watch};
use isotherm_core::ids::NodeId;
use serde::Serialize;

use crate::status;

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
    /// A content came back at a site, because a program opened the file or somebody asked for it.
    Recall {
        site: String,
        #[serde(flatten)]
        path: ShownPath,
        program: Option<String>,
        user: Option<u32>,
        bytes: u64,
        waited_ms: Option<u64>,
    },
    /// Nothing is tiered in this demo, and why.
    Untiered { why: String },
    /// How full the sites' volumes are, every few seconds while that changes.
    Volumes { volumes: Vec<SiteVolume>, drawings: Drawn },
    /// How the sites are, every few seconds and whenever that changes.
    Status { sites: Vec<SiteStatus> },
    /// The demo has ended. Always the last one.
    Stopped,
}

/// The volume of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct SiteVolume {
    pub(super) name: String,
    /// Bytes, for users.
    pub(super) free: u64,
    pub(super) total: u64,
    /// Bytes of contents that are here.
    pub(super) here: u64,
    pub(super) tiered_files: u64,
    pub(super) tiered_bytes: u64,
    /// Bytes by the last use, the warmest first, as in `isotherm heat`.
    pub(super) bands: [u64; BANDS_DAYS.len() + 1],
    /// What happened lately, the newest first.
    #[serde(skip)]
    pub(super) happened: Vec<Happened>,
}

/// Drawings that were made, and how many there will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Drawn {
    pub(super) made: u64,
    pub(super) all: u64,
    /// One of them is there that can be read while it comes.
    #[serde(skip)]
    pub(super) is_large: bool,
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
    /// Of sites whose contents can go.
    pub(super) volumes: Vec<SiteVolume>,
    pub(super) drawings: Drawn,
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
    /// The latest recall of each site that was told, or had been before.
    recalled_ms: BTreeMap<String, u64>,
    /// When the first picture was taken.
    began_ms: Option<u64>,
    volumes: Vec<SiteVolume>,
    volumes_ms: u64,
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
        self.compare_volumes(picture, &mut events);
        let (now_ms, sites) = (picture.status.now_ms, picture.sites());
        if sites != self.sites || now_ms.saturating_sub(self.status_ms) >= STATUS_EVERY_MS {
            self.sites.clone_from(&sites);
            self.status_ms = now_ms;
            events.push(Event::Status { sites });
        }
        events
    }

    fn compare_volumes(&mut self, picture: &Picture, events: &mut Vec<Event>) {
        let began_ms = *self.began_ms.get_or_insert(picture.status.now_ms);
        for volume in &picture.volumes {
            let recalls = || volume.happened.iter().filter(|one| one.what.what.is_recall());
            let latest = recalls().map(|one| one.what.at_ms).max().unwrap_or(0);
            // What was before the first picture is not news; a site may be seen later than that.
            let told = self.recalled_ms.insert(volume.name.clone(), latest).unwrap_or(began_ms);
            self.recalled_ms.entry(volume.name.clone()).and_modify(|at| *at = told.max(*at));
            let news: Vec<&Happened> = recalls().filter(|one| one.what.at_ms > told).collect();
            events.extend(news.into_iter().rev().map(|Happened { path, what }| Event::Recall {
                site: volume.name.clone(),
                path: path.clone(),
                program: what.program.clone(),
                user: what.user,
                bytes: what.bytes,
                waited_ms: what.waited_ms,
            }));
        }
        let now_ms = picture.status.now_ms;
        let counts = |volumes: &[SiteVolume]| -> Vec<(u64, u64)> {
            volumes.iter().map(|volume| (volume.here, volume.tiered_bytes)).collect()
        };
        let is_due = now_ms.saturating_sub(self.volumes_ms) >= STATUS_EVERY_MS;
        if is_due && counts(&picture.volumes) != counts(&self.volumes) {
            self.volumes.clone_from(&picture.volumes);
            self.volumes_ms = now_ms;
            events.push(Event::Volumes { volumes: picture.volumes.clone(), drawings: picture.drawings });
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use isotherm_agent::control::{Happening, What};

    use super::*;
    use crate::output;

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
    fn each_recall_is_told_once_and_none_of_before() {
        let happened = |at_ms: u64| {
            let what = Happening::new(NodeId::default(), What::RecalledByCommand, at_ms, 7);
            Happened { path: ShownPath::new(at_ms.to_string().as_bytes()), what }
        };
        let mut events = Events::default();
        let mut told = |times: &[u64]| {
            let volumes = vec![SiteVolume {
                name: "munich".into(),
                happened: times.iter().map(|at| happened(*at)).collect(),
                ..SiteVolume::default()
            }];
            let status = serde_json::from_str(r#"{"service_version":"","now_ms":5,"servers":[],"groups":[]}"#).unwrap();
            let problems = Problems { total: 0, problems: Vec::new() };
            let picture = Picture { status, conflicts: Vec::new(), problems, volumes, drawings: Drawn::default() };
            let recalls = events.compare(&picture).into_iter().filter_map(|event| match event {
                Event::Recall { path, .. } => Some(path.path),
                _ => None,
            });
            recalls.collect::<Vec<String>>()
        };
        assert_eq!(told(&[5, 3]), [""; 0]);
        assert_eq!(told(&[9, 8, 5, 3]), ["8", "9"]);
        // A file was deleted, and an older one is among the latest again.
        assert_eq!(told(&[8, 5, 3, 1]), [""; 0]);
        assert_eq!(told(&[9, 8]), [""; 0]);
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
}
