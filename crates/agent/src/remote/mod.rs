//! The service as one endpoint needs it: feed, snapshot, commits, contents.
//!
//! It decides nothing and retries nothing; whatever fails becomes [`Away`], and the engine tries again. **Invariant:** each
//! request of the engine is answered exactly once.

mod content;
mod limiter;
mod upload;

pub use limiter::{Limiter, Turn};
pub use upload::{Sender, Uploader};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use isotherm_api::limits::{BODY_MAX, FEED_MAX, IDS_MAX, OPERATIONS_MAX, WANTED_MAX};
use isotherm_api::share::{SnapshotFrame, Wanted, WantedRequest};
use isotherm_api::{ApiError, Client, Code};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Cursor, Epoch, GroupId, Incarnation, NodeId, ServerId};
use isotherm_core::namespace::{Answer, Batch, History, Operation, Page, Reader};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::engine::{Away, Event, SnapshotPart};

/// How long the service may hold a request for changes, in milliseconds.
const WAIT_MS: u64 = 30_000;
/// Former contents of one node that are asked for.
const HISTORY: u32 = 100;
/// Packs of an agent that are on their way at a time: each takes 32 MiB of memory here and at the service, which has eight places, and
/// its part of the line.
const PACKS: usize = 4;
/// Bytes of one commit; the rest of a request's room is for what surrounds them.
const COMMIT_BYTES: usize = BODY_MAX / 2;

/// No epoch: the service gives numbers from 1.
const UNATTACHED: Epoch = Epoch(0);

/// This server at the service.
#[derive(Debug)]
pub struct Attachment {
    /// The connection.
    pub client: Client,
    /// This server's id.
    pub server: ServerId,
    epoch: AtomicU64,
    /// Places for packs on their way.
    pub(crate) packs: Arc<Semaphore>,
    pub(crate) limiter: Arc<Limiter>,
}

impl Attachment {
    /// A run of this server's agent.
    #[must_use]
    pub fn new(client: Client, server: ServerId, epoch: Epoch) -> Self {
        Self { client, server, epoch: AtomicU64::new(epoch.0), packs: Arc::new(Semaphore::new(PACKS)), limiter: Arc::default() }
    }

    /// A run that the service has not answered yet. It commits nothing until it has an epoch.
    #[must_use]
    pub fn unattached(client: Client, server: ServerId) -> Self {
        Self::new(client, server, UNATTACHED)
    }

    /// The same, whose contents pass this limiter.
    #[must_use]
    pub fn limited_by(self, limiter: Arc<Limiter>) -> Self {
        Self { limiter, ..self }
    }

    fn is_attached(&self) -> bool {
        self.epoch() != UNATTACHED
    }

    /// The newest epoch that the service gave to this run.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// The service gave this run another epoch.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
    }
}

/// Bytes that went over the network, since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// Bytes sent and bytes received.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }
}

/// The share of one endpoint.
#[derive(Debug)]
pub struct Share {
    attachment: Arc<Attachment>,
    group: GroupId,
    /// The share's life that the engine follows.
    incarnation: AtomicU64,
    runtime: Handle,
    traffic: Traffic,
    stopping: AtomicBool,
}

impl Share {
    /// The share of `group`. Blocking calls run their requests on `runtime`.
    #[must_use]
    pub fn new(attachment: Arc<Attachment>, group: GroupId, runtime: Handle) -> Self {
        Self {
            attachment,
            group,
            incarnation: AtomicU64::new(0),
            runtime,
            traffic: Traffic::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Bytes that went over the network.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Which life of the share the bases of coming commits belong to.
    pub fn follow(&self, cursor: Cursor) {
        self.incarnation.store(cursor.incarnation.0, Ordering::Relaxed);
    }

    /// Breaks off transfers that are under way, at the next chunk.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn go_on(&self) -> Result<(), Away> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(stopping());
        }
        Ok(())
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn client(&self) -> &Client {
        &self.attachment.client
    }

    fn limiter(&self) -> &Limiter {
        &self.attachment.limiter
    }

    /// Reads a page of the change feed.
    ///
    /// # Errors
    /// The service is away.
    pub async fn fetch(&self, reader: Reader, wait: bool) -> Result<Page, Away> {
        self.require_attachment()?;
        let wait_ms = if wait { WAIT_MS } else { 0 };
        let page = self.client().feed(self.group, reader, FEED_MAX as u32, wait_ms).await.map_err(away)?;
        if !page.start_over {
            self.follow(page.cursor);
        }
        Ok(page)
    }

    /// Reads a snapshot; each piece goes to `sink`, the last one is complete or the reason why there is none. Each piece takes one
    /// of `room`, and whoever has taken it in gives that back: the service is faster than a catalog.
    pub async fn fetch_snapshot(&self, room: &Semaphore, mut sink: impl FnMut(Event)) {
        if let Err(error) = self.snapshot(room, &mut sink).await {
            sink(Event::Snapshot(Err(away(error))));
        }
    }

    async fn snapshot(&self, room: &Semaphore, sink: &mut impl FnMut(Event)) -> Result<(), ApiError> {
        let mut stream = self.client().snapshot(self.group).await?;
        let mut at = None;
        while let Some(frame) = stream.next_frame().await? {
            let part = match frame {
                SnapshotFrame::Header { cursor, lives } => {
                    at = Some(cursor);
                    let history = Some((History { lives, present: cursor.incarnation }, cursor.version));
                    SnapshotPart { history, nodes: Vec::new(), complete: None }
                }
                SnapshotFrame::Nodes(nodes) => SnapshotPart { history: None, nodes, complete: None },
                SnapshotFrame::End { .. } => {
                    let cursor = at.ok_or_else(|| ApiError::new(Code::Answer, "Snapshot has no header"))?;
                    self.follow(cursor);
                    SnapshotPart { history: None, nodes: Vec::new(), complete: Some(cursor) }
                }
            };
            if let Ok(place) = room.acquire().await {
                place.forget();
            }
            sink(Event::Snapshot(Ok(part)));
        }
        Ok(())
    }

    /// Before the service has answered this run nothing of the share is acted on: the endpoint may have been paused or removed
    /// in the meantime.
    fn require_attachment(&self) -> Result<(), Away> {
        if self.attachment.is_attached() {
            return Ok(());
        }
        Err(Away { text: "The service has not been reached since this agent started".to_owned(), retry: true })
    }

    /// Commits operations, in as many requests as they need; groups stay together.
    ///
    /// # Errors
    /// The service is away; then nothing is known of any of them, and sending the same again is harmless.
    pub async fn commit(&self, operations: Vec<Operation>) -> Result<Vec<Answer>, Away> {
        self.require_attachment()?;
        let mut answers = Vec::with_capacity(operations.len());
        for operations in requests(operations) {
            let asked = operations.len();
            let batch = Batch {
                server: self.attachment.server,
                epoch: self.attachment.epoch(),
                incarnation: Incarnation(self.incarnation.load(Ordering::Relaxed)),
                operations,
            };
            let answered = self.client().commit(self.group, &batch).await.map_err(away)?;
            if answered.len() != asked {
                let text = format!("The service answered {} of {asked} operations", answered.len());
                return Err(Away { text, retry: true });
            }
            answers.extend(answered);
        }
        Ok(answers)
    }

    /// A page of the contents that the share has lost, if a check has found more of them than in the round `seen`; the first
    /// page is waited for a while, if asked.
    ///
    /// # Errors
    /// The service is away.
    pub async fn wanted(&self, seen: u64, after: Option<NodeId>, wait: bool) -> Result<Wanted, Away> {
        self.require_attachment()?;
        let (server, epoch) = (self.attachment.server, self.attachment.epoch());
        let wait_ms = if wait { WAIT_MS } else { 0 };
        let request = WantedRequest { server, epoch, seen, after, limit: WANTED_MAX as u32, wait_ms };
        self.client().wanted(self.group, &request).await.map_err(away)
    }

    /// Former contents of nodes, newest first.
    ///
    /// # Errors
    /// The service is away.
    pub async fn history(&self, nodes: Vec<NodeId>) -> Result<Vec<(NodeId, Vec<ManifestId>)>, Away> {
        let mut found = Vec::with_capacity(nodes.len());
        for part in nodes.chunks(IDS_MAX) {
            let histories = self.client().history(self.group, part, HISTORY).await.map_err(away)?;
            found.extend(part.iter().copied().zip(histories));
        }
        Ok(found)
    }

    /// Contents that these nodes have or had in the share, for who is no part of the runtime.
    ///
    /// # Errors
    ///
    /// Those of [`Self::history`].
    pub fn had(&self, nodes: &[NodeId]) -> Result<Vec<ManifestId>, Away> {
        let histories = self.runtime().block_on(self.history(nodes.to_vec()))?;
        Ok(histories.into_iter().flat_map(|(_, manifests)| manifests).collect())
    }
}

/// Splits operations so that each request keeps the limits.
fn requests(operations: Vec<Operation>) -> Vec<Vec<Operation>> {
    let mut requests: Vec<Vec<Operation>> = Vec::new();
    let mut bytes = 0;
    for operation in operations {
        let size = isotherm_api::wire::encode(&operation).len();
        let last = requests.last().and_then(|request| request.last());
        let joined = operation.group.is_some() && last.is_some_and(|last| last.group == operation.group);
        let full = requests.last().is_none_or(|request| request.len() >= OPERATIONS_MAX || bytes + size > COMMIT_BYTES);
        if full && !joined {
            requests.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(request) = requests.last_mut() {
            request.push(operation);
        }
    }
    requests
}

fn stopping() -> Away {
    Away { text: "The agent is stopping".to_owned(), retry: true }
}

/// Why the service cannot do it now.
pub(crate) fn away(error: ApiError) -> Away {
    Away { text: error.message, retry: error.retryable }
}
