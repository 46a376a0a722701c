//! Bringing contents into staging: many files at a time, chunks of small files together in one request, those of large
//! ones spread over several.
//!
//! It gives nothing a name that users see. **Invariants:** what is staged as full has exactly the bytes of its manifest, is
//! durable, and has its metadata and time; memory stays below [`STREAMS`] chunks and what the network keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use isotherm_core::content::{ChunkId, Manifest, ManifestId, Part};
use isotherm_core::name::Name;
use isotherm_core::node::{FileContent, Metadata};
use isotherm_core::plan::{Action, Step};
use isotherm_gate::{ErrorKind, GateError, Inode, StagedFile, Stat};

use super::refusal::{Refusal, refused};
use super::{FULL, Performer, fetched, parts, stubs};
use crate::engine::Away;
use crate::volume::Errand;

/// Requests for chunks that run at a time.
const STREAMS: u64 = 6;
/// Bytes of chunks that one request asks for.
const REQUEST_BYTES: u64 = 8 << 20;
/// Chunks that one request asks for.
const REQUEST_CHUNKS: usize = 1_024;

/// Where contents come from. All bytes have been verified against their ids.
pub trait ContentSource: Send + Sync {
    /// Manifests in the order asked for; none where the share has none.
    ///
    /// # Errors
    /// The source is away.
    fn manifests(&self, ids: &[ManifestId]) -> Result<Vec<Option<Manifest>>, Away>;

    /// Hands out chunks, which have so many bytes together, as they arrive; none where the share has none. May wait before it asks for
    /// any. Who hears of it is told whenever some bytes have come, and while it waits.
    ///
    /// # Errors
    /// The source is away, or it is not wanted any more; some chunks may have been handed out.
    fn chunks(
        &self,
        of: (&[ChunkId], u64),
        sink: &mut dyn FnMut(ChunkId, Option<Bytes>),
        errand: &Errand<'_>,
    ) -> Result<(), Away>;

    /// Bytes that are to be asked for at once at most, where what comes is limited now, for those who wait or for the others.
    fn portion(&self, _is_awaited: bool) -> Option<u64> {
        None
    }
}

/// Something whole in staging, ready to get its name.
pub(super) struct Staged {
    pub(super) name: String,
    pub(super) inode: Inode,
    /// Its state in staging, where nobody else can change it.
    pub(super) stat: Stat,
    /// Its metadata as the file system shows it.
    pub(super) shown: Metadata,
    /// It comes without its content.
    pub(super) is_stub: bool,
}

/// A file whose content is being fetched.
struct File<'a> {
    step: &'a Step,
    content: &'a FileContent,
    /// Its content stays where it is.
    as_stub: bool,
    file: Option<StagedFile>,
    /// Offsets of the chunks that an earlier fetch has left in it.
    held: BTreeSet<u64>,
    failed: Option<Refusal>,
}

/// A chunk and where its bytes go: which file, at which offset.
type Wanted = (ChunkId, u32, Vec<(usize, u64)>);

/// Stages the contents of those steps that need one.
pub(super) fn stage(performer: &Performer, steps: &[Step]) -> Vec<Option<Result<Staged, Refusal>>> {
    let needed = steps.iter().filter_map(|step| Some((step, fetched(step)?.file()?)));
    let begun = |(step, content)| {
        let as_stub = stubs::comes_as_stub(performer, step, content);
        File { step, content, as_stub, file: None, held: BTreeSet::new(), failed: None }
    };
    let mut files: Vec<File<'_>> = needed.map(begun).collect();
    if files.is_empty() {
        return steps.iter().map(|_| None).collect();
    }
    match manifests(performer, &files) {
        Ok(manifests) => fetch(performer, &mut files, &manifests),
        Err(away) => files.iter_mut().for_each(|file| file.failed = Some(Refusal::Away(away.clone()))),
    }
    let mut staged = complete(performer, files).into_iter();
    steps.iter().map(|step| fetched(step).and_then(|_| staged.next())).collect()
}

fn manifests(performer: &Performer, files: &[File<'_>]) -> Result<BTreeMap<ManifestId, Manifest>, Away> {
    let ids: BTreeSet<ManifestId> = files.iter().filter(|file| !file.as_stub).map(|file| file.content.manifest).collect();
    let ids: Vec<ManifestId> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = performer.source.manifests(&ids)?;
    Ok(ids.into_iter().zip(found).filter_map(|(id, manifest)| Some((id, manifest?))).collect())
}

fn fetch(performer: &Performer, files: &mut [File<'_>], manifests: &BTreeMap<ManifestId, Manifest>) {
    let mut wanted: BTreeMap<ChunkId, Wanted> = BTreeMap::new();
    let stubs: Vec<(&Step, &FileContent)> =
        files.iter().filter(|file| file.as_stub).map(|file| (file.step, file.content)).collect();
    let made = stubs::make(performer, &stubs);
    for (file, made) in files.iter_mut().filter(|file| file.as_stub).zip(made) {
        match made {
            Ok(staged) => file.file = Some(staged),
            Err(error) => file.failed = Some(refused(step_name(file.step), &error)),
        }
    }
    for (at, file) in files.iter_mut().enumerate().filter(|(_, file)| !file.as_stub) {
        let Some(manifest) = manifests.get(&file.content.manifest).filter(|found| found.len() == file.content.size) else {
            file.failed = Some(missing(file.step, "Its content is not in the share"));
            continue;
        };
        match begin(performer, file, manifest) {
            Ok((staged, held)) => {
                file.file = Some(staged);
                file.held = held;
            }
            Err(error) => {
                file.failed = Some(refused(step_name(file.step), &error));
                continue;
            }
        }
        for placed in manifest.placed().filter(|placed| !file.held.contains(&placed.offset)) {
            if let Part::Data { chunk, len } = placed.part {
                wanted.entry(chunk).or_insert_with(|| (chunk, len, Vec::new())).2.push((at, placed.offset));
            }
        }
    }
    // In the order of the files, so that each file is written from front to back.
    let mut wanted: Vec<Wanted> = wanted.into_values().collect();
    wanted.sort_by_key(|(_, _, places)| places.first().copied());
    let failures = Mutex::new(BTreeMap::new());
    let left = Mutex::new(&wanted[..]);
    let bytes: u64 = wanted.iter().map(|(_, len, _)| u64::from(*len)).sum();
    let streams = bytes.div_ceil(REQUEST_BYTES).max(wanted.len().div_ceil(REQUEST_CHUNKS) as u64).min(STREAMS);
    let files_seen: &[File<'_>] = files;
    std::thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(|| {
                while let Some(request) = next_request(&left, performer.source.portion(false)) {
                    let failed = ask(performer, files_seen, request);
                    failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
                }
            });
        }
    });
    for (at, failed) in failures.into_inner().unwrap_or_else(PoisonError::into_inner) {
        files[at].failed.get_or_insert(failed);
    }
}

/// The file in staging, and the offsets of the chunks that it has from an earlier fetch.
fn begin(performer: &Performer, file: &File<'_>, manifest: &Manifest) -> Result<(StagedFile, BTreeSet<u64>), GateError> {
    let staged = parts::open(performer, file.step.node, file.content)?;
    let before = staged.stat()?.size;
    // What is not written stays a hole.
    let begun = parts::held(&staged, manifest, before).and_then(|held| staged.set_len(manifest.len()).map(|()| held));
    match begun {
        Ok(held) => Ok((staged, held)),
        Err(error) => {
            let _ = performer.volume.staging().remove(staged.name());
            Err(error)
        }
    }
}

/// Takes what is asked for together out of what is left: less where a limit makes it wait, which may have come or gone meanwhile.
fn next_request<'a>(left: &Mutex<&'a [Wanted]>, portion: Option<u64>) -> Option<&'a [Wanted]> {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let most = portion.map_or(REQUEST_BYTES, |portion| portion.min(REQUEST_BYTES));
    let mut bytes = 0;
    let fitting = left.iter().take(REQUEST_CHUNKS).take_while(|(_, len, _)| {
        bytes += u64::from(*len);
        bytes <= most
    });
    let (request, rest) = left.split_at_checked(fitting.count().max(1))?;
    *left = rest;
    Some(request)
}

/// One request, its bytes written as they arrive; tells which files failed.
fn ask(performer: &Performer, files: &[File<'_>], request: &[Wanted]) -> BTreeMap<usize, Refusal> {
    let mut failed = BTreeMap::new();
    let places: BTreeMap<ChunkId, &Wanted> = request.iter().map(|wanted| (wanted.0, wanted)).collect();
    let mut left: BTreeSet<ChunkId> = places.keys().copied().collect();
    let ids: Vec<ChunkId> = request.iter().map(|(chunk, _, _)| *chunk).collect();
    let bytes = request.iter().map(|(_, len, _)| u64::from(*len)).sum();
    let answer = performer.source.chunks(
        (&ids, bytes),
        &mut |chunk, bytes| {
            let Some((_, len, targets)) = places.get(&chunk) else { return };
            left.remove(&chunk);
            for (at, offset) in targets {
                let written = match &bytes {
                    Some(bytes) if bytes.len() == *len as usize => write(&files[*at], bytes, *offset),
                    _ => Err(missing(files[*at].step, "A part of its content is not in the share")),
                };
                if let Err(result) = written {
                    failed.entry(*at).or_insert(result);
                }
            }
        },
        &Errand::OWN,
    );
    let away = match answer {
        Ok(()) => Away { text: "The service did not send all that was asked for".to_owned(), retry: true },
        Err(away) => away,
    };
    for (at, _) in left.iter().flat_map(|chunk| &places[chunk].2) {
        failed.entry(*at).or_insert_with(|| Refusal::Away(away.clone()));
    }
    failed
}

fn write(file: &File<'_>, bytes: &[u8], offset: u64) -> Result<(), Refusal> {
    let staged = file.file.as_ref().expect("chunks are wanted only for files that were begun");
    staged.write_at(bytes, offset).map_err(|error| refused(step_name(file.step), &error))
}

/// Metadata and times, one sync for all, and the name that says "whole". What failed leaves nothing behind, but for
/// large contents whose source is away.
fn complete(performer: &Performer, mut files: Vec<File<'_>>) -> Vec<Result<Staged, Refusal>> {
    let staging = performer.volume.staging();
    for file in &mut files {
        if file.failed.is_none()
            && let Err(error) = dress(performer, file)
        {
            file.failed = Some(refused(step_name(file.step), &error));
        }
    }
    if let Err(error) = performer.volume.root().sync() {
        for file in &mut files {
            file.failed.get_or_insert(refused(step_name(file.step), &error));
        }
    }
    let whole = |file: File<'_>| {
        let part = file.file.map(|staged| staged.name().to_owned());
        let goes_on = file.content.size >= parts::KEPT_FROM && matches!(file.failed, Some(Refusal::Away(_)));
        let result = match (&part, file.failed) {
            (_, Some(failed)) => Err(failed),
            (Some(part), None) => {
                let full = performer.staged_name(FULL, file.step.node);
                let sealed = seal(performer, part, full).map(|staged| Staged { is_stub: file.as_stub, ..staged });
                sealed.map_err(|error| refused(step_name(file.step), &error))
            }
            (None, None) => Err(missing(file.step, "Its content is not in the share")),
        };
        if let (Some(part), Err(_), false) = (&part, &result, goes_on) {
            // Best effort: the next start removes it too.
            let _ = staging.remove(part);
        }
        result
    };
    files.into_iter().map(whole).collect()
}

fn dress(performer: &Performer, file: &File<'_>) -> Result<(), GateError> {
    let Some(staged) = &file.file else { return Ok(()) };
    if let Action::Create { metadata, .. } | Action::Replace { metadata, .. } = &file.step.action {
        performer.volume.write_metadata(staged.inode(), metadata)?;
    }
    staged.inode().set_mtime(file.content.modified.0)
}

fn seal(performer: &Performer, part: &OsStr, full: String) -> Result<Staged, GateError> {
    let dir = performer.volume.staging().dir();
    dir.rename_noreplace(part, dir, OsStr::new(&full))?;
    staged(performer, full)
}

/// Takes what is in staging under this name as ready.
pub(super) fn staged(performer: &Performer, name: String) -> Result<Staged, GateError> {
    let inode = performer.volume.staging().dir().inode(OsStr::new(&name))?;
    let stat = inode.stat()?;
    let shown = performer.volume.read_metadata(&inode, &stat)?;
    Ok(Staged { name, inode, stat, shown, is_stub: false })
}

/// The name that a step is about, for messages.
pub(super) fn step_name(step: &Step) -> &OsStr {
    let name: &Name = match &step.action {
        Action::Create { at, .. } => &at.name,
        Action::Replace { expected, .. } | Action::SetMetadata { expected, .. } | Action::Remove { expected, .. } => {
            &expected.spot.name
        }
        Action::Move { to, .. } => &to.name,
    };
    super::place::os(name)
}

fn missing(step: &Step, what: &str) -> Refusal {
    let kind = ErrorKind::NotFound;
    tracing::error!(node = %step.node, %kind, what, "Content cannot be fetched");
    let name = isotherm_core::name::escape(step_name(step).as_encoded_bytes()).into_owned();
    Refusal::Failed {
        text: format!("'{name}' cannot be fetched: {what}"),
        remedy: "Check the service's log for damaged or missing data; it is tried again by itself".to_owned(),
    }
}
