//! The threads that perform effects, and the way of their results back into the endpoint's queue.
//!
//! **Invariants:** each effect is answered by one event; nothing of an endpoint is at work after [`Workers::stop`].

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use isotherm_core::exclude::Exclusions;
use isotherm_core::ids::NodeId;
use isotherm_core::plan::Step;
use isotherm_core::tiering::Policy;
use isotherm_core::trees::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::Input;
use super::repair::Repairer;
use crate::catalog::CatalogReader;
use crate::engine::{Catalog, Effect, Engine, Event, LookRequest, ReadRequest};
use crate::remote::{Share, Uploader};
use crate::volume::{Performer, StubRules, Volume, look};
use crate::watcher::Watcher;

/// Threads that change the volume: as many as the engine has lanes.
const PERFORMERS: usize = 3;
/// Threads that read files: as many as the engine asks for at a time, and one kept for small ones.
const READERS: usize = 4;

/// Pieces of a snapshot that wait to be taken in: a whole one of a million nodes would be 300 MB.
const PIECES: usize = 8;

/// What the looking thread does.
enum Looking {
    Look(Vec<LookRequest>),
    Probe(Vec<(NodeId, Handle)>),
}

/// All threads and requests of one run of an endpoint.
pub(super) struct Workers {
    share: Arc<Share>,
    watcher: Option<Watcher>,
    inputs: Sender<Input>,
    looking: Option<Sender<Looking>>,
    performing: Option<Sender<Vec<Step>>>,
    reading: Option<Sender<Vec<ReadRequest>>>,
    /// Tells the repairer that the endpoint stops.
    repairing: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    requests: Vec<AbortHandle>,
    snapshot_room: Arc<Semaphore>,
    stubs: Arc<StubRules>,
}

impl Workers {
    pub(super) fn start(
        (volume, share): (Arc<Volume>, Arc<Share>),
        [catalog, known]: [CatalogReader; 2],
        stubs: Arc<StubRules>,
        repairer: Repairer,
        exclusions: Exclusions,
        watcher: Option<Watcher>,
        inputs: Sender<Input>,
    ) -> Self {
        let mut threads = Vec::new();
        let looked = Arc::clone(&volume);
        let looking = pool(1, &mut threads, &inputs, {
            let catalog = Mutex::new(catalog);
            move |job| match job {
                Looking::Look(requests) => {
                    let catalog = catalog.lock().unwrap_or_else(PoisonError::into_inner);
                    Event::Looked(requests.iter().map(|request| look(&looked, &*catalog, &exclusions, request)).collect())
                }
                Looking::Probe(nodes) => Event::Probed(looked.probe(&nodes)),
            }
        });
        let performer = Performer::new(Arc::clone(&volume), Arc::clone(&share) as Arc<_>, Arc::clone(&stubs));
        let performing = pool(PERFORMERS, &mut threads, &inputs, move |steps| Event::Performed(performer.perform(steps)));
        let uploader = Uploader::new(volume, Arc::clone(&share), Some((known, Arc::clone(&stubs))));
        let reading = pool(READERS, &mut threads, &inputs, move |requests| Event::Read(uploader.read(requests)));
        let (repairing, stopped) = watch::channel(false);
        threads.push(std::thread::spawn(move || repairer.run(stopped)));
        Self {
            share,
            watcher,
            inputs,
            looking: Some(looking),
            performing: Some(performing),
            reading: Some(reading),
            repairing,
            threads,
            requests: Vec::new(),
            snapshot_room: Arc::new(Semaphore::new(PIECES)),
            stubs,
        }
    }

    /// How folder and share stand to each other, of which bytes are what the share lacks.
    pub(super) fn set_standing<C: Catalog>(&self, engine: &Engine<C>, unsent: u64) {
        self.stubs.set_first(!engine.has_agreed());
        self.stubs.set_has_names(engine.has_names());
        self.stubs.set_knows_share(engine.knows_share());
        self.stubs.set_unsent(unsent);
    }

    /// What administrators say of tiering.
    pub(super) fn set_tiering(&self, tiering: bool, policy: Policy) {
        self.stubs.set_tiering(tiering, policy);
    }

    /// A piece of a snapshot has been taken in.
    pub(super) fn took_piece(&self) {
        self.snapshot_room.add_permits(1);
    }

    /// Hands an effect to whoever performs it.
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Look(requests) => hand(self.looking.as_ref(), Looking::Look(requests)),
            Effect::Probe(nodes) => hand(self.looking.as_ref(), Looking::Probe(nodes)),
            Effect::BringBack(files) => self.stubs.bring_back(files),
            Effect::Perform(steps) => hand(self.performing.as_ref(), steps),
            Effect::Read(requests) => hand(self.reading.as_ref(), requests),
            Effect::Drain => match &self.watcher {
                Some(watcher) => watcher.drain(),
                None => answer(&self.inputs, Event::Drained),
            },
            Effect::Fetch { reader, wait } => {
                self.request(async move |share: Arc<Share>, inputs| {
                    let page = share.fetch(reader, wait).await;
                    answer(&inputs, Event::Page(page));
                });
            }
            Effect::FetchSnapshot => {
                let room = Arc::clone(&self.snapshot_room);
                self.request(async move |share: Arc<Share>, inputs| {
                    share.fetch_snapshot(&room, |event| answer(&inputs, event)).await;
                });
            }
            Effect::Commit(operations) => {
                self.request(async move |share: Arc<Share>, inputs| {
                    let answers = share.commit(operations).await;
                    answer(&inputs, Event::Answered(answers));
                });
            }
            Effect::History(nodes) => {
                self.request(async move |share: Arc<Share>, inputs| {
                    let histories = share.history(nodes).await;
                    answer(&inputs, Event::Histories(histories));
                });
            }
        }
    }

    fn request<F, R>(&mut self, request: F)
    where
        F: FnOnce(Arc<Share>, Sender<Input>) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        self.requests.retain(|request| !request.is_finished());
        let task = self.share.runtime().spawn(request(Arc::clone(&self.share), self.inputs.clone()));
        self.requests.push(task.abort_handle());
    }

    /// Ends everything; work that cannot be broken off is waited for.
    pub(super) fn stop(&mut self) {
        self.share.stop();
        self.repairing.send_replace(true);
        self.watcher = None;
        self.requests.drain(..).for_each(|request| request.abort());
        (self.looking, self.performing, self.reading) = (None, None, None);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("Worker ended with a panic");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn hand<T>(queue: Option<&Sender<T>>, job: T) {
    if let Some(queue) = queue
        && queue.send(job).is_err()
    {
        tracing::error!("A worker is missing");
    }
}

fn answer(inputs: &Sender<Input>, event: Event) {
    // Nobody waits any more only when the endpoint stops.
    let _ = inputs.send(Input::Event(event));
}

/// Threads that take jobs from one queue and answer each with an event.
fn pool<T: Send + 'static>(
    size: usize,
    threads: &mut Vec<JoinHandle<()>>,
    inputs: &Sender<Input>,
    work: impl Fn(T) -> Event + Send + Sync + 'static,
) -> Sender<T> {
    let (sender, receiver) = channel();
    let receiver: Arc<Mutex<Receiver<T>>> = Arc::new(Mutex::new(receiver));
    let work = Arc::new(work);
    for _ in 0..size {
        let (receiver, work, inputs) = (Arc::clone(&receiver), Arc::clone(&work), inputs.clone());
        threads.push(std::thread::spawn(move || {
            loop {
                let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { return };
                answer(&inputs, work(job));
            }
        }));
    }
    sender
}
