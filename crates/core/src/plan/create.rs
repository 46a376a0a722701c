//! Nodes that exist on one side only.

use std::collections::BTreeSet;

use super::Action;
use super::collide::is_new_here;
use super::delete::delete_change;
use super::planner::Planner;
use crate::ids::NodeId;
use crate::name::Name;
use crate::namespace::Change;
use crate::node::{Content, Node, Place};
use crate::trees::{Local, LocalContent, Record, Trees};

impl<T: Trees> Planner<'_, T> {
    /// The share has it, this server does not and never did (or must get it back).
    pub(super) fn create_here(&mut self, node: NodeId, remote: &Node) {
        let never_here = self.trees.record(node).is_none_or(|record| record.synced.is_none());
        if never_here && self.is_ruled_over(remote) {
            if let Some(twin) = self.twin(remote) {
                self.visit(twin);
                return;
            }
            if self.delete_unknown_there(node, remote) {
                return;
            }
        }
        self.make_here(node, remote);
    }

    /// Makes it here, whoever rules: for a directory it was asked by what belongs into it.
    pub(super) fn make_here(&mut self, node: NodeId, remote: &Node) {
        let Some(at) = self.spot(&remote.place) else { return };
        // Making the parent may have led back here, or a local file or directory becomes this node.
        if self.made_here.contains(&node) || self.rebound.contains(&node) {
            return;
        }
        if let Some(holder) = self.holder_here(&remote.place) {
            if !self.make_room_here(node, remote, holder) {
                return;
            }
        } else if !self.taken.insert((remote.place.parent, remote.place.name.as_bytes().to_vec())) {
            return;
        }
        let link_to = match self.link_target(node, &remote.content) {
            Some(target) => target,
            None => return,
        };
        let action = Action::Create { at, content: remote.content.clone(), metadata: remote.metadata.clone(), link_to };
        self.step(node, action);
        self.made_here.insert(node);
        self.moved_here.insert(node, remote.place.clone());
    }

    /// Whether this server decides what becomes of a node that it never had.
    pub(super) fn is_ruled_over(&self, remote: &Node) -> bool {
        self.rules.rules_over(remote.versions.created) && self.rules.rules_over(remote.versions.content)
    }

    /// What only this server knows, and has where the share has this node: it becomes the node as soon as it was read.
    fn twin(&self, remote: &Node) -> Option<NodeId> {
        let mut names = vec![remote.place.name.clone()];
        let mut directory = remote.place.parent;
        let mut above = BTreeSet::new();
        while directory != NodeId::ROOT && self.trees.record(directory)?.here().is_none() {
            // The names of the share can make a ring for a while.
            if !above.insert(directory) {
                return None;
            }
            let place = self.trees.record(directory)?.live()?.place.clone();
            names.push(place.name);
            directory = place.parent;
        }
        let mut names = names.into_iter().rev();
        let found = names.try_fold(directory, |parent, name| self.trees.local_at(&Place { parent, name }))?;
        let record = self.trees.record(found).filter(is_new_here)?;
        (record.here()?.kind() == remote.kind()).then_some(found)
    }

    /// Server authoritative: what the server does not have goes from the share, innermost first.
    fn delete_unknown_there(&mut self, node: NodeId, remote: &Node) -> bool {
        let children = self.trees.remote_children(node, 1);
        if !children.is_empty() {
            // A child that came from this server keeps the directory.
            let all = self.trees.remote_children(node, usize::MAX);
            return all.iter().all(|child| self.trees.record(*child).is_none_or(|record| record.local.is_none()));
        }
        if !self.rules.hold_local_deletes && !self.moved_there.contains_key(&node) {
            self.intend(delete_change(remote));
            self.gone_there(node, &remote.place);
        }
        true
    }

    /// This server has it, the share does not, or has deleted it.
    pub(super) fn create_there(&mut self, record: &Record, local: &Local) {
        let node = record.node;
        let LocalContent::Known(content) = &local.content else {
            self.read(node);
            return;
        };
        if local.place.parent == NodeId::PARKED {
            self.bring_back(record, local);
            return;
        }
        self.make_there(record, local, content);
    }

    /// As [`Self::create_there`] for a file that never rests; where its name is taken it waits until it does.
    pub(super) fn create_passing(&mut self, record: &Record, local: &Local, content: &Content) {
        let key = self.key(&local.place.name);
        if local.place.parent != NodeId::PARKED && self.holder_there(local.place.parent, &key).is_none() {
            self.make_there(record, local, content);
        }
    }

    fn make_there(&mut self, record: &Record, local: &Local, content: &Content) {
        let node = record.node;
        if !self.parent_there(local.place.parent) || self.made_there.contains(&node) {
            return;
        }
        let key = self.key(&local.place.name);
        if let Some(holder) = self.holder_there(local.place.parent, &key)
            && holder != node
        {
            self.name_taken_there(record, local, holder);
            return;
        }
        if !self.taken_there(local.place.parent, key) {
            return;
        }
        self.intend(create_change(record, local, content));
        self.made_there.insert(node);
        self.moved_there.insert(node, local.place.clone());
    }

    /// Something lies parked of which neither side knows where it belongs: it comes back under a name that says so.
    fn bring_back(&mut self, record: &Record, local: &Local) {
        let Ok(name) = Name::new(b"rescued") else { return };
        let wanted = Place { parent: NodeId::ROOT, name };
        let Some(name) = self.conflict_name(&wanted, self.rules.server) else { return };
        let (Some(expected), Some(to)) = (self.expected(local), self.spot(&Place { parent: NodeId::ROOT, name })) else { return };
        self.step(record.node, Action::Move { expected, to, conflict_of: None });
    }

    /// Reserves a remote name for this plan; false if the plan already gives it to another node.
    pub(super) fn taken_there(&mut self, parent: NodeId, key: Vec<u8>) -> bool {
        self.taken.insert((parent, tagged(&key)))
    }

    /// Whether this plan gives a remote name to some node.
    pub(super) fn is_taken_there(&self, parent: NodeId, key: &[u8]) -> bool {
        self.taken.contains(&(parent, tagged(key)))
    }
}

/// Remote names among the names that a plan gives; a local name has no slash.
fn tagged(key: &[u8]) -> Vec<u8> {
    [b"there/", key].concat()
}

/// The change that makes a local node in the share, reviving it where the share has deleted it.
pub(super) fn create_change(record: &Record, local: &Local, content: &Content) -> Change {
    let tombstone = record.remote.as_ref().filter(|remote| remote.deleted);
    Change::Create {
        node: record.node,
        place: Place { parent: local.place.parent, name: local.place.name.clone() },
        metadata: local.metadata.clone(),
        content: content.clone(),
        revives: tombstone.map(|remote| remote.versions.last),
        conflict_of: record.conflict_of,
    }
}
