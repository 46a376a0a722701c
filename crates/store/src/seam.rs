//! The seam between packs and the places that keep them.
//!
//! It speaks of keys and bytes only. There is no rename, no append and no overwrite: an object is written once, read,
//! and deleted.
//!
//! Invariant: whoever sees an object sees it whole.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::error::StoreError;
use crate::key::Key;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub len: u64,
}

/// A place that keeps objects under keys.
///
/// A future that is dropped leaves the object either whole or absent. Implementations are shared between tasks.
pub trait ChunkStore: fmt::Debug + Send + Sync {
    /// Writes an object, which is durable when this returns. The same bytes may be put again under their key; other
    /// bytes are refused with `Exists`, and the object stays as it was. After an error the object is whole or absent.
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Writes an object in the place of a damaged one, or where there is none. At every moment, also if power fails, there
    /// is the old object or the new one, whole. Only for bytes that the key names.
    fn replace<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The whole object.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Bytes, StoreError>>;

    /// The bytes of a range, all of them. A range that ends past the object is `Corrupt`: callers ask for what an index
    /// promised. An empty range inside the object is empty.
    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>>;

    /// The length of the object in bytes.
    fn size<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Deletes objects; one that is not there counts as deleted. After an error some may be gone.
    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// All objects of a folder at any depth, or of the whole store, in no promised order. An object that is written or
    /// deleted meanwhile may be there or not. After an error the listing may go on: a folder that cannot be read leaves the
    /// others. For rebuilding and checking; slow on object stores.
    fn list<'a>(&'a self, folder: Option<&'a Key>) -> BoxStream<'a, Result<Listed, StoreError>>;
}

/// Checks a range against an object's length and turns it into indexes.
pub(crate) fn range_within(key: &Key, range: Range<u64>, len: u64) -> Result<Range<usize>, StoreError> {
    if range.start > range.end || range.end > len {
        return Err(beyond_end(key, range, len));
    }
    Ok(range.start as usize..range.end as usize)
}

/// The error for a range that the object does not have.
pub(crate) fn beyond_end(key: &Key, range: Range<u64>, len: u64) -> StoreError {
    let what = format!("has {len} bytes, not the range {}..{}", range.start, range.end);
    StoreError::new(crate::StoreErrorKind::Corrupt, key, what)
}

/// The error for a key that already holds other bytes.
pub(crate) fn exists(key: &Key) -> StoreError {
    StoreError::new(crate::StoreErrorKind::Exists, key, "is there already with other bytes")
}
