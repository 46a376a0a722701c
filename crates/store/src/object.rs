//! A store in any object store that the crate `object_store` speaks to.
//!
//! Repeats of failed requests and credentials are that crate's work. A folder of a local disk belongs into
//! [`crate::FolderStore`], which also makes folder names durable.
//!
//! Invariant: what is put is never overwritten, also where the store knows no conditional put.

use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

use crate::error::{StoreError, StoreErrorKind, kind_of};
use crate::key::Key;
use crate::seam::{ChunkStore, Listed, beyond_end, exists};

/// What a store does with "put only if it is not there".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionalPut {
    /// It refuses the second put.
    Supported,
    /// It says yes and overwrites, as some S3 servers do.
    Ignored,
    /// It refuses the request as such.
    Unsupported,
}

/// Objects below a prefix of an object store.
#[derive(Debug)]
pub struct ObjectFolder {
    store: Arc<dyn ObjectStore>,
    prefix: Option<Key>,
    conditional: ConditionalPut,
}

impl ObjectFolder {
    /// Probes the store and takes the objects below `prefix`. Writes, reads and deletes one object.
    pub async fn open(store: Arc<dyn ObjectStore>, prefix: Option<Key>) -> Result<Self, StoreError> {
        let mut folder = Self { store, prefix, conditional: ConditionalPut::Unsupported };
        folder.conditional = folder.probe_conditional_put().await?;
        Ok(folder)
    }

    /// What the probe at opening found.
    pub fn conditional_put(&self) -> ConditionalPut {
        self.conditional
    }

    /// Puts an object twice with different bytes and looks which are there.
    pub async fn probe_conditional_put(&self) -> Result<ConditionalPut, StoreError> {
        // Several services may open the same bucket at once; each probes an object of its own.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let text = format!("probe/{}-{since}", std::process::id());
        let failed = |kind: &'static str| StoreError::new(StoreErrorKind::Other, &text, kind);
        let key = Key::new(text.clone()).map_err(|error| failed("has a bad name").because(error))?;
        let path = self.path(&key);
        let found = self.probe_at(&path).await.map_err(|error| map_error(&key, error));
        let deleted = self.delete_many(std::slice::from_ref(&key)).await;
        let found = found?;
        deleted?;
        Ok(found)
    }

    async fn probe_at(&self, path: &Path) -> Result<ConditionalPut, Error> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        let create = |bytes: Bytes| self.store.put_opts(path, bytes.into(), PutMode::Create.into());
        match create(first.clone()).await {
            Ok(_) => {}
            Err(error) if refuses_condition(&error) => return Ok(ConditionalPut::Unsupported),
            Err(error) => return Err(error),
        }
        match create(second).await {
            Err(error) if is_there(&error) => {}
            Err(error) if refuses_condition(&error) => return Ok(ConditionalPut::Unsupported),
            Err(error) => return Err(error),
            Ok(_) => return Ok(ConditionalPut::Ignored),
        }
        // A refusal is worth nothing if the bytes went in all the same.
        let kept = self.store.get(path).await?.bytes().await? == first;
        Ok(if kept { ConditionalPut::Supported } else { ConditionalPut::Ignored })
    }

    fn path(&self, key: &Key) -> Path {
        match &self.prefix {
            None => Path::from(key.as_str()),
            Some(prefix) => Path::from(format!("{prefix}/{key}")),
        }
    }

    /// The key of a listed object; none for objects that are not ours.
    fn key_of(&self, path: &Path) -> Option<Key> {
        let text = path.as_ref();
        let text = match &self.prefix {
            None => text,
            Some(prefix) => text.strip_prefix(prefix.as_str())?.strip_prefix('/')?,
        };
        Key::new(text).ok()
    }

    async fn put_once(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key);
        if self.conditional != ConditionalPut::Supported {
            // Two writers between here and the put write the same bytes, since a key is the hash of its bytes.
            match self.size(key).await {
                Ok(_) => return self.compare(key, &bytes).await,
                Err(error) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let put = self.store.put(&path, bytes.into()).await;
            return put.map(drop).map_err(|error| map_error(key, error));
        }
        match self.store.put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            // Also after a repeated request whose first answer was lost.
            Err(error) if is_there(&error) => self.compare(key, &bytes).await,
            Err(error) => Err(map_error(key, error)),
        }
    }

    async fn compare(&self, key: &Key, bytes: &Bytes) -> Result<(), StoreError> {
        if self.get(key).await? == *bytes { Ok(()) } else { Err(exists(key)) }
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        // The stores disagree about empty ranges and cut those that end too late.
        if range.is_empty() {
            let len = self.size(key).await?;
            let inside = range.start == range.end && range.end <= len;
            return if inside { Ok(Bytes::new()) } else { Err(beyond_end(key, range, len)) };
        }
        let wanted = range.end - range.start;
        match self.store.get_range(&self.path(key), range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(bytes) => Err(beyond_end(key, range.clone(), range.start + bytes.len() as u64)),
            Err(error @ Error::NotFound { .. }) => Err(map_error(key, error)),
            Err(error) => match self.size(key).await {
                Ok(len) if range.end > len => Err(beyond_end(key, range, len)),
                _ => Err(map_error(key, error)),
            },
        }
    }
}

impl ChunkStore for ObjectFolder {
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.put_once(key, bytes).boxed()
    }

    fn replace<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let put = self.store.put(&self.path(key), bytes.into()).await;
            put.map(drop).map_err(|error| map_error(key, error))
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        async move {
            let got = self.store.get(&self.path(key)).await.map_err(|error| map_error(key, error))?;
            got.bytes().await.map_err(|error| map_error(key, error))
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.read_range(key, range).boxed()
    }

    fn size<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<u64, StoreError>> {
        async move {
            let head = self.store.head(&self.path(key)).await;
            head.map(|meta| meta.size).map_err(|error| map_error(key, error))
        }
        .boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let paths: Vec<Result<Path, Error>> = keys.iter().map(|key| Ok(self.path(key))).collect();
            // The answers come in the order of the paths.
            let mut answers = self.store.delete_stream(stream::iter(paths).boxed());
            let mut deleted = 0;
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(_) | Err(Error::NotFound { .. }) => deleted += 1,
                    Err(error) => return Err(map_error(keys.get(deleted).map_or("", Key::as_str), error)),
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn list<'a>(&'a self, folder: Option<&'a Key>) -> BoxStream<'a, Result<Listed, StoreError>> {
        let path = match (folder, &self.prefix) {
            (Some(folder), _) => Some(self.path(folder)),
            (None, Some(prefix)) => Some(Path::from(prefix.as_str())),
            (None, None) => None,
        };
        let name = folder.map_or("", Key::as_str);
        let listed = self.store.list(path.as_ref()).map(move |row| match row {
            Ok(meta) => Ok(self.key_of(&meta.location).map(|key| Listed { key, len: meta.size })),
            Err(error) => Err(map_error(name, error)),
        });
        listed.filter_map(|row| async move { row.transpose() }).boxed()
    }
}

fn is_there(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })
}

fn refuses_condition(error: &Error) -> bool {
    matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. })
}

fn map_error(key: impl std::fmt::Display, error: Error) -> StoreError {
    let kind = match &error {
        Error::NotFound { .. } => return StoreError::not_found(key),
        Error::AlreadyExists { .. } | Error::Precondition { .. } => StoreErrorKind::Exists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreErrorKind::Denied,
        Error::Generic { .. } => kind_of_generic(&error),
        _ => StoreErrorKind::Other,
    };
    StoreError::new(kind, key, "failed in the object store").because(error)
}

/// An error that the crate does not sort: what the operating system said below it, else the network, whose failures
/// arrive here after the crate gave up repeating.
fn kind_of_generic(error: &Error) -> StoreErrorKind {
    let mut below = error.source();
    while let Some(error) = below {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return kind_of(error);
        }
        below = error.source();
    }
    StoreErrorKind::Unavailable
}
