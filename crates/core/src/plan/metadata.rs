//! Mode, owner and attributes: three-way, field by field.

use super::Action;
use super::planner::Planner;
use crate::ids::{NodeId, Version};
use crate::namespace::{Based, Change};
use crate::node::Node;
use crate::trees::{Local, Synced, Trees, merge_metadata, same_metadata};

impl<T: Trees> Planner<'_, T> {
    /// True if both sides have the same metadata.
    pub(super) fn reconcile_metadata(&mut self, node: NodeId, local: &Local, remote: &Node, synced: Option<&Synced>) -> bool {
        // Names of one inode have one metadata: the first name's is applied to it, the others follow the inode.
        let follows = self.is_follower(node, local);
        if follows && !same_metadata(&local.metadata, &remote.metadata) {
            let metadata = Some(Based { base: remote.versions.metadata, value: local.metadata.clone() });
            self.intend(Change::Update { node, metadata, content: None });
            return false;
        }
        if same_metadata(&local.metadata, &remote.metadata) {
            return true;
        }
        let merged = match synced {
            Some(synced) => merge_metadata(&synced.metadata, &local.metadata, &remote.metadata),
            None if self.rules.rules_over(remote.versions.metadata) => local.metadata.clone(),
            None => remote.metadata.clone(),
        };
        // One side at a time: what is committed is always what is here, so that the base is never a guess.
        if same_metadata(&merged, &local.metadata) {
            let metadata = Some(Based { base: remote.versions.metadata, value: local.metadata.clone() });
            self.intend(Change::Update { node, metadata, content: None });
        } else if let Some(expected) = self.expected_after_move(node, local) {
            let (before, base) = (local.shown().clone(), remote.metadata.clone());
            let action = Action::SetMetadata { expected, metadata: merged, before, base, content: None };
            self.step(node, action);
        }
        false
    }

    /// Whether a smaller node id of the share is a name of the same inode here.
    fn is_follower(&self, node: NodeId, local: &Local) -> bool {
        let others = self.trees.by_handle(&local.handle).into_iter().filter(|other| *other < node);
        local.print.links > 1
            && others
                .filter_map(|other| self.trees.record(other))
                .any(|record| record.here().is_some() && record.live().is_some())
    }

    /// Of the share's nodes that are names of this node's inode here: the other one that changed last.
    pub(super) fn leader(&self, node: NodeId, local: &Local, version: fn(&Node) -> Version) -> Option<Node> {
        if local.print.links < 2 {
            return None;
        }
        let others = self.trees.by_handle(&local.handle).into_iter().filter(|other| *other != node);
        let others = others.filter_map(|other| self.trees.record(other)).filter(|record| record.here().is_some());
        others.filter_map(|record| record.live().cloned()).max_by_key(version)
    }
}
