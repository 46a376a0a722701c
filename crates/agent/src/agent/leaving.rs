//! Endpoints that are to go and still hold stubs: nobody would answer for these any more.
//!
//! **Invariant:** an endpoint is let go only when none of its files is a stub, or somebody has said to leave them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use isotherm_api::sync::{Assignment, OnStubs};
use isotherm_core::ids::EndpointId;

use super::Overview;
use crate::control::{count_stubs, recall_all};
use crate::guarded::GuardedVolumes;

/// Between two looks at what is left.
const AGAIN: Duration = Duration::from_secs(3);
/// Between two looks at whether its contents have stopped going.
const SOON: Duration = Duration::from_millis(50);
/// Nobody has counted yet.
const UNKNOWN: u64 = u64::MAX;

/// Endpoints that are to go, each with a thread that counts what keeps it.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    all: BTreeMap<EndpointId, One>,
}

#[derive(Debug)]
struct One {
    on_stubs: OnStubs,
    stubs: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Leaving {
    /// Whether the endpoint may go now; begins to look after it otherwise.
    pub(super) fn may_go(
        &mut self,
        assignment: &Assignment,
        known: (&Arc<Mutex<Overview>>, &Arc<GuardedVolumes>),
        catalog: PathBuf,
    ) -> bool {
        let id = assignment.endpoint;
        if assignment.on_stubs == OnStubs::Leave {
            self.all.remove(&id);
            return true;
        }
        let one = self.all.entry(id).or_insert_with(|| One::begin(assignment, known, catalog.clone()));
        if one.on_stubs != assignment.on_stubs {
            *one = One::begin(assignment, known, catalog);
        }
        let may_go = one.stubs.load(Ordering::Relaxed) == 0;
        if may_go {
            self.all.remove(&id);
        }
        may_go
    }

    /// The endpoints of which none is a stub any more.
    pub(super) fn ready(&self) -> bool {
        self.all.values().any(|one| one.stubs.load(Ordering::Relaxed) == 0)
    }

    /// How many stubs keep an endpoint, if it is to go.
    pub(super) fn stubs_of(&self, id: EndpointId) -> Option<u64> {
        let stubs = self.all.get(&id)?.stubs.load(Ordering::Relaxed);
        (stubs != UNKNOWN).then_some(stubs)
    }

    /// Somebody has thought better of it.
    pub(super) fn forget(&mut self, id: EndpointId) {
        self.all.remove(&id);
    }
}

impl One {
    fn begin(
        assignment: &Assignment,
        (overview, guarded): (&Arc<Mutex<Overview>>, &Arc<GuardedVolumes>),
        catalog: PathBuf,
    ) -> Self {
        let (stubs, stop) = (Arc::new(AtomicU64::new(UNKNOWN)), Arc::new(AtomicBool::new(false)));
        let (count, until, path) = (Arc::clone(&stubs), Arc::clone(&stop), assignment.path.clone());
        let endpoint = assignment.endpoint;
        let (overview, guarded, on_stubs) = (Arc::clone(overview), Arc::clone(guarded), assignment.on_stubs);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // It is told to let nothing go any more at the same moment as this begins.
                if guarded.volume_of_endpoint(endpoint).is_some_and(|volume| !volume.lets_nothing_go(endpoint)) {
                    std::thread::park_timeout(SOON);
                    continue;
                }
                match count_stubs(&catalog, &path, endpoint) {
                    Ok(found) => count.store(found, Ordering::Relaxed),
                    Err(why) => tracing::warn!(path, why, "Tiered files cannot be counted, so the endpoint stays"),
                }
                if count.load(Ordering::Relaxed) == 0 {
                    return;
                }
                if on_stubs == OnStubs::Recall {
                    let overview = overview.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Err(why) = recall_all(&overview, &guarded, &path) {
                        tracing::info!(path, why, "Tiered files are not recalled yet");
                    }
                }
                std::thread::park_timeout(AGAIN);
            }
        });
        Self { on_stubs, stubs, stop, thread: Some(thread) }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It may be in the middle of a recall, which ends by itself.
            drop(thread);
        }
    }
}
