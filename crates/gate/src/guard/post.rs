//! Who waits, for which file: what the gate remembers over runs of the agent.
//!
//! Files that are no stubs it lets through by itself; all others are told to the agent, which decides. A new run of the agent is
//! told everything again. **Invariants:** a question leaves here by one answer; while the agent has a file in hand nobody is let
//! through to it because its record is gone, since that may not be durable yet.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::caller::{Purpose, is_alive, program, purpose};
use super::group::{Group, GuardError, GuardUnavailable, Question, Refusal};
use super::told::{Follow, Sentry, Told, Waiting};
use super::worker::AgentProcess;
use crate::FileHandle;
use crate::stat::mount_number;
use crate::volume::has_record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Callers in a millisecond that get numbers of their own, as a power of two.
const NUMBERS_IN_A_MILLISECOND: u32 = 20;

/// Clients of NFS try again after fifteen seconds at most.
const TRIES_AGAIN_WITHIN: Duration = Duration::from_secs(20);

/// How often the patience with one agent is granted to those that follow it.
const PATIENCES_MAX: u32 = 5;

/// The post before one file system.
#[derive(Debug)]
pub struct Post {
    group: Group,
    /// The whole file system is asked about: of files that are let through the kernel need not ask again.
    spares: AtomicBool,
    /// The kernel's number of the mount at which users see the volume; 0 where it is not known.
    attached: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: BTreeMap<u64, (Waiting, Question, Instant)>,
    /// Let through to empty their file.
    on_their_way: BTreeMap<u64, (Waiting, Follow)>,
    /// Files that the agent was told of and has not released.
    in_hand: BTreeSet<FileHandle>,
    /// Files whose content did not come, why, and when that was: for the next who cannot be kept waiting.
    not_come: BTreeMap<FileHandle, (Refusal, Instant)>,
    /// There is an agent of which it is not known yet what it has in hand.
    expecting: bool,
    /// The agent's process.
    agent: Option<AgentProcess>,
}

impl Post {
    /// A post for a group that asks about single files.
    #[must_use]
    pub fn new(group: Group) -> Self {
        // An agent may outlive the gate: no number of an earlier one is given again.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let last = u64::try_from(since.as_millis()).unwrap_or_default() << NUMBERS_IN_A_MILLISECOND;
        Self {
            group,
            spares: AtomicBool::new(false),
            attached: AtomicU64::new(0),
            state: Mutex::new(State { last, ..State::default() }),
        }
    }

    /// A post for a group that asks about a whole file system.
    #[must_use]
    pub fn of_file_system(group: Group) -> Self {
        Self { spares: AtomicBool::new(true), ..Self::new(group) }
    }

    /// From now on the kernel asks about single files.
    pub fn asks_about_single_files(&self) {
        self.spares.store(false, Ordering::Relaxed);
    }

    /// Users see the volume at this mount, if it is known: who opens a file through it may be shown the file while it comes.
    pub fn is_attached_at(&self, mount: Option<u64>) {
        self.attached.store(mount.unwrap_or(0), Ordering::Relaxed);
    }

    fn is_through_attached(&self, question: &Question) -> bool {
        let attached = self.attached.load(Ordering::Relaxed);
        attached != 0 && mount_number(question.file()) == Some(attached)
    }

    /// There is an agent already, which has files in hand: until [`Self::begin_with`] everybody waits, record or not.
    pub fn expect_agent(&self) {
        self.state().expecting = true;
    }

    /// This is the agent's process: what it does on its own is not asked about.
    pub fn is_attended_by(&self, process: Option<AgentProcess>) {
        self.state().agent = process;
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
        Ok(self.take_all(self.ask()?))
    }

    /// What the kernel asks. It may wait for whoever has a lease on a file that it is about.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn ask(&self) -> Result<Vec<Question>, GuardError> {
        self.group.read()
    }

    /// Lets through whom nothing keeps; gives what the agent has to know.
    pub fn take_all(&self, questions: Vec<Question>) -> Vec<Told> {
        questions.into_iter().flat_map(|question| self.take(question)).collect()
    }

    fn take(&self, question: Question) -> Vec<Told> {
        if self.state().agent.as_ref().is_some_and(|agent| agent.has(question.thread)) {
            question.allow();
            return Vec::new();
        }
        // What cannot be told apart is a stub: the agent looks closer.
        let mut is_stub = has_record(question.file()).unwrap_or(true);
        let Ok(file) = FileHandle::of(question.file()) else {
            if !is_stub {
                question.allow();
            }
            return Vec::new();
        };
        let mut state = self.state();
        let mut question = question;
        if !is_stub && !state.expecting && !state.in_hand.contains(&file) {
            match self.let_through(question) {
                None => return Vec::new(),
                Some(asked) => (question, is_stub) = (asked, true),
            }
        }
        let purpose = purpose(question.thread, question.touch, || self.is_through_attached(&question));
        if let Some(why) = (is_stub && purpose == Purpose::Kernel).then(|| state.has_not_come(&file)).flatten() {
            question.refuse(why);
            return Vec::new();
        }
        if is_stub {
            state.in_hand.insert(file.clone());
        }
        if purpose == Purpose::Kernel {
            question.refuse(Refusal::Again);
            return vec![Told::Wanted(file)];
        }
        let mut told = state.returned_as_it_asks(question.thread, &file);
        state.last += 1;
        let (thread, program) = (question.thread, program(question.thread));
        let waiting = Waiting { id: state.last, file, purpose, let_through: false, thread, program };
        state.waiting.insert(waiting.id, (waiting.clone(), question, Instant::now()));
        told.push(Told::Asked(waiting));
        if state.expecting { Vec::new() } else { told }
    }

    /// It was whole, and nobody works on it. Gives the question back if it is a stub by now: since the record was looked for the
    /// agent may have held the file, made a stub of it, and let it go.
    fn let_through(&self, question: Question) -> Option<Question> {
        // While the state is locked: nobody takes it in hand between the two. Where it fails the kernel asks again.
        let is_spared = self.spares.load(Ordering::Relaxed) && self.group.spare_file(question.file()).is_ok();
        if has_record(question.file()).unwrap_or(true) {
            let _ = is_spared && self.group.unspare_file(question.file()).is_ok();
            return Some(question);
        }
        question.allow();
        None
    }

    /// Answers a caller; nothing happens if it does not wait any more.
    pub fn answer(&self, id: u64, refusal: Option<Refusal>) {
        let mut state = self.state();
        let Some((waiting, question, _)) = state.waiting.remove(&id) else { return };
        match refusal {
            Some(refusal) => question.refuse(refusal),
            None => {
                if waiting.purpose == Purpose::Empty {
                    let follow = Follow::of(&waiting);
                    state.on_their_way.insert(id, (Waiting { let_through: true, ..waiting }, follow));
                }
                question.allow();
            }
        }
    }

    /// The agent takes a file in hand: whoever is asked about waits, record or not.
    pub fn hold(&self, file: &FileHandle) {
        self.state().in_hand.insert(file.clone());
    }

    /// The agent has done with a file. Not if somebody waits for it by now: of him the agent was told after it had said so.
    pub fn release(&self, file: &FileHandle) {
        let mut state = self.state();
        let waits = |(waiting, ..): &(Waiting, Question, Instant)| waiting.file == *file;
        if !state.waiting.values().any(waits) {
            state.in_hand.remove(file);
        }
    }

    /// The content of a file did not come. Threads of kernel NFS are never kept: they are told to try again, and this is the
    /// answer to one who does. Late is no answer that NFS has a word for.
    pub fn not_come(&self, file: &FileHandle, why: Refusal) {
        let why = if matches!(why, Refusal::NoSpace | Refusal::Quota) { why } else { Refusal::Io };
        let mut state = self.state();
        state.not_come.retain(|_, (_, since)| since.elapsed() < TRIES_AGAIN_WITHIN);
        state.not_come.insert(file.clone(), (why, Instant::now()));
    }

    /// A run of the agent begins, or goes on with another gate: these it has in hand. Gives everything that it has to know. What
    /// an earlier run had in hand and nobody waits for is in hand no more: a starting agent makes durable first what was
    /// done to it.
    #[must_use]
    pub fn begin_with(&self, in_hand: BTreeSet<FileHandle>) -> Vec<Told> {
        let mut state = self.state();
        state.expecting = false;
        state.in_hand = in_hand;
        self.let_whole_through(&mut state);
        // First those whom an agent must know of before it begins anything for the others: what is told may be told in parts.
        let let_through = state.on_their_way.values().map(|(waiting, _)| waiting);
        let all: Vec<Waiting> = let_through.chain(state.waiting.values().map(|(waiting, ..)| waiting)).cloned().collect();
        state.in_hand.extend(all.iter().map(|waiting| waiting.file.clone()));
        all.into_iter().map(Told::Asked).collect()
    }

    /// There is no agent any more, and everything that it did is durable: whole files are files like others.
    pub fn agent_left(&self) {
        let mut state = self.state();
        state.expecting = false;
        state.in_hand.clear();
        self.let_whole_through(&mut state);
        let State { waiting, in_hand, .. } = &mut *state;
        in_hand.extend(waiting.values().map(|(waiting, ..)| waiting.file.clone()));
    }

    /// Lets through who waits for a file that has no record and that nobody has in hand.
    fn let_whole_through(&self, state: &mut State) {
        let is_whole = |waiting: &Waiting, question: &Question| {
            !state.in_hand.contains(&waiting.file) && !has_record(question.file()).unwrap_or(true)
        };
        let whole = state.waiting.iter().filter(|(_, (waiting, question, _))| is_whole(waiting, question));
        let whole: Vec<u64> = whole.map(|(id, _)| *id).collect();
        for id in whole {
            if let Some((waiting, question, since)) = state.waiting.remove(&id)
                && let Some(question) = self.let_through(question)
            {
                state.waiting.insert(id, (waiting, question, since));
            }
        }
    }

    /// Whether anybody has to be looked after.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let state = self.state();
        !state.waiting.is_empty() || !state.on_their_way.is_empty() || state.expecting
    }

    /// Whether it still waits for the agent that there was.
    #[must_use]
    pub fn is_expecting(&self) -> bool {
        self.state().expecting
    }

    /// How many callers wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
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
        let returned = state.on_their_way.iter().filter(|(_, (_, follow))| follow.has_returned()).map(|(id, _)| *id);
        let returned: Vec<u64> = returned.collect();
        returned.iter().for_each(|id| {
            state.on_their_way.remove(id);
        });
        gone.into_iter().map(Told::Left).chain(returned.into_iter().map(Told::Returned)).collect()
    }

    /// Refuses those who have waited for longer than this while nobody answered, which is so since then.
    #[must_use]
    pub fn refuse_after(&self, patience: Duration, alone_since: Instant) -> usize {
        // Agents that come and go, and answer nobody, are waited for too, but not for ever.
        let is_late =
            |since: Instant| since.max(alone_since).elapsed() >= patience || since.elapsed() >= patience * PATIENCES_MAX;
        let mut state = self.state();
        let late = state.waiting.iter().filter(|(_, (.., since))| is_late(*since)).map(|(id, _)| *id);
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
    /// Why the content of a file did not come. Told once: the next one begins anew.
    fn has_not_come(&mut self, file: &FileHandle) -> Option<Refusal> {
        let (why, since) = self.not_come.remove(file)?;
        (since.elapsed() < TRIES_AGAIN_WITHIN).then_some(why)
    }

    /// A thread that asks about a file once more has returned from the call in which it was let through to that file. Its new
    /// call may look exactly like the one before.
    fn returned_as_it_asks(&mut self, thread: i32, file: &FileHandle) -> Vec<Told> {
        let same = |(_, follow): &(Waiting, Follow)| thread > 0 && follow.is_of(thread, file);
        let returned: Vec<u64> = self.on_their_way.iter().filter(|(_, one)| same(one)).map(|(id, _)| *id).collect();
        returned.iter().for_each(|id| {
            self.on_their_way.remove(id);
        });
        returned.into_iter().map(Told::Returned).collect()
    }
}

impl Sentry for Post {
    fn group(&self) -> Group {
        self.group.clone()
    }

    fn begin(&self) -> Result<Vec<Told>, GuardError> {
        Ok(self.begin_with(BTreeSet::new()))
    }

    fn next(&self, patience: Duration) -> Result<Vec<Told>, GuardError> {
        if self.wait(patience) { self.read() } else { Ok(Vec::new()) }
    }

    fn answer(&self, id: u64, refusal: Option<Refusal>) {
        Self::answer(self, id, refusal);
    }

    fn hold(&self, files: &[FileHandle]) -> bool {
        files.iter().for_each(|file| Self::hold(self, file));
        true
    }

    fn release(&self, files: &[FileHandle]) {
        files.iter().for_each(|file| Self::release(self, file));
    }

    fn not_come(&self, file: &FileHandle, why: Refusal) {
        Self::not_come(self, file, why);
    }

    fn guard(&self, file: BorrowedFd<'_>) -> Result<(), GuardUnavailable> {
        if self.spares.load(Ordering::Relaxed) { self.group.unspare_file(file) } else { self.group.guard_file(file) }
    }

    fn look_after(&self) -> Vec<Told> {
        Self::look_after(self)
    }
}

impl AsFd for Post {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_kept_waiting_is_told_once_what_became_of_the_content() {
        let mut state = State::default();
        let file = FileHandle::from_bytes(&[1; 12]).unwrap();
        state.not_come.insert(file.clone(), (Refusal::NoSpace, Instant::now()));
        assert_eq!((state.has_not_come(&file), state.has_not_come(&file)), (Some(Refusal::NoSpace), None));
    }
}
