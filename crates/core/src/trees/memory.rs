//! The trees in memory: the readable specification of the agent's catalog. A copy of it is a durable image.

use std::collections::{BTreeMap, BTreeSet};

use super::{Handle, Record, State, Trees, TreesMut};
use crate::ids::{LinkId, NodeId};
use crate::name::{Case, Name};
use crate::node::{Node, Place};

/// Records with the indexes that the rules ask for.
#[derive(Clone, Debug, Default)]
pub struct MemoryTrees {
    case: Case,
    records: BTreeMap<NodeId, Record>,
    local: BTreeMap<(NodeId, Name), BTreeSet<NodeId>>,
    remote: BTreeMap<(NodeId, Vec<u8>), BTreeSet<NodeId>>,
    handles: BTreeMap<Handle, BTreeSet<NodeId>>,
    links: BTreeMap<LinkId, BTreeSet<NodeId>>,
    unsettled: BTreeSet<NodeId>,
}

impl MemoryTrees {
    /// Empty trees of a share whose names compare like this.
    #[must_use]
    pub fn new(case: Case) -> Self {
        Self { case, ..Self::default() }
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Nodes that are not settled, after `after`, at most `limit`.
    #[must_use]
    pub fn unsettled(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.unsettled.range((from, Unbounded)).take(limit).copied().collect()
    }

    fn index(&mut self, record: &Record, add: bool) {
        let node = record.node;
        if let Some(local) = &record.local {
            change(&mut self.handles, local.handle.clone(), node, add);
            if !node.is_anchor() {
                change(&mut self.local, (local.place.parent, local.place.name.clone()), node, add);
            }
        }
        if let Some(remote) = record.live() {
            change(&mut self.remote, (remote.place.parent, remote.place.name.key(self.case)), node, add);
            if let Some(link) = link(remote) {
                change(&mut self.links, link, node, add);
            }
        }
        if add && record.state() != State::Settled && !node.is_anchor() {
            self.unsettled.insert(node);
        } else {
            self.unsettled.remove(&node);
        }
    }
}

fn link(node: &Node) -> Option<LinkId> {
    node.content.file().and_then(|file| file.link)
}

fn change<K: Ord>(index: &mut BTreeMap<K, BTreeSet<NodeId>>, key: K, node: NodeId, add: bool) {
    if add {
        index.entry(key).or_default().insert(node);
    } else if let Some(nodes) = index.get_mut(&key) {
        nodes.remove(&node);
        if nodes.is_empty() {
            index.remove(&key);
        }
    }
}

fn members<K: Ord>(index: &BTreeMap<K, BTreeSet<NodeId>>, key: &K) -> Vec<NodeId> {
    index.get(key).into_iter().flatten().copied().collect()
}

impl Trees for MemoryTrees {
    fn record(&self, node: NodeId) -> Option<Record> {
        self.records.get(&node).cloned()
    }

    fn local_at(&self, place: &Place) -> Option<NodeId> {
        let nodes = self.local.get(&(place.parent, place.name.clone()))?;
        nodes.iter().copied().find(|node| !self.records[node].is_lost())
    }

    fn remote_at(&self, parent: NodeId, key: &[u8]) -> Option<NodeId> {
        self.remote.get(&(parent, key.to_vec()))?.first().copied()
    }

    fn by_handle(&self, handle: &Handle) -> Vec<NodeId> {
        members(&self.handles, handle)
    }

    fn local_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId> {
        let first = (parent, Name::new(b"\x01").expect("one byte is a name"));
        let own = self.local.range(first..).take_while(|((p, _), _)| *p == parent);
        own.flat_map(|(_, nodes)| nodes).take(limit).copied().collect()
    }

    fn remote_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId> {
        let own = self.remote.range((parent, Vec::new())..).take_while(|((p, _), _)| *p == parent);
        own.flat_map(|(_, nodes)| nodes).take(limit).copied().collect()
    }

    fn link_members(&self, link: LinkId) -> Vec<NodeId> {
        members(&self.links, &link)
    }

    fn local_names(&self, parent: NodeId) -> Vec<(Name, NodeId)> {
        let nodes = self.local_children(parent, usize::MAX);
        let named = nodes.into_iter().filter_map(|node| Some((self.records[&node].here()?.place.name.clone(), node)));
        named.collect()
    }
}

impl TreesMut for MemoryTrees {
    fn put(&mut self, record: Record) {
        if let Some(old) = self.records.remove(&record.node) {
            self.index(&old, false);
        }
        if record.state() != State::Gone || record.node.is_anchor() {
            self.index(&record, true);
            self.records.insert(record.node, record);
        }
    }
}
