//! Two nodes, one name.
//!
//! Directories of one name merge: what only this server knows becomes the share's directory. Files of one name become
//! one node with two contents, which are then compared like any others. Where the kinds differ the file gives way to the
//! directory. A node that has a history of its own never merges with another: it gets a conflict name.

use super::place::moved_only_here;
use super::planner::Planner;
use super::{Fact, Trouble};
use crate::ids::NodeId;
use crate::namespace::{Based, Change};
use crate::node::{Kind, Node, Place};
use crate::trees::{Local, Record, Trees};

impl<T: Trees> Planner<'_, T> {
    /// A local node wants a name that `holder` has in the share.
    pub(super) fn name_taken_there(&mut self, record: &Record, local: &Local, holder: NodeId) {
        let Some(other) = self.trees.record(holder) else { return };
        if self.is_blocked(&other) {
            return;
        }
        match (other.here(), &other.synced) {
            // They moved into each other's way: with names that differ in case only, both may be here.
            (Some(taken), _) if moved_only_here(&other) && self.same_name(&taken.place, &local.place) => {
                self.give_way_here(record, local, holder);
            }
            (Some(_), _) if moved_only_here(&other) => {
                self.together(record);
            }
            // It stays there, or is about to arrive: the share's node keeps the name (row 23: also on a folded name).
            (Some(_), _) => self.give_way_here(record, local, holder),
            (None, Some(_)) => self.succeed_deleted(record, local, &other),
            // It goes from the share, unless something in it stays.
            (None, None) if other.live().is_some_and(|it| it.kind() != local.kind() && self.is_ruled_over(it)) => {
                self.visit(holder)
            }
            (None, None) if is_new_here(record) => self.meet(&other, record, local),
            (None, None) => self.give_way_here(record, local, holder),
        }
    }

    /// Whether two places are one name in the share.
    fn same_name(&self, a: &Place, b: &Place) -> bool {
        a.parent == b.parent && self.key(&a.name) == self.key(&b.name)
    }

    /// The holder of the name was deleted on this server, and something else now has the name.
    fn succeed_deleted(&mut self, record: &Record, local: &Local, other: &Record) {
        let Some(remote) = other.live() else { return };
        if is_new_here(record) && remote.kind() == local.kind() {
            self.rebind(record.node, other.node);
        } else if !self.together(record) {
            // What has changed in the share stays; its own plan says how.
            self.visit(other.node);
        }
    }

    /// Notes that this plan deletes a node in the share.
    pub(super) fn gone_there(&mut self, node: NodeId, place: &Place) {
        self.moved_there.insert(node, Place { parent: NodeId::PARKED, name: place.name.clone() });
    }

    /// A node of the share is to get a name here that `holder` has. True once the name is free.
    pub(super) fn make_room_here(&mut self, node: NodeId, remote: &Node, holder: NodeId) -> bool {
        let Some(other) = self.trees.record(holder) else { return true };
        if self.is_blocked(&other) {
            return false;
        }
        let Some(local) = other.here().cloned() else { return true };
        let newcomer = self.trees.record(node);
        let arrives = newcomer.as_ref().is_some_and(|record| record.local.is_some());
        match &newcomer {
            Some(record) if is_new_here(&other) && !arrives => self.meet(record, &other, &local),
            _ if is_new_here(&other) => self.give_way_here(&other, &local, node),
            // It has a history: its own plan takes it away, or makes it give way because the share's name is taken.
            _ if self.is_being_visited(holder) => {
                self.park(holder);
            }
            _ => {
                let rings = self.rings;
                self.visit(holder);
                if local.kind() == Kind::Directory && other.live().is_none() {
                    self.empty_here(holder);
                }
                let target = other.live().map(|remote| remote.place.parent);
                let inside = target.is_some_and(|target| target == node || self.chain(target, node, Self::place_there).is_some());
                // It belongs into the very directory that waits for its name, or waits for something in that.
                let waits = inside || (self.rings > rings && target_differs(&other));
                if waits && self.holder_here(&remote.place) == Some(holder) {
                    self.park(holder);
                }
            }
        }
        self.holder_here(&remote.place).is_none()
    }

    /// A node of the share that is not here yet, and a local node of which the share knows nothing, under one name.
    fn meet(&mut self, there: &Record, here: &Record, local: &Local) {
        let Some(remote) = there.live() else { return };
        if self.is_blocked(there) || self.is_blocked(here) {
            return;
        }
        if remote.kind() == local.kind() {
            self.rebind(here.node, there.node);
        } else if local.kind() == Kind::Directory {
            self.give_way_there(remote, here.node);
        } else {
            self.give_way_here(here, local, there.node);
        }
    }

    fn rebind(&mut self, from: NodeId, to: NodeId) {
        // With names that differ in case only, the share's node may be about to be made beside the local one.
        if self.made_here.contains(&to) || self.rebound.contains(&from) || self.rebound.contains(&to) {
            return;
        }
        self.rebound.extend([from, to]);
        self.fact(Fact::Rebind(from, to));
    }

    /// The share's file gives way to a local directory.
    fn give_way_there(&mut self, remote: &Node, keeper: NodeId) {
        if self.moved_there.contains_key(&remote.id) {
            return;
        }
        let Some(name) = self.conflict_name(&remote.place, remote.author) else {
            self.trouble(keeper, Trouble::TooManyConflicts);
            return;
        };
        let place = Place { parent: remote.place.parent, name };
        self.intend(Change::Move { node: remote.id, place: Based { base: remote.versions.place, value: place.clone() } });
        self.moved_there.insert(remote.id, place);
    }
}

/// A node that is to have another place than the one that it has here.
fn target_differs(record: &Record) -> bool {
    matches!((record.here(), record.live()), (Some(local), Some(remote)) if local.place != remote.place)
}

/// A node that the share never had.
pub(super) fn is_new_here(record: &Record) -> bool {
    record.remote.is_none() && record.synced.is_none()
}
