//! Names that the kernel reported, and when they are looked at: once they have rested, or because they never do.

use std::collections::BTreeMap;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Name;
use isotherm_core::node::{Kind, Place};
use isotherm_core::observe::Evidence;
use isotherm_core::trees::{Handle, LocalContent, Record};

use super::LocalSide;
use crate::engine::{Catalog, Changed, Engine, Limits, LookRequest, Millis};

/// A name that something happened to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dirty {
    first: Millis,
    last: Millis,
    /// For a large file: how much longer than others it is left alone while it does not rest.
    pace: Millis,
    evidence: Evidence,
}

impl Dirty {
    /// When the name is looked at: it has rested, or it never does.
    pub(super) fn due(&self, limits: &Limits) -> Millis {
        (self.last + limits.quiet_ms).min(self.first + self.pace + limits.restless_ms)
    }

    fn is_restless(&self, now: Millis, limits: &Limits) -> bool {
        self.last > 0 && now < self.last + limits.quiet_ms && now >= self.first + self.pace + limits.restless_ms
    }
}

impl LocalSide {
    /// Whether something was reported of the node that has not been looked at yet. Of a file that never rests something
    /// always has; it is read all the same, and what it held goes on its way.
    pub(in crate::engine) fn is_unsure(&self, record: &Record) -> bool {
        let Some(local) = &record.local else { return false };
        if local.passing().is_some() || (local.content == LocalContent::Unread && self.restless.contains(&local.place)) {
            return false;
        }
        self.awaits(&local.place)
    }

    /// Whether a place is being looked at, or will be as soon as it rests.
    pub(in crate::engine) fn awaits(&self, place: &Place) -> bool {
        self.looking_at.contains(place) || self.dirty.get(&place.parent).is_some_and(|names| names.contains_key(&place.name))
    }

    /// The oldest report that was not looked at yet.
    pub(in crate::engine) fn oldest(&self) -> Option<Millis> {
        self.dirty.values().flat_map(BTreeMap::values).map(|dirty| dirty.first).min()
    }

    /// Whether a file is written to without a pause.
    pub(in crate::engine) fn is_restless(&self, place: &Place) -> bool {
        self.restless.contains(place)
    }

    /// Whether a write to a file was reported that was not looked at yet.
    pub(in crate::engine) fn is_written(&self, place: &Place) -> bool {
        let dirty = self.dirty.get(&place.parent).and_then(|names| names.get(&place.name));
        dirty.is_some_and(|dirty| dirty.evidence == Evidence::Written)
    }

    /// Asks for a place to be looked at for writes, once it rests.
    pub(in crate::engine) fn suspect(&mut self, place: &Place, now: Millis) {
        self.note(place.parent, place.name.clone(), now, Evidence::Written);
    }

    pub(super) fn note(&mut self, directory: NodeId, name: Name, now: Millis, evidence: Evidence) {
        let dirty =
            self.dirty.entry(directory).or_default().entry(name).or_insert(Dirty { first: now, last: now, pace: 0, evidence });
        dirty.last = now;
        dirty.evidence = worse(dirty.evidence, evidence);
    }
}

fn worse(a: Evidence, b: Evidence) -> Evidence {
    match (a, b) {
        (Evidence::Written, _) | (_, Evidence::Written) => Evidence::Written,
        (Evidence::Unwatched, _) | (_, Evidence::Unwatched) => Evidence::Unwatched,
        _ => Evidence::Watched,
    }
}

impl<C: Catalog> Engine<C> {
    pub(in crate::engine) fn changed(&mut self, changes: Vec<Changed>, now: Millis) {
        // Many changes are in few directories, and most of these may be none of the endpoint's.
        let mut directories: BTreeMap<Handle, Option<NodeId>> = BTreeMap::new();
        for change in changes {
            self.touched_inode(&change, now);
            let known = directories.entry(change.directory.clone()).or_insert_with(|| self.here_by_handle(&change.directory));
            let Some(directory) = *known else {
                // Perhaps a directory that a step under way has just made: it is listed when the step's result comes.
                if self.work.is_performing() {
                    self.local.strays.insert(change.directory);
                }
                continue;
            };
            let evidence = if change.written { Evidence::Written } else { Evidence::Watched };
            match change.name {
                Some(name) if directory != NodeId::PARKED => self.local.note(directory, name, now, evidence),
                Some(_) => {}
                None => {
                    let place = self.catalog.record(directory).and_then(|record| record.here().map(|local| local.place.clone()));
                    if let Some(place) = place.filter(|_| !directory.is_anchor()) {
                        self.local.note(place.parent, place.name, now, evidence);
                    }
                }
            }
            if self.local.dirty.get(&directory).is_some_and(|names| names.len() > self.settings.limits.dirty_names) {
                self.local.dirty.remove(&directory);
                self.local.list.insert(directory);
                self.local.unbroken = false;
            }
        }
    }

    /// Something happened to an inode, which may have other names by now than the reported one: it is looked at under
    /// each that is known. If it was written to, its bytes are not the known ones any more, whatever its times say
    /// (row 7). That is written down at once; reading it waits until it rests.
    fn touched_inode(&mut self, change: &Changed, now: Millis) {
        let Some(target) = &change.target else { return };
        for node in self.catalog.by_handle(target) {
            let Some(mut record) = self.catalog.record(node).filter(|_| !node.is_anchor()) else { continue };
            let Some(local) = record.local.as_mut() else { continue };
            let place = local.place.clone();
            // What a restless file held at one moment stays true, and may be on its way.
            let passing = local.passing().is_some();
            if !change.written || local.kind() != Kind::File {
                if place.parent != NodeId::PARKED {
                    self.local.note(place.parent, place.name, now, Evidence::Watched);
                }
                continue;
            }
            if !passing {
                local.content = LocalContent::Unread;
                self.note_owed(node, &record);
                self.catalog.put(record);
            }
            if self.work.reading.contains_key(&node) {
                self.work.stale_reads.insert(node);
            }
            if place.parent != NodeId::PARKED {
                self.local.note(place.parent, place.name, now, Evidence::Written);
            }
            self.wake([node]);
        }
    }

    /// The agent itself gave up or brought back their content. Where nobody tells of writes, one may have come in between.
    pub(in crate::engine) fn touched(&mut self, files: &[Handle], now: Millis) {
        let evidence = if self.settings.watched { Evidence::Watched } else { Evidence::Unwatched };
        let nodes: Vec<Vec<NodeId>> = files.iter().map(|file| self.catalog.by_handle(file)).collect();
        if self.work.is_performing() {
            // Perhaps files that a step under way has just made.
            let unknown = files.iter().zip(&nodes).filter(|(_, nodes)| nodes.is_empty());
            self.local.strays.extend(unknown.map(|(file, _)| file.clone()));
        }
        for node in nodes.into_iter().flatten() {
            let local = self.catalog.record(node).and_then(|record| record.local);
            if let Some(local) = local.filter(|local| local.place.parent != NodeId::PARKED) {
                self.local.note(local.place.parent, local.place.name, now, evidence);
            }
            self.left_whole(node);
            self.recalled(node);
        }
    }

    fn here_by_handle(&self, directory: &Handle) -> Option<NodeId> {
        let owners = self.catalog.by_handle(directory).into_iter();
        let known: Vec<Record> = owners.filter_map(|node| self.catalog.record(node)).collect();
        known.iter().find(|record| record.here().is_some()).or(known.first()).map(|record| record.node)
    }

    pub(super) fn due_names(&mut self, now: Millis) -> Vec<LookRequest> {
        let limits = &self.settings.limits;
        let (flush, held) = (self.local.flush, &self.work.held);
        let mut room = limits.look_names;
        let restless = &mut self.local.restless;
        let catalog = &self.catalog;
        let mut requests = Vec::new();
        let mut unreachable = Vec::new();
        for (directory, names) in &mut self.local.dirty {
            let Some(local) = catalog.record(*directory).and_then(|record| record.local) else {
                unreachable.push(*directory);
                continue;
            };
            // A directory whose new place is not known yet: what happened in it waits.
            if local.lost {
                continue;
            }
            let handle = local.handle;
            for (name, dirty) in names.iter_mut().filter(|(_, dirty)| dirty.pace == 0 && dirty.is_restless(now, limits)) {
                let place = Place { parent: *directory, name: name.clone() };
                let local = catalog.local_at(&place).and_then(|node| catalog.record(node)?.local);
                dirty.pace = local.map_or(0, |local| local.print.size / limits.restless_bytes_per_ms);
            }
            let due = names.iter().filter(|(name, dirty)| {
                let rests = now >= dirty.due(limits) || dirty.last == 0;
                (rests || flush) && !held.contains(&Place { parent: *directory, name: (*name).clone() })
            });
            let due: Vec<(Name, Evidence)> = due.map(|(name, dirty)| (name.clone(), dirty.evidence)).take(room).collect();
            if due.is_empty() {
                continue;
            }
            room -= due.len();
            for (name, _) in &due {
                let Some(dirty) = names.remove(name) else { continue };
                let place = Place { parent: *directory, name: name.clone() };
                // Writes that follow each other faster than the quiet time, for as long as the limit.
                if dirty.is_restless(now, limits) {
                    restless.insert(place);
                } else {
                    restless.remove(&place);
                }
            }
            requests.push(LookRequest {
                directory: *directory,
                handle,
                names: Some(due),
                evidence: Evidence::Watched,
                full: true,
            });
            if room == 0 {
                break;
            }
        }
        // A directory that is not here any more: whatever happened in it is told by its own going.
        unreachable.into_iter().for_each(|directory| {
            self.local.dirty.remove(&directory);
        });
        self.local.dirty.retain(|_, names| !names.is_empty());
        requests
    }
}
