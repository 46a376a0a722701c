//! The JSON of the management API: groups, servers, endpoints, status, barriers, conflicts, problems, audit log.
//!
//! Command line and portal use only this. Fields are added, never renamed; times are milliseconds since 1970.
//!
//! **Invariant:** a path in an answer is exact, also where it is not UTF-8 ([`ShownPath`]).

use isotherm_core::bandwidth::{InForce, Limit};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{EndpointId, Epoch, GroupId, Incarnation, NodeId, ServerId, Version};
use isotherm_core::name::Case;
use isotherm_core::node::Kind;
use isotherm_core::tiering::Policy;
use serde::{Deserialize, Serialize};

use crate::collect::CollectionWait;
use crate::path::ShownPath;
pub use crate::policy::PolicyChange;
use crate::sync::{Counts, Direction, EndpointReport, EndpointState, InitialUpload, Watch};

/// Fraction of the namespace that a plan may delete without a confirmation, where the group says nothing.
pub const MAX_DELETE_FRACTION: f64 = 0.5;

/// How long a group keeps what was deleted or replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keep {
    /// Days after which a version that was replaced or deleted may go.
    pub days: u32,
    /// So many versions of each file stay however old they are; 0: none.
    pub versions: u32,
    /// Nothing goes at all.
    pub hold: bool,
}

/// What to change of [`Keep`]; what is absent stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepChange {
    /// See [`Keep::days`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// See [`Keep::versions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<u32>,
    /// See [`Keep::hold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,
}

/// A new sync group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Its name, unique in the service.
    pub name: String,
    /// Whether names differ by case; never changes.
    #[serde(default)]
    pub case: Case,
    /// Most bytes of all live files; none: no limit.
    #[serde(default)]
    pub quota: Option<u64>,
    /// Glob patterns of what is not synced.
    #[serde(default)]
    pub exclusions: Vec<String>,
    /// See [`crate::sync::Assignment::max_delete_fraction`]; none: [`MAX_DELETE_FRACTION`].
    #[serde(default)]
    pub max_delete_fraction: Option<f64>,
    /// How long old versions are kept; what is absent is the service's default.
    #[serde(default)]
    pub keep: KeepChange,
}

/// A quota as it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// No limit.
    Unlimited,
    /// Most bytes of all live files.
    Bytes(u64),
}

/// What to change of a group; what is absent stays.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// New quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// New patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusions: Option<Vec<String>>,
    /// New fraction, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete_fraction: Option<f64>,
    /// How long old versions are kept.
    #[serde(default)]
    pub keep: KeepChange,
}

/// A sync group and its share.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// Whether names differ by case.
    pub case: Case,
    /// Version of the fold table.
    pub fold_version: u32,
    /// Most bytes of all live files; none: no limit.
    pub quota: Option<u64>,
    /// Bytes of all live files.
    pub usage: u64,
    /// Glob patterns of what is not synced.
    pub exclusions: Vec<String>,
    /// See [`crate::sync::Assignment::max_delete_fraction`].
    pub max_delete_fraction: f64,
    /// How long old versions are kept.
    pub keep: Keep,
    /// What it takes in the store, as it was measured last; none before the first collection.
    #[serde(default)]
    pub space: Option<Space>,
    /// The newest version.
    pub head: Version,
    /// This life of the share.
    pub incarnation: Incarnation,
    /// The newest barrier.
    pub barrier: u64,
    /// How many endpoints it has.
    pub endpoints: u64,
    /// When it was made.
    pub created_ms: u64,
}

/// What a group takes in the store. Content that groups share counts for each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Space {
    /// Bytes of all live files.
    pub files: u64,
    /// Bytes of the different chunks of live files and kept versions.
    pub distinct: u64,
    /// The same, compressed as they are stored.
    pub stored: u64,
    /// When this was measured.
    pub measured_ms: u64,
}

/// A registered server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Heard of within [`crate::limits::ONLINE_MS`].
    pub online: bool,
    /// When it was last heard of; none since the service started.
    pub last_seen_ms: Option<u64>,
    /// The newest epoch given to it.
    pub epoch: Epoch,
    /// Version of its agent, once it has reported.
    pub agent_version: Option<String>,
    /// How many endpoints it has.
    pub endpoints: u64,
    /// What limits its traffic with the service, and when.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// What of that is in force, by its own clock, as its agent has reported.
    #[serde(default)]
    pub in_force: InForce,
}

/// What to change of a server; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerChange {
    /// Limits of its traffic, at most [`isotherm_core::bandwidth::LIMITS_MAX`]; they replace the earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Vec<Limit>>,
}

/// A new endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEndpoint {
    /// Name of the group.
    pub group: String,
    /// Name of the server.
    pub server: String,
    /// Absolute path of the folder on the server.
    pub path: String,
    /// How its first content meets the share's.
    #[serde(default)]
    pub initial_upload: InitialUpload,
    /// Whether what others bring comes as stubs, where the volume is guarded, and cold contents go.
    #[serde(default)]
    pub tiering: bool,
    /// Which contents go; what is absent is as usual.
    #[serde(default)]
    pub policy: PolicyChange,
}

/// What to change of an endpoint; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointChange {
    /// Pause or resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// How its first content meets the share's; without effect after the first synchronisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_upload: Option<InitialUpload>,
    /// Whether what others bring comes as stubs. What is a stub stays one until somebody opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiering: Option<bool>,
    /// Which contents go.
    #[serde(default, skip_serializing_if = "PolicyChange::is_empty")]
    pub policy: PolicyChange,
}

/// A server endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Name of its group.
    pub group: String,
    /// Name of its server.
    pub server: String,
    /// Absolute path of the folder.
    pub path: String,
    /// How its first content meets the share's.
    pub initial_upload: InitialUpload,
    /// Whether what others bring comes as stubs, where the volume is guarded, and cold contents go.
    pub tiering: bool,
    /// Which contents go.
    pub policy: Policy,
    /// Nothing moves until it is resumed.
    pub paused: bool,
    /// It waits for its agent to let go.
    pub deleting: bool,
    /// How often deletes were confirmed.
    pub confirmed_deletes: u64,
    /// When it was made.
    pub created_ms: u64,
}

/// The whole service at a glance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the service's program.
    pub service_version: String,
    /// The service's clock, to which all times relate.
    pub now_ms: u64,
    /// All groups, by name.
    pub groups: Vec<GroupStatus>,
    /// All servers, by name.
    pub servers: Vec<Server>,
    /// Garbage is not collected, and for whom that waits.
    #[serde(default)]
    pub collection_waits: Option<CollectionWait>,
}

/// A group with its endpoints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: Group,
    /// Its endpoints, by server.
    pub endpoints: Vec<EndpointStatus>,
    /// Files whose content a check found damaged in the service, and no server has sent again.
    #[serde(default)]
    pub damaged: u64,
}

/// An endpoint with what its agent last said.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its server was heard of within [`crate::limits::ONLINE_MS`].
    pub online: bool,
    /// When the report came; none: no report since the service started.
    pub reported_ms: Option<u64>,
    /// The report.
    pub report: Option<ShownReport>,
}

/// A report in JSON; the problems have a list of their own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShownReport {
    /// The share's life that the endpoint follows.
    pub incarnation: Incarnation,
    /// How far it has read the share's feed.
    pub version: Version,
    /// Versions of the share that it has not read.
    pub behind: u64,
    /// Nothing is left to do in either direction, as far as the agent knows.
    pub agreed: bool,
    /// The newest barrier that is reached.
    pub barrier: u64,
    /// What it does.
    pub state: EndpointState,
    /// How it learns of changes.
    pub watch: Watch,
    /// What it holds and moves.
    pub counts: Counts,
    /// Since when something is not yet in the share.
    pub unsafe_since_ms: Option<u64>,
    /// How many problems there are.
    pub problems: u64,
    /// The latest changes.
    pub recent: Vec<ShownChange>,
}

impl ShownReport {
    /// A report as it is shown, for a share whose newest version is `head`.
    #[must_use]
    pub fn new(report: &EndpointReport, head: Version) -> Self {
        let shown = |change: &crate::sync::RecentChange| ShownChange {
            path: ShownPath::new(&change.path),
            direction: change.direction,
            delay_ms: change.delay_ms,
        };
        Self {
            incarnation: report.cursor.incarnation,
            version: report.cursor.version,
            behind: head.0.saturating_sub(report.cursor.version.0),
            agreed: report.agreed,
            barrier: report.barrier,
            state: report.state.clone(),
            watch: report.watch.clone(),
            counts: report.counts,
            unsafe_since_ms: report.unsafe_since_ms,
            problems: report.problems_total,
            recent: report.recent.iter().map(shown).collect(),
        }
    }
}

/// A change that arrived or left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShownChange {
    /// Where.
    #[serde(flatten)]
    pub path: ShownPath,
    /// Which way.
    pub direction: Direction,
    /// From the change to its arrival.
    pub delay_ms: u64,
}

/// A new barrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Barrier {
    /// Its number.
    pub barrier: u64,
}

/// Whether all endpoints have reached a barrier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BarrierStatus {
    /// The barrier.
    pub barrier: u64,
    /// All endpoints that are not paused agree with the share as it is.
    pub reached: bool,
    /// What is missing, by endpoint.
    pub missing: Vec<BarrierMissing>,
}

/// What keeps an endpoint from a barrier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BarrierMissing {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its server.
    pub server: String,
    /// Its folder.
    pub path: String,
    /// What is missing, for people.
    pub reason: String,
}

/// A conflict copy that nobody has renamed or removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// The group.
    pub group: String,
    /// The copy.
    pub node: NodeId,
    /// Where the copy is.
    #[serde(flatten)]
    pub path: ShownPath,
    /// Where the version that kept the name is; none if it was deleted.
    pub kept: Option<ShownPath>,
    /// When the copy was made.
    pub since_ms: u64,
}

/// A problem of one item at one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShownProblem {
    /// The group.
    pub group: String,
    /// The server.
    pub server: String,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Path below the endpoint.
    #[serde(flatten)]
    pub path: ShownPath,
    /// Stable word for programs.
    pub code: String,
    /// What happened.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
    /// Since when.
    pub since_ms: u64,
}

/// The problems of all endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problems {
    /// All that the endpoints have, listed or not.
    pub total: u64,
    /// What the endpoints listed.
    pub problems: Vec<ShownProblem>,
}

/// A management change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Grows with time.
    pub number: u64,
    /// When.
    pub at_ms: u64,
    /// Stable word: `group.create` and the like.
    pub action: String,
    /// What was changed, by name.
    pub subject: String,
    /// What it became.
    pub detail: String,
}

/// An entry of a directory of a share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Its name.
    #[serde(flatten)]
    pub name: ShownPath,
    /// The node.
    pub node: NodeId,
    /// File, directory or symlink.
    pub kind: Kind,
    /// Length in bytes; 0 for what is no file.
    pub size: u64,
    /// Modification time in nanoseconds since 1970; files only.
    pub modified_ns: Option<i64>,
    /// The content; files only.
    pub manifest: Option<ManifestId>,
    /// Target; symlinks only.
    pub target: Option<ShownPath>,
    /// The newest version of the node.
    pub version: Version,
}

/// What is at a path of a share: the entries of a directory, else the one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tree {
    /// The version of the share that is shown.
    pub version: Version,
    /// The entries, by name.
    pub entries: Vec<TreeEntry>,
}
