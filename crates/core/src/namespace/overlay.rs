//! Tentative writes over the records: a group is judged here and reaches the records only as a whole.

use std::collections::BTreeMap;

use super::records::{Records, Share};
use crate::ids::{NodeId, ServerId};
use crate::name::Case;
use crate::node::Node;

/// Nodes as a group would leave them.
#[derive(Debug)]
pub(super) struct Overlay<'a, R> {
    pub(super) records: &'a R,
    pub(super) share: Share,
    pub(super) author: ServerId,
    pub(super) changed: BTreeMap<NodeId, Node>,
}

impl<'a, R: Records> Overlay<'a, R> {
    pub(super) fn new(records: &'a R, author: ServerId) -> Result<Self, R::Error> {
        Ok(Self { records, share: records.share()?, author, changed: BTreeMap::new() })
    }

    pub(super) fn node(&self, id: NodeId) -> Result<Option<Node>, R::Error> {
        match self.changed.get(&id) {
            Some(node) => Ok(Some(node.clone())),
            None => self.records.node(id),
        }
    }

    /// A live node other than `not` that holds a name.
    pub(super) fn holder(&self, parent: NodeId, key: &[u8], case: Case, not: NodeId) -> Result<Option<Node>, R::Error> {
        let tentative = self
            .changed
            .values()
            .find(|node| node.id != not && node.is_live() && node.place.parent == parent && node.place.name.key(case) == key);
        if let Some(node) = tentative {
            return Ok(Some(node.clone()));
        }
        match self.records.child(parent, key)? {
            // A node that the group changed was already looked at in its new state.
            Some(id) if id != not && !self.changed.contains_key(&id) => self.records.node(id),
            _ => Ok(None),
        }
    }

    pub(super) fn has_children(&self, parent: NodeId) -> Result<bool, R::Error> {
        if self.changed.values().any(|node| node.is_live() && node.place.parent == parent) {
            return Ok(true);
        }
        // At most `changed.len()` of them can have left in this group, so one more than that settles it.
        let kept = self.records.children(parent, self.changed.len() + 1)?;
        Ok(kept.iter().any(|id| !self.changed.contains_key(id)))
    }

    /// Whether `below` is `above` or hangs somewhere below it.
    pub(super) fn is_below(&self, below: NodeId, above: NodeId) -> Result<bool, R::Error> {
        let mut at = below;
        // A chain longer than the tentative and real tree can only be a cycle that the group itself would make.
        let mut seen = std::collections::BTreeSet::new();
        while at != NodeId::ROOT && seen.insert(at) {
            if at == above {
                return Ok(true);
            }
            match self.node(at)? {
                Some(node) => at = node.place.parent,
                None => return Ok(false),
            }
        }
        Ok(at != NodeId::ROOT || above == NodeId::ROOT)
    }

    pub(super) fn put(&mut self, node: Node) {
        self.changed.insert(node.id, node);
    }
}
