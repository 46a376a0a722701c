//! Contents that are to come by themselves, and such as are to stay.
//!
//! Both are small values of the catalog, which whoever fetches reads. **Invariant:** nothing of sync rests on them.

use std::collections::BTreeSet;

use isotherm_core::ids::NodeId;
use isotherm_core::plan::{Action, Step};
use isotherm_core::tiering::{Arrival, Comes};
use isotherm_core::trees::Handle;

use super::{Catalog, Engine};

/// Name of the value with all nodes whose content is to stay.
pub(crate) const PINNED: &str = "pinned";
/// Names of values, one for each node whose content is to come by itself, begin like this; the node follows.
pub(crate) const COMING: &str = "coming:";

/// The node in the name of such a value.
pub(crate) fn coming_node(name: &str) -> Option<NodeId> {
    u128::from_str_radix(name.strip_prefix(COMING)?, 16).ok().map(|number| NodeId(number.to_be_bytes()))
}

/// The name of a node's value.
pub(crate) fn coming_name(node: NodeId) -> String {
    format!("{COMING}{:032x}", u128::from_be_bytes(node.0))
}

impl<C: Catalog> Engine<C> {
    /// A step has made a file, perhaps without its content.
    pub(super) fn note_coming(&mut self, step: &Step, is_tiered: bool) {
        let Some(policy) = self.tiers.as_ref().filter(|_| is_tiered) else { return };
        let arrival = match &step.action {
            Action::Create { .. } => Arrival::New { first: !self.has_agreed() },
            Action::Replace { .. } => Arrival::Changed { is_stub: true },
            _ => return,
        };
        if policy.comes(arrival) == Comes::StubFirst {
            self.catalog.set_value(&coming_name(step.node), Some(b""));
        }
    }

    /// Whoever looked at them saw these inodes; others may have come since.
    pub(super) fn not_coming_as(&mut self, files: &[(NodeId, Option<Handle>)]) {
        let is_it = |(node, file): &&(NodeId, Option<Handle>)| {
            self.catalog.record(*node).and_then(|record| record.here().map(|local| local.handle.clone())) == *file
        };
        let nodes: Vec<NodeId> = files.iter().filter(is_it).map(|(node, _)| *node).collect();
        self.not_coming(&nodes);
    }

    /// They are here, or not to come.
    pub(super) fn not_coming(&mut self, nodes: &[NodeId]) {
        for name in nodes.iter().map(|node| coming_name(*node)) {
            if self.catalog.value(&name).is_some() {
                self.catalog.set_value(&name, None);
            }
        }
    }

    /// What cannot be read counts as none: whoever plans keeps everything then, until this writes it anew.
    pub(super) fn pin(&mut self, node: NodeId, pinned: bool) {
        let kept = self.catalog.value(PINNED);
        let mut nodes: BTreeSet<NodeId> = kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        if pinned {
            nodes.insert(node);
        } else {
            nodes.remove(&node);
        }
        // What has been deleted does not come back as the same node.
        nodes.retain(|node| node.is_anchor() || self.catalog.record(*node).is_some());
        let bytes = (!nodes.is_empty()).then(|| postcard::to_allocvec(&nodes)).and_then(Result::ok);
        self.catalog.set_value(PINNED, bytes.as_deref());
    }
}
