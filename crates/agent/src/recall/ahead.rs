//! What is fetched of several small contents at once, before each is filled in: a request for each would take longer than its bytes.
//!
//! **Invariant:** it is of use and never needed: what is not in it is asked for when its turn comes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use isotherm_core::content::{ChunkId, Manifest, ManifestId};
use isotherm_core::stub::{ContentPrefix, StubRecord};
use isotherm_core::trees::Handle;

use super::FromShare;
use crate::volume::Errand;

/// Bytes that are fetched ahead at most; more are asked for when they are needed.
const BYTES: u64 = 8 << 20;

/// Contents that have come.
#[derive(Debug, Default)]
pub struct Ahead {
    manifests: BTreeMap<(Handle, ContentPrefix), Manifest>,
    chunks: BTreeMap<ChunkId, Bytes>,
}

impl Ahead {
    /// Nothing.
    pub const NOTHING: Self = Self { manifests: BTreeMap::new(), chunks: BTreeMap::new() };

    /// The list of chunks of a file's content.
    pub(super) fn manifest(&self, file: &Handle, record: &StubRecord) -> Option<&Manifest> {
        self.manifests.get(&(file.clone(), record.content)).filter(|manifest| manifest.len() == record.size)
    }

    /// Whether all of a file's content has come.
    pub(super) fn has(&self, file: &Handle, record: &StubRecord) -> bool {
        self.manifest(file, record).is_some_and(|manifest| manifest.chunks().all(|(chunk, _)| self.chunks.contains_key(&chunk)))
    }

    /// The bytes of a chunk.
    pub(super) fn chunk(&self, chunk: &ChunkId) -> Option<&Bytes> {
        self.chunks.get(chunk)
    }

    /// With what another source has.
    pub(crate) fn join(&mut self, other: Self) {
        self.manifests.extend(other.manifests);
        self.chunks.extend(other.chunks);
    }
}

impl FromShare {
    /// Fetches contents of these files in two requests, as far as that can be; nothing where a limit makes contents wait, or the service is away.
    pub(super) fn fetch_ahead(&self, of: &[(Handle, StubRecord)], errand: &Errand<'_>) -> Ahead {
        let mut ahead = Ahead::default();
        if self.content.portion(false).is_some() {
            return ahead;
        }
        let found: Vec<(&(Handle, StubRecord), ManifestId)> =
            of.iter().filter_map(|one| Some((one, self.id_of(&one.0, &one.1).ok()??))).collect();
        let ids: Vec<ManifestId> = found.iter().map(|(_, id)| *id).collect();
        let Ok(manifests) = self.content.manifests(&ids) else { return ahead };
        for (((file, record), _), manifest) in found.into_iter().zip(manifests) {
            ahead.manifests.extend(manifest.map(|manifest| ((file.clone(), record.content), manifest)));
        }
        let (mut chunks, mut bytes) = (BTreeSet::new(), 0);
        for (chunk, len) in ahead.manifests.values().flat_map(Manifest::chunks) {
            if bytes + u64::from(len) <= BYTES && chunks.insert(chunk) {
                bytes += u64::from(len);
            }
        }
        let chunks: Vec<ChunkId> = chunks.into_iter().collect();
        let mut take = |chunk, bytes: Option<Bytes>| ahead.chunks.extend(bytes.map(|bytes| (chunk, bytes)));
        if let Err(away) = self.content.chunks((&chunks, bytes), &mut take, errand) {
            tracing::debug!(why = away.text, "Contents are not fetched ahead");
        }
        ahead
    }
}
