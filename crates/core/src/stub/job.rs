//! A file that somebody waits for, or reads while it comes.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Answer, Effect, Millis, Purpose, QuestionId};
use super::stream::Stream;
use super::units::Units;
use crate::trees::Handle;

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stage {
    /// Somebody else of the agent works on the file.
    Held,
    /// It is being looked at.
    Looking,
    /// Callers that empty it are on their way.
    Emptying,
    /// It gets the length of its content again.
    Mending,
    /// What is not here is being masked, before somebody opens it who reads it while it comes.
    Masking,
    /// It is read while it comes.
    Streaming,
    /// If nobody has it open any more, what is not here loses its mask.
    Parting,
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
pub(super) struct Job {
    pub(super) stage: Stage,
    /// Who waits, and what for.
    pub(super) waiting: BTreeMap<QuestionId, Purpose>,
    /// Who was let through to empty it and has not returned from the call.
    pub(super) on_their_way: BTreeSet<QuestionId>,
    /// What is being looked at may have changed since: the look has to be repeated.
    pub(super) outdated: bool,
    /// It is to be whole whoever waits.
    pub(super) wanted: bool,
    /// Also if its length was changed while it was a stub; tried once.
    pub(super) mend: bool,
    /// Somebody was let through to empty it, and it was not empty afterwards: nobody is again.
    pub(super) not_emptied: bool,
    /// It was tried to mask it, in vain: who opens it waits until it is whole.
    pub(super) unmaskable: bool,
    /// Somebody may have it open who reads it while it comes.
    pub(super) stream: Option<Stream>,
    /// Before that it is not tried to give it up.
    pub(super) rests_until: Millis,
    /// When it last got on.
    pub(super) moved: Millis,
}

impl Job {
    pub(super) fn new(stage: Stage, now: Millis) -> Self {
        Self {
            stage,
            waiting: BTreeMap::new(),
            on_their_way: BTreeSet::new(),
            outdated: false,
            wanted: false,
            mend: false,
            not_emptied: false,
            unmaskable: false,
            stream: None,
            rests_until: now,
            moved: now,
        }
    }

    /// Nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.wanted
    }

    /// Somebody waits who has to wait for all of it.
    pub(super) fn needs_all(&self) -> bool {
        self.wanted || self.waiting.values().any(|purpose| is_for_all(*purpose, self.unmaskable))
    }

    fn has_opener(&self) -> bool {
        self.waiting.values().any(|purpose| *purpose == Purpose::Stream)
    }

    pub(super) fn look(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        self.outdated = false;
        self.go_on(Stage::Looking, Effect::Look(file.clone()), now, out);
    }

    pub(super) fn go_on(&mut self, stage: Stage, effect: Effect, now: Millis, out: &mut Vec<Effect>) {
        self.stage = stage;
        self.moved = now;
        out.push(effect);
    }

    /// All of it is here: programs that may be shown it while it comes go on, since each of their reads is asked about, the others when it
    /// is durable.
    pub(super) fn filled(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        if let Some(stream) = &mut self.stream {
            stream.came(&Units::all(stream.record.size));
        }
        self.let_through(Purpose::is_partial, out);
        self.go_on(Stage::Flushing, Effect::Flush(file.clone()), now, out);
    }

    /// It has no record: readers go on.
    pub(super) fn settle(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        self.stream = None;
        self.let_through(|purpose| purpose.is_partial() || purpose == Purpose::Read, out);
        self.go_on(Stage::Settling, Effect::Flush(file.clone()), now, out);
    }

    /// It is whole: everybody goes on, and until the gate knows nobody else of the agent touches it.
    pub(super) fn release(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        self.answer_all(Answer::Allow, out);
        if std::mem::take(&mut self.wanted) {
            out.push(Effect::Ended(file.clone(), Answer::Allow));
        }
        self.go_on(Stage::Releasing, Effect::Release(file.clone()), now, out);
    }

    /// Who empties the file needs nothing of it. False if nobody does, or it did not help before.
    pub(super) fn let_through_to_empty(&mut self, now: Millis, out: &mut Vec<Effect>) -> bool {
        if self.not_emptied {
            return false;
        }
        let empties = self.take(|purpose| purpose == Purpose::Empty);
        if empties.is_empty() {
            return false;
        }
        self.on_their_way.extend(&empties);
        out.extend(empties.iter().flat_map(|caller| [Effect::Answer(*caller, Answer::Allow), Effect::Follow(*caller)]));
        (self.stage, self.moved) = (Stage::Emptying, now);
        true
    }

    /// Whoever needs nothing but what is here goes on.
    pub(super) fn serve(&mut self, out: &mut Vec<Effect>) {
        let Some(stream) = self.stream.clone().filter(|stream| !stream.doubted) else { return };
        self.let_through(|purpose| stream.has(purpose), out);
    }

    fn let_through(&mut self, is_it: impl Fn(Purpose) -> bool, out: &mut Vec<Effect>) {
        out.extend(self.take(is_it).into_iter().map(|caller| Effect::Answer(caller, Answer::Allow)));
    }

    /// Streaming goes on: what somebody waits for is fetched, all of it if somebody needs that and nothing else is on its way.
    pub(super) fn stream_on(&mut self, file: &Handle, now: Millis, out: &mut Vec<Effect>) {
        self.stage = Stage::Streaming;
        if self.stream.as_ref().is_some_and(|stream| stream.doubted && stream.is_still()) {
            self.look(file, now, out);
            return;
        }
        let (needs_all, has_opener) = (self.needs_all(), self.has_opener());
        let asked: Vec<Purpose> = self.waiting.values().copied().collect();
        self.serve(out);
        let Some(stream) = &mut self.stream else { return };
        if stream.doubted {
            return;
        }
        if needs_all || (has_opener && !stream.masked) {
            if !stream.is_still() {
                return;
            }
            let (file, record) = (file.clone(), stream.record);
            let (stage, effect) = if needs_all {
                (Stage::Filling, Effect::Fill(file, record, stream.present.clone()))
            } else {
                (Stage::Masking, Effect::Mask(file, record, stream.resident.clone()))
            };
            self.go_on(stage, effect, now, out);
            return;
        }
        // Also for those who need nothing but what is here: they will go on.
        let fetched: Units = asked.iter().fold(Units::none(), |all, purpose| all.and(&stream.fetch_for(*purpose)));
        if !fetched.is_empty() {
            stream.begun();
            self.moved = now;
            out.push(Effect::Bring(file.clone(), stream.record, fetched));
        }
    }

    /// Something went wrong: what came and is in no record may not be there, and the file may have been cut. It is looked at when nothing
    /// is on its way, and not given up before `again`.
    pub(super) fn doubt(&mut self, file: &Handle, again: Millis, now: Millis, out: &mut Vec<Effect>) {
        if let Some(stream) = &mut self.stream {
            stream.present = stream.resident.clone();
            stream.doubted = true;
        }
        (self.moved, self.rests_until) = (now, again);
        self.stream_on(file, now, out);
    }

    /// If nobody asked anything for so long, maybe nobody has it open any more.
    pub(super) fn part_if_quiet(&mut self, file: &Handle, quiet: Millis, now: Millis, out: &mut Vec<Effect>) {
        let Some(stream) = self.stream.as_ref().filter(|_| self.stage == Stage::Streaming && self.is_idle()) else { return };
        if stream.is_still() && now >= (stream.used + quiet).max(self.rests_until) {
            let effect = Effect::Part(file.clone(), stream.record, stream.present.clone());
            self.go_on(Stage::Parting, effect, now, out);
        }
    }

    /// Those who wait for this; they do not wait any more.
    pub(super) fn take(&mut self, is_it: impl Fn(Purpose) -> bool) -> Vec<QuestionId> {
        let of_it = self.waiting.iter().filter(|(_, purpose)| is_it(**purpose)).map(|(caller, _)| *caller);
        let taken: Vec<QuestionId> = of_it.collect();
        taken.iter().for_each(|caller| {
            self.waiting.remove(caller);
        });
        taken
    }

    pub(super) fn answer_all(&mut self, answer: Answer, out: &mut Vec<Effect>) {
        out.extend(std::mem::take(&mut self.waiting).into_keys().map(|caller| Effect::Answer(caller, answer)));
    }

    /// All of it will not come now: who needs all is told, and streaming goes on for the others. False where there is none.
    pub(super) fn stream_without_all(&mut self, file: &Handle, answer: Answer, now: Millis, out: &mut Vec<Effect>) -> bool {
        if self.stream.is_none() {
            return false;
        }
        let unmaskable = self.unmaskable;
        let whole = self.take(|purpose| is_for_all(purpose, unmaskable));
        out.extend(whole.into_iter().map(|caller| Effect::Answer(caller, answer)));
        if std::mem::take(&mut self.wanted) {
            out.push(Effect::Ended(file.clone(), answer));
        }
        self.doubt(file, now, now, out);
        true
    }
}

/// Whether somebody has to wait until the file is whole.
fn is_for_all(purpose: Purpose, unmaskable: bool) -> bool {
    !purpose.is_partial() || (purpose == Purpose::Stream && unmaskable)
}
