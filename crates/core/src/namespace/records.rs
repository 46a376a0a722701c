//! What the rules need to keep: the seam between them and a database.

use serde::{Deserialize, Serialize};

use super::lives::Life;
use super::operation::{Answer, Digest};
use crate::content::{ChunkId, ManifestId};
use crate::ids::{Epoch, Incarnation, NodeId, OperationId, ServerId, Version};
use crate::name::Case;
use crate::node::Node;

/// A share as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// This life of the share.
    pub incarnation: Incarnation,
    /// The newest version that was given out.
    pub head: Version,
    /// Deletes up to here are forgotten; a cursor before it starts over.
    pub horizon: Version,
    /// Whether names differ by case.
    pub case: Case,
    /// Most bytes that all live files may have together; none: no limit.
    pub quota: Option<u64>,
    /// Bytes of all live files.
    pub used: u64,
}

/// The records of one share, inside one transaction of whoever keeps them. Reads see the writes before them.
///
/// A failing database is not a decision, so each method can fail with the implementation's own error, and the
/// caller rolls the transaction back.
pub trait Records {
    /// What reading or writing can fail with.
    type Error;

    /// The share.
    fn share(&self) -> Result<Share, Self::Error>;

    /// The lives that have ended, the oldest first; of very many the newest [`super::LIVES_MAX`].
    fn lives(&self) -> Result<Vec<Life>, Self::Error>;

    /// Keeps head and use.
    fn set_share(&mut self, share: Share) -> Result<(), Self::Error>;

    /// A node, deleted ones too.
    fn node(&self, id: NodeId) -> Result<Option<Node>, Self::Error>;

    /// The live node with this key ([`crate::name::Name::key`]) in a directory.
    fn child(&self, parent: NodeId, key: &[u8]) -> Result<Option<NodeId>, Self::Error>;

    /// Live nodes of a directory, at most `limit`, in any order.
    fn children(&self, parent: NodeId, limit: usize) -> Result<Vec<NodeId>, Self::Error>;

    /// Keeps a node's new version; the version before it stays as a revision.
    fn put(&mut self, node: Node) -> Result<(), Self::Error>;

    /// Nodes with `versions.last` after `after`, by that version, at most `limit`.
    fn changed_after(&self, after: Version, limit: usize) -> Result<Vec<Node>, Self::Error>;

    /// Every manifest that a node ever had, newest first, at most `limit`.
    fn history(&self, node: NodeId, limit: usize) -> Result<Vec<ManifestId>, Self::Error>;

    /// What was answered to an operation, and what it was.
    fn answered(&self, id: OperationId) -> Result<Option<(Digest, Answer)>, Self::Error>;

    /// Remembers an answer to the tombstone horizon.
    fn remember(&mut self, id: OperationId, digest: Digest, answer: &Answer) -> Result<(), Self::Error>;

    /// The newest epoch given to a server.
    fn epoch(&self, server: ServerId) -> Result<Epoch, Self::Error>;

    /// Chunks that a content lacks: the manifest's own id where the manifest itself is not there (then nothing more
    /// is known), else the chunks that are absent or condemned. Empty: complete. Locks what it finds present
    /// against collection until the transaction ends.
    fn missing(&self, manifest: ManifestId) -> Result<Vec<ChunkId>, Self::Error>;
}
