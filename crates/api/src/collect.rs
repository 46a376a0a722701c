//! The JSON of garbage collection.

use serde::{Deserialize, Serialize};

use crate::management::BarrierMissing;

/// Starts a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CollectRequest {
    /// Do not wait any longer for servers that have not come back since records were put back.
    #[serde(default)]
    pub waive: bool,
}

/// What a collection has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Versions that were not to be kept any longer.
    pub expired_versions: u64,
    /// Nodes that were deleted so long ago that every server has heard of it, or starts over.
    pub forgotten_nodes: u64,
    /// Answers to operations that nobody repeats any more.
    pub forgotten_answers: u64,
    /// Contents that nothing names any more.
    pub forgotten_contents: u64,
    /// Chunks that nothing names any more.
    pub condemned_chunks: u64,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Packs whose chunks were put into others.
    pub rewritten_packs: u64,
}

/// A collection that runs, or the last one since the service was started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectStatus {
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// It has ended.
    pub ended: bool,
    /// What it has done, once it has ended well.
    pub collected: Option<Collected>,
    /// Why it ended early.
    pub failed: Option<String>,
}

/// Why nothing is collected: records were put back, and what they lack may be named by servers that have not come back yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectionWait {
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// For which endpoints.
    pub missing: Vec<BarrierMissing>,
}
