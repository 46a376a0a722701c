//! Looking for equal contents, over and over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isotherm_core::content::{CHUNK_MIN, Manifest, ManifestId};
use isotherm_core::dedup::{Equal, Key, Spot, equal_ranges};
use isotherm_core::ids::NodeId;
use isotherm_core::stub::ContentPrefix;
use isotherm_core::tiering::STUB_MIN;
use isotherm_core::trees::{Handle, Print};
use isotherm_gate::{ErrorKind, GateError, Shared, StubFile};

use super::{DedupSettings, is_as_it_was};
use crate::catalog::{CatalogReader, SharedFile};
use crate::clock::wall_ms;
use crate::guarded::GuardedVolume;
use crate::recall::FromShare;
use crate::volume::{gate_handle, print_of};

/// Between two looks at what is set.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at all files, or so many times as long as one takes.
const AGAIN: (Duration, u32) = (Duration::from_secs(600), 20);
/// The same between two looks whether what is known is so still.
const SORTED: Duration = Duration::from_secs(3_600);
/// Records that are read from a catalog together.
const PAGE: usize = 1_000;
/// Manifests that are asked for together: so many, or of so many bytes of content (48 bytes of memory for each MiB).
const MANIFESTS: usize = 64;
const MANIFESTS_BYTES: u64 = 64 << 30;
/// Bytes that are shared before contents may go again.
const PIECE: u64 = 16 << 20;
/// A volume is left alone for as long as it was worked on, but no longer than this at a time.
const REST_MAX: Duration = Duration::from_secs(1);

/// Works until it is to end.
pub(crate) fn run(volume: &Weak<GuardedVolume>, ends: &AtomicBool) {
    let mut last: Option<(DedupSettings, Instant, Duration)> = None;
    let mut sorted: Option<Instant> = None;
    while !ends.load(Ordering::Relaxed)
        && let Some(volume) = volume.upgrade()
    {
        let settings = volume.dedup().settings();
        // What was changed a moment ago is due soon where that is short.
        let least = AGAIN.0.min(settings.after / 4).max(LOOK);
        let is_due = last.is_none_or(|(done, at, took)| done != settings || at.elapsed() >= least.max(took * AGAIN.1));
        if settings.on && is_due {
            let begun = Instant::now();
            Pass { volume: &volume, settings, ends }.run();
            if sorted.is_none_or(|at| at.elapsed() >= SORTED) {
                volume.dedup().store.retain(|file| ends.load(Ordering::Relaxed) || is_as_it_was(volume.root(), file));
                sorted = Some(Instant::now());
            }
            last = Some((settings, Instant::now(), begun.elapsed()));
        }
        drop(volume);
        std::thread::sleep(LOOK);
    }
}

struct Pass<'a> {
    volume: &'a GuardedVolume,
    settings: DedupSettings,
    ends: &'a AtomicBool,
}

/// A file whose equals are looked for.
struct Wanted {
    file: SharedFile,
    content: ManifestId,
    print: Print,
}

/// Why a file was not done.
enum Stop {
    /// It is not what it was.
    Changed,
    /// Nothing is to be shared any more.
    Ended,
}

impl Pass<'_> {
    fn run(&self) {
        let (mut files, mut bytes) = (0, 0);
        for (catalog, source) in self.volume.sources() {
            let Ok(reader) = CatalogReader::open(&catalog) else { continue };
            let mut after = NodeId::ROOT;
            loop {
                let page = reader.whole_files(after, PAGE);
                let Some(last) = page.last().filter(|_| self.goes_on()) else { break };
                after = last.node;
                let wanted: Vec<Wanted> = page.iter().filter_map(|record| self.wanted(record)).collect();
                for shared in self.share_all(&source, wanted) {
                    files += 1;
                    bytes += shared;
                }
            }
        }
        if files > 0 {
            tracing::info!(path = %self.volume.path().display(), files, bytes, "Equal contents share blocks");
        }
    }

    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Relaxed) && self.volume.dedup().settings() == self.settings
    }

    fn wanted(&self, record: &isotherm_core::trees::Record) -> Option<Wanted> {
        let local = record.here().filter(|local| local.print.size >= STUB_MIN)?;
        let (_, content) = record.stands_for()?;
        let changed_ns = local.print.changed.0;
        let changed_ms = u64::try_from(changed_ns.max(local.print.modified.0) / 1_000_000).unwrap_or(0);
        let is_quiet = wall_ms().saturating_sub(changed_ms) >= self.settings.after.as_millis() as u64;
        let prefix = ContentPrefix::of(&content.manifest);
        let file = SharedFile { handle: local.handle.clone(), content: prefix, changed_ns, size: local.print.size };
        let is_new = is_quiet && !self.volume.dedup().store.has(&file);
        is_new.then_some(Wanted { file, content: content.manifest, print: local.print })
    }

    /// Does these files; the bytes of each that shares some.
    fn share_all(&self, source: &FromShare, wanted: Vec<Wanted>) -> Vec<u64> {
        let (mut shared, mut large) = (Vec::new(), Vec::new());
        for wanted in wanted {
            match self.share_whole(&wanted) {
                Ok(Some(bytes)) => shared.push(bytes),
                // One chunk: it has no other equals.
                Ok(None) if wanted.file.size <= CHUNK_MIN as u64 => self.note(&wanted, (0, &BTreeSet::new()), None),
                Ok(None) => large.push(wanted),
                Err(Stop::Changed) => {}
                Err(Stop::Ended) => return shared,
            }
        }
        let mut rest = &large[..];
        while !rest.is_empty() && self.goes_on() {
            let mut bytes = 0;
            let fits = rest.iter().take(MANIFESTS).take_while(|wanted| {
                bytes += wanted.file.size;
                bytes <= MANIFESTS_BYTES
            });
            let (part, others) = rest.split_at(fits.count().max(1));
            rest = others;
            let ids: Vec<ManifestId> = part.iter().map(|wanted| wanted.content).collect();
            let manifests = source.manifests(&ids).unwrap_or_else(|away| {
                tracing::debug!(why = away.text, "Equal parts of files are looked for later");
                Vec::new()
            });
            for (wanted, manifest) in part.iter().zip(manifests) {
                let Some(manifest) = manifest.filter(|manifest| manifest.len() == wanted.file.size) else { continue };
                match self.share_large(wanted, &manifest) {
                    Ok(0) | Err(Stop::Changed) => {}
                    Ok(bytes) => shared.push(bytes),
                    Err(Stop::Ended) => return shared,
                }
            }
        }
        shared
    }

    /// Shares all of a file with one of the same content; none where there is none.
    fn share_whole(&self, wanted: &Wanted) -> Result<Option<u64>, Stop> {
        let Some(spot) = self.spot(wanted, Key::of_content(&wanted.content)) else { return Ok(None) };
        if spot.file.content != wanted.file.content || spot.size != wanted.file.size {
            return Ok(None);
        }
        let all = Equal { file: spot.file, from: 0, to: 0, len: wanted.file.size };
        let (shared, others) = self.share(wanted, &[all])?;
        self.note(wanted, (shared, &others), None);
        Ok((shared > 0).then_some(shared))
    }

    fn share_large(&self, wanted: &Wanted, manifest: &Manifest) -> Result<u64, Stop> {
        // One of the same content may have been done since.
        if let Some(shared) = self.share_whole(wanted)? {
            return Ok(shared);
        }
        let equal = equal_ranges(manifest, self.volume.root().block(), |key| self.spot(wanted, key));
        let (shared, others) = self.share(wanted, &equal)?;
        self.note(wanted, (shared, &others), Some(manifest));
        Ok(shared)
    }

    /// Where bytes of a name are now, in another file.
    fn spot(&self, wanted: &Wanted, key: Key) -> Option<Spot<SharedFile>> {
        let store = &self.volume.dedup().store;
        store.spots(key).into_iter().filter(|(file, _)| file.handle != wanted.file.handle).find_map(|(file, offset)| {
            if is_as_it_was(self.volume.root(), &file) {
                return Some(Spot { size: file.size, file, offset });
            }
            store.forget(&file.handle);
            None
        })
    }

    /// Shares these ranges of a file; how many bytes, and with whom.
    fn share(&self, wanted: &Wanted, ranges: &[Equal<SharedFile>]) -> Result<(u64, BTreeSet<Handle>), Stop> {
        let (mut all, mut others) = (0, BTreeSet::new());
        for Equal { file, from, to, len } in ranges {
            let mut done = 0;
            while done < *len {
                if !self.goes_on() {
                    return Err(Stop::Ended);
                }
                let (begun, piece) = (Instant::now(), (len - done).min(PIECE));
                // A file that is open for this would be taken for one that is in use.
                let shared = self.volume.while_nothing_goes(|| {
                    let target = self.open(wanted)?;
                    let Some(source) = self.open_source(file) else { return Ok(None) };
                    Ok(Some(target.share_equal(to + done, &source, from + done, piece)))
                })?;
                std::thread::sleep(begun.elapsed().min(REST_MAX));
                match shared {
                    Some(Ok(Shared::All)) => {
                        done += piece;
                        all += piece;
                        others.insert(file.handle.clone());
                    }
                    Some(Ok(Shared::Differs(shared))) => {
                        all += shared;
                        if shared > 0 {
                            others.insert(file.handle.clone());
                        }
                        self.differs(wanted, file);
                        break;
                    }
                    Some(Err(error)) if is_for_good(&error) => break,
                    // It is looked at again in the next pass: the other one has changed, or the volume was full.
                    Some(Err(_)) | None => return Err(Stop::Changed),
                }
            }
        }
        Ok((all, others))
    }

    fn open(&self, wanted: &Wanted) -> Result<StubFile, Stop> {
        let inode = gate_handle(&wanted.file.handle).and_then(|handle| self.volume.root().inode(&handle));
        let inode = inode.map_err(|_| Stop::Changed)?;
        if inode.stub_record().map_err(|_| Stop::Changed)?.is_some() {
            return Err(Stop::Changed);
        }
        let opened = StubFile::open_to_look(&inode).map_err(|_| Stop::Changed)?;
        let is_it = opened.stat().is_ok_and(|stat| print_of(&stat) == wanted.print);
        // Asked again of what is open: nothing goes while it is.
        if is_it && opened.record().is_ok_and(|record| record.is_none()) { Ok(opened) } else { Err(Stop::Changed) }
    }

    fn open_source(&self, file: &SharedFile) -> Option<StubFile> {
        if !is_as_it_was(self.volume.root(), file) {
            return None;
        }
        let inode = gate_handle(&file.handle).and_then(|handle| self.volume.root().inode(&handle)).ok()?;
        StubFile::open_to_look(&inode).ok()
    }

    /// Two files whose bytes are not equal although both are as they were: a write behind everybody's back, or a failing disk.
    fn differs(&self, wanted: &Wanted, other: &SharedFile) {
        let are_as_they_were = [&wanted.file, other].iter().all(|file| is_as_it_was(self.volume.root(), file));
        if are_as_they_were {
            let (one, other) = (&wanted.file.handle, &other.handle);
            tracing::warn!(?one, ?other, "Two files that were in the share with the same bytes differ, and neither was changed");
        }
    }

    fn note(&self, wanted: &Wanted, shared: (u64, &BTreeSet<Handle>), manifest: Option<&Manifest>) {
        let block = self.volume.root().block();
        let mut spots = BTreeMap::from([(Key::of_content(&wanted.content), 0)]);
        for placed in manifest.iter().flat_map(|manifest| manifest.placed()) {
            if let Some(chunk) = placed.part.chunk() {
                spots.entry(Key::of_chunk(&chunk, placed.offset, block)).or_insert(placed.offset);
            }
        }
        let spots: Vec<(Key, u64)> = spots.into_iter().collect();
        self.volume.dedup().store.note(&wanted.file, shared, &spots);
    }
}

/// Whether two files will never share: they are written without copies, are for swap, or nobody may change them.
fn is_for_good(error: &GateError) -> bool {
    let is_for_good = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::Immutable);
    if is_for_good {
        tracing::debug!(%error, "Files do not share blocks");
    } else {
        tracing::warn!(%error, "Equal contents do not share blocks yet");
    }
    is_for_good
}
