//! The conformance suite on every implementation, and what is special about object stores and faults.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use isotherm_store::{
    ChunkStore, ConditionalPut, Fault, FaultyStore, FolderStore, Key, MemoryStore, ObjectFolder, StoreErrorKind, conformance,
};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn memory() {
    conformance::all(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(&FolderStore::open(dir.path()).await.unwrap()).await;
}

#[tokio::test]
async fn object_memory() {
    let inner = Arc::new(InMemory::new());
    for prefix in [None, Some(key("tenant/one"))] {
        let store = ObjectFolder::open(Arc::clone(&inner) as _, prefix).await.unwrap();
        assert_eq!(store.conditional_put(), ConditionalPut::Supported);
        conformance::all(&store).await;
        let left: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(left.is_empty(), "the probe is left: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_local_files() {
    let dir = tempfile::tempdir().unwrap();
    let inner = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    conformance::all(&ObjectFolder::open(Arc::new(inner), Some(key("pre"))).await.unwrap()).await;
}

#[tokio::test]
async fn faulty_without_faults() {
    conformance::all(&FaultyStore::new(Arc::new(MemoryStore::new()))).await;
}

#[tokio::test]
async fn a_prefix_hides_the_neighbours() {
    let inner = Arc::new(InMemory::new());
    let one = ObjectFolder::open(Arc::clone(&inner) as _, Some(key("one"))).await.unwrap();
    let two = ObjectFolder::open(inner, Some(key("one-more"))).await.unwrap();
    one.put(&key("x"), Bytes::from_static(b"1")).await.unwrap();
    two.put(&key("x"), Bytes::from_static(b"2")).await.unwrap();
    let listed: Vec<_> = one.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(one.get(&key("x")).await.unwrap(), "1");
}

#[tokio::test]
async fn a_fault_before_does_nothing_and_one_after_has_done_it() {
    let inner = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(Arc::clone(&inner) as _);
    let bytes = Bytes::from_static(b"x");
    store.fail_at(0, Fault::Before(StoreErrorKind::Full));
    let error = store.put(&key("a"), bytes.clone()).await.unwrap_err();
    assert_eq!((error.kind, error.is_retryable()), (StoreErrorKind::Full, false));
    assert_eq!(inner.get(&key("a")).await.unwrap_err().kind, StoreErrorKind::NotFound);
    store.fail_at(1, Fault::After(StoreErrorKind::Unavailable));
    store.put(&key("b"), bytes.clone()).await.unwrap();
    let error = store.put(&key("a"), bytes.clone()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(inner.get(&key("a")).await.unwrap(), bytes);
    store.put(&key("a"), bytes).await.unwrap();
    assert_eq!(store.calls(), 4);
}

#[tokio::test]
async fn seeded_faults_repeat() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let store = FaultyStore::seeded(Arc::new(MemoryStore::new()), 42, 3);
        let mut failed = Vec::new();
        for number in 0..200 {
            let answer = store.put(&key(&format!("k/{number}")), Bytes::from_static(b"x")).await;
            failed.push(answer.is_err());
        }
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
    let count = runs[0].iter().filter(|failed| **failed).count();
    assert!((30..110).contains(&count), "{count} of 200 failed");
}
