//! The gate's process: mounts volumes, guards them, attaches them, and lets an agent decide about stubs.
//!
//! No network and no database. Its threads that answer the kernel never touch a guarded volume: if they waited for one, it
//! would wait for them. **Invariants:** a volume is guarded before users see it, and until they do not see it any more; what
//! the agent does not answer is refused after a while, and never let through.

mod arm;
mod attend;
mod bare;
mod guarded;
mod keeper;
mod kept;
pub(crate) mod list;
mod readers;
mod requests;
mod systemd;

pub(crate) use guarded::agent_lock;
pub use keeper::keep;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::device::{DeviceError, MountError};
use crate::guard::GuardUnavailable;
use crate::link::{GATE_SOCKET, LinkError, Listener, VolumeId};
use crate::lock::{LockError, StateLock, lock_exclusive};
use crate::safety_net::{NetUnavailable, SafetyNet};
use guarded::Guarded;
use kept::{Held, Kept};
use list::Listed;

/// Descriptors that the gate may hold: each caller that waits takes one.
const DESCRIPTORS: u64 = 1 << 20;
/// Between two tries to guard a volume that could not be.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at whether to end.
const LOOK: Duration = Duration::from_millis(200);
/// The lock in the run folder that says that there is a gate.
const LOCK: &str = "gate.lock";

/// Where a gate works.
#[derive(Debug, Clone)]
pub struct GateOptions {
    /// Folder of the list of volumes, root's alone.
    pub state: PathBuf,
    /// Folder of sockets and locks, root's alone; the same for agent and keeper.
    pub run: PathBuf,
    /// What starts a keeper where none answers.
    pub keeper: Vec<OsString>,
}

/// Why a gate does not work, or does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GateFailure {
    /// The list of volumes cannot be used.
    #[error("Cannot use the list of volumes '{path}': {text}", path = path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        text: String,
    },
    /// A folder cannot be made.
    #[error("Cannot use the folder '{path}': {source}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another gate runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Nobody can speak to it.
    #[error("Cannot listen: {0}")]
    Link(#[from] LinkError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It cannot be mounted or attached.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The kernel does not guard it.
    #[error("Cannot guard it: {0}")]
    Guard(#[from] GuardUnavailable),
    /// The request makes no sense.
    #[error("{0}")]
    Refused(String),
}

/// A gate.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    listener: Listener,
    _lock: StateLock,
}

/// What all conversations share.
#[derive(Debug)]
struct Shared {
    options: GateOptions,
    kept: Mutex<Kept>,
    volumes: Mutex<BTreeMap<VolumeId, Entry>>,
    net: SafetyNet,
    /// What was said of the net last.
    net_told: Mutex<Option<Result<(), NetUnavailable>>>,
    /// It was asked to detach all and end.
    over: AtomicBool,
}

#[derive(Debug)]
enum Entry {
    Guarded(Arc<Guarded>),
    /// Not guarded and not attached, and why.
    Failed(Listed, String),
}

impl Entry {
    fn listed(&self) -> &Listed {
        match self {
            Self::Guarded(guarded) => guarded.listed(),
            Self::Failed(listed, _) => listed,
        }
    }
}

impl Gate {
    /// Guards all volumes of the list: those that a keeper holds go on, the others are mounted. A volume that cannot be guarded is
    /// tried again and again, and the others go on without it.
    ///
    /// # Errors
    /// [`GateFailure`], if no volume could be guarded because of it.
    pub fn start(options: GateOptions) -> Result<Self, GateFailure> {
        for path in [&options.state, &options.run] {
            private_folder(path).map_err(|source| GateFailure::Folder { path: path.clone(), source })?;
        }
        let lock = lock_exclusive(&options.run.join(LOCK))?;
        let listed = list::read(&options.state)?;
        crate::raise_nofile(DESCRIPTORS);
        crate::process::be_spared_by_oom_killer();
        let mut kept = Kept::new(&options.run, options.keeper.clone());
        let mut held = kept.take_over(&listed.iter().map(|listed| listed.id.0).collect::<Vec<_>>());
        let listener = Listener::bind(&options.run.join(GATE_SOCKET))?;
        let shared = Shared {
            net: SafetyNet::of(&options.run),
            net_told: Mutex::default(),
            options,
            kept: Mutex::new(kept),
            volumes: Mutex::default(),
            over: AtomicBool::new(false),
        };
        // Before anybody can see a volume.
        shared.spread_net(&listed);
        for one in listed {
            let entry = shared.guard(one.clone(), held.remove(&one.id.0));
            shared.volumes().insert(one.id.0, entry);
        }
        Ok(Self { shared: Arc::new(shared), listener, _lock: lock })
    }

    /// Serves until `stop` is set, and leaves what is attached attached, for the next gate; or until somebody asks for the end.
    /// True if all was detached.
    ///
    /// # Errors
    /// Nobody can be heard any more.
    pub fn run(self, stop: &AtomicBool) -> Result<bool, GateFailure> {
        let mut tried = Instant::now();
        while !stop.load(Ordering::Relaxed) && !self.shared.over.load(Ordering::Relaxed) {
            match self.listener.accept(LOOK) {
                Ok(Some(client)) => {
                    let shared = Arc::clone(&self.shared);
                    std::thread::spawn(move || requests::converse(&shared, &client));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "A conversation could not be begun");
                    std::thread::sleep(LOOK);
                }
            }
            self.shared.mind_keeper();
            if tried.elapsed() >= AGAIN {
                self.shared.try_again();
                tried = Instant::now();
            }
        }
        Ok(self.shared.over.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn volumes(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Entry>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self, listed: Listed, held: Option<Held>) -> Entry {
        // With a group of its own it would be guarded as well, but whoever waits at the keeper's would be let through with it.
        let held = held.or_else(|| self.kept().held(listed.id.0));
        let guarded = match held {
            Some(held) => Guarded::take_over(listed.clone(), held, &self.options.run),
            None => Guarded::begin(listed.clone(), &self.options.run),
        };
        match guarded {
            Ok(guarded) => {
                guarded.set_kept(self.kept().keep(listed.id.0, guarded.group(), &guarded.mounted()));
                Entry::Guarded(guarded)
            }
            Err(error) => {
                tracing::error!(path = %listed.settings.path.display(), %error, "A volume is not guarded, and so it is not attached");
                Entry::Failed(listed, error.to_string())
            }
        }
    }

    /// What refuses to open stubs when every holder of a group has died. Without it the gate works as well.
    fn spread_net(&self, listed: &[Listed]) {
        let volumes: Vec<VolumeId> = listed.iter().map(|listed| listed.id.0).collect();
        let spread = self.net.spread(&volumes);
        let mut told = self.net_told.lock().unwrap_or_else(PoisonError::into_inner);
        // Where there are no volumes nothing was tried.
        if volumes.is_empty() || told.as_ref() == Some(&spread) {
            return;
        }
        match &spread {
            Ok(()) => tracing::info!("Where nobody guards a volume, the kernel refuses to open its tiered files"),
            Err(why) => {
                tracing::warn!(%why, "There is no safety net: if gate, keeper and agent die at once, tiered files read as zeros")
            }
        }
        *told = Some(spread);
    }

    /// Volumes that could not be guarded.
    fn try_again(&self) {
        let mut volumes = self.volumes();
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        for entry in volumes.values_mut() {
            if let Entry::Failed(listed, _) = entry {
                *entry = self.guard(listed.clone(), None);
            }
        }
    }

    /// A keeper that has ended is followed by another at once: until then one death more opens everything.
    fn mind_keeper(&self) {
        let volumes = self.volumes();
        if volumes.is_empty() || self.kept().is_there() {
            return;
        }
        for (id, entry) in volumes.iter() {
            if let Entry::Guarded(guarded) = entry {
                guarded.set_kept(self.kept().keep(*id, guarded.group(), &guarded.mounted()));
            }
        }
    }

    fn listed(&self) -> Vec<Listed> {
        self.volumes().values().map(|entry| entry.listed().clone()).collect()
    }
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
