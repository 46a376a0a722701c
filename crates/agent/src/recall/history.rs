//! Which programs had which contents brought back, as far as this run of the agent knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use isotherm_core::trees::Handle;
use isotherm_gate::guard::Program;

/// Recalls that are remembered.
const KEPT: usize = 10_000;

/// A content that came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recalled {
    /// The file.
    pub file: Handle,
    /// Who waited for it first; none where nobody did, as for `isotherm recall` and kernel NFS.
    pub program: Option<Program>,
    /// When it was there.
    pub at: SystemTime,
    /// How long it took from the moment that somebody was waiting.
    pub took: Duration,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The latest recalls, the newest last. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Arc<Mutex<VecDeque<Recalled>>>);

/// Recalls under way.
#[derive(Debug, Default)]
pub(super) struct Callers {
    first: BTreeMap<Handle, (Program, Instant)>,
    filling: BTreeMap<Handle, (u64, Instant)>,
}

impl History {
    /// The last one of a file.
    pub(super) fn last(&self, file: &Handle) -> Option<Recalled> {
        self.lock().iter().rev().find(|one| one.file == *file).cloned()
    }

    fn keep(&self, recalled: Recalled) {
        let mut all = self.lock();
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(recalled);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Recalled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callers {
    /// Somebody waits for a file.
    pub(super) fn asked(&mut self, file: &Handle, program: Program) {
        self.first.entry(file.clone()).or_insert_with(|| (program, Instant::now()));
    }

    /// Its content is on its way.
    pub(super) fn filling(&mut self, file: &Handle, bytes: u64) {
        self.filling.insert(file.clone(), (bytes, Instant::now()));
    }

    /// It came, or did not.
    pub(super) fn filled(&mut self, file: &Handle, is_here: bool, history: &History) {
        let first = self.first.remove(file);
        let Some((bytes, begun)) = self.filling.remove(file).filter(|_| is_here) else { return };
        let since = first.as_ref().map_or(begun, |(_, at)| *at);
        let (at, took) = (SystemTime::now(), since.elapsed());
        let program = first.map(|(program, _)| program);
        tracing::info!(?file, program = program.as_ref().map(|one| one.name.as_str()), bytes, ?took, "A content came back");
        history.keep(Recalled { file: file.clone(), program, at, took, bytes });
    }

    /// Forgets files whose wait has ended without content: emptied, refused, or whole by then.
    pub(super) fn keep(&mut self, is_waited_for: impl Fn(&Handle) -> bool) {
        self.first.retain(|file, _| is_waited_for(file));
        self.filling.retain(|file, _| is_waited_for(file));
    }
}
