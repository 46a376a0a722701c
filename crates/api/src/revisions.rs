//! The JSON of what was: versions of a path, and bringing nodes back.
//!
//! A restore is planned in pages and then applied in pieces by the client, so that it shows progress, can be looked at
//! before, and can be broken off and begun again at any moment.
//!
//! **Invariant:** a plan changes nothing; what is applied is what a plan named, or is left alone.

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::node::Kind;
use serde::{Deserialize, Serialize};

use crate::path::ShownPath;

/// Most items of one page of a plan, and of one request that applies them.
pub const RESTORE_ITEMS_MAX: usize = 1_000;

/// One version of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionEntry {
    /// The node.
    pub node: NodeId,
    /// The version's number.
    pub version: Version,
    /// The path it had.
    #[serde(flatten)]
    pub path: ShownPath,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time in nanoseconds since 1970; none but for files.
    pub modified_ns: Option<i64>,
    /// Its content; none but for files.
    pub manifest: Option<ManifestId>,
    /// When the share got it.
    pub at_ms: u64,
    /// When the next version replaced it; none for the present one.
    pub replaced_ms: Option<u64>,
    /// The server that made it, by the last name that it had; none for the service itself, which restored it.
    pub server: Option<String>,
    /// Whether this version is the deletion.
    pub deleted: bool,
}

/// A moment of a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsOf {
    /// Milliseconds since 1970.
    Ms(u64),
    /// A version of the share.
    Version(Version),
}

/// What to bring back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum RestoreWhat {
    /// Everything as it was at a moment.
    AsOf {
        /// The moment.
        moment: AsOf,
        /// Also delete what was not there then.
        #[serde(default)]
        exact: bool,
    },
    /// What was deleted, with what went along.
    Deleted,
    /// What one server did in a span of time is undone, where nobody has changed it since.
    Server {
        /// Name of the server, or its id. A name means all servers that ever had it.
        server: String,
        /// The span's beginning.
        from_ms: u64,
        /// The span's end.
        until_ms: u64,
    },
}

/// Asks for a page of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// What is to be looked at: this path and what is below it. Empty: the whole share.
    pub path: ShownPath,
    /// What to bring back.
    #[serde(flatten)]
    pub what: RestoreWhat,
    /// Where the page before ended.
    #[serde(default)]
    pub before: Option<Version>,
}

/// How a node will change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreAction {
    /// A deleted one comes back.
    Undelete,
    /// It gets earlier content, metadata or name.
    Revert,
    /// It was not there, and is deleted.
    Delete,
    /// It is left alone, because somebody else has changed it since.
    Skip,
    /// It is left alone, because what it was is not kept any more.
    Lost,
}

/// One node of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreItem {
    /// The node.
    pub node: NodeId,
    /// Its present version.
    pub expected: Version,
    /// The version it gets again; none: it is deleted.
    pub target: Option<Version>,
    /// How it changes.
    pub action: RestoreAction,
    /// Its present path.
    #[serde(flatten)]
    pub path: ShownPath,
    /// The name it gets again, where that is another one.
    pub name: Option<ShownPath>,
    /// The path it will have, where that is another one: where it was, or beside that if the name is in use.
    #[serde(default)]
    pub to: Option<ShownPath>,
    /// Bytes of the version it gets again.
    pub size: u64,
}

/// A page of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestorePlan {
    /// What is to be done.
    pub items: Vec<RestoreItem>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<Version>,
    /// Whether there is more than one plan holds; to be asked for when this one is carried out.
    #[serde(default)]
    pub more: bool,
}

/// One node to bring back, out of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreOne {
    /// See [`RestoreItem::node`].
    pub node: NodeId,
    /// See [`RestoreItem::expected`].
    pub expected: Version,
    /// See [`RestoreItem::target`].
    pub target: Option<Version>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RestoreOutcome {
    /// Done.
    Done,
    /// Done at another path, because a name in its own is in use.
    Beside {
        /// The name.
        name: ShownPath,
        /// The whole path.
        at: ShownPath,
    },
    /// Somebody has changed it since the plan; it is left alone.
    Changed,
    /// That version is not kept any more.
    Gone,
    /// A directory that still holds something; what is in it goes first.
    Later,
    /// Refused.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Puts an earlier version of a file beside or elsewhere, as a new file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreCopy {
    /// The file's path, as it is or was.
    pub path: ShownPath,
    /// The moment.
    pub moment: AsOf,
    /// The new file's path; its directory must be there, and the name free.
    pub to: ShownPath,
}
