//! A store in memory: the readable specification of [`ChunkStore`] and the store of tests.
//!
//! It survives nothing.
//!
//! Invariant: each call is one step under one lock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::error::StoreError;
use crate::key::Key;
use crate::seam::{ChunkStore, Listed, exists, range_within};

/// Objects in a map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes under a key without any rule, for tests that damage a store.
    pub fn replace(&self, key: Key, bytes: Bytes) {
        self.objects().insert(key, bytes);
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        // No step leaves the map half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_now(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        match self.objects().entry(key.clone()).or_insert_with(|| bytes.clone()) {
            present if *present == bytes => Ok(()),
            _ => Err(exists(key)),
        }
    }

    fn get_now(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.objects().get(key).cloned().ok_or_else(|| StoreError::not_found(key))
    }

    fn get_range_now(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.get_now(key)?;
        let range = range_within(key, range, bytes.len() as u64)?;
        Ok(bytes.slice(range))
    }

    fn list_now(&self, folder: Option<&Key>) -> Vec<Result<Listed, StoreError>> {
        let objects = self.objects();
        let inside = objects.iter().filter(|(key, _)| folder.is_none_or(|folder| key.is_in(folder)));
        inside.map(|(key, bytes)| Ok(Listed { key: key.clone(), len: bytes.len() as u64 })).collect()
    }
}

impl ChunkStore for MemoryStore {
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(self.put_now(key, bytes)).boxed()
    }

    fn replace<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.objects().insert(key.clone(), bytes);
        ready(Ok(())).boxed()
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        ready(self.get_now(key)).boxed()
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        ready(self.get_range_now(key, range)).boxed()
    }

    fn size<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<u64, StoreError>> {
        ready(self.get_now(key).map(|bytes| bytes.len() as u64)).boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut objects = self.objects();
        for key in keys {
            objects.remove(key);
        }
        drop(objects);
        ready(Ok(())).boxed()
    }

    fn list<'a>(&'a self, folder: Option<&'a Key>) -> BoxStream<'a, Result<Listed, StoreError>> {
        stream::iter(self.list_now(folder)).boxed()
    }
}
