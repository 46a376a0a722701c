//! What every [`ChunkStore`] must do, as one suite.
//!
//! It does not test durability, which needs a crash, and measures no speed. It panics at the first broken promise, as a
//! test does.
//!
//! Invariant: the suite leaves the store as empty as it found its own folder.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::TryStreamExt;

use crate::error::{StoreError, StoreErrorKind};
use crate::key::Key;
use crate::seam::{ChunkStore, Listed};

/// Objects of the long listing: past every page length of the known object stores.
const MANY: usize = 10_000;

/// Runs everything.
///
/// # Panics
/// At the first broken promise.
pub async fn all(store: &dyn ChunkStore) {
    object_round_trip(store).await;
    empty_object(store).await;
    missing_object(store).await;
    ranges(store).await;
    put_again(store).await;
    replaced(store).await;
    deletes(store).await;
    listing(store).await;
    concurrent_puts(store).await;
    many_objects(store).await;
    let left = list(store, Some(&key("conformance"))).await;
    assert!(left.is_empty(), "objects are left: {left:?}");
}

/// What is put is there, whole and with its length.
pub async fn object_round_trip(store: &dyn ChunkStore) {
    let bytes: Bytes = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let key = key("conformance/round/trip-1.x");
    ok(store.put(&key, bytes.clone()).await);
    assert!(ok(store.get(&key).await) == bytes, "other bytes came back");
    assert_eq!(ok(store.size(&key).await), bytes.len() as u64);
    ok(store.delete_many(&[key]).await);
}

/// An object without bytes is an object.
pub async fn empty_object(store: &dyn ChunkStore) {
    let key = key("conformance/empty");
    ok(store.put(&key, Bytes::new()).await);
    ok(store.put(&key, Bytes::new()).await);
    assert_eq!(ok(store.get(&key).await), Bytes::new());
    assert_eq!(ok(store.size(&key).await), 0);
    assert_eq!(ok(store.get_range(&key, 0..0).await), Bytes::new());
    fails(StoreErrorKind::Corrupt, &key, store.get_range(&key, 0..1).await);
    ok(store.delete_many(&[key]).await);
}

/// What is not there is `NotFound`, named.
pub async fn missing_object(store: &dyn ChunkStore) {
    for name in ["conformance/none", "conformance/no/such/folder"] {
        let key = key(name);
        fails(StoreErrorKind::NotFound, &key, store.get(&key).await);
        fails(StoreErrorKind::NotFound, &key, store.size(&key).await);
        fails(StoreErrorKind::NotFound, &key, store.get_range(&key, 0..1).await);
        fails(StoreErrorKind::NotFound, &key, store.get_range(&key, 0..0).await);
    }
    assert!(list(store, Some(&key("conformance/no"))).await.is_empty());
}

/// A range is given whole or refused.
pub async fn ranges(store: &dyn ChunkStore) {
    let key = key("conformance/ranges");
    ok(store.put(&key, Bytes::from_static(b"0123456789")).await);
    for (range, bytes) in [(0..10, "0123456789"), (0..1, "0"), (9..10, "9"), (3..6, "345"), (4..4, ""), (10..10, "")] {
        assert_eq!(ok(store.get_range(&key, range.clone()).await), bytes, "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a range that no honest caller makes")]
    let refused = [0..11, 9..11, 10..11, 11..11, 11..12, 5..3, 0..u64::MAX];
    for range in refused {
        fails(StoreErrorKind::Corrupt, &key, store.get_range(&key, range).await);
    }
    ok(store.delete_many(&[key]).await);
}

/// The same bytes may come again, other bytes never replace them.
pub async fn put_again(store: &dyn ChunkStore) {
    let key = key("conformance/again");
    let first = Bytes::from_static(b"first");
    ok(store.put(&key, first.clone()).await);
    ok(store.put(&key, first.clone()).await);
    for other in ["other", "firs", "first and more", ""] {
        fails(StoreErrorKind::Exists, &key, store.put(&key, Bytes::from_static(other.as_bytes())).await);
        assert_eq!(ok(store.get(&key).await), first);
    }
    ok(store.delete_many(std::slice::from_ref(&key)).await);
    ok(store.put(&key, Bytes::from_static(b"other")).await);
    assert_eq!(ok(store.get(&key).await), "other");
    ok(store.delete_many(&[key]).await);
}

/// A damaged object is replaced in one step, and a missing one made.
pub async fn replaced(store: &dyn ChunkStore) {
    let key = key("conformance/replaced");
    for bytes in ["where none was", "damaged", "whole and longer than before", ""] {
        ok(store.replace(&key, Bytes::from_static(bytes.as_bytes())).await);
        assert_eq!(ok(store.get(&key).await), bytes);
        assert_eq!(list(store, Some(&self::key("conformance"))).await, [Listed { key: key.clone(), len: bytes.len() as u64 }]);
    }
    ok(store.delete_many(&[key]).await);
}

/// Deleting is idempotent and takes only what it names.
pub async fn deletes(store: &dyn ChunkStore) {
    let keys: Vec<Key> = (0..5).map(|number| key(&format!("conformance/delete/{}/{number}", number % 2))).collect();
    for key in &keys {
        ok(store.put(key, Bytes::from(key.to_string())).await);
    }
    let gone = [keys[0].clone(), key("conformance/delete/0/none"), key("conformance/nowhere/x"), keys[3].clone()];
    ok(store.delete_many(&gone).await);
    ok(store.delete_many(&gone).await);
    ok(store.delete_many(&[]).await);
    fails(StoreErrorKind::NotFound, &keys[0], store.get(&keys[0]).await);
    for key in [&keys[1], &keys[2], &keys[4]] {
        assert_eq!(ok(store.get(key).await), key.to_string());
    }
    ok(store.delete_many(&keys).await);
}

/// A listing has the folder's objects at any depth, with lengths, and no neighbours.
pub async fn listing(store: &dyn ChunkStore) {
    let names = ["conformance/list/a", "conformance/list/b/c", "conformance/list/b/d/e", "conformance/list-not/f"];
    for (len, name) in names.iter().enumerate() {
        ok(store.put(&key(name), Bytes::from(vec![0; len])).await);
    }
    let row = |number: usize| Listed { key: key(names[number]), len: number as u64 };
    assert_eq!(list(store, Some(&key("conformance/list"))).await, [row(0), row(1), row(2)]);
    assert_eq!(list(store, Some(&key("conformance/list/b"))).await, [row(1), row(2)]);
    assert_eq!(list(store, Some(&key("conformance/list/a"))).await, []);
    assert_eq!(list(store, Some(&key("conformance/lis"))).await, []);
    let whole = list(store, None).await;
    assert!((0..4).all(|number| whole.contains(&row(number))), "{whole:?}");
    ok(store.delete_many(&names.map(key)).await);
}

/// Of many writers of one key, those with the bytes of the winner are content and all others are told.
pub async fn concurrent_puts(store: &dyn ChunkStore) {
    let same = key("conformance/race/same");
    let bytes = Bytes::from(vec![7; 100_000]);
    for answer in join_all((0..16).map(|_| store.put(&same, bytes.clone()))).await {
        ok(answer);
    }
    assert!(ok(store.get(&same).await) == bytes);
    let keys: Vec<Key> = (0..64).map(|number| key(&format!("conformance/race/{}/{number}", number % 4))).collect();
    for answer in join_all(keys.iter().map(|key| store.put(key, Bytes::from(key.to_string())))).await {
        ok(answer);
    }
    for key in &keys {
        assert_eq!(ok(store.get(key).await), key.to_string());
    }
    ok(store.delete_many(&keys).await);
    ok(store.delete_many(&[same]).await);
}

/// A listing is complete past the length of a page.
pub async fn many_objects(store: &dyn ChunkStore) {
    let keys: Vec<Key> = (0..MANY).map(|number| key(&format!("conformance/many/{:02x}/{number}", number % 16))).collect();
    for some in keys.chunks(64) {
        for answer in join_all(some.iter().map(|key| store.put(key, Bytes::from_static(b"x")))).await {
            ok(answer);
        }
    }
    let listed: BTreeSet<Key> = list(store, Some(&key("conformance/many"))).await.into_iter().map(|listed| listed.key).collect();
    assert!(listed == keys.iter().cloned().collect(), "{} of {MANY} objects are listed", listed.len());
    ok(store.delete_many(&keys).await);
}

/// The listing in the order of its keys, none twice.
async fn list(store: &dyn ChunkStore, folder: Option<&Key>) -> Vec<Listed> {
    let mut listed: Vec<Listed> = ok(store.list(folder).try_collect().await);
    listed.sort();
    assert!(listed.windows(2).all(|pair| pair[0].key != pair[1].key), "an object is listed twice");
    listed
}

fn key(text: &str) -> Key {
    Key::new(text).expect("the suite uses valid keys")
}

#[track_caller]
fn ok<T>(answer: Result<T, StoreError>) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn fails<T: Debug>(kind: StoreErrorKind, key: &Key, answer: Result<T, StoreError>) {
    let error = answer.expect_err("it must fail");
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.to_string().contains(key.as_str()), "the object is not named: {error}");
}
