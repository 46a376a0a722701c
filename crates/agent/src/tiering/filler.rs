//! Who has contents come by themselves, for each guarded volume: what is pinned, and what endpoints want to have here.
//!
//! It asks for them as anybody could who opens the files, but nobody waits for it, and so those who do come first.
//! **Invariant:** nothing goes for what comes by itself, unless that is pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::node::Kind;
use isotherm_core::tiering::{Used, Warmest};
use isotherm_core::trees::{Handle, Record};

use super::cold::Ground;
use crate::catalog::CatalogReader;
use crate::engine::Command;
use crate::guarded::GuardedVolume;
use crate::volume::gate_handle;

/// Between two looks at what is wanted.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at all that is pinned, or so many times as long as one takes: what others bring below it comes then.
const PINS: (Duration, u32) = (Duration::from_secs(10), 20);
/// Files that are chosen together, the warmest of all that are wanted.
const CHOSEN: usize = 50_000;
/// Files and bytes that come together; before each such part it is asked again how much room there is.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: u64 = 256 << 20;
/// For how long a file is left alone whose content did not come.
const STUCK: Duration = Duration::from_secs(300);
/// Between two tries where nothing fits.
const FULL: Duration = Duration::from_secs(10);
/// Nodes that are read from a catalog together.
const PAGE: usize = 1_000;

/// A file whose content may come: which endpoint, which node, and its inode.
type Coming = (EndpointId, NodeId, Handle);

/// What is pinned, by endpoints.
type Pins = Vec<(EndpointId, BTreeSet<NodeId>)>;

/// Works until it is to end.
pub(super) fn fill(volume: &Weak<GuardedVolume>, ends: &Arc<AtomicBool>) {
    let mut filler = Filler::default();
    while !ends.load(Ordering::Relaxed)
        && let Some(volume) = volume.upgrade()
    {
        let has_more = filler.turn(&volume, ends);
        drop(volume);
        if !has_more {
            std::thread::sleep(LOOK);
        }
    }
}

#[derive(Default)]
struct Filler {
    readers: BTreeMap<EndpointId, CatalogReader>,
    /// What was pinned when all of it was looked at, when that was, and how long it took.
    pins: Option<(Pins, Instant, Duration)>,
    /// Contents that did not come, and until when they are left alone.
    stuck: BTreeMap<Handle, Instant>,
    /// Nothing that is wanted fits before this time.
    full_until: Option<Instant>,
}

impl Filler {
    /// Has come what should; whether there may be more.
    fn turn(&mut self, volume: &Arc<GuardedVolume>, ends: &AtomicBool) -> bool {
        let Some(situation) = volume.situation() else { return false };
        self.stuck.retain(|_, until| Instant::now() < *until);
        self.readers.retain(|endpoint, _| situation.grounds.iter().any(|ground| ground.endpoint == *endpoint));
        for ground in &situation.grounds {
            if !self.readers.contains_key(&ground.endpoint)
                && let Ok(reader) = CatalogReader::open(&ground.catalog)
            {
                self.readers.insert(ground.endpoint, reader);
            }
        }
        let pinned = self.pinned(volume, &situation.grounds).into_room(situation.volume.room_for_pinned());
        let mut came = self.bring(volume, &pinned, true, ends);
        if self.full_until.is_none_or(|until| Instant::now() >= until) {
            let (wanted, is_any) = self.wanted(volume);
            let wanted = wanted.into_room(situation.volume.spare_room());
            let more = self.bring(volume, &wanted, false, ends);
            self.full_until = (is_any && more == 0).then(|| Instant::now() + FULL);
            came += more;
        }
        came > 0
    }

    /// Files below what is pinned whose content is not here; none where it is not the time to look.
    fn pinned(&mut self, volume: &GuardedVolume, grounds: &[Ground]) -> Warmest<Coming> {
        let mut warmest = Warmest::new(CHOSEN);
        let pins_of = |ground: &Ground| Some((ground.endpoint, self.readers.get(&ground.endpoint)?.pinned()?));
        let pins: Pins = grounds.iter().filter_map(pins_of).filter(|(_, pins)| !pins.is_empty()).collect();
        let is_seen = |(seen, at, took): &(Pins, Instant, Duration)| *seen == pins && at.elapsed() < PINS.0.max(*took * PINS.1);
        if pins.is_empty() || self.pins.as_ref().is_some_and(is_seen) {
            return warmest;
        }
        let begun = Instant::now();
        let mut found = 0;
        for (endpoint, nodes) in &pins {
            let Some(reader) = self.readers.get(endpoint) else { continue };
            let mut open: Vec<Record> = nodes.iter().filter_map(|node| reader.record(*node)).collect();
            while let Some(record) = open.pop() {
                match record.here().map(|local| local.kind()) {
                    Some(Kind::Directory) => open.extend(reader.children(record.node)),
                    Some(Kind::File) if self.offer(volume, (*endpoint, &record), &mut warmest) => found += 1,
                    _ => {}
                }
            }
        }
        // What was more than is chosen at a time comes with the next look.
        self.pins = (found <= CHOSEN).then(|| (pins, begun, begun.elapsed()));
        warmest
    }

    /// Files that endpoints want whole, and whether there are any.
    fn wanted(&mut self, volume: &GuardedVolume) -> (Warmest<Coming>, bool) {
        let (mut warmest, mut is_any) = (Warmest::new(CHOSEN), false);
        for (endpoint, reader) in &self.readers {
            let mut after = None;
            loop {
                let page = reader.wanted(after, PAGE);
                let Some(last) = page.last() else { break };
                after = Some(*last);
                let mut done = Vec::new();
                for node in page {
                    let record = reader.record(node);
                    let file = record.as_ref().filter(|record| record.here().is_some());
                    match file {
                        Some(record) if self.offer(volume, (*endpoint, record), &mut warmest) => is_any = true,
                        Some(record) if record.here().is_some_and(|local| self.stuck.contains_key(&local.handle)) => {}
                        _ => done.push(node),
                    }
                }
                if !done.is_empty() {
                    volume.ask(*endpoint, Command::NotWanted(done));
                }
            }
        }
        (warmest, is_any)
    }

    /// Whether a file is a stub whose content may come.
    fn offer(&self, volume: &GuardedVolume, (endpoint, record): (EndpointId, &Record), warmest: &mut Warmest<Coming>) -> bool {
        let Some(local) = record.here().filter(|local| !self.stuck.contains_key(&local.handle)) else { return false };
        let inode = gate_handle(&local.handle).and_then(|handle| volume.root().inode(&handle));
        if !inode.is_ok_and(|inode| inode.is_stub()) {
            return false;
        }
        let position = volume.last_use(record, local).position();
        warmest.offer(Used { position, bytes: local.print.size, file: (endpoint, record.node, local.handle.clone()) });
        true
    }

    /// Brings contents back in parts; how many came.
    fn bring(&mut self, volume: &Arc<GuardedVolume>, coming: &[Used<Coming>], is_pinned: bool, ends: &AtomicBool) -> usize {
        let mut came = 0;
        let go_on = || !ends.load(Ordering::Relaxed);
        for part in parts(coming) {
            let Some(situation) = volume.situation().filter(|_| go_on()) else { break };
            let room = if is_pinned { situation.volume.room_for_pinned() } else { situation.volume.spare_room() };
            if part.iter().map(|used| used.bytes).sum::<u64>() > room {
                break;
            }
            let files: Vec<Handle> = part.iter().map(|used| used.file.2.clone()).collect();
            let mut done: BTreeMap<EndpointId, Vec<NodeId>> = BTreeMap::new();
            for (used, is_whole) in part.iter().zip(volume.prefetch(files, &go_on)) {
                let (endpoint, node, file) = &used.file;
                if is_whole {
                    came += 1;
                    done.entry(*endpoint).or_default().push(*node);
                } else {
                    self.stuck.insert(file.clone(), Instant::now() + STUCK);
                }
            }
            for (endpoint, nodes) in done {
                volume.ask(endpoint, Command::NotWanted(nodes));
            }
        }
        if came > 0 {
            tracing::info!(path = %volume.path().display(), files = came, is_pinned, "Contents came by themselves");
        }
        came
    }
}

/// What is to come in pieces.
fn parts(mut coming: &[Used<Coming>]) -> impl Iterator<Item = &[Used<Coming>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = coming.iter().take(TOGETHER).take_while(|used| {
            let is_first = bytes == 0;
            bytes += used.bytes.max(1);
            is_first || bytes <= TOGETHER_BYTES
        });
        let (part, rest) = coming.split_at(fits.count());
        coming = rest;
        (!part.is_empty()).then_some(part)
    })
}
