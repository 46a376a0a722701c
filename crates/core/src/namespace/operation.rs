//! What a server asks of a share, and what it is answered.

use serde::{Deserialize, Serialize};

use crate::content::ChunkId;
use crate::ids::{Epoch, Incarnation, NodeId, OperationId, ServerId, Version};
use crate::node::{Content, Metadata, Node, Place};

/// Operations that a server wants applied, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// Who asks.
    pub server: ServerId,
    /// The epoch that the service gave this run of the server's agent.
    pub epoch: Epoch,
    /// The life of the share that the bases belong to.
    pub incarnation: Incarnation,
    /// What is asked.
    pub operations: Vec<Operation>,
}

/// One change, with the id that makes sending it twice harmless.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// Drawn once, stored by the agent before it sends.
    pub id: OperationId,
    /// Neighbours with one number are all applied or none; names and cycles are judged at the end of the group,
    /// so that two nodes can swap names.
    pub group: Option<u32>,
    /// What to change.
    pub change: Change,
}

/// A new value and the version of the facet it replaces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Based<T> {
    /// The version of the facet that the author had seen.
    pub base: Version,
    /// What it becomes.
    pub value: T,
}

/// What an operation changes. Each facet has a base of its own and conflicts only there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A new node, or a deleted one brought back.
    Create {
        /// Chosen by the author.
        node: NodeId,
        /// Where.
        place: Place,
        /// Mode, owner, attributes.
        metadata: Metadata,
        /// What it holds.
        content: Content,
        /// For a node that was deleted: the version of its tombstone.
        revives: Option<Version>,
        /// For a conflict copy: the node that kept the name.
        conflict_of: Option<NodeId>,
    },
    /// New metadata, new content, or both.
    Update {
        /// Which node.
        node: NodeId,
        /// New mode, owner, attributes.
        metadata: Option<Based<Metadata>>,
        /// New content of the same kind.
        content: Option<Based<Content>>,
    },
    /// A new parent or name.
    Move {
        /// Which node.
        node: NodeId,
        /// Where to.
        place: Based<Place>,
    },
    /// Delete a file, a symlink or an empty directory.
    Delete {
        /// Which node.
        node: NodeId,
        /// The place the author had seen.
        place: Version,
        /// The content the author had seen.
        content: Version,
    },
}

impl Change {
    /// The node that the change is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match self {
            Self::Create { node, .. } | Self::Update { node, .. } | Self::Move { node, .. } | Self::Delete { node, .. } => *node,
        }
    }

    /// The directory that must be there for the change to make sense.
    #[must_use]
    pub fn parent(&self) -> Option<NodeId> {
        match self {
            Self::Create { place, .. } => Some(place.parent),
            Self::Move { place, .. } => Some(place.value.parent),
            Self::Update { .. } | Self::Delete { .. } => None,
        }
    }
}

/// What tells two operations with one id apart: BLAKE3 of the change's encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Operation {
    /// The digest under which the share remembers this operation.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let bytes = postcard::to_stdvec(&(&self.group, &self.change)).expect("a change has no map keys that postcard refuses");
        Digest(*blake3::hash(&bytes).as_bytes())
    }
}

/// The share's word on one operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done, now or when it was first sent, at this version.
    Applied(Version),
    /// The base is not current, or the name is taken: by this node.
    Conflict(Box<Node>),
    /// The content is not completely in the share. As all answers it stands for this operation for ever: its author sends
    /// what is missing, and then another operation.
    Missing(Vec<ChunkId>),
    /// Not allowed.
    Refused(Refusal),
    /// Not judged, because what it depends on failed.
    Skipped,
}

/// Why an operation is not allowed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A newer run of the same server's agent exists.
    #[error("Another run of this server's agent has taken over (fenced)")]
    Fenced,
    /// The share was restored or rebuilt; the bases mean nothing now.
    #[error("The share has a new incarnation; start over")]
    Incarnation,
    /// The id was used for something else.
    #[error("The operation id was already used for another change")]
    ReusedOperation,
    /// The directory is not there.
    #[error("The directory does not exist in the share")]
    NoParent,
    /// The node is not there, and never was or is deleted.
    #[error("The node does not exist in the share")]
    NoNode,
    /// The parent is a file or a symlink.
    #[error("The parent is not a directory")]
    NotADirectory,
    /// A directory that still holds something.
    #[error("The directory is not empty in the share")]
    NotEmpty,
    /// A directory below itself.
    #[error("The move would put a directory below itself")]
    Cycle,
    /// A node never changes its kind, and the root never changes at all but in metadata.
    #[error("A node cannot change its kind, and the root cannot be moved or deleted")]
    Fixed,
    /// The share is full.
    #[error("The quota of the share is used up: {used} of {quota} bytes, {more} more are needed")]
    Quota {
        /// The limit in bytes.
        quota: u64,
        /// Bytes of all live files.
        used: u64,
        /// What the operation would add.
        more: u64,
    },
}
