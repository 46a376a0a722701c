//! The storage sync service: namespace, content, change feed and management over HTTP.
//!
//! The rules of a share are core's; this crate keeps the records, the packs, and the connections. It serves loopback
//! addresses only, for there is no authentication yet.
//!
//! **Invariant:** what is answered as done is on disk. A request that failed has changed nothing that a client can see.
//!
//! How a commit goes: `http::share` decodes the batch, `records::Database` runs core's `apply` over `SqlRecords` inside
//! a transaction that it shares with whatever else waits, and `live::Live` wakes the readers of the feed once the
//! transaction is durable.

mod aging;
mod backup;
mod check;
mod clock;
mod collect;
mod content;
mod fault;
mod folder;
mod http;
mod live;
mod lives;
mod records;
mod rewrite;
mod strays;

pub use backup::{Backup, Progress, backup};
pub use fault::Fault;
pub use records::Ages;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use isotherm_api::check::{CheckRequest, CheckStatus};
use isotherm_api::collect::Collected;
use isotherm_store::{ChunkStore, FolderStore, StoreError};
use tokio::net::TcpListener;
use tokio::sync::watch;

use content::ContentStore;
use folder::DataFolder;
use live::Live;
use lives::OwnLives;
use records::Database;

/// How long a stopping service waits for requests that are under way.
const GRACE: Duration = Duration::from_secs(10);

/// What a service is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; it is made where there is none.
    pub data: PathBuf,
    /// How long things live that nothing names, in the collections that the service does by itself or is asked for.
    pub ages: Ages,
}

impl Options {
    /// The defaults for this data folder.
    pub fn at(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), ages: Ages::default() }
    }
}

/// Why a service does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another service works on the data folder.
    #[error("Data folder {} is in use by another service", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder was written by another release.
    #[error("Data folder has format {found} ({}), this release knows format {}", path.display(), folder::FORMAT)]
    Format {
        /// The file that tells the format.
        path: PathBuf,
        /// What it tells.
        found: String,
    },
    /// The data folder cannot be used.
    #[error("Data folder {} {what}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder for a backup holds that of another service.
    #[error("Folder {} holds the backup of {other}, and data folder {} is that of {own}", backup.display(), data.display())]
    OtherBackup {
        /// The data folder.
        data: PathBuf,
        /// Whose it is.
        own: String,
        /// The folder for the backup.
        backup: PathBuf,
        /// Whose backup that is.
        other: String,
    },
    /// The records cannot be used.
    #[error(transparent)]
    Records(#[from] Fault),
    /// The store of packs cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener is reachable from other machines.
    #[error(
        "Address {0} is not on this machine: the service listens on loopback addresses only, because it has no authentication yet"
    )]
    NotLoopback(SocketAddr),
    /// The listener failed.
    #[error("Service cannot listen: {0}")]
    Listen(std::io::Error),
}

/// An open service. Dropping it closes the database and gives the data folder free.
#[derive(Debug)]
pub struct Service {
    state: Arc<State>,
    /// Closed once the state is gone.
    released: watch::Receiver<()>,
}

/// What requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) database: Arc<Database>,
    pub(crate) content: ContentStore,
    pub(crate) live: Arc<Live>,
    pub(crate) lives: OwnLives,
    pub(crate) ages: Ages,
    pub(crate) checks: check::Checks,
    pub(crate) collections: collect::Collections,
    /// After the database and the packs, so that it is given free when both are closed.
    pub(crate) folder: DataFolder,
    /// Last of all.
    _released: watch::Sender<()>,
}

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Service {
    /// Opens the data folder, or makes it.
    ///
    /// # Errors
    /// Another service uses it, it is of another format, or it is damaged.
    pub async fn open(options: Options) -> Result<Self, ServiceError> {
        let ages = options.ages;
        let opening = tokio::task::spawn_blocking(move || {
            let folder = DataFolder::open(&options.data)?;
            let database = Database::open(&folder.database())?;
            // It was made just now where the folder is new; its log takes after it.
            folder::make_private(&folder.database());
            Ok::<_, ServiceError>((folder, database))
        });
        let (folder, database) = opening.await.map_err(Fault::from)??;
        let objects: Arc<dyn ChunkStore> = Arc::new(FolderStore::open(folder.objects()).await?);
        let database = Arc::new(database);
        let content = ContentStore::new(Arc::clone(&database), objects, ages);
        let (sender, released) = watch::channel(());
        let state = State {
            database,
            content,
            live: Arc::new(Live::new()),
            collections: collect::Collections::default(),
            lives: OwnLives::default(),
            ages,
            checks: check::Checks::default(),
            folder,
            _released: sender,
        };
        Ok(Self { state: Arc::new(state), released })
    }

    /// Collects garbage now. A running service does so by itself every few hours.
    ///
    /// # Errors
    /// `in_use`: it is being done already, or servers are waited for; those of the database and the store.
    pub async fn collect(&self, ages: Ages) -> Result<Collected, ServiceError> {
        Ok(collect::run(&self.state, ages).await?)
    }

    /// Checks now, to the end. A running service does so when it is asked to. Of the ages, the grace counts for strays.
    ///
    /// # Errors
    /// `in_use`: a check is running already; those of the database and the store.
    pub async fn check(&self, wanted: CheckRequest, ages: Ages) -> Result<CheckStatus, ServiceError> {
        Ok(check::run(&self.state, wanted, ages).await?)
    }

    /// Serves until `shutdown` ends, then lets requests under way finish; long polls end at once. When it returns, the
    /// database is closed and the data folder free, unless a request hangs.
    ///
    /// # Errors
    /// The listener is not on a loopback address, or fails.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServiceError> {
        let address = listener.local_addr().map_err(ServiceError::Listen)?;
        if !address.ip().is_loopback() {
            return Err(ServiceError::NotLoopback(address));
        }
        tracing::info!(%address, "Service listens");
        let state = Arc::clone(&self.state);
        let stop = async move {
            shutdown.await;
            state.live.stop();
        };
        // Small answers must not wait for the acknowledgement of earlier ones.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "Connection keeps its delay");
            }
        });
        let serving = http::serve(listener, http::router(Arc::clone(&self.state)), stop);
        let collecting = tokio::spawn(collect::run_regularly(Arc::clone(&self.state)));
        let stopped = self.state.live.stopped();
        let too_long = async {
            stopped.await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = serving => {}
            () = too_long => tracing::warn!("Requests were cut off because they did not end in time"),
        }
        collecting.abort();
        // Connections that are closing still hold the state for a moment.
        drop(self.state);
        if tokio::time::timeout(GRACE, self.released.changed()).await.is_err() {
            tracing::warn!("Data folder is not given free, because a request hangs");
        }
        Ok(())
    }
}
