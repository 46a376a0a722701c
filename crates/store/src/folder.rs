//! A store in a folder of a local file system.
//!
//! Keys are paths below the folder, so the fan-out is that of the keys. It does no network and no caching; the page
//! cache does that.
//!
//! Invariant: an object gets its name after its bytes are durable, and the call returns after the name is. Every path is
//! resolved beneath the folder's descriptor without following a symlink. One process uses the folder at a time.

mod disk;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::error::{StoreError, StoreErrorKind};
use crate::key::Key;
use crate::seam::{ChunkStore, Listed};
use disk::Disk;

/// Objects as files of a folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    disk: Arc<Disk>,
}

impl FolderStore {
    /// Opens the folder, makes it if it is not there, and removes the temporary files of a process that died. `Denied`
    /// if another process uses it.
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = folder.as_ref().to_owned();
        let disk = blocking(move || Disk::open(&folder)).await?;
        Ok(Self { disk: Arc::new(disk) })
    }

    /// Runs a step on the pool for blocking work.
    async fn on_disk<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        blocking(move || step(&disk)).await
    }
}

async fn blocking<T: Send + 'static>(step: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    let lost = |error| StoreError::new(StoreErrorKind::Other, "", "stopped in the middle of a step").because(error);
    tokio::task::spawn_blocking(step).await.map_err(lost)?
}

impl ChunkStore for FolderStore {
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        let key = key.clone();
        self.on_disk(move |disk| disk.put(&key, &bytes)).boxed()
    }

    fn replace<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        let key = key.clone();
        self.on_disk(move |disk| disk.replace(&key, &bytes)).boxed()
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        let key = key.clone();
        self.on_disk(move |disk| disk.read(&key, None)).boxed()
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        let key = key.clone();
        self.on_disk(move |disk| disk.read(&key, Some(range))).boxed()
    }

    fn size<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<u64, StoreError>> {
        let key = key.clone();
        self.on_disk(move |disk| disk.open_object(&key).map(|(_, len)| len)).boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        let keys = keys.to_vec();
        self.on_disk(move |disk| disk.delete_many(&keys)).boxed()
    }

    fn list<'a>(&'a self, folder: Option<&'a Key>) -> BoxStream<'a, Result<Listed, StoreError>> {
        // One directory is in memory at a time; those not visited yet wait on the stack.
        let stack = vec![folder.map_or(String::new(), ToString::to_string)];
        let pages = stream::unfold(stack, move |mut stack| async move {
            let folder = stack.pop()?;
            let page = self.on_disk(move |disk| disk.list_one(&folder)).await.map(|(objects, folders)| {
                stack.extend(folders);
                objects
            });
            Some((page, stack))
        });
        pages.flat_map(|page| stream::iter(rows(page))).boxed()
    }
}

fn rows(page: Result<Vec<Listed>, StoreError>) -> Vec<Result<Listed, StoreError>> {
    match page {
        Ok(objects) => objects.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}
