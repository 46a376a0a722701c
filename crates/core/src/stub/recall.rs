//! The recall machine: who waits for which file, and what has to happen before he may go on.
//!
//! There is one job for each file that somebody waits for, whatever the number of those who wait. Its order is the order on
//! disk that survives a power cut: content, flush, record gone, flush. Who only reads goes on when the record is gone; who
//! may write waits for the last flush, since a record that came back after a power cut would bring old content over his.
//!
//! Programs that may be shown a file while it comes wait only for what they read, durable or not. Whoever else opens it meanwhile waits
//! until it is whole. When nobody has it open any more it is given up but for what has come.
//!
//! **Invariants.** Nobody is let through to what is not here but who empties the file in the same call, and while such a one is on his
//! way nothing is filled. A file that somebody else of the agent holds is not touched. Each question is answered once.

use std::collections::BTreeMap;

use super::event::{Answer, Effect, Event, Failure, Found, Millis, Parted, Purpose, Question, QuestionId, Trouble};
use super::job::{Job, Stage};
use super::record::{RecordError, StubRecord};
use super::stream::{QUIET, Stream};
use super::units::Units;
use crate::trees::Handle;

/// So many times as long as nobody has to ask anything a file rests after a failure, before it is tried again to give it up.
const RESTS: u64 = 30;

/// All files that somebody waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recalls {
    jobs: BTreeMap<Handle, Job>,
    patience: Millis,
    quiet: Millis,
}

impl Recalls {
    /// Nobody waits yet. `patience` is how long a caller waits while nothing gets on.
    #[must_use]
    pub fn new(patience: Millis) -> Self {
        Self { jobs: BTreeMap::new(), patience, quiet: QUIET }
    }

    /// Files that are read while they come are given up when nobody asked anything of them for so long.
    #[must_use]
    pub fn with_quiet(self, quiet: Millis) -> Self {
        Self { quiet, ..self }
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

    /// Whether a file is read while it comes, and nobody has asked for all of it.
    #[must_use]
    pub fn is_streamed(&self, file: &Handle) -> bool {
        self.jobs.get(file).is_some_and(|job| job.stream.is_some() && !job.needs_all())
    }

    /// Whether all of a file's content is here, and what is left is to make that durable.
    #[must_use]
    pub fn is_here(&self, file: &Handle) -> bool {
        let is_left = |job: &Job| matches!(job.stage, Stage::Flushing | Stage::Forgetting | Stage::Settling | Stage::Releasing);
        self.jobs.get(file).is_some_and(is_left)
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
            Event::Left(callers) => self.left(&callers, now, &mut out),
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
            Event::Masked(files) => files.iter().for_each(|(file, result)| self.masked(file, *result, now, &mut out)),
            Event::Came(files) => files.iter().for_each(|(file, units)| self.came(file, units, now, &mut out)),
            Event::Brought(files) => {
                files.iter().for_each(|(file, units, result)| self.brought(file, (units, *result), now, &mut out));
            }
            Event::Parted(files) => files.iter().for_each(|(file, parted)| self.parted(file, parted, now, &mut out)),
            Event::Swept(files) => files.iter().for_each(|file| self.swept(file, now, &mut out)),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    fn asked(&mut self, question: Question, now: Millis, out: &mut Vec<Effect>) {
        let Question { id, file, purpose, let_through } = question;
        let job = self.jobs.entry(file.clone()).or_insert_with(|| {
            out.push(Effect::Look(file.clone()));
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
            (Stage::Flushing | Stage::Forgetting | Stage::Settling, purpose) if purpose.is_partial() => {
                out.push(Effect::Answer(id, Answer::Allow));
            }
            (stage, _) => {
                job.waiting.insert(id, purpose);
                if let Some(stream) = &mut job.stream {
                    stream.used = now;
                }
                match stage {
                    Stage::Streaming => job.stream_on(&file, now, out),
                    // What is being given up may not be there any more.
                    Stage::Parting => {}
                    _ => job.serve(out),
                }
            }
        }
    }

    fn swept(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        // Whoever works on it already looks at it, too.
        if !self.jobs.contains_key(file) {
            self.jobs.insert(file.clone(), Job::new(Stage::Looking, now));
            out.push(Effect::Look(file.clone()));
        }
    }

    fn wanted(&mut self, file: &Handle, mend: bool, now: Millis, out: &mut Vec<Effect>) {
        let job = self.jobs.entry(file.clone()).or_insert_with(|| {
            out.push(Effect::Look(file.clone()));
            Job::new(Stage::Looking, now)
        });
        job.wanted = true;
        job.mend |= mend;
        if let Some(stream) = job.stream.as_mut().filter(|_| mend) {
            // What it holds is looked at first.
            stream.doubted = true;
        }
        if job.stage == Stage::Streaming {
            job.stream_on(file, now, out);
        }
    }

    fn left(&mut self, callers: &[QuestionId], now: Millis, out: &mut Vec<Effect>) {
        for (file, job) in &mut self.jobs {
            let before = job.waiting.len();
            callers.iter().for_each(|caller| {
                job.waiting.remove(caller);
            });
            let needs_none = job.is_idle() || (job.stream.is_some() && !job.needs_all());
            if job.waiting.len() < before && needs_none && job.stage == Stage::Filling {
                job.stage = Stage::GivingUp;
                out.push(Effect::GiveUp(file.clone()));
            }
        }
        // Whoever was let through in the moment in which he left is not on his way either.
        self.returned(callers, now, out);
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
                self.begin(file, record, found, now, out);
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

    /// A stub that has the length of its content.
    fn begin(&mut self, file: &Handle, record: StubRecord, found: &Found, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file) else { return };
        // Of a compact record nobody can be reading what is not here.
        job.stream = found.resident.clone().map(|resident| Stream::new(record, resident, now));
        let resident = found.resident.clone().unwrap_or_default();
        // Who reads through a descriptor got it when the file was streamed, or is no program that may see it while it comes.
        let may_stream = job.stream.is_some() || job.waiting.values().any(|purpose| *purpose == Purpose::Stream);
        if job.is_idle() && found.has_blocks && job.stream.is_some() && now < job.rests_until {
            job.stage = Stage::Streaming;
        } else if job.is_idle() && found.has_blocks && job.stream.is_some() {
            job.go_on(Stage::Parting, Effect::Part(file.clone(), record, resident), now, out);
        } else if job.is_idle() {
            self.jobs.remove(file);
        } else if !job.needs_all() && may_stream && (found.streams || found.resident.is_some()) {
            job.stream.get_or_insert_with(|| Stream::new(record, resident, now));
            job.stream_on(file, now, out);
        } else {
            job.go_on(Stage::Filling, Effect::Fill(file.clone(), record, resident), now, out);
        }
    }

    fn masked(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Masking) else { return };
        job.moved = now;
        match (result, &mut job.stream) {
            (Ok(()), Some(stream)) => {
                stream.masked = true;
                job.stream_on(file, now, out);
            }
            // There is another way; the record may be either.
            _ => {
                job.stream = None;
                job.unmaskable = true;
                job.look(file, now, out);
            }
        }
    }

    fn came(&mut self, file: &Handle, units: &Units, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file) else { return };
        job.moved = now;
        if let Some(stream) = &mut job.stream {
            stream.came(units);
            job.serve(out);
        }
    }

    fn brought(&mut self, file: &Handle, (units, result): (&Units, Result<(), Failure>), now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Streaming) else { return };
        let Some(stream) = &mut job.stream else { return };
        if result.is_ok() {
            stream.came(units);
        }
        stream.ended(units);
        job.serve(out);
        match result {
            // Who came since, or was told that he waited too long, asks anew.
            Ok(()) | Err(Failure::GivenUp) => job.stream_on(file, now, out),
            Err(failure) => {
                // Whoever waits for a part that was not fetched again since then.
                let Some(stream) = job.stream.clone() else { return };
                let failed = job.take(|purpose| stream.lacks(purpose, units));
                out.extend(failed.into_iter().map(|caller| Effect::Answer(caller, failure.into())));
                match failure {
                    // What is here is here.
                    Failure::NoSpace | Failure::Quota => job.stream_on(file, now, out),
                    Failure::Other | Failure::GivenUp => job.doubt(file, now + self.quiet * RESTS, now, out),
                }
            }
        }
    }

    fn parted(&mut self, file: &Handle, parted: &Parted, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Parting) else { return };
        match parted {
            Parted::Over => {
                job.stream = None;
                if job.is_idle() {
                    self.jobs.remove(file);
                } else {
                    job.look(file, now, out);
                }
            }
            Parted::InUse => {
                if let Some(stream) = &mut job.stream {
                    stream.used = now;
                }
                job.moved = now;
                job.stream_on(file, now, out);
            }
            Parted::Strange(units) => {
                if let Some(stream) = &mut job.stream {
                    stream.used = now;
                    stream.begun();
                    out.push(Effect::Bring(file.clone(), stream.record, units.clone()));
                }
                job.moved = now;
                job.stream_on(file, now, out);
            }
            // Not again at once.
            Parted::Failed => job.doubt(file, now + self.quiet * RESTS, now, out),
        }
    }

    fn mended(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Mending) else { return };
        match result {
            // Its length may have been changed once more.
            Ok(()) => job.look(file, now, out),
            Err(failure) if job.stream_without_all(file, failure.into(), now, out) => {}
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
            (Stage::Filling | Stage::GivingUp, Ok(())) => {
                job.filled(file, now, out);
            }
            (Stage::Filling, Err(failure)) if job.stream_without_all(file, failure.into(), now, out) => {}
            (Stage::Filling, Err(failure)) => self.end(file, failure.into(), out),
            (Stage::GivingUp, Err(Failure::GivenUp)) if job.stream.is_some() => job.stream_on(file, now, out),
            (Stage::GivingUp, Err(_)) if job.stream.is_some() => job.doubt(file, now, now, out),
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
            (Stage::Flushing, Err(failure)) if job.stream_without_all(file, failure.into(), now, out) => {}
            // The record may come back after a power cut, or is still there: whoever writes must not.
            (Stage::Flushing | Stage::Settling, Err(failure)) => self.end(file, failure.into(), out),
            _ => {}
        }
    }

    fn forgotten(&mut self, file: &Handle, result: Result<(), Failure>, now: Millis, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(file).filter(|job| job.stage == Stage::Forgetting) else { return };
        match result {
            Ok(()) => job.settle(file, now, out),
            Err(failure) if job.stream_without_all(file, failure.into(), now, out) => {}
            Err(failure) => self.end(file, failure.into(), out),
        }
    }

    /// Who has waited too long is told so. What is under way is waited for all the same: nothing else may begin before it ends.
    fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        for (file, job) in &mut self.jobs {
            job.part_if_quiet(file, self.quiet, now, out);
            if now < job.moved + self.patience {
                continue;
            }
            // Also who waits for a file that is held or emptied: either may wait for a frozen volume, which waits for the callers.
            job.answer_all(Answer::Late, out);
            if std::mem::take(&mut job.wanted) {
                out.push(Effect::Ended(file.clone(), Answer::Late));
            }
            job.moved = now;
            match job.stage {
                Stage::Filling => job.go_on(Stage::GivingUp, Effect::GiveUp(file.clone()), now, out),
                Stage::Streaming if job.stream.as_ref().is_some_and(|stream| !stream.is_still()) => {
                    out.push(Effect::GiveUp(file.clone()));
                }
                _ => {}
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

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSpace => Self::NoSpace,
            Failure::Quota => Self::Quota,
            Failure::GivenUp => Self::Late,
            Failure::Other => Self::Failed,
        }
    }
}
