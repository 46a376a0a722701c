//! The endpoints of a guarded volume together: whose a file is, where its content is, and what may go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isotherm_core::ids::EndpointId;
use isotherm_core::stub::{StubRecord, Units};
use isotherm_core::tiering::{Plan, Policy, Treatment, Volume};
use isotherm_core::trees::Handle;
use isotherm_gate::guard::Program;
use isotherm_gate::watch::Resting;
use isotherm_gate::{FileHandle, GateError, Ledger, Root};

use super::Ask;
use crate::catalog::{CatalogReader, HeatStore, HistoryStore};
use crate::clock::wall_ms;
use crate::dedup::Dedup;
use crate::recall::{Ahead, Candidate, Cold, FetchFailure, FromShare, News, Room, Source, Take, Tell};
use crate::tiering::{Ground, Kept, cold_files, planned};
use crate::volume::{Errand, StubRules, gate_handle};

/// Between two looks for an endpoint that knows a content.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// How long the endpoints of a volume may take to begin.
const STARTS: Duration = Duration::from_secs(20);

/// What all of a volume share.
pub(super) struct Members {
    pub(super) top: Arc<Root>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) heat: HeatStore,
    pub(super) history: HistoryStore,
    pub(super) dedup: Dedup,
    pub(super) endpoints: Mutex<BTreeMap<EndpointId, Member>>,
    /// Files whose content comes by itself now.
    pub(super) coming: Mutex<BTreeSet<Handle>>,
    /// When the agent began to answer for the volume.
    pub(super) opened: Instant,
    /// Has files told of again that were used a moment ago.
    pub(super) resting: Mutex<Resting>,
}

/// What is pinned at each endpoint, as of a moment ago.
pub(super) struct Pins(BTreeMap<EndpointId, (CatalogReader, Kept)>);

impl Pins {
    /// Whether a content stays because of that; also where it cannot be told.
    pub(super) fn stays(&mut self, cold: &Cold) -> bool {
        let Some((reader, kept)) = self.0.get_mut(&cold.endpoint) else { return true };
        let place = reader.record(cold.candidate.record.node).and_then(|record| record.here().map(|local| local.place.clone()));
        place.is_some_and(|place| kept.stays(reader, cold.candidate.record.node, &place).is_some())
    }
}

/// One of them.
pub(super) struct Member {
    pub(super) source: Arc<FromShare>,
    pub(super) catalog: PathBuf,
    pub(super) stubs: Arc<StubRules>,
    pub(super) tell: Tell,
    pub(super) ask: Ask,
}

impl Members {
    pub(super) fn endpoints(&self) -> MutexGuard<'_, BTreeMap<EndpointId, Member>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn coming(&self) -> MutexGuard<'_, BTreeSet<Handle>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts files on the list of those that may be stubs.
    pub(super) fn note(&self, candidates: &[Candidate]) -> Result<(), GateError> {
        let handles: Vec<FileHandle> = candidates.iter().filter_map(|candidate| gate_handle(&candidate.file).ok()).collect();
        self.ledger.add(&handles)
    }

    /// Endpoints whose contents may go.
    pub(super) fn grounds(&self) -> Vec<Ground> {
        let endpoints = self.endpoints();
        let of = |(endpoint, member): (&EndpointId, &Member)| {
            let (policy, has_names) = (member.stubs.lets_go()?, member.stubs.has_names());
            Some(Ground { endpoint: *endpoint, catalog: member.catalog.clone(), policy, has_names })
        };
        endpoints.iter().filter_map(of).collect()
    }

    /// What is pinned now.
    pub(super) fn pins(&self) -> Pins {
        let read = |(endpoint, member): (&EndpointId, &Member)| {
            let reader = CatalogReader::open(&member.catalog).ok()?;
            let kept = Kept::new(&reader, Policy::default())?;
            Some((*endpoint, (reader, kept)))
        };
        Pins(self.endpoints().iter().filter_map(read).collect())
    }

    /// What the endpoint is set to that a file belongs to.
    fn rules_of(&self, file: &Handle) -> Option<Arc<StubRules>> {
        let mut members: Vec<(Arc<StubRules>, Arc<FromShare>)> =
            self.endpoints().values().map(|member| (Arc::clone(&member.stubs), Arc::clone(&member.source))).collect();
        // Without the lock: whose a file is, is asked of a catalog.
        if members.len() == 1 { members.pop() } else { members.into_iter().find(|(_, source)| source.has(file)) }
            .map(|(stubs, _)| stubs)
    }

    /// Whether what is safe in the share cannot be told at some endpoint that tiers.
    pub(super) fn is_unsure(&self) -> bool {
        self.endpoints().values().any(|member| member.stubs.is_unsure())
    }

    pub(super) fn tell(&self, news: &News) {
        if let News::Happened(happened) = news {
            self.history.note(happened.iter().cloned());
            return;
        }
        if let News::Used(file, is_awaited) = news {
            // What comes by itself is not used by that.
            if *is_awaited || !self.coming().contains(file) {
                self.heat.note([file.clone()], wall_ms());
            }
            return;
        }
        // Whose a file is the engines know.
        self.endpoints().values().for_each(|member| (member.tell)(news.clone()));
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

impl Room for Members {
    fn coldest(&self, bytes: u64, without: &BTreeSet<Handle>, go_on: &dyn Fn() -> bool) -> Vec<Cold> {
        let grounds = self.grounds();
        let Ok(space) = self.top.space() else { return Vec::new() };
        let free_percent = grounds.iter().map(|ground| ground.policy.free_percent).max().unwrap_or(0);
        let volume = Volume { total: space.total, free: space.free, unsent: 0, free_percent };
        let plan = |more| {
            let plan = Plan::for_room(volume, bytes.saturating_add(more), wall_ms(), usize::MAX);
            cold_files((&self.top, &grounds), &self.heat, plan, without, go_on)
        };
        planned((&self.top, &self.dedup), bytes, plan).0
    }

    fn is_short(&self, freed: u64) -> bool {
        let free_percent = self.grounds().iter().map(|ground| ground.policy.free_percent).max().unwrap_or(0);
        let space = self.top.space();
        space.is_ok_and(|space| Volume { total: space.total, free: space.free + freed, unsent: 0, free_percent }.needed() > 0)
    }

    fn note(&self, cold: &[Cold]) -> bool {
        // Asked for each batch: looking took time, and records may have been put back since.
        let grounds = self.grounds();
        let mut pins = self.pins();
        let stands = |cold: &Cold| grounds.iter().any(|ground| ground.endpoint == cold.endpoint) && !pins.stays(cold);
        if self.is_unsure() || !cold.iter().all(stands) {
            return false;
        }
        let files: Vec<Candidate> = cold.iter().map(|cold| cold.candidate.clone()).collect();
        let noted = Members::note(self, &files);
        if let Err(error) = &noted {
            tracing::warn!(%error, "No room can be made");
        }
        noted.is_ok()
    }
}

impl Source for Members {
    fn fetch(
        &self,
        of: (&Handle, &StubRecord),
        units: &Units,
        ahead: &Ahead,
        take: &mut Take<'_>,
        errand: &Errand<'_>,
    ) -> Result<(), FetchFailure> {
        loop {
            let sources: Vec<Arc<FromShare>> = self.endpoints().values().map(|member| Arc::clone(&member.source)).collect();
            let mut failure = None;
            for source in &sources {
                match source.fetch(of, units, ahead, take, errand) {
                    Err(FetchFailure::Unknown(text)) => failure = Some(FetchFailure::Unknown(text)),
                    answered => return answered,
                }
            }
            // An agent that starts has some endpoints before others, and one that stops, or begins an endpoint anew, has none for a while:
            // somebody else will know.
            match failure {
                Some(failure) if self.opened.elapsed() >= STARTS => return Err(failure),
                _ if !(errand.go_on)() => return Err(FetchFailure::NotWanted),
                _ => std::thread::sleep(ASKED_AGAIN),
            }
        }
    }

    fn ahead(&self, of: &[(Handle, StubRecord)], errand: &Errand<'_>) -> Ahead {
        let mut sources: Vec<Arc<FromShare>> = self.endpoints().values().map(|member| Arc::clone(&member.source)).collect();
        if sources.len() == 1 {
            return sources.pop().map_or(Ahead::NOTHING, |source| source.ahead(of, errand));
        }
        let mut ahead = Ahead::default();
        for source in sources {
            let its: Vec<(Handle, StubRecord)> = of.iter().filter(|(file, _)| source.has(file)).cloned().collect();
            if !its.is_empty() {
                ahead.join(source.ahead(&its, errand));
            }
        }
        ahead
    }

    fn is_limited(&self) -> bool {
        // All pass one limiter.
        self.endpoints().values().next().is_some_and(|member| member.source.is_limited())
    }

    fn is_dense(&self, file: &Handle, record: &StubRecord) -> Result<bool, FetchFailure> {
        let sources: Vec<Arc<FromShare>> = self.endpoints().values().map(|member| Arc::clone(&member.source)).collect();
        let mut failure = FetchFailure::Unknown("No endpoint of the volume has begun yet".to_owned());
        for source in &sources {
            match source.is_dense(file, record) {
                Err(FetchFailure::Unknown(text)) => failure = FetchFailure::Unknown(text),
                answered => return answered,
            }
        }
        Err(failure)
    }

    fn streams_from(&self, file: &Handle) -> Option<u64> {
        self.rules_of(file)?.stream_from()
    }

    fn treatment(&self, file: &Handle, program: &Program) -> Treatment {
        let its = self.rules_of(file);
        let user = (!program.name.is_empty()).then_some(program.user);
        its.map_or(Treatment::Allow, |stubs| stubs.treatment(&program.name, user))
    }

    fn shows_offline(&self, file: &Handle) -> bool {
        let silent: Vec<Arc<FromShare>> = {
            let endpoints = self.endpoints();
            endpoints.values().filter(|member| !member.stubs.shows_offline()).map(|member| Arc::clone(&member.source)).collect()
        };
        !silent.iter().any(|source| source.has(file))
    }

    fn modified(&self, file: &Handle, record: &StubRecord) -> Option<i64> {
        let sources: Vec<Arc<FromShare>> = self.endpoints().values().map(|member| Arc::clone(&member.source)).collect();
        sources.iter().find_map(|source| source.modified(file, record))
    }
}
