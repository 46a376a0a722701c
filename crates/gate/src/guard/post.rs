//! Who waits, for which file: what the gate remembers over runs of the agent.
//!
//! Files that are no stubs it lets through by itself; all others are told to the agent, which decides. A new run of the agent is
//! told everything again. **Invariants:** a question leaves here by one answer; while the agent has a file in hand nobody is let
//! through to it because its record is gone, since that may not be durable yet.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::caller::{Call, Purpose, is_alive, purpose};
use super::group::{Group, GuardError, Question, Refusal};
use crate::FileHandle;
use crate::volume::has_record;

/// A caller that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number, never given twice.
    pub id: u64,
    /// The file.
    pub file: FileHandle,
    /// What it is about to do.
    pub purpose: Purpose,
    /// It was let through to empty the file and may not have done so yet.
    pub let_through: bool,
    /// Thread that waits.
    pub thread: i32,
}

/// What the agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Somebody waits.
    Asked(Waiting),
    /// Somebody was told to try again, and will: the file is wanted.
    Wanted(FileHandle),
    /// Somebody does not wait any more.
    Left(u64),
    /// Somebody who was let through has returned from the call.
    Returned(u64),
}

/// The post before one file system.
#[derive(Debug)]
pub struct Post {
    group: Group,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: BTreeMap<u64, (Waiting, Question, Instant)>,
    /// Let through to empty their file.
    on_their_way: BTreeMap<u64, (Waiting, Call)>,
    /// Files that the agent was told of and has not released.
    in_hand: BTreeSet<FileHandle>,
}

impl Post {
    /// A post for a group.
    #[must_use]
    pub fn new(group: Group) -> Self {
        Self { group, state: Mutex::default() }
    }

    /// The group: its marks, and a descriptor that tells when there is something to read.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Waits until the kernel asks something; false if it did not for so long.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        let mut asks = [PollFd::new(&self.group, PollFlags::IN)];
        poll(&mut asks, patience.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Reads what the kernel asks, and lets through whom nothing keeps; gives what the agent has to know.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn read(&self) -> Result<Vec<Told>, GuardError> {
        Ok(self.group.read()?.into_iter().flat_map(|question| self.take(question)).collect())
    }

    fn take(&self, question: Question) -> Vec<Told> {
        // What cannot be told apart is a stub: the agent looks closer.
        let is_stub = has_record(question.file()).unwrap_or(true);
        let Ok(file) = FileHandle::of(question.file()) else {
            if !is_stub {
                question.allow();
            }
            return Vec::new();
        };
        let mut state = self.state();
        if !is_stub && !state.in_hand.contains(&file) {
            question.allow();
            return Vec::new();
        }
        let purpose = purpose(question.thread);
        state.in_hand.insert(file.clone());
        if purpose == Purpose::Kernel {
            question.refuse(Refusal::Again);
            return vec![Told::Wanted(file)];
        }
        let mut told = state.returned_as_it_asks(question.thread, &file);
        state.last += 1;
        let waiting = Waiting { id: state.last, file, purpose, let_through: false, thread: question.thread };
        state.waiting.insert(waiting.id, (waiting.clone(), question, Instant::now()));
        told.push(Told::Asked(waiting));
        told
    }

    /// Answers a caller; nothing happens if it does not wait any more.
    pub fn answer(&self, id: u64, refusal: Option<Refusal>) {
        let mut state = self.state();
        let Some((waiting, question, _)) = state.waiting.remove(&id) else { return };
        match refusal {
            Some(refusal) => question.refuse(refusal),
            None => {
                if waiting.purpose == Purpose::Empty {
                    let call = Call::of(waiting.thread);
                    state.on_their_way.insert(id, (Waiting { let_through: true, ..waiting }, call));
                }
                question.allow();
            }
        }
    }

    /// The agent takes a file in hand: whoever is asked about waits, record or not.
    pub fn hold(&self, file: &FileHandle) {
        self.state().in_hand.insert(file.clone());
    }

    /// The agent has done with a file.
    pub fn release(&self, file: &FileHandle) {
        self.state().in_hand.remove(file);
    }

    /// Everything that a new run of the agent has to know. What the one before had in hand and nobody waits for is in hand no
    /// more: a starting agent makes durable first what was done to it.
    #[must_use]
    pub fn begin_again(&self) -> Vec<Told> {
        let mut state = self.state();
        let waiting = state.waiting.values().map(|(waiting, ..)| waiting);
        let all: Vec<Waiting> = waiting.chain(state.on_their_way.values().map(|(waiting, _)| waiting)).cloned().collect();
        state.in_hand = all.iter().map(|waiting| waiting.file.clone()).collect();
        all.into_iter().map(Told::Asked).collect()
    }

    /// Who was killed while he waited, and who has returned from the call that he was let through in.
    #[must_use]
    pub fn look_after(&self) -> Vec<Told> {
        let mut state = self.state();
        let gone = state.waiting.values().filter(|(waiting, ..)| !is_alive(waiting.thread)).map(|(waiting, ..)| waiting.id);
        let gone: Vec<u64> = gone.collect();
        gone.iter().for_each(|id| {
            state.waiting.remove(id);
        });
        let returned = state.on_their_way.iter().filter(|(_, (_, call))| call.has_ended()).map(|(id, _)| *id);
        let returned: Vec<u64> = returned.collect();
        returned.iter().for_each(|id| {
            state.on_their_way.remove(id);
        });
        gone.into_iter().map(Told::Left).chain(returned.into_iter().map(Told::Returned)).collect()
    }

    /// Refuses those who have waited for longer than this: for when there is no agent.
    #[must_use]
    pub fn refuse_after(&self, patience: Duration) -> usize {
        let mut state = self.state();
        let late = state.waiting.iter().filter(|(_, (.., since))| since.elapsed() >= patience).map(|(id, _)| *id);
        let late: Vec<u64> = late.collect();
        let questions = late.iter().filter_map(|id| state.waiting.remove(id));
        questions.for_each(|(_, question, _)| question.refuse(Refusal::Busy));
        late.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A thread that asks about a file once more has returned from the call in which it was let through to that file. Its new
    /// call may look exactly like the one before.
    fn returned_as_it_asks(&mut self, thread: i32, file: &FileHandle) -> Vec<Told> {
        let same = |(waiting, _): &(Waiting, Call)| thread > 0 && waiting.thread == thread && waiting.file == *file;
        let returned: Vec<u64> = self.on_their_way.iter().filter(|(_, one)| same(one)).map(|(id, _)| *id).collect();
        returned.iter().for_each(|id| {
            self.on_their_way.remove(id);
        });
        returned.into_iter().map(Told::Returned).collect()
    }
}

impl AsFd for Post {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.group.as_fd()
    }
}
