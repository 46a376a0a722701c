//! Performing steps on a volume.
//!
//! Steps are performed in groups: first the contents of a group are fetched into staging, in parallel, and made durable
//! together; then each step changes names, in order, and says what it found; then the names are made durable together;
//! only then what was displaced is looked at once more and let go (row 1).
//!
//! **Invariants:** a step that finds something else than it expects changes nothing that stays; nothing visible is ever
//! changed in place but metadata; a displaced inode leaves staging only after it was proved to be the expected one, twice.

mod displaced;
mod fetch;
mod parts;
mod place;
mod refusal;
mod stubs;

pub use fetch::ContentSource;
pub use stubs::{Keeps, StubGuard, StubRules};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isotherm_core::ids::NodeId;
use isotherm_core::node::Content;
use isotherm_core::plan::{Action, Step};
use isotherm_core::trees::Handle;
use isotherm_gate::Dir;

use super::Volume;
use crate::engine::StepResult;
use displaced::Displaced;
pub(super) use displaced::rescue;
use fetch::Staged;
use refusal::{Refusal, refused};

/// Most steps of one group: as many files are in staging at a time.
const GROUP_STEPS: usize = 1_024;
/// Bytes after which a group is closed.
const GROUP_BYTES: u64 = 512 << 20;

/// Prefix of content in the making; worthless after a crash.
pub(super) const PART: &str = "part";
/// Prefix of whole content on its way to its name, and of what it displaced.
pub(super) const FULL: &str = "full";
/// Prefix of directories on their way to their name.
pub(super) const MADE: &str = "make";

/// Performs steps on one volume; several threads may do so at a time, for different nodes.
pub struct Performer {
    volume: Arc<Volume>,
    source: Arc<dyn ContentSource>,
    stubs: Arc<StubRules>,
    /// Makes names in staging unique within this run.
    serial: AtomicU64,
}

impl std::fmt::Debug for Performer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Performer").field("volume", &self.volume.path()).finish_non_exhaustive()
    }
}

/// What the steps of one call share.
struct Batch<'a> {
    performer: &'a Performer,
    /// Directories that steps of this call made, and those they could not make.
    made: BTreeMap<NodeId, Option<Handle>>,
    /// Directories that were opened and found inside the endpoint.
    dirs: BTreeMap<Handle, Arc<Dir>>,
}

impl Performer {
    /// A performer that gets contents from `source`, those that come as stubs excepted.
    #[must_use]
    pub fn new(volume: Arc<Volume>, source: Arc<dyn ContentSource>, stubs: Arc<StubRules>) -> Self {
        Self { volume, source, stubs, serial: AtomicU64::new(0) }
    }

    /// Performs steps in their order; one result for each.
    #[must_use]
    pub fn perform(&self, steps: Vec<Step>) -> Vec<(Step, StepResult)> {
        let mut batch = Batch { performer: self, made: BTreeMap::new(), dirs: BTreeMap::new() };
        let mut results = Vec::with_capacity(steps.len());
        for group in groups(&steps) {
            results.extend(batch.group(group));
            // Directories may have been moved out by now.
            batch.dirs.clear();
        }
        steps.into_iter().zip(results).collect()
    }

    /// A name for something in staging that nothing else has.
    fn staged_name(&self, prefix: &str, node: NodeId) -> String {
        format!("{prefix}-{node}-{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }
}

fn groups(steps: &[Step]) -> Vec<&[Step]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0_u64);
    for (at, step) in steps.iter().enumerate() {
        if at > start && (at - start >= GROUP_STEPS || bytes >= GROUP_BYTES) {
            groups.push(&steps[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(fetched(step).map_or(0, Content::size));
    }
    groups.push(&steps[start..]);
    groups
}

/// The content that a step needs from the share.
fn fetched(step: &Step) -> Option<&Content> {
    match &step.action {
        Action::Create { content, link_to: None, .. } | Action::Replace { content, link_to: None, .. } => {
            content.file().map(|_| content)
        }
        _ => None,
    }
}

impl Batch<'_> {
    fn group(&mut self, steps: &[Step]) -> Vec<StepResult> {
        let staged = fetch::stage(self.performer, steps);
        let are_stubs: Vec<bool> = staged.iter().map(|staged| matches!(staged, Some(Ok(staged)) if staged.is_stub)).collect();
        let mut results = Vec::with_capacity(steps.len());
        let mut displaced: Vec<(usize, Displaced)> = Vec::new();
        for (at, (step, staged)) in steps.iter().zip(staged).enumerate() {
            let (result, left) = self.step(step, staged);
            if matches!(step.action, Action::Create { content: Content::Directory, .. }) {
                let made = match &result {
                    StepResult::Done(Some(after)) => Some(after.handle.clone()),
                    _ => None,
                };
                self.made.insert(step.node, made);
            }
            displaced.extend(left.map(|left| (at, left)));
            results.push(result);
        }
        if results.iter().any(|result| matches!(result, StepResult::Done(_)))
            && let Err(error) = self.volume().root().sync()
        {
            // The names may or may not be on disk. What was displaced stays, for the next start to judge.
            let failed = StepResult::from(refused(self.volume().path().as_os_str(), &error));
            results.iter_mut().filter(|result| matches!(result, StepResult::Done(_))).for_each(|result| *result = failed.clone());
            return results;
        }
        self.let_go(displaced, &mut results);
        let done = steps.iter().zip(&results).zip(are_stubs);
        let arrived = done.filter(|((_, result), is_stub)| *is_stub && matches!(result, StepResult::Done(_)));
        let arrived: Vec<(NodeId, u64)> = arrived.filter_map(|((step, _), _)| Some((step.node, fetched(step)?.size()))).collect();
        self.performer.stubs.arrived(&arrived);
        results
    }

    fn let_go(&self, displaced: Vec<(usize, Displaced)>, results: &mut [StepResult]) {
        if displaced.is_empty() {
            return;
        }
        for (at, left) in displaced {
            if let Some(result) = left.let_go(self.volume()) {
                results[at] = result.into();
            }
        }
        // Whoever hears of the results may forget the nodes, and that may be durable before this is: after a power cut nobody
        // would know what lies in staging, and it would be given back as a user's file.
        if let Err(error) = self.volume().staging().dir().sync() {
            tracing::warn!(%error, "After a power cut displaced files may come back under other names");
        }
    }

    fn step(&mut self, step: &Step, staged: Option<Result<Staged, Refusal>>) -> (StepResult, Option<Displaced>) {
        match staged.transpose().and_then(|staged| self.place(step, staged)) {
            Ok((after, displaced)) => (StepResult::Done(after), displaced),
            Err(refusal) => (refusal.into(), None),
        }
    }

    fn volume(&self) -> &Volume {
        &self.performer.volume
    }
}
