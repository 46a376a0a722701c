//! Sending again what the share has lost: contents that a check of the service found damaged and that this endpoint has.
//!
//! It stands beside the engine, which knows nothing of it: no node, no version and nothing on this server changes. What is
//! wanted is kept by the service, so nothing is kept here. **Invariant:** only files are read whose record is settled and
//! whose inode shows what is recorded; a file that turns out to hold something else is left to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isotherm_api::share::{Wanted, WantedContent};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::NodeId;
use isotherm_core::trees::State;
use tokio::sync::watch;

use crate::catalog::CatalogReader;
use crate::engine::{Away, ReadRequest, ReadResult};
use crate::remote::{Share, Uploader};
use crate::volume::{Volume, print_of};

/// First and longest pause after a failure; the first one also lies between two questions.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What could not be sent is tried again after this time: a file may have been changing, or not have arrived yet.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// Sends again what the share of one endpoint has lost.
pub(super) struct Repairer {
    volume: Arc<Volume>,
    share: Arc<Share>,
    uploader: Uploader,
    catalog: CatalogReader,
}

/// The newest round that was dealt with, and how many contents are left that this endpoint could not send.
struct Passed {
    round: u64,
    left: usize,
}

impl Repairer {
    pub(super) fn new(volume: &Arc<Volume>, share: &Arc<Share>, catalog: CatalogReader) -> Self {
        let uploader = Uploader::new(Arc::clone(volume), Arc::clone(share), None);
        Self { volume: Arc::clone(volume), share: Arc::clone(share), uploader, catalog }
    }

    /// Works until `stopped` is told so or its sender is gone. Reading a file is broken off by [`Share::stop`].
    pub(super) fn run(self, mut stopped: watch::Receiver<bool>) {
        let (mut seen, mut pause) = (0, PAUSE.0);
        let mut again: Option<Instant> = None;
        loop {
            if again.is_some_and(|at| at <= Instant::now()) {
                (seen, again) = (0, None);
            }
            let Some(news) = self.unless(&mut stopped, self.share.wanted(seen, None, true)) else { return };
            match news.and_then(|first| self.pass(&mut stopped, seen, first)) {
                Ok(passed) => {
                    pause = PAUSE.0;
                    if let Some(Passed { round, left }) = passed {
                        seen = round;
                        again = (left > 0).then(|| Instant::now() + AGAIN);
                    }
                }
                Err(away) => {
                    tracing::debug!(why = away.text, "What the share has lost cannot be sent now");
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            let rest = async { tokio::time::sleep(pause).await };
            if self.unless(&mut stopped, rest).is_none() {
                return;
            }
        }
    }

    /// What `work` gives; none if the endpoint stops first.
    fn unless<T>(&self, stopped: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
        self.share.runtime().block_on(async {
            tokio::select! {
                // An error means that nobody is left who could say so.
                _ = stopped.wait_for(|stopped| *stopped) => None,
                value = work => Some(value),
            }
        })
    }

    /// Goes once through all that is wanted; none if nothing is.
    fn pass(&self, stopped: &mut watch::Receiver<bool>, seen: u64, first: Wanted) -> Result<Option<Passed>, Away> {
        if first.contents.is_empty() {
            return Ok(None);
        }
        let mut passed = Passed { round: first.round, left: 0 };
        let mut page = first;
        loop {
            passed.left += self.send(&page.contents)?;
            let Some(after) = page.next else { return Ok(Some(passed)) };
            let stopping = || Err(Away { text: "The agent is stopping".to_owned(), retry: true });
            page = self.unless(stopped, self.share.wanted(seen, Some(after), false)).unwrap_or_else(stopping)?;
        }
    }

    /// Sends those of the wanted contents that are here; gives how many are left.
    fn send(&self, wanted: &[WantedContent]) -> Result<usize, Away> {
        let mut holders: BTreeMap<ManifestId, Vec<ReadRequest>> = BTreeMap::new();
        for one in wanted {
            if let Some(request) = self.holder(one) {
                holders.entry(one.manifest).or_default().push(request);
            }
        }
        let mut sent = BTreeSet::new();
        // Equal files are one content: the next one is read only where the one before has not helped.
        while !holders.is_empty() {
            let mut requests = Vec::new();
            let mut reading: BTreeMap<NodeId, ManifestId> = BTreeMap::new();
            for (manifest, holders) in &mut holders {
                if let Some(request) = holders.pop() {
                    reading.insert(request.node, *manifest);
                    requests.push(request);
                }
            }
            for (node, result) in self.uploader.read(requests) {
                let Some(manifest) = reading.get(&node) else { continue };
                match result {
                    ReadResult::Content { content, .. } if content.manifest == *manifest => {
                        sent.insert(*manifest);
                    }
                    ReadResult::Away(away) => return Err(away),
                    other => tracing::warn!(%node, ?other, "A file does not hold any more what the share has lost of it"),
                }
            }
            holders.retain(|manifest, holders| !sent.contains(manifest) && !holders.is_empty());
        }
        if !sent.is_empty() {
            tracing::info!(contents = sent.len(), "Content that the share had lost was sent again");
        }
        Ok(wanted.iter().filter(|one| !sent.contains(&one.manifest)).count())
    }

    /// The file of a wanted content, if it is here as it was when both sides last agreed.
    fn holder(&self, wanted: &WantedContent) -> Option<ReadRequest> {
        let record = self.catalog.record(wanted.node)?;
        let local = record.here().filter(|_| record.state() == State::Settled)?;
        let is_wanted = local.known()?.file()?.manifest == wanted.manifest;
        let shown = self.volume.inode(&local.handle).and_then(|inode| inode.stat()).ok()?;
        let is_unchanged = print_of(&shown) == local.print;
        let request = ReadRequest { node: wanted.node, handle: local.handle.clone(), size: local.print.size, tries: 0 };
        (is_wanted && is_unchanged).then_some(request)
    }
}
