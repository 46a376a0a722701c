//! A thread that turns what the kernel reports of a volume into events for the engine.
//!
//! It looks at nothing and drops nothing but the agent's own work; which directories belong to the endpoint is for the
//! engine to know. **Invariant:** "drained" is said only after everything that was reported before has been handed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use isotherm_core::name::Name;
use isotherm_core::trees::Handle;
use isotherm_gate::{Batch, Change, Root, Waker, Watch, WatchUnavailable};

use crate::catalog::CatalogReader;
use crate::engine::{Changed, Event};
use crate::volume::handle_of;

/// Wait after a failure of the watch, so that one that lasts does not take a processor.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What happens within this time is handed on together. A small part of the quiet time: a change is seen that much later.
const GATHER: Duration = Duration::from_millis(10);

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
    /// Begins to watch the volume of `root`. Events go to `sink`; `catalog` tells the names of inodes that are written
    /// to without one (by a file server that opens by handle).
    ///
    /// # Errors
    /// The volume cannot be watched, and why.
    pub fn start(root: &Root, catalog: CatalogReader, sink: impl Fn(Event) + Send + 'static) -> Result<Self, WatchUnavailable> {
        let watch = Watch::new(root)?;
        let waker = watch.waker();
        let signals = Arc::new(Signals::default());
        let seen = Arc::clone(&signals);
        let own_pid = std::process::id().cast_signed();
        let thread = std::thread::spawn(move || Listener { watch, catalog, own_pid, sink }.run(&seen));
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
    catalog: CatalogReader,
    own_pid: i32,
    sink: F,
}

/// Names and inodes that something happened to, and whether bytes may have changed.
type Folded = BTreeMap<(Handle, Option<Name>, Option<Handle>), bool>;

impl<F: Fn(Event)> Listener<F> {
    fn run(mut self, signals: &Signals) {
        loop {
            match self.watch.read_batch(None) {
                Ok(batch) => {
                    self.hand_on(&batch);
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
            if signals.stop.load(Ordering::Acquire) {
                return;
            }
            if signals.drain.swap(false, Ordering::AcqRel) {
                self.drain();
            }
        }
    }

    fn drain(&mut self) {
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
