//! The hands of recall: looking at files, filling them, making it durable, taking records away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isotherm_core::stub::{Event, Failure, Found, RecordError, StubRecord, Trouble};
use isotherm_core::tiering::Treatment;
use isotherm_core::trees::Handle;
use isotherm_gate::guard::{Program, Sentry};
use isotherm_gate::{ErrorKind, GateError, Inode, Liveness, Root, StubFile};

use super::lanes::{Fetch, Lane};
use super::remains::Remains;
use super::room::{Room, Turn};
use super::seals::Seals;
use super::{Input, News, RecallProblem, Tell, stub_file, stub_to_look};
use crate::volume::{attributes, gate_handle};

/// How long somebody may take to give back a lease, and how often he is asked.
const FREE_WITHIN: Duration = Duration::from_secs(10);
const FREE_AGAIN: Duration = Duration::from_millis(20);

/// Bytes of a content that are written before they are made durable.
const FLUSHED_EVERY: u64 = 128 << 20;

/// Between two times at which it is told that a content gets on.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Problems that are remembered.
const PROBLEMS: usize = 100;

/// How often room is made for one content.
const ROOM_TRIES: usize = 4;

/// Takes a piece of content at its offset.
pub type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<(), GateError> + 'a;

/// Where content comes from.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Gives all bytes of the content of a file with this record, piece by piece, each with its offset; what is not given is
    /// zeros. Every piece has been proved to be the content's before it is given. Waits for a service that is away until `go_on`
    /// says no; `heard` is told whenever something has come.
    ///
    /// # Errors
    /// [`FetchFailure`]; what was given before is of no use then.
    fn fetch(
        &self,
        file: &Handle,
        record: &StubRecord,
        take: &mut Take<'_>,
        go_on: &dyn Fn() -> bool,
        heard: &(dyn Fn() + Sync),
    ) -> Result<(), FetchFailure>;

    /// Whether clients of Samba are to see that the content of a file is away.
    fn shows_offline(&self, file: &Handle) -> bool;

    /// How a program is treated that opens a file.
    fn treatment(&self, _file: &Handle, _program: &Program) -> Treatment {
        Treatment::Allow
    }

    /// When the content that a record stands for was written, as its author's file system told, in nanoseconds since 1970; none where
    /// that is not known.
    fn modified(&self, file: &Handle, record: &StubRecord) -> Option<i64>;
}

/// Why content did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// It was not wanted any more.
    #[error("nobody waits for it any more")]
    NotWanted,
    /// The volume refused it.
    #[error(transparent)]
    Volume(#[from] GateError),
    /// The share has never heard of it: nothing was given, and another share may know it.
    #[error("{0}")]
    Unknown(String),
    /// The share does not have it any more, or has something else.
    #[error("{0}")]
    Content(String),
    /// Somebody has written to the stub while nobody guarded it.
    #[error(
        "It was written to while nobody guarded the volume; `isotherm recall --mend` brings its content back and undoes that"
    )]
    Written,
}

/// One piece of work.
#[derive(Debug)]
pub(super) enum Task {
    Look(Handle),
    Mend(Handle, StubRecord),
    Flush(Handle),
    Forget(Handle),
    Release(Handle),
}

/// What all hands share.
pub(super) struct Performer {
    pub(super) root: Arc<Root>,
    pub(super) post: Arc<dyn Sentry>,
    pub(super) source: Arc<dyn Source>,
    /// What may go where the volume is full; nothing where there is none.
    pub(super) room: Option<Arc<dyn Room>>,
    pub(super) turn: Turn,
    /// The desk's.
    pub(super) inputs: Sender<Input>,
    pub(super) ends: Arc<AtomicBool>,
    pub(super) problems: Arc<Mutex<Vec<RecallProblem>>>,
    /// Is told of files that are whole now, and of those that cannot be.
    pub(super) tell: Tell,
    /// Files whose content is wanted.
    pub(super) wanted: Mutex<BTreeSet<Handle>>,
    /// Files that callers wait for, and the best that any of them is treated.
    pub(super) awaited: Mutex<BTreeMap<Handle, Treatment>>,
}

impl std::fmt::Debug for Performer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Performer").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Has clients of Samba see whether a file's content is here. Nothing rests on it.
pub(super) fn say_where(file: &StubFile, is_here: bool) {
    if let Err(error) = attributes::tell(file, is_here) {
        tracing::debug!(%error, "Clients of Samba may not see where a file's content is");
    }
}

/// Takes tasks until there can be no more.
pub(super) fn run(performer: &Performer, queue: &Mutex<Receiver<Task>>, done: &dyn Fn(Event)) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        performer.perform(task, done);
    }
}

impl Performer {
    /// Somebody waits for the content of a file.
    pub(super) fn begin(&self, file: &Handle) {
        self.wanted().insert(file.clone());
    }

    /// A caller waits for a file, who is treated like this.
    pub(super) fn awaits(&self, file: &Handle, treatment: Treatment) {
        let mut awaited = self.awaited();
        let best = awaited.entry(file.clone()).or_insert(treatment);
        *best = treatment.max(*best);
    }

    /// Forgets who waited for files that are not worked on any more.
    pub(super) fn keep_awaited(&self, is_worked_on: impl Fn(&Handle) -> bool) {
        self.awaited().retain(|file, _| is_worked_on(file));
    }

    /// How those are treated who wait for a file; none where nobody does.
    pub(super) fn treatment(&self, file: &Handle) -> Option<Treatment> {
        self.awaited().get(file).copied()
    }

    fn is_awaited(&self, file: &Handle) -> bool {
        self.treatment(file).is_some()
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<Handle, Treatment>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for it any more.
    pub(super) fn give_up(&self, file: &Handle) {
        self.wanted().remove(file);
    }

    /// Nobody waits for anything any more.
    pub(super) fn give_up_all(&self) {
        self.wanted().clear();
    }

    pub(super) fn show(&self, file: &Handle, text: &str) {
        if self.is_gone(file) {
            return;
        }
        tracing::warn!(?file, text, "A file cannot be recalled");
        (self.tell)(News::Failed(file.clone(), text.to_owned()));
        let problem = RecallProblem { file: file.clone(), text: text.to_owned() };
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.retain(|known| known.file != *file);
        if problems.len() >= PROBLEMS {
            problems.remove(0);
        }
        problems.push(problem);
    }

    fn perform(&self, task: Task, done: &dyn Fn(Event)) {
        let event = match task {
            Task::Look(file) => {
                let found = self.look(&file).unwrap_or_else(|error| {
                    if self.is_gone(&file) {
                        return Found { record: Some(Err(RecordError::Gone)), size: u64::MAX, has_blocks: false };
                    }
                    tracing::warn!(?file, %error, "A file that somebody waits for cannot be looked at");
                    Found { record: Some(Err(RecordError::Unreadable)), size: u64::MAX, has_blocks: false }
                });
                Event::Looked(vec![(file, found)])
            }
            Task::Mend(file, record) => {
                let result = self.mend(&file, &record);
                Event::Mended(vec![(file.clone(), self.told(&file, result))])
            }
            Task::Flush(file) => {
                let result = stub_to_look(&self.root, &file).and_then(|opened| opened.flush());
                Event::Flushed(vec![(file.clone(), self.told_of_left(&file, result))])
            }
            Task::Forget(file) => {
                let result = stub_to_look(&self.root, &file).and_then(|opened| {
                    say_where(&opened, true);
                    opened.remove_record()
                });
                Event::Forgotten(vec![(file.clone(), self.told_of_left(&file, result))])
            }
            Task::Release(file) => {
                self.release(&file);
                Event::Released(vec![file])
            }
        };
        done(event);
    }

    /// Fetches a content; `done` hears how it gets on, and of its end.
    pub(super) fn fetch(&self, fetch: Fetch, lane: &Lane, done: &(dyn Fn(Event) + Sync)) {
        let Fetch { file, record, is_awaited } = fetch;
        let told = Mutex::new(None::<Instant>);
        let progress = || {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            // Over a fast line something comes many thousand times a second.
            if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                *told = Some(Instant::now());
                lane.note_progress();
                done(Event::Progress(vec![file.clone()]));
            }
        };
        // Its turn has come.
        progress();
        let result = self.fill(&file, &record, is_awaited, &progress);
        self.give_up(&file);
        // What a program reads that only looks at everything is not used by that.
        let treatment = self.treatment(&file).or(is_awaited.then_some(Treatment::Allow));
        if result.is_ok() && treatment.is_none_or(|treatment| treatment == Treatment::Allow) {
            (self.tell)(News::Used(file.clone(), treatment.is_some()));
        }
        done(Event::Filled(vec![(file, result)]));
    }

    fn look(&self, file: &Handle) -> Result<Found, GateError> {
        let opened = stub_to_look(&self.root, file)?;
        let record = opened.record()?.map(|value| StubRecord::decode(&value, file));
        Ok(Found { record, size: opened.stat()?.size, has_blocks: opened.has_data()? })
    }

    /// Gives a stub whose length was changed the right one again. What it may hold came with a recall that was broken off: it goes,
    /// since after a cut nobody knows which of it is still the content's.
    fn mend(&self, file: &Handle, record: &StubRecord) -> Result<(), GateError> {
        let (inode, opened) = stub_file(&self.root, file)?;
        // It may have been emptied, or been brought back, since it was looked at: then there is nothing to mend.
        let is_it = opened.record()?.is_some_and(|value| StubRecord::decode(&value, file).as_ref() == Ok(record));
        if !is_it || opened.stat()?.size == 0 {
            return Ok(());
        }
        opened.flush()?;
        opened.give_up()?;
        opened.set_len(record.size)?;
        // Whoever changed its length left his own time.
        self.source.modified(file, record).map_or(Ok(()), |modified| inode.set_mtime(modified))
    }

    /// Fills a file, or leaves it as it was. Where the volume is full, what has been here for longer goes first, if somebody waits:
    /// whoever brings back a tree that does not fit would have it push itself out.
    fn fill(&self, file: &Handle, record: &StubRecord, is_awaited: bool, progress: &(dyn Fn() + Sync)) -> Result<(), Failure> {
        for _ in 0..ROOM_TRIES {
            let seen = self.room_made();
            match self.fill_once(file, record, progress) {
                // Somebody may have come since it was begun.
                Err(Failure::NoSpace) if (is_awaited || self.is_awaited(file)) && self.make_room(record.size, seen, progress) => {
                    progress();
                }
                filled => return filled,
            }
        }
        self.fill_once(file, record, progress)
    }

    fn fill_once(&self, file: &Handle, record: &StubRecord, progress: &(dyn Fn() + Sync)) -> Result<(), Failure> {
        let opened = self.open_to_fill(file);
        let Ok((inode, opened)) = opened else { return self.told(file, opened.map(|_| ())) };
        let stat = opened.stat();
        let Ok(stat) = stat else { return self.told(file, stat.map(|_| ())) };
        if stat.size != record.size {
            // Whoever changed it did so without being asked about; filling it would bring back what he has cut.
            self.show(file, &Trouble::Size { found: stat.size, recorded: record.size }.to_string());
            return Err(Failure::Other);
        }
        let remains = Remains::of(&opened);
        let Ok(mut remains) = remains else { return self.told(file, remains.map(|_| ())) };
        // A recall that was broken off has left its own time.
        let of_content = if remains.are_any() { self.source.modified(file, record) } else { None };
        let modified = of_content.unwrap_or(stat.mtime_ns);
        let mut seals = Seals::default();
        let (mut unflushed, mut written) = (0, false);
        let mut take = |offset: u64, piece: &[u8]| {
            if !remains.allow(&opened, offset, piece)? {
                written = true;
                return Err(GateError::new(ErrorKind::Busy, "fill", "what somebody has written to"));
            }
            opened.fill(offset, piece)?;
            seals.add(offset, piece);
            unflushed += piece.len() as u64;
            if unflushed >= FLUSHED_EVERY {
                // Not all at the end, when nothing tells that it gets on.
                unflushed = 0;
                opened.flush()?;
            }
            progress();
            Ok(())
        };
        let fetched = self.source.fetch(file, record, &mut take, &|| self.wanted().contains(file), progress);
        let fetched = fetched.and_then(|()| {
            if opened.stat()?.size != record.size || !seals.hold(&opened, progress)? {
                return Err(FetchFailure::Content("The file was cut, without being opened, while its content came".to_owned()));
            }
            if !remains.leave_holes(&opened, record.size, progress)? {
                return Err(FetchFailure::Written);
            }
            Ok(inode.set_mtime(modified)?)
        });
        let Err(failure) = fetched else { return Ok(()) };
        if written || matches!(failure, FetchFailure::Written) {
            self.show(file, &FetchFailure::Written.to_string());
            return Err(Failure::Other);
        }
        // The record may not be durable yet, and without it nobody knows what the holes stand for. Where something had been before,
        // somebody may have written it: then all stays, and the next try compares.
        let is_own = !remains.are_any();
        let given_up = opened.flush().and_then(|()| if is_own { opened.give_up() } else { Ok(()) });
        let left = given_up.and_then(|()| inode.set_mtime(modified));
        if let Err(error) = left {
            tracing::warn!(?file, %error, "What came of a recall that failed was not given up");
        }
        match failure {
            FetchFailure::NotWanted | FetchFailure::Written => Err(Failure::Other),
            FetchFailure::Volume(error) => self.told(file, Err(error)),
            FetchFailure::Content(text) | FetchFailure::Unknown(text) => {
                self.show(file, &text);
                Err(Failure::Other)
            }
        }
    }

    /// Opened for the first time, a file that a client of NFS has in his charge is asked back from him, and is free in a moment.
    fn open_to_fill(&self, file: &Handle) -> Result<(Inode, StubFile), GateError> {
        let begun = Instant::now();
        loop {
            match stub_file(&self.root, file) {
                Err(error)
                    if error.kind() == ErrorKind::Busy && begun.elapsed() < FREE_WITHIN && self.wanted().contains(file) =>
                {
                    std::thread::sleep(FREE_AGAIN);
                }
                opened => return opened,
            }
        }
    }

    /// It is whole: the gate asks about it no more.
    fn release(&self, file: &Handle) {
        let Ok(handle) = gate_handle(file) else { return };
        // A mark that stays costs time, and nothing else.
        match self.root.open_for_mark(&handle) {
            Ok(fd) => {
                if let Err(error) = self.post.group().release_file(fd) {
                    tracing::debug!(?file, %error, "A file that is whole goes on being asked about");
                }
            }
            Err(error) => tracing::debug!(?file, %error, "A file that is whole cannot be opened"),
        }
        self.post.release(&[handle]);
        (self.tell)(News::Came(vec![file.clone()]));
    }

    /// A file that was deleted meanwhile has no record that could come back.
    fn told_of_left(&self, file: &Handle, result: Result<(), GateError>) -> Result<(), Failure> {
        if result.is_err() && self.is_gone(file) { Ok(()) } else { self.told(file, result) }
    }

    /// Whether a file has a record now. What cannot be looked at is one.
    pub(super) fn is_stub(&self, file: &Handle) -> bool {
        stub_to_look(&self.root, file).and_then(|opened| opened.record()).map_or(true, |record| record.is_some())
    }

    fn is_gone(&self, file: &Handle) -> bool {
        let liveness = gate_handle(file).and_then(|handle| self.root.is_alive(&handle));
        liveness.is_ok_and(|liveness| !matches!(liveness, Liveness::Linked))
    }

    fn told(&self, file: &Handle, result: Result<(), GateError>) -> Result<(), Failure> {
        result.map_err(|error| match error.kind() {
            ErrorKind::NoSpace => Failure::NoSpace,
            _ => {
                self.show(file, &error.to_string());
                Failure::Other
            }
        })
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeSet<Handle>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
