//! The walk over the nodes, and what the cases share.

use std::collections::{BTreeMap, BTreeSet};

use super::{Expected, Fact, Intent, Parent, Plan, Rules, Spot, Step, Trouble};
use crate::ids::NodeId;
use crate::name::Name;
use crate::namespace::Change;
use crate::node::{Kind, Node, Place};
use crate::trees::{Local, Record, Synced, Trees};

/// Plans for these nodes, and for those that they depend on.
///
/// `busy` nodes have work under way, or are about to be looked at, and are left alone. The remote tree must have been read to its head (row 17).
/// `fresh` draws ids for conflict copies.
pub fn plan<T: Trees>(
    trees: &T,
    rules: &Rules,
    nodes: impl IntoIterator<Item = NodeId>,
    busy: &dyn Fn(&Record) -> bool,
    fresh: &mut dyn FnMut() -> NodeId,
) -> Plan {
    let mut planner = Planner {
        trees,
        rules,
        busy,
        fresh,
        plan: Plan::default(),
        visited: BTreeSet::new(),
        stack: Vec::new(),
        made_here: BTreeSet::new(),
        made_there: BTreeSet::new(),
        moved_here: BTreeMap::new(),
        moved_there: BTreeMap::new(),
        taken: BTreeSet::new(),
        rebound: BTreeSet::new(),
        rings: 0,
        stuck: BTreeSet::new(),
    };
    for node in nodes {
        planner.visit(node);
    }
    planner.plan
}

pub(super) struct Planner<'a, T> {
    pub(super) trees: &'a T,
    pub(super) rules: &'a Rules,
    busy: &'a dyn Fn(&Record) -> bool,
    pub(super) fresh: &'a mut dyn FnMut() -> NodeId,
    pub(super) plan: Plan,
    /// Nodes that were looked at; some of them are still being looked at.
    visited: BTreeSet<NodeId>,
    /// Nodes whose planning is under way, outermost first.
    stack: Vec<NodeId>,
    /// Nodes that a step of this plan makes on this server.
    pub(super) made_here: BTreeSet<NodeId>,
    /// Nodes that an intent of this plan makes in the share.
    pub(super) made_there: BTreeSet<NodeId>,
    /// Local names as the steps of this plan leave them.
    pub(super) moved_here: BTreeMap<NodeId, Place>,
    /// Remote names as the intents of this plan leave them.
    pub(super) moved_there: BTreeMap<NodeId, Place>,
    /// Names that this plan gives to something on either side.
    pub(super) taken: BTreeSet<(NodeId, Vec<u8>)>,
    /// Nodes that this plan makes one.
    pub(super) rebound: BTreeSet<NodeId>,
    /// How often something was found to wait for itself.
    pub(super) rings: usize,
    /// Nodes that wait for others in the share, and cannot go on in this plan.
    pub(super) stuck: BTreeSet<NodeId>,
}

impl<T: Trees> Planner<'_, T> {
    /// Plans for a node unless that was done; true if the node may be planned for at all.
    pub(super) fn visit(&mut self, node: NodeId) {
        if node.is_anchor() || !self.visited.insert(node) {
            return;
        }
        let Some(record) = self.trees.record(node) else { return };
        if self.is_blocked(&record) {
            return;
        }
        self.stack.push(node);
        self.decide(&record);
        self.stack.pop();
    }

    fn decide(&mut self, record: &Record) {
        let node = record.node;
        if let Some(local) = record.here()
            && let Some(content) = local.passing()
        {
            self.pass_on(record, local, content);
            return;
        }
        match (&record.local, &record.synced, &record.remote) {
            (None, _, Some(remote)) if remote.deleted => self.fact(Fact::Forget(node)),
            (None, _, None) => self.fact(Fact::Forget(node)),
            (None, None, Some(remote)) => self.create_here(node, remote),
            (None, Some(synced), Some(remote)) => self.deleted_here(record, synced, remote),
            (Some(local), Some(synced), Some(remote)) if remote.deleted => self.deleted_there(record, local, synced),
            (Some(local), _, Some(remote)) if remote.is_live() => self.reconcile(record, local, remote),
            (Some(local), _, _) => self.create_there(record, local),
        }
    }

    /// Both sides have the node: each facet alone.
    fn reconcile(&mut self, record: &Record, local: &Local, remote: &Node) {
        let synced = record.synced.as_ref();
        let mut agreed = self.reconcile_place(record, local, remote, synced);
        agreed &= self.reconcile_metadata(record.node, local, remote, synced);
        agreed &= self.reconcile_content(record, local, remote, synced);
        if agreed && !matches!(synced, Some(synced) if is_base(synced, local, remote)) {
            self.fact(Fact::Agree(record.node));
        }
    }

    pub(super) fn fact(&mut self, fact: Fact) {
        self.plan.facts.push(fact);
    }

    pub(super) fn trouble(&mut self, node: NodeId, trouble: Trouble) {
        self.plan.troubles.push((node, trouble));
    }

    pub(super) fn step(&mut self, node: NodeId, action: super::Action) {
        self.plan.steps.push(Step { node, action });
    }

    pub(super) fn intend(&mut self, change: Change) {
        self.plan.intents.push(Intent { changes: vec![change], rebind: None });
    }

    pub(super) fn read(&mut self, node: NodeId) {
        self.plan.reads.push(node);
    }

    /// Whether nobody may touch the node in this plan any more: work is under way, or its inode is being looked for.
    pub(super) fn is_blocked(&self, record: &Record) -> bool {
        record.is_lost() || (self.busy)(record)
    }

    /// Whether an intent of this plan already concerns the node's creation or place in the share.
    pub(super) fn key(&self, name: &Name) -> Vec<u8> {
        name.key(self.rules.case)
    }

    /// The directory of a place on this server: there, planned, or planned now. None: wait for it.
    pub(super) fn parent_here(&mut self, node: NodeId) -> Option<Parent> {
        if self.made_here.contains(&node) {
            return Some(Parent::Planned(node));
        }
        let record = self.trees.record(node)?;
        if let Some(local) = record.here() {
            return (local.kind() == Kind::Directory).then(|| Parent::Inode(local.handle.clone()));
        }
        if self.is_blocked(&record) || node == NodeId::ROOT {
            return None;
        }
        // Not here. A directory that was deleted here, but must hold something that the share has, comes back.
        let remote = record.live()?.clone();
        // Between a commit and the page that brings what others did before it, the known tree can hold a ring.
        if self.stack.contains(&node) {
            self.rings += 1;
            return None;
        }
        if record.synced.is_some() {
            self.fact(Fact::ForgetBase(node));
        }
        self.visited.insert(node);
        self.stack.push(node);
        self.make_here(node, &remote);
        self.stack.pop();
        self.made_here.contains(&node).then_some(Parent::Planned(node))
    }

    /// Whether a directory is, or in this plan becomes, live in the share.
    pub(super) fn parent_there(&mut self, node: NodeId) -> bool {
        if node == NodeId::ROOT || self.made_there.contains(&node) {
            return true;
        }
        let Some(record) = self.trees.record(node) else { return false };
        if record.live().is_some() {
            return true;
        }
        if self.is_blocked(&record) || node == NodeId::PARKED {
            return false;
        }
        // A directory that the share deleted, but that holds something new here, comes back under its old id.
        let Some(local) = record.here().cloned().filter(|_| !self.stack.contains(&node)) else { return false };
        self.visited.insert(node);
        self.stack.push(node);
        self.create_there(&record, &local);
        self.stack.pop();
        self.made_there.contains(&node)
    }

    /// How to find what a step is about; none if its directory cannot be reached now.
    pub(super) fn expected(&self, local: &Local) -> Option<Expected> {
        let parent = self.trees.record(local.place.parent)?;
        let handle = parent.here()?.handle.clone();
        Some(Expected::of(local, Parent::Inode(handle)))
    }

    /// As [`Self::expected`], but a node that this plan moves is left for the next one.
    pub(super) fn expected_after_move(&self, node: NodeId, local: &Local) -> Option<Expected> {
        let planned = self.moved_here.contains_key(&node) || self.plan.steps.iter().rev().any(|step| step.node == node);
        if planned { None } else { self.expected(local) }
    }

    /// Whether the node's own planning is under way further up.
    pub(super) fn is_being_visited(&self, node: NodeId) -> bool {
        self.stack.contains(&node)
    }

    pub(super) fn spot(&mut self, place: &Place) -> Option<Spot> {
        let parent = self.parent_here(place.parent)?;
        Some(Spot { node: place.parent, parent, name: place.name.clone() })
    }

    /// A node's local place as the steps planned so far leave it.
    pub(super) fn place_here(&self, node: NodeId) -> Option<Place> {
        let planned = self.moved_here.get(&node).cloned();
        planned.or_else(|| self.trees.record(node)?.here().map(|local| local.place.clone()))
    }

    /// A node's remote place as the intents planned so far leave it.
    pub(super) fn place_there(&self, node: NodeId) -> Option<Place> {
        let planned = self.moved_there.get(&node).cloned();
        planned.or_else(|| self.trees.record(node)?.live().map(|node| node.place.clone()))
    }

    /// Who holds a local name after the steps planned so far.
    pub(super) fn holder_here(&self, place: &Place) -> Option<NodeId> {
        self.trees.local_at(place).filter(|node| self.moved_here.get(node).is_none_or(|moved| moved == place))
    }

    /// Who holds a remote name after the intents planned so far.
    pub(super) fn holder_there(&self, parent: NodeId, key: &[u8]) -> Option<NodeId> {
        let holder = self.trees.remote_at(parent, key)?;
        let left = self.moved_there.get(&holder).is_some_and(|place| place.parent != parent || self.key(&place.name) != key);
        (!left).then_some(holder)
    }
}

/// Whether the base already says what both sides agree on.
fn is_base(synced: &Synced, local: &Local, remote: &Node) -> bool {
    local.agrees(synced) && remote.place == synced.place && remote.content == synced.content
}
