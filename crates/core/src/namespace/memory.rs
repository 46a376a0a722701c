//! Records in memory: the readable specification of [`Records`], and what the simulation's service stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::lives::Life;
use super::operation::{Answer, Digest};
use super::records::{Records, Share};
use super::restore::Revisions;
use crate::content::{ChunkId, ManifestId};
use crate::ids::{Epoch, Incarnation, NodeId, OperationId, ServerId, Version};
use crate::name::Case;
use crate::node::Node;

/// One share in memory. A copy of it is a durable image.
#[derive(Clone, Debug)]
pub struct MemoryRecords {
    share: Share,
    nodes: BTreeMap<NodeId, Node>,
    names: BTreeMap<(NodeId, Vec<u8>), NodeId>,
    by_version: BTreeMap<Version, NodeId>,
    revisions: BTreeMap<NodeId, Vec<Node>>,
    answers: BTreeMap<OperationId, (Digest, Answer)>,
    epochs: BTreeMap<ServerId, Epoch>,
    contents: BTreeSet<ManifestId>,
    lives: Vec<Life>,
}

impl MemoryRecords {
    /// An empty share.
    #[must_use]
    pub fn new(incarnation: Incarnation, case: Case) -> Self {
        let version = Version(0);
        Self {
            share: Share { incarnation, head: version, horizon: version, case, quota: None, used: 0 },
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            by_version: BTreeMap::new(),
            revisions: BTreeMap::new(),
            answers: BTreeMap::new(),
            epochs: BTreeMap::new(),
            contents: BTreeSet::new(),
            lives: Vec::new(),
        }
    }

    /// Gives a server its next epoch.
    pub fn attach(&mut self, server: ServerId) -> Epoch {
        let epoch = self.epochs.entry(server).or_default();
        epoch.0 += 1;
        *epoch
    }

    /// Says that a content is completely stored.
    pub fn add_content(&mut self, manifest: ManifestId) {
        self.contents.insert(manifest);
    }

    /// Whether a content is completely stored.
    #[must_use]
    pub fn has_content(&self, manifest: ManifestId) -> bool {
        self.contents.contains(&manifest)
    }

    /// Lets versions go that were replaced before the share had this version, as retention does.
    pub fn expire(&mut self, before: Version) {
        for revisions in self.revisions.values_mut() {
            // The last one is the present state; one that was replaced was so by its successor.
            let kept = revisions.windows(2).position(|pair| pair[1].versions.last >= before);
            revisions.drain(..kept.unwrap_or(revisions.len() - 1));
        }
    }

    /// Forgets nodes whose deletion is older than a version and of which no earlier version is kept. Whoever has not heard
    /// of the deletions starts over.
    pub fn forget_deleted(&mut self, before: Version) {
        let old = |node: &&Node| !node.is_live() && node.versions.last < before;
        let gone: Vec<Node> = self.nodes.values().filter(old).cloned().collect();
        for node in gone {
            self.share.horizon = self.share.horizon.max(node.versions.last);
            self.nodes.remove(&node.id);
            self.by_version.remove(&node.versions.last);
            self.revisions.remove(&node.id);
        }
    }

    /// Lets contents go that neither a live node nor a kept version names, and that are not `pinned`.
    pub fn collect(&mut self, pinned: impl Fn(ManifestId) -> bool) {
        let named = |node: &Node| node.content.file().map(|file| file.manifest);
        let live = self.nodes.values().filter(|node| node.is_live()).filter_map(named);
        // A deletion's own state names what was deleted; only an earlier version brings it back.
        let kept = self.revisions.values().flatten().filter(|node| node.is_live()).filter_map(named);
        let named: BTreeSet<ManifestId> = live.chain(kept).collect();
        self.contents.retain(|manifest| named.contains(manifest) || pinned(*manifest));
    }

    /// All nodes, deleted ones too.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Every version of every node that there ever was, the current one last.
    pub fn revisions(&self, id: NodeId) -> &[Node] {
        self.revisions.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Sets the quota in bytes.
    pub fn set_quota(&mut self, quota: Option<u64>) {
        self.share.quota = quota;
    }

    /// Begins another life of the share.
    pub fn begin_life(&mut self, incarnation: Incarnation) {
        self.lives.push(Life { incarnation: self.share.incarnation, ended: self.share.head });
        self.share.incarnation = incarnation;
    }
}

impl Records for MemoryRecords {
    type Error = Infallible;

    fn share(&self) -> Result<Share, Infallible> {
        Ok(self.share)
    }

    fn lives(&self) -> Result<Vec<Life>, Infallible> {
        Ok(self.lives.clone())
    }

    fn set_share(&mut self, share: Share) -> Result<(), Infallible> {
        self.share = share;
        Ok(())
    }

    fn node(&self, id: NodeId) -> Result<Option<Node>, Infallible> {
        Ok(self.nodes.get(&id).cloned())
    }

    fn child(&self, parent: NodeId, key: &[u8]) -> Result<Option<NodeId>, Infallible> {
        Ok(self.names.get(&(parent, key.to_vec())).copied())
    }

    fn children(&self, parent: NodeId, limit: usize) -> Result<Vec<NodeId>, Infallible> {
        let from = (parent, Vec::new());
        Ok(self.names.range(from..).take_while(|((p, _), _)| *p == parent).map(|(_, id)| *id).take(limit).collect())
    }

    fn put(&mut self, node: Node) -> Result<(), Infallible> {
        let case = self.share.case;
        if let Some(old) = self.nodes.get(&node.id) {
            self.by_version.remove(&old.versions.last);
            let key = (old.place.parent, old.place.name.key(case));
            // The name may already belong to a node put before this one in the same group.
            if self.names.get(&key) == Some(&node.id) {
                self.names.remove(&key);
            }
        }
        if node.is_live() {
            self.names.insert((node.place.parent, node.place.name.key(case)), node.id);
        }
        self.by_version.insert(node.versions.last, node.id);
        self.revisions.entry(node.id).or_default().push(node.clone());
        self.nodes.insert(node.id, node);
        Ok(())
    }

    fn changed_after(&self, after: Version, limit: usize) -> Result<Vec<Node>, Infallible> {
        Ok(self.by_version.range(after.next()..).take(limit).map(|(_, id)| self.nodes[id].clone()).collect())
    }

    fn history(&self, node: NodeId, limit: usize) -> Result<Vec<ManifestId>, Infallible> {
        let manifests = self.revisions(node).iter().rev().filter_map(|node| node.content.file());
        Ok(manifests.map(|file| file.manifest).take(limit).collect())
    }

    fn answered(&self, id: OperationId) -> Result<Option<(Digest, Answer)>, Infallible> {
        Ok(self.answers.get(&id).cloned())
    }

    fn remember(&mut self, id: OperationId, digest: Digest, answer: &Answer) -> Result<(), Infallible> {
        self.answers.insert(id, (digest, answer.clone()));
        Ok(())
    }

    fn epoch(&self, server: ServerId) -> Result<Epoch, Infallible> {
        Ok(self.epochs.get(&server).copied().unwrap_or_default())
    }

    fn missing(&self, manifest: ManifestId) -> Result<Vec<ChunkId>, Infallible> {
        Ok(if self.contents.contains(&manifest) { Vec::new() } else { vec![ChunkId::from_bytes(*manifest.as_bytes())] })
    }
}

impl Revisions for MemoryRecords {
    fn revision(&self, node: NodeId, version: Version) -> Result<Option<Node>, Infallible> {
        Ok(self.revisions(node).iter().find(|node| node.versions.last == version).cloned())
    }
}
