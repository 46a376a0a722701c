//! Which programs had which contents brought back: for whom each comes, and who waited for the latest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use isotherm_core::ids::NodeId;
use isotherm_core::trees::Handle;
use isotherm_gate::guard::Program;

use crate::catalog::{Happening, What};
use crate::clock::wall_ms;

/// Recalls that are remembered.
const KEPT: usize = 10_000;

/// A content that came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recalled {
    /// The file.
    pub file: Handle,
    /// Who waited for it first; none where nobody did, as for `isotherm recall` and kernel NFS.
    pub program: Option<Program>,
}

/// The latest recalls, the newest last. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Arc<Mutex<VecDeque<Recalled>>>);

/// Recalls under way.
#[derive(Debug, Default)]
pub(super) struct Callers {
    first: BTreeMap<Handle, (Program, Instant)>,
    /// Why those come for which no program waits at the file.
    wanted: BTreeMap<Handle, What>,
    filling: BTreeMap<Handle, (NodeId, u64, Instant)>,
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

    /// A file is wanted for this reason, without a program that waits at it.
    pub(super) fn wanted(&mut self, file: &Handle, why: What) {
        self.wanted.entry(file.clone()).or_insert(why);
    }

    /// Its content, that of a node with so many bytes, is on its way.
    pub(super) fn filling(&mut self, file: &Handle, node: NodeId, bytes: u64) {
        self.filling.insert(file.clone(), (node, bytes, Instant::now()));
    }

    /// It came, or did not; what has happened by that.
    pub(super) fn filled(&mut self, file: &Handle, is_here: bool, history: &History) -> Option<Happening> {
        let (first, wanted) = (self.first.remove(file), self.wanted.remove(file));
        let (node, bytes, begun) = self.filling.remove(file).filter(|_| is_here)?;
        let took = first.as_ref().map_or(begun, |(_, at)| *at).elapsed();
        let program = first.map(|(program, _)| program);
        tracing::info!(?file, program = program.as_ref().map(|one| one.name.as_str()), bytes, ?took, "A content came back");
        history.keep(Recalled { file: file.clone(), program: program.clone() });
        // An earlier run was asked for what nobody is known to wait for.
        let what = if program.is_some() { What::RecalledByProgram } else { wanted.unwrap_or(What::RecalledByItself) };
        Some(Happening {
            waited_ms: what.is_awaited().then(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            process: program.as_ref().map(|program| program.process),
            user: program.as_ref().map(|program| program.user),
            program: program.map(|program| program.name),
            ..Happening::new(node, what, wall_ms(), bytes)
        })
    }

    /// Forgets files whose wait has ended without content: emptied, refused, or whole by then.
    pub(super) fn keep(&mut self, is_waited_for: impl Fn(&Handle) -> bool) {
        self.first.retain(|file, _| is_waited_for(file));
        self.wanted.retain(|file, _| is_waited_for(file));
        self.filling.retain(|file, _| is_waited_for(file));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(number: u8) -> Handle {
        Handle(vec![number; 12].into())
    }

    #[test]
    fn whoever_waits_at_the_file_counts_before_whoever_wanted_it() {
        let (mut callers, history) = (Callers::default(), History::default());
        let program = |process| Program { name: "cat".to_owned(), process, user: 7 };
        let node = NodeId([9; 16]);
        // Brought back by itself, and two programs come while it is on its way.
        callers.wanted(&file(1), What::RecalledByItself);
        callers.filling(&file(1), node, 100);
        callers.asked(&file(1), program(1));
        callers.asked(&file(1), program(2));
        let happened = callers.filled(&file(1), true, &history).unwrap();
        assert_eq!((happened.what, happened.node, happened.bytes), (What::RecalledByProgram, node, 100));
        assert_eq!((happened.program.as_deref(), happened.process, happened.user), (Some("cat"), Some(1), Some(7)));
        assert!(happened.waited_ms.is_some());
        assert_eq!(history.last(&file(1)).unwrap().program, Some(program(1)));
        for (why, is_awaited) in [(What::RecalledForPin, false), (What::RecalledOverNfs, true)] {
            callers.wanted(&file(2), why);
            callers.filling(&file(2), node, 100);
            let happened = callers.filled(&file(2), true, &history).unwrap();
            assert_eq!((happened.what, happened.waited_ms.is_some(), happened.program), (why, is_awaited, None));
        }
    }

    #[test]
    fn what_does_not_come_has_not_happened_and_is_forgotten() {
        let (mut callers, history) = (Callers::default(), History::default());
        callers.wanted(&file(1), What::RecalledForPin);
        callers.filling(&file(1), NodeId::ROOT, 100);
        assert_eq!(callers.filled(&file(1), false, &history), None);
        callers.wanted(&file(1), What::RecalledForPin);
        callers.keep(|_| false);
        callers.filling(&file(1), NodeId::ROOT, 100);
        let happened = callers.filled(&file(1), true, &history).unwrap();
        assert_eq!(happened.what, What::RecalledByItself, "nothing is known of who wanted it");
    }
}
