//! Inodes that are looked for, because their names no longer hold them.

use isotherm_core::ids::NodeId;
use isotherm_core::node::{Kind, Place};
use isotherm_core::observe::{Liveness, displace, resolve_lost};
use isotherm_core::trees::Record;

use super::{Leaving, LocalSide, Lost};
use crate::engine::{Catalog, Effect, Engine, Millis, Places};

/// So many contents of files that have left the endpoint are asked for at a time: users who wait for others come in between.
const LEAVING: usize = 4;
/// A content that has not come is asked for again after this time.
const ASK_AGAIN_MS: Millis = 60_000;

impl LocalSide {
    /// How many contents of files that have left are on their way.
    fn asked(&self) -> usize {
        self.lost.values().filter(|lost| matches!(lost.leaving, Some(Leaving::Asked(_)))).count()
    }

    /// When the next content is asked for again.
    pub(super) fn next_leaving(&self) -> Option<Millis> {
        let times = self.lost.values().filter_map(|lost| match lost.leaving? {
            Leaving::Asked(again) => Some(again),
            Leaving::Waits => None,
        });
        times.min()
    }

    /// A node is not lost any more; returns where it was.
    fn found(&mut self, node: NodeId) -> Option<Place> {
        let place = self.lost.remove(&node)?.place?;
        if self.vacated.get(&place) == Some(&node) {
            self.vacated.remove(&place);
        }
        Some(place)
    }

    /// Whether a file of which only this server knows may be the next save of one that is being looked for: then it is
    /// that node, and nothing is planned for it under its own (row 16).
    pub(in crate::engine) fn may_succeed(&self, record: &Record) -> bool {
        let is_new = record.remote.is_none() && record.synced.is_none();
        let Some(local) = record.here().filter(|_| is_new && !self.vacated.is_empty()) else { return false };
        let lost = self.vacated.get(&local.place).and_then(|node| self.lost.get(node));
        lost.is_some_and(|lost| lost.is_to_be_probed(self.scans_whole))
    }
}

impl<C: Catalog> Engine<C> {
    /// Remembers that a node's inode has to be looked for.
    pub(in crate::engine) fn look_for(&mut self, node: NodeId) {
        self.note_lost(node, self.local.scans_begun, false);
    }

    /// As above, where the inode is known to be gone and its name is about to be looked at: that comes first, because the
    /// node may live on in what a save by rename has put there (row 16).
    pub(in crate::engine) fn look_for_successor(&mut self, node: NodeId) {
        self.note_lost(node, self.local.scans_begun, true);
    }

    pub(super) fn note_lost(&mut self, node: NodeId, scans_begun: u64, unseen: bool) {
        if self.local.lost.contains_key(&node) {
            return;
        }
        let local = self.catalog.record(node).and_then(|record| record.local);
        let place = local.filter(|local| local.kind() != Kind::Directory).map(|local| local.place);
        self.local.vacated.extend(place.clone().map(|place| (place, node)));
        self.local.lost.insert(node, Lost { place, scans_begun, probed: false, leaving: None, unseen });
    }

    /// A lost node is settled: who was taken for its successor need not wait any more.
    pub(super) fn settle_lost(&mut self, node: NodeId) {
        let Some(place) = self.local.found(node) else { return };
        let waiting = self.catalog.local_at(&place);
        self.wake(waiting);
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
        let open = self.local.lost.iter().filter(|(_, lost)| lost.is_to_be_probed(self.local.scans_whole));
        let open: Vec<NodeId> = open.map(|(node, _)| *node).take(self.settings.limits.look_names).collect();
        let mut handles = Vec::with_capacity(open.len());
        for node in open {
            match self.catalog.record(node).and_then(|record| record.local).filter(|local| local.lost) {
                // In a directory that is gone, nothing is looked at.
                Some(local) if self.local.lost[&node].unseen && self.is_here(local.place.parent) => {}
                Some(local) => handles.push((node, local.handle)),
                // A step or another observation has settled it: there is nothing to look for.
                None => self.settle_lost(node),
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
        let mut wanted = Vec::new();
        // Counted once: thousands may be lost.
        let mut room = LEAVING.saturating_sub(self.local.asked());
        for (node, liveness) in found {
            let Some(lost) = self.local.lost.get(&node).cloned() else { continue };
            let searched = lost.scans_begun < self.local.scans_whole;
            let observed = resolve_lost(&mut self.catalog, node, liveness, searched);
            if observed.lost.contains(&node) {
                // Alive somewhere. Its new name will be reported, or a scan finds it, or it has left the endpoint.
                let leaves = searched && matches!(liveness, Liveness::Tiered(_));
                let asks = leaves && room > 0;
                room -= usize::from(asks);
                let state = if asks { Leaving::Asked(now + ASK_AGAIN_MS) } else { Leaving::Waits };
                let leaving = leaves.then_some(state);
                self.local.lost.insert(node, Lost { probed: true, leaving, ..lost.clone() });
                // Whatever has its name now is another file.
                let waiting = lost.place.and_then(|place| self.catalog.local_at(&place));
                self.wake(waiting);
                if leaving.is_none() {
                    self.scan_by(now + self.settings.limits.search_after_ms);
                } else if asks {
                    wanted.extend(self.catalog.record(node).and_then(|record| record.local).map(|local| local.handle));
                }
            } else {
                self.settle_lost(node);
            }
            self.take(observed, now);
        }
        if !wanted.is_empty() {
            self.effects.push(Effect::BringBack(wanted));
        }
    }

    /// The content of a file came: if it has left the endpoint it counts as deleted from here on.
    pub(super) fn left_whole(&mut self, node: NodeId) {
        if let Some(lost) = self.local.lost.get_mut(&node).filter(|lost| lost.leaving.is_some()) {
            (lost.leaving, lost.probed) = (None, false);
        }
    }

    /// Who is due to be asked for once more, and who is next.
    pub(super) fn turn_of_leaving(&mut self, now: Millis) {
        let mut room = LEAVING.saturating_sub(self.local.asked());
        for lost in self.local.lost.values_mut() {
            let is_due = match lost.leaving {
                Some(Leaving::Asked(again)) => now >= again,
                Some(Leaving::Waits) if room > 0 => {
                    room -= 1;
                    true
                }
                _ => false,
            };
            if is_due {
                (lost.leaving, lost.probed) = (None, false);
            }
        }
    }
}
