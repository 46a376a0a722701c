//! Opening an endpoint: folder, marker, catalog, what an earlier run left, watch, engine, workers.
//!
//! **Invariant:** the watch begins before the first look, so that nothing falls between the two.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isotherm_api::Code;
use isotherm_api::sync::{Assignment, InitialUpload, Problem, Watch};
use isotherm_core::exclude::Exclusions;
use isotherm_core::ids::EndpointId;
use isotherm_core::node::Place;
use isotherm_core::plan::{Authority, Rules};
use isotherm_core::tiering::Policy;
use isotherm_gate::ErrorKind;

use super::guarding::Guarding;
use super::repair::Repairer;
use super::workers::Workers;
use super::{End, Input, Spec};
use crate::catalog::{CatalogReader, SqlCatalog};
use crate::chance::{Growing, fresh_text};
use crate::engine::{Catalog as _, Engine, Limits, ROLLED_BACK, Settings};
use crate::remote::Share;
use crate::tiering::Kept;
use crate::volume::{MarkerProblem, StubRules, Volume, is_rolled_back, recover, renew_nonce};
use crate::watcher::Watcher;

/// Catalog values of the runtime: the marker's nonce, the one about to be written, the last confirmation seen.
const NONCE: &str = "nonce";
const NEXT_NONCE: &str = "next nonce";
pub(super) const CONFIRMED: &str = "confirmed deletes";

/// Name of the catalog in the endpoint's state folder.
pub(crate) const CATALOG: &str = "catalog";

/// Everything of a run of an endpoint.
pub(super) struct Opened {
    // Fields are dropped in this order. It reads the catalog, which takes its log into itself only if it is closed last.
    guarding: Guarding,
    pub(super) engine: Engine<SqlCatalog>,
    pub(super) workers: Workers,
    pub(super) share: Arc<Share>,
    pub(super) watch: Watch,
    pub(super) confirmed: u64,
    pub(super) catalog_path: PathBuf,
    pub(super) started: Instant,
    /// Problems of the start, such as files that were rescued.
    pub(super) notes: Vec<Problem>,
    volume: Arc<Volume>,
    endpoint: EndpointId,
    checked: Instant,
    renewed: Instant,
}

impl Opened {
    /// What administrators say of tiering now.
    pub(super) fn set_tiering(&self, tiering: bool, policy: Policy) {
        self.volume.show_offline(policy.offline_attribute);
        self.workers.set_tiering(tiering, policy);
    }
}

impl From<MarkerProblem> for End {
    fn from(problem: MarkerProblem) -> Self {
        Self::Failed { reason: problem.to_string(), remedy: problem.remedy().to_owned() }
    }
}

pub(super) fn open(spec: &Spec, inputs: &Sender<Input>) -> Result<Opened, End> {
    let assignment = &spec.assignment;
    std::fs::create_dir_all(&spec.state).map_err(|error| state_failed(spec, &error))?;
    let catalog_path = spec.state.join(CATALOG);
    let mut catalog = SqlCatalog::open(&catalog_path, assignment.case)?;
    let known = [NONCE, NEXT_NONCE].into_iter().filter_map(|key| catalog.value(key));
    let known: Vec<String> = known.map(|value| String::from_utf8_lossy(&value).into_owned()).collect();
    let volume = Arc::new(open_volume(spec, !known.is_empty())?);
    volume.set_last_names(catalog.last_names());

    // First the catalog knows what is about to stand in the marker, then it stands there.
    let fresh = fresh_text();
    catalog.set_value(NEXT_NONCE, Some(fresh.as_bytes()));
    let is_new = known.is_empty();
    if is_new {
        catalog.set_value(CONFIRMED, Some(&assignment.confirmed_deletes.to_le_bytes()));
    }
    // Kept until the engine has acted on it, because the marker is about to look as if nothing had happened.
    let rolled_back = catalog.value(ROLLED_BACK).is_some() || is_rolled_back(&volume, &known)?;
    if rolled_back {
        catalog.set_value(ROLLED_BACK, Some(b"1"));
    }
    catalog.commit()?;
    let share = Arc::new(Share::new(Arc::clone(&spec.attachment), assignment.group, spec.runtime.clone()));
    volume.show_offline(assignment.policy.offline_attribute);
    let stubs = stub_rules(assignment, &catalog);
    let known_here = Arc::new(Mutex::new(catalog.reader()?));
    let begin = || Guarding::begin(spec, &volume, (&share, &known_here), &stubs, inputs);
    // Before anything is written here: who waits for an answer may hold up a freeze of the volume, and that every write.
    let is_own = volume.marker()?.is_some_and(|marker| marker.endpoint == assignment.endpoint);
    let early = is_own.then(begin);
    let renewed = renew_nonce(&volume, (assignment.endpoint, assignment.group), &known, fresh)?;
    catalog.set_value(NONCE, Some(renewed.nonce.as_bytes()));
    catalog.commit()?;
    if rolled_back {
        tracing::warn!(endpoint = %assignment.endpoint, "Folder and catalog are of different times; all is compared by content");
    }
    let confirmed = catalog.value(CONFIRMED).and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
    let notes = recover_staging(&volume, &catalog)?;

    let (watcher, watch) = watch(&volume, &catalog, inputs)?;
    let settings = settings(spec, &volume, watcher.is_some(), rolled_back)?;
    if let Some(cursor) = catalog.cursor() {
        share.follow(cursor);
    }
    let exclusions = Exclusions::new(&assignment.exclusions);
    let (readers, repairer) = ([catalog.reader()?, catalog.reader()?], Repairer::new(&volume, &share, catalog.reader()?));
    let guarding = early.unwrap_or_else(begin);
    let mut ids = Growing::default();
    let engine = Engine::new(catalog, settings, Box::new(move || ids.next()))?;
    stubs.set_first(!engine.has_agreed());
    let parts = (Arc::clone(&volume), Arc::clone(&share));
    let workers = Workers::start(parts, readers, stubs, repairer, exclusions, watcher, inputs.clone());
    let now = Instant::now();
    Ok(Opened {
        engine,
        workers,
        share,
        watch,
        confirmed,
        catalog_path,
        started: now,
        notes,
        guarding,
        volume,
        endpoint: assignment.endpoint,
        checked: now,
        renewed: now,
    })
}

/// What administrators say of tiering, and who knows what is to stay here.
fn stub_rules(assignment: &Assignment, catalog: &SqlCatalog) -> Arc<StubRules> {
    let catalog = catalog.path().to_owned();
    let keeps = move |policy: &Policy, node, place: &Place| {
        // Opened for each question, which are few: a connection that stays would keep the catalog from taking its log into itself.
        let Ok(reader) = CatalogReader::open(&catalog) else { return true };
        // What cannot be told stays.
        Kept::new(&reader, policy.clone()).is_none_or(|mut kept| kept.stays(&reader, node, place).is_some())
    };
    let rules = StubRules::new(assignment.tiering, assignment.policy.clone());
    Arc::new(rules.with_keeps(Box::new(keeps)))
}

fn watch(volume: &Arc<Volume>, catalog: &SqlCatalog, inputs: &Sender<Input>) -> Result<(Option<Watcher>, Watch), End> {
    let events = inputs.clone();
    let watcher = Watcher::start(volume, catalog.reader()?, move |event| {
        // Nobody listens any more only when the endpoint is about to stop.
        let _ = events.send(Input::Event(event));
    });
    Ok(match watcher {
        Ok(watcher) => (Some(watcher), Watch::Events),
        Err(unavailable) => (None, Watch::Scan { reason: unavailable.reason.to_string() }),
    })
}

/// A folder that was an endpoint of the same group, which the service has forgotten since: an agent that lost what it knew comes
/// back to it under another id.
fn forget_the_dead(spec: &Spec, volume: &Volume) -> Result<(), End> {
    let (assignment, attachment) = (&spec.assignment, &spec.attachment);
    let Some(marker) = volume.marker()? else { return Ok(()) };
    if marker.endpoint == assignment.endpoint || marker.group != assignment.group {
        return Ok(());
    }
    let found = spec.runtime.block_on(attachment.client.endpoint(marker.endpoint));
    if found.is_err_and(|error| error.code == Code::NotFound) {
        tracing::warn!(former = %marker.endpoint, "The folder belonged to an endpoint that is no more");
        volume
            .forget_marker()
            .map_err(|error| MarkerProblem::Unusable { path: assignment.path.clone(), text: error.to_string() })?;
    }
    Ok(())
}

fn open_volume(spec: &Spec, is_known: bool) -> Result<Volume, End> {
    let path = PathBuf::from(OsString::from(&spec.assignment.path));
    let opened = if is_known { Volume::open_known(&path) } else { Volume::open(&path) };
    if let Ok(volume) = &opened
        && !is_known
    {
        forget_the_dead(spec, volume)?;
    }
    opened.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound if is_known => {
                "Mount the disk that holds the folder, or put the folder back; work goes on by itself"
            }
            ErrorKind::NotFound => "Make the folder; work goes on by itself",
            ErrorKind::Symlink => "Give the folder's real path: endpoints follow no symlinks",
            ErrorKind::NoSpace => "Make room on the volume; work goes on by itself",
            ErrorKind::ReadOnly => "Mount the volume writable; work goes on by itself",
            _ => "Check the folder and the rights of the agent; work goes on by itself",
        };
        End::Failed { reason: format!("Folder {}: {error}", spec.assignment.path), remedy: remedy.to_owned() }
    })
}

fn recover_staging(volume: &Volume, catalog: &SqlCatalog) -> Result<Vec<Problem>, End> {
    let recovered = recover(volume, &catalog.reader()?).map_err(|error| End::Failed {
        reason: format!("Staging folder of an earlier run: {error}"),
        remedy: "Check the volume; work goes on by itself".to_owned(),
    })?;
    let since_ms = crate::clock::wall_ms();
    let note = |name: &Vec<u8>| Problem {
        path: name.clone(),
        code: "rescued".to_owned(),
        text: "It was saved while the agent replaced it, and the agent was interrupted; both versions are kept".to_owned(),
        remedy: "Compare it with the file that has the name, and remove the one that is not needed".to_owned(),
        since_ms,
    };
    Ok(recovered.rescued.iter().map(note).collect())
}

fn settings(spec: &Spec, volume: &Volume, watched: bool, rolled_back: bool) -> Result<Settings, End> {
    let assignment = &spec.assignment;
    let staging = volume.staging_handle().map_err(|error| End::Failed {
        reason: format!("Staging folder: {error}"),
        remedy: "Check the volume; work goes on by itself".to_owned(),
    })?;
    let authority = match assignment.initial_upload {
        // Also where the catalog was removed since: the share has had other authors by now.
        InitialUpload::Authoritative if !volume.marker()?.is_some_and(|marker| marker.agreed) => Authority::Server,
        InitialUpload::Authoritative | InitialUpload::Merge => Authority::Merge,
    };
    let rules = Rules {
        case: assignment.case,
        server: spec.attachment.server,
        servers: spec.servers.clone(),
        authority,
        authority_until: None,
        hold_local_deletes: false,
        hold_remote_deletes: false,
    };
    let percent = (assignment.max_delete_fraction.clamp(0.0, 1.0) * 100.0).round() as u64;
    let limits = Limits { deletes_percent: percent, ..Limits::default() };
    Ok(Settings { rules, limits, root: volume.root_handle(), staging, watched, rolled_back })
}

fn state_failed(spec: &Spec, error: &std::io::Error) -> End {
    End::Failed {
        reason: format!("State folder {}: {error}", spec.state.display()),
        remedy: "Check the disk that holds it; work goes on by itself".to_owned(),
    }
}

impl Opened {
    /// Before anything is recorded that was told with the names of accounts, the names are.
    pub(super) fn keep_names(&self) -> Result<(), End> {
        let names = self.volume.take_learned_names();
        if names.is_empty() { Ok(()) } else { Ok(SqlCatalog::keep_names_beside(&self.catalog_path, &names)?) }
    }

    /// Looks at the marker now and then, and renews its nonce less often.
    pub(super) fn keep_marker(&mut self, check: Duration, renew: Duration) -> Result<(), End> {
        if self.checked.elapsed() < check {
            return Ok(());
        }
        self.checked = Instant::now();
        self.guarding.look_again();
        self.volume.check_marker(self.endpoint)?;
        if self.engine.has_agreed() {
            self.volume.mark_agreed()?;
        }
        if self.renewed.elapsed() < renew {
            return Ok(());
        }
        self.renewed = self.checked;
        self.volume.forget_owners();
        let Some(marker) = self.volume.marker()? else { return Ok(()) };
        let fresh = fresh_text();
        SqlCatalog::set_value_beside(&self.catalog_path, NEXT_NONCE, fresh.as_bytes())?;
        let renewed = renew_nonce(&self.volume, (self.endpoint, marker.group), &[marker.nonce], fresh)?;
        SqlCatalog::set_value_beside(&self.catalog_path, NONCE, renewed.nonce.as_bytes())?;
        Ok(())
    }
}
