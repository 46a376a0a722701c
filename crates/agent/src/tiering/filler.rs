//! Who has contents come by themselves, for each guarded volume: what is pinned, and what endpoints want to have here.
//!
//! It asks for them as anybody could who opens the files, but nobody waits for it, and so those who do come first.
//! **Invariant:** nothing goes for what comes by itself, unless that is pinned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::node::Kind;
use isotherm_core::tiering::{Policy, Used, Warmest};
use isotherm_core::trees::{Handle, Record};

use super::cold::Ground;
use super::kept::Kept;
use super::runner::Situation;
use crate::catalog::{CatalogReader, What};
use crate::engine::Command;
use crate::guarded::GuardedVolume;
use crate::volume::gate_handle;

/// Between two looks at what is to come.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at all that is pinned, or so many times as long as one takes: what others bring below it comes then. The same for
/// what is to come and does not fit.
const AGAIN: (Duration, u32) = (Duration::from_secs(10), 20);
/// For how long contents are brought before it is looked whether others are more urgent.
const BRINGS: Duration = Duration::from_secs(10);
/// Files that are chosen together, the warmest of all that are to come.
const CHOSEN: usize = 50_000;
/// Files and bytes that come together; before each such part it is asked again how much room there is.
const TOGETHER: usize = 256;
const TOGETHER_BYTES: u64 = 256 << 20;
/// For how long a file is left alone whose content did not come.
const STUCK: Duration = Duration::from_secs(300);
/// Nodes that are read from a catalog together.
const PAGE: usize = 1_000;

/// A file whose content may come: which endpoint, which node, and its inode.
type Coming = (EndpointId, NodeId, Handle);

/// Nodes that need not come any more, each with the inode that was seen.
type Done = Vec<(NodeId, Option<Handle>)>;

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
    /// Endpoints of which not all names are here: what comes first might not be the warmest.
    growing: BTreeSet<EndpointId>,
    /// What was pinned when all of it was looked at.
    pins: Pins,
    /// When that, and what is to come, is looked at again.
    pins_again: Option<Instant>,
    coming_again: Option<Instant>,
    /// What is to come, the warmest first.
    chosen: VecDeque<Used<Coming>>,
    /// Contents that did not come, and until when they are left alone.
    stuck: BTreeMap<Handle, Instant>,
}

/// Why a content comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Pinned,
    Coming,
}

impl Why {
    fn what(self) -> What {
        match self {
            Self::Pinned => What::RecalledForPin,
            Self::Coming => What::RecalledByItself,
        }
    }
}

/// A content that is to come by itself.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) endpoint: EndpointId,
    pub(crate) node: NodeId,
    /// [`What::RecalledForPin`] or [`What::RecalledByItself`].
    pub(crate) why: What,
    /// There is room for it now, with all that come before.
    pub(crate) fits: bool,
}

/// What is to come by itself, in the order in which it does: what is pinned, then what endpoints want to have here.
pub(crate) fn expected(volume: &Arc<GuardedVolume>) -> Vec<Expected> {
    let Some(Situation { grounds, volume: space }) = volume.situation() else { return Vec::new() };
    let (mut filler, ends) = (Filler::default(), AtomicBool::new(false));
    filler.open(&grounds);
    let pinned = filler.pinned(volume, &filler.pins(), &ends);
    let (coming, _) = filler.coming(volume, &ends, &|_, _| {});
    let (mut expected, mut known) = (Vec::new(), BTreeSet::new());
    for (why, found, room) in [(Why::Pinned, pinned, space.room_for_pinned()), (Why::Coming, coming, space.spare_room())] {
        let all = found.into_room(u64::MAX);
        let mut chosen = Warmest::new(CHOSEN);
        all.iter().cloned().for_each(|used| chosen.offer(used));
        let fitting: BTreeSet<Coming> = chosen.into_room(room).into_iter().map(|used| used.file).collect();
        for Used { file, .. } in all {
            if known.insert(file.clone()) {
                expected.push(Expected { endpoint: file.0, node: file.1, why: why.what(), fits: fitting.contains(&file) });
            }
        }
    }
    expected
}

impl Filler {
    /// Has a view of the catalogs of these endpoints, and of no others.
    fn open(&mut self, grounds: &[Ground]) {
        self.growing = grounds.iter().filter(|ground| !ground.has_names).map(|ground| ground.endpoint).collect();
        self.readers.retain(|endpoint, _| grounds.iter().any(|ground| ground.endpoint == *endpoint));
        for ground in grounds {
            if !self.readers.contains_key(&ground.endpoint)
                && let Ok(reader) = CatalogReader::open(&ground.catalog)
            {
                self.readers.insert(ground.endpoint, reader);
            }
        }
    }

    fn pins(&self) -> Pins {
        self.readers
            .iter()
            .filter_map(|(endpoint, reader)| Some((*endpoint, reader.pinned()?)))
            .filter(|(_, pins)| !pins.is_empty())
            .collect()
    }

    /// Has come what should; whether there may be more at once.
    fn turn(&mut self, volume: &Arc<GuardedVolume>, ends: &AtomicBool) -> bool {
        let Some(Situation { grounds, volume: space }) = volume.situation() else { return false };
        self.stuck.retain(|_, until| Instant::now() < *until);
        self.open(&grounds);
        let pins = self.pins();
        let is_due = |again: Option<Instant>| again.is_none_or(|again| Instant::now() >= again);
        let mut came = 0;
        if !pins.is_empty() && (is_due(self.pins_again) || pins != self.pins) && space.room_for_pinned() > 0 {
            let begun = Instant::now();
            let pinned = self.pinned(volume, &pins, ends).into_room(space.room_for_pinned());
            self.pins_again = Some(Instant::now() + AGAIN.0.max(begun.elapsed() * AGAIN.1));
            self.pins = pins;
            came += self.bring(volume, &mut pinned.into(), Why::Pinned, ends);
        }
        if self.chosen.is_empty() && is_due(self.coming_again) && space.spare_room() > 0 {
            let begun = Instant::now();
            let settle = |endpoint, done| {
                volume.ask(endpoint, Command::NotComing(done));
            };
            let (found, is_any) = self.coming(volume, ends, &settle);
            self.chosen = found.into_room(space.spare_room()).into();
            // Soon again where little had to be looked at; not where much is to come and nothing of it fits, or comes.
            let least = if is_any && self.chosen.is_empty() { AGAIN.0 } else { LOOK };
            self.coming_again = Some(Instant::now() + least.max(begun.elapsed() * AGAIN.1));
        }
        let mut chosen = std::mem::take(&mut self.chosen);
        came += self.bring(volume, &mut chosen, Why::Coming, ends);
        self.chosen = chosen;
        came > 0
    }

    /// Files below what is pinned whose content is not here.
    fn pinned(&self, volume: &GuardedVolume, pins: &Pins, ends: &AtomicBool) -> Warmest<Coming> {
        let mut warmest = Warmest::new(CHOSEN);
        for (endpoint, nodes) in pins {
            let Some(reader) = self.readers.get(endpoint) else { continue };
            let mut open: Vec<Record> = nodes.iter().filter_map(|node| reader.record(*node)).collect();
            while let Some(record) = open.pop().filter(|_| !ends.load(Ordering::Relaxed)) {
                match record.here().map(|local| local.kind()) {
                    Some(Kind::Directory) => open.extend(reader.children(record.node)),
                    Some(Kind::File) => {
                        self.offer(volume, (*endpoint, &record), &mut warmest);
                    }
                    _ => {}
                }
            }
        }
        warmest
    }

    /// Files that endpoints want whole, and whether there are any. Those that are whole, or gone, are given to `settle`.
    fn coming(&self, volume: &GuardedVolume, ends: &AtomicBool, settle: &dyn Fn(EndpointId, Done)) -> (Warmest<Coming>, bool) {
        let (mut warmest, mut is_any) = (Warmest::new(CHOSEN), false);
        for (endpoint, reader) in self.readers.iter().filter(|(endpoint, _)| !self.growing.contains(endpoint)) {
            let mut after = None;
            loop {
                let page = reader.coming(after, PAGE);
                let Some(last) = page.last().filter(|_| !ends.load(Ordering::Relaxed)) else { break };
                after = Some(*last);
                let mut done = Vec::new();
                for node in page {
                    let record = reader.record(node);
                    match record.as_ref().and_then(|record| Some((record, record.here()?))) {
                        None => done.push((node, None)),
                        Some((record, local)) => match self.offer(volume, (*endpoint, record), &mut warmest) {
                            Some(false) => done.push((node, Some(local.handle.clone()))),
                            // What cannot be looked at now is to come as before.
                            Some(true) | None => is_any = true,
                        },
                    }
                }
                if !done.is_empty() {
                    settle(*endpoint, done);
                }
            }
        }
        (warmest, is_any)
    }

    /// Whether a file is a stub whose content may come; none where that cannot be told now, or it did not come a while ago.
    fn offer(
        &self,
        volume: &GuardedVolume,
        (endpoint, record): (EndpointId, &Record),
        warmest: &mut Warmest<Coming>,
    ) -> Option<bool> {
        let local = record.here().filter(|local| !self.stuck.contains_key(&local.handle))?;
        let inode = gate_handle(&local.handle).and_then(|handle| volume.root().inode(&handle)).ok()?;
        if inode.stub_record().ok()?.is_none() {
            return Some(false);
        }
        let position = volume.last_use(record, local).position();
        warmest.offer(Used { position, bytes: local.print.size, file: (endpoint, record.node, local.handle.clone()) });
        Some(true)
    }

    /// Brings contents back in parts, for a while; how many came. Those that have come, or shall not any more, are taken out.
    fn bring(&mut self, volume: &Arc<GuardedVolume>, coming: &mut VecDeque<Used<Coming>>, why: Why, ends: &AtomicBool) -> usize {
        let (mut came, begun) = (0, Instant::now());
        let go_on = || !ends.load(Ordering::Relaxed);
        while !coming.is_empty() && go_on() && begun.elapsed() < BRINGS {
            let Some(situation) = volume.situation() else { break };
            let room = if why == Why::Pinned { situation.volume.room_for_pinned() } else { situation.volume.spare_room() };
            let mut part = take_part(coming);
            // It was chosen a while ago.
            part.retain(|used| self.still(why, &used.file));
            if part.iter().map(|used| used.bytes).sum::<u64>() > room {
                coming.clear();
                break;
            }
            let files: Vec<Handle> = part.iter().map(|used| used.file.2.clone()).collect();
            let mut done: BTreeMap<EndpointId, Done> = BTreeMap::new();
            for (used, is_whole) in part.into_iter().zip(volume.have_come(files, why.what(), &go_on)) {
                let (endpoint, node, file) = used.file;
                if is_whole {
                    came += 1;
                    done.entry(endpoint).or_default().push((node, Some(file)));
                } else {
                    self.stuck.insert(file, Instant::now() + STUCK);
                }
            }
            for (endpoint, files) in done {
                volume.ask(endpoint, Command::NotComing(files));
            }
        }
        if came > 0 {
            tracing::info!(path = %volume.path().display(), files = came, ?why, "Contents came by themselves");
        }
        came
    }

    /// Whether a file is still the one that was chosen, and is still to come.
    fn still(&self, why: Why, (endpoint, node, file): &Coming) -> bool {
        let Some(reader) = self.readers.get(endpoint) else { return false };
        let Some(record) = reader.record(*node) else { return false };
        let Some(local) = record.here().filter(|local| local.handle == *file) else { return false };
        match why {
            Why::Coming => reader.is_coming(*node),
            Why::Pinned => {
                Kept::new(reader, Policy::default()).is_some_and(|mut kept| kept.stays(reader, *node, &local.place).is_some())
            }
        }
    }
}

/// The next files and bytes that come together.
fn take_part(coming: &mut VecDeque<Used<Coming>>) -> Vec<Used<Coming>> {
    let mut bytes = 0;
    let fits = coming.iter().take(TOGETHER).take_while(|used| {
        let is_first = bytes == 0;
        bytes += used.bytes.max(1);
        is_first || bytes <= TOGETHER_BYTES
    });
    let count = fits.count();
    coming.drain(..count).collect()
}
