//! Sending chunks and manifests: asks what the share has, packs what it lacks, and keeps a few packs on their way while the
//! next one is made.
//!
//! **Invariant:** manifests are sent only after all chunks that were pushed are durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isotherm_api::limits::{BODY_MAX, IDS_MAX, MANIFESTS_MAX};
use isotherm_api::share::ManifestAnswer;
use isotherm_api::{ApiError, Client};
use isotherm_core::content::{ChunkId, Manifest, ManifestId, PackBuilder};
use isotherm_core::ids::GroupId;
use tokio::task::JoinHandle;

use super::super::{Share, away, stopping};
use crate::engine::Away;

/// Bytes of chunks that are collected before the share is asked about them.
const WINDOW: usize = 8 << 20;
/// Packs of one upload on their way at a time: one alone waits for each answer, which over a long line is most of the time.
const ON_THEIR_WAY: usize = 3;
/// Bytes of manifests in one request, well below what a body may have.
const MANIFEST_BYTES: usize = BODY_MAX / 2;

/// What was sent is asked for again this often: the service keeps what nothing names for a day after it came or was asked
/// for, and half of that is left to whoever asked before.
const RENEW_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

/// One upload.
#[derive(Debug)]
pub struct Sender<'a> {
    share: &'a Share,
    /// All that the share has of this upload, 32 bytes for each chunk.
    sent: BTreeSet<ChunkId>,
    renewed: Instant,
    renew_after: Duration,
    window: Vec<(ChunkId, Vec<u8>)>,
    window_bytes: usize,
    pack: PackBuilder,
    /// The oldest first.
    on_their_way: VecDeque<JoinHandle<Result<(), ApiError>>>,
    manifests: BTreeMap<ManifestId, Vec<u8>>,
    /// Pieces of manifests that are too large for one.
    extra: Vec<(ChunkId, Vec<u8>)>,
}

impl<'a> Sender<'a> {
    /// An upload to this share.
    #[must_use]
    pub fn new(share: &'a Share) -> Self {
        Self::renewing_after(share, RENEW_AFTER)
    }

    /// The same, which asks for what was sent so often.
    #[must_use]
    pub fn renewing_after(share: &'a Share, renew_after: Duration) -> Self {
        Self {
            share,
            sent: BTreeSet::new(),
            renewed: Instant::now(),
            renew_after,
            window: Vec::new(),
            window_bytes: 0,
            pack: PackBuilder::new(),
            on_their_way: VecDeque::new(),
            manifests: BTreeMap::new(),
            extra: Vec::new(),
        }
    }

    /// Takes a chunk that is to be in the share.
    ///
    /// # Errors
    /// The share cannot be reached, or has let go of what was sent.
    pub fn push(&mut self, chunk: ChunkId, bytes: &[u8]) -> Result<(), Away> {
        self.window_bytes += bytes.len();
        self.window.push((chunk, bytes.to_vec()));
        if self.window_bytes < WINDOW {
            return Ok(());
        }
        self.window_bytes = 0;
        let window = std::mem::take(&mut self.window);
        self.send(window)
    }

    /// Takes a manifest that is to be in the share once all chunks are.
    pub fn name(&mut self, manifest: &Manifest) {
        let encoded = manifest.encode();
        self.extra.extend(encoded.extra_chunks);
        self.manifests.insert(encoded.id, encoded.bytes);
    }

    /// Puts into packs what the share lacks of these chunks.
    ///
    /// # Errors
    /// As those of [`Sender::push`].
    pub fn send(&mut self, chunks: Vec<(ChunkId, Vec<u8>)>) -> Result<(), Away> {
        self.share.go_on()?;
        self.renew()?;
        let ids: BTreeSet<ChunkId> = chunks.iter().map(|(chunk, _)| *chunk).collect();
        // What this upload has sent may still be on its way.
        let unknown: BTreeSet<ChunkId> = ids.difference(&self.sent).copied().collect();
        let mut lacking = self.lacking(&unknown)?;
        self.sent.extend(ids);
        for (chunk, bytes) in chunks {
            if !lacking.remove(&chunk) {
                continue;
            }
            self.pack.push(chunk, &bytes).map_err(|error| Away { text: error.to_string(), retry: false })?;
            if self.pack.is_ripe() || self.share.limiter().portion_up().is_some_and(|most| self.pack.stored_len() as u64 >= most)
            {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// Which chunks the share does not have; those that it has stay there for a while.
    fn lacking(&self, chunks: &BTreeSet<ChunkId>) -> Result<BTreeSet<ChunkId>, Away> {
        let ids: Vec<ChunkId> = chunks.iter().copied().collect();
        let mut lacking = BTreeSet::new();
        for part in ids.chunks(IDS_MAX) {
            let have = self.wait(self.client().have(self.group(), part))?;
            lacking.extend(part.iter().zip(have).filter(|(_, has)| !has).map(|(id, _)| *id));
        }
        Ok(lacking)
    }

    /// Sees to it, in an upload that takes long, that the share does not let go of what was sent first.
    fn renew(&mut self) -> Result<(), Away> {
        if self.renewed.elapsed() < self.renew_after {
            return Ok(());
        }
        // What has not arrived yet cannot be asked for.
        self.seal()?;
        self.arrive(0)?;
        if !self.lacking(&self.sent)?.is_empty() {
            return Err(Away {
                text: "The service has let go of what was sent first; the file is sent again".to_owned(),
                retry: true,
            });
        }
        self.renewed = Instant::now();
        Ok(())
    }

    /// Sends the pack as it is, as soon as there is room for it on the way.
    fn seal(&mut self) -> Result<(), Away> {
        self.arrive(ON_THEIR_WAY - 1)?;
        let pack = std::mem::replace(&mut self.pack, PackBuilder::new());
        if pack.is_empty() {
            return Ok(());
        }
        let (_, bytes, _) = pack.finish();
        // Before it takes a place: there are few, here and at the service.
        if !self.share.limiter().send(bytes.len() as u64, &|| self.share.go_on().is_ok()) {
            return Err(stopping());
        }
        self.share.traffic.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let (client, group) = (self.client().clone(), self.group());
        let place = self.share.runtime.block_on(Arc::clone(&self.share.attachment.packs).acquire_owned());
        let sending = async move {
            let _place = place;
            client.put_pack(group, bytes).await.map(|_| ())
        };
        self.on_their_way.push_back(self.share.runtime.spawn(sending));
        Ok(())
    }

    /// Waits until no more than so many packs are on their way.
    fn arrive(&mut self, left: usize) -> Result<(), Away> {
        while self.on_their_way.len() > left
            && let Some(sending) = self.on_their_way.pop_front()
        {
            match self.share.runtime.block_on(sending) {
                Ok(sent) => sent.map_err(away)?,
                Err(_) => return Err(stopping()),
            }
        }
        Ok(())
    }

    /// Everything that is left, then the manifests.
    ///
    /// # Errors
    /// As those of [`Sender::push`].
    pub fn finish(mut self) -> Result<(), Away> {
        let mut rest = std::mem::take(&mut self.window);
        rest.append(&mut self.extra);
        self.send(rest)?;
        self.seal()?;
        self.arrive(0)?;
        self.renew()?;
        let manifests: Vec<Vec<u8>> = std::mem::take(&mut self.manifests).into_values().collect();
        for part in parts(manifests) {
            let answers = self.wait(self.client().put_manifests(self.group(), part))?;
            if answers.iter().any(|answer| matches!(answer, ManifestAnswer::Missing(_))) {
                return Err(Away { text: "The service has lost parts of a manifest that was just sent".to_owned(), retry: true });
            }
        }
        Ok(())
    }

    fn wait<T>(&self, request: impl Future<Output = Result<T, ApiError>>) -> Result<T, Away> {
        self.share.runtime.block_on(request).map_err(away)
    }

    fn client(&self) -> &'a Client {
        self.share.client()
    }

    fn group(&self) -> GroupId {
        self.share.group
    }
}

/// What was begun and is not waited for any more would go on beside the next try.
impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.on_their_way.iter().for_each(JoinHandle::abort);
    }
}

fn parts(manifests: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut parts: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut bytes = 0;
    for manifest in manifests {
        let full = parts.last().is_none_or(|part| part.len() >= MANIFESTS_MAX || bytes + manifest.len() > MANIFEST_BYTES);
        if full {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += manifest.len();
        if let Some(part) = parts.last_mut() {
            part.push(manifest);
        }
    }
    parts
}
