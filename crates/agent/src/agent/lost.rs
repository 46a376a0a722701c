//! Endpoints that this server had and that the service does not name any more, without ever having said that they are to
//! be deleted: it was started on another data folder, or somebody has it forget them.
//!
//! Nothing is done with them but telling. **Invariant:** one is told of until the service names it again, its folder
//! belongs to another endpoint, or its state is removed by hand.

use std::collections::BTreeMap;
use std::path::Path;

use isotherm_api::sync::{Assignment, EndpointState, Problem};
use isotherm_core::ids::EndpointId;

use super::folders::state_of;
use super::known::Known;
use crate::clock::wall_ms;
use crate::endpoint::Published;

/// Code of the problem.
const CODE: &str = "not_named";

/// Those endpoints, each as it is shown.
#[derive(Default)]
pub(super) struct Lost(BTreeMap<EndpointId, (Assignment, Published)>);

impl Lost {
    /// Compares what the service names now with what it named before, and warns of what is missing.
    pub(super) fn compare(&mut self, state: &Path, named: &[Assignment]) {
        // What cannot be read was told of where it was needed.
        let before = Known::read(state).ok().flatten().unwrap_or_default();
        let is_missing = |known: &Assignment| {
            named.iter().all(|one| one.endpoint != known.endpoint && one.path != known.path)
                && state_of(state, known.endpoint).exists()
        };
        let missing = before.assignments.into_iter().chain(before.lost).filter(is_missing);
        let mut now = BTreeMap::new();
        for assignment in missing {
            let id = assignment.endpoint;
            let shown = self.0.remove(&id).unwrap_or_else(|| shown(state, assignment));
            now.insert(id, shown);
        }
        self.0 = now;
    }

    pub(super) fn assignments(&self) -> Vec<Assignment> {
        self.0.values().map(|(assignment, _)| assignment.clone()).collect()
    }

    pub(super) fn views(&self) -> Vec<(Assignment, Published)> {
        self.0.values().cloned().collect()
    }
}

fn shown(state: &Path, assignment: Assignment) -> (Assignment, Published) {
    let reason = format!(
        "The service does not know the endpoint of folder {} any more, and never said that it is deleted; nothing in the folder is synced",
        assignment.path
    );
    let remedy = format!(
        "Check that the service runs on its own data folder, and that its disk is mounted; if the endpoint was deleted with --forget, remove {}",
        state_of(state, assignment.endpoint).display()
    );
    tracing::warn!(endpoint = %assignment.endpoint, "{reason}. {remedy}");
    let mut published =
        Published::stopped(&assignment, EndpointState::Stopped { reason: reason.clone(), remedy: remedy.clone() });
    published.report.problems =
        vec![Problem { path: Vec::new(), code: CODE.to_owned(), text: reason, remedy, since_ms: wall_ms() }];
    published.report.problems_total = 1;
    (assignment, published)
}
