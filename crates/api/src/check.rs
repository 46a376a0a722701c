//! The JSON of checks of all that a service keeps.

use serde::{Deserialize, Serialize};

use crate::path::ShownPath;

/// Most findings that are listed; all are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// Starts a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckRequest {
    /// Also read every stored byte.
    #[serde(default)]
    pub deep: bool,
    /// Also delete packs that no record names, those that a check at least a day ago has seen already.
    #[serde(default)]
    pub delete_strays: bool,
}

/// What a check looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckPhase {
    /// The trees, and what they name.
    Names,
    /// The packs that are there.
    Packs,
    /// The bytes of the packs.
    Bytes,
    /// Which files are hurt by what was found.
    Files,
    /// Nothing more.
    Done,
}

/// A file that cannot be read any more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct HurtFile {
    /// Its group.
    pub group: String,
    /// Its path in the share.
    #[serde(flatten)]
    pub path: ShownPath,
    /// Whether it is an old version only.
    pub old: bool,
}

/// A check that runs or has run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Whether it reads every stored byte.
    pub deep: bool,
    /// Where it is.
    pub phase: CheckPhase,
    /// Bytes of packs that were looked at.
    pub done_bytes: u64,
    /// Bytes of all packs, once they are known.
    pub all_bytes: u64,
    /// Live nodes.
    pub nodes: u64,
    /// Contents that live nodes and kept versions name.
    pub contents: u64,
    /// Chunks that are known.
    pub chunks: u64,
    /// Packs that are known.
    pub packs: u64,
    /// Stored packs that no record names and that are not deleted: left by an interruption, or on their way. They cost space
    /// only.
    pub stray_packs: u64,
    /// Their bytes.
    #[serde(default)]
    pub stray_bytes: u64,
    /// Such packs that this check deleted.
    #[serde(default)]
    pub deleted_strays: u64,
    /// Their bytes.
    #[serde(default)]
    pub deleted_bytes: u64,
    /// What is wrong, in words.
    pub findings: Vec<String>,
    /// How many findings there are.
    pub findings_count: u64,
    /// Files that cannot be read because of them.
    pub hurt: Vec<HurtFile>,
    /// How many such files there are.
    pub hurt_count: u64,
    /// Damaged packs of which what can be read was put into new ones.
    #[serde(default)]
    pub rewritten_packs: u64,
    /// Files that the check before found damaged and that are whole again: servers have sent them, or the fault has passed.
    #[serde(default)]
    pub repaired: u64,
    /// Why the check itself ended early.
    pub failed: Option<String>,
    /// When it began.
    pub started_ms: u64,
}
