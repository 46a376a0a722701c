//! Which programs had which contents brought back: for whom each comes, and who waited for the latest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isotherm_core::ids::NodeId;
use isotherm_core::stub::{QuestionId, Units};
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
    /// Who waits for each file.
    first: BTreeMap<Handle, First>,
    /// The files of these, by what the gate asked for them.
    questions: BTreeMap<QuestionId, Handle>,
    /// Who was let through before, and so may be reading the file while it comes.
    shown: BTreeMap<Handle, First>,
    /// Why those come for which no program waits at the file.
    wanted: BTreeMap<Handle, What>,
    filling: BTreeMap<Handle, (NodeId, u64, Instant)>,
    /// What has come of those that are read while they come.
    parts: BTreeMap<Handle, (NodeId, u64, Units)>,
}

/// Who waited for a file first.
#[derive(Debug)]
struct First {
    program: Program,
    asked: Instant,
    /// How long, when it was let through.
    waited: Option<Duration>,
}

impl First {
    fn waited(&self) -> Duration {
        self.waited.unwrap_or_else(|| self.asked.elapsed())
    }

    /// What happened to the content of a node by that, of so many bytes.
    fn happened(&self, what: What, node: NodeId, bytes: u64) -> Happening {
        Happening {
            waited_ms: Some(u64::try_from(self.waited().as_millis()).unwrap_or(u64::MAX)),
            process: Some(self.program.process),
            user: Some(self.program.user),
            program: Some(self.program.name.clone()),
            ..Happening::new(node, what, wall_ms(), bytes)
        }
    }
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
    pub(super) fn asked(&mut self, question: QuestionId, file: &Handle, program: Program) {
        if !self.first.contains_key(file) {
            self.questions.insert(question, file.clone());
            self.first.insert(file.clone(), First { program, asked: Instant::now(), waited: None });
        }
    }

    /// Somebody is let through, perhaps before all of the file is here: then it is he who reads it while it comes.
    pub(super) fn let_through(&mut self, question: QuestionId) {
        let Some(file) = self.questions.remove(&question) else { return };
        if let Some(mut first) = self.first.remove(&file) {
            first.waited = Some(first.asked.elapsed());
            self.shown.entry(file).or_insert(first);
        }
    }

    /// A file is wanted for this reason, without a program that waits at it.
    pub(super) fn wanted(&mut self, file: &Handle, why: What) {
        self.wanted.entry(file.clone()).or_insert(why);
    }

    /// Its content, that of a node with so many bytes, is on its way.
    pub(super) fn filling(&mut self, file: &Handle, node: NodeId, bytes: u64) {
        self.filling.insert(file.clone(), (node, bytes, Instant::now()));
    }

    /// A part of it, of a node with so many bytes, is on its way.
    pub(super) fn bringing(&mut self, file: &Handle, node: NodeId, bytes: u64) {
        self.parts.entry(file.clone()).or_insert_with(|| (node, bytes, Units::none()));
    }

    /// These units of it have come.
    pub(super) fn brought(&mut self, file: &Handle, units: &Units) {
        if let Some((_, _, all)) = self.parts.get_mut(file) {
            *all = all.and(units);
        }
    }

    /// Nobody reads it any more, and it is in the share as before; what has happened by that.
    pub(super) fn parted(&mut self, file: &Handle) -> Option<Happening> {
        let (shown, part) = (self.shown.remove(file), self.parts.remove(file));
        let (node, size, units) = part.filter(|(_, _, units)| !units.is_empty())?;
        let bytes = units.bytes(size).map(|range| range.end - range.start).sum();
        Some(shown?.happened(What::ReadInPart, node, bytes))
    }

    /// It came, or did not; what has happened by that.
    pub(super) fn filled(&mut self, file: &Handle, is_here: bool, history: &History) -> Option<Happening> {
        let (waits, wanted) = (self.first.remove(file), self.wanted.remove(file));
        // Where it did not come those who read it may go on.
        let (node, bytes, begun) = self.filling.remove(file).filter(|_| is_here)?;
        self.parts.remove(file);
        let shown = self.shown.remove(file);
        let first = waits.or(shown);
        let took = first.as_ref().map_or_else(|| begun.elapsed(), First::waited);
        let program = first.as_ref().map(|first| first.program.clone());
        tracing::info!(?file, program = program.as_ref().map(|one| one.name.as_str()), bytes, ?took, "A content came back");
        history.keep(Recalled { file: file.clone(), program });
        if let Some(first) = first {
            return Some(first.happened(What::RecalledByProgram, node, bytes));
        }
        // An earlier run was asked for what nobody is known to wait for.
        let what = wanted.unwrap_or(What::RecalledByItself);
        let waited_ms = what.is_awaited().then(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Some(Happening { waited_ms, ..Happening::new(node, what, wall_ms(), bytes) })
    }

    /// Forgets files whose wait has ended without content: emptied, refused, or whole by then.
    pub(super) fn keep(&mut self, is_waited_for: impl Fn(&Handle) -> bool) {
        self.first.retain(|file, _| is_waited_for(file));
        self.questions.retain(|_, file| is_waited_for(file));
        self.shown.retain(|file, _| is_waited_for(file));
        self.wanted.retain(|file, _| is_waited_for(file));
        self.filling.retain(|file, _| is_waited_for(file));
        self.parts.retain(|file, _| is_waited_for(file));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use isotherm_core::stub::UNIT;

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
        callers.asked(QuestionId(1), &file(1), program(1));
        callers.asked(QuestionId(2), &file(1), program(2));
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
    fn whoever_reads_a_file_while_it_comes_has_waited_until_he_was_let_through() {
        let (mut callers, history, node) = (Callers::default(), History::default(), NodeId([9; 16]));
        let program = |name: &str| Program { name: name.to_owned(), process: 1, user: 7 };
        let play = |callers: &mut Callers| {
            callers.asked(QuestionId(1), &file(1), program("mpv"));
            callers.bringing(&file(1), node, 2 * UNIT + 5);
            callers.let_through(QuestionId(1));
        };
        play(&mut callers);
        assert_eq!(callers.parted(&file(1)), None, "nothing came");
        play(&mut callers);
        callers.brought(&file(1), &Units::of(0..1));
        // Somebody wants all of it, and gives up.
        callers.asked(QuestionId(2), &file(1), program("cp"));
        callers.filling(&file(1), node, 2 * UNIT + 5);
        assert_eq!(callers.filled(&file(1), false, &history), None);
        callers.brought(&file(1), &Units::of(2..3));
        let happened = callers.parted(&file(1)).unwrap();
        assert_eq!((happened.what, happened.bytes, happened.program.as_deref()), (What::ReadInPart, UNIT + 5, Some("mpv")));
        assert!(!happened.what.is_recall() && history.last(&file(1)).is_none());
        // All of it has come in the end, for nobody else; and for somebody else.
        for (other, name) in [(None, "mpv"), (Some("cp"), "cp")] {
            play(&mut callers);
            let waited = callers.shown[&file(1)].waited.unwrap().as_millis();
            std::thread::sleep(Duration::from_millis(5)); // tidy: wait what passes while it is read is no wait
            other.iter().for_each(|name| callers.asked(QuestionId(3), &file(1), program(name)));
            callers.filling(&file(1), node, 2 * UNIT + 5);
            let happened = callers.filled(&file(1), true, &history).unwrap();
            assert_eq!((happened.what, happened.program.as_deref()), (What::RecalledByProgram, Some(name)));
            assert!(other.is_some() || happened.waited_ms.map(u128::from) == Some(waited), "{happened:?}");
            assert_eq!(callers.parted(&file(1)), None);
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
