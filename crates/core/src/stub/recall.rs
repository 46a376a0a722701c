//! The recall machine: who waits for which file, and what has to happen before he may go on.
//!
//! There is one job for each file that somebody waits for, whatever the number of those who wait. Its order is the order on
//! disk that survives a power cut: content, flush, record gone, flush. Who only reads goes on when the record is gone; who
//! may write waits for the last flush, since a record that came back after a power cut would bring old content over his.
//!
//! **Invariants.** Nobody is let through to a stub but who empties it in the same call, and while such a one is on his way
//! nothing is filled. A file that somebody else of the agent holds is not touched. Each question is answered once.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Answer, Effect, Event, Failure, Found, Millis, Purpose, Question, QuestionId, Trouble};
use super::record::RecordError;
use crate::trees::Handle;

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Somebody else of the agent works on the file.
    Held,
    /// It is being looked at.
    Looking,
    /// Callers that empty it are on their way.
    Emptying,
    /// It gets the length of its content again.
    Mending,
    /// Content is on its way.
    Filling,
    /// Nobody waits for it any more; what has come is being given up.
    GivingUp,
    /// Content, or that there is none any more, is being made durable.
    Flushing,
    /// The record is being removed.
    Forgetting,
    /// That is being made durable.
    Settling,
    /// It is whole, and the gate is being told.
    Releasing,
}

/// A file that somebody waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Job {
    stage: Stage,
    /// Who waits, and what for.
    waiting: BTreeMap<QuestionId, Purpose>,
    /// Who was let through to empty it and has not returned from the call.
    on_their_way: BTreeSet<QuestionId>,
    /// What is being looked at may have changed since: the look has to be repeated.
    outdated: bool,
    /// It is to be whole whoever waits.
    wanted: bool,
    /// Also if its length was changed while it was a stub; tried once.
    mend: bool,
    /// Somebody was let through to empty it, and it was not empty afterwards: nobody is again.
    not_emptied: bool,
    /// When it last got on.
    moved: Millis,
}

/// All files that somebody waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recalls {
    jobs: BTreeMap<Handle, Job>,
    patience: Millis,
}

impl Recalls {
    /// Nobody waits yet. `patience` is how long a caller waits while nothing gets on.
    #[must_use]
    pub fn new(patience: Millis) -> Self {
        Self { jobs: BTreeMap::new(), patience }
    }

    /// Takes a file for other work of the agent (giving up its content, another version): callers wait until
    /// [`Self::let_go`]. False if somebody waits for it, or it is held already.
    pub fn hold(&mut self, file: &Handle, now: Millis) -> bool {
        if self.jobs.contains_key(file) {
            return false;
        }
        self.jobs.insert(file.clone(), Job::new(Stage::Held, now));
        true
    }

    /// The other work has ended. Where the file is not known to be a stub now it is looked at, and released if it is whole: by
    /// whoever else it was held, the gate goes on asking about it until that is safe.
    pub fn let_go(&mut self, file: &Handle, is_stub: bool, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Held) {
            if is_stub && job.is_idle() {
                self.jobs.remove(file);
            } else {
                job.look(file, now, &mut effects);
            }
        }
        effects
    }

    /// Whether a caller waits for a file, as opposed to somebody who wants it whole some time.
    #[must_use]
    pub fn is_awaited(&self, file: &Handle) -> bool {
        self.jobs.get(file).is_some_and(|job| !job.waiting.is_empty())
    }

    /// Whether somebody waits for a file, or works on it.
    #[must_use]
    pub fn has(&self, file: &Handle) -> bool {
        self.jobs.contains_key(file)
    }

    /// How many files somebody waits for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nobody waits for any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Takes what happened.
    pub fn handle(&mut self, event: Event, now: Millis) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Asked(mut questions) => {
                // Nothing is begun for those who wait before it is known who is on his way.
                questions.sort_by_key(|question| !question.let_through);
                questions.into_iter().for_each(|question| self.asked(question, now, &mut out));
            }
            Event::Left(callers) => self.left(&callers, &mut out),
            Event::Returned(callers) => self.returned(&callers, now, &mut out),
            Event::Wanted(files) => files.iter().for_each(|file| self.wanted(file, false, now, &mut out)),
            Event::MendWanted(files) => files.iter().for_each(|file| self.wanted(file, true, now, &mut out)),
            Event::Mended(files) => files.iter().for_each(|(file, result)| self.mended(file, *result, now, &mut out)),
            Event::Looked(files) => files.iter().for_each(|(file, found)| self.looked(file, found, now, &mut out)),
            Event::Progress(files) => files.iter().for_each(|file| self.moved(file, now)),
            Event::Filled(files) => files.iter().for_each(|(file, result)| self.filled(file, *result, now, &mut out)),
            Event::Flushed(files) => files.iter().for_each(|(file, result)| self.flushed(file, *result, now, &mut out)),
            Event::Released(files) => files.iter().for_each(|file| self.released(file, now, &mut out)),
            Event::Forgotten(files) => files.iter().for_each(|(file, result)| self.forgotten(file, *result, now, &mut out)),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    fn asked(&mut self, question: Question, now: Millis, out: &mut Vec<Effect>) {
        let Question { id, file, purpose, let_through } = question;
        let job = self.jobs.entry(file.clone()).or_insert_with(|| {
            out.push(Effect::Look(file));
            Job::new(Stage::Looking, now)
        });
        if let_through {
            // By an earlier run of the agent. What is being looked at now may change before it is told.
            job.on_their_way.insert(id);
            out.push(Effect::Follow(id));
            return;
        }
        match (job.stage, purpose) {
            (Stage::Emptying, Purpose::Empty) => {
                job.on_their_way.insert(id);
                out.extend([Effect::Answer(id, Answer::Allow), Effect::Follow(id)]);
            }
            (Stage::Settling, Purpose::Read) | (Stage::Releasing, _) => out.push(Effect::Answer(id, Answer::Allow)),
            _ => {
                job.waiting.insert(id, purpose);
            }
        }
    }

    fn wanted(&mut self, file: &Handle, mend: bool, now: Millis, out: &mut Vec<Effect>) {
        let job = self.jobs.entry(file.clone()).or_insert_with(|| {
            out.push(Effect::Look(file.clone()));
            Job::new(Stage::Looking, now)
        });
        job.wanted = true;
        job.mend |= mend;
    }

    fn left(&mut self, callers: &[QuestionId], out: &mut Vec<Effect>) {
        for (file, job) in &mut self.jobs {
            let before = job.waiting.len();
            callers.iter().for_each(|caller| {
                job.waiting.remove(caller);
            });
            if job.waiting.len() < before && job.is_idle() && job.stage == Stage::Filling {
                job.stage = Stage::GivingUp;
                out.push(Effect::GiveUp(file.clone()));
            }
        }
    }

    fn returned(&mut self, callers: &[QuestionId], now: Millis, out: &mut Vec<Effect>) {
        for (file, job) in &mut self.jobs {
            let before = job.on_their_way.len();
            callers.iter().for_each(|caller| {
                job.on_their_way.remove(caller);
            });
            job.outdated |= job.on_their_way.len() < before;
            if job.on_their_way.is_empty() && job.stage == Stage::Emptying {
                job.not_emptied = true;
                // Also if nobody waits: a record over an empty file is to go.
                job.look(file, now, out);
            }
        }
    }

    fn looked(&mut self, file: &Handle, found: &Found, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Looking) else { return };
        if !job.on_their_way.is_empty() {
            job.let_through_to_empty(now, out);
            (job.stage, job.moved) = (Stage::Emptying, now);
            return;
        }
        if job.outdated {
            job.look(file, now, out);
            return;
        }
        match found.record {
            // An earlier run may have removed the record, and ended before that was durable.
            None => job.settle(file, now, out),
            // Nothing is left of what the record was for. It goes when that is durable, or a power cut could leave the holes.
            Some(_) if found.size == 0 => job.go_on(Stage::Flushing, Effect::Flush(file.clone()), now, out),
            // A copy of a stub that was made with its attribute: a whole file of its own, if it has content.
            Some(Err(RecordError::Void)) if found.has_blocks => self.end(file, Answer::Allow, out),
            // Also where the content cannot be had: a broken file can be written anew.
            Some(_) if job.let_through_to_empty(now, out) => {}
            Some(Ok(record)) if found.size == record.size && !(job.mend && found.has_blocks) => {
                if job.is_idle() {
                    self.jobs.remove(file);
                } else {
                    job.go_on(Stage::Filling, Effect::Fill(file.clone(), record), now, out);
                }
            }
            Some(Ok(record)) if std::mem::take(&mut job.mend) => {
                job.go_on(Stage::Mending, Effect::Mend(file.clone(), record), now, out);
            }
            // Nobody can tell what it should be: it may have been cut more than once (row 4).
            Some(Ok(record)) => {
                out.push(Effect::Show(file.clone(), Trouble::Size { found: found.size, recorded: record.size }));
                self.end(file, Answer::Failed, out);
            }
            Some(Err(RecordError::Gone)) => self.end(file, Answer::Again, out),
            Some(Err(error)) => {
                out.push(Effect::Show(file.clone(), Trouble::Record(error)));
                self.end(file, Answer::Failed, out);
            }
        }
    }

    fn mended(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Mending) else { return };
        match result {
            // Its length may have been changed once more.
            Ok(()) => job.look(file, now, out),
            Err(failure) => self.end(file, failure.into(), out),
        }
    }

    fn released(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        match self.jobs.get_mut(file).filter(|job| job.stage == Stage::Releasing) {
            // Wanted since: what it is by now has to be looked at.
            Some(job) if job.wanted => job.look(file, now, out),
            Some(_) => drop(self.jobs.remove(file)),
            None => {}
        }
    }

    fn moved(&mut self, file: &Handle, now: Millis) {
        if let Some(job) = self.jobs.get_mut(file) {
            job.moved = now;
        }
    }

    fn filled(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file) else { return };
        match (job.stage, result) {
            // Also if nobody waits any more: all of it is here.
            (Stage::Filling | Stage::GivingUp, Ok(())) => job.go_on(Stage::Flushing, Effect::Flush(file.clone()), now, out),
            (Stage::Filling, Err(failure)) => self.end(file, failure.into(), out),
            (Stage::GivingUp, Err(_)) if job.is_idle() => {
                self.jobs.remove(file);
            }
            (Stage::GivingUp, Err(_)) => job.look(file, now, out),
            _ => {}
        }
    }

    fn flushed(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file) else { return };
        match (job.stage, result) {
            (Stage::Flushing, Ok(())) => job.go_on(Stage::Forgetting, Effect::Forget(file.clone()), now, out),
            (Stage::Settling, Ok(())) => job.release(file, now, out),
            // The record may come back after a power cut, or is still there: whoever writes must not.
            (Stage::Flushing | Stage::Settling, Err(failure)) => self.end(file, failure.into(), out),
            _ => {}
        }
    }

    fn forgotten(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Forgetting) else { return };
        if let Err(failure) = result {
            self.end(file, failure.into(), out);
            return;
        }
        job.settle(file, now, out);
    }

    /// Who has waited too long is told so. What is under way is waited for all the same: nothing else may begin before it ends.
    fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        for (file, job) in &mut self.jobs {
            if now < job.moved + self.patience {
                continue;
            }
            // Also who waits for a file that is held or emptied: either may wait for a frozen volume, which waits for the callers.
            job.answer_all(Answer::Late, out);
            if std::mem::take(&mut job.wanted) {
                out.push(Effect::Ended(file.clone(), Answer::Late));
            }
            job.moved = now;
            if job.stage == Stage::Filling {
                job.go_on(Stage::GivingUp, Effect::GiveUp(file.clone()), now, out);
            }
        }
    }

    fn end(&mut self, file: &Handle, answer: Answer, out: &mut Vec<Effect>) {
        let Some(mut job) = self.jobs.remove(file) else { return };
        job.answer_all(answer, out);
        if job.wanted {
            out.push(Effect::Ended(file.clone(), answer));
        }
    }
}

impl Job {
    fn new(stage: Stage, now: Millis) -> Self {
        Self {
            stage,
            waiting: BTreeMap::new(),
            on_their_way: BTreeSet::new(),
            outdated: false,
            wanted: false,
            mend: false,
            not_emptied: false,
            moved: now,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.wanted
    }

    fn look(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        self.outdated = false;
        self.go_on(Stage::Looking, Effect::Look(file.clone()), now, out);
    }

    fn go_on(&mut self, stage: Stage, effect: Effect, now: Millis, out: &mut Vec<Effect>) {
        self.stage = stage;
        self.moved = now;
        out.push(effect);
    }

    /// It has no record: readers go on.
    fn settle(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        out.extend(self.take(Purpose::Read).into_iter().map(|reader| Effect::Answer(reader, Answer::Allow)));
        self.go_on(Stage::Settling, Effect::Flush(file.clone()), now, out);
    }

    /// It is whole: everybody goes on, and until the gate knows nobody else of the agent touches it.
    fn release(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        self.answer_all(Answer::Allow, out);
        if std::mem::take(&mut self.wanted) {
            out.push(Effect::Ended(file.clone(), Answer::Allow));
        }
        self.go_on(Stage::Releasing, Effect::Release(file.clone()), now, out);
    }

    /// Who empties the file needs nothing of it. False if nobody does, or it did not help before.
    fn let_through_to_empty(&mut self, now: Millis, out: &mut Vec<Effect>) -> bool {
        if self.not_emptied {
            return false;
        }
        let empties = self.take(Purpose::Empty);
        if empties.is_empty() {
            return false;
        }
        self.on_their_way.extend(&empties);
        out.extend(empties.iter().flat_map(|caller| [Effect::Answer(*caller, Answer::Allow), Effect::Follow(*caller)]));
        (self.stage, self.moved) = (Stage::Emptying, now);
        true
    }

    /// Those who wait for this purpose; they do not wait any more.
    fn take(&mut self, purpose: Purpose) -> Vec<QuestionId> {
        let of_it = self.waiting.iter().filter(|(_, other)| **other == purpose).map(|(caller, _)| *caller);
        let taken: Vec<QuestionId> = of_it.collect();
        taken.iter().for_each(|caller| {
            self.waiting.remove(caller);
        });
        taken
    }

    fn answer_all(&mut self, answer: Answer, out: &mut Vec<Effect>) {
        out.extend(std::mem::take(&mut self.waiting).into_keys().map(|caller| Effect::Answer(caller, answer)));
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSpace => Self::NoSpace,
            Failure::Quota => Self::Quota,
            Failure::Other => Self::Failed,
        }
    }
}
