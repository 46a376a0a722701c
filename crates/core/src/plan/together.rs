//! Changes of the share that are possible only together.
//!
//! Names wait for each other: a ring of renames, a file that moved into the directory that now has its name, a directory
//! that was deleted and whose name is in use again. The share judges names and cycles at the end of a group, so that
//! its members may pass through each other. What others see is the end: no name is ever empty in between (row 16).

use std::collections::{BTreeMap, BTreeSet};

use super::delete::delete_change;
use super::place::{moved_only_here, place_change};
use super::planner::Planner;
use super::{Intent, Trouble};
use crate::ids::NodeId;
use crate::namespace::Change;
use crate::trees::{Record, Trees};

/// Most changes in one group. What needs more goes piece by piece, as its parts become possible alone.
const GROUP_MAX: usize = 4_096;

/// The members of a group, by how they have to be ordered.
#[derive(Default)]
struct Group {
    /// Directories that are new, and what is made in them: outer ones first.
    creates: Vec<Record>,
    moves: Vec<Record>,
    /// Inner ones first.
    deletes: Vec<Record>,
    /// What each member needs looked at: its own target name and directory.
    open: Vec<NodeId>,
    known: BTreeMap<NodeId, bool>,
}

impl<T: Trees> Planner<'_, T> {
    /// Plans a node's place in the share together with everything that it waits for. False if something of that cannot be
    /// planned now; the nodes that are in the way were visited then.
    pub(super) fn together(&mut self, record: &Record) -> bool {
        let mut group = Group::default();
        let gathered = self.gather(&mut group, record.node);
        if group.known.len() >= GROUP_MAX {
            self.trouble(record.node, Trouble::TooManyTogether);
        }
        if !gathered {
            // Each of them would find the same.
            self.stuck.extend(group.known.into_keys());
            return false;
        }
        self.seal(group)
    }

    fn gather(&mut self, group: &mut Group, node: NodeId) -> bool {
        if !self.join(group, node) {
            return false;
        }
        while let Some(node) = group.open.pop() {
            if !self.follow(group, node) {
                return false;
            }
        }
        true
    }

    /// Takes a node into the group: it is made, moved or deleted.
    fn join(&mut self, group: &mut Group, node: NodeId) -> bool {
        if group.known.contains_key(&node) {
            return true;
        }
        let Some(record) = self.trees.record(node) else { return false };
        let done = self.moved_there.contains_key(&node) || self.made_there.contains(&node) || self.rebound.contains(&node);
        if done || self.stuck.contains(&node) || self.is_blocked(&record) || group.known.len() >= GROUP_MAX {
            return false;
        }
        let gone = record.local.is_none();
        let possible = if gone { self.is_deleted_only_here(&record) } else { self.is_placed_only_here(&record) };
        if !possible {
            self.visit(node);
            return false;
        }
        group.known.insert(node, gone);
        if gone {
            // Everything in it has to leave it first.
            for child in self.trees.remote_children(node, usize::MAX) {
                if !self.join(group, child) {
                    return false;
                }
            }
            group.deletes.push(record);
        } else {
            group.open.push(node);
            if record.live().is_some() {
                group.moves.push(record);
            } else {
                group.creates.push(record);
            }
        }
        true
    }

    /// Joins what a member's new name and directory need.
    fn follow(&mut self, group: &mut Group, node: NodeId) -> bool {
        let Some(local) = self.trees.record(node).and_then(|record| record.here().cloned()) else { return false };
        let parent = local.place.parent;
        let there = parent == NodeId::ROOT
            || self.made_there.contains(&parent)
            || self.trees.record(parent).is_some_and(|record| record.live().is_some());
        if !there && !self.join(group, parent) {
            return false;
        }
        let key = self.key(&local.place.name);
        match self.holder_there(parent, &key).filter(|holder| *holder != node) {
            Some(holder) => self.join(group, holder),
            None => true,
        }
    }

    fn is_deleted_only_here(&self, record: &Record) -> bool {
        let (Some(remote), Some(synced)) = (record.live(), &record.synced) else { return false };
        !self.rules.hold_local_deletes && remote.content.same_bytes(&synced.content) && remote.place == synced.place
    }

    fn is_placed_only_here(&self, record: &Record) -> bool {
        moved_only_here(record) || (record.live().is_none() && record.here().is_some_and(|local| local.known().is_some()))
    }

    /// Makes one intent of the group.
    fn seal(&mut self, mut group: Group) -> bool {
        self.order(&mut group.creates);
        // Two members, or a member and something planned already, may want one name.
        let mut names = BTreeSet::new();
        for record in group.creates.iter().chain(&group.moves) {
            let Some(local) = record.here() else { return false };
            let name = (local.place.parent, self.key(&local.place.name));
            if self.is_taken_there(name.0, &name.1) || !names.insert(name) {
                return false;
            }
        }
        for (parent, key) in names {
            self.taken_there(parent, key);
        }
        let placed = group.creates.iter().chain(&group.moves).filter_map(|record| place_change(record, record.here()?));
        let deleted = group.deletes.iter().filter_map(|record| record.live().map(delete_change));
        let changes: Vec<Change> = placed.chain(deleted).collect();
        if changes.is_empty() {
            return false;
        }
        self.plan.intents.push(Intent { changes, rebind: None });
        for record in group.creates.iter().chain(&group.moves) {
            if record.live().is_none() {
                self.made_there.insert(record.node);
            }
            if let Some(local) = record.here() {
                self.moved_there.insert(record.node, local.place.clone());
            }
        }
        for record in &group.deletes {
            if let Some(remote) = record.live() {
                self.gone_there(record.node, &remote.place);
            }
        }
        true
    }

    /// A directory stands before what is made in it.
    fn order(&self, creates: &mut [Record]) {
        let depth = |record: &Record| {
            let (mut depth, mut at) = (0, record.node);
            while let Some(local) = self.trees.record(at).and_then(|record| record.here().cloned()) {
                at = local.place.parent;
                depth += 1;
                if at == NodeId::ROOT || depth > GROUP_MAX {
                    break;
                }
            }
            depth
        };
        creates.sort_by_cached_key(|record| depth(record));
    }
}
