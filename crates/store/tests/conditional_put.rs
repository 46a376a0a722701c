//! Object stores that treat conditional puts badly: the probe finds out, and nothing is overwritten.
#![allow(clippy::unwrap_used)]

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use isotherm_store::{ChunkStore, ConditionalPut, Key, ObjectFolder, StoreErrorKind, conformance};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A server of an older make.
#[derive(Debug)]
struct OldServer {
    inner: InMemory,
    /// Whether it says that it cannot, or does not look at the condition at all.
    refuses: bool,
}

impl fmt::Display for OldServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an old server")
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T>>;

// The trait is declared through a macro that boxes its futures; this is what the macro makes of it.
impl ObjectStore for OldServer {
    fn put_opts<'a, 'b, 'c>(&'a self, location: &'b Path, payload: PutPayload, options: PutOptions) -> Answer<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        async move {
            if options.mode == PutMode::Create && self.refuses {
                let operation = "conditional put".to_owned();
                return Err(Error::NotImplemented { operation, implementer: self.to_string() });
            }
            self.inner.put_opts(location, payload, PutMode::Overwrite.into()).await
        }
        .boxed()
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: PutMultipartOptions,
    ) -> Answer<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> Answer<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.get_opts(location, options)
    }

    fn get_ranges<'a, 'b, 'c, 'd>(&'a self, location: &'b Path, ranges: &'c [Range<u64>]) -> Answer<'d, Vec<Bytes>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        self.inner.get_ranges(location, ranges)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Answer<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'c, 'd>(&'a self, from: &'b Path, to: &'c Path, options: CopyOptions) -> Answer<'d, ()>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        self.inner.copy_opts(from, to, options)
    }
}

#[tokio::test]
async fn a_condition_that_is_ignored_or_refused_is_found_and_made_up_for() {
    for (refuses, found) in [(false, ConditionalPut::Ignored), (true, ConditionalPut::Unsupported)] {
        let server = OldServer { inner: InMemory::new(), refuses };
        let store = ObjectFolder::open(Arc::new(server), None).await.unwrap();
        assert_eq!(store.conditional_put(), found);
        conformance::all(&store).await;
        let key = Key::new("x").unwrap();
        store.put(&key, Bytes::from_static(b"first")).await.unwrap();
        let error = store.put(&key, Bytes::from_static(b"second")).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Exists);
        assert_eq!(store.get(&key).await.unwrap(), "first");
    }
}
