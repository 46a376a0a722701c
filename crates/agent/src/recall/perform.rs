//! The hands of recall: looking at files, filling them, making it durable, taking records away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use isotherm_core::stub::{Event, Failure, Found, RecordError, StubRecord, Units};
use isotherm_core::tiering::Treatment;
use isotherm_core::trees::Handle;
use isotherm_gate::guard::Sentry;
use isotherm_gate::{ErrorKind, GateError, Liveness, MaskPool, Root, StubFile};

use super::Source;
use super::ahead::Ahead;
use super::lanes::{Fetch, Lane, Portion, Wanted};
use super::room::{Room, Turn};
use super::stream::Streamed;
use super::{Input, News, RecallProblem, Tell, stub_to_look};
use crate::volume::{Errand, attributes, gate_handle};

/// Between two times at which it is told that a content gets on.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Problems that are remembered.
const PROBLEMS: usize = 100;

/// Files that are made durable together.
const FLUSHED_TOGETHER: usize = 64;
/// A larger one is flushed by itself: others would wait for it. In bytes.
const FLUSHED_ALONE: u64 = 16 << 20;
/// Bytes that are flushed before others are told that they are whole.
const FLUSHED_BYTES: u64 = 32 << 20;

/// One piece of work.
#[derive(Debug)]
pub(super) enum Task {
    Look(Handle),
    Mend(Handle, StubRecord),
    Mask(Handle, StubRecord, Units),
    Part(Handle, StubRecord, Units),
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
    /// What is being fetched of each file.
    pub(super) wanted: Mutex<BTreeMap<Handle, Vec<Wanted>>>,
    /// Files that are read while they come.
    pub(super) streamed: Mutex<BTreeMap<Handle, Streamed>>,
    /// Files of which nothing is to stay when they are given up.
    pub(super) unkept: Mutex<BTreeSet<Handle>>,
    /// Files of which a part was left here.
    pub(super) parted: Mutex<BTreeSet<Handle>>,
    /// What masks are made of, as soon as one was needed.
    pub(super) pool: OnceLock<MaskPool>,
    /// Held while stubs are made, and while others have files open for a moment that must not be taken for ones in use.
    pub(super) going: Mutex<()>,
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

/// Takes tasks, so many at a time if there are, until there can be no more.
pub(super) fn run(performer: &Performer, (queue, together): (&Mutex<Receiver<Task>>, usize), done: &dyn Fn(Event)) {
    while let Some(tasks) = next(queue, together) {
        performer.perform_all(tasks).into_iter().for_each(done);
    }
}

/// What waits in a queue, at least one and at most so many; none where there can be no more.
fn next<T>(queue: &Mutex<Receiver<T>>, most: usize) -> Option<Vec<T>> {
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let first = queue.recv().ok()?;
    Some(std::iter::once(first).chain(queue.try_iter().take(most - 1)).collect())
}

/// One event for what is told of several files.
fn joined(events: impl Iterator<Item = Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Looked(all)), Event::Looked(more)) => all.extend(more),
            (Some(Event::Forgotten(all)), Event::Forgotten(more)) => all.extend(more),
            (Some(Event::Released(all)), Event::Released(more)) => all.extend(more),
            (_, event) => joined.push(event),
        }
    }
    joined
}

/// Makes files durable, all together that wait for it, until there can be no more; `alone` takes the large ones.
pub(super) fn flush(performer: &Performer, queue: &Mutex<Receiver<Handle>>, alone: &Sender<Task>, done: &dyn Fn(Event)) {
    while let Some(files) = next(queue, FLUSHED_TOGETHER) {
        let flushed = performer.flush(files, alone, done);
        if !flushed.is_empty() {
            done(Event::Flushed(flushed));
        }
    }
}

impl Performer {
    /// Flushes files together, some at a time; what became of each that cannot be looked at.
    fn flush(&self, files: Vec<Handle>, alone: &Sender<Task>, done: &dyn Fn(Event)) -> Vec<(Handle, Result<(), Failure>)> {
        let mut opened = Vec::new();
        let mut flushed = Vec::new();
        for file in files {
            match stub_to_look(&self.root, &file).and_then(|opened| Ok((opened.stat()?.size, opened))) {
                Ok((size, _)) if size >= FLUSHED_ALONE => {
                    // Those who perform end after this one.
                    let _ = alone.send(Task::Flush(file));
                }
                Ok((size, found)) => opened.push((file, size, found)),
                Err(error) => flushed.push((file.clone(), self.told_of_left(&file, Err(error)))),
            }
        }
        let mut rest = &opened[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, size, _)| {
                bytes += size;
                bytes <= FLUSHED_BYTES
            });
            let (part, others) = rest.split_at(fits.count().max(1));
            rest = others;
            let all: Vec<&StubFile> = part.iter().map(|(_, _, found)| found).collect();
            let results = self.root.sync_files(&all);
            let ended = part.iter().zip(results).map(|((file, ..), result)| (file.clone(), self.told_of_left(file, result)));
            done(Event::Flushed(ended.collect()));
        }
        flushed
    }

    /// Somebody waits for the content of a file, or for a part of it.
    pub(super) fn begin(&self, file: &Handle) -> Wanted {
        let wanted = Wanted::new();
        self.wanted().entry(file.clone()).or_default().push(wanted.clone());
        wanted
    }

    /// A fetch of it has ended.
    fn ended(&self, file: &Handle, fetch: &Wanted) {
        let mut wanted = self.wanted();
        if let Some(fetches) = wanted.get_mut(file) {
            fetches.retain(|other| other != fetch);
            if fetches.is_empty() {
                wanted.remove(file);
            }
        }
    }

    pub(super) fn streamed(&self) -> MutexGuard<'_, BTreeMap<Handle, Streamed>> {
        self.streamed.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(super) fn is_awaited(&self, file: &Handle) -> bool {
        self.treatment(file).is_some()
    }

    /// Whether somebody waits for a file who goes before those whose content is only wanted.
    pub(super) fn is_urgent(&self, file: &Handle) -> bool {
        self.treatment(file).is_some_and(|treatment| treatment > Treatment::Slow)
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<Handle, Treatment>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, news: News) {
        (self.tell)(news);
    }

    /// Nobody waits for it any more.
    pub(super) fn give_up(&self, file: &Handle) {
        self.wanted().remove(file).iter().flatten().for_each(Wanted::give_up);
    }

    /// Nobody waits for anything any more.
    pub(super) fn give_up_all(&self) {
        std::mem::take(&mut *self.wanted()).values().flatten().for_each(Wanted::give_up);
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

    fn perform_all(&self, tasks: Vec<Task>) -> Vec<Event> {
        let (released, others): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|task| matches!(task, Task::Release(_)));
        let released: Vec<Handle> =
            released.into_iter().filter_map(|task| if let Task::Release(file) = task { Some(file) } else { None }).collect();
        let released = if released.is_empty() { None } else { Some(self.release(released)) };
        joined(released.into_iter().chain(others.into_iter().map(|task| self.perform(task))))
    }

    fn perform(&self, task: Task) -> Event {
        match task {
            Task::Look(file) => {
                let found = self.look(&file).unwrap_or_else(|error| {
                    let why = if self.is_gone(&file) {
                        RecordError::Gone
                    } else {
                        tracing::warn!(?file, %error, "A file that somebody waits for cannot be looked at");
                        RecordError::Unreadable
                    };
                    Found { record: Some(Err(why)), size: u64::MAX, has_blocks: false, resident: None, streams: false }
                });
                Event::Looked(vec![(file, found)])
            }
            Task::Mend(file, record) => {
                let result = self.mend(&file, &record);
                Event::Mended(vec![(file.clone(), self.told(&file, result))])
            }
            Task::Mask(file, record, resident) => {
                let result = self.mask(&file, &record, &resident);
                Event::Masked(vec![(file, result)])
            }
            Task::Part(file, record, present) => {
                let parted = self.part(&file, &record, &present);
                Event::Parted(vec![(file, parted)])
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
            Task::Release(file) => self.release(vec![file]),
        }
    }

    /// Fetches contents, several only if they are small; `done` hears how they get on, and of their end.
    pub(super) fn fetch(&self, fetches: Vec<Fetch>, lane: &Lane, done: &(dyn Fn(Event) + Sync)) {
        let told = Mutex::new(None::<Instant>);
        let progress = || {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                *told = Some(Instant::now());
                lane.note_progress();
                done(Event::Progress(fetches.iter().map(|fetch| fetch.file.clone()).collect()));
            }
        };
        // Their turn has come.
        progress();
        let ahead = match &fetches[..] {
            [_] => Ahead::NOTHING,
            all => {
                let of: Vec<(Handle, StubRecord)> = all.iter().map(|fetch| (fetch.file.clone(), fetch.record)).collect();
                let errand = Errand {
                    go_on: &|| all.iter().any(|fetch| fetch.wanted.is()),
                    is_awaited: &|| all.iter().any(|fetch| self.is_urgent(&fetch.file)),
                    heard: &progress,
                };
                self.source.ahead(&of, &errand)
            }
        };
        let (mut filled, mut told) = (Vec::new(), Instant::now());
        for (at, fetch) in fetches.into_iter().enumerate() {
            // What did not come with the others waits for its own turn, or they would wait for it. One is always done.
            if at > 0 && !ahead.has(&fetch.file, &fetch.record) {
                let is_awaited = self.is_urgent(&fetch.file);
                lane.give(Fetch { is_awaited, ..fetch });
                continue;
            }
            let is_awaited = self.is_awaited(&fetch.file);
            filled.extend(self.fetch_one(fetch, &ahead, lane, done));
            if !filled.is_empty() && (is_awaited || told.elapsed() >= TOLD_EVERY) {
                done(Event::Filled(std::mem::take(&mut filled)));
                told = Instant::now();
            }
        }
        if !filled.is_empty() {
            done(Event::Filled(filled));
        }
    }

    /// What became of the content, where it is to be whole.
    fn fetch_one(
        &self,
        fetch: Fetch,
        ahead: &Ahead,
        lane: &Lane,
        done: &(dyn Fn(Event) + Sync),
    ) -> Option<(Handle, Result<(), Failure>)> {
        let Fetch { file, record, what, wanted, is_awaited } = fetch;
        let told = Mutex::new(Some(Instant::now()));
        let progress = || {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            // Over a fast line something comes many thousand times a second.
            if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                *told = Some(Instant::now());
                lane.note_progress();
                done(Event::Progress(vec![file.clone()]));
            }
        };
        let present = match what {
            Portion::Units(units) => {
                let came = |units: Units| done(Event::Came(vec![(file.clone(), units)]));
                let result = self.bring((&file, &record), &units, &wanted, (&progress, &came));
                self.ended(&file, &wanted);
                done(Event::Brought(vec![(file, units, result)]));
                return None;
            }
            Portion::Rest(present) => present,
        };
        let came = |units: Units| done(Event::Came(vec![(file.clone(), units)]));
        let result = self.fill((&file, &record), &present, (is_awaited, &wanted, ahead), (&progress, &came));
        self.ended(&file, &wanted);
        // What a program reads that only looks at everything is not used by that.
        let treatment = self.treatment(&file).or(is_awaited.then_some(Treatment::Allow));
        if result.is_ok() && treatment.is_none_or(|treatment| treatment >= Treatment::Allow) {
            (self.tell)(News::Used(file.clone(), treatment.is_some()));
        }
        Some((file, result))
    }

    fn look(&self, file: &Handle) -> Result<Found, GateError> {
        let opened = stub_to_look(&self.root, file)?;
        let value = opened.record()?;
        let (record, resident) = match value.as_ref().map(|value| StubRecord::decode_with(value, file)) {
            Some(Ok((record, resident))) => (Some(Ok(record)), resident),
            Some(Err(error)) => (Some(Err(error)), None),
            None => (None, None),
        };
        let resident = match (&record, resident) {
            (Some(Ok(record)), Some(resident)) => Some(self.believed(file, record, &opened, &resident)?),
            (_, resident) => resident,
        };
        // Room that is only reserved counts.
        let stat = opened.stat()?;
        let has_blocks = opened.has_data()? || (resident.is_some() && stat.blocks > 8);
        // A copy of a file of which a part was here may hold that part alone, and a mask.
        let is_partial_copy = || value.is_some_and(|value| matches!(StubRecord::decode_unbound(&value), Ok((_, Some(_)))));
        let has_blocks = has_blocks && !(record == Some(Err(RecordError::Void)) && is_partial_copy());
        let streams = self.source.streams_from(file).is_some_and(|least| stat.size >= least) && Self::may_stream(&opened)?;
        Ok(Found { record, size: stat.size, has_blocks, resident, streams })
    }

    /// They are whole: the gate asks about them no more.
    fn release(&self, files: Vec<Handle>) -> Event {
        let mut handles = Vec::with_capacity(files.len());
        for file in &files {
            let Ok(handle) = gate_handle(file) else { continue };
            // A mark that stays costs time, and nothing else.
            match self.root.open_for_mark(&handle) {
                Ok(fd) => {
                    if let Err(error) = self.post.group().release_file(fd) {
                        tracing::debug!(?file, %error, "A file that is whole goes on being asked about");
                    }
                }
                Err(error) => tracing::debug!(?file, %error, "A file that is whole cannot be opened"),
            }
            self.forget_stream(file);
            handles.push(handle);
        }
        self.post.release(&handles);
        (self.tell)(News::Came(files.clone()));
        Event::Released(files)
    }

    /// A file that was deleted meanwhile has no record that could come back.
    fn told_of_left(&self, file: &Handle, result: Result<(), GateError>) -> Result<(), Failure> {
        if result.is_err() && self.is_gone(file) { Ok(()) } else { self.told(file, result) }
    }

    /// Whether a file has a record now. What cannot be looked at is one.
    pub(super) fn is_stub(&self, file: &Handle) -> bool {
        stub_to_look(&self.root, file).and_then(|opened| opened.record()).map_or(true, |record| record.is_some())
    }

    pub(super) fn is_gone(&self, file: &Handle) -> bool {
        let liveness = gate_handle(file).and_then(|handle| self.root.is_alive(&handle));
        liveness.is_ok_and(|liveness| !matches!(liveness, Liveness::Linked))
    }

    pub(super) fn told(&self, file: &Handle, result: Result<(), GateError>) -> Result<(), Failure> {
        result.map_err(|error| match error.kind() {
            ErrorKind::NoSpace => Failure::NoSpace,
            _ => {
                self.show(file, &error.to_string());
                Failure::Other
            }
        })
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<Handle, Vec<Wanted>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
