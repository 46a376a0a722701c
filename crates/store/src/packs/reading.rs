//! Reads chunks out of packs, many with few requests.
//!
//! It does not cache and does not repeat failed requests.
//!
//! Invariant: one chunk that cannot be had does not take the others of its request along.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{Location, PackStore, pack_error, stopped};
use crate::error::{StoreError, StoreErrorKind};

/// Bytes between two records that are read along rather than asked around: about what a request's latency is worth.
const GAP_MAX: u64 = 64 * 1024;

/// Longest range of one request in bytes. Together with [`REQUESTS_MAX`] it bounds what is in flight.
const SPAN_MAX: u64 = 16 * 1024 * 1024;

/// Requests of one call that run at once.
const REQUESTS_MAX: usize = 4;

/// Records of one pack that one request reads.
#[derive(Debug)]
struct Span {
    range: Range<u64>,
    /// Places in the caller's list, with what lies there. Never empty, all of one pack.
    wanted: Vec<(usize, Location)>,
}

impl PackStore {
    /// One chunk, hashed.
    pub async fn read_chunk(&self, location: &Location) -> Result<Bytes, StoreError> {
        let key = Self::key_of(location.pack);
        let record = self.store.get_range(&key, location.entry.range()).await?;
        let location = *location;
        tokio::task::spawn_blocking(move || decode(&location, &record)).await.map_err(stopped)?
    }

    /// Many chunks, hashed, in the order of the list. Records that lie close together are read with one request. All
    /// chunks are in memory at the end; the caller bounds the list.
    pub async fn read_chunks(&self, locations: &[Location]) -> Vec<Result<Bytes, StoreError>> {
        let mut chunks: Vec<Option<Result<Bytes, StoreError>>> = locations.iter().map(|_| None).collect();
        let requests = spans(locations).into_iter().map(|span| self.read_span(span));
        let mut answers = stream::iter(requests).buffer_unordered(REQUESTS_MAX);
        while let Some(answer) = answers.next().await {
            for (place, chunk) in answer {
                chunks[place] = Some(chunk);
            }
        }
        chunks.into_iter().map(|chunk| chunk.expect("every location is in one span")).collect()
    }

    async fn read_span(&self, span: Span) -> Vec<(usize, Result<Bytes, StoreError>)> {
        let key = Self::key_of(span.wanted[0].1.pack);
        match self.store.get_range(&key, span.range.clone()).await {
            Ok(bytes) => {
                let places: Vec<usize> = span.wanted.iter().map(|(place, _)| *place).collect();
                let decoding = tokio::task::spawn_blocking(move || decode_span(&span, &bytes));
                match decoding.await {
                    Ok(chunks) => chunks,
                    Err(error) => same_for_all(&places, &stopped(error)),
                }
            }
            // A pack that ends too early may still hold some of them.
            Err(error) if error.kind == StoreErrorKind::Corrupt && span.wanted.len() > 1 => {
                let mut chunks = Vec::new();
                for (place, location) in span.wanted {
                    chunks.push((place, self.read_chunk(&location).await));
                }
                chunks
            }
            Err(error) => {
                let places: Vec<usize> = span.wanted.iter().map(|(place, _)| *place).collect();
                same_for_all(&places, &error)
            }
        }
    }
}

/// Sorts by place in the store and joins what lies close together.
fn spans(locations: &[Location]) -> Vec<Span> {
    let mut wanted: Vec<(usize, Location)> = locations.iter().copied().enumerate().collect();
    wanted.sort_by_key(|(_, location)| (location.pack, location.entry.offset));
    let mut spans: Vec<Span> = Vec::new();
    for (place, location) in wanted {
        let range = location.entry.range();
        if let Some(span) = spans.last_mut() {
            let end = span.range.end.max(range.end);
            let close = span.wanted[0].1.pack == location.pack && range.start <= span.range.end.saturating_add(GAP_MAX);
            if close && end - span.range.start <= SPAN_MAX {
                span.range.end = end;
                span.wanted.push((place, location));
                continue;
            }
        }
        spans.push(Span { range, wanted: vec![(place, location)] });
    }
    spans
}

fn decode_span(span: &Span, bytes: &Bytes) -> Vec<(usize, Result<Bytes, StoreError>)> {
    let chunk = |(place, location): &(usize, Location)| {
        let range = location.entry.range();
        let start = (range.start - span.range.start) as usize;
        let record = bytes.slice(start..start + location.entry.stored_len as usize);
        (*place, decode(location, &record))
    };
    span.wanted.iter().map(chunk).collect()
}

/// The chunk of a record; a raw one without a copy.
fn decode(location: &Location, record: &Bytes) -> Result<Bytes, StoreError> {
    let failed = |error| pack_error(PackStore::key_of(location.pack), error);
    match location.entry.decode(record).map_err(failed)? {
        std::borrow::Cow::Borrowed(chunk) => Ok(record.slice_ref(chunk)),
        std::borrow::Cow::Owned(chunk) => Ok(chunk.into()),
    }
}

/// One failed request is the failure of each chunk that it was to bring.
fn same_for_all(places: &[usize], error: &StoreError) -> Vec<(usize, Result<Bytes, StoreError>)> {
    let copy = || {
        let copy = StoreError::new(error.kind, &error.key, &error.what);
        match &error.source {
            Some(source) => copy.because(source.to_string()),
            None => copy,
        }
    };
    places.iter().map(|place| (*place, Err(copy()))).collect()
}
