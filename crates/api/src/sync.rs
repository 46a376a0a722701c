//! What an agent and the service say about the server itself: attach, assignments, reports.
//!
//! Namespace and content are in [`crate::share`]. All of it travels as binary bodies.
//!
//! **Invariant:** everything an agent sends after [`Attach`] carries its epoch, so that an older run is harmless.

use isotherm_core::ids::{Cursor, EndpointId, Epoch, GroupId, ServerId};
use isotherm_core::name::Case;
use isotherm_core::tiering::Policy;
use serde::{Deserialize, Serialize};

/// An agent starts: who it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// The server's name; it becomes part of the names of conflict copies.
    pub name: String,
    /// The id from an earlier attach; none on the first.
    pub server: Option<ServerId>,
}

/// The answer to [`Attach`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// The server's id, to be kept for ever.
    pub server: ServerId,
    /// The name under which the service knows the server.
    pub name: String,
    /// The epoch of this run; all earlier ones are refused from now on.
    pub epoch: Epoch,
    /// Version of the service's program.
    pub service_version: String,
}

/// How an endpoint's first content meets the share's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitialUpload {
    /// Both sides are kept; equal content is one, different content makes conflict copies.
    #[default]
    Merge,
    /// The server's state is the truth: what only the share has goes.
    Authoritative,
}

/// One endpoint of the asking server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its sync group.
    pub group: GroupId,
    /// The group's name.
    pub group_name: String,
    /// Whether names of the share differ by case.
    pub case: Case,
    /// Version of the fold table that the share was made with.
    pub fold_version: u32,
    /// Glob patterns of what is not synced.
    pub exclusions: Vec<String>,
    /// A plan that deletes more than this fraction of the namespace waits for a confirmation. From 0 to 1.
    pub max_delete_fraction: f64,
    /// Absolute path of the folder.
    pub path: String,
    /// Nothing moves until it is resumed.
    pub paused: bool,
    /// The endpoint goes: the agent lets go of the folder, keeps the files, and reports [`EndpointState::Removed`].
    pub deleting: bool,
    /// What becomes of its stubs then.
    #[serde(default)]
    pub on_stubs: OnStubs,
    /// How its first content meets the share's.
    pub initial_upload: InitialUpload,
    /// Whether what others bring comes as stubs, where the volume is guarded.
    #[serde(default)]
    pub tiering: bool,
    /// Which contents go, where it is.
    #[serde(default)]
    pub policy: Policy,
    /// How often an operator confirmed deletes; one that is greater than what the agent has seen confirms the present plan.
    pub confirmed_deletes: u64,
    /// The newest barrier of the group: to be reported once all that was changed before it arrived is in agreement.
    pub barrier: u64,
}

/// What becomes of the stubs of an endpoint that is deleted: nobody answers for them any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStubs {
    /// The endpoint stays as long as it has any.
    #[default]
    Wait,
    /// Their content is brought back first.
    Recall,
    /// They stay what they are: of use only to an endpoint of the same share on the same folder.
    Leave,
}

/// All endpoints of a server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Assignments {
    /// To be given with the next request, which then waits until it is another.
    pub revision: u64,
    /// The endpoints, by id.
    pub endpoints: Vec<Assignment>,
}

/// An agent's word on its server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// This run.
    pub epoch: Epoch,
    /// Version of the agent's program.
    pub agent_version: String,
    /// One for each endpoint.
    pub endpoints: Vec<EndpointReport>,
}

/// How one endpoint is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointReport {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How far it has read the share's feed.
    pub cursor: Cursor,
    /// Folder and share are equal as far as the agent knows: nothing is left to do in either direction.
    pub agreed: bool,
    /// The newest barrier that is reached.
    pub barrier: u64,
    /// What it does.
    pub state: EndpointState,
    /// How it learns of changes.
    pub watch: Watch,
    /// What it holds and moves.
    pub counts: Counts,
    /// Since when something is not yet in the share, in milliseconds since 1970.
    pub unsafe_since_ms: Option<u64>,
    /// The first [`crate::limits::PROBLEMS_MAX`] problems.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problems_total: u64,
    /// The latest changes that arrived or left, newest first, at most [`crate::limits::RECENT_MAX`].
    pub recent: Vec<RecentChange>,
}

/// What an endpoint does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It compares the folder with what it knows.
    Scanning,
    /// Changes are on their way.
    Syncing,
    /// Folder and share are equal.
    Synced,
    /// The service cannot be reached; told by the agent's own status only.
    Offline,
    /// Paused by an operator.
    Paused,
    /// It does nothing before somebody acts.
    Stopped {
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A plan would delete too much.
    WaitingForConfirmation {
        /// Nodes that it would delete.
        deletes: u64,
        /// Nodes that there are.
        of: u64,
    },
    /// It is to be deleted and has stubs.
    HoldsStubs {
        /// How many.
        files: u64,
    },
    /// The answer to `deleting`: the agent has let go of the folder.
    Removed,
}

/// How an endpoint learns of local changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// The kernel tells.
    Events,
    /// It looks again and again.
    Scan {
        /// Why the kernel cannot tell.
        reason: String,
    },
}

/// Numbers of one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Files and symlinks.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files whose content is only in the share.
    #[serde(default)]
    pub tiered_files: u64,
    /// Their bytes.
    #[serde(default)]
    pub tiered_bytes: u64,
    /// Local changes that are not in the share.
    pub unsynced_items: u64,
    /// Their bytes.
    pub unsynced_bytes: u64,
    /// Items on their way up.
    pub up_items: u64,
    /// Bytes on their way up.
    pub up_bytes: u64,
    /// Bytes a second, upwards.
    pub up_bytes_per_s: u64,
    /// Items on their way down.
    pub down_items: u64,
    /// Bytes on their way down.
    pub down_bytes: u64,
    /// Bytes a second, downwards.
    pub down_bytes_per_s: u64,
}

/// Something that failed for one item; it is tried again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Path below the endpoint.
    pub path: Vec<u8>,
    /// Stable word for programs.
    pub code: String,
    /// What happened.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Which way a change went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the folder to the share.
    Up,
    /// From the share to the folder.
    Down,
}

/// A change that arrived or left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecentChange {
    /// Path below the endpoint.
    pub path: Vec<u8>,
    /// Which way.
    pub direction: Direction,
    /// From the change to its arrival, in milliseconds.
    pub delay_ms: u64,
}
