//! Packs over a store of objects: seal and write them, read chunks out of them, read their index back.
//!
//! It keeps no index and decides no deletion: the records say where a chunk lies, garbage collection says what goes.
//!
//! Invariant: no byte leaves as a chunk that was not hashed, and none enters a pack unhashed. The object's key is made
//! of the pack's id alone, so a pack is written once under one key.

mod reading;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use isotherm_core::content::pack::{Footer, TRAILER_LEN, check_header, read_footer};
use isotherm_core::content::{ChunkId, PackBuilder, PackEntry, PackError, PackId, WireError};

use crate::error::{StoreError, StoreErrorKind};
use crate::key::Key;
use crate::seam::ChunkStore;

/// Folder of the packs in the store.
const FOLDER: &str = "packs";

/// Bytes read from a pack's end at first: the index of some 1,700 chunks; most packs have fewer.
const TAIL_LEN: u64 = 64 * 1024;

/// Where one chunk lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// The place in it.
    pub entry: PackEntry,
}

/// The packs of a store.
#[derive(Debug, Clone)]
pub struct PackStore {
    store: Arc<dyn ChunkStore>,
    folder: Key,
}

impl PackStore {
    /// The packs of this store.
    pub fn new(store: Arc<dyn ChunkStore>) -> Self {
        let folder = Key::new(FOLDER).expect("a lowercase word is a key");
        Self { store, folder }
    }

    /// The key of a pack: its id in a folder of the id's first two digits.
    pub fn key_of(pack: PackId) -> Key {
        let hex = pack.to_string();
        Key::new(format!("{FOLDER}/{}/{hex}", &hex[..2])).expect("hexadecimal digits make a key")
    }

    /// The pack of a key; none for other objects.
    pub fn pack_of(key: &Key) -> Option<PackId> {
        let pack = key.last().parse().ok()?;
        (Self::key_of(pack) == *key).then_some(pack)
    }

    /// Hashes the chunks and stores them as one pack, which is durable when this returns. A wrong chunk is `Corrupt`,
    /// more than one pack holds is `Other`; nothing is stored then.
    pub async fn write_pack(&self, chunks: Vec<(ChunkId, Bytes)>) -> Result<(PackId, Vec<PackEntry>), StoreError> {
        let sealing = tokio::task::spawn_blocking(move || {
            let mut builder = PackBuilder::new();
            for (chunk, bytes) in chunks {
                builder.push(chunk, &bytes)?;
            }
            Ok(builder.finish())
        });
        let sealed = sealing.await.map_err(stopped)?;
        let (pack, bytes, entries) = sealed.map_err(|error| pack_error("that is being sealed", error))?;
        self.put_sealed(pack, bytes.into()).await?;
        Ok((pack, entries))
    }

    /// Seals a builder that was filled elsewhere and stores the pack.
    pub async fn write_built(&self, builder: PackBuilder) -> Result<(PackId, Vec<PackEntry>), StoreError> {
        let sealing = tokio::task::spawn_blocking(move || builder.finish());
        let (pack, bytes, entries) = sealing.await.map_err(stopped)?;
        self.put_sealed(pack, bytes.into()).await?;
        Ok((pack, entries))
    }

    /// Rebuilds the chunk index of a pack from the pack alone: its length, then its end.
    pub async fn read_index(&self, pack: PackId) -> Result<Vec<PackEntry>, StoreError> {
        let key = Self::key_of(pack);
        let len = self.store.size(&key).await?;
        let mut tail_len = TAIL_LEN.max(TRAILER_LEN as u64).min(len);
        // The second read is long enough, so a third answer of the same kind would be a bug.
        for _ in 0..2 {
            let tail = self.store.get_range(&key, len - tail_len..len).await?;
            match read_footer(len, &tail).map_err(|error| pack_error(&key, error))? {
                Footer::Entries(entries) => return Ok(entries),
                Footer::NeedTail(needed) => tail_len = needed.min(len),
            }
        }
        Err(StoreError::new(StoreErrorKind::Corrupt, key, "asks for its index for ever"))
    }

    /// Reads a whole pack and checks its id, its index and each of its chunks.
    pub async fn verify(&self, pack: PackId) -> Result<Vec<PackEntry>, StoreError> {
        let key = Self::key_of(pack);
        let bytes = self.store.get(&key).await?;
        tokio::task::spawn_blocking(move || {
            let found = PackId::of(&bytes);
            if found != pack {
                let what = format!("is damaged: its bytes hash to {found}");
                return Err(StoreError::new(StoreErrorKind::Corrupt, key, what));
            }
            verify_bytes(&bytes).map_err(|error| pack_error(&key, error))
        })
        .await
        .map_err(stopped)?
    }

    /// The length of a stored pack in bytes; none if it is not there.
    pub async fn len(&self, pack: PackId) -> Result<Option<u64>, StoreError> {
        match self.store.size(&Self::key_of(pack)).await {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes packs; one that is not there counts as deleted.
    pub async fn delete_packs(&self, packs: &[PackId]) -> Result<(), StoreError> {
        let keys: Vec<Key> = packs.iter().map(|pack| Self::key_of(*pack)).collect();
        self.store.delete_many(&keys).await
    }

    /// All packs of the store with their lengths in bytes, in no order. For rebuilding and checking.
    pub fn list_packs(&self) -> BoxStream<'_, Result<(PackId, u64), StoreError>> {
        let listed = self.store.list(Some(&self.folder));
        listed
            .filter_map(|row| async move {
                match row {
                    Ok(listed) => Self::pack_of(&listed.key).map(|pack| Ok((pack, listed.len))),
                    Err(error) => Some(Err(error)),
                }
            })
            .boxed()
    }

    async fn put_sealed(&self, pack: PackId, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(&Self::key_of(pack), bytes).await
    }
}

fn verify_bytes(bytes: &[u8]) -> Result<Vec<PackEntry>, PackError> {
    check_header(bytes)?;
    let Footer::Entries(entries) = read_footer(bytes.len() as u64, bytes)? else {
        let why = "its index is longer than it is";
        return Err(WireError::NotCanonical { what: "Pack", why }.into());
    };
    for entry in &entries {
        let range = entry.range();
        entry.decode(&bytes[range.start as usize..range.end as usize])?;
    }
    Ok(entries)
}

/// A pack or a chunk that cannot be what it says, in the words of the store.
fn pack_error(key: impl std::fmt::Display, error: PackError) -> StoreError {
    let (kind, what) = match &error {
        PackError::Full { .. } => (StoreErrorKind::Other, "is full"),
        _ => (StoreErrorKind::Corrupt, "is damaged"),
    };
    StoreError::new(kind, key, what).because(error)
}

fn stopped(error: tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Other, "", "stopped in the middle of a step").because(error)
}
