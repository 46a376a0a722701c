//! Inodes that are looked for, because their names no longer hold them.

use isotherm_core::ids::NodeId;
use isotherm_core::node::Place;
use isotherm_core::observe::{Liveness, displace, resolve_lost};

use super::Lost;
use crate::engine::{Catalog, Engine, Millis};

impl<C: Catalog> Engine<C> {
    /// Remembers that a node's inode has to be looked for.
    pub(in crate::engine) fn look_for(&mut self, node: NodeId) {
        let scans_begun = self.local.scans_begun;
        self.local.lost.entry(node).or_insert(Lost { scans_begun, probed: false });
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
