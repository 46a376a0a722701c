//! A thread that turns what the kernel reports of a volume into events for the engine.
//!
//! It looks at nothing and drops nothing but the agent's own work; which directories belong to the endpoint is for the
//! engine to know. **Invariant:** "drained" is said only after everything that was reported before has been handed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm_core::name::Name;
use isotherm_core::trees::Handle;
use isotherm_gate::{Batch, Change, FileHandle, Stat, Waker, Watch, WatchUnavailable};

use crate::catalog::CatalogReader;
use crate::engine::{Changed, Event};
use crate::volume::{Volume, handle_of, print_of};

/// Wait after a failure of the watch, so that one that lasts does not take a processor.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What happens within this time is handed on together. A small part of the quiet time: a change is seen that much later.
const GATHER: Duration = Duration::from_millis(10);

/// For so long a file that was written to is not told of again: telling of a small write costs as much as the write. Shorter than the
/// quiet time, so that nobody looks at a file before it is told whether it was written to meanwhile.
const HUSHED: Duration = Duration::from_millis(200);
/// Files that are hushed at a time; others are told of with each write.
const HUSHED_MAX: usize = 512;

/// A running watch.
#[derive(Debug)]
pub struct Watcher {
    waker: Waker,
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signals {
    drain: AtomicBool,
    stop: AtomicBool,
}

impl Watcher {
    /// Begins to watch the volume of an endpoint. Events go to `sink`; `catalog` tells the names of inodes that are written
    /// to without one (by a file server that opens by handle).
    ///
    /// # Errors
    /// The volume cannot be watched, and why.
    pub fn start(
        volume: &Arc<Volume>,
        catalog: CatalogReader,
        sink: impl Fn(Event) + Send + 'static,
    ) -> Result<Self, WatchUnavailable> {
        let watch = Watch::new(volume.root())?;
        let waker = watch.waker();
        let signals = Arc::new(Signals::default());
        let seen = Arc::clone(&signals);
        let own_pid = std::process::id().cast_signed();
        let (volume, hushed) = (Arc::clone(volume), Vec::new());
        let thread = std::thread::spawn(move || Listener { watch, volume, catalog, own_pid, sink, hushed }.run(&seen));
        Ok(Self { waker, signals, thread: Some(thread) })
    }

    /// Asks for [`Event::Drained`].
    pub fn drain(&self) {
        self.signals.drain.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.signals.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("Watcher ended with a panic");
        }
    }
}

struct Listener<F> {
    watch: Watch,
    volume: Arc<Volume>,
    catalog: CatalogReader,
    own_pid: i32,
    sink: F,
    /// Files whose writes are not told now, the longest first.
    hushed: Vec<Hushed>,
}

/// A file whose writes are not told for a while.
struct Hushed {
    file: FileHandle,
    since: Instant,
    /// What was told of it last.
    change: Change,
    /// How it looked just before.
    before: Stat,
}

/// Names and inodes that something happened to, and whether bytes may have changed.
type Folded = BTreeMap<(Handle, Option<Name>, Option<Handle>), bool>;

impl<F: Fn(Event)> Listener<F> {
    fn run(mut self, signals: &Signals) {
        loop {
            let rest = self.hushed.first().map(|first| HUSHED.saturating_sub(first.since.elapsed()));
            match self.watch.read_batch(rest) {
                Ok(batch) => {
                    self.hand_on(&batch);
                    self.hush(&batch);
                    if !batch.changes.is_empty() {
                        // A watch that fails says so when it is read.
                        let _ = self.watch.gather(GATHER);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "Changes may have been missed; everything is looked at");
                    (self.sink)(Event::ScanNeeded);
                    std::thread::sleep(AFTER_FAILURE);
                }
            }
            self.tell_again(HUSHED);
            if signals.stop.load(Ordering::Acquire) {
                return;
            }
            if signals.drain.swap(false, Ordering::AcqRel) {
                self.drain();
            }
        }
    }

    /// Files that are being written to need not be told of with each write.
    fn hush(&mut self, batch: &Batch) {
        for change in batch.changes.iter().filter(|change| change.kinds.modified && change.pid != self.own_pid) {
            let Some(file) = change.target.as_ref().filter(|_| self.hushed.len() < HUSHED_MAX) else { continue };
            if change.kinds.closed_write || self.hushed.iter().any(|hushed| hushed.file == *file) {
                continue;
            }
            // Before the mark: what is written in between is told.
            let Ok(before) = self.volume.root().inode(file).and_then(|inode| inode.stat()) else { continue };
            if self.watch.hush_writes(self.volume.root(), file) {
                let (file, since) = (file.clone(), Instant::now());
                self.hushed.push(Hushed { file, since, change: change.clone(), before });
            }
        }
    }

    /// Tells of writes to files that have been hushed for so long, if there were any.
    fn tell_again(&mut self, after: Duration) {
        let ended = self.hushed.iter().take_while(|hushed| hushed.since.elapsed() >= after).count();
        if ended == 0 {
            return;
        }
        let mut folded = Folded::new();
        for hushed in self.hushed.drain(..ended).collect::<Vec<_>>() {
            // First: what is written after the look is told by the kernel.
            self.watch.tell_writes(self.volume.root(), &hushed.file);
            let now = self.volume.root().inode(&hushed.file).and_then(|inode| inode.stat());
            let is_same = now.is_ok_and(|now| print_of(&now) == print_of(&hushed.before));
            // A write shows in the times from its beginning on, and is told of at its end. One that had begun before is over by now, and
            // nobody looks before the quiet time has passed; but if this thread was kept for long, somebody may have looked meanwhile.
            if is_same && hushed.since.elapsed() < 2 * HUSHED {
                continue;
            }
            self.fold(&hushed.change, &mut folded);
            // Where it has another name by now.
            self.fold_nameless(&handle_of(&hushed.file), true, &mut folded);
        }
        self.say(folded);
    }

    fn drain(&mut self) {
        // All that was written before has to be told.
        self.tell_again(Duration::ZERO);
        let mut batches = Vec::new();
        if let Err(error) = self.watch.drain(|batch| batches.push(batch)) {
            tracing::warn!(%error, "Changes may have been missed; everything is looked at");
            (self.sink)(Event::ScanNeeded);
        }
        batches.iter().for_each(|batch| self.hand_on(batch));
        (self.sink)(Event::Drained);
    }

    fn hand_on(&self, batch: &Batch) {
        if batch.overflow {
            (self.sink)(Event::ScanNeeded);
        }
        let mut folded = Folded::new();
        for change in batch.changes.iter().filter(|change| change.pid != self.own_pid) {
            self.fold(change, &mut folded);
        }
        self.say(folded);
    }

    fn say(&self, folded: Folded) {
        if !folded.is_empty() {
            let changed = folded.into_iter();
            let changed = changed.map(|((directory, name, target), written)| Changed { directory, name, target, written });
            (self.sink)(Event::Changed(changed.collect()));
        }
    }

    fn fold(&self, change: &Change, folded: &mut Folded) {
        let written = change.kinds.modified || change.kinds.closed_write;
        let Some(directory) = &change.directory else {
            if let Some(target) = change.target.as_ref().filter(|_| !change.kinds.gone) {
                self.fold_nameless(&handle_of(target), written, folded);
            }
            return;
        };
        // `.` is no name: it stands for the directory itself.
        let name = Name::new(&change.name).ok();
        *folded.entry((handle_of(directory), name, change.target.as_ref().map(handle_of))).or_default() |= written;
    }

    /// An inode that was opened by its handle: its names are known from before, or will be told when they are made.
    fn fold_nameless(&self, inode: &Handle, written: bool, folded: &mut Folded) {
        for record in self.catalog.by_handle(inode) {
            let Some(local) = record.local.filter(|_| !record.node.is_anchor()) else { continue };
            let parent = self.catalog.record(local.place.parent).and_then(|parent| parent.local);
            if let Some(parent) = parent {
                *folded.entry((parent.handle, Some(local.place.name), Some(inode.clone()))).or_default() |= written;
            }
        }
    }
}
