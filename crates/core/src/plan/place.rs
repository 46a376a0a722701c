//! Parent and name: moves on either side.
//!
//! Whoever differs from the base has moved; where both did, the share's place stands. A move can wait for another
//! one: for a name to become free, for a directory to leave the inside of another. Chains are planned in order, rings
//! in the share as one group ([`super::together`]), rings on this server by parking one of their members for the moment.

use super::planner::Planner;
use super::{Action, Parent, Spot, Trouble};
use crate::ids::NodeId;
use crate::name::Name;
use crate::namespace::{Based, Change};
use crate::node::{Kind, Node, Place};
use crate::observe::PARKED_PREFIX;
use crate::trees::{Local, Record, Synced, Trees};

impl<T: Trees> Planner<'_, T> {
    /// True if both sides have the node at the same place.
    pub(super) fn reconcile_place(&mut self, record: &Record, local: &Local, remote: &Node, synced: Option<&Synced>) -> bool {
        if local.place == remote.place {
            return true;
        }
        let changed_here = synced.is_some_and(|synced| synced.place != local.place) && local.place.parent != NodeId::PARKED;
        let changed_there = synced.is_none_or(|synced| synced.place != remote.place);
        if changed_here && !changed_there {
            self.move_there(record, local, remote);
        } else {
            self.move_here(record, local, remote);
        }
        false
    }

    fn move_there(&mut self, record: &Record, local: &Local, remote: &Node) {
        let node = record.node;
        if self.moved_there.contains_key(&node) || !self.parent_there(local.place.parent) {
            return;
        }
        if local.kind() == Kind::Directory
            && let Some(inner) = self.ring_there(node, local.place.parent)
        {
            // Members that moved here alone will leave the ring by moves of their own. Without them the share
            // would refuse the move, so it is undone.
            if !inner.iter().any(|member| self.may_leave_ring(*member)) {
                self.trouble(node, Trouble::MoveUndone);
                self.move_here(record, local, remote);
            }
            return;
        }
        let key = self.key(&local.place.name);
        if let Some(holder) = self.holder_there(local.place.parent, &key)
            && holder != node
        {
            self.name_taken_there(record, local, holder);
            return;
        }
        if self.taken_there(local.place.parent, key) {
            self.intend(move_change(local, remote));
            self.moved_there.insert(node, local.place.clone());
        }
    }

    /// The directories from `parent` up to below `node`, if `node` is above `parent` in the share.
    fn ring_there(&mut self, node: NodeId, parent: NodeId) -> Option<Vec<NodeId>> {
        let chain = self.chain(parent, node, Self::place_there)?;
        chain.iter().for_each(|member| self.visit(*member));
        self.chain(parent, node, Self::place_there)
    }

    fn may_leave_ring(&self, member: NodeId) -> bool {
        self.trees.record(member).is_some_and(|record| self.is_blocked(&record) || moved_only_here(&record))
    }

    /// Ancestors of `from`, itself included, up to but without `node`; none if `node` is no ancestor.
    pub(super) fn chain(&self, from: NodeId, node: NodeId, place: fn(&Self, NodeId) -> Option<Place>) -> Option<Vec<NodeId>> {
        let mut chain = Vec::new();
        let mut at = from;
        while at != node {
            if at == NodeId::ROOT || at == NodeId::PARKED || chain.contains(&at) {
                return None;
            }
            chain.push(at);
            at = place(self, at)?.parent;
        }
        Some(chain)
    }

    pub(super) fn move_here(&mut self, record: &Record, local: &Local, remote: &Node) {
        let node = record.node;
        if self.moved_here.contains_key(&node) {
            return;
        }
        if local.kind() == Kind::Directory && !self.open_ring_here(node, remote.place.parent) {
            return;
        }
        let Some(to) = self.spot(&remote.place) else { return };
        if let Some(holder) = self.holder_here(&remote.place).filter(|holder| *holder != node)
            && !self.make_room_here(node, remote, holder)
        {
            // Inside the very directory that has to go first: step out of it.
            if self.chain(local.place.parent, holder, Self::place_here).is_some() {
                self.park(node);
            }
            return;
        }
        if self.moved_here.contains_key(&node) || !self.taken.insert((remote.place.parent, remote.place.name.as_bytes().to_vec()))
        {
            return;
        }
        let Some(expected) = self.expected(local) else { return };
        self.step(node, Action::Move { expected, to, conflict_of: None });
        self.moved_here.insert(node, remote.place.clone());
    }

    /// Makes sure that `parent` is not below `node` on this server; false: wait.
    fn open_ring_here(&mut self, node: NodeId, parent: NodeId) -> bool {
        let Some(chain) = self.chain(parent, node, Self::place_here) else { return true };
        chain.iter().for_each(|member| self.visit(*member));
        let Some(chain) = self.chain(parent, node, Self::place_here) else { return true };
        let leaver = chain.into_iter().find(|member| {
            let Some(record) = self.trees.record(*member) else { return false };
            let target = record.live().map(|remote| remote.place.clone());
            !self.is_blocked(&record) && target.is_some() && target != self.place_here(*member)
        });
        leaver.is_some_and(|leaver| self.park(leaver))
    }

    /// Puts a node aside, so that others can take its place. It has somewhere to go, so it does not stay there.
    pub(super) fn park(&mut self, node: NodeId) -> bool {
        let Some(record) = self.trees.record(node) else { return false };
        let Some(local) = record.here().filter(|local| local.place.parent != NodeId::PARKED) else { return false };
        if self.is_blocked(&record) || self.moved_here.contains_key(&node) {
            return false;
        }
        let staging = self.trees.record(NodeId::PARKED).and_then(|record| record.here().map(|local| local.handle.clone()));
        let (Some(staging), Some(expected)) = (staging, self.expected(local)) else { return false };
        let Ok(name) = Name::new(format!("{PARKED_PREFIX}{node}").as_bytes()) else { return false };
        let to = Spot { node: NodeId::PARKED, parent: Parent::Inode(staging), name: name.clone() };
        self.step(node, Action::Move { expected, to, conflict_of: None });
        self.moved_here.insert(node, Place { parent: NodeId::PARKED, name });
        true
    }
}

/// Whether a node was moved on this server and not in the share.
pub(super) fn moved_only_here(record: &Record) -> bool {
    let (Some(local), Some(remote), Some(synced)) = (record.here(), record.live(), &record.synced) else { return false };
    local.place != synced.place && remote.place == synced.place && local.place.parent != NodeId::PARKED
}

/// The change that brings a local name to the share: a move, or the creation of what only this server has.
pub(super) fn place_change(record: &Record, local: &Local) -> Option<Change> {
    match record.live() {
        Some(remote) => Some(move_change(local, remote)),
        None => local.known().map(|content| super::create::create_change(record, local, content)),
    }
}

fn move_change(local: &Local, remote: &Node) -> Change {
    Change::Move { node: remote.id, place: Based { base: remote.versions.place, value: local.place.clone() } }
}
