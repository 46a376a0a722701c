//! Inodes that are looked for, because their names no longer hold them.

use isotherm_core::ids::NodeId;
use isotherm_core::node::Place;
use isotherm_core::observe::{Liveness, displace, resolve_lost};

use super::Lost;
use crate::engine::{Catalog, Effect, Engine, Millis};

impl<C: Catalog> Engine<C> {
    /// Remembers that a node's inode has to be looked for.
    pub(in crate::engine) fn look_for(&mut self, node: NodeId) {
        let scans_begun = self.local.scans_begun;
        self.local.lost.entry(node).or_insert(Lost { scans_begun, probed: false });
    }

    /// Asks for the inodes of lost nodes that nobody asked for since the last scan.
    pub(super) fn probe_lost(&mut self) {
        let open = self.local.lost.iter().filter(|(_, lost)| !lost.probed || lost.scans_begun < self.local.scans_whole);
        let open: Vec<NodeId> = open.map(|(node, _)| *node).take(self.settings.limits.look_names).collect();
        let mut handles = Vec::with_capacity(open.len());
        for node in open {
            match self.catalog.record(node).and_then(|record| record.local).filter(|local| local.lost) {
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
