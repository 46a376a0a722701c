//! Reads chunks out of packs, and records, many with few requests.
//!
//! It does not cache and does not repeat failed requests.
//!
//! Invariant: whatever leaves was hashed.

use std::ops::Range;

use bytes::Bytes;

use super::{Location, PackStore, pack_error, stopped};
use crate::error::StoreError;

/// Bytes between two records that are read along rather than asked around: about what a request's latency is worth.
const GAP_MAX: u64 = 64 * 1024;

/// Longest range of one request in bytes.
const SPAN_MAX: u64 = 16 * 1024 * 1024;

/// Records of one pack that one request reads.
#[derive(Debug)]
struct Span {
    range: Range<u64>,
    /// Places in the caller's list, with what lies there. Never empty, all of one pack.
    wanted: Vec<(usize, Location)>,
}

impl Span {
    /// A record of the span, out of the span's bytes.
    fn record(&self, location: &Location, bytes: &Bytes) -> Bytes {
        let start = (location.entry.offset - self.range.start) as usize;
        bytes.slice(start..start + location.entry.stored_len as usize)
    }
}

impl PackStore {
    /// One chunk, hashed.
    pub async fn read_chunk(&self, location: &Location) -> Result<Bytes, StoreError> {
        let key = Self::key_of(location.pack);
        let record = self.store.get_range(&key, location.entry.range()).await?;
        let location = *location;
        tokio::task::spawn_blocking(move || decode(&location, &record)).await.map_err(stopped)?
    }

    /// The records of many chunks as they are stored, each hashed, in the order of the list. Of the chunks themselves one
    /// after the other is in memory, of the records all; the caller bounds these.
    pub async fn read_records(&self, locations: &[Location]) -> Result<Vec<Bytes>, StoreError> {
        let mut records: Vec<Bytes> = vec![Bytes::new(); locations.len()];
        for span in spans(locations) {
            let bytes = self.store.get_range(&Self::key_of(span.wanted[0].1.pack), span.range.clone()).await?;
            let cutting = tokio::task::spawn_blocking(move || {
                let record = |(place, location): &(usize, Location)| {
                    let record = span.record(location, &bytes);
                    decode(location, &record).map(|_| (*place, record))
                };
                span.wanted.iter().map(record).collect::<Result<Vec<_>, _>>()
            });
            for (place, record) in cutting.await.map_err(stopped)?? {
                records[place] = record;
            }
        }
        Ok(records)
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

/// The chunk of a record; a raw one without a copy.
fn decode(location: &Location, record: &Bytes) -> Result<Bytes, StoreError> {
    let failed = |error| pack_error(PackStore::key_of(location.pack), error);
    match location.entry.decode(record).map_err(failed)? {
        std::borrow::Cow::Borrowed(chunk) => Ok(record.slice_ref(chunk)),
        std::borrow::Cow::Owned(chunk) => Ok(chunk.into()),
    }
}
