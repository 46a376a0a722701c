//! Recall at work: what the post tells goes to the machine in `core`, and what the machine asks for is performed.
//!
//! One thread owns the machine; others perform, so that one slow fetch holds up nobody else. **Invariant:** whatever fails, a
//! caller gets an answer: the content, or an errno.

mod ahead;
mod desk;
mod fill;
mod from_share;
mod history;
mod lanes;
mod manifests;
mod perform;
mod remains;
mod room;
mod seals;
mod source;
mod stream;
mod tier;

pub use ahead::Ahead;
pub use from_share::{Find, FromShare};
pub use history::Recalled;
pub use room::{Cold, Room};
pub use source::{FetchFailure, Source, Take};
pub use tier::{Candidate, NotTiered};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm_core::stub::{Event, Recalls};
use isotherm_core::trees::Handle;
use isotherm_gate::guard::{GuardError, Sentry, Told};
use isotherm_gate::{FileHandle, Root};

pub use crate::catalog::{Happening, What};
use crate::volume::{gate_handle, handle_of};
use desk::Desk;
use history::{Callers, History};
use lanes::Lane;
use perform::{Performer, Task};

/// How long a caller waits while nothing gets on (DESIGN 7.4).
const PATIENCE: Duration = Duration::from_secs(60);
/// Threads that fetch: as many small files are recalled at once.
const FETCHING: usize = 8;
/// Threads that fetch large files, so that whoever opens a small one does not wait for a film.
const FETCHING_LARGE: usize = 4;
/// Threads that fetch parts of files that are read while they come.
const FETCHING_PARTS: usize = 4;
/// A file from this size on is large, in bytes.
const LARGE: u64 = 64 << 20;
/// Threads for everything else, so that it does not wait for contents that do not come. They wait for the disk, and file systems make what
/// several of them flush durable together.
const OTHERS: usize = 16;
/// Threads that make files durable, all together that wait for it: one does while the next ones gather.
const FLUSHING: usize = 2;
/// Threads that look at what is asked about, and have the gate ask no more. They write nothing: while a volume is about to be frozen every writer waits, and the
/// freeze for somebody who waits for an answer.
const LOOKING: usize = 2;
/// Threads that take records away.
const FORGETTING: usize = 4;
/// Files that these do at a time, so that not each of many is a message of its own.
const TOGETHER: usize = 16;
/// Between two looks at who was killed or has returned.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// Between two looks at the clock where nobody waits.
const IDLE: Duration = Duration::from_secs(1);
/// Between two looks at whether to end, for the thread that reads questions.
const READ: Duration = Duration::from_millis(100);

/// Something that an administrator has to know of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecallProblem {
    /// The file.
    pub file: Handle,
    /// What is wrong.
    pub text: String,
}

/// Why recall does not begin.
#[derive(Debug, thiserror::Error)]
pub enum RecallFailure {
    /// The volume fails.
    #[error(transparent)]
    Volume(#[from] isotherm_gate::GateError),
    /// The gate does.
    #[error(transparent)]
    Gate(#[from] GuardError),
}

/// What recall has to say of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// Their content has come, or was found to be here.
    Came(Vec<Handle>),
    /// Their content has gone.
    Went(Vec<Handle>),
    /// Its content was brought back; whether a program waited for it.
    Used(Handle, bool),
    /// Its content cannot be had, and why.
    Failed(Handle, String),
    /// Contents came or went; for those who are to be told later what happened to a file.
    Happened(Vec<Happening>),
}

/// Is told the news.
pub type Tell = Box<dyn Fn(News) + Send + Sync>;

/// A running recall of one guarded volume.
#[derive(Debug)]
pub struct Recall {
    inputs: Sender<Input>,
    threads: Vec<JoinHandle<()>>,
    problems: Arc<Mutex<Vec<RecallProblem>>>,
    performer: Arc<Performer>,
    history: History,
    ends: Arc<AtomicBool>,
}

/// What becomes of files whose length was changed while they were stubs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lengths {
    /// They stay as they are.
    Kept,
    /// Their content comes back, and what has changed them is undone.
    Mended,
}

#[derive(Debug)]
enum Input {
    Event(Event),
    Told(Vec<Told>),
    /// These have left their endpoint and are to be whole.
    Wanted(Vec<Handle>),
    /// Whether somebody waits for this one.
    IsBusyWith(Handle, Sender<bool>),
    /// The same, by somebody who wants to take it away.
    MayTake(Handle, Sender<bool>),
    /// These are wanted, and whoever wants them is told of each.
    BringBack(Vec<Handle>, Lengths, What, Sender<(Handle, bool)>),
    /// Which of these may be worked on: the others are in hand already.
    Hold(Vec<Handle>, Sender<Vec<bool>>),
    /// Work on these has ended; whether each is known to be a stub.
    LetGo(Vec<(Handle, bool)>),
    Stop,
}

impl Recall {
    /// Begins to answer for the files of `root`. What an earlier run did is made durable first, and the post tells who waits.
    ///
    /// # Errors
    /// The volume cannot be made durable, or the gate does not answer.
    pub fn start(
        root: Arc<Root>,
        post: Arc<dyn Sentry>,
        source: Arc<dyn Source>,
        room: Option<Arc<dyn Room>>,
        tell: Tell,
    ) -> Result<Self, RecallFailure> {
        root.sync()?;
        let (inputs, queue) = channel();
        let performer = performer(root, &post, source, room, tell, &inputs);
        let (problems, ends) = (Arc::clone(&performer.problems), Arc::clone(&performer.ends));
        let mut threads = Vec::new();
        let mut hands = |count: usize, together: usize| {
            let (tasks, queue) = channel::<Task>();
            let queue = Arc::new(Mutex::new(queue));
            threads.extend((0..count).map(|_| {
                let (performer, queue, done) = (Arc::clone(&performer), Arc::clone(&queue), inputs.clone());
                std::thread::spawn(move || perform::run(&performer, (&queue, together), &done_with(done)))
            }));
            tasks
        };
        let (tasks, looks, forgets) = (hands(OTHERS, 1), hands(LOOKING, TOGETHER), hands(FORGETTING, TOGETHER));
        let (flushes, flushing) = flushing(&performer, &tasks, &inputs);
        threads.extend(flushing);
        let [fetches, large, parts] = [FETCHING, FETCHING_LARGE, FETCHING_PARTS].map(|hands| {
            let limited = Arc::clone(&performer.source);
            let lane = Arc::new(Lane::new(hands, Box::new(move || limited.is_limited())));
            threads.extend((0..lane.threads()).map(|_| fetching(&performer, &lane, &inputs)));
            lane
        });
        // Before anything new is read: nobody may be told of twice.
        let waiting = post.begin()?;
        let (reader, asks, until) = (Arc::clone(&post), inputs.clone(), Arc::clone(&ends));
        threads.push(std::thread::spawn(move || read(&*reader, &asks, &until)));
        let history = History::default();
        let machine = Recalls::new(PATIENCE.as_millis() as u64);
        let (performing, wanting) = (Arc::clone(&performer), BTreeMap::new());
        let desk = Desk {
            machine,
            post,
            fetches,
            large,
            parts,
            tasks,
            looks,
            forgets,
            flushes,
            performer: performing,
            wanting,
            asked_again: BTreeSet::new(),
            callers: Callers::default(),
            history: history.clone(),
            started: Instant::now(),
        };
        threads.push(std::thread::spawn(move || desk.run(waiting, &queue)));
        Ok(Self { inputs, threads, problems, performer, history, ends })
    }

    /// Answers nobody any more: whoever waits is for the next run. What is under way ends without an answer. The gate goes on being
    /// heard until this is dropped: others may still have files held there, and it would take the agent for dead.
    pub fn stop(&self) {
        // It ends only with this.
        let _ = self.inputs.send(Input::Stop);
    }

    /// Wants files whole that nobody waits for.
    pub fn want(&self, files: Vec<Handle>) {
        // It ends only with this.
        let _ = self.inputs.send(Input::Wanted(files));
    }

    /// Those of these files whose record names what is here may hold more, of an earlier run or of a time when there was room: it is given
    /// up where nobody has them open.
    pub fn sweep_partial(&self, files: &[FileHandle]) {
        let partial: Vec<Handle> = files.iter().filter(|file| self.performer.is_partial(file)).map(handle_of).collect();
        if !partial.is_empty() {
            // It ends only with this.
            let _ = self.inputs.send(Input::Event(Event::Swept(partial)));
        }
    }

    /// Has what is here of a partially tiered file go, when nobody has it open; nothing where it is none.
    pub fn give_up_part(&self, file: &Handle) {
        if gate_handle(file).is_ok_and(|handle| self.performer.is_partial(&handle)) {
            self.performer.keeps_nothing_of(file);
            let _ = self.inputs.send(Input::Event(Event::Swept(vec![file.clone()])));
        }
    }

    /// The same for all files of which a part was left; whether there were any.
    pub fn sweep_streamed(&self) -> bool {
        let files = self.performer.parted();
        let are_any = !files.is_empty();
        if are_any {
            let _ = self.inputs.send(Input::Event(Event::Swept(files)));
        }
        are_any
    }

    /// Brings contents back, for a reason that is noted, and waits until each is there or will not come, or `go_on` says no; whether
    /// each is whole, in order.
    #[must_use]
    pub fn bring_back(&self, files: Vec<Handle>, lengths: Lengths, why: What, go_on: &dyn Fn() -> bool) -> Vec<bool> {
        let (reply, answers) = channel();
        // It ends only with this.
        let _ = self.inputs.send(Input::BringBack(files.clone(), lengths, why, reply));
        let mut ended: BTreeMap<Handle, bool> = BTreeMap::new();
        while ended.len() < files.len() && go_on() {
            match answers.recv_timeout(READ) {
                Ok((file, is_whole)) => {
                    ended.insert(file, is_whole);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        files.iter().map(|file| ended.get(file).copied().unwrap_or(false)).collect()
    }

    /// Whether somebody waits for a file, or it is being worked on.
    #[must_use]
    pub fn is_busy_with(&self, file: &Handle) -> bool {
        let (reply, answer) = channel();
        // It ends only with this.
        let _ = self.inputs.send(Input::IsBusyWith(file.clone(), reply));
        answer.recv().unwrap_or(false)
    }

    /// Whether somebody else may take a file away now. One that is read while it comes is to be whole first.
    #[must_use]
    pub fn may_take(&self, file: &Handle) -> bool {
        let (reply, answer) = channel();
        // It ends only with this.
        let _ = self.inputs.send(Input::MayTake(file.clone(), reply));
        answer.recv().unwrap_or(true)
    }

    /// Makes stubs of files whose content is safe in the share; one answer for each, in order. Waits until it is done.
    #[must_use]
    pub fn tier(&self, candidates: &[Candidate]) -> Vec<Result<(), NotTiered>> {
        hand_over(&self.inputs, candidates, |mine| self.performer.tier(mine))
    }

    /// Does something with files that are open for a moment: none goes meanwhile, and none is left because it is open for that.
    pub fn while_nothing_goes<T>(&self, work: impl FnOnce() -> T) -> T {
        let _going = self.performer.while_nothing_goes();
        work()
    }

    /// The last recall of a file in this run, if it is remembered.
    #[must_use]
    pub fn last_of(&self, file: &Handle) -> Option<Recalled> {
        self.history.last(file)
    }

    /// What went wrong so far.
    #[must_use]
    pub fn problems(&self) -> Vec<RecallProblem> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recall {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("A thread of recall ended with a panic");
            }
        }
    }
}

/// Takes files out of the machine's hand, works on those that it gives, and gives them back; one answer for each, in order.
fn hand_over(
    inputs: &Sender<Input>,
    candidates: &[Candidate],
    work: impl FnOnce(&[Candidate]) -> Vec<Result<(), NotTiered>>,
) -> Vec<Result<(), NotTiered>> {
    let (reply, answer) = channel();
    let files = candidates.iter().map(|candidate| candidate.file.clone()).collect();
    // It ends only with the recall.
    let _ = inputs.send(Input::Hold(files, reply));
    let held = answer.recv().unwrap_or_default();
    let (mine, others): (Vec<_>, Vec<_>) =
        candidates.iter().enumerate().partition(|(at, _)| held.get(*at).copied().unwrap_or(false));
    let own: Vec<Candidate> = mine.iter().map(|(_, candidate)| (*candidate).clone()).collect();
    let done = work(&own);
    let ended = own.iter().zip(&done).map(|(candidate, result)| (candidate.file.clone(), result.is_ok())).collect();
    let _ = inputs.send(Input::LetGo(ended));
    let mut results: Vec<(usize, Result<(), NotTiered>)> = others.iter().map(|(at, _)| (*at, Err(NotTiered::Held))).collect();
    results.extend(mine.iter().map(|(at, _)| *at).zip(done));
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Reads what the kernel asks until it is time to end. What is asked then waits for the next run.
fn read(post: &dyn Sentry, inputs: &Sender<Input>, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        match post.next(READ) {
            Ok(told) if told.is_empty() => {}
            Ok(told) => {
                if inputs.send(Input::Told(told)).is_err() {
                    // It is over, or the desk broke down. Without a sign of life the gate refuses after a while whoever waits.
                    tracing::warn!("Nobody is left who decides about tiered files: whoever waits is for the next run");
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "Recall cannot read who waits");
                std::thread::sleep(READ);
            }
        }
    }
}

/// What all hands share, of a run that has just begun.
fn performer(
    root: Arc<Root>,
    post: &Arc<dyn Sentry>,
    source: Arc<dyn Source>,
    room: Option<Arc<dyn Room>>,
    tell: Tell,
    inputs: &Sender<Input>,
) -> Arc<Performer> {
    Arc::new(Performer {
        root,
        room,
        turn: room::Turn::default(),
        inputs: inputs.clone(),
        ends: Arc::default(),
        post: Arc::clone(post),
        source,
        problems: Arc::default(),
        tell,
        wanted: Mutex::default(),
        streamed: Mutex::default(),
        parted: Mutex::default(),
        unkept: Mutex::default(),
        pool: OnceLock::new(),
        going: Mutex::default(),
        awaited: Mutex::default(),
    })
}

/// Those who make files durable, and where to tell them which.
fn flushing(performer: &Arc<Performer>, alone: &Sender<Task>, inputs: &Sender<Input>) -> (Sender<Handle>, Vec<JoinHandle<()>>) {
    let (flushes, queue) = channel();
    let queue = Arc::new(Mutex::new(queue));
    let hand = |_| {
        let (performer, queue, alone) = (Arc::clone(performer), Arc::clone(&queue), alone.clone());
        let done = done_with(inputs.clone());
        std::thread::spawn(move || perform::flush(&performer, &queue, &alone, &done))
    };
    (flushes, (0..FLUSHING).map(hand).collect())
}

/// A hand of a lane.
fn fetching(performer: &Arc<Performer>, lane: &Arc<Lane>, inputs: &Sender<Input>) -> JoinHandle<()> {
    let (performer, lane, done) = (Arc::clone(performer), Arc::clone(lane), done_with(inputs.clone()));
    std::thread::spawn(move || while lane.serve(|fetches| performer.fetch(fetches, &lane, &done)) {})
}

fn done_with(inputs: Sender<Input>) -> impl Fn(Event) + Sync {
    move |event| {
        let _ = inputs.send(Input::Event(event));
    }
}

/// The inode of a handle, to work on it.
fn stub_file(root: &Root, file: &Handle) -> Result<(isotherm_gate::Inode, isotherm_gate::StubFile), isotherm_gate::GateError> {
    let inode = root.inode(&gate_handle(file)?)?;
    let opened = isotherm_gate::StubFile::open(&inode)?;
    Ok((inode, opened))
}

/// The same for what changes no content: a program that runs can be opened like this too.
fn stub_to_look(root: &Root, file: &Handle) -> Result<isotherm_gate::StubFile, isotherm_gate::GateError> {
    isotherm_gate::StubFile::open_to_look(&root.inode(&gate_handle(file)?)?)
}
