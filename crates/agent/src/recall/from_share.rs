//! Contents of stubs from the share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isotherm_core::content::manifest::Part;
use isotherm_core::content::{ChunkId, Manifest, ManifestId};
use isotherm_core::stub::{Sought, StubRecord, Units};
use isotherm_core::trees::{Handle, Record};
use isotherm_gate::GateError;

use super::ahead::Ahead;
use super::manifests::Manifests;
use super::{FetchFailure, Source, Take};
use crate::catalog::CatalogReader;
use crate::engine::Away;
use crate::remote::Share;
use crate::volume::{ContentSource, Errand};

/// Bytes that are asked for at once.
const REQUEST_BYTES: u64 = 8 << 20;
/// Before a service that is away is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Finds the manifest of a stub's content, if anybody knows it.
pub type Find = dyn Fn(&Handle, &StubRecord) -> Result<Option<ManifestId>, Away> + Send + Sync;

/// The share as a source: which contents a node had, and their chunks.
pub struct FromShare {
    pub(super) content: Arc<dyn ContentSource>,
    find: Box<Find>,
    known: Option<Arc<Mutex<CatalogReader>>>,
    used: Manifests,
}

impl FromShare {
    /// A source of these contents.
    #[must_use]
    pub fn new(content: Arc<dyn ContentSource>, find: Box<Find>) -> Self {
        Self { content, find, known: None, used: Manifests::default() }
    }

    /// The share of an endpoint.
    #[must_use]
    pub fn of(share: &Arc<Share>, known: &Arc<Mutex<CatalogReader>>) -> Self {
        let (asked, catalog) = (Arc::clone(share), Arc::clone(known));
        let find = move |file: &Handle, record: &StubRecord| {
            let reader = || catalog.lock().unwrap_or_else(PoisonError::into_inner);
            let others: Vec<Record> = reader().by_handle(file);
            Sought::new(record, others.into_iter().map(|other| other.node))
                .find(|node| reader().record(node), |nodes| asked.had(nodes))
        };
        Self { known: Some(Arc::clone(known)), ..Self::new(Arc::clone(share) as Arc<_>, Box::new(find)) }
    }

    /// Whether a file is one of the endpoint's.
    pub(crate) fn has(&self, file: &Handle) -> bool {
        let known = self.known.as_ref().map(|known| known.lock().unwrap_or_else(PoisonError::into_inner));
        known.is_some_and(|known| !known.by_handle(file).is_empty())
    }

    /// The lists of chunks of these contents, as far as the share has them.
    pub(crate) fn manifests(&self, ids: &[ManifestId]) -> Result<Vec<Option<Manifest>>, Away> {
        self.content.manifests(ids)
    }

    /// Which content a record stands for, if anybody knows it.
    pub(super) fn id_of(&self, file: &Handle, record: &StubRecord) -> Result<Option<ManifestId>, Away> {
        (self.find)(file, record)
    }

    fn manifest(&self, file: &Handle, record: &StubRecord) -> Result<Arc<Manifest>, Stopped> {
        let unknown = || Stopped::For(FetchFailure::Unknown("The share does not know the content of this file".to_owned()));
        let id = self.id_of(file, record)?.ok_or_else(unknown)?;
        let manifest = if let Some(manifest) = self.used.get(&id) {
            manifest
        } else {
            let found = self.content.manifests(&[id])?.pop().flatten();
            let manifest = Arc::new(found.ok_or_else(|| missing("The share has no such content any more"))?);
            self.used.keep(id, &manifest);
            manifest
        };
        if manifest.len() == record.size {
            Ok(manifest)
        } else {
            Err(missing(&format!("The content has {} bytes, and the file was made for {}", manifest.len(), record.size)))
        }
    }

    /// Chunks from a position on, in requests; the position stays behind what was taken.
    fn chunks(&self, wanted: &[Wanted], position: &mut usize, take: &mut Take<'_>, errand: &Errand<'_>) -> Result<(), Stopped> {
        while *position < wanted.len() {
            if !(errand.go_on)() {
                return Err(Stopped::For(FetchFailure::NotWanted));
            }
            let most = self.content.portion((errand.is_awaited)()).map_or(REQUEST_BYTES, |portion| portion.min(REQUEST_BYTES));
            let request = &wanted[*position..*position + request_len(&wanted[*position..], most)];
            self.request(request, take, errand)?;
            *position += request.len();
        }
        Ok(())
    }

    fn request(&self, request: &[Wanted], take: &mut Take<'_>, errand: &Errand<'_>) -> Result<(), Stopped> {
        let mut places: BTreeMap<ChunkId, Vec<&Wanted>> = BTreeMap::new();
        // They come in the order in which they are asked for: whoever reads the file meanwhile waits for the first of them.
        let mut ids = Vec::with_capacity(request.len());
        for wanted in request {
            let of_it = places.entry(wanted.chunk).or_default();
            if of_it.is_empty() {
                ids.push(wanted.chunk);
            }
            of_it.push(wanted);
        }
        let bytes = places.values().filter_map(|of_it| of_it.first()).map(|wanted| u64::from(wanted.len)).sum();
        let mut failure: Option<FetchFailure> = None;
        self.content.chunks(
            (&ids, bytes),
            &mut |chunk, bytes| {
                let of_it = places.remove(&chunk).unwrap_or_default();
                if failure.is_none() {
                    failure = of_it.into_iter().find_map(|wanted| put(wanted, bytes.as_ref(), take).err());
                }
            },
            errand,
        )?;
        match failure {
            Some(failure) => Err(Stopped::For(failure)),
            None if places.is_empty() => Ok(()),
            None => Err(Away { text: "The service did not send all that was asked for".to_owned(), retry: true }.into()),
        }
    }
}

/// A chunk and where it goes.
struct Wanted {
    offset: u64,
    chunk: ChunkId,
    len: u32,
}

/// Why it did not go on.
enum Stopped {
    /// For now.
    Away(Away),
    For(FetchFailure),
}

impl From<Away> for Stopped {
    fn from(away: Away) -> Self {
        if away.retry { Self::Away(away) } else { Self::For(FetchFailure::Content(away.text)) }
    }
}

fn missing(text: &str) -> Stopped {
    Stopped::For(FetchFailure::Content(text.to_owned()))
}

fn put(wanted: &Wanted, bytes: Option<&Bytes>, take: &mut Take<'_>) -> Result<(), FetchFailure> {
    match bytes {
        Some(bytes) if bytes.len() == wanted.len as usize => take(wanted.offset, bytes).map_err(|error: GateError| error.into()),
        _ => Err(FetchFailure::Content("A part of its content is not in the share".to_owned())),
    }
}

fn request_len(wanted: &[Wanted], most: u64) -> usize {
    let mut bytes = 0;
    let fitting = wanted.iter().take_while(|wanted| {
        bytes += u64::from(wanted.len);
        bytes <= most
    });
    fitting.count().max(1)
}

impl Source for FromShare {
    fn fetch(
        &self,
        (file, record): (&Handle, &StubRecord),
        units: &Units,
        ahead: &Ahead,
        take: &mut Take<'_>,
        errand: &Errand<'_>,
    ) -> Result<(), FetchFailure> {
        let (mut wanted, mut position) = (None, 0);
        // All of it or nothing: what remained might be asked of another share than the one that knows it.
        if let Some(manifest) = ahead.manifest(file, record).filter(|_| ahead.has(file, record)) {
            return wanted_of(manifest, units).iter().try_for_each(|wanted| put(wanted, ahead.chunk(&wanted.chunk), take));
        }
        loop {
            let begun = match wanted.take() {
                Some(wanted) => Ok(wanted),
                None => self.manifest(file, record).map(|manifest| wanted_of(&manifest, units)),
            };
            let result = begun.and_then(|list| {
                let result = self.chunks(&list, &mut position, take, errand);
                wanted = Some(list);
                result
            });
            match result {
                Ok(()) => return Ok(()),
                Err(Stopped::For(failure)) => return Err(failure),
                Err(Stopped::Away(_)) if !(errand.go_on)() => return Err(FetchFailure::NotWanted),
                Err(Stopped::Away(away)) => {
                    tracing::debug!(why = away.text, "A recall waits for the service");
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    fn ahead(&self, of: &[(Handle, StubRecord)], errand: &Errand<'_>) -> Ahead {
        self.fetch_ahead(of, errand)
    }

    fn is_limited(&self) -> bool {
        self.content.portion(false).is_some()
    }

    fn is_dense(&self, file: &Handle, record: &StubRecord) -> Result<bool, FetchFailure> {
        match self.manifest(file, record) {
            Ok(manifest) => Ok(manifest.placed().all(|placed| matches!(placed.part, Part::Data { .. }))),
            Err(Stopped::For(failure)) => Err(failure),
            Err(Stopped::Away(away)) => Err(FetchFailure::Content(away.text)),
        }
    }

    /// For an endpoint's policy says.
    fn shows_offline(&self, _file: &Handle) -> bool {
        true
    }

    fn modified(&self, file: &Handle, record: &StubRecord) -> Option<i64> {
        let known = self.known.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_handle(file).iter().find_map(|node| node.modified_of(record.content)).map(|time| time.0)
    }
}

/// The chunks in which any of these units are, in order; those of the last unit first, for which whoever opens a large file waits.
fn wanted_of(manifest: &Manifest, units: &Units) -> Vec<Wanted> {
    let bytes: Vec<std::ops::Range<u64>> = units.bytes(manifest.len()).collect();
    let is_in = |from: u64, len: u32| {
        let at = bytes.partition_point(|range| range.end <= from);
        bytes.get(at).is_some_and(|range| range.start < from + u64::from(len))
    };
    let of = |placed: isotherm_core::content::manifest::PlacedPart| match placed.part {
        Part::Data { chunk, len } if is_in(placed.offset, len) => Some(Wanted { offset: placed.offset, chunk, len }),
        _ => None,
    };
    let mut wanted: Vec<Wanted> = manifest.placed().filter_map(of).collect();
    if !units.contain(&Units::all(manifest.len())) {
        let end = Units::last(manifest.len()).bytes(manifest.len()).next().map_or(0, |range| range.start);
        let is_before = |wanted: &Wanted| wanted.offset + u64::from(wanted.len) <= end;
        let before = wanted.iter().take_while(|wanted| is_before(wanted)).count();
        wanted.rotate_left(before);
    }
    wanted
}

impl fmt::Debug for FromShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromShare").finish_non_exhaustive()
    }
}
