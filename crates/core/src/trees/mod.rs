//! The three trees: what each node was last seen to be in the share (*remote*), on this server (*local*), and
//! when both agreed (*synced*).
//!
//! These are observations. What is to be done follows from them ([`crate::plan`]) and is never stored, so a crash
//! forgets no work. The agent keeps the trees in its catalog; [`MemoryTrees`] is the readable specification of that
//! catalog and what the simulation uses.
//!
//! **Invariant:** a node has at most one local inode, a local name belongs to at most one node.

mod facets;
mod local;
mod memory;

pub use facets::{merge_metadata, same_metadata, same_principal};
pub use local::{Handle, Local, LocalContent, Print};
pub use memory::MemoryTrees;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::content::ManifestId;
use crate::ids::{LinkId, NodeId, Timestamp, Version};
use crate::name::Name;
use crate::node::{Content, FileContent, Kind, Metadata, Node, Place};
use crate::stub::ContentPrefix;

/// What is known of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Which node.
    pub node: NodeId,
    /// As the share was last seen to have it; a deleted node stays here as long as something local refers to it.
    pub remote: Option<Node>,
    /// What both sides last had in common: the base that tells whose change a difference is.
    pub synced: Option<Synced>,
    /// As it was last seen on this server.
    pub local: Option<Local>,
    /// For a file that lost a name here: the node that kept it.
    pub conflict_of: Option<NodeId>,
    /// The remote content version for which the share's history was searched, in vain, for a base.
    pub searched: Option<Version>,
}

/// What local and remote last had in common.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Synced {
    /// Parent and name.
    pub place: Place,
    /// Mode, owner, attributes.
    pub metadata: Metadata,
    /// Content.
    pub content: Content,
}

impl Synced {
    /// What the share says of a node, as a base.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self { place: node.place.clone(), metadata: node.metadata.clone(), content: node.content.clone() }
    }

    /// Whether this is what the share says.
    #[must_use]
    pub fn is(&self, node: &Node) -> bool {
        node.is_live() && (&self.place, &self.metadata, &self.content) == (&node.place, &node.metadata, &node.content)
    }
}

impl Record {
    /// A node of which nothing is known yet.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self { node, remote: None, synced: None, local: None, conflict_of: None, searched: None }
    }

    /// The node as the share has it, if it is live there.
    #[must_use]
    pub fn live(&self) -> Option<&Node> {
        self.remote.as_ref().filter(|node| node.is_live())
    }

    /// What is here, unless its whereabouts are unknown.
    #[must_use]
    pub fn here(&self) -> Option<&Local> {
        self.local.as_ref().filter(|local| !local.lost)
    }

    /// Seen under a name before, but its inode was not found again and may live elsewhere.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.lost)
    }

    /// Contents that the share holds or has held, as far as this server knows: they may be removed here. What the share
    /// has replaced or deleted since, and perhaps collected, counts too.
    pub fn safe_contents(&self) -> impl Iterator<Item = &Content> {
        let remote = self.remote.iter().map(|node| &node.content);
        remote.chain(self.synced.iter().map(|synced| &synced.content))
    }

    /// When a content that the share holds or has held was written, as its author's file system told.
    #[must_use]
    pub fn modified_of(&self, content: ContentPrefix) -> Option<Timestamp> {
        let mut files = self.safe_contents().filter_map(Content::file);
        files.find(|file| ContentPrefix::of(&file.manifest) == content).map(|file| file.modified)
    }

    /// Whether a file's content is one of [`Record::safe_contents`].
    #[must_use]
    pub fn is_safe(&self, manifest: &ManifestId) -> bool {
        self.safe_contents().filter_map(Content::file).any(|file| file.manifest == *manifest)
    }

    /// Whether this server may hold something that the share does not have yet: a change, a new name, or a delete.
    #[must_use]
    pub fn owes(&self) -> bool {
        match (&self.local, &self.synced, self.live()) {
            (Some(local), Some(synced), _) => !local.agrees(synced),
            (Some(local), None, Some(remote)) => {
                local.known() != Some(&remote.content)
                    || local.place != remote.place
                    || !same_metadata(&local.metadata, &remote.metadata)
            }
            (Some(_), None, None) | (None, Some(_), Some(_)) => true,
            (None, _, _) => false,
        }
    }

    /// Bytes of content that have to travel before both sides agree: up, and down.
    #[must_use]
    pub fn bytes_to_move(&self) -> (u64, u64) {
        let remote = self.live().and_then(|node| node.content.file());
        let base = self.synced.as_ref().and_then(|synced| synced.content.file());
        let there = remote.filter(|remote| base.is_none_or(|base| base.manifest != remote.manifest));
        let Some(local) = self.here().filter(|local| local.kind() == Kind::File) else {
            // Deleted here, or on its way here.
            return (0, if self.synced.is_none() { remote.map_or(0, |remote| remote.size) } else { 0 });
        };
        let known = local.known().and_then(Content::file);
        if known.is_some_and(|known| remote.is_some_and(|remote| remote.manifest == known.manifest)) {
            return (0, 0);
        }
        let changed_here = known.is_none_or(|known| base.is_none_or(|base| base.manifest != known.manifest));
        let up = if changed_here { local.print.size } else { 0 };
        (up, there.map_or(0, |there| there.size))
    }

    /// What this server's file is to stand for if its content goes: the share has exactly that, and it is known to be here. The
    /// version is that of the content. None where the content is not safe in the share.
    #[must_use]
    pub fn stands_for(&self) -> Option<(Version, &FileContent)> {
        let node = self.live().filter(|_| self.state() == State::Settled)?;
        let content = node.content.file()?;
        let is_its = self.here()?.known()?.file().is_some_and(|known| known.manifest == content.manifest);
        is_its.then_some((node.versions.content, content))
    }

    /// Whether all three observations agree, or nothing at all is left of the node.
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.local, &self.synced, self.live()) {
            // A tombstone stays until the planner has seen that no work is under way on the node.
            (None, None, None) if self.remote.is_none() => State::Gone,
            (None, Some(_), Some(_)) => State::DeletedHere,
            (Some(_), Some(_), None) => State::DeletedThere,
            (Some(local), Some(synced), Some(node)) if local.agrees(synced) && node_agrees(node, synced) => State::Settled,
            _ => State::Open,
        }
    }
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum State {
    /// Local and remote agree.
    Settled,
    /// Something is to be done.
    Open,
    /// Deleted on this server; the share still has it.
    DeletedHere,
    /// Deleted in the share; this server still has it.
    DeletedThere,
    /// Nothing is left: the record can go.
    Gone,
}

fn node_agrees(node: &Node, synced: &Synced) -> bool {
    node.place == synced.place && same_metadata(&node.metadata, &synced.metadata) && node.content == synced.content
}

/// Read access to the trees.
///
/// The methods do not fail: an implementation over a database remembers its first failure, answers "nothing", and
/// its owner asks for the failure before anything that was decided is performed or stored.
pub trait Trees {
    /// What is known of a node.
    fn record(&self, node: NodeId) -> Option<Record>;
    /// The node that has this name on this server, unless it is lost.
    fn local_at(&self, place: &Place) -> Option<NodeId>;
    /// The live node that has this name (as [`Name::key`] of the share's case) in the share.
    fn remote_at(&self, parent: NodeId, key: &[u8]) -> Option<NodeId>;
    /// All nodes whose inode this is: several for a hard-linked file.
    fn by_handle(&self, handle: &Handle) -> Vec<NodeId>;
    /// Nodes with this local parent, lost ones too, at most `limit`.
    fn local_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId>;
    /// Live nodes with this remote parent, at most `limit`.
    fn remote_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId>;
    /// Live nodes of one link group, as the share has it.
    fn link_members(&self, link: LinkId) -> Vec<NodeId>;
    /// The name of each recorded local child; for comparing a directory with its listing.
    fn local_names(&self, parent: NodeId) -> Vec<(Name, NodeId)>;
    /// Inode and state of the recorded local children that a look may find unchanged: not lost, and not files that never
    /// rested. For skipping over what is as it was, which is nearly everything in a scan.
    fn local_states(&self, parent: NodeId) -> BTreeMap<Name, (Handle, Print)> {
        let records = self.local_names(parent).into_iter().filter_map(|(_, node)| self.record(node));
        let resting = records.filter_map(|record| record.local).filter(|local| local.passing().is_none());
        resting.map(|local| (local.place.name, (local.handle, local.print))).collect()
    }
}

/// Write access to the trees.
pub trait TreesMut: Trees {
    /// Keeps what is known of a node, or forgets it when its state is [`State::Gone`].
    fn put(&mut self, record: Record);
}

/// The path of a node by one of the trees, from the root: its names joined with `/`.
#[must_use]
pub fn path(trees: &impl Trees, node: NodeId) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = node;
    let mut seen = BTreeSet::new();
    // Names of both trees together can make a ring for a while.
    while at != NodeId::ROOT && seen.insert(at) {
        let Some(record) = trees.record(at) else { break };
        let place = record.here().map(|local| &local.place).or(record.remote.as_ref().map(|node| &node.place));
        let Some(place) = place else { break };
        names.push(place.name.as_bytes().to_vec());
        at = place.parent;
    }
    names.reverse();
    names.join(&b'/')
}
