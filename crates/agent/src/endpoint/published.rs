//! The picture of an endpoint that reports and the control socket show.
//!
//! **Invariant:** it is made of what the engine says, translated; nothing here is guessed.

use std::time::Instant;

use isotherm_api::limits::{PROBLEMS_MAX, RECENT_MAX};
use isotherm_api::sync::{Assignment, Counts, Direction, EndpointReport, EndpointState, Problem, RecentChange, Watch};
use isotherm_core::ids::Cursor;

use crate::catalog::Sizes;
use crate::clock::wall_ms;
use crate::engine::{EngineStatus, Millis, Stop, Transfer};

/// Shortest time over which a rate is measured.
const RATE_SECONDS: f64 = 0.9;

/// The latest picture of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// As it goes to the service.
    pub report: EndpointReport,
    /// The service cannot be reached, in a user's words.
    pub offline: Option<String>,
    /// Grows with each picture.
    pub revision: u64,
    /// Paths that are not agreed on, some of them.
    pub open: Vec<Vec<u8>>,
    /// Bytes up and down, and when.
    measured: (Instant, u64, u64),
}

/// What a picture is made of.
pub(super) struct Facts<'a> {
    pub(super) status: EngineStatus,
    pub(super) transfers: Vec<Transfer>,
    pub(super) sizes: Sizes,
    pub(super) traffic: (u64, u64),
    pub(super) watch: &'a Watch,
    pub(super) notes: &'a [Problem],
    /// The engine's clock.
    pub(super) now: Millis,
}

impl Published {
    pub(super) fn new(assignment: &Assignment) -> Self {
        let report = EndpointReport {
            endpoint: assignment.endpoint,
            cursor: Cursor::default(),
            agreed: false,
            barrier: 0,
            state: EndpointState::Scanning,
            watch: Watch::Scan { reason: "it is starting".to_owned() },
            counts: Counts::default(),
            unsafe_since_ms: None,
            problems: Vec::new(),
            problems_total: 0,
            recent: Vec::new(),
        };
        Self { report, offline: None, revision: 0, open: Vec::new(), measured: (Instant::now(), 0, 0) }
    }

    /// A picture that says that nothing is done, and why.
    pub(crate) fn stopped(assignment: &Assignment, state: EndpointState) -> Self {
        let mut published = Self::new(assignment);
        published.report.state = state;
        published
    }

    pub(super) fn update(&mut self, facts: Facts<'_>) {
        let wall = wall_ms();
        let at = |then: Millis| wall.saturating_sub(facts.now.saturating_sub(then));
        let before = (self.report.clone(), self.offline.clone());
        let problem = |problem: &crate::engine::Problem| Problem {
            path: problem.path.clone(),
            code: problem.code.to_owned(),
            text: problem.text.clone(),
            remedy: problem.remedy.clone(),
            since_ms: at(problem.since),
        };
        let status = &facts.status;
        let problems = facts.notes.iter().cloned().chain(status.problems.iter().map(problem));
        self.report.problems = problems.take(PROBLEMS_MAX).collect();
        self.report.problems_total = (status.problems.len() + facts.notes.len()) as u64;
        self.report.cursor = status.cursor.unwrap_or_default();
        self.report.agreed = status.agreed;
        self.report.barrier = status.barrier;
        self.report.state = state(status);
        self.report.watch = facts.watch.clone();
        self.report.unsafe_since_ms = status.unsafe_since.map(at);
        self.offline = status.away.as_ref().map(|(away, _)| away.text.clone());
        self.open.clone_from(&status.open);
        self.count(&facts);
        self.remember(&facts.transfers, wall);
        if before != (self.report.clone(), self.offline.clone()) {
            self.revision += 1;
        }
    }

    fn count(&mut self, facts: &Facts<'_>) {
        let (status, sizes) = (&facts.status, facts.sizes);
        let outgoing = status.outgoing as u64;
        let counts = &mut self.report.counts;
        counts.files = sizes.files;
        counts.directories = sizes.directories;
        counts.bytes = sizes.bytes;
        counts.tiered_files = sizes.tiered_files;
        counts.tiered_bytes = sizes.tiered_bytes;
        counts.unsynced_items = if status.unsafe_since.is_some() { status.counts.owed.max(1) } else { 0 };
        counts.unsynced_bytes = status.counts.up_bytes;
        counts.up_items = outgoing;
        counts.up_bytes = status.counts.up_bytes;
        counts.down_bytes = status.counts.down_bytes;
        counts.down_items = incoming(&status.counts);
        let (since, up, down) = self.measured;
        let seconds = since.elapsed().as_secs_f64();
        if seconds >= RATE_SECONDS {
            counts.up_bytes_per_s = (facts.traffic.0.saturating_sub(up) as f64 / seconds) as u64;
            counts.down_bytes_per_s = (facts.traffic.1.saturating_sub(down) as f64 / seconds) as u64;
            self.measured = (Instant::now(), facts.traffic.0, facts.traffic.1);
        }
    }

    fn remember(&mut self, transfers: &[Transfer], wall: u64) {
        for transfer in transfers {
            let modified = transfer.modified.map(|time| u64::try_from(time.0 / 1_000_000).unwrap_or(0));
            let delay = transfer.delay_ms.or_else(|| modified.map(|modified| wall.saturating_sub(modified)));
            let direction = if transfer.up { Direction::Up } else { Direction::Down };
            let change = RecentChange { path: transfer.path.clone(), direction, delay_ms: delay.unwrap_or(0) };
            self.report.recent.insert(0, change);
        }
        self.report.recent.truncate(RECENT_MAX);
    }
}

/// Nodes that wait for something of the share. What the share refuses or an administrator has to confirm is owed, whether
/// it is on its way or not.
fn incoming(counts: &crate::engine::Counts) -> u64 {
    counts.unsettled.saturating_sub(counts.owed)
}

fn state(status: &EngineStatus) -> EndpointState {
    match (status.stop, &status.held) {
        (Some(Stop::Fenced), _) => EndpointState::Stopped {
            reason: "Another run of this server's agent has taken over".to_owned(),
            remedy: "Stop one of the two agents; if this one is to stay, restart it".to_owned(),
        },
        _ if status.paused => EndpointState::Paused,
        (None, Some(held)) => EndpointState::WaitingForConfirmation { deletes: held.deletes, of: held.of },
        _ if status.scanning && !status.agreed => EndpointState::Scanning,
        _ if status.agreed => EndpointState::Synced,
        _ => EndpointState::Syncing,
    }
}

#[cfg(test)]
mod tests {
    use super::incoming;
    use crate::engine::Counts;

    #[test]
    fn what_cannot_go_up_is_not_shown_as_coming_down() {
        let counts = Counts { nodes: 9, unsettled: 4, owed: 3, deleted_here: 2, ..Counts::default() };
        assert_eq!(incoming(&counts), 1);
        // Owed nodes may be settled by now; counts of two moments never make a huge number.
        assert_eq!(incoming(&Counts { owed: 5, ..counts }), 0);
    }
}
