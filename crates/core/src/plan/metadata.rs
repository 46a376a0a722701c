//! Mode, owner and attributes: three-way, field by field.

use super::planner::Planner;
use super::{Action, Authority};
use crate::ids::NodeId;
use crate::namespace::{Based, Change};
use crate::node::Node;
use crate::trees::{Local, Synced, Trees, merge_metadata, same_metadata};

impl<T: Trees> Planner<'_, T> {
    /// True if both sides have the same metadata.
    pub(super) fn reconcile_metadata(&mut self, node: NodeId, local: &Local, remote: &Node, synced: Option<&Synced>) -> bool {
        if same_metadata(&local.metadata, &remote.metadata) {
            return true;
        }
        let merged = match (synced, self.rules.authority) {
            (Some(synced), _) => merge_metadata(&synced.metadata, &local.metadata, &remote.metadata),
            (None, Authority::Server) => local.metadata.clone(),
            (None, Authority::Merge) => remote.metadata.clone(),
        };
        // One side at a time: what is committed is always what is here, so that the base is never a guess.
        if same_metadata(&merged, &local.metadata) {
            let metadata = Some(Based { base: remote.versions.metadata, value: local.metadata.clone() });
            self.intend(Change::Update { node, metadata, content: None });
        } else if let Some(expected) = self.expected_after_move(node, local) {
            let action = Action::SetMetadata { expected, metadata: merged, base: remote.metadata.clone(), content: None };
            self.step(node, action);
        }
        false
    }
}
