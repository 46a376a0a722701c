//! Tiering in the demo: whether there is any, the volumes, the drawings that do not fit on them, and what the sites' agents say of both.
//!
//! **Invariant:** a folder that was made without volumes goes on without, and one with volumes is not used without them: its sites would
//! look empty.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use isotherm_agent::control::{self, Answer as AgentAnswer, Request};
use isotherm_api::management::PolicyChange;
use isotherm_api::path::ShownPath;
use isotherm_core::tiering::{ProgramRule, Treatment};
use tokio::task::JoinHandle;

use super::SITES;
use super::drawings::{self, Progress};
use super::events::{Drawn, SiteVolume};
use super::volumes::{Place, Volumes};
use crate::args::Demo;
use crate::failure::{Exit, Failure};

/// What is to stay free on the sites' volumes, in percent.
const FREE_PERCENT: u8 = 20;
/// Drawings of so many bytes and more can be read while they come.
const STREAM_FROM: u64 = 1 << 20;

/// Tiering, as far as there is any.
#[derive(Debug)]
pub(super) struct Tiering {
    base: PathBuf,
    place: Place,
    is_plain: bool,
    bytes: u64,
    volumes: Option<Volumes>,
    progress: Progress,
    making: Option<JoinHandle<Result<(), Failure>>>,
    why_not: Option<String>,
}

impl Tiering {
    pub(super) fn of(demo: &Demo, base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            place: Place::new(base),
            is_plain: demo.plain,
            bytes: demo.drawings,
            volumes: None,
            progress: Progress::default(),
            making: None,
            why_not: None,
        }
    }

    /// Attaches the volumes, where there are to be any; before anything else is done in the sites' folders.
    pub(super) async fn prepare(&mut self, is_new: bool) -> Result<(), Failure> {
        let (place, is_plain, bytes) = (self.place.clone(), self.is_plain, self.bytes);
        let prepared = tokio::task::spawn_blocking(move || prepare(&place, is_plain, is_new.then_some(bytes)));
        match prepared.await.map_err(|error| Failure::failed(format!("Volumes of the demo broke down: {error}")))?? {
            Ok(volumes) => self.volumes = volumes,
            Err(why) => self.why_not = Some(why),
        }
        Ok(())
    }

    /// Why nothing is tiered although it was wanted.
    pub(super) fn why_not(&self) -> Option<&str> {
        self.why_not.as_deref()
    }

    pub(super) fn is_on(&self) -> bool {
        self.volumes.is_some()
    }

    /// Where the agent of a server finds its gate.
    pub(super) fn run_folder(&self, state: &Path) -> PathBuf {
        if self.is_on() { self.place.run() } else { state.join("run") }
    }

    /// What is asked of the sites' contents.
    pub(super) fn policy(&self) -> PolicyChange {
        if !self.is_on() {
            return PolicyChange::default();
        }
        // Who has a look has no player that could read a drawing, but these two.
        let programs =
            ["head", "tail"].map(|name| ProgramRule { program: name.to_owned(), user: None, treatment: Treatment::Stream });
        PolicyChange {
            free_percent: Some(FREE_PERCENT),
            // Nobody waits ten minutes to see something go.
            grace_s: Some(0),
            stream_from: Some(STREAM_FROM),
            programs: Some(programs.into()),
            ..PolicyChange::default()
        }
    }

    /// Begins to make drawings at the first site, or goes on with it.
    pub(super) fn begin_drawings(&mut self) {
        if !self.is_on() {
            return;
        }
        let (folder, own) = (self.base.join(SITES[0]), self.base.join("data/drawings"));
        let (bytes, progress) = (self.bytes, self.progress.clone());
        self.making = Some(tokio::task::spawn_blocking(move || drawings::make(&folder, &own, bytes, &progress)));
    }

    /// Why no more drawings are made before all are.
    pub(super) async fn failed(&mut self) -> Result<(), Failure> {
        match self.making.take_if(|making| making.is_finished()) {
            Some(making) => made(making).await,
            None => Ok(()),
        }
    }

    pub(super) fn drawn(&self) -> Drawn {
        let (made, all) = self.progress.now();
        Drawn { made, all, is_large: made > 0 && drawings::large_bytes(self.bytes) >= STREAM_FROM }
    }

    /// What the sites' agents say; nothing of one that does not answer yet.
    pub(super) async fn look(&self) -> Vec<SiteVolume> {
        if !self.is_on() {
            return Vec::new();
        }
        let base = self.base.clone();
        let looked = tokio::task::spawn_blocking(move || SITES.iter().filter_map(|site| look(&base, site)).collect());
        looked.await.unwrap_or_default()
    }

    /// Ends the making of drawings, and detaches the volumes; after the agents have stopped.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        self.progress.end();
        let drawn = match self.making.take() {
            Some(making) => made(making).await,
            None => Ok(()),
        };
        let Some(volumes) = self.volumes.take() else { return drawn };
        let stopped = tokio::task::spawn_blocking(move || volumes.stop()).await;
        stopped.unwrap_or_else(|error| Err(Failure::failed(format!("Volumes of the demo broke down: {error}")))).and(drawn)
    }
}

async fn made(making: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    making.await.unwrap_or_else(|error| Err(Failure::failed(format!("Drawings of the demo broke down: {error}"))))
}

/// The volumes, or why there are none although they were wanted; `drawings` is how much is to be made in a folder that is new.
fn prepare(place: &Place, is_plain: bool, drawings: Option<u64>) -> Result<Result<Option<Volumes>, String>, Failure> {
    let has_volumes = place.has_volumes();
    if !has_volumes && (is_plain || drawings.is_none()) {
        return Ok(Ok(None));
    }
    match place.can_guard(drawings.filter(|_| !has_volumes)) {
        Ok(()) => {}
        Err(why) if has_volumes => {
            let failure = Failure::new(Exit::Refused, format!("The files of this demo are on volumes of their own, and {why}"));
            return Err(failure.with_remedy("Start it as it was started first, or give another folder with --dir"));
        }
        Err(why) => return Ok(Err(why)),
    }
    place.clear()?;
    Volumes::attach(place).map(|volumes| Ok(Some(volumes)))
}

fn look(base: &Path, site: &str) -> Option<SiteVolume> {
    let (folder, state) = (base.join(site), base.join("data").join(site));
    let path = ShownPath::new(folder.as_os_str().as_bytes());
    let AgentAnswer::Heat(rows) = control::ask(&state, &Request::Heat { path: path.clone(), depth: 1 }).ok()? else {
        return None;
    };
    let AgentAnswer::Why(why) = control::ask(&state, &Request::Why { path }).ok()? else { return None };
    let space = rustix::fs::statvfs(&folder).ok()?;
    let below = why.below.unwrap_or_default();
    let mut bands = <[u64; control::BANDS_DAYS.len() + 1]>::default();
    rows.iter().for_each(|row| bands.iter_mut().zip(row.bands).for_each(|(bytes, more)| *bytes += more));
    Some(SiteVolume {
        name: site.to_owned(),
        free: space.f_bavail * space.f_frsize,
        total: space.f_blocks * space.f_frsize,
        here: below.bytes - below.tiered_bytes,
        tiered_files: below.tiered_files,
        tiered_bytes: below.tiered_bytes,
        bands,
        happened: why.happened,
    })
}
