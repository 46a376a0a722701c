//! The local side: what has to be looked at, and what looking taught.

mod lost;
mod reported;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::ids::NodeId;
use isotherm_core::name::Name;
use isotherm_core::node::{Kind, Place};
use isotherm_core::observe::{Evidence, Listing, Observed, observe};
use isotherm_core::trees::{Handle, LocalContent, Record, path};

use super::{Catalog, Effect, Engine, Look, LookRequest, Millis, Places};
use reported::Dirty;

/// A walk over the whole endpoint.
#[derive(Debug)]
struct Scan {
    queue: BTreeSet<NodeId>,
    /// Every directory was read to its end so far.
    whole: bool,
    evidence: Evidence,
}

/// Everything the engine remembers about looking.
#[derive(Debug, Default)]
pub(super) struct LocalSide {
    dirty: BTreeMap<NodeId, BTreeMap<Name, Dirty>>,
    /// Names that were looked at because they never rest, not because they rested.
    restless: Places,
    /// Directories to be listed whole.
    list: BTreeSet<NodeId>,
    /// Unknown directories in which something happened while steps were under way, and unknown files whose content came or went.
    strays: BTreeSet<Handle>,
    /// Directories that a scan saw at places where work was under way, and could not enter.
    unentered: BTreeSet<Handle>,
    /// Names that were still to be looked at when a scan ended: a directory that a user has moved there while the scan
    /// ran was perhaps seen at neither place.
    unscanned: Places,
    /// Nodes that steps began to move while a scan was under way.
    moving: BTreeSet<NodeId>,
    looking: bool,
    /// Names that are being looked at.
    looking_at: Places,
    /// Places where work ended while a look was under way: what that look saw there is old.
    pub(super) touched: Places,
    probing: bool,
    /// Lost nodes, with the number of scans that had begun when they were lost.
    lost: BTreeMap<NodeId, Lost>,
    /// Where they were: a new file there may be the next save of the lost one.
    vacated: BTreeMap<Place, NodeId>,
    scan: Option<Scan>,
    scans_begun: u64,
    /// The newest scan that read everything to its end.
    scans_whole: u64,
    pub(super) scan_due: Option<Millis>,
    last_scan: Millis,
    /// The kernel has reported every change since the last scan began.
    unbroken: bool,
    /// Names whose time has come whatever their quiet time: a barrier waits.
    pub(super) flush: bool,
}

#[derive(Clone, Debug)]
struct Lost {
    /// Where it was, if it was a file.
    place: Option<Place>,
    scans_begun: u64,
    probed: bool,
    /// It is tiered and has left the endpoint.
    leaving: Option<Leaving>,
    /// Its inode went without a look at its name: what took the name, if anything did, is still to be seen.
    unseen: bool,
}

/// How far a tiered file is that has left the endpoint: it counts as deleted when its content is here.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// Its content was asked for, and is asked for again at this time.
    Asked(Millis),
    /// Others come first.
    Waits,
}

impl Lost {
    fn is_to_be_probed(&self, scans_whole: u64) -> bool {
        self.leaving.is_none() && (!self.probed || self.scans_begun < scans_whole)
    }
}

impl LocalSide {
    /// The watch may have missed something.
    pub(super) fn lose_track(&mut self, now: Millis) {
        self.unbroken = false;
        self.scan_due = Some(now);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.has_looked() && self.scan.is_none() && self.lost.is_empty() && self.scans_begun > 0
    }

    /// Whether every name that was reported has been looked at.
    pub(super) fn has_looked(&self) -> bool {
        self.dirty.is_empty() && self.list.is_empty() && !self.looking && !self.probing
    }

    pub(super) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    pub(super) fn scans(&self) -> (u64, u64) {
        (self.scans_begun, self.scans_whole)
    }

    /// A directory's node has become another one: what was to be done there is to be done under the new name.
    pub(super) fn rename_node(&mut self, from: NodeId, to: NodeId) {
        if let Some(names) = self.dirty.remove(&from) {
            self.dirty.entry(to).or_default().extend(names);
        }
        for set in [Some(&mut self.list), self.scan.as_mut().map(|scan| &mut scan.queue)].into_iter().flatten() {
            if set.remove(&from) {
                set.insert(to);
            }
        }
        if let Some(lost) = self.lost.remove(&from) {
            self.vacated.extend(lost.place.clone().map(|place| (place, to)));
            self.lost.insert(to, lost);
        }
    }
}

impl<C: Catalog> Engine<C> {
    /// Asks for a directory to be listed whole, and the root where it is not here any more.
    pub(super) fn list_again(&mut self, directory: NodeId) {
        let here = self.catalog.record(directory).is_some_and(|record| record.here().is_some());
        if here {
            self.local.list.insert(directory);
        }
        self.local.list.insert(NodeId::ROOT);
    }

    /// Asks for a place to be looked at for its metadata; its bytes were just read.
    pub(super) fn glance_at(&mut self, place: &Place, now: Millis) {
        if place.parent != NodeId::PARKED {
            self.local.note(place.parent, place.name.clone(), now, Evidence::Watched);
        }
    }

    /// Asks for a place to be looked at now.
    pub(super) fn look_at(&mut self, place: &Place) {
        if place.parent == NodeId::PARKED {
            self.local.list.insert(NodeId::PARKED);
        } else {
            self.local.note(place.parent, place.name.clone(), 0, Evidence::Unwatched);
        }
    }

    pub(super) fn advance_local(&mut self, now: Millis) {
        if !self.local.looking
            && let Some(requests) = self.next_look(now)
        {
            self.local.looking = true;
            self.local.touched.clear();
            let names = requests
                .iter()
                .flat_map(|request| request.names.iter().flatten().map(|(name, _)| (request.directory, name.clone())));
            self.local.looking_at = names.map(|(parent, name)| Place { parent, name }).collect();
            self.effects.push(Effect::Look(requests));
        }
        self.end_scan(now);
        if !self.local.probing {
            self.turn_of_leaving(now);
            self.probe_lost();
        }
    }

    /// Names whose time has come, else directories that have to be listed, else the next piece of a scan.
    fn next_look(&mut self, now: Millis) -> Option<Vec<LookRequest>> {
        let names = self.due_names(now);
        if !names.is_empty() {
            return Some(names);
        }
        let limit = self.settings.limits.look_directories;
        let list: Vec<NodeId> = std::iter::from_fn(|| self.local.list.pop_first()).take(limit).collect();
        if !list.is_empty() {
            for node in &list {
                // It went away before it was looked into; it is when it is found again.
                let local = self.catalog.record(*node).filter(Record::is_lost).and_then(|record| record.local);
                self.local.unentered.extend(local.map(|local| local.handle));
            }
            return Some(list.into_iter().filter_map(|node| self.whole(node, Evidence::Unwatched)).collect());
        }
        self.begin_scan(now);
        let scan = self.local.scan.as_mut()?;
        let evidence = scan.evidence;
        let next: Vec<NodeId> = std::iter::from_fn(|| scan.queue.pop_first()).take(limit).collect();
        let requests: Vec<_> = next.into_iter().filter_map(|node| self.whole(node, evidence)).collect();
        (!requests.is_empty()).then_some(requests)
    }

    fn whole(&self, directory: NodeId, evidence: Evidence) -> Option<LookRequest> {
        let handle = self.catalog.record(directory)?.here()?.handle.clone();
        Some(LookRequest { directory, handle, names: None, evidence, full: false })
    }

    pub(super) fn looked(&mut self, looks: Vec<Look>, now: Millis) {
        self.local.looking = false;
        let looked = std::mem::take(&mut self.local.looking_at);
        for place in &looked {
            if let Some(node) = self.catalog.local_at(place) {
                self.wake_names(node);
            }
        }
        let mut except = std::mem::take(&mut self.local.touched);
        except.extend(self.work.held.iter().cloned());
        let (mut listings, mut moved) = (Vec::with_capacity(looks.len()), Vec::new());
        for mut look in looks {
            moved.append(&mut look.moved);
            self.note_unfit(&look, now);
            match look.listing {
                Some(listing) => listings.extend(self.readdress(listing)),
                None => self.local.scan.iter_mut().for_each(|scan| scan.whole = false),
            }
        }
        if listings.iter().any(|listing| !self.is_believed(listing)) {
            // A directory went missing while it was listed: what is in it has to be seen another time.
            self.local.scan.iter_mut().for_each(|scan| scan.whole = false);
            self.scan_by(now + self.settings.limits.search_after_ms);
        }
        // Also places where nothing was seen: a name that a user took away while a step worked there is told nowhere else.
        let looked_at = except.iter().filter(|place| listings.iter().any(|listing| listing.covers(place)));
        let looked_at: Vec<Place> = looked_at.cloned().collect();
        listings.iter().for_each(|listing| self.recognise(listing));
        let ids = &mut self.ids;
        let observed = observe(&mut self.catalog, &listings, &except, &mut || NodeId(ids()));
        self.note_moved(moved);
        // Work was under way there: look once more when it is done.
        looked_at.iter().for_each(|place| self.look_at(place));
        self.scan_below(&listings);
        self.take(observed, now);
        for place in looked.iter().filter(|place| !except.contains(place)) {
            self.local.unscanned.remove(place);
        }
        self.names_seen(&looked);
    }

    /// Content that was seen to have come or gone; only numbers rest on it.
    pub(super) fn note_moved(&mut self, moved: impl IntoIterator<Item = (Handle, bool)>) {
        for (handle, is_tiered) in moved {
            for node in self.catalog.by_handle(&handle) {
                self.catalog.set_tiered(node, is_tiered);
                if !is_tiered {
                    self.not_coming(&[node]);
                }
            }
        }
    }

    /// A node has got the inode of another one, or one whose content came or went while nobody knew whose it is.
    pub(super) fn look_whether_here(&mut self, node: NodeId) {
        let local = self.catalog.record(node).and_then(|record| record.local);
        if let Some(local) = local.filter(|local| local.kind() == Kind::File) {
            self.look_at(&local.place);
        }
    }

    /// A scan goes on into the directories that it found.
    fn scan_below(&mut self, listings: &[Listing]) {
        let Some(scan) = &mut self.local.scan else { return };
        for listing in listings {
            for seen in listing.seen.iter().filter(|seen| seen.kind == Kind::Directory) {
                let place = Place { parent: listing.directory, name: seen.name.clone() };
                let bound = self.catalog.by_handle(&seen.handle).into_iter().filter_map(|node| self.catalog.record(node));
                match bound.into_iter().find(|record| record.here().is_some_and(|local| local.place == place)) {
                    Some(record) => {
                        scan.queue.insert(record.node);
                    }
                    None => {
                        self.local.unentered.insert(seen.handle.clone());
                    }
                }
            }
        }
    }

    pub(super) fn is_believed(&self, listing: &Listing) -> bool {
        let record = self.catalog.record(listing.directory);
        record.is_some_and(|record| record.here().is_some_and(|local| local.handle == listing.handle))
    }

    /// A listing is of an inode; the node that this inode belongs to may have changed since it was asked for.
    fn readdress(&self, mut listing: Listing) -> Option<Listing> {
        let owners = self.catalog.by_handle(&listing.handle);
        if !owners.contains(&listing.directory) {
            listing.directory = *owners.first()?;
        }
        Some(listing)
    }

    fn take(&mut self, observed: Observed, now: Millis) {
        for node in &observed.lost {
            self.look_for(*node);
        }
        for (directory, name) in observed.again {
            self.local.note(directory, name, now.saturating_sub(self.settings.limits.restless_ms), Evidence::Unwatched);
        }
        for (directory, name) in observed.later {
            self.local.note(directory, name, now, Evidence::Unwatched);
        }
        self.local.list.extend(observed.list);
        self.withdraw(&observed.changed);
        for node in &observed.changed {
            let record = self.catalog.record(*node);
            if record.as_ref().is_none_or(|record| !record.is_lost()) {
                self.settle_lost(*node);
            }
            if let Some(local) = record.as_ref().and_then(Record::here).filter(|local| local.kind() == Kind::Directory) {
                let unentered = self.local.unentered.remove(&local.handle);
                let unscanned = self.local.unscanned.contains(&local.place);
                self.moved_directory(*node);
                if unentered || unscanned {
                    self.scan_from(*node);
                }
            }
            let unread = record.is_some_and(|record| record.local.is_some_and(|local| local.content == LocalContent::Unread));
            if unread && self.work.reading.contains_key(node) {
                self.work.stale_reads.insert(*node);
            }
            self.around(*node);
        }
    }

    /// A step has made a directory: what users did in it before it was known is looked up.
    pub(super) fn made_directory(&mut self, node: NodeId, handle: &Handle) {
        let (stray, unentered) = (self.local.strays.remove(handle), self.local.unentered.remove(handle));
        if stray || unentered {
            self.local.list.insert(node);
        }
    }

    /// A step has given a name to a file whose content came or went before anybody knew of it.
    pub(super) fn made_file(&mut self, node: NodeId, handle: &Handle) {
        if self.local.strays.remove(handle) {
            self.look_whether_here(node);
        }
    }

    /// No step is under way: nothing is owed to unknown inodes any more.
    pub(super) fn forget_strays(&mut self) {
        self.local.strays.clear();
        self.local.moving.clear();
    }

    fn note_unfit(&mut self, look: &Look, now: Millis) {
        let base = path(&self.catalog, look.directory);
        self.status.unfit(look, &base, now);
    }
}
