//! Inodes that are looked for, because their names no longer hold them.

use isotherm_core::ids::NodeId;
use isotherm_core::node::Place;
use isotherm_core::observe::{Liveness, displace, resolve_lost};

use super::Lost;
use crate::engine::{Catalog, Effect, Engine, Millis, Places};

impl<C: Catalog> Engine<C> {
    /// Remembers that a node's inode has to be looked for.
    pub(in crate::engine) fn look_for(&mut self, node: NodeId) {
        self.note_lost(node, false);
    }

    /// As above, where the inode is known to be gone and its name is about to be looked at: that comes first, because the
    /// node may live on in what a save by rename has put there (row 16).
    pub(in crate::engine) fn look_for_successor(&mut self, node: NodeId) {
        self.note_lost(node, true);
    }

    pub(super) fn note_lost(&mut self, node: NodeId, unseen: bool) {
        let scans_begun = self.local.scans_begun;
        self.local.lost.entry(node).or_insert(Lost { scans_begun, probed: false, unseen });
    }

    /// These names were looked at: what took the place of a lost node is known.
    pub(super) fn names_seen(&mut self, looked: &Places) {
        for (node, lost) in self.local.lost.iter_mut().filter(|(_, lost)| lost.unseen) {
            let local = self.catalog.record(*node).and_then(|record| record.local);
            lost.unseen = local.is_some_and(|local| !looked.contains(&local.place));
        }
    }

    /// Asks for the inodes of lost nodes that nobody asked for since the last scan.
    pub(super) fn probe_lost(&mut self) {
        let open = self.local.lost.iter().filter(|(_, lost)| !lost.probed || lost.scans_begun < self.local.scans_whole);
        let open: Vec<NodeId> = open.map(|(node, _)| *node).take(self.settings.limits.look_names).collect();
        let mut handles = Vec::with_capacity(open.len());
        for node in open {
            match self.catalog.record(node).and_then(|record| record.local).filter(|local| local.lost) {
                // In a directory that is gone, nothing is looked at.
                Some(local) if self.local.lost[&node].unseen && self.is_here(local.place.parent) => {}
                Some(local) => handles.push((node, local.handle)),
                // A step or another observation has settled it: there is nothing to look for.
                None => drop(self.local.lost.remove(&node)),
            }
        }
        if !handles.is_empty() {
            self.local.probing = true;
            self.effects.push(Effect::Probe(handles));
        }
    }

    fn is_here(&self, directory: NodeId) -> bool {
        self.catalog.record(directory).is_some_and(|record| record.here().is_some())
    }

    /// A step has put a node under a name: whoever was recorded there is looked for.
    pub(in crate::engine) fn displaced(&mut self, place: &Place, by: NodeId) {
        if let Some(node) = displace(&mut self.catalog, place, by) {
            self.around(node);
        }
    }

    pub(in crate::engine) fn probed(&mut self, found: Vec<(NodeId, Liveness)>, now: Millis) {
        self.local.probing = false;
        for (node, liveness) in found {
            let Some(lost) = self.local.lost.get(&node).copied() else { continue };
            let searched = lost.scans_begun < self.local.scans_whole;
            let observed = resolve_lost(&mut self.catalog, node, liveness, searched);
            if observed.lost.contains(&node) {
                // Alive somewhere. Its new name will be reported, or a scan finds it, or it has left the endpoint.
                self.local.lost.insert(node, Lost { probed: true, ..lost });
                self.scan_by(now + self.settings.limits.search_after_ms);
            } else {
                self.local.lost.remove(&node);
            }
            self.take(observed, now);
        }
    }
}
