//! The agent of one registered server: attaches to the service, runs the endpoints that are assigned to it, and reports.
//!
//! It decides nothing about files. While the service is away the endpoints go on watching and recording; what is to be
//! done about it follows once the service is back. **Invariants:** one agent per state folder; endpoints never overlap, and
//! never hold the state folder.

mod attach;
mod folders;
mod known;
mod leaving;
mod lost;
mod overview;

pub use overview::{EndpointView, Overview};

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isotherm_api::sync::{Assignment, EndpointState, Report};
use isotherm_api::{ApiError, Client, Code};
use isotherm_core::bandwidth::InForce;
use isotherm_core::ids::{EndpointId, ServerId};
use isotherm_gate::{LockError, StateLock, lock_exclusive, raise_nofile};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};

use crate::control;
use crate::endpoint::{Endpoint, Published, Spec};
use crate::guarded::GuardedVolumes;
use crate::remote::{Attachment, Limiter};
use crate::volume::Volume;
use attach::{News, follow};
use folders::{make_private, overlap, service_data, state_of};
use known::Known;
use leaving::Leaving;
use lost::Lost;

/// Descriptors that an agent wants: staging holds many files open at a time.
const DESCRIPTORS: u64 = 65_536;
/// Time between two looks at whether there is something to report.
const REPORT_CHECK: Duration = Duration::from_millis(200);
/// Pictures that come within this time are reported together.
const GATHER: Duration = Duration::from_millis(10);
/// Longest time between two reports; well below what counts as offline.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Threads for requests to the service.
const THREADS: usize = 2;

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's own folder; it is made where there is none.
    pub state: PathBuf,
    /// Address of the service.
    pub service: String,
    /// The server's name, unique in the service; it becomes part of the names of conflict copies.
    pub name: String,
    /// Folder of the gate's socket. Without a gate there the agent works, and tiers nothing.
    pub run: PathBuf,
}

/// Why an agent does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent works on the state folder.
    #[error("State folder is in use by another agent: {0}")]
    InUse(#[from] LockError),
    /// The state folder cannot be used.
    #[error("State folder {} {what}: {source}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What this server is to the service cannot be read, so that it would come as a stranger.
    #[error("File {} tells which server this is, and cannot be read: {source}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The service refuses this server for good.
    #[error("The service refuses this server: {0}")]
    Refused(ApiError),
    /// A newer run of this server's agent exists.
    #[error("Another run of this server's agent has taken over (fenced); stop one of the two")]
    Fenced,
    /// Threads for requests cannot be started.
    #[error("The agent cannot start its threads: {0}")]
    Threads(io::Error),
}

/// A running agent.
pub struct Agent {
    options: Options,
    runtime: Arc<Runtime>,
    client: Client,
    attachment: Option<Arc<Attachment>>,
    slots: BTreeMap<EndpointId, Slot>,
    guarded: Arc<GuardedVolumes>,
    leaving: Leaving,
    lost: Lost,
    servers: BTreeMap<ServerId, String>,
    /// Keeps the limits of this server's traffic, for all endpoints.
    limiter: Arc<Limiter>,
    overview: Arc<Mutex<Overview>>,
    reporting: Reporting,
    /// Some endpoint has another picture.
    shown: Arc<Notify>,
    _lock: StateLock,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("options", &self.options).finish_non_exhaustive()
    }
}

/// One assignment.
enum Slot {
    Running(Box<Endpoint>),
    /// Nothing runs, and why.
    Idle(Box<(Assignment, Published)>),
}

#[derive(Default)]
struct Reporting {
    at: Option<Instant>,
    revision: u64,
    in_force: InForce,
    /// The report that is on its way.
    sending: Option<tokio::task::JoinHandle<Result<(), ApiError>>>,
}

impl Agent {
    /// Runs an agent until `shutdown` ends, then stops its endpoints.
    ///
    /// # Errors
    /// It cannot start, or the service refuses it for good. A service that is away is waited for.
    pub fn run(options: Options, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
        let mut agent = Self::open(options)?;
        let runtime = Arc::clone(&agent.runtime);
        let control = control::listen(&agent.options.state, Arc::clone(&agent.overview), Arc::clone(&agent.guarded))?;
        let ended = runtime.block_on(agent.work(shutdown));
        drop(control);
        tracing::info!("Agent stops");
        // First: an endpoint that has stopped knows no content, and whoever waits would be told that there is none.
        agent.guarded.stop_answering();
        agent.slots.clear();
        agent.report_last(&runtime);
        ended
    }

    fn open(options: Options) -> Result<Self, AgentError> {
        let state_failed = |what, source| AgentError::State { path: options.state.clone(), what, source };
        make_private(&options.state).map_err(|source| state_failed("cannot be made", source))?;
        let lock = lock_exclusive(&options.state.join("lock"))?;
        let client = Client::new(&options.service).map_err(AgentError::Refused)?;
        raise_nofile(DESCRIPTORS);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let overview = Arc::new(Mutex::new(Overview::new(&options)));
        let guarded = Arc::new(GuardedVolumes::new(&options.run, &options.state));
        Ok(Self {
            options,
            runtime: Arc::new(runtime.map_err(AgentError::Threads)?),
            client,
            attachment: None,
            slots: BTreeMap::new(),
            guarded,
            leaving: Leaving::default(),
            lost: Lost::default(),
            servers: BTreeMap::new(),
            limiter: Arc::default(),
            overview,
            reporting: Reporting::default(),
            shown: Arc::new(Notify::new()),
            _lock: lock,
        })
    }

    async fn work(&mut self, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let (sender, mut news) = mpsc::channel(16);
        let following = tokio::spawn(follow(self.client.clone(), self.options.clone(), sender));
        let mut check = tokio::time::interval(REPORT_CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                news = news.recv() => match news {
                    Some(news) => if let Err(error) = self.take(news) { break Err(error) },
                    None => break Ok(()),
                },
                () = self.shown.notified() => {
                    tokio::time::sleep(GATHER).await;
                    self.report();
                }
                _ = check.tick() => self.report(),
            }
        };
        following.abort();
        ended
    }

    fn take(&mut self, news: News) -> Result<(), AgentError> {
        match news {
            News::Attached(attachment) => match &self.attachment {
                Some(known) if known.server == attachment.server => known.set_epoch(attachment.epoch()),
                _ => self.attachment = Some(Arc::new(attachment.limited_by(Arc::clone(&self.limiter)))),
            },
            News::Known(server, known) => {
                if self.attachment.is_none() {
                    tracing::info!("Endpoints start as they were known before; the service is away");
                    let attachment = Attachment::unattached(self.client.clone(), server);
                    self.attachment = Some(Arc::new(attachment.limited_by(Arc::clone(&self.limiter))));
                    self.limiter.set(known.limits.clone());
                    self.servers = known.servers();
                    tokio::task::block_in_place(|| self.assign_all(known.assignments));
                }
            }
            News::Servers(servers) => {
                self.servers = servers;
                let specs: Vec<Spec> = self.running().map(|endpoint| endpoint.spec.clone()).collect();
                // Starting and stopping endpoints waits for threads.
                tokio::task::block_in_place(|| specs.into_iter().for_each(|spec| self.assign(spec.assignment)));
            }
            News::Limits(limits) => {
                if let Err(error) = Known::keep_limits(&self.options.state, &limits) {
                    tracing::warn!(%error, "The limits cannot be kept; a start without the service will know none");
                }
                self.limiter.set(limits);
            }
            News::Assignments(assignments) => tokio::task::block_in_place(|| {
                self.lost.compare(&self.options.state, &assignments);
                let staying = assignments.iter().filter(|one| !one.deleting).cloned().collect();
                let known = Known::new(staying, self.lost.assignments(), &self.servers, self.limiter.limits());
                if let Err(error) = known.write(&self.options.state) {
                    tracing::warn!(%error, "The endpoints cannot be kept; a start without the service will wait for it");
                }
                self.assign_all(assignments);
            }),
            News::Away(text) => overview::set_away(&self.overview, Some(text)),
            News::Back => overview::set_away(&self.overview, None),
            News::Refused(error) if error.code == Code::Fenced => return Err(AgentError::Fenced),
            News::Refused(error) => return Err(AgentError::Refused(error)),
            News::Identity(path, source) => return Err(AgentError::Identity { path, source }),
            News::State(path, source) => {
                return Err(AgentError::State { path, what: "cannot be written", source });
            }
        }
        Ok(())
    }

    fn running(&self) -> impl Iterator<Item = &Endpoint> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Running(endpoint) => Some(&**endpoint),
            Slot::Idle(_) => None,
        })
    }

    fn assign_all(&mut self, assignments: Vec<Assignment>) {
        let gone: Vec<EndpointId> =
            self.slots.keys().copied().filter(|id| assignments.iter().all(|assignment| assignment.endpoint != *id)).collect();
        for id in gone {
            tracing::info!(endpoint = %id, "Endpoint is not assigned any more");
            self.slots.remove(&id);
        }
        for assignment in assignments {
            self.assign(assignment);
        }
    }

    fn assign(&mut self, mut assignment: Assignment) {
        let Some(attachment) = self.attachment.clone() else { return };
        let id = assignment.endpoint;
        if assignment.deleting {
            let catalog = self.state_of(id).join(crate::endpoint::CATALOG);
            let is_unknown = !catalog.exists();
            if is_unknown || self.leaving.may_go(&assignment, (&self.overview, &self.guarded), catalog) {
                self.let_go(assignment);
                return;
            }
            // Until then it works as any other: somebody has to answer for its stubs. But nothing becomes one any more, so that
            // none comes between the last look and the end.
            assignment.tiering = false;
        } else {
            self.leaving.forget(id);
        }
        if let Some(why) = self.refusal(&assignment) {
            tracing::error!(endpoint = %id, why, "Endpoint is refused");
            let remedy = "Remove the endpoint and choose a folder of its own".to_owned();
            let published = Published::stopped(&assignment, EndpointState::Stopped { reason: why, remedy });
            self.slots.insert(id, Slot::Idle(Box::new((assignment, published))));
            return;
        }
        let state = self.state_of(id);
        let (runtime, servers) = (self.runtime.handle().clone(), self.servers.clone());
        let spec = Spec {
            assignment,
            state,
            attachment,
            runtime,
            servers,
            guarded: Arc::clone(&self.guarded),
            shown: Arc::clone(&self.shown),
        };
        if let Some(Slot::Running(endpoint)) = self.slots.get_mut(&id)
            && endpoint.take(&spec)
        {
            return;
        }
        // The old run has to end before the new one opens the catalog.
        self.slots.remove(&id);
        tracing::info!(endpoint = %id, path = spec.assignment.path, "Endpoint starts");
        self.slots.insert(id, Slot::Running(Box::new(Endpoint::start(spec))));
    }

    fn state_of(&self, id: EndpointId) -> PathBuf {
        state_of(&self.options.state, id)
    }

    /// Why an assignment cannot be taken.
    fn refusal(&self, assignment: &Assignment) -> Option<String> {
        let path = Path::new(&assignment.path);
        if !path.is_absolute() {
            return Some(format!("Path {} is not absolute", assignment.path));
        }
        let state = std::path::absolute(&self.options.state).unwrap_or_else(|_| self.options.state.clone());
        let state = state.canonicalize().unwrap_or(state);
        if overlap(path, &state) {
            return Some(format!("Path {} and the agent's state folder {} overlap", assignment.path, state.display()));
        }
        if let Some(data) = service_data(path) {
            return Some(format!("Path {} lies in {}, where a service keeps its data", assignment.path, data.display()));
        }
        let others = self.slots.values().map(|slot| match slot {
            Slot::Running(endpoint) => &endpoint.spec.assignment,
            Slot::Idle(idle) => &idle.0,
        });
        let mut others = others.filter(|other| other.endpoint != assignment.endpoint);
        let other = others.find(|other| overlap(path, Path::new(&other.path)))?;
        Some(format!("Path {} and endpoint {} overlap", assignment.path, other.path))
    }

    /// Lets go of a folder: nothing works there any more, its files stay, and the service is told.
    fn let_go(&mut self, assignment: Assignment) {
        let id = assignment.endpoint;
        if matches!(self.slots.get(&id), Some(Slot::Idle(idle)) if idle.1.report.state == EndpointState::Removed) {
            return;
        }
        self.slots.remove(&id);
        match Volume::open_known(Path::new(&assignment.path)) {
            Ok(volume) if volume.check_marker(id).is_ok() => {
                if let Err(error) = volume.remove_marker() {
                    tracing::warn!(%error, "Marker of a removed endpoint stays");
                }
            }
            _ => tracing::warn!(path = assignment.path, "Folder of a removed endpoint is not there; nothing is cleaned up"),
        }
        match std::fs::remove_dir_all(self.state_of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "Catalog of a removed endpoint stays");
            }
            _ => {}
        }
        tracing::info!(endpoint = %id, "Endpoint is removed");
        let published = Published::stopped(&assignment, EndpointState::Removed);
        self.slots.insert(id, Slot::Idle(Box::new((assignment, published))));
    }

    /// Refreshes the overview, and reports if there is something new or it is time.
    fn report(&mut self) {
        self.let_go_of_ready();
        let mut views: Vec<(Assignment, Published)> = self.slots.values().map(Slot::view).collect();
        for (assignment, published) in &mut views {
            if let Some(files) = self.leaving.stubs_of(assignment.endpoint).filter(|files| *files > 0) {
                published.report.state = EndpointState::HoldsStubs { files };
            }
        }
        let revision = views.iter().map(|(_, published)| published.revision + 1).sum();
        let shown = [&views[..], &self.lost.views()].concat();
        overview::update(&self.overview, self.attachment.as_deref(), &shown);
        let Some(attachment) = &self.attachment else { return };
        if self.reporting.sending.as_ref().is_some_and(|sending| !sending.is_finished()) {
            return;
        }
        let due = self.reporting.at.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        let in_force = self.limiter.in_force();
        if !due && (revision, in_force) == (self.reporting.revision, self.reporting.in_force) {
            return;
        }
        (self.reporting.revision, self.reporting.in_force) = (revision, in_force);
        self.reporting.at = Some(Instant::now());
        let report = report_of(attachment, &views);
        let attachment = Arc::clone(attachment);
        let sending = async move { attachment.client.report(attachment.server, &report, in_force).await };
        self.reporting.sending = Some(self.runtime.spawn(sending));
    }

    /// Endpoints that were kept by their stubs, and have none any more.
    fn let_go_of_ready(&mut self) {
        if self.leaving.ready() {
            let leaving = self.slots.values().map(|slot| slot.view().0).filter(|assignment| assignment.deleting);
            let leaving: Vec<Assignment> = leaving.collect();
            tokio::task::block_in_place(|| leaving.into_iter().for_each(|assignment| self.assign(assignment)));
        }
    }

    /// Gives a report that is on its way the time to arrive.
    fn report_last(&mut self, runtime: &Runtime) {
        if let Some(sending) = self.reporting.sending.take() {
            let patience = async { tokio::time::timeout(Duration::from_secs(1), sending).await.is_ok() };
            tracing::debug!(arrived = runtime.block_on(patience), "Last report");
        }
    }
}

impl Slot {
    fn view(&self) -> (Assignment, Published) {
        match self {
            Self::Running(endpoint) => (endpoint.spec.assignment.clone(), endpoint.published()),
            Self::Idle(idle) => (**idle).clone(),
        }
    }
}

fn report_of(attachment: &Attachment, views: &[(Assignment, Published)]) -> Report {
    Report {
        epoch: attachment.epoch(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        endpoints: views.iter().map(|(_, published)| published.report.clone()).collect(),
    }
}
