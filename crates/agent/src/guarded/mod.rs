//! Guarded volumes, as the agent works on them: one recall for each, for all endpoints that lie on it.
//!
//! Where no gate answers, or it does not guard the volume, an endpoint works all the same and tiers nothing.
//! **Invariants:** the agent touches a guarded volume only through mounts about which nobody is asked; while an endpoint works
//! on it somebody answers for its stubs.

mod members;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::tiering::{Heat, Reason, Treatment, Volume};
use isotherm_core::trees::{Handle, Local, Record};
use isotherm_gate::guard::{GuardUnavailable, Sentry, program};
use isotherm_gate::link::{AgentTurn, GateClient, RemotePost, VolumeId, VolumeState};
use isotherm_gate::watch::Resting;
use isotherm_gate::{ErrorKind, FileHandle, GateError, Isolation, Ledger, Root, StagedFile};

use crate::catalog::{CatalogReader, Happening, HeatStore, HistoryStore, What};
use crate::clock::wall_ms;
use crate::dedup::Dedup;
use crate::engine::Command;
use crate::recall::{Candidate, Cold, FromShare, Lengths, News, NotTiered, Recall, Recalled, Source as _, Tell};
use crate::remote::Share;
use crate::tiering::{Ground, Runner, Situation, by_times, outlook};
use crate::volume::{StubGuard, StubRules, gate_handle};
use members::{Member, Members};

/// The guarded volumes that the agent works on.
#[derive(Debug)]
pub(crate) struct GuardedVolumes {
    run: PathBuf,
    state: PathBuf,
    gate: GateClient,
    open: Mutex<BTreeMap<VolumeId, Weak<GuardedVolume>>>,
}

/// A volume that the agent answers for.
#[derive(Debug)]
pub(crate) struct GuardedVolume {
    path: PathBuf,
    /// Held to read while contents go by themselves, and to write by whoever has to know that none does any more.
    batches: RwLock<()>,
    /// There while any endpoint takes part.
    runner: Mutex<Option<Runner>>,
    recall: Recall,
    ledger: Arc<Ledger>,
    post: Arc<RemotePost>,
    members: Arc<Members>,
}

/// An endpoint's part in it; the last one to go ends it.
#[derive(Debug)]
pub(crate) struct Membership {
    endpoint: EndpointId,
    source: Arc<FromShare>,
    volume: Arc<GuardedVolume>,
    /// The endpoint's mount, about which nobody is asked.
    _spared: Arc<OwnedFd>,
}

/// Files that are looked at before it is seen whether the volume is still there.
const SWEPT: usize = 1_000;

/// Has an endpoint's engine do something.
pub(crate) type Ask = Box<dyn Fn(Command) + Send + Sync>;

/// What an endpoint brings along when it joins.
pub(crate) struct Part<'a> {
    pub(crate) share: &'a Arc<Share>,
    pub(crate) known: &'a Arc<Mutex<CatalogReader>>,
    pub(crate) catalog: PathBuf,
    pub(crate) stubs: &'a Arc<StubRules>,
    pub(crate) tell: Tell,
    pub(crate) ask: Ask,
}

impl GuardedVolumes {
    /// Of the gate whose socket is in the folder `run`, for the agent with this state folder.
    pub(crate) fn new(run: &Path, state: &Path) -> Self {
        Self { run: run.to_owned(), state: state.to_owned(), gate: GateClient::new(run), open: Mutex::default() }
    }

    /// Takes part in guarding the volume on which `root` lies; none if it is not guarded.
    pub(crate) fn join(&self, endpoint: EndpointId, root: &Root, part: Part<'_>) -> Option<Membership> {
        let state = self.volume_of(root)?;
        match self.open(&state, root) {
            Ok((volume, spared)) => {
                let Part { share, known, catalog, stubs, tell, ask } = part;
                let source = Arc::new(FromShare::of(share, known));
                let member = Member { source: Arc::clone(&source), catalog, stubs: Arc::clone(stubs), tell, ask };
                // Under one lock: whoever leaves at the same moment ends what nobody needs.
                let mut runner = volume.runner();
                volume.members.endpoints().insert(endpoint, member);
                runner.get_or_insert_with(|| Runner::start(Arc::downgrade(&volume)));
                drop(runner);
                Some(Membership { endpoint, source, volume, _spared: spared })
            }
            Err(why) => {
                tracing::warn!(path = %state.settings.path.display(), why, "Nobody answers for the tiered files of a volume");
                None
            }
        }
    }

    /// Answers nobody any more, for the agent stops: whoever waits for a content is for the next one.
    pub(crate) fn stop_answering(&self) {
        for volume in self.all() {
            // Before: whoever waits may keep marks of those who listen, and they could not end.
            let runner = volume.runner().take();
            drop(runner);
            volume.recall.stop();
        }
    }

    /// All on which an endpoint takes part.
    pub(crate) fn all(&self) -> Vec<Arc<GuardedVolume>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter_map(Weak::upgrade).collect()
    }

    /// The volume of an endpoint that takes part.
    pub(crate) fn volume_of_endpoint(&self, endpoint: EndpointId) -> Option<Arc<GuardedVolume>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut volumes = open.values().filter_map(Weak::upgrade);
        volumes.find(|volume| volume.members.endpoints().contains_key(&endpoint))
    }

    fn volume_of(&self, root: &Root) -> Option<VolumeState> {
        // No gate is no fault.
        let volumes = self.gate.volumes().ok()?;
        let is_it = |path: &Path| Root::open(path).is_ok_and(|top| top.dev() == root.dev());
        volumes.into_iter().find(|volume| volume.failure.is_none() && is_it(&volume.settings.path))
    }

    fn open(&self, state: &VolumeState, root: &Root) -> Result<(Arc<GuardedVolume>, Arc<OwnedFd>), String> {
        if let Isolation::Attached(why) = root.isolation() {
            // Users would not be asked either.
            return Err(format!("the agent has no mount of its own: {why}"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mount = root.dir().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        if let Some(volume) = open.get(&state.id).and_then(Weak::upgrade) {
            let spared = volume.post.spare(mount).map_err(|error| error.to_string())?;
            return Ok((volume, spared));
        }
        let top = Arc::new(Root::open(&state.settings.path).map_err(|error| error.to_string())?);
        if let Isolation::Attached(why) = top.isolation() {
            return Err(format!("the agent has no mount of its own: {why}"));
        }
        let own = top.dir().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        // Two agents would each replace the other's list.
        let turn = AgentTurn::take(&self.run, state.id).map_err(|error| error.to_string())?;
        // Before the gate hears of this agent: from then on it relies on the list, and lets through who waits for a whole file.
        let ledger = Arc::new(Ledger::open(&top).map_err(|error| error.to_string())?);
        top.sync().map_err(|error| error.to_string())?;
        let post = Arc::new(RemotePost::attend(&self.run, turn, own).map_err(|error| error.to_string())?);
        let spared = post.spare(mount).map_err(|error| error.to_string())?;
        let (held, endpoints, coming) = (Arc::clone(&ledger), Mutex::default(), Mutex::default());
        let folder = self.folder(state.id)?;
        let heat = HeatStore::open(&folder.join("heat"));
        let history = HistoryStore::open(&folder.join("history"));
        let (dedup, opened) = (Dedup::open(&folder), Instant::now());
        let members = Arc::new(Members {
            top: Arc::clone(&top),
            ledger: held,
            heat,
            history,
            dedup,
            endpoints,
            coming,
            opened,
            resting: Mutex::default(),
        });
        let told = Arc::clone(&members);
        let tell: Tell = Box::new(move |news| told.tell(&news));
        let recall = Recall::start(top, post.clone(), members.clone(), Some(members.clone()), tell);
        let recall = recall.map_err(|error| error.to_string())?;
        tracing::info!(path = %state.settings.path.display(), "The agent answers for the tiered files of a volume");
        let (path, runner) = (state.settings.path.clone(), Mutex::default());
        let volume = Arc::new(GuardedVolume { path, batches: RwLock::default(), runner, recall, ledger, post, members });
        open.insert(state.id, Arc::downgrade(&volume));
        sweep(&volume);
        Ok((volume, spared))
    }

    /// Where records of a volume are.
    fn folder(&self, volume: VolumeId) -> Result<PathBuf, String> {
        let folder = self.state.join("volumes").join(volume.to_string());
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }
}

/// Has what an earlier run left masked given up. All stubs are looked at, on a thread of its own: nobody waits for that.
fn sweep(volume: &Arc<GuardedVolume>) {
    let volume = Arc::downgrade(volume);
    std::thread::spawn(move || {
        let files = volume.upgrade().map(|volume| volume.ledger.files()).unwrap_or_default();
        for part in files.chunks(SWEPT) {
            let Some(volume) = volume.upgrade() else { return };
            volume.recall.sweep_partial(part);
        }
    });
}

impl GuardedVolume {
    /// Makes stubs because somebody asked for it; see [`Recall::tier`].
    pub(crate) fn tier(&self, candidates: &[Candidate]) -> Vec<Result<(), NotTiered>> {
        self.tier_for(candidates, |_| What::TieredByCommand)
    }

    /// The same, each for a reason that is noted, by its place among them.
    fn tier_for(&self, candidates: &[Candidate], why: impl Fn(usize) -> What) -> Vec<Result<(), NotTiered>> {
        if let Err(error) = self.members.note(candidates) {
            return candidates.iter().map(|_| Err(error.clone().into())).collect();
        }
        let results = self.recall.tier(candidates);
        let tiered: Vec<(usize, &Candidate)> =
            candidates.iter().enumerate().zip(&results).filter(|(_, result)| result.is_ok()).map(|(tiered, _)| tiered).collect();
        let now_ms = wall_ms();
        let happened = |(at, candidate): &(usize, &Candidate)| {
            Happening::new(candidate.record.node, why(*at), now_ms, candidate.record.size)
        };
        self.members.history.note(tiered.iter().map(happened));
        let resting = self.members.resting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handles = tiered.iter().filter_map(|(_, candidate)| gate_handle(&candidate.file).ok());
        handles.for_each(|file| resting.tell_again(self.root(), &file));
        self.members.tell(&News::Went(tiered.iter().map(|(_, candidate)| candidate.file.clone()).collect()));
        results
    }

    /// Has cold contents go that were found by these policies; what became of each, none where that has changed since.
    pub(crate) fn give_up(&self, cold: &[Cold], grounds: &[Ground]) -> Vec<Option<Result<(), NotTiered>>> {
        let _batch = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        // Asked for each batch: looking took time, and records may have been put back since.
        let now = self.members.grounds();
        let stands = |endpoint: EndpointId| grounds.iter().any(|ground| ground.endpoint == endpoint && now.contains(ground));
        let mut pins = self.members.pins();
        let mut stands = |cold: &Cold| !self.members.is_unsure() && stands(cold.endpoint) && !pins.stays(cold);
        let stands: Vec<bool> = cold.iter().map(&mut stands).collect();
        let wanted: Vec<&Cold> = cold.iter().zip(&stands).filter(|(_, stands)| **stands).map(|(cold, _)| cold).collect();
        let candidates: Vec<Candidate> = wanted.iter().map(|cold| cold.candidate.clone()).collect();
        let is_low = self.situation().is_some_and(|situation| situation.volume.is_low());
        let why = |at: usize| match wanted[at].reason {
            Reason::Age => What::TieredForAge,
            Reason::Space if is_low => What::TieredForLow,
            Reason::Space => What::TieredForSpace,
        };
        let mut results = self.tier_for(&candidates, why).into_iter();
        let results: Vec<_> = stands.iter().map(|stands| if *stands { results.next() } else { None }).collect();
        if results.iter().flatten().any(Result::is_ok) {
            self.settle_space();
        }
        results
    }

    /// Has what is free be told: what btrfs frees and takes counts when that is durable.
    pub(crate) fn settle_space(&self) {
        let is_late = self.members.top.space().is_ok_and(|space| space.is_estimate);
        if is_late && let Err(error) = self.members.top.sync() {
            tracing::warn!(%error, "It may not be known yet what is free");
        }
    }

    /// Who has files told of again that were used a moment ago.
    pub(crate) fn set_resting(&self, resting: Resting) {
        *self.members.resting.lock().unwrap_or_else(PoisonError::into_inner) = resting;
    }

    /// Whether a file has the record of a stub; true where that cannot be told.
    pub(crate) fn is_stub(&self, file: &FileHandle) -> bool {
        self.root().inode(file).and_then(|inode| inode.stub_record()).map_or(true, |record| record.is_some())
    }

    /// Has what is here of a partially tiered file go, when nobody has it open.
    pub(crate) fn give_up_part(&self, file: &Handle) {
        self.recall.give_up_part(file);
    }

    /// Has the parts go that were left of streamed files, where there is too little room; whether there were any.
    pub(crate) fn give_up_parts(&self) -> bool {
        self.recall.sweep_streamed()
    }

    /// Whether no content of this endpoint goes by itself, nor will.
    pub(crate) fn lets_nothing_go(&self, endpoint: EndpointId) -> bool {
        // What is under way ends first.
        let _no_batch = self.batches.write().unwrap_or_else(PoisonError::into_inner);
        self.members.endpoints().get(&endpoint).is_none_or(|member| !member.stubs.is_tiering())
    }

    /// What may go here, and how much room there is; none where nothing may go.
    pub(crate) fn situation(&self) -> Option<Situation> {
        let grounds = self.members.grounds();
        if grounds.is_empty() {
            return None;
        }
        let space = self.members.top.space().ok()?;
        let free_percent = grounds.iter().map(|ground| ground.policy.free_percent).max().unwrap_or(0);
        let unsent = self.members.endpoints().values().map(|member| member.stubs.unsent()).sum();
        Some(Situation { grounds, volume: Volume { total: space.total, free: space.free, unsent, free_percent } })
    }

    /// When and how often a file was used, as far as is known.
    pub(crate) fn last_use(&self, record: &Record, local: &Local) -> Heat {
        by_times(record, local).used(self.members.heat.get(&local.handle)).heat
    }

    /// What becomes of a content that is here by itself, and why.
    pub(crate) fn outlook(&self, endpoint: EndpointId, catalog: &CatalogReader, record: &Record, local: &Local) -> String {
        let policy = self.members.endpoints().get(&endpoint).and_then(|member| member.stubs.lets_go());
        let unknown = Volume { total: 0, free: 0, unsent: 0, free_percent: 0 };
        let volume = self.situation().map_or(unknown, |situation| situation.volume);
        let file = by_times(record, local).used(self.members.heat.get(&local.handle));
        outlook((policy.as_ref(), &volume), catalog, (record, local, &file), wall_ms())
    }

    /// Whether it is a use of a file that a process has read it. One that has ended is known if it waited for the content; any
    /// other counts.
    pub(crate) fn is_use(&self, file: &Handle, process: i32) -> bool {
        let now = program(process);
        let ended = now.name.is_empty();
        let waited = || self.last_recall(file)?.program.filter(|program| program.process == process);
        let program = if ended { waited().unwrap_or(now) } else { now };
        self.members.treatment(file, &program) >= Treatment::Allow
    }

    /// Where users see it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn root(&self) -> &Root {
        &self.members.top
    }

    pub(crate) fn heat(&self) -> &HeatStore {
        &self.members.heat
    }

    pub(crate) fn history(&self) -> &HistoryStore {
        &self.members.history
    }

    pub(crate) fn dedup(&self) -> &Dedup {
        &self.members.dedup
    }

    /// The endpoints: the catalog of each, and where its contents are.
    pub(crate) fn sources(&self) -> Vec<(PathBuf, Arc<FromShare>)> {
        self.members.endpoints().values().map(|member| (member.catalog.clone(), Arc::clone(&member.source))).collect()
    }

    /// See [`Recall::while_nothing_goes`].
    pub(crate) fn while_nothing_goes<T>(&self, work: impl FnOnce() -> T) -> T {
        self.recall.while_nothing_goes(work)
    }

    /// Has an endpoint's engine do something; false where the endpoint does not take part any more.
    pub(crate) fn ask(&self, endpoint: EndpointId, command: Command) -> bool {
        self.members.endpoints().get(&endpoint).map(|member| (member.ask)(command)).is_some()
    }

    fn runner(&self) -> MutexGuard<'_, Option<Runner>> {
        self.runner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what the catalog of an endpoint calls safe in the share is so.
    pub(crate) fn knows_share(&self, endpoint: EndpointId) -> bool {
        self.members.endpoints().get(&endpoint).is_some_and(|member| member.stubs.knows_share())
    }

    /// Whether the content of a file is on its way.
    pub(crate) fn is_recalling(&self, file: &Handle) -> bool {
        self.recall.is_busy_with(file)
    }

    /// The last recall of a file; see [`Recall::last_of`].
    pub(crate) fn last_recall(&self, file: &Handle) -> Option<Recalled> {
        self.recall.last_of(file)
    }

    /// Brings contents back; whether each is whole, in order.
    pub(crate) fn recall(&self, files: Vec<Handle>, lengths: Lengths) -> Vec<bool> {
        self.recall.bring_back(files, lengths, What::RecalledByCommand, &|| true)
    }

    /// Has contents come that nobody has asked for, while `go_on` says so; whether each is whole, in order.
    pub(crate) fn have_come(&self, files: Vec<Handle>, why: What, go_on: &dyn Fn() -> bool) -> Vec<bool> {
        self.members.coming().extend(files.iter().cloned());
        let came = self.recall.bring_back(files.clone(), Lengths::Kept, why, go_on);
        let mut coming = self.members.coming();
        files.iter().for_each(|file| {
            coming.remove(file);
        });
        drop(coming);
        // Or more would come than there is room for, and go again.
        if came.contains(&true) {
            self.settle_space();
        }
        came
    }
}

impl StubGuard for GuardedVolume {
    fn begin_stubs(&self, files: &[&StagedFile]) -> Vec<Result<(), GateError>> {
        let handles: Vec<Result<FileHandle, GateError>> = files.iter().map(|file| file.inode().handle()).collect();
        let known: Vec<FileHandle> = handles.iter().flatten().cloned().collect();
        if let Err(error) = self.ledger.add_staged(&known) {
            return files.iter().map(|_| Err(error.clone())).collect();
        }
        // Only a gate that knows of them marks what is on the list, or is given the mark: without it a file that is marked at the
        // last moment of one gate would have none at the next.
        let are_held = self.post.hold(&known);
        let guard = |(file, handle): (&&StagedFile, Result<FileHandle, GateError>)| {
            let inode = file.inode();
            handle?;
            if !are_held {
                return Err(GateError::new(ErrorKind::Busy, "guard", inode.name()));
            }
            self.post.guard(inode.as_fd()).map_err(|why: GuardUnavailable| {
                tracing::error!(%why, "A file cannot be guarded, and so it comes whole");
                GateError::new(ErrorKind::Unsupported, "guard", inode.name())
            })
        };
        files.iter().zip(handles).map(guard).collect()
    }

    fn end_stubs(&self, files: &[&StagedFile]) {
        let handles: Vec<FileHandle> = files.iter().filter_map(|file| file.inode().handle().ok()).collect();
        self.post.release(&handles);
    }

    fn bring_back(&self, files: Vec<Handle>) {
        self.recall.want(files);
    }

    fn arrived(&self, files: &[(NodeId, u64)]) {
        let now_ms = wall_ms();
        self.members.history.note(files.iter().map(|(node, bytes)| Happening::new(*node, What::Arrived, now_ms, *bytes)));
    }

    fn is_awaited(&self, file: &Handle) -> bool {
        !self.recall.may_take(file)
    }
}

impl Membership {
    pub(crate) fn volume(&self) -> Arc<GuardedVolume> {
        Arc::clone(&self.volume)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut runner = self.volume.runner();
        let mut endpoints = self.volume.members.endpoints();
        // An endpoint that begins anew may be here again before its former run has gone.
        if endpoints.get(&self.endpoint).is_some_and(|member| Arc::ptr_eq(&member.source, &self.source)) {
            endpoints.remove(&self.endpoint);
        }
        let is_last = endpoints.is_empty();
        drop(endpoints);
        let last = if is_last { runner.take() } else { None };
        drop(runner);
        // Waited for: what it holds of the volume goes with the last endpoint.
        drop(last);
    }
}
