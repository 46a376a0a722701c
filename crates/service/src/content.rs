//! Content: packs that come in, chunks that go out, manifests both ways.
//!
//! It joins the store of packs with the records of where chunks lie. It neither compresses nor collects.
//!
//! **Invariant:** a pack is hashed chunk by chunk before anything of it is kept, and is durable before its chunks are
//! known. What is read is hashed again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use isotherm_api::limits::{MANIFESTS_MAX, PACK_BODY_MAX};
use isotherm_api::share::{ManifestAnswer, PackStored};
use isotherm_core::content::pack::{check_header, read_footer};
use isotherm_core::content::{ChunkId, Decoded, Footer, Manifest, ManifestId, ManifestIndex, PackEntry, PackError, PackId};
use isotherm_store::{ChunkStore, Location, PackStore, StoreErrorKind};
use tokio::sync::{Mutex, RwLock, Semaphore};

use crate::clock::now_ms;
use crate::fault::Fault;
use crate::records::{self, Ages, Database, PackRow};

/// Most packs that are received at once: each may take [`PACK_BODY_MAX`] of memory.
const UPLOADS_MAX: usize = 8;

/// The content of all shares.
#[derive(Debug)]
pub(crate) struct ContentStore {
    database: Arc<Database>,
    objects: Arc<dyn ChunkStore>,
    packs: PackStore,
    uploads: Semaphore,
    /// Held for reading while a pack is stored and made known, for writing while packs are deleted.
    stores: RwLock<()>,
    ages: Ages,
    collecting: Arc<Mutex<()>>,
}

/// A manifest that is checked and waits to be kept.
struct Checked {
    id: ManifestId,
    bytes: Vec<u8>,
    /// For a large one: its own chunks and those of its content.
    chunks: Option<Vec<ChunkId>>,
}

impl ContentStore {
    pub(crate) fn new(database: Arc<Database>, objects: Arc<dyn ChunkStore>, ages: Ages) -> Self {
        let packs = PackStore::new(Arc::clone(&objects));
        Self {
            database,
            objects,
            packs,
            uploads: Semaphore::new(UPLOADS_MAX),
            stores: RwLock::default(),
            ages,
            collecting: Arc::default(),
        }
    }

    /// Waits for room to receive a pack. To be held while its body is in memory.
    pub(crate) async fn room(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Fault> {
        self.uploads.acquire().await.map_err(|_| Fault::stopping())
    }

    /// Checks and keeps a pack.
    pub(crate) async fn put_pack(&self, bytes: Bytes) -> Result<PackStored, Fault> {
        debug_assert!(bytes.len() <= PACK_BODY_MAX);
        let checked = bytes.clone();
        let (pack, entries) = tokio::task::spawn_blocking(move || check_pack(&checked))
            .await?
            .map_err(|error| Fault::invalid(format!("Pack is refused: {error}")))?;
        let stored = PackStored { pack, chunks: entries.len() as u32 };
        let row = PackRow { id: pack, len: bytes.len() as u64 };
        let _stores = self.storing().await;
        self.put_object(pack, bytes).await?;
        self.database.write(move |connection| records::index_pack(connection, row, &entries, now_ms()), |()| {}).await?;
        Ok(stored)
    }

    /// One collection at a time.
    pub(crate) fn collecting(&self) -> Result<tokio::sync::OwnedMutexGuard<()>, Fault> {
        let busy = |_| Fault::new(isotherm_api::Code::InUse, "Garbage is being collected already".to_owned());
        Arc::clone(&self.collecting).try_lock_owned().map_err(busy)
    }

    /// To be held from before a pack is stored until its chunks are known.
    pub(crate) async fn storing(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.stores.read().await
    }

    /// To be held while packs are deleted.
    pub(crate) async fn no_stores(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.stores.write().await
    }

    pub(crate) fn packs(&self) -> &PackStore {
        &self.packs
    }

    /// Stores a checked pack; the caller holds [`Self::storing`].
    pub(crate) async fn put_object(&self, pack: PackId, bytes: Bytes) -> Result<(), Fault> {
        let key = PackStore::key_of(pack);
        match self.objects.put(&key, bytes.clone()).await {
            // Other bytes under the name of these ones can only be damaged.
            Err(error) if error.kind == StoreErrorKind::Exists => {
                tracing::warn!(%pack, "Pack is stored anew, because the stored one is damaged");
                Ok(self.objects.replace(&key, bytes).await?)
            }
            stored => Ok(stored?),
        }
    }

    /// Which chunks are there; they stay for a day.
    pub(crate) async fn have(&self, chunks: Vec<ChunkId>) -> Result<Vec<bool>, Fault> {
        let chunks = Arc::new(chunks);
        let asked = Arc::clone(&chunks);
        let ages = self.ages;
        let (found, to_pin) = self.database.read(move |connection| records::present(connection, &asked, now_ms(), ages)).await?;
        if !to_pin {
            return Ok(found);
        }
        // Asked again inside the write: collection may have condemned some in between.
        self.database.write(move |connection| records::pin(connection, &chunks, now_ms()), |_| {}).await
    }

    /// Checks and keeps manifests; all or, on an error, none.
    pub(crate) async fn put_manifests(&self, manifests: Vec<Vec<u8>>) -> Result<Vec<ManifestAnswer>, Fault> {
        if manifests.len() > MANIFESTS_MAX {
            return Err(Fault::invalid(format!(
                "{} manifests in one upload, at most {MANIFESTS_MAX} are allowed",
                manifests.len()
            )));
        }
        let mut answers = Vec::with_capacity(manifests.len());
        let mut keep = Vec::with_capacity(manifests.len());
        for bytes in manifests {
            let refused = |error| Fault::invalid(format!("Manifest {} of the upload is refused: {error}", answers.len()));
            let index = match Manifest::decode_unnamed(&bytes).map_err(refused)? {
                Decoded::Whole(_) => None,
                Decoded::Index(index) => Some(index),
            };
            let id = ManifestId::of(&bytes);
            let chunks = match index {
                None => None,
                Some(index) => match self.chunks_of_index(&index).await? {
                    Ok(chunks) => Some(chunks),
                    Err(missing) => {
                        answers.push(ManifestAnswer::Missing(missing));
                        continue;
                    }
                },
            };
            answers.push(ManifestAnswer::Stored(id));
            keep.push(Checked { id, bytes, chunks });
        }
        let write = move |connection: &rusqlite::Connection| {
            let now = now_ms();
            let mut repaired = 0_u64;
            for one in &keep {
                repaired += u64::from(records::put_manifest(connection, one.id, &one.bytes, one.chunks.as_deref(), now)?);
            }
            Ok(repaired)
        };
        let repaired = self.database.write(write, |_| {}).await?;
        if repaired > 0 {
            tracing::info!(contents = repaired, "Damaged content was sent again and is whole");
        }
        Ok(answers)
    }

    /// All chunks that a large manifest needs, or those of its own encoding that are not there.
    async fn chunks_of_index(&self, index: &ManifestIndex) -> Result<Result<Vec<ChunkId>, Vec<ChunkId>>, Fault> {
        let own: Vec<ChunkId> = index.chunks().iter().map(|(chunk, _)| *chunk).collect();
        let present = self.have(own.clone()).await?;
        let missing: Vec<ChunkId> = own.iter().zip(present).filter(|(_, present)| !present).map(|(chunk, _)| *chunk).collect();
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        let manifest = self.assemble(index).await?;
        let mut all: BTreeSet<ChunkId> = manifest.chunks().map(|(chunk, _)| chunk).collect();
        all.extend(own);
        Ok(Ok(all.into_iter().collect()))
    }

    async fn assemble(&self, index: &ManifestIndex) -> Result<Manifest, Fault> {
        let mut pieces = Vec::with_capacity(index.chunks().len());
        for (chunk, _) in index.chunks() {
            pieces.push(self.chunk(*chunk).await?.ok_or_else(|| Fault::not_found("Chunk", chunk))?);
        }
        index
            .assemble(pieces.iter().map(|piece| &piece[..]))
            .map_err(|error| Fault::invalid(format!("Manifest is refused: {error}")))
    }

    /// A manifest's encoding.
    pub(crate) async fn manifest_bytes(&self, manifest: ManifestId) -> Result<Option<Vec<u8>>, Fault> {
        let bytes = self.database.read(move |connection| records::manifest_bytes(connection, manifest)).await?;
        if let Some(bytes) = &bytes
            && ManifestId::of(bytes) != manifest
        {
            return Err(Fault::corrupt(format!("Manifest {manifest} in the records is damaged")));
        }
        Ok(bytes)
    }

    /// A manifest that a node names.
    pub(crate) async fn manifest(&self, manifest: ManifestId) -> Result<Manifest, Fault> {
        let lost = || Fault::corrupt(format!("Manifest {manifest} is lost: the records name it and do not have it"));
        let bytes = self.manifest_bytes(manifest).await?.ok_or_else(lost)?;
        let damaged = |error| Fault::corrupt(format!("Manifest {manifest} in the records: {error}"));
        match Manifest::decode(manifest, &bytes).map_err(damaged)? {
            Decoded::Whole(whole) => Ok(whole),
            Decoded::Index(index) => self.assemble(&index).await.map_err(|fault| Fault::corrupt(fault.message)),
        }
    }

    /// Where a chunk lies.
    async fn location(&self, chunk: ChunkId) -> Result<Option<Location>, Fault> {
        self.database.read(move |connection| records::chunk_location(connection, chunk)).await
    }

    /// A chunk, verified; none if it is not there.
    pub(crate) async fn chunk(&self, chunk: ChunkId) -> Result<Option<Bytes>, Fault> {
        let Some(location) = self.location(chunk).await? else { return Ok(None) };
        match self.packs.read_chunk(&location).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => {
                let fault = Fault::from(error);
                let message = format!("Chunk {chunk} of pack {}: {}", location.pack, fault.message);
                Err(Fault::new(fault.code, message))
            }
        }
    }

    /// A chunk that a manifest of the share names.
    pub(crate) async fn named_chunk(&self, chunk: ChunkId) -> Result<Bytes, Fault> {
        self.chunk(chunk)
            .await?
            .ok_or_else(|| Fault::corrupt(format!("Chunk {chunk} is lost: a manifest names it and no pack has it")))
    }
}

/// Checks the header, the index and every chunk of a pack.
fn check_pack(bytes: &[u8]) -> Result<(PackId, Vec<PackEntry>), PackError> {
    check_header(bytes)?;
    let entries = match read_footer(bytes.len() as u64, bytes)? {
        Footer::Entries(entries) => entries,
        // All bytes were given, so more cannot be needed; without entries nothing would be kept.
        Footer::NeedTail(_) => Vec::new(),
    };
    for entry in &entries {
        let range = entry.range();
        entry.decode(&bytes[range.start as usize..range.end as usize])?;
    }
    Ok((PackId::of(bytes), entries))
}
