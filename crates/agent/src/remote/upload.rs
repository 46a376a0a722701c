//! Reading files and bringing to the share what it lacks of them.
//!
//! Small files go together: one question for all their chunks, one pack, one request for their manifests. Large files
//! are streamed in windows; memory does not grow with the file. **Invariants:** a content is answered only after the
//! share holds all of it durably; it is what the file held at one moment (row 7), and the print that comes with it is
//! never newer than that moment.

mod send;
mod stub;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use isotherm_core::content::{ChunkId, Manifest, ManifestError};
use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::node::FileContent;
use isotherm_gate::{ContentReader, ErrorKind, Finish, GateError, Inode, Stat};

use super::Share;
use crate::catalog::CatalogReader;
use crate::engine::{Away, ReadRequest, ReadResult};
use crate::hashing::hash;
use crate::volume::{StubRules, Volume, print_of};
pub use send::Sender;

/// Files up to this many bytes are held in memory until all of a batch is sent.
const SMALL_MAX: u64 = 4 << 20;
/// Bytes of small files that are held at a time.
const BATCH_BYTES: u64 = 32 << 20;
/// Threads that read small files of one batch.
const READERS: usize = 2;
/// Fewer files than this are flushed one by one.
const SYNC_FILES: usize = 8;
/// From this try on a file that never rests is read from a snapshot, or up to where it only grew.
const RESTLESS_TRIES: u32 = 3;

/// Reads files of one volume for one share.
#[derive(Debug)]
pub struct Uploader {
    volume: Arc<Volume>,
    share: Arc<Share>,
    /// None where stubs are of no use.
    met: Option<MetStubs>,
}

/// For stubs that are met.
#[derive(Debug)]
struct MetStubs {
    /// What is known of their nodes.
    known: Mutex<CatalogReader>,
    rules: Arc<StubRules>,
}

/// Why a file was not read.
enum ReadError {
    Gate(GateError),
    Manifest(ManifestError),
    Away(Away),
    Changed,
    Gone,
    /// Larger than it was when its batch was put together.
    Large,
    /// It is a stub, and this is known of it.
    Stub(ReadResult),
}

impl From<GateError> for ReadError {
    fn from(error: GateError) -> Self {
        Self::Gate(error)
    }
}

impl From<ManifestError> for ReadError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

impl From<ReadError> for ReadResult {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gate(error) => match error.kind() {
                ErrorKind::Stale | ErrorKind::NotFound => Self::Gone,
                // Under somebody's lease; it is asked again.
                ErrorKind::Busy => Self::Changed,
                kind => Self::Failed(format!("It cannot be read: {kind}")),
            },
            ReadError::Manifest(error) => Self::Failed(format!("It cannot be cut into chunks: {error}")),
            ReadError::Away(away) => Self::Away(away),
            ReadError::Changed | ReadError::Large => Self::Changed,
            ReadError::Gone => Self::Gone,
            ReadError::Stub(result) => result,
        }
    }
}

/// A small file in memory.
struct Held {
    manifest: Manifest,
    stat: Stat,
    chunks: Vec<(ChunkId, Vec<u8>)>,
}

impl Uploader {
    /// An uploader from `volume` to `share`. Without `met` stubs are refused; with it, what they stand for is told.
    #[must_use]
    pub fn new(volume: Arc<Volume>, share: Arc<Share>, met: Option<(CatalogReader, Arc<StubRules>)>) -> Self {
        let met = met.map(|(known, rules)| MetStubs { known: Mutex::new(known), rules });
        Self { volume, share, met }
    }

    /// Reads files; one result for each, in no particular order. Blocks until all are done.
    #[must_use]
    pub fn read(&self, requests: Vec<ReadRequest>) -> Vec<(NodeId, ReadResult)> {
        let (small, large): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.size <= SMALL_MAX && request.tries < RESTLESS_TRIES);
        let mut results = Vec::with_capacity(small.len() + large.len());
        let mut grown = Vec::new();
        for batch in batches(&small) {
            self.read_small(batch, &mut results, &mut grown);
        }
        for request in large.iter().chain(grown) {
            results.push((request.node, self.read_large(request).unwrap_or_else(ReadResult::from)));
        }
        results
    }

    fn read_small<'a>(
        &self,
        batch: &'a [ReadRequest],
        results: &mut Vec<(NodeId, ReadResult)>,
        grown: &mut Vec<&'a ReadRequest>,
    ) {
        let synced = batch.len() >= SYNC_FILES && self.volume.root().sync().is_ok();
        let mut files = Vec::with_capacity(batch.len());
        for (request, held) in batch.iter().zip(self.hold_all(batch, synced)) {
            match held {
                Ok(held) => files.push((request.node, held)),
                Err(ReadError::Large) => grown.push(request),
                Err(error) => results.push((request.node, error.into())),
            }
        }
        let mut sender = Sender::new(&self.share);
        let contents: Vec<(NodeId, ReadResult)> =
            files.iter().map(|(node, held)| (*node, content(&held.manifest, &held.stat))).collect();
        let chunks = files.into_iter().flat_map(|(_, held)| {
            sender.name(&held.manifest);
            held.chunks
        });
        let chunks: Vec<(ChunkId, Vec<u8>)> = chunks.collect();
        match sender.send(chunks).and_then(|()| sender.finish()) {
            Ok(()) => results.extend(contents),
            Err(away) => results.extend(contents.into_iter().map(|(node, _)| (node, ReadResult::Away(away.clone())))),
        }
    }

    fn hold_all(&self, batch: &[ReadRequest], synced: bool) -> Vec<Result<Held, ReadError>> {
        if batch.len() < SYNC_FILES {
            return batch.iter().map(|request| self.hold(request, synced)).collect();
        }
        let next = AtomicUsize::new(0);
        let held = Mutex::new(batch.iter().map(|_| None).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(request) = batch.get(at) else { return };
                        let result = self.hold(request, synced);
                        held.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
                    }
                });
            }
        });
        let held = held.into_inner().unwrap_or_else(PoisonError::into_inner);
        held.into_iter().map(|one| one.unwrap_or(Err(ReadError::Changed))).collect()
    }

    /// Reads a small file into memory. `synced`: the whole volume was made durable a moment ago.
    fn hold(&self, request: &ReadRequest, synced: bool) -> Result<Held, ReadError> {
        let inode = self.linked(request)?;
        let opened = if synced { ContentReader::open_after_sync(&inode) } else { ContentReader::open(&inode) };
        let mut reader = opened.map_err(|error| self.stub_or(error, request, &inode))?;
        if reader.before().size > SMALL_MAX {
            return Err(ReadError::Large);
        }
        let mut chunks = Vec::new();
        let manifest = hash(&mut reader, u64::MAX, |chunk, bytes| {
            chunks.push((chunk, bytes.to_vec()));
            Ok::<(), ReadError>(())
        })?;
        match reader.finish()? {
            Finish::Unchanged(stat) => Ok(Held { manifest, stat, chunks }),
            Finish::Changed => Err(ReadError::Changed),
        }
    }

    fn linked(&self, request: &ReadRequest) -> Result<Inode, ReadError> {
        let inode = self.volume.inode(&request.handle)?;
        if inode.stat()?.nlink == 0 { Err(ReadError::Gone) } else { Ok(inode) }
    }

    fn read_large(&self, request: &ReadRequest) -> Result<ReadResult, ReadError> {
        let inode = self.linked(request)?;
        let mut reader = ContentReader::open(&inode).map_err(|error| self.stub_or(error, request, &inode))?;
        let is_restless = request.tries >= RESTLESS_TRIES;
        if is_restless && self.volume.root().supports_reflink() {
            let mut snapshot = reader.snapshot_to(self.volume.staging())?;
            let manifest = self.stream(&mut snapshot.reader)?;
            snapshot.reader.finish()?;
            return Ok(content(&manifest, &snapshot.source));
        }
        let manifest = self.stream(&mut reader)?;
        match reader.finish()? {
            Finish::Unchanged(stat) => Ok(content(&manifest, &stat)),
            Finish::Changed if is_restless => prefix(&inode, &manifest, reader.before()),
            Finish::Changed => Err(ReadError::Changed),
        }
    }

    fn stream(&self, reader: &mut ContentReader) -> Result<Manifest, ReadError> {
        let mut sender = Sender::new(&self.share);
        let manifest = hash(reader, u64::MAX, |chunk, bytes| sender.push(chunk, bytes).map_err(ReadError::Away))?;
        sender.name(&manifest);
        sender.finish().map_err(ReadError::Away)?;
        Ok(manifest)
    }
}

/// A file that only grew while it was read: its first part, if that is still the same when it is read once more.
fn prefix(inode: &Inode, manifest: &Manifest, before: &Stat) -> Result<ReadResult, ReadError> {
    let mut again = ContentReader::open(inode)?;
    if again.before().size < before.size {
        return Err(ReadError::Changed);
    }
    let second = hash(&mut again, before.size, |_, _| Ok::<(), ReadError>(()))?;
    // Looks for a stub record once more; that the file has grown is known.
    again.finish()?;
    if second.id() == manifest.id() { Ok(content(manifest, before)) } else { Err(ReadError::Changed) }
}

fn content(manifest: &Manifest, stat: &Stat) -> ReadResult {
    let content = FileContent { manifest: manifest.id(), size: manifest.len(), modified: Timestamp(stat.mtime_ns), link: None };
    ReadResult::Content { content, print: print_of(stat) }
}

/// Cuts a list of small files so that each part fits into memory.
fn batches(requests: &[ReadRequest]) -> Vec<&[ReadRequest]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, request) in requests.iter().enumerate() {
        if at > start && bytes + request.size > BATCH_BYTES {
            batches.push(&requests[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += request.size;
    }
    if start < requests.len() {
        batches.push(&requests[start..]);
    }
    batches
}
