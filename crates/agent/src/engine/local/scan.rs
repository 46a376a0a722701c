//! Scans: walking over the whole endpoint, and when that is due.
//!
//! A scan follows directories that move while it runs, and it counts as whole only if every directory was read to
//! its end: nothing is concluded from a partial one (row 27).

use std::collections::BTreeSet;

use isotherm_core::ids::NodeId;
use isotherm_core::node::Place;
use isotherm_core::observe::Evidence;

use super::Scan;
use crate::engine::{Catalog, Engine, Millis};

/// Pause before a scan that could not read everything is tried again, while something is looked for.
const RESCAN_AFTER_MS: Millis = 30_000;

impl<C: Catalog> Engine<C> {
    pub(super) fn begin_scan(&mut self, now: Millis) {
        let limits = &self.settings.limits;
        let every = if self.settings.watched { limits.scan_every_ms } else { limits.scan_unwatched_ms };
        let due = self.local.scan_due.is_some_and(|due| now >= due) || now >= self.local.last_scan + every;
        if self.local.scan.is_some() || !due {
            return;
        }
        let evidence = if self.settings.watched && self.local.unbroken { Evidence::Watched } else { Evidence::Unwatched };
        self.local.scan = Some(Scan { queue: BTreeSet::from([NodeId::ROOT, NodeId::PARKED]), whole: true, evidence });
        self.local.scans_begun += 1;
        self.local.unentered.clear();
        // What is being moved already may be seen at neither place.
        self.local.moving.extend(self.placing.moving());
        self.local.scan_due = None;
        self.local.last_scan = now;
        self.local.unbroken = self.settings.watched;
        // What an earlier run of the agent lost is looked for by this scan too.
        for node in self.catalog.lost(usize::MAX) {
            self.note_lost(node, 0, false);
        }
    }

    pub(super) fn end_scan(&mut self, now: Millis) {
        let done = self.local.scan.as_ref().is_some_and(|scan| scan.queue.is_empty())
            && !self.local.looking
            && self.local.list.is_empty();
        if done && let Some(scan) = self.local.scan.take() {
            self.local.last_scan = now;
            let dirty =
                self.local.dirty.iter().flat_map(|(directory, names)| names.keys().map(|name| (*directory, name.clone())));
            self.local.unscanned = dirty.map(|(parent, name)| Place { parent, name }).collect();
            if scan.whole && self.local.unentered.is_empty() {
                self.local.scans_whole = self.local.scans_begun;
                self.forget_placing();
            } else if !self.local.lost.is_empty() {
                // Only a whole scan can say that a lost file is nowhere here.
                self.scan_by(now + RESCAN_AFTER_MS);
            }
        }
    }

    /// A directory has another place now. A scan may have passed that place already, so it looks there again.
    pub(in crate::engine) fn moved_directory(&mut self, node: NodeId) {
        let began_before = self.local.moving.remove(&node);
        // The scan may have ended while the move was under way, and has seen it at neither place.
        if self.local.scan.is_some() || began_before {
            self.scan_from(node);
        }
    }

    /// Walks over a directory and what is below it: as a part of the scan that is under way, or by itself.
    pub(in crate::engine) fn scan_from(&mut self, node: NodeId) {
        let alone = || Scan { queue: BTreeSet::new(), whole: false, evidence: Evidence::Unwatched };
        self.local.scan.get_or_insert_with(alone).queue.insert(node);
    }

    /// A step is about to move a node.
    pub(in crate::engine) fn about_to_move(&mut self, node: NodeId) {
        if self.local.scan.is_some() {
            self.local.moving.insert(node);
        }
    }

    pub(super) fn scan_by(&mut self, due: Millis) {
        self.local.scan_due = Some(self.local.scan_due.map_or(due, |other| other.min(due)));
    }

    /// When something on this side becomes due. What cannot be looked at yet, because a look or other work is under way
    /// there, becomes due when that ends.
    pub(in crate::engine) fn next_local(&self) -> Option<Millis> {
        if self.local.looking {
            return None;
        }
        let limits = &self.settings.limits;
        let reachable = |directory: &NodeId| self.catalog.record(*directory).is_some_and(|record| record.here().is_some());
        let names = self.local.dirty.iter().filter(|(directory, _)| reachable(directory)).flat_map(|(directory, names)| {
            names.iter().filter(|(name, _)| !self.work.held.contains(&Place { parent: *directory, name: (*name).clone() }))
        });
        let quiet = names.map(|(_, dirty)| dirty.due(limits)).min();
        let every = if self.settings.watched { limits.scan_every_ms } else { limits.scan_unwatched_ms };
        let scan = self.local.scan_due.or(Some(self.local.last_scan + every)).filter(|_| self.local.scan.is_none());
        [quiet, scan, self.local.next_leaving()].into_iter().flatten().min()
    }
}
