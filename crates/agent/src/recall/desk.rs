//! The thread that owns the machine of recall: news goes in, what it asks for goes to those who perform.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender};
use std::time::Instant;

use isotherm_core::stub::{self, Effect, Event, Parted, Question, QuestionId, Recalls, StubRecord};
use isotherm_core::tiering::Treatment;
use isotherm_core::trees::Handle;
use isotherm_gate::guard::{Purpose, Refusal, Sentry, Told, Waiting};

use super::history::{Callers, History};
use super::lanes::{Fetch, Lane, Portion};
use super::perform::{Performer, Task};
use super::{IDLE, Input, LARGE, LOOK_AFTER, Lengths, News};
use crate::catalog::{Happening, What};
use crate::volume::{gate_handle, handle_of};

/// The thread that owns the machine.
pub(super) struct Desk {
    pub(super) machine: Recalls,
    pub(super) post: Arc<dyn Sentry>,
    pub(super) fetches: Arc<Lane>,
    pub(super) large: Arc<Lane>,
    /// For what is read while it comes, so that a player does not wait for films that others copy.
    pub(super) parts: Arc<Lane>,
    pub(super) tasks: Sender<Task>,
    /// For what writes nothing.
    pub(super) looks: Sender<Task>,
    pub(super) forgets: Sender<Task>,
    /// For what is to be durable.
    pub(super) flushes: Sender<Handle>,
    pub(super) performer: Arc<Performer>,
    /// Who waits for the end of which recall.
    pub(super) wanting: BTreeMap<Handle, Vec<Sender<(Handle, bool)>>>,
    /// Files that somebody was told to try again for: he waits, although not at the gate.
    pub(super) asked_again: BTreeSet<Handle>,
    pub(super) callers: Callers,
    pub(super) history: History,
    pub(super) started: Instant,
}

impl Desk {
    pub(super) fn run(mut self, waiting: Vec<Told>, queue: &Receiver<Input>) {
        self.tell(waiting);
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= LOOK_AFTER {
                looked = Instant::now();
                self.tell(self.post.look_after());
                let moving = [&self.fetches, &self.large, &self.parts].into_iter().flat_map(|lane| lane.moving()).collect();
                self.take(Event::Progress(moving));
                self.take(Event::Tick);
                self.callers.keep(|file| self.machine.has(file));
                self.asked_again.retain(|file| self.machine.has(file));
                self.performer.keep_awaited(|file| self.machine.has(file));
            }
            let rest = if self.machine.is_empty() { IDLE } else { LOOK_AFTER };
            match queue.recv_timeout(rest) {
                Ok(Input::Event(event)) => self.take(event),
                Ok(Input::Told(told)) => self.tell(told),
                Ok(Input::Wanted(files)) => {
                    files.iter().for_each(|file| self.callers.wanted(file, What::RecalledToLeave));
                    self.take(Event::Wanted(files));
                }
                Ok(Input::Hold(files, reply)) => {
                    let now = self.now();
                    // Who asked and went away holds nothing.
                    let held: Vec<bool> = files.iter().map(|file| self.machine.hold(file, now)).collect();
                    if let Err(SendError(held)) = reply.send(held) {
                        let held = files.into_iter().zip(held).filter(|(_, is_held)| *is_held);
                        self.let_go(held.map(|(file, _)| (file, false)).collect());
                    }
                }
                Ok(Input::IsBusyWith(file, reply)) => {
                    // Who asked may have gone away.
                    let _ = reply.send(self.machine.has(&file));
                }
                Ok(Input::MayTake(file, reply)) => {
                    // Who asked may have gone away.
                    let _ = reply.send(!self.machine.has(&file));
                    // Whoever wants to take it away waits for whoever reads it while it comes no longer than for all of it.
                    if self.machine.is_streamed(&file) {
                        self.take(Event::Wanted(vec![file]));
                    }
                }
                Ok(Input::BringBack(files, lengths, why, reply)) => {
                    files.iter().for_each(|file| self.wanting.entry(file.clone()).or_default().push(reply.clone()));
                    files.iter().for_each(|file| self.callers.wanted(file, why));
                    self.take(if lengths == Lengths::Mended { Event::MendWanted(files) } else { Event::Wanted(files) });
                }
                Ok(Input::LetGo(files)) => self.let_go(files),
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.performer.give_up_all();
                    [&self.fetches, &self.large, &self.parts].into_iter().for_each(|lane| lane.close());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn tell(&mut self, told: Vec<Told>) {
        let (mut asked, mut left, mut returned, mut wanted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // A gate that is spoken with anew tells of the same callers by the same numbers: they have left before.
        let mut left_before = Vec::new();
        for one in told {
            match one {
                Told::Asked(waiting) => {
                    let file = handle_of(&waiting.file);
                    let treatment = self.performer.source.treatment(&file, &waiting.program);
                    let is_denied = treatment == Treatment::Deny && !waiting.let_through && !self.machine.is_here(&file);
                    if is_denied && self.performer.is_stub(&file) {
                        self.deny(waiting, &file);
                        continue;
                    }
                    self.callers.asked(QuestionId(waiting.id), &file, waiting.program);
                    self.is_awaited(&file, treatment);
                    let (id, purpose) = (QuestionId(waiting.id), purpose(waiting.purpose, treatment));
                    asked.push(Question { id, file, purpose, let_through: waiting.let_through });
                }
                Told::Wanted(file) => {
                    let file = handle_of(&file);
                    self.asked_again.insert(file.clone());
                    self.callers.wanted(&file, What::RecalledOverNfs);
                    self.is_awaited(&file, Treatment::Allow);
                    wanted.push(file);
                }
                Told::Left(id) if asked.iter().any(|question: &Question| question.id == QuestionId(id)) => {
                    left.push(QuestionId(id))
                }
                Told::Left(id) => left_before.push(QuestionId(id)),
                Told::Returned(id) => returned.push(QuestionId(id)),
            }
        }
        let events = [
            (!left_before.is_empty()).then_some(Event::Left(left_before)),
            (!asked.is_empty()).then_some(Event::Asked(asked)),
            (!wanted.is_empty()).then_some(Event::Wanted(wanted)),
            (!left.is_empty()).then_some(Event::Left(left)),
            (!returned.is_empty()).then_some(Event::Returned(returned)),
        ];
        events.into_iter().flatten().for_each(|event| self.take(event));
    }

    /// A program that is to get nothing.
    fn deny(&self, waiting: Waiting, file: &Handle) {
        tracing::info!(?file, program = waiting.program.name, user = waiting.program.user, "A program was denied a tiered file");
        self.post.answer(waiting.id, Some(Refusal::NotAllowed));
        if !self.machine.has(file) {
            self.post.release(&[waiting.file]);
        }
    }

    fn is_awaited(&self, file: &Handle, treatment: Treatment) {
        self.performer.awaits(file, treatment);
        if treatment <= Treatment::Slow {
            return;
        }
        [&self.fetches, &self.large, &self.parts].into_iter().for_each(|lane| lane.promote(file));
    }

    fn let_go(&mut self, files: Vec<(Handle, bool)>) {
        let now = self.now();
        for (file, is_stub) in files {
            let effects = self.machine.let_go(&file, is_stub, now);
            if is_stub && !self.machine.has(&file) {
                // Its record says from now on that callers have to wait; the post need not remember each stub.
                gate_handle(&file).iter().for_each(|file| self.post.release(std::slice::from_ref(file)));
            }
            self.carry_out(effects);
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn take(&mut self, event: Event) {
        self.note(&event);
        // What these leave behind is a stub with its record, or never was one: the post need not remember it. After a flush or a
        // removal that failed it has to.
        let may_end: Vec<Handle> = match &event {
            Event::Looked(files) => files.iter().map(|(file, _)| file.clone()).collect(),
            Event::Filled(files) | Event::Mended(files) => files.iter().map(|(file, _)| file.clone()).collect(),
            Event::Parted(files) => files.iter().map(|(file, _)| file.clone()).collect(),
            Event::Wanted(files) | Event::MendWanted(files) => {
                self.hold(files);
                Vec::new()
            }
            Event::Swept(files) => {
                self.hold(files);
                Vec::new()
            }
            _ => Vec::new(),
        };
        let effects = self.machine.handle(event, self.now());
        self.carry_out(effects);
        for file in may_end.iter().filter(|file| !self.machine.has(file)) {
            gate_handle(file).iter().for_each(|file| self.post.release(std::slice::from_ref(file)));
        }
    }

    /// Remembers for whom contents and parts of them come.
    fn note(&mut self, event: &Event) {
        let callers = &mut self.callers;
        let happened: Vec<Happening> = match event {
            Event::Filled(files) => {
                let filled = files.iter().map(|(file, result)| (file, result.is_ok()));
                filled.filter_map(|(file, is_here)| callers.filled(file, is_here, &self.history)).collect()
            }
            Event::Brought(files) => {
                files.iter().filter(|(_, _, came)| came.is_ok()).for_each(|(file, units, _)| callers.brought(file, units));
                return;
            }
            Event::Parted(files) => {
                let over = files.iter().filter(|(_, parted)| *parted == Parted::Over);
                over.filter_map(|(file, _)| callers.parted(file)).collect()
            }
            _ => return,
        };
        if !happened.is_empty() {
            self.performer.tell(News::Happened(happened));
        }
    }

    /// Has the gate keep callers of files for which nobody waits there: it remembers those who wait, and what it remembered of a file may
    /// just have been let go. A write must not be let through before the removal of the record is durable.
    fn hold(&self, files: &[Handle]) {
        let handles: Vec<_> = files.iter().filter_map(|file| gate_handle(file).ok()).collect();
        if !self.post.hold(&handles) {
            tracing::debug!("Files that are brought back are not held at the gate: it is away");
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer(caller, answer) => {
                    if answer == stub::Answer::Allow {
                        self.callers.let_through(caller);
                    }
                    self.post.answer(caller.0, refusal(answer));
                }
                // The post looks after those whom it let through.
                Effect::Follow(_) => {}
                Effect::Ended(file, answer) => {
                    if let (Some(refusal), Ok(file)) = (refusal(answer), gate_handle(&file)) {
                        self.post.not_come(&file, refusal);
                    }
                    for waiter in self.wanting.remove(&file).unwrap_or_default() {
                        // Who asked may have gone away.
                        let _ = waiter.send((file.clone(), answer == stub::Answer::Allow));
                    }
                }
                Effect::GiveUp(file) => self.performer.give_up(&file),
                Effect::Show(file, trouble) => self.performer.show(&file, &trouble.to_string()),
                Effect::Look(file) => self.perform(Task::Look(file)),
                Effect::Mend(file, record) => self.perform(Task::Mend(file, record)),
                Effect::Fill(file, record, present) => {
                    self.callers.filling(&file, record.node, record.size);
                    self.fetch(file, record, Portion::Rest(present));
                }
                Effect::Bring(file, record, units) => {
                    self.callers.bringing(&file, record.node, record.size);
                    self.fetch(file, record, Portion::Units(units));
                }
                Effect::Mask(file, record, resident) => self.perform(Task::Mask(file, record, resident)),
                Effect::Part(file, record, present) => self.perform(Task::Part(file, record, present)),
                Effect::Flush(file) => {
                    // Those who perform end after this thread.
                    let _ = self.flushes.send(file);
                }
                Effect::Forget(file) => self.perform(Task::Forget(file)),
                Effect::Release(file) => self.perform(Task::Release(file)),
            }
        }
    }

    fn fetch(&mut self, file: Handle, record: StubRecord, what: Portion) {
        let wanted = self.performer.begin(&file);
        let is_slow = self.performer.treatment(&file).is_some_and(|treatment| treatment <= Treatment::Slow);
        let is_awaited = (self.asked_again.remove(&file) || self.machine.is_awaited(&file)) && !is_slow;
        let lane = match &what {
            Portion::Units(_) => &self.parts,
            Portion::Rest(_) if record.size >= LARGE => &self.large,
            Portion::Rest(_) => &self.fetches,
        };
        lane.give(Fetch { file, record, what, wanted, is_awaited });
    }

    fn perform(&self, task: Task) {
        let hands = match &task {
            Task::Look(_) | Task::Release(_) => &self.looks,
            Task::Forget(_) => &self.forgets,
            _ => &self.tasks,
        };
        // Those who perform end after this thread.
        let _ = hands.send(task);
    }
}

fn purpose(purpose: Purpose, treatment: Treatment) -> stub::Purpose {
    match purpose {
        Purpose::OpenToRead if treatment == Treatment::Stream => stub::Purpose::Stream,
        // Whatever program it is by now: it has a descriptor of somebody who was shown the file like that.
        Purpose::ReadRange(offset, len) => stub::Purpose::Range(offset, len),
        Purpose::Read | Purpose::OpenToRead => stub::Purpose::Read,
        Purpose::Empty => stub::Purpose::Empty,
        Purpose::Write | Purpose::Kernel => stub::Purpose::Write,
    }
}

fn refusal(answer: stub::Answer) -> Option<Refusal> {
    match answer {
        stub::Answer::Allow => None,
        stub::Answer::Failed => Some(Refusal::Io),
        stub::Answer::Again => Some(Refusal::Again),
        stub::Answer::Late => Some(Refusal::Busy),
        stub::Answer::NoSpace => Some(Refusal::NoSpace),
        stub::Answer::Quota => Some(Refusal::Quota),
    }
}
